"""Keep generated tables in documents, between the markers ``<!-- NAME -->`` and ``<!-- /NAME -->``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from capsule_edge.runtime.errors import InputError

from ._files import write_text

__all__ = ["between", "to_table", "update_document"]


def to_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: int = 0) -> str:
    """Return a Markdown table whose last ``right`` columns are aligned to the right."""
    rule = ["---"] * (len(head) - right) + ["---:"] * right
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *rows))


def between(path: Path, mark: str) -> tuple[str, str, str]:
    """Return the text of a document before, between and after the markers of ``mark``.

    Raises:
        InputError: The document cannot be read, or does not hold both markers once and in order.
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
    """Replace the text between the markers of ``mark`` by ``table``, completely or not at all.

    Raises:
        InputError: The document cannot be read or lacks the markers.
        OutputError: The document cannot be written.
    """
    before, _, after = between(path, mark)
    write_text(path, f"{before}\n{table}\n{after}")
