"""What a run wrote against what a reader marked: every row of ``frames.csv`` joined by index to its truth.

    python -m capsule_edge.evaluation.recordings RESULT TRUTH.csv [RESULT TRUTH.csv ...] [--out DIR]

RESULT is the folder that ``capsule-edge run`` left. ``TRUTH.csv`` has ``index,frame_number,time_s,label``, one row for
each frame in presentation order; the times may be left out. Whether a model was trained on a recording's video, which
the recording's name names, is told of the installed models and of those of ``--model``. Ends in one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.events import capture_scale
from capsule_edge.runtime.inference import (
    INSTALLED,
    Backend,
    ModelSpec,
    default_model,
    find_format,
    find_model,
    open_model,
    readers_of,
)
from capsule_edge.runtime.recording import time_kind

from .._files import check_free
from .._module import run_module
from ..datasets import label_key, read_rows, video_mark
from .event_matching import Span, labelled_events, reading_curve
from .findings import FoundEvent, Reading, score_findings

__all__ = ["Answers", "compare_with_truth", "describe_training", "read_answers", "summarise"]

_EVENT = ("label", "start_index", "end_index", "peak_index", "peak_p", "start_s", "end_s")
_FRAMES_HINT = "name the folder that 'capsule-edge run' left"
_TRUTH_HINT = "its columns are index,frame_number,time_s,label; index and label are needed"


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
    Raises ``InputError`` for a file that is absent or no such table, other rows or columns than the model's labels,
    and a label of the truth that the model does not know.
    """
    path = run / "frames.csv" if run.is_dir() else run
    joined = _join(path, truth)
    if unknown := joined.unknown(spec.keys):
        raise InputError(f"{truth} has the labels {unknown}, the model knows {list(spec.keys)}")
    columns = [f"p_{key}" for key in spec.keys]
    if lacking := [name for name in columns if name not in joined.rows[0]]:
        raise InputError(f"{path} lacks the columns {lacking}: another model's labels")
    values = np.column_stack([joined.column(name) for name in columns])
    times = joined.column("time_s")
    steps = np.diff(times[np.isfinite(times)])
    distance = float(np.median(steps)) if len(steps) else None
    scale = capture_scale(
        spec.events,
        median_distance_s=distance,
        time_kind=time_kind(distance),
        capture_fps=capture_fps,
    )
    return Answers(path.parent.name, np.array(joined.labels), times * scale, values)


def compare_with_truth(
    folder: Path, truth: Path, specs: Mapping[str, ModelSpec] | None = None
) -> dict[str, Any]:
    """Frame figures of one recording, its ``reading`` for ``findings``, and its true and found events as ``spans``.

    ``seen_in_training`` is whether the model was trained on a video of the recording's name, by that of ``specs`` (by
    SHA-256 of their files) which read it; None where none did, or does not say.

    A frame to which the truth gives no time has that of the run. ``unknown_labels`` are those of the truth that the
    model does not have: such a finding is never hit, and may be seen under another name. Raises ``InputError`` for a
    file that is absent or does not fit, and when the two do not have the same rows.
    """
    path = folder / "frames.csv"
    joined = _join(path, truth)
    rows, labels = joined.rows, joined.labels
    name, model, found = _study(folder)
    known = [column[2:] for column in rows[0] if column.startswith("p_")]
    if "p_normal" not in rows[0]:
        raise InputError(f"{path} lacks the column 'p_normal': its model knows no normal frame")
    answered = [i for i, row in enumerate(rows) if row["label"]]
    if not answered:
        raise InputError(f"no frame of {folder} was classified, so there is nothing to compare")
    abnormal = 1 - joined.column("p_normal")
    if not np.isfinite(abnormal[answered]).all():
        raise InputError(f"{path} has a label without its probabilities")
    abnormal[[i for i, row in enumerate(rows) if not row["label"]]] = np.nan
    read, marked = joined.column("time_s"), joined.marked_s
    apart = np.abs(read - marked)[np.isfinite(read) & np.isfinite(marked)]
    times = np.where(np.isfinite(marked), marked, read)
    # A frame that is missing from a cut recording has no time there, and its truth may have none.
    timed = np.flatnonzero(np.isfinite(times)).tolist()
    true = labelled_events([labels[i] for i in timed], times[timed].tolist(), name)
    return {
        "recording": name,
        "frames": len(rows),
        "answered": len(answered),
        "unknown_labels": joined.unknown(known),
        "seen_in_training": _was_seen(name, (specs or {}).get(model)),
        "largest_time_difference_s": float(apart.max()) if len(apart) else None,
        "frame_accuracy": float(np.mean([rows[i]["label"] == labels[i] for i in answered])),
        "always_normal": float(np.mean([labels[i] == "normal" for i in answered])),
        "sensitivity_by_share_read": reading_curve(
            abnormal[answered], np.array([labels[i] != "normal" for i in answered])
        ),
        "reading": Reading(
            name,
            labels,
            abnormal,
            [
                FoundEvent(e["label"], e["start_index"], e["end_index"], e["peak_index"], e["peak_p"])
                for e in found
            ],
        ),
        "spans": {
            "true": true,
            "found": [Span(name, e["label"], e["start_s"], e["end_s"], e["peak_p"]) for e in found],
        },
    }


