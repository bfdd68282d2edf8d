"""A cache that is bounded in bytes and drops what was not used for longest."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["ByteCache"]

T = TypeVar("T")


class ByteCache(Generic[T]):
    """Keep values up to a number of bytes. Any thread may use it.

    Args:
        most_bytes: the values together are never larger. A value that is larger by itself is not kept.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._kept: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """Size of the values that are kept."""
        return self._bytes

    def find(self, key: Hashable) -> T | None:
        """Return a value that is kept and mark it as used; None where it is not there."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            self._kept.move_to_end(key)
            return found[0]

    def holds(self, key: Hashable) -> bool:
        """Return whether a value is kept, without marking it as used."""
        with self._lock:
            return key in self._kept

    def keep(self, key: Hashable, value: T, size: int) -> None:
        """Keep a value of ``size`` bytes, and drop others to make room."""
        with self._lock:
            self._drop(key)
            if size > self.most_bytes:
                return
            self._kept[key] = value, size
            self._bytes += size
            while self._bytes > self.most_bytes:
                self._bytes -= self._kept.popitem(last=False)[1][1]

    def forget(self, keys: set[Hashable] | list[Hashable]) -> None:
        """Drop some values."""
        with self._lock:
            for key in keys:
                self._drop(key)

    def forget_owner(self, owner: Hashable) -> None:
        """Drop every value whose key is a tuple that begins with ``owner``."""
        with self._lock:
            for key in [each for each in self._kept if isinstance(each, tuple) and each[0] == owner]:
                self._drop(key)

    def clear(self) -> None:
        """Drop every value."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0

    def _drop(self, key: Hashable) -> None:
        found = self._kept.pop(key, None)
        if found is not None:
            self._bytes -= found[1]
