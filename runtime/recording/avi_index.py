"""Read the index of an AVI (``idx1``; Microsoft, AVI RIFF File Reference)."""

from __future__ import annotations

from typing import BinaryIO

__all__ = ["count_last_empty"]

_MOST_CHUNKS = 1 << 10
_MOST_BYTES = 1 << 26


def count_last_empty(file: BinaryIO) -> int:
    """Return how many empty places for a frame the index of an AVI has behind its last frame.

    An empty place means "show the last frame again". The header counts it as a frame.
    """
    index = _read_index(file)
    entries = (index[at : at + 16] for at in range(0, len(index) - 15, 16))
    video = [entry for entry in entries if entry[2:4] in (b"dc", b"db")]
    return next((count for count, entry in enumerate(reversed(video)) if any(entry[12:16])), 0)


def _read_index(file: BinaryIO) -> bytes:
    at = 12
    for _ in range(_MOST_CHUNKS):
        file.seek(at)
        head = file.read(8)
        length = int.from_bytes(head[4:8], "little")
        if head[:4] == b"idx1":
            return file.read(min(length, _MOST_BYTES))
        if len(head) < 8 or head[:4] not in (b"LIST", b"JUNK"):
            break
        at += 8 + length + length % 2
    return b""
