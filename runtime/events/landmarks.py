"""Locate events in the gut: landmarks set by hand or found by the model, and transit times.

A landmark is the first image of the segment that follows it, as in other reading software (first gastric, first
duodenal, first caecal image); ``end`` is where the examination stops. Times of marks are container time, transit times
are capture time. What is not known is None: a segment is never guessed from silence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from ..errors import UsageError
from ..recording import parse_clock, plain_seconds
from ..study import Event, Study
from .rules import capture_scale, median_frame_distance
from .stream import find_events

__all__ = [
    "LANDMARKS",
    "Landmarks",
    "Mark",
    "Position",
    "Segment",
    "Stretch",
    "TransitTimes",
    "check_landmarks",
    "locate_events",
    "locate_time",
    "parse_landmarks",
    "transit_times",
]

# Name of each landmark and the meaning of its time, in the order in which a capsule passes them.
LANDMARKS: Mapping[str, str] = {
    "stomach": "first picture of the stomach",
    "small-bowel": "first picture of the duodenum, the pylorus passed",
    "colon": "first picture of the caecum, the ileocaecal valve passed",
    "end": "end of the examination: excretion, or the last picture worth reading",
}
Segment = Literal["oesophagus", "stomach", "small-bowel", "colon", "after-end"]
_SEGMENT_BEFORE: Mapping[str, Segment] = {
    "stomach": "oesophagus", "small-bowel": "stomach", "colon": "small-bowel", "end": "colon",
}  # fmt: skip

# Model labels whose end is a landmark, by the letters of their key: data sets spell them with and without hyphens,
# British and American.
_PASSAGES: Mapping[str, str] = {
    "pylorus": "small-bowel",
    "ileocaecalvalve": "colon",
    "ileocecalvalve": "colon",
}


@dataclass(frozen=True)
class Mark:
    """One landmark at ``time_s`` of container time. ``label`` is the model's, None where set by hand."""

    name: str
    time_s: float
    source: Literal["hand", "model"]
    label: str | None = None


@dataclass(frozen=True)
class Position:
    """The place of an event's peak: its segment, and the ``share`` of its transit, 0..1 (None if an end is unknown)."""

    event: int
    segment: Segment | None
    share: float | None


@dataclass(frozen=True)
class Stretch:
    """The part of a recording between two known landmarks, before the first, or after the last.

    Attributes:
        segment: None where a landmark in between may have been passed unseen.
        after: name of the landmark at its beginning; None before the first.
        end_s: container time of its end; None where it is open.
        begin_s: container time of its beginning; None where its transit does not begin in the recording.
    """

    segment: Segment | None
    after: str | None
    end_s: float | None
    begin_s: float | None


@dataclass(frozen=True)
class TransitTimes:
    """Transit times in seconds of capture time; None where unknown.

    Attributes:
        gastric_s: from the stomach, or from the start of the recording, to the small bowel.
        gastric_from: where ``gastric_s`` starts.
        small_bowel_s: from the small bowel to the colon.
        colon_s: from the colon to the end.
        unknown: why a transit time is None although both marks are there.
    """

    gastric_s: float | None
    gastric_from: Literal["stomach", "recording"] | None
    small_bowel_s: float | None
    colon_s: float | None
    unknown: Literal["capture rate"] | None


@dataclass(frozen=True)
class Landmarks:
    """Everything that is known about the capsule's passage.

    Attributes:
        marks: the landmarks, in anatomical order.
        gastric_s, small_bowel_s, colon_s: transit times, seconds of capture time; None where unknown.
        gastric_from: where ``gastric_s`` starts: at the ``stomach`` mark, or at the start of the recording.
        transit_unknown: why a transit time is None although both marks are there.
        positions: of the study's events.
        stretches: the parts of the recording between the marks.
    """

    marks: tuple[Mark, ...]
    gastric_s: float | None
    gastric_from: Literal["stomach", "recording"] | None
    small_bowel_s: float | None
    colon_s: float | None
    transit_unknown: Literal["capture rate"] | None
    positions: tuple[Position, ...]
    stretches: tuple[Stretch, ...]


