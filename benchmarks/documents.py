"""Tables that are made of results, put between markers in a document: ``<!-- NAME -->`` and ``<!-- /NAME -->``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from capsule_edge.runtime.errors import InputError, OutputError

__all__ = ["between", "to_table", "update_document"]


def to_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: int = 0) -> str:
    """Markdown; the last ``right`` columns are set to the right."""
    rule = ["---"] * (len(head) - right) + ["---:"] * right
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *rows))


def between(path: Path, mark: str) -> tuple[str, str, str]:
    """The document before, between and behind the markers. Raises ``InputError`` where it does not have both, once."""
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
    """Put ``table`` between the markers, whole or not at all. Raises ``InputError`` where there are none."""
    before, _, behind = between(path, mark)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(f"{before}\n{table}\n{behind}", encoding="utf-8", newline="\n")
        os.replace(partial, path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from None
