"""A file of blocks, each whole or not there: whatever a dying process or a power cut leaves is cut off."""

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

_HEAD = struct.Struct("<II")  # bytes of the block, their CRC-32
# A damaged length must not make anyone read gigabytes; a batch has kilobytes.
_MOST_BYTES = 1 << 26


class BlockFile:
    """Raises ``OutputError`` where the file cannot be read or written; what was appended before stays whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._end = 0
        self._file: int | None = None

    def open(self, kept: int) -> None:
        """Begin to append behind the first ``kept`` bytes; the rest is cut off."""
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            os.ftruncate(self._file, kept)
            os.lseek(self._file, kept, os.SEEK_SET)
        except OSError as error:
            raise self._refusal(error) from error
        self._end = kept

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                os.close(self._file)
            self._file = None

    def append(self, payload: bytes) -> None:
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
            raise self._refusal(error) from error
        self._end += size

    def _refusal(self, error: OSError) -> OutputError:
        return OutputError(
            f"{self.path.parent} cannot be written: {reason(error)}",
            hint="free some space or choose another --out",
        )

    def read(self, most: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Where each whole block ends, and what it holds; the first is the identity."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._refusal(error) from error
        with file:
            count = 0
            while most is None or count < most:
                head = file.read(_HEAD.size)
                if len(head) < _HEAD.size:
                    return
                size, checksum = _HEAD.unpack(head)
                payload = file.read(size) if size <= _MOST_BYTES else b""
                # Of none is the checksum 0: what a power cut may leave is a file that ends in zeros.
                if not payload or len(payload) != size or zlib.crc32(payload) != checksum:
                    return
                yield file.tell(), payload
                count += 1