def parse_landmarks(texts: Sequence[str], *, recordings: int = 1) -> dict[str, float]:
    """Return the landmarks given as ``NAME=TIME``, as seconds by name.

    Args:
        texts: such as ``small-bowel=00:41:10``; a time is ``[[HH:]MM:]SS[.fff]``.
        recordings: number of recordings that are read. Landmarks belong to one.

    Raises:
        UsageError: a text has another form, a name is given twice, or there are several recordings.
    """
    if texts and recordings > 1:
        raise UsageError(
            f"landmarks belong to one recording, {recordings} were given", hint="read them one by one"
        )
    marks: dict[str, float] = {}
    for text in texts:
        name, time_s = _parse(text)
        if name in marks:
            raise UsageError(f"landmark {name} was given twice, allowed is each name once")
        marks[name] = time_s
    return marks


def _parse(text: str) -> tuple[str, float]:
    name, separator, time = text.partition("=")
    name = name.strip().lower()
    if not separator or name not in LANDMARKS:
        raise UsageError(
            f"the landmark is {text!r}, allowed is NAME=TIME with a NAME of {', '.join(LANDMARKS)}",
            hint="for example --landmark small-bowel=00:41:10",
        )
    hint = "for example --landmark small-bowel=00:41:10"
    return name, parse_clock(time, name=f"the time of landmark {name}", hint=hint)


def check_landmarks(marks: Mapping[str, float], *, last_s: float) -> dict[str, float]:
    """Return the landmarks set by hand in anatomical order.

    Args:
        marks: seconds of container time by name.
        last_s: end of the recording.

    Raises:
        UsageError: a name is unknown, a time lies outside the recording, or the marks are out of order.
    """
    for name, time_s in marks.items():
        if name not in LANDMARKS:
            raise UsageError(f"the landmark is {name!r}, allowed is one of {', '.join(LANDMARKS)}")
        if isinstance(time_s, bool) or not isinstance(time_s, int | float) or not math.isfinite(time_s):
            raise UsageError(f"the time of landmark {name} is {time_s!r}, allowed is a number of seconds")
        if not 0 <= time_s <= last_s:
            raise UsageError(
                f"landmark {name} is at {plain_seconds(time_s)} s, allowed is 0 to {plain_seconds(last_s)} s, "
                "the recording's end",
                hint="give the time that a player shows, counted from the first frame",
            )
    ordered = {name: float(marks[name]) for name in LANDMARKS if name in marks}
    names = list(ordered)
    for before, after in pairwise(names):
        if ordered[before] >= ordered[after]:
            raise UsageError(
                f"landmark {before} is at {plain_seconds(ordered[before])} s and {after} at "
                f"{plain_seconds(ordered[after])} s, "
                f"allowed is {before} before {after}"
            )
    return ordered


def locate_events(study: Study) -> Landmarks:
    """Return the marks, the transit times and the positions of the study's events.

    A mark set by hand takes precedence over the model's. The model's mark is the end of the last event of its landmark
    label, since a capsule may see the pylorus many times before it passes. A model's mark that contradicts the order of
    the others is left out.
    """
    source = study.source
    marks = _marks(study)
    at = {mark.name: mark.time_s for mark in marks}
    stretches = _stretches(at)
    scale: float | None = None
    if source.time_kind == "capture" or source.capture_fps is not None:
        scale = capture_scale(
            study.model.events,
            median_distance_s=median_frame_distance(study.frames),
            time_kind=source.time_kind,
            capture_fps=source.capture_fps,
        )

    transit = transit_times(at, scale=scale)
    return Landmarks(
        marks=marks,
        gastric_s=transit.gastric_s,
        gastric_from=transit.gastric_from,
        small_bowel_s=transit.small_bowel_s,
        colon_s=transit.colon_s,
        transit_unknown=transit.unknown,
        positions=tuple(_position(event, stretches) for event in study.events) if marks else (),
        stretches=stretches,
    )


def locate_time(time_s: float, at: Mapping[str, float]) -> tuple[Segment | None, float | None]:
    """Return the segment of the gut at a time, and the share of its transit, 0..1; None for what is not known.

    Args:
        time_s: seconds of container time.
        at: seconds of container time by landmark.
    """
    stretches = _stretches(at)
    return _place(time_s, stretches) if stretches else (None, None)


