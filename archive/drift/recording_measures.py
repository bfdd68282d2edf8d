"""Collect the measures of each recording of an archive: from its tables, and from samples of its frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import InputError, UsageError

from ..manifest import READ_STATES
from ..sources import RecordingState
from ..tables import open_database, readable_tables
from .input_samples import InputSample, SampleTask

__all__ = ["MEASURES", "ArchiveMeasures", "MeasureKind", "RecordingMeasures", "load_measures"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MeasureKind:
    """Kind of a measure: of the pictures (``input``) or of the answers (``output``); with numbers, or categories."""

    side: Literal["input", "output"]
    numeric: bool


MEASURES: Mapping[str, MeasureKind] = {
    "colour": MeasureKind("input", True),
    "sharpness": MeasureKind("input", True),
    "familiarity": MeasureKind("input", True),
    "field_of_view": MeasureKind("input", True),
    "size": MeasureKind("input", False),
    "frame_rate": MeasureKind("input", False),
    "label_shares": MeasureKind("output", False),
    "scores": MeasureKind("output", True),
}
"""The measures by name."""

# Frames of a recording from whose distance in time its frame rate is taken.
_RATE_FRAMES = 2000


@dataclass
class RecordingMeasures:
    """The measures of one recording.

    Attributes:
        unit: a patient where the list names one, else the recording.
        site: as the list of recordings has it; None where it says nothing.
        month: such as ``2026-11``; None where the list gives no date, or a year alone.
        frames: number of container frames.
        numbers: the values of the numeric measures; a measure without a value is absent.
        counts: the counts of the categories of the other measures.
    """

    unit: str
    site: str | None
    month: str | None
    frames: int
    numbers: dict[str, Floats] = field(default_factory=dict)
    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def add_sample(self, sample: InputSample) -> None:
        """Add what was measured on frames."""
        for name in ("colour", "sharpness", "familiarity"):
            values = getattr(sample, name)
            if values:
                self.numbers[name] = np.array(values, np.float64)


@dataclass(frozen=True)
class ArchiveMeasures:
    """The measures of an archive.

    Attributes:
        recordings: by the key of their result.
        tasks: what is needed to measure frames of them, in the same order.
        model_sha256: of the model that read them.
        missing: number of results that are in no table.
    """

    recordings: dict[str, RecordingMeasures]
    tasks: tuple[SampleTask, ...]
    model_sha256: str
    missing: int


def load_measures(archive: str, *, model_sha256: str | None = None) -> ArchiveMeasures:
    """Return the measures that the tables of an archive give. The measures of frames are added later.

    Args:
        archive: its folder.
        model_sha256: take the results of this model alone; None: the archive must have one model.

    Raises:
        InputError: the folder holds no archive, its tables cannot be read, or they hold no result of the model.
        UsageError: it holds results of several models.
        PackageError: duckdb is not installed.
    """
    with open_database(archive) as database, readable_tables(archive):
        rows = _rows(database)
        model = _choose_model(archive, rows, model_sha256)
        rows = [row for row in rows if row["model_sha256"] == model]
        found, tasks = {}, []
        sources = _sources(database)
        for row in rows:
            source = sources.get(row["key"])
            if source is None:
                continue
            found[row["key"]] = _start(row, source)
            tasks.append(_task(row, source))
        for key, rate in database.execute(
            "SELECT key, median(step) FROM (SELECT key, time_s - lag(time_s) OVER (PARTITION BY key ORDER BY index) "
            f"AS step FROM frames WHERE index < {_RATE_FRAMES} AND time_s IS NOT NULL) WHERE step > 0 GROUP BY key"
        ).fetchall():
            if key in found and "frame_rate" not in found[key].counts:
                found[key].counts["frame_rate"] = Counter([f"{1 / rate:.1f}"])
        for key, label, count in database.execute(
            "SELECT key, label, count(*) FROM frames WHERE label IS NOT NULL GROUP BY ALL"
        ).fetchall():
            if key in found:
                found[key].counts.setdefault("label_shares", Counter())[label] += count
        for key, scores in database.execute(
            "SELECT key, list(score) FROM suggestions GROUP BY key"
        ).fetchall():
            if key in found:
                found[key].numbers["scores"] = np.array(scores, np.float64)
    if not found:
        raise InputError(
            f"the tables of {archive} hold no result of the model {model[:12]}",
            hint="run 'archive read' again, without --no-tables",
        )
    return ArchiveMeasures(found, tuple(tasks), model, len(rows) - len(found))


def _rows(database: Any) -> list[dict[str, Any]]:
    """Return the newest rows with a result, each result once."""
    columns = "key, recording, sha256, bytes, modified_ns, model_sha256, site, patient, date"
    states = ", ".join(f"'{state}'" for state in READ_STATES)
    answer = database.execute(
        f"SELECT {columns} FROM recordings WHERE state IN ({states}) AND key IS NOT NULL ORDER BY recording"
    ).fetchall()
    held: dict[str, dict[str, Any]] = {}
    for values in answer:
        row = dict(zip(columns.split(", "), values, strict=True))
        held.setdefault(row["key"], row)
    return list(held.values())


def _sources(database: Any) -> dict[str, dict[str, Any]]:
    columns = "key, width, height, capture_fps, view_left, view_top, view_width, view_height, container"
    answer = database.execute(f"SELECT {columns} FROM sources JOIN ledgers USING (key)").fetchall()
    return {values[0]: dict(zip(columns.split(", "), values, strict=True)) for values in answer}


def _choose_model(archive: str, rows: list[dict[str, Any]], wanted: str | None) -> str:
    counts = Counter(row["model_sha256"] for row in rows)
    if not counts:
        raise InputError(
            f"{archive} holds no result", hint=f"see 'capsule-edge archive status {archive} --list'"
        )
    named = ", ".join(f"{sha256[:12]} ({count:,} recordings)" for sha256, count in counts.items())
    if wanted is not None and wanted not in counts:
        raise InputError(f"{archive} holds no result of the model {wanted[:12]}; it holds those of {named}")
    if wanted is None and len(counts) > 1:
        raise UsageError(
            f"{archive} holds results of {len(counts)} models: {named}", hint="name one with --model"
        )
    return wanted or next(iter(counts))


def _start(row: Mapping[str, Any], source: Mapping[str, Any]) -> RecordingMeasures:
    date = row["date"] or ""
    made = RecordingMeasures(
        unit=f"patient {row['patient']}" if row["patient"] else f"recording {row['sha256']}",
        site=row["site"],
        month=date[:7] if len(date) >= 7 else None,
        frames=int(source["container"]),
    )
    made.counts["size"] = Counter([f"{source['width']}x{source['height']}"])
    if source["view_width"] is not None:
        area = source["view_width"] * source["view_height"] / (source["width"] * source["height"])
        made.numbers["field_of_view"] = np.array([area])
    if source["capture_fps"] is not None:
        made.counts["frame_rate"] = Counter([f"{source['capture_fps']:.1f}"])
    return made


def _task(row: Mapping[str, Any], source: Mapping[str, Any]) -> SampleTask:
    sides = [source[f"view_{side}"] for side in ("left", "top", "width", "height")]
    view = None if None in sides else (int(sides[0]), int(sides[1]), int(sides[2]), int(sides[3]))
    state = RecordingState(row["bytes"], row["modified_ns"])
    return SampleTask(row["key"], row["recording"], row["sha256"], state, view)
