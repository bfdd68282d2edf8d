"""The facts of a result that readings need: number and times of frames, labels, suggestions. Read from its folder."""

from __future__ import annotations

import csv
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from capsule_edge.runtime.events import capture_scale
from capsule_edge.runtime.inference import EventParameters
from capsule_edge.runtime.recording import TimeKind

from .ranges import Ranges, unite
from .reading_errors import ResultDamagedError

__all__ = ["FactsCache", "ResultFacts", "SuggestionFacts", "known_scale", "read_facts"]

_KEPT = 6

# A frame of these statuses has no picture that could be trusted, so nobody can have seen it.
_NO_PICTURE = frozenset({"missing", "corrupt"})


@dataclass(frozen=True)
class SuggestionFacts:
    """A suggestion of the model: the frames [start, end) of its leading event, and that event's peak.

    ``ranges`` are the frames [start, end) of all its events, in order and without overlap.
    """

    label: str
    start_index: int
    end_index: int
    key_index: int
    ranges: Ranges = field(default_factory=list)


@dataclass(frozen=True)
class ResultFacts:
    """One result, as far as readings need it.

    Attributes:
        frames: number of frames of the recording, also those without a picture.
        times_s: container time of each frame in seconds; None for a missing frame.
        no_picture: frames that are missing or corrupt.
        labels: keys of the model's labels.
        suggestions: of the model by number.
        capture_scale: seconds of capture time in one second of container time; None where the capture rate is unknown.
        document: the whole ``study.json``.
    """

    frames: int
    times_s: Sequence[float | None]
    no_picture: Ranges
    labels: tuple[str, ...]
    suggestions: Mapping[int, SuggestionFacts]
    capture_scale: float | None
    document: Mapping[str, Any]


def read_facts(folder: Path) -> ResultFacts:
    """Return the facts of a result.

    Args:
        folder: holds ``study.json`` and ``frames.csv``, as ``run`` writes them.

    Raises:
        ResultDamagedError: a file is missing or damaged, or cannot be read now.
    """
    try:
        document = json.loads((folder / "study.json").read_text(encoding="utf-8"))
        times_s, no_picture = _read_frames(folder / "frames.csv")
        events = {event["id"]: event for event in document["events"]}
        return ResultFacts(
            frames=len(times_s),
            times_s=times_s,
            no_picture=no_picture,
            labels=tuple(document["rules"]["thresholds"]),
            suggestions={
                suggestion["id"]: _suggestion(suggestion, events)
                for suggestion in document.get("suggestions", ())
            },
            capture_scale=_scale(document["source"], times_s),
            document=document,
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration, csv.Error) as error:
        raise ResultDamagedError(
            f"the files of a result cannot be read ({type(error).__name__})",
            hint="restore a backup of the home folder, or read the study again",
        ) from error


def _suggestion(suggestion: Mapping[str, Any], events: Mapping[int, Mapping[str, Any]]) -> SuggestionFacts:
    leading = events[suggestion["events"][0]]
    return SuggestionFacts(
        label=suggestion["label"],
        start_index=leading["start_index"],
        end_index=leading["end_index"] + 1,
        key_index=leading["peak_index"],
        ranges=unite(
            [
                [events[number]["start_index"], events[number]["end_index"] + 1]
                for number in suggestion["events"]
            ]
        ),
    )


def _read_frames(path: Path) -> tuple[list[float | None], Ranges]:
    times_s: list[float | None] = []
    no_picture: Ranges = []
    with path.open(encoding="utf-8", newline="") as lines:
        rows = csv.reader(lines)
        if next(rows)[:4] != ["index", "pts", "time_s", "status"]:
            raise ValueError("other columns")
        for index, row in enumerate(rows):
            if int(row[0]) != index:
                raise ValueError("a frame is missing in the table")
            times_s.append(float(row[2]) if row[2] else None)
            if row[3] in _NO_PICTURE:
                if no_picture and no_picture[-1][1] == index:
                    no_picture[-1] = (no_picture[-1][0], index + 1)
                else:
                    no_picture.append((index, index + 1))
    return times_s, no_picture


def _scale(source: Mapping[str, Any], times_s: Sequence[float | None]) -> float | None:
    """Return the seconds of capture time in a second of container time; None where the capture rate is unknown."""
    known = [time_s for time_s in times_s if time_s is not None]
    distances = [after - before for before, after in pairwise(known)]
    return known_scale(source["time_kind"], median(distances) if distances else None, source["capture_fps"])


def known_scale(time_kind: str | None, distance_s: float | None, capture_fps: float | None) -> float | None:
    """Return the seconds of capture time in a second of container time; None where the capture rate is unknown.

    Args:
        time_kind: ``capture``, ``playback``, or None where it is not known yet.
        distance_s: median distance of the frames, seconds of container time; None where it is unknown.
        capture_fps: frames a second at which the capsule recorded; None where unknown.
    """
    kind: TimeKind = "capture" if time_kind == "capture" else "playback"
    if capture_fps is None and kind != "capture":
        return None
    return capture_scale(
        EventParameters(), median_distance_s=distance_s, time_kind=kind, capture_fps=capture_fps
    )


class FactsCache:
    """The facts of the results that were used last. A result never changes. Any thread may use it."""

    def __init__(self, home: Path) -> None:
        """Begin empty.

        Args:
            home: the folder that the folders of results are relative to.
        """
        self._home = home
        self._facts: OrderedDict[str, ResultFacts] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, folder: str) -> ResultFacts:
        """Return the facts of the result in a folder.

        Raises:
            ResultDamagedError: a file of the result is missing or damaged, or cannot be read now.
        """
        with self._lock:
            facts = self._facts.pop(folder, None) or read_facts(self._home / folder)
            self._facts[folder] = facts
            while len(self._facts) > _KEPT:
                self._facts.popitem(last=False)
        return facts

    def forget(self, folder: str) -> None:
        """Drop the facts of all results whose folder begins with ``folder``."""
        with self._lock:
            for key in [each for each in self._facts if each.startswith(folder)]:
                del self._facts[key]