def transit_times(at: Mapping[str, float], *, scale: float | None) -> TransitTimes:
    """Return the transit times that follow from landmarks.

    Args:
        at: seconds of container time by landmark.
        scale: seconds of capture time in one second of container time; None where the capture rate is unknown.
    """

    def transit(begin_s: float | None, end: str) -> float | None:
        known = begin_s is not None and end in at and scale is not None
        return (at[end] - begin_s) * scale if known else None  # type: ignore[operator]

    return TransitTimes(
        gastric_s=transit(at.get("stomach", 0.0), "small-bowel"),
        gastric_from=None if "small-bowel" not in at else "stomach" if "stomach" in at else "recording",
        small_bowel_s=transit(at.get("small-bowel"), "colon"),
        colon_s=transit(at.get("colon"), "end"),
        unknown="capture rate" if scale is None and _allows_transit(at) else None,
    )


def _allows_transit(at: Mapping[str, float]) -> bool:
    return "small-bowel" in at or {"colon", "end"} <= at.keys()


def _marks(study: Study) -> tuple[Mark, ...]:
    found = {name: Mark(name, time_s, "hand") for name, time_s in study.landmarks.items()}
    for event in _landmark_events(study):
        name = _PASSAGES.get(re.sub("[^a-z]", "", event.label.lower()))
        earlier = found.get(name or "")
        if name is None or (
            earlier is not None and (earlier.source == "hand" or earlier.time_s >= event.end_s)
        ):
            continue
        found[name] = Mark(name, event.end_s, "model", event.label)
    ordered: list[Mark] = []
    for name in LANDMARKS:
        mark = found.get(name)
        if mark is None:
            continue
        others = [o for o in found.values() if o.source == "hand"] + ordered
        ranks = list(LANDMARKS)
        fits = all(
            (ranks.index(o.name) < ranks.index(name)) == (o.time_s < mark.time_s) for o in others if o != mark
        )
        if mark.source == "hand" or fits:
            ordered.append(mark)
    return tuple(ordered)


def _landmark_events(study: Study) -> Sequence[Event]:
    if not study.model.index_of("landmark"):
        return ()
    return find_events(
        study.frames,
        study.model,
        median_distance_s=median_frame_distance(study.frames),
        time_kind=study.source.time_kind,
        capture_fps=study.source.capture_fps,
        role="landmark",
    )


def _stretches(at: Mapping[str, float]) -> tuple[Stretch, ...]:
    names = [name for name in LANDMARKS if name in at]
    if not names:
        return ()
    first = names[0]
    before = _SEGMENT_BEFORE[first] if first in ("stomach", "small-bowel") else None
    # Unless a mark says otherwise, the recording begins in the stomach. The way to the stomach is no transit.
    stretches = [Stretch(before, None, at[first], 0.0 if before == "stomach" else None)]
    for begin, end in pairwise([*names, None]):
        following = next(iter(list(LANDMARKS)[list(LANDMARKS).index(begin or "") + 1 :]), None)
        if following is None:
            segment: Segment | None = "after-end"
        elif begin == "colon" or end == following:
            segment = _SEGMENT_BEFORE[following]
        else:  # the landmark in between may have been passed at an unknown time
            segment = None
        stretches.append(Stretch(segment, begin, None if end is None else at[end], at[begin or ""]))
    return tuple(stretches)


def _position(event: Event, stretches: Sequence[Stretch]) -> Position:
    return Position(event.id, *_place(event.peak_s, stretches))


def _place(time_s: float, stretches: Sequence[Stretch]) -> tuple[Segment | None, float | None]:
    found = next(s for s in stretches if s.end_s is None or time_s < s.end_s)
    if found.segment == "after-end" and time_s == found.begin_s:
        # The end is the last picture worth reading, so it belongs to what lies before it.
        found = stretches[-2]
    if found.segment is None or found.begin_s is None or found.end_s is None:
        return found.segment, None
    return found.segment, (time_s - found.begin_s) / (found.end_s - found.begin_s)
