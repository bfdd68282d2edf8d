"""Append blocks of bytes, each with a checksum, to a file; ignore blocks that a crash left half written."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..errors import OutputError
from .atomic import reason

__all__ = ["BlockFile"]

_HEAD = struct.Struct("<II")  # length of the block in bytes, CRC-32 of the block
# A damaged length must not cause a read of gigabytes. A block holds one batch, some kilobytes.
_MOST_BYTES = 1 << 26


class BlockFile:
    """A file of blocks. Every method raises ``OutputError`` if the file cannot be read or written.

    Blocks that were appended before an error stay whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._end = 0
        self._file: int | None = None

    def open(self, kept: int) -> None:
        """Open the file for appending; keep its first ``kept`` bytes and cut off the rest."""
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            os.ftruncate(self._file, kept)
            os.lseek(self._file, kept, os.SEEK_SET)
        except OSError as error:
            raise self._error(error) from error
        self._end = kept

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        if self._file is not None:
            with suppress(OSError):
                os.close(self._file)
            self._file = None

    def append(self, payload: bytes) -> None:
        """Append a block, at most 64 MiB. If that fails, remove the part of it that was written."""
        if self._file is None:
            raise RuntimeError("open the file first")
        block = memoryview(_HEAD.pack(len(payload), zlib.crc32(payload)) + payload)
        size = len(block)
        try:
            while block:
                block = block[os.write(self._file, block) :]
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self._end)
                os.lseek(self._file, self._end, os.SEEK_SET)
            raise self._error(error) from error
        self._end += size

    def _error(self, error: OSError) -> OutputError:
        return OutputError(
            f"{self.path.parent} cannot be written: {reason(error)}",
            hint="free some space or choose another --out",
        )

    def read(self, most: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Yield the end of each whole block in the file and the bytes of the block, up to the first damaged block.

        Args:
            most: stop after so many blocks; None reads all.
        """
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._error(error) from error
        with file:
            count = 0
            while most is None or count < most:
                head = file.read(_HEAD.size)
                if len(head) < _HEAD.size:
                    return
                size, checksum = _HEAD.unpack(head)
                payload = file.read(size) if size <= _MOST_BYTES else b""
                # An empty block has checksum 0, and a power cut can leave a file that ends in zeros: that is the end.
                if not payload or len(payload) != size or zlib.crc32(payload) != checksum:
                    return
                yield file.tell(), payload
                count += 1
