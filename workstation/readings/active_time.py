"""Bound the time of active reading that pages report by the time that has really passed."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["ActiveTime"]

# Pages report every few seconds, and once more when they are closed.
_LONGEST_S = 60.0
_MOST_READINGS = 1000


class ActiveTime:
    """Times at which each reading last reported. Any thread may use it.

    It uses the clock that nobody can set, so a change of the computer's time adds nothing to a reading. Two windows
    with one reading together report no more than the time that has passed.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin without reports.

        Args:
            clock: returns seconds that never run backwards.
        """
        self._clock = clock
        self._last: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def passed(self, reading_id: str) -> float:
        """Return the seconds since the last report of a reading, a minute at most, and note the time of this one."""
        with self._lock:
            now = self._clock()
            before = self._last.pop(reading_id, None)
            self._last[reading_id] = now
            while len(self._last) > _MOST_READINGS:
                self._last.popitem(last=False)
        return _LONGEST_S if before is None else min(now - before, _LONGEST_S)
