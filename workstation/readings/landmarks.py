"""Set the landmarks of a reading: the first frames of stomach, small bowel and colon, and the end; transit times."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import sqlalchemy as sa

from capsule_edge.runtime.events import LANDMARKS, transit_times

from ..store import landmarks, log, readings
from .entries import check_choice, check_frame
from .reading_errors import ReadingConflictError, ReadingNotFoundError, ReadingValueError
from .recorder import Recorder
from .result_facts import ResultFacts

__all__ = ["find_landmarks", "remove_landmark", "set_landmark", "transit_document"]


def find_landmarks(connection: sa.Connection, reading_id: str) -> dict[str, dict[str, Any]]:
    """Return ``index``, ``time_s``, ``version``, ``reader`` and ``set_at`` of each landmark, in anatomical order.

    The version of a landmark is the number of its line in the log, which names the reader and the time.
    """
    line = sa.and_(log.c.chain == readings.c.study_id, log.c.sequence == landmarks.c.version)
    query = (
        sa.select(landmarks, sa.func.coalesce(log.c.reader, "").label("reader"), log.c.utc.label("set_at"))
        .join(readings, readings.c.id == landmarks.c.reading_id)
        .outerjoin(log, line)
        .where(landmarks.c.reading_id == reading_id)
    )
    found = {
        row.name: {
            "index": row.frame_index,
            "time_s": row.time_s,
            "version": row.version,
            "reader": row.reader,
            "set_at": row.set_at,
        }
        for row in connection.execute(query)
    }
    return {name: found[name] for name in LANDMARKS if name in found}


def set_landmark(
    connection: sa.Connection,
    facts: ResultFacts,
    reading_id: str,
    name: str,
    *,
    index: int,
    version: int | None = None,
    reader: str | None = None,
) -> None:
    """Set a landmark, or move it.

    Args:
        connection: of ``Database.writing``.
        facts: of the reading's result.
        reading_id: of the reading.
        name: one of ``runtime.events.LANDMARKS``.
        index: of its frame.
        version: of the landmark that the reader saw, 0 where it was not set; None does not check it.
        reader: name of the person who sets it; None for the one who opened the reading.

    Raises:
        ReadingNotFoundError: there is no such reading.
        ReadingConflictError: another window has changed it meanwhile, or the reading is finished.
        ReadingValueError: the name is unknown, the frame has no time, or the landmarks would be out of order.
    """
    check_choice(name, name="the landmark", allowed=LANDMARKS)
    index = check_frame(index, frames=facts.frames, name=f"the frame of {name}")
    time_s = facts.times_s[index]
    if time_s is None:
        raise ReadingValueError(
            f"frame {index} is missing in the recording", hint="choose a frame with a picture"
        )
    recorder = Recorder.of(connection, reading_id, reader=reader)
    others = find_landmarks(connection, reading_id)
    before = others.get(name)
    _check_version(name, before, version)
    if before is not None and before["index"] == index:
        return
    _check_order({mark: found["index"] for mark, found in others.items()} | {name: index})
    after = {"index": index, "time_s": time_s}
    recorder.record("landmark", part=f"landmark:{name}", before=_state(before), after=after)


def remove_landmark(
    connection: sa.Connection,
    reading_id: str,
    name: str,
    *,
    version: int | None = None,
    reader: str | None = None,
) -> None:
    """Remove a landmark.

    Args:
        connection: of ``Database.writing``.
        reading_id: of the reading.
        name: one of ``runtime.events.LANDMARKS``.
        version: of the landmark that the reader saw; None does not check it.
        reader: name of the person who removes it; None for the one who opened the reading.

    Raises:
        ReadingNotFoundError: there is no such reading, or the landmark is not set.
        ReadingConflictError: another window has changed it meanwhile, or the reading is finished.
        ReadingValueError: the name is unknown.
    """
    check_choice(name, name="the landmark", allowed=LANDMARKS)
    recorder = Recorder.of(connection, reading_id, reader=reader)
    before = find_landmarks(connection, reading_id).get(name)
    if before is None:
        raise ReadingNotFoundError(f"the landmark {name} is not set")
    _check_version(name, before, version)
    recorder.record("remove_landmark", part=f"landmark:{name}", before=_state(before))


def _check_version(name: str, mark: dict[str, Any] | None, version: int | None) -> None:
    if version is not None and version != (mark["version"] if mark else 0):
        now = mark or {"index": None, "time_s": None, "version": 0, "reader": None, "set_at": None}
        raise ReadingConflictError(
            f"the landmark {name} was changed meanwhile",
            hint="look at it as it is now, and set it again",
            current={"target": f"landmark:{name}", **now},
        )


def _state(mark: dict[str, Any] | None) -> dict[str, Any] | None:
    return mark and {"index": mark["index"], "time_s": mark["time_s"]}


def _check_order(indices: dict[str, int]) -> None:
    ordered = [(name, indices[name]) for name in LANDMARKS if name in indices]
    for (first, at), (second, then) in pairwise(ordered):
        if at > then:
            raise ReadingValueError(
                f"landmark {first} is at frame {at} and {second} at frame {then}, allowed is {first} before {second}"
            )


def transit_document(facts: ResultFacts, marks: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the transit times, which follow from the landmarks, in seconds of capture time.

    Args:
        facts: of the reading's result.
        marks: from ``find_landmarks``.

    Returns:
        ``gastric_s``, ``gastric_from``, ``small_bowel_s``, ``colon_s`` (None where unknown), ``clock`` (``capture``, or
        None where the capture rate is unknown) and ``unknown_for_lack_of`` (``capture rate`` or None).
    """
    at = {name: mark["time_s"] for name, mark in marks.items()}
    times = transit_times(at, scale=facts.capture_scale)
    return {
        "gastric_s": times.gastric_s,
        "gastric_from": times.gastric_from,
        "small_bowel_s": times.small_bowel_s,
        "colon_s": times.colon_s,
        "clock": None if facts.capture_scale is None else "capture",
        "unknown_for_lack_of": times.unknown,
    }
