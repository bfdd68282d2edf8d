"""Times of a recording: positions as people write them (``hh:mm:ss``), and whose clock a file keeps."""

from __future__ import annotations

import re
from typing import Literal

from ..errors import UsageError

__all__ = ["TimeKind", "clock", "parse_clock", "plain_seconds", "time_kind"]

TimeKind = Literal["capture", "playback"]


def clock(seconds: float, *, tenths: bool = False) -> str:
    """Return a time as ``hh:mm:ss``, or with ``tenths`` as ``hh:mm:ss.d``; cut, not rounded, as players do."""
    # Other files have six decimals. Without this rounding, 2.3 (stored as 2.2999999) would be cut to 2.2.
    deci = int(round(seconds * 1e6) // 100_000)
    text = f"{deci // 36000:02d}:{deci // 600 % 60:02d}:{deci // 10 % 60:02d}"
    return f"{text}.{deci % 10}" if tenths else text


def plain_seconds(seconds: float) -> str:
    """Return seconds with at most six decimals and without an exponent, as ``--start`` takes them."""
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


def parse_clock(text: str, *, name: str, hint: str = "") -> float:
    """Return the seconds of ``[[HH:]MM:]SS[.fff]``; without a colon, any number of seconds.

    Args:
        text: the time.
        name: what the time belongs to, for the error message.
        hint: for the error.

    Raises:
        UsageError: for any other text.
    """
    match = re.fullmatch(r"(?:(?:(\d{1,9}):)?([0-5]?\d):)?(\d+(?:\.\d+)?)", text.strip(), re.ASCII)
    hours, minutes, seconds = match.groups(default="") if match else ("", "", "")
    if not match or (minutes and float(seconds) >= 60):
        raise UsageError(f"{name} is {text!r}, allowed is HH:MM:SS, MM:SS or seconds", hint=hint)
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(seconds)


def time_kind(frame_distance_s: float | None) -> TimeKind:
    """Return ``capture`` for a file that keeps the capsule's timing, else ``playback``.

    Capsules record 2 to 6 frames a second, and exported files play at 25 to 30.

    Args:
        frame_distance_s: median distance between frames in seconds; None for a single frame.
    """
    return "capture" if frame_distance_s is not None and frame_distance_s >= 0.1 else "playback"
