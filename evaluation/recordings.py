"""What a run wrote against what a reader marked: every row of ``frames.csv`` joined by index to its truth.

    python -m capsule_edge.evaluation.recordings RUN_FOLDER TRUTH.csv [RUN_FOLDER TRUTH.csv ...] [--out DIR]

``TRUTH.csv`` has ``index,frame_number,time_s,label``, one row for each frame in presentation order. Ends in one line of
JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import CapsuleEdgeError, InputError
from capsule_edge.runtime.events import capture_scale, time_kind
from capsule_edge.runtime.spec import ModelSpec

from .datasets import label_key
from .events import Span, labelled_events, reading_curve
from .findings import FoundEvent, Reading, score_findings

__all__ = ["Answers", "compare_with_truth", "read_answers", "summarise"]


@dataclass(frozen=True)
class Answers:
    """What a model said of each frame of a recording, and the truth.

    ``labels`` (N,) are keys, ``capture_s`` (N,) seconds of capture time, NaN for a frame without a time, and
    ``probabilities`` (N, labels) NaN for a frame without an answer; ``answered`` are the rows that have both.
    """

    recording: str
    labels: npt.NDArray[np.str_]
    capture_s: npt.NDArray[np.float64]
    probabilities: npt.NDArray[np.float64]

    @property
    def answered(self) -> npt.NDArray[np.intp]:
        return np.flatnonzero(np.isfinite(self.probabilities).all(axis=1) & np.isfinite(self.capture_s))


def read_answers(run: Path, truth: Path, spec: ModelSpec, *, capture_fps: float | None = None) -> Answers:
    """A ``frames.csv``, or the folder that holds it, joined by index with its truth.

    Capture time is that of the runtime: without ``capture_fps`` a playback file is taken at the model's assumed rate.
    Raises ``InputError`` for a file that is absent, other rows or columns than the model's labels, and a label of the
    truth that the model does not know.
    """
    path = run / "frames.csv" if run.is_dir() else run
    rows, marked = _joined(path, truth)
    labels = [label_key(row["label"]) for row in marked]
    unknown = sorted(set(labels) - set(spec.keys))
    if unknown:
        raise InputError(f"{truth} has the labels {unknown}, the model knows {list(spec.keys)}")
    columns = [f"p_{key}" for key in spec.keys]
    if lacking := [name for name in columns if name not in rows[0]]:
        raise InputError(f"{path} lacks the columns {lacking}: another model's labels")
    times = np.array([float(row["time_s"] or "nan") for row in rows])
    values = np.array([[float(row[name] or "nan") for name in columns] for row in rows])
    steps = np.diff(times[np.isfinite(times)])
    distance = float(np.median(steps)) if len(steps) else None
    scale = capture_scale(
        spec.events,
        median_distance_s=distance,
        time_kind=time_kind(distance),
        capture_fps=capture_fps,
    )
    return Answers(path.parent.name, np.array(labels), times * scale, values)


def compare_with_truth(folder: Path, truth: Path) -> dict[str, Any]:
    """Frame figures of one recording, its ``reading`` for ``findings``, and its true and found events as ``spans``.

    Raises ``InputError`` for a file that is absent or when the two do not have the same rows.
    """
    rows, marked = _joined(folder / "frames.csv", truth)
    try:
        study = json.loads((folder / "study.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} holds no study.json that can be read: {error}") from None
    if not any(row["label"] for row in rows):
        raise InputError(f"no frame of {folder} was classified, so there is nothing to compare")
    name = study["source"]["name"]
    labels = [label_key(row["label"]) for row in marked]
    # A frame that is missing from a cut recording has no time there, and its truth may have none.
    timed = [i for i, row in enumerate(marked) if row["time_s"]]
    times = [float(marked[i]["time_s"]) for i in timed]
    answered = [i for i, row in enumerate(rows) if row["label"]]
    normal = np.array([float(rows[i]["p_normal"]) for i in answered])
    abnormal = np.array([labels[i] != "normal" for i in answered])
    found = [Span(name, e["label"], e["start_s"], e["end_s"], e["peak_p"]) for e in study["events"]]
    return {
        "recording": name,
        "frames": len(rows),
        "answered": len(answered),
        "largest_time_difference_s": max(
            abs(float(rows[i]["time_s"]) - time)
            for i, time in zip(timed, times, strict=True)
            if rows[i]["time_s"]
        ),
        "frame_accuracy": float(np.mean([rows[i]["label"] == labels[i] for i in answered])),
        "always_normal": float(np.mean([labels[i] == "normal" for i in answered])),
        "sensitivity_by_share_read": reading_curve(1 - normal, abnormal),
        "reading": Reading(
            name,
            labels,
            np.array([1 - float(row["p_normal"]) if row["label"] else np.nan for row in rows]),
            [
                FoundEvent(e["label"], e["start_index"], e["end_index"], e["peak_index"], e["peak_p"])
                for e in study["events"]
            ],
        ),
        "spans": {"true": labelled_events([labels[i] for i in timed], times, name), "found": found},
    }


def summarise(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Event figures over recordings, as ``findings`` defines them."""
    return score_findings([document["reading"] for document in documents])


def _joined(frames: Path, truth: Path) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    rows, marked = _table(frames), _table(truth)
    if not rows or [row.get("index") for row in rows] != [row.get("index") for row in marked]:
        raise InputError(
            f"{frames} has {len(rows)} frames and {truth} marks {len(marked)}: not the same recording"
        )
    return rows, marked


def _table(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pairs", nargs="+", type=Path, metavar="RUN_FOLDER TRUTH")
    parser.add_argument("--out", type=Path, help="folder for plots (PNG), one HTML page and the JSON")
    options = parser.parse_args()
    pairs = options.pairs
    if len(pairs) % 2:
        parser.error(f"{len(pairs)} paths, needed is a run folder and a truth file for each recording")
    documents = [compare_with_truth(*pair) for pair in zip(pairs[::2], pairs[1::2], strict=True)]
    summary = summarise(documents)
    if options.out is not None:
        from .recordings_report import write_recordings

        for path in write_recordings(documents, summary, options.out):
            print(f"wrote {path}", file=sys.stderr)
    for document in documents:
        spans = document.pop("spans")
        document.pop("reading")
        print(
            f"{document['recording']}: {document['frames']} frames joined,"
            f" times within {1000 * document['largest_time_difference_s']:.3f} ms;"
            f" label right on {document['frame_accuracy']:.1%} (always normal {document['always_normal']:.1%});"
            f" {len(spans['true'])} findings, {len(spans['found'])} events"
        )
        for span in spans["true"]:
            print(f"  finding {span.label:18} {span.start_s:9.3f} - {span.end_s:9.3f} s")
        for span in spans["found"]:
            print(f"  event   {span.label:18} {span.start_s:9.3f} - {span.end_s:9.3f} s  p {span.score:.3f}")
    print(
        f"{summary['hit']} of {summary['findings']} findings hit ({summary['seen']} seen, {summary['touched']} touched,"
        f" {summary['matched']['hits']} at IoU {summary['matched']['iou']}), {summary['false_events']} false events,"
        f" {summary['false_events_per_1000_frames']:.2f} in 1,000 frames"
    )
    print(json.dumps({"recordings": documents, "events": summary}, allow_nan=False))


if __name__ == "__main__":
    try:
        main()
    except CapsuleEdgeError as error:
        raise SystemExit(f"error: {error}") from None
