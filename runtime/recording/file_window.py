"""A part of a file, as if it were a file of its own."""

from __future__ import annotations

import os
from typing import BinaryIO

__all__ = ["FileWindow"]


class FileWindow:
    """Read the bytes of a file from one position up to another. FFmpeg takes it in place of a path.

    Args:
        file: opened for reading; the window does not close it.
        start, end: positions in bytes.
    """

    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        self._file, self._start, self._size = file, start, max(0, end - start)
        self._at = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position and return it; positions are relative to the window's start."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def read(self, count: int = -1) -> bytes:
        """Return up to ``count`` bytes; nothing behind the window's end."""
        left = max(0, self._size - self._at)
        self._file.seek(self._start + self._at)
        data = self._file.read(left if count < 0 else min(count, left))
        self._at += len(data)
        return data
