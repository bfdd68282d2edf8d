"""Measure what the shipped models find, class by class, and put the table into the README.

    python -m capsule_edge.evaluation.recordings.shipped_findings FILE --measure DATA
    python -m capsule_edge.evaluation.recordings.shipped_findings FILE --update README.md

With ``--measure`` each shipped model (``standard``, ``small``) reads the recordings of one split of
``DATA/recordings/index.csv`` (columns ``file,split``; the truth of ``exam.mp4`` lies in ``exam.truth.csv``) and
classifies the frames of the same split of ``DATA/capsule-vision``, and FILE (JSON) is written. Without it FILE is
read. ``--update`` renders FILE as a Markdown table and puts it between the markers ``<!-- findings -->`` and
``<!-- /findings -->`` of a document; without it the table is printed. ``findings`` defines found and false events.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import INSTALLED, OperatingPoint, default_model, open_model
from capsule_edge.runtime.reader import Reader
from capsule_edge.runtime.results import write_study

from .._documents import to_table, update_document
from .._files import write_text
from .._module import run_module
from ..classification import Predictions, defined, evaluate, predict
from ..datasets import Dataset, describe, load_dataset, read_rows
from .findings import Reading, count_by_label
from .recording_scores import compare_with_truth

__all__ = [
    "MARK",
    "count_by_class",
    "list_recordings",
    "measure",
    "recognised_frames",
    "render_table",
]

SCHEMA = "capsule-edge/shipped-findings/1"
MARK = "findings"
NO_FINDING = "no finding"
_COMMAND = "python -m capsule_edge.evaluation.recordings.shipped_findings models/findings.json --measure DATA"
_MEANING = (
    "*Hit*: an event of the class shows the finding. *Seen*: an event of any class does. An event that shows no "
    "finding of its class is false. *Recognised*: the class is the frame's most probable label."
)
_WIDTH = 100  # characters of a line in the project's documents


def list_recordings(folder: Path, split: str) -> list[tuple[Path, Path]]:
    """Return (recording, truth table) for each row of ``folder/index.csv`` in ``split``.

    Raises:
        InputError: The index cannot be read, lists no recording of the split, or a file is missing.
    """
    index = folder / "index.csv"
    rows = read_rows(index, ("file", "split"), hint="its columns are file,split,frames,findings,labels")
    videos = [folder / row["file"] for _, row in rows if row["split"] == split]
    if not videos:
        raise InputError(f"{index} lists no recording of the split {split!r}")
    pairs = [(video, video.with_suffix(".truth.csv")) for video in videos]
    for path in (path for pair in pairs for path in pair):
        if not path.is_file():
            raise InputError(f"{path} is not there, {index} needs it")
    return pairs


def measure(data: Path, *, split: str = "val") -> dict[str, Any]:
    """Read the recordings and classify the frames of a split with every shipped model.

    Args:
        data: Folder that holds ``recordings`` and ``capsule-vision``.
        split: The split of both.

    Returns:
        A JSON-ready document: ``data`` says what was measured, ``models`` holds the counts of each model by name.

    Raises:
        InputError: The data are missing or do not fit together.
    """
    pairs = list_recordings(data / "recordings", split)
    dataset = load_dataset(data / "capsule-vision", split=split)
    models: dict[str, Any] = {}
    recordings: list[dict[str, Any]] = []
    for name in INSTALLED:
        print(f"reading {len(pairs)} recordings with the {name} model", file=sys.stderr)
        models[name], recordings = _measure_model(default_model(name), pairs, dataset)
    return {
        "schema": SCHEMA,
        "tool": {"name": "capsule-edge", "version": version("capsule-edge")},
        "date": date.today().isoformat(),
        "command": _COMMAND + (f" --split {split}" if split != "val" else ""),
        "data": {
            "split": split,
            "recordings": recordings,
            "recorded_frames": sum(row["frames"] for row in recordings),
            "frames": describe(dataset),
        },
        "models": models,
    }


def _measure_model(
    model: Path, pairs: Sequence[tuple[Path, Path]], dataset: Dataset
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the counts of one model, and the recordings with their numbers of frames."""
    engine = open_model(model)
    spec, specs = engine.spec, {engine.sha256: engine.spec}
    read = _read_recordings(model, pairs, specs)
    readings: list[Reading] = [document["reading"] for document in read]
    classes = count_by_class(readings, spec.keys)
    frames = recognised_frames(predict(engine, dataset), spec.operating_points)
    totals = _totals(classes, sum(len(reading.labels) for reading in readings))
    counts = {
        "file": model.name,
        "name": spec.name,
        "version": spec.version,
        "precision": spec.precision,
        "sha256": engine.sha256,
        "recordings_of_training_videos": [d["recording"] for d in read if d["seen_in_training"]],
        "totals": totals,
        "classes": {key: {**classes[key], "val_frames": frames[key]} for key in spec.keys},
    }
    engine.close()
    return counts, [{"recording": d["recording"], "frames": d["frames"]} for d in read]


