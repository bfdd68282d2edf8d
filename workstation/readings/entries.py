"""Check what a reader enters: texts, labels, dates, frames, ranges and times. What is entered is kept as it is."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from datetime import date

from .ranges import Ranges, unite
from .reading_errors import ReadingValueError

__all__ = [
    "LONGEST_TEXT",
    "MOST_RANGES",
    "OTHER",
    "check_choice",
    "check_date",
    "check_frame",
    "check_id",
    "check_label",
    "check_range",
    "check_ranges",
    "check_seconds",
    "check_text",
]

LONGEST_TEXT = 4000
"""Number of characters of the longest text."""
MOST_RANGES = 5000
"""Number of ranges in one list; the page reports every few seconds, with some hundred frames at most."""
OTHER = "other: "
"""Beginning of a label in the reader's own words."""


def check_text(text: object, *, name: str, empty: bool = True) -> str:
    """Return a text as it is.

    Args:
        text: any value.
        name: of the text, for the error.
        empty: whether it may be empty or blank.

    Raises:
        ReadingValueError: it is no text, too long, not valid Unicode, or empty where it may not be.
    """
    if not isinstance(text, str):
        raise ReadingValueError(f"{name} is no text ({type(text).__name__}), allowed is a text")
    if len(text) > LONGEST_TEXT:
        raise ReadingValueError(f"{name} has {len(text):,} characters, allowed are {LONGEST_TEXT:,}")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ReadingValueError(f"{name} holds a NUL or half a surrogate pair, allowed is any other text")
    if not empty and not text.strip():
        raise ReadingValueError(f"{name} is empty, a text is needed")
    return text


def check_date(text: object, *, name: str, latest: str | None = None) -> str:
    """Return a date as ``YYYY-MM-DD``, or an empty text.

    Args:
        text: the date.
        name: of its field, for the message.
        latest: the last day that is allowed; None for any.

    Raises:
        ReadingValueError: it is neither, or it is a later day.
    """
    checked = check_text(text, name=name)
    if not checked:
        return checked
    try:
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", checked, re.ASCII):
            raise ValueError
        date.fromisoformat(checked)
    except ValueError:
        shown = checked[:20]
        raise ReadingValueError(
            f"{name} is {shown!r}, allowed is a date as YYYY-MM-DD or an empty text"
        ) from None
    if latest is not None and checked > latest:
        raise ReadingValueError(f"{name} is {checked}, allowed is a day up to {latest}")
    return checked


def check_choice(value: object, *, name: str, allowed: Collection[str]) -> str:
    """Return one of the words that are allowed.

    Raises:
        ReadingValueError: it is another.
    """
    if not isinstance(value, str) or value not in allowed:
        raise ReadingValueError(f"{name} is {str(value)[:40]!r}, allowed is one of {', '.join(allowed)}")
    return value


def check_id(value: object, *, name: str) -> str:
    """Return an identifier of 32 hexadecimal digits.

    Raises:
        ReadingValueError: it has another form.
    """
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{32}", value, re.ASCII):
        raise ReadingValueError(f"{name} is {str(value)[:40]!r}, allowed are 32 hexadecimal digits")
    return value


def check_label(label: object, *, labels: Collection[str]) -> str:
    """Return a label of the model, or one in the reader's own words (``other: text``).

    Raises:
        ReadingValueError: it is neither.
    """
    text = check_text(label, name="the label", empty=False)
    if text in labels or (text.startswith(OTHER) and text[len(OTHER) :].strip()):
        return text
    raise ReadingValueError(
        f"the label is {text[:40]!r}, allowed is one of {', '.join(labels)}, or '{OTHER}' and a text"
    )


def check_frame(index: object, *, frames: int, name: str) -> int:
    """Return the index of a frame of the recording.

    Raises:
        ReadingValueError: it is no index of this recording.
    """
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < frames:
        raise ReadingValueError(f"{name} is {str(index)[:40]}, allowed is 0 to {frames - 1}")
    return index


def check_range(start: object, end: object, *, frames: int, name: str) -> tuple[int, int]:
    """Return a half-open range of frames of the recording, with one frame at least.

    Raises:
        ReadingValueError: it is empty, or leaves the recording.
    """
    whole = isinstance(start, int) and isinstance(end, int) and not isinstance(start, bool | None)
    if whole and not isinstance(end, bool) and 0 <= start < end <= frames:  # type: ignore[operator]
        return start, end  # type: ignore[return-value]
    raise ReadingValueError(
        f"{name} is {str(start)[:20]} to {str(end)[:20]}, allowed is a start before an end within 0 to {frames}",
        hint="the end is the frame after the last",
    )


def check_ranges(ranges: Sequence[Sequence[object]], *, frames: int, name: str) -> Ranges:
    """Return the frames of a list of half-open ranges, in order and joined where they touch.

    Raises:
        ReadingValueError: a range is empty or leaves the recording, or there are too many.
    """
    if len(ranges) > MOST_RANGES:
        raise ReadingValueError(f"{name} has {len(ranges):,} ranges, allowed are {MOST_RANGES:,} at a time")
    checked = []
    for pair in ranges:
        if len(pair) != 2:
            raise ReadingValueError(f"a range of {name} has {len(pair)} numbers, allowed is [start, end]")
        checked.append(check_range(pair[0], pair[1], frames=frames, name=f"a range of {name}"))
    return unite(checked)


def check_seconds(seconds: object, *, name: str = "the time taken") -> float:
    """Return a duration in seconds, not negative.

    Raises:
        ReadingValueError: it is no such number.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise ReadingValueError(f"{name} is {str(seconds)[:40]}, allowed is a number of seconds")
    if not math.isfinite(seconds) or not 0 <= seconds <= 1e9:
        raise ReadingValueError(f"{name} is {seconds} s, allowed is 0 or more")
    return float(seconds)
