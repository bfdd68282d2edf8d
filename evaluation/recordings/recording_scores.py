"""Score the results of ``capsule-edge run`` against what a reader marked in the recordings.

    python -m capsule_edge.evaluation.recordings RESULT TRUTH.csv [RESULT TRUTH.csv ...] [--out DIR]

RESULT is the folder that ``capsule-edge run`` wrote. ``TRUTH.csv`` has the columns ``index,frame_number,time_s,label``
and one row for each frame in presentation order; the times may be empty. Rows of ``frames.csv`` and of the truth are
joined by index. A recording is named after its video. The command says whether the model was trained on that video,
if the model is an installed one or given with ``--model``. The last line of the output is JSON.
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
from capsule_edge.runtime.study import UNFAMILIAR

from .._files import check_free
from .._module import run_module
from ..datasets import read_rows, video_mark
from .event_matching import Span, labelled_events, reading_curve
from .findings import FoundEvent, Reading, score_findings
from .truth_table import read_truth

__all__ = ["RecordingAnswers", "compare_with_truth", "describe_training", "read_answers", "summarise"]

_EVENT = ("label", "start_index", "end_index", "peak_index", "peak_p", "start_s", "end_s")
_FRAMES_HINT = "name the folder that 'capsule-edge run' wrote"


@dataclass(frozen=True)
class RecordingAnswers:
    """A model's probabilities for the N frames of a recording, joined with the truth.

    Attributes:
        recording: The name of the recording.
        video: The id of the video that the recording belongs to; None: the recording is a video of its own.
        labels: str (N,), the true label keys.
        capture_s: float (N,), seconds of capture time; NaN for a frame without a time.
        probabilities: float (N, labels) in 0..1; NaN for a frame without an answer, or one that was set aside.
    """

    recording: str
    labels: npt.NDArray[np.str_]
    capture_s: npt.NDArray[np.float64]
    probabilities: npt.NDArray[np.float64]
    video: str | None = None

    @property
    def video_id(self) -> str:
        """The id of the video, else the name of the recording."""
        return self.recording if self.video is None else self.video

    @property
    def answered(self) -> npt.NDArray[np.intp]:
        """Rows of the frames that have both a time and an answer."""
        return np.flatnonzero(np.isfinite(self.probabilities).all(axis=1) & np.isfinite(self.capture_s))


def read_answers(
    run: Path, truth: Path, spec: ModelSpec, *, capture_fps: float | None = None, video: str | None = None
) -> RecordingAnswers:
    """Read a ``frames.csv`` and its truth, joined by index.

    Capture time is computed as the runtime does.

    Args:
        run: A ``frames.csv``, or the folder that holds it.
        truth: The truth table of the recording.
        spec: The model that read the recording.
        capture_fps: Frames a second at which the capsule recorded. None: a playback file is taken at the rate that
            the model assumes.
        video: The id of the video that the recording belongs to; None: it is a video of its own.

    Raises:
        InputError: A file is missing or not such a table, the rows or label columns do not fit, or the truth has a
            label that the model lacks.
    """
    path = run / "frames.csv" if run.is_dir() else run
    joined = _join(path, truth)
    if unknown := joined.unknown(spec.keys):
        raise InputError(f"{truth} has the labels {unknown}, the model knows {list(spec.keys)}")
    columns = [f"p_{key}" for key in spec.keys]
    if missing := [name for name in columns if name not in joined.rows[0]]:
        raise InputError(f"{path} lacks the columns {missing}: a model with other labels wrote it")
    values = np.column_stack([joined.column(name) for name in columns])
    # The runtime finds events without these frames, and so does whoever fits events.
    values[[row.get("detail") == UNFAMILIAR for row in joined.rows]] = np.nan
    times = joined.column("time_s")
    steps = np.diff(times[np.isfinite(times)])
    distance = float(np.median(steps)) if len(steps) else None
    scale = capture_scale(
        spec.events,
        median_distance_s=distance,
        time_kind=time_kind(distance),
        capture_fps=capture_fps,
    )
    return RecordingAnswers(path.parent.name, np.array(joined.labels), times * scale, values, video)


def compare_with_truth(
    folder: Path, truth: Path, specs: Mapping[str, ModelSpec] | None = None
) -> dict[str, Any]:
    """Compare the result folder of one recording with its truth.

    Args:
        folder: The folder that ``capsule-edge run`` wrote.
        truth: The truth table. A frame without a time in it has the time of the run.
        specs: Models by the SHA-256 of their files, to look up the one that read the recording.

    Returns:
        The figures of single frames; ``reading``, a ``Reading`` for ``score_findings``; and ``spans``, the ``true`` and
        ``found`` events. ``seen_in_training`` says whether the model was trained on the recording's video, None where
        ``specs`` lack the model or it does not say. ``unknown_labels`` are labels of the truth that the model lacks:
        such a finding is never hit, but may be seen under another name.

    Raises:
        InputError: A file is missing or does not fit, or the two have different rows.
    """
    path = folder / "frames.csv"
    joined = _join(path, truth)
    rows, labels = joined.rows, joined.labels
    name, model, events = _read_study(folder)
    answered = [i for i, row in enumerate(rows) if row["label"]]
    abnormal = _abnormal_probability(path, joined, answered)
    if not answered:
        raise InputError(f"no frame of {folder} was classified, so there is nothing to compare")
    read, marked = joined.column("time_s"), joined.marked_s
    difference = np.abs(read - marked)[np.isfinite(read) & np.isfinite(marked)]
    is_abnormal = np.array([labels[i] != "normal" for i in answered])
    return {
        "recording": name,
        "frames": len(rows),
        "answered": len(answered),
        "unknown_labels": joined.unknown([column[2:] for column in rows[0] if column.startswith("p_")]),
        "seen_in_training": _was_trained_on(name, (specs or {}).get(model)),
        "largest_time_difference_s": float(difference.max()) if len(difference) else None,
        "frame_accuracy": float(np.mean([rows[i]["label"] == labels[i] for i in answered])),
        "always_normal": float(np.mean(~is_abnormal)),
        "sensitivity_by_share_read": reading_curve(abnormal[answered], is_abnormal),
        "reading": Reading(name, labels, abnormal, [_found_event(event) for event in events]),
        "spans": {
            "true": _true_spans(labels, np.where(np.isfinite(marked), marked, read), name),
            "found": [Span(name, e["label"], e["start_s"], e["end_s"], e["peak_p"]) for e in events],
        },
    }


def _abnormal_probability(path: Path, joined: _Joined, answered: Sequence[int]) -> npt.NDArray[np.float64]:
    """Return 1 - p(normal) of each frame, NaN for a frame without an answer."""
    if "p_normal" not in joined.rows[0]:
        raise InputError(f"{path} lacks the column 'p_normal': its model has no label for normal frames")
    p_normal = joined.column("p_normal")
    abnormal = np.full(len(p_normal), np.nan)
    abnormal[answered] = 1 - p_normal[answered]
    if not np.isfinite(abnormal[answered]).all():
        raise InputError(f"{path} has a label without its probabilities")
    return abnormal


def _found_event(event: Mapping[str, Any]) -> FoundEvent:
    return FoundEvent(
        event["label"], event["start_index"], event["end_index"], event["peak_index"], event["peak_p"]
    )


def _true_spans(labels: Sequence[str], times: npt.NDArray[np.float64], name: str) -> list[Span]:
    # A frame that is missing from a cut recording has no time there, and its truth may have none.
    timed = np.flatnonzero(np.isfinite(times)).tolist()
    return labelled_events([labels[i] for i in timed], times[timed].tolist(), name)


def summarise(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the event figures over all recordings (``score_findings``)."""
    return score_findings([document["reading"] for document in documents])


