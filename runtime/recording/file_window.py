"""Parts of a file, as if they were a file of their own."""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

__all__ = ["FileWindow", "FragmentedFile", "StoredFile"]

_BUFFER = 1 << 16


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


@dataclass(frozen=True)
class FragmentedFile:
    """A bit stream that lies in fragments inside another file. The scanner takes it in place of a path.

    Attributes:
        path: of the file.
        fragments: (start, end) of each fragment in the file, bytes, in the order of the stream.
    """

    path: Path
    fragments: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        return str(self.path)

    @property
    def size(self) -> int:
        """Length of the bit stream in bytes."""
        return sum(end - start for start, end in self.fragments)

    def open(self, mode: Literal["rb"]) -> BinaryIO:
        """Open the bit stream for reading. The caller closes it."""
        file = self.path.open(mode, buffering=0)
        return cast(BinaryIO, io.BufferedReader(_Fragments(file, self.fragments), _BUFFER))

    def stat(self) -> os.stat_result:
        """Return the status of the file, with the length of the bit stream as its size."""
        found = tuple(self.path.stat())
        return os.stat_result((*found[:6], self.size, *found[7:10]))


# What the scanner reads: a file, or a bit stream inside one.
StoredFile = Path | FragmentedFile


class _Fragments(io.RawIOBase):
    """The fragments of a file, one behind the other. Closes the file."""

    def __init__(self, file: io.FileIO, fragments: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        self._file, self._fragments = file, fragments
        self._ends = list(accumulate(end - start for start, end in fragments))
        self._size = self._ends[-1] if self._ends else 0
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        # The first fragment that ends behind the position. Fragments may be empty.
        number = bisect_right(self._ends, self._at)
        if number == len(self._ends):
            return 0
        start, end = self._fragments[number]
        before = self._ends[number] - (end - start)
        self._file.seek(start + self._at - before)
        room = memoryview(buffer).cast("B")
        count = self._file.readinto(room[: self._ends[number] - self._at]) or 0
        self._at += count
        return count

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
