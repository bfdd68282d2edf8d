"""Put tables that are made from results into documents, between ``<!-- NAME -->`` and ``<!-- /NAME -->``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.results import commit_files

__all__ = ["between", "to_table", "update_document"]


def to_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: int = 0) -> str:
    """Return a Markdown table. The last ``right`` columns are aligned to the right."""
    rule = ["---"] * (len(head) - right) + ["---:"] * right
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *rows))


def between(path: Path, mark: str) -> tuple[str, str, str]:
    """Split a document at its markers.

    Args:
        path: Markdown file.
        mark: name of the markers.

    Returns:
        The text up to the first marker (included), the text between them without newlines at its ends, and the text
        from the second marker on.

    Raises:
        InputError: the file cannot be read, or does not have each marker once and in order.
    """
    first, last = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if text.count(first) != 1 or text.count(last) != 1 or text.index(first) > text.index(last):
        raise InputError(f"{path} has no place for the table", hint=f"put {first} and {last} around it")
    start, end = text.index(first) + len(first), text.index(last)
    return text[:start], text[start:end].strip("\n"), text[end:]


def update_document(path: Path, table: str, *, mark: str = "table") -> None:
    """Replace the text between the markers of a document with ``table``.

    Raises:
        InputError: the document lacks the markers (``between``).
        OutputError: the document cannot be written; it is as before.
    """
    before, _, after = between(path, mark)
    commit_files(path.parent, {path.name: f"{before}\n{table}\n{after}".encode()}, sign=path.name)