def describe_training(document: Mapping[str, Any]) -> str:
    """Return one line on whether the model that read the recording was trained on its video."""
    # This text is part of the report.
    answers = {
        True: "was in the training of the model that read it: its figures say nothing about others",
        False: "is not named in the training of the model that read it",
        None: "may have been in the training of the model that read it: that is not known (--model names a file)",
    }
    return f"{document['recording']} {answers[document['seen_in_training']]}"


@dataclass(frozen=True)
class _Joined:
    """The rows of a ``frames.csv``, with the true label key and the marked time (s, NaN where empty) of each."""

    path: Path
    rows: list[dict[str, str]]
    labels: list[str]
    marked_s: npt.NDArray[np.float64]

    def column(self, name: str) -> npt.NDArray[np.float64]:
        """Return a column as numbers, NaN for an empty cell. Raise ``InputError`` if a cell is not a number."""
        return _numbers(self.path, [row[name] for row in self.rows], name)

    def unknown(self, known: Sequence[str]) -> list[str]:
        """Return the labels of the truth that are not among ``known``."""
        return sorted(set(self.labels) - set(known))


def _join(frames: Path, truth: Path) -> _Joined:
    rows = [row for _, row in read_rows(frames, ("index", "time_s", "label"), hint=_FRAMES_HINT)]
    marked = read_truth(truth)
    if not rows or [row["index"] for row in rows] != [str(row.index) for row in marked]:
        raise InputError(
            f"{frames} has {len(rows)} frames and {truth} marks {len(marked)}: they are not the same recording"
        )
    times = np.array([np.nan if row.time_s is None else row.time_s for row in marked])
    return _Joined(frames, rows, [row.label for row in marked], times)