def summarise(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Event figures over recordings, as ``findings`` defines them."""
    return score_findings([document["reading"] for document in documents])


def describe_training(document: Mapping[str, Any]) -> str:
    """What is known of the recording's part in the model's training, in one line."""
    told = {
        True: "was in the training of the model that read it: its figures say nothing about others",
        False: "was not in the training of the model that read it",
        None: "may have been in the training of the model that read it: that is not known (--model names a file)",
    }
    return f"{document['recording']} {told[document['seen_in_training']]}"


@dataclass(frozen=True)
class _Joined:
    """The rows of ``frames.csv`` with what the truth says of each: keys, and seconds, NaN where it gives none."""

    path: Path
    rows: list[dict[str, str]]
    labels: list[str]
    marked_s: npt.NDArray[np.float64]

    def column(self, name: str) -> npt.NDArray[np.float64]:
        """A column as numbers, NaN for an empty cell. Raises ``InputError`` for what is none."""
        return _numbers(self.path, [row[name] for row in self.rows], name)

    def unknown(self, known: Sequence[str]) -> list[str]:
        """Labels of the truth that are not among those ``known``."""
        return sorted(set(self.labels) - set(known))


def _join(frames: Path, truth: Path) -> _Joined:
    rows = [row for _, row in read_rows(frames, ("index", "time_s", "label"), hint=_FRAMES_HINT)]
    marked = list(read_rows(truth, ("index", "label"), hint=_TRUTH_HINT))
    for line, row in marked:
        if not row["label"]:
            raise InputError(f"{truth} line {line} has no label", hint="Normal is a label too")
    if not rows or [row["index"] for row in rows] != [row["index"] for _, row in marked]:
        raise InputError(
            f"{frames} has {len(rows)} frames and {truth} marks {len(marked)}: not the same recording"
        )
    times = _numbers(truth, [row.get("time_s", "") for _, row in marked], "time_s")
    return _Joined(frames, rows, [label_key(row["label"]) for _, row in marked], times)


def _numbers(path: Path, cells: Sequence[str], name: str) -> npt.NDArray[np.float64]:
    try:
        return np.array([float(cell or "nan") for cell in cells])
    except ValueError as error:
        raise InputError(f"{path} has a {name} that is no number: {error}") from None


def _was_seen(recording: str, spec: ModelSpec | None) -> bool | None:
    videos = None if spec is None else spec.provenance.get("training_videos")
    return None if videos is None else video_mark(Path(recording).stem) in videos


def _study(folder: Path) -> tuple[str, str, list[dict[str, Any]]]:
    """The recording's name, the SHA-256 of the model that read it, and its events."""
    try:
        study = json.loads((folder / "study.json").read_text("utf-8"))
        name, model = study["source"]["name"], study["model"]["sha256"]
        events = [{key: e[key] for key in _EVENT} for e in study["events"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} holds no study.json that can be read: {error}") from None
    return str(name), str(model), events


def _open(model: str | Path) -> Backend:
    """The file on the first backend that reads its format."""
    path = find_model(model)
    return open_model(path, backend=readers_of(find_format(path))[0], threads=1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pairs", nargs="+", type=Path, metavar="RESULT TRUTH")
    parser.add_argument("--model", action="append", default=[], help="a model that read some; repeatable")
    parser.add_argument("--out", type=Path, help="folder for plots (PNG), one HTML page and the JSON")
    parser.add_argument("--overwrite", action="store_true", help="replace the report that is there")
    options = parser.parse_args()
    pairs = options.pairs
    if len(pairs) % 2:
        parser.error(f"{len(pairs)} paths, needed is a run folder and a truth file for each recording")
    if options.out is not None:
        from .recordings_report import SIGN, write_recordings

        check_free(options.out, SIGN, overwrite=options.overwrite)
    installed = [default_model(name) for name in INSTALLED]
    models = [_open(model) for model in (*installed, *options.model)]
    specs = {model.sha256: model.spec for model in models}
    documents = [compare_with_truth(*pair, specs) for pair in zip(pairs[::2], pairs[1::2], strict=True)]
    summary = summarise(documents)
    if options.out is not None:
        for path in write_recordings(documents, summary, options.out, overwrite=options.overwrite):
            print(f"wrote {path}", file=sys.stderr)
    for document in documents:
        if document["unknown_labels"]:
            print(
                f"warning: the model of {document['recording']} has no label {', '.join(document['unknown_labels'])}:"
                " such findings cannot be hit, only seen under another name",
                file=sys.stderr,
            )
        if document["seen_in_training"]:
            print(f"warning: {describe_training(document)}", file=sys.stderr)
        spans = document.pop("spans")
        document.pop("reading")
        apart = document["largest_time_difference_s"]
        times = "the truth gives no times" if apart is None else f"times within {1000 * apart:.3f} ms"
        print(
            f"{document['recording']}: {document['frames']} frames joined, {times};"
            f" label right on {document['frame_accuracy']:.1%} (always normal {document['always_normal']:.1%});"
            f" findings: {len(spans['true'])}, events: {len(spans['found'])}"
        )
        print(f"  {describe_training(document)}")
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
    run_module(main)
