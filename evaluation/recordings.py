"""What a run wrote against what a reader marked: every row of ``frames.csv`` joined by index to its truth.

    python -m capsule_edge.evaluation.recordings RUN_FOLDER TRUTH.csv [RUN_FOLDER TRUTH.csv ...]

``TRUTH.csv`` has ``index,frame_number,time_s,label``, one row for each frame in presentation order. Ends in one line of
JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from capsule_edge.runtime.errors import CapsuleEdgeError, InputError

from .datasets import label_key
from .events import Span, event_scores, labelled_events, reading_curve

__all__ = ["compare_with_truth", "summarise"]


def compare_with_truth(folder: Path, truth: Path) -> dict[str, Any]:
    """Frame figures of one recording, and its true and found events as ``spans``.

    Raises ``InputError`` for a file that is absent or when the two do not have the same rows.
    """
    rows, marked = _table(folder / "frames.csv"), _table(truth)
    if [row["index"] for row in rows] != [row["index"] for row in marked]:
        raise InputError(
            f"{folder} has {len(rows)} frames and {truth} marks {len(marked)}: not the same recording"
        )
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
        "spans": {"true": labelled_events([labels[i] for i in timed], times, name), "found": found},
    }


def summarise(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Event figures over recordings: matched at IoU .5, and merely touched by an event of its label."""
    true = [span for document in documents for span in document["spans"]["true"]]
    found = [span for document in documents for span in document["spans"]["found"]]
    touched = [t for t in true if any(_touch(t, f) for f in found)]
    false = [f for f in found if not any(_touch(t, f) for t in true)]
    frames = sum(document["frames"] for document in documents)
    return {
        **event_scores(found, true),
        "touched": len(touched),
        "false_events": len(false),
        "false_events_per_1000_frames": 1000 * len(false) / frames,
    }


def _touch(true: Span, found: Span) -> bool:
    same = true.label == found.label and true.recording == found.recording
    return same and min(true.end_s, found.end_s) > max(true.start_s, found.start_s)


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
    pairs = parser.parse_args().pairs
    if len(pairs) % 2:
        parser.error(f"{len(pairs)} paths, needed is a run folder and a truth file for each recording")
    documents = [compare_with_truth(*pair) for pair in zip(pairs[::2], pairs[1::2], strict=True)]
    summary = summarise(documents)
    for document in documents:
        spans = document.pop("spans")
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
    print(json.dumps({"recordings": documents, "events": summary}, allow_nan=False))


if __name__ == "__main__":
    try:
        main()
    except CapsuleEdgeError as error:
        raise SystemExit(f"error: {error}") from None