def _numbers(path: Path, cells: Sequence[str], name: str) -> npt.NDArray[np.float64]:
    try:
        return np.array([float(cell or "nan") for cell in cells])
    except ValueError as error:
        raise InputError(f"{path} has a {name} that is not a number: {error}") from None


def _was_trained_on(recording: str, spec: ModelSpec | None) -> bool | None:
    videos = None if spec is None else spec.provenance.get("training_videos")
    return None if videos is None else video_mark(Path(recording).stem) in videos


def _read_study(folder: Path) -> tuple[str, str, list[dict[str, Any]]]:
    """Return the recording's name, the SHA-256 of the model that read it, and its events."""
    try:
        study = json.loads((folder / "study.json").read_text("utf-8"))
        name, model = study["source"]["name"], study["model"]["sha256"]
        events = [{key: e[key] for key in _EVENT} for e in study["events"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} has no readable study.json: {error}") from None
    return str(name), str(model), events


def _open(model: str | Path) -> Backend:
    """Open a model file on the first backend that reads its format."""
    path = find_model(model)
    return open_model(path, backend=readers_of(find_format(path))[0], threads=1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pairs", nargs="+", type=Path, metavar="RESULT TRUTH")
    parser.add_argument(
        "--model", action="append", default=[], help="a model file that read some recordings; repeatable"
    )
    parser.add_argument(
        "--out", type=Path, help="write plots (PNG), one HTML page and the JSON to this folder"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the report that --out holds")
    options = parser.parse_args()
    pairs = options.pairs
    if len(pairs) % 2:
        parser.error(f"{len(pairs)} paths were given; each recording needs a run folder and a truth file")
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
        _warn(document)
        _print_recording(document)
    _print_summary(summary)
    plain = [{k: v for k, v in d.items() if k not in ("reading", "spans")} for d in documents]
    print(json.dumps({"recordings": plain, "events": summary}, allow_nan=False))


def _warn(document: Mapping[str, Any]) -> None:
    """Warn on stderr about labels that the model lacks, and about a recording that it was trained on."""
    if document["unknown_labels"]:
        print(
            f"warning: the model of {document['recording']} has no label {', '.join(document['unknown_labels'])}:"
            " such findings cannot be hit, only seen under another name",
            file=sys.stderr,
        )
    if document["seen_in_training"]:
        print(f"warning: {describe_training(document)}", file=sys.stderr)


def _print_recording(document: Mapping[str, Any]) -> None:
    spans, difference = document["spans"], document["largest_time_difference_s"]
    times = "the truth gives no times" if difference is None else f"times within {1000 * difference:.3f} ms"
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


def _print_summary(summary: Mapping[str, Any]) -> None:
    print(
        f"{summary['hit']} of {summary['findings']} findings hit ({summary['seen']} seen, {summary['touched']} touched,"
        f" {summary['matched']['hits']} at IoU {summary['matched']['iou']}), {summary['false_events']} false events,"
        f" {summary['false_events_per_1000_frames']:.2f} in 1,000 frames"
    )


if __name__ == "__main__":
    run_module(main)