def _read_recordings(
    model: Path, pairs: Sequence[tuple[Path, Path]], specs: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Read each recording as ``capsule-edge run`` does, and join the result with its truth."""
    documents = []
    with Reader.open(model) as reader, TemporaryDirectory() as scratch:
        for video, truth in pairs:
            folder = Path(scratch) / video.stem
            folder.mkdir()
            write_study(reader.read(video), folder, timing={})
            documents.append(compare_with_truth(folder, truth, specs))
    return documents


def count_by_class(readings: Sequence[Reading], keys: Sequence[str]) -> dict[str, dict[str, int]]:
    """Count findings and events of each class over all readings.

    Args:
        readings: The recordings, each with its truth and the events found.
        keys: The classes, in the order of the answer; classes of the truth that are not among them follow.

    Returns:
        For each class ``findings``, of these ``hit`` and ``seen``; ``events``, of these ``false_events``.
    """
    names = ("findings", "hit", "seen", "events", "false_events")
    rows = count_by_label(readings, keys)
    return {key: {name: row[name] for name in names} for key, row in rows.items()}


def _totals(classes: Mapping[str, Mapping[str, int]], frames: int) -> dict[str, Any]:
    names = ("findings", "hit", "seen", "events", "false_events")
    totals: dict[str, Any] = {name: sum(row[name] for row in classes.values()) for name in names}
    totals["false_events_per_1000_frames"] = 1000 * totals["false_events"] / frames if frames else None
    return totals


def recognised_frames(
    predictions: Predictions, points: Mapping[str, OperatingPoint]
) -> dict[str, dict[str, Any]]:
    """Return how well single frames of each class are recognised; None where a figure is undefined.

    Args:
        predictions: Answers for labelled frames.
        points: The model's operating points by label key.

    Returns:
        For each class ``frames``, ``videos``, ``sensitivity`` and ``precision`` of the most probable label, as
        ``evaluate`` computes them; and ``operating_point`` with ``threshold``, and ``sensitivity`` and ``precision``
        of a probability at or above it (None for a class without an operating point).
    """
    per_class = evaluate(predictions, resamples=0)["per_class"]
    return {
        key: {
            "frames": row["support"],
            "videos": row["videos"],
            "sensitivity": row["recall"],
            "precision": row["precision"],
            "operating_point": _at_point(predictions, column, points[key].threshold)
            if key in points
            else None,
        }
        for column, (key, row) in enumerate(per_class.items())
    }


def _at_point(predictions: Predictions, column: int, threshold: float) -> dict[str, Any]:
    is_class = predictions.labels == column
    above = predictions.probabilities[:, column] >= threshold
    hits = float((is_class & above).sum())
    with np.errstate(invalid="ignore"):
        rates = {
            "sensitivity": hits / np.float64(is_class.sum()),
            "precision": hits / np.float64(above.sum()),
        }
    point: dict[str, Any] = defined({"threshold": threshold, **rates})
    return point


def render_table(document: Mapping[str, Any]) -> str:
    """Return the measurement as a Markdown table and two sentences."""
    models, data = document["models"], document["data"]
    both = " / ".join(models)
    number = len(data["recordings"])
    head = [
        "class",
        f"findings in the {number} recordings",
        f"hit by {both}",
        f"seen by {both}",
        f"false events of {both}",
        f"`{data['split']}` frames (videos)",
        f"frames recognised by {both}",
    ]
    first = next(iter(models.values()))["classes"]
    rows = [
        _row(key, [model["classes"][key] for model in models.values()]) for key in first if key != "normal"
    ]
    return f"{to_table(head, rows, right=6)}\n\n{_sentences(document)}"


def _row(key: str, classes: Sequence[Mapping[str, Any]]) -> list[str]:
    findings, frames = classes[0]["findings"], classes[0]["val_frames"]
    shown = [_pair(classes, name) if findings else "-" for name in ("hit", "seen")]
    recognised = " / ".join(_percent(row["val_frames"]["sensitivity"]) for row in classes)
    return [
        key.replace("_", " "),
        str(findings) if findings else NO_FINDING,
        *shown,
        _pair(classes, "false_events"),
        f"{frames['frames']:,} ({frames['videos']})",
        recognised,
    ]


def _pair(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    return " / ".join(str(row[name]) for row in rows)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def _sentences(document: Mapping[str, Any]) -> str:
    models, data = document["models"], document["data"]
    found = "; ".join(
        f"{name} {model['totals']['hit']} of {model['totals']['findings']} findings hit, {model['totals']['seen']} "
        f"seen, {model['totals']['false_events']} false events "
        f"({model['totals']['false_events_per_1000_frames']:.1f} in 1,000 frames)"
        for name, model in models.items()
    )
    totals = f"In all {data['recorded_frames']:,} frames: {found}."
    return "\n".join(textwrap.wrap(f"{totals} {_MEANING}", _WIDTH, break_long_words=False))


def read_document(path: Path) -> dict[str, Any]:
    """Return a document that ``--measure`` wrote.

    Raises:
        InputError: The file cannot be read or is not such a document.
    """
    try:
        document: dict[str, Any] = json.loads(path.read_text("utf-8"))
        schema = document["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read: {error}", hint="write it with --measure DATA") from None
    if schema != SCHEMA:
        raise InputError(f"{path} has the schema {schema!r}, {SCHEMA!r} is needed")
    return document


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="JSON file of the measurement")
    parser.add_argument(
        "--measure", type=Path, metavar="DATA", help="measure on this data folder, write FILE"
    )
    parser.add_argument("--split", default="val", help="split to measure on, default %(default)s")
    parser.add_argument("--update", type=Path, metavar="DOCUMENT", help="put the table into this document")
    options = parser.parse_args()
    if options.measure is not None:
        document = measure(options.measure, split=options.split)
        write_text(options.file, json.dumps(document, indent=1, allow_nan=False) + "\n")
    table = render_table(read_document(options.file))
    if options.update is None:
        print(table)
    else:
        update_document(options.update, table, mark=MARK)


if __name__ == "__main__":
    run_module(main)
