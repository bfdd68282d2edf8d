"""Measure what the near-duplicate filter saves and loses at each threshold.

    python -m capsule_edge.benchmarks.redundancy [MODEL...]

The model answers every frame of the shared recordings once. Each threshold is then simulated on these answers: a frame
that the filter would skip takes the answer of the last frame that it kept. For each recording the table shows the
share of frames saved, the share of labels kept, the number of flagged frames that would be hidden (a frame is flagged
if a finding reaches its threshold), and whether all events stay the same. The table is the one of ``docs/runtime.md``.
The last line of output is JSON with the largest threshold that loses nothing on the ``train`` recordings with any of
the models.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.events import find_events, median_frame_distance
from capsule_edge.runtime.inference import Backend, default_model, open_model
from capsule_edge.runtime.pipeline import Plan, answer_frames, count_cores
from capsule_edge.runtime.preprocessing import mark_duplicates, measure, settle_field_of_view
from capsule_edge.runtime.recording import Container, Frame, gop_numbers, read_frames, scan
from capsule_edge.runtime.study import list_frames

from .reference_exam import find_recordings

__all__ = ["THRESHOLDS", "simulate", "simulate_all"]

THRESHOLDS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
# The shared recordings that belong to ``train`` videos.
_TRAIN = ("64440803f87b4843", "5e59c7fdb16c4228")
_LEAST_AGREEMENT = 0.995

Floats = npt.NDArray[np.float32]


def simulate(
    container: Container, backend: Backend, answers: Floats, originals: Sequence[int]
) -> dict[str, Any]:
    """Compare a recording's answers with those that the filter would leave.

    Args:
        container: the recording.
        backend: the model of the answers.
        answers: probabilities, float32 (frames, labels).
        originals: for each frame the index of the frame whose answer it takes; its own if the filter keeps it.

    Returns:
        ``saved``: share of frames skipped. ``agreement``: share of frames with the same label. ``hidden``: flagged
        frames that would no longer be flagged. ``same_events``: whether all events stay the same.
    """
    spec = backend.spec
    filtered = answers[list(originals)]
    columns = [c for c in spec.index_of("finding") if spec.labels[c].key in spec.operating_points]
    thresholds = [spec.operating_points[spec.labels[c].key].threshold for c in columns]
    flagged, still = ((each[:, columns] >= thresholds).any(axis=1) for each in (answers, filtered))
    return {
        "saved": float(np.mean(np.asarray(originals) != np.arange(len(answers)))),
        "agreement": float(np.mean(answers.argmax(axis=1) == filtered.argmax(axis=1))),
        "hidden": int((flagged & ~still).sum()),
        "same_events": _find_events(container, backend, answers)
        == _find_events(container, backend, filtered),
    }


def simulate_all(recording: Path, backend: Backend, thresholds: Sequence[float]) -> list[dict[str, Any]]:
    """Return the row of ``simulate`` for each threshold of the filter, in grey levels.

    Raises:
        InputError: the recording cannot be read or has corrupt frames.
    """
    container = scan(recording)
    with closing(answer_frames(container, range(container.present), backend, Plan(count_cores()))) as batches:
        answers = np.concatenate([answered.probabilities for answered in batches])
    if len(answers) != container.present:
        raise InputError(f"{recording.name} has corrupt frames", hint="take a sound recording")
    rows: list[dict[str, Any]] = []
    small, number = list(_shrink_frames(container, backend)), gop_numbers(container)
    for threshold in thresholds:
        marked = mark_duplicates(small, threshold, gop_of=number)
        originals = [one.index if one.duplicate_of is None else one.duplicate_of for one in marked]
        rows.append({"threshold": threshold, **simulate(container, backend, answers, originals)})
    return rows


def _shrink_frames(container: Container, backend: Backend) -> Iterator[Frame]:
    """Yield each frame in the small form that the filter compares; shrinking it again changes nothing."""
    with closing(read_frames(container, range(container.present))) as read:
        box, frames = settle_field_of_view(read, backend.spec.input)
        for frame in frames:
            if frame.image is not None:
                yield Frame(frame.index, np.repeat(measure(frame.image, box)[:, :, None], 3, axis=2))


def _find_events(container: Container, backend: Backend, answers: Floats) -> list[tuple[Any, ...]]:
    records = list_frames(container, range(container.present), labels=answers.shape[1])
    for index, values in enumerate(answers):
        records.settle(index, "classified", probabilities=values)
    events = find_events(
        records,
        backend.spec,
        median_distance_s=median_frame_distance(records),
        time_kind=container.time_kind,
    )
    return [(event.label, event.start_index, event.end_index, event.frames) for event in events]


def _cost_ms(container: Container, backend: Backend) -> float:
    """Return the core milliseconds that the filter takes for one frame."""
    with closing(read_frames(container, range(200))) as read:
        box, frames = settle_field_of_view(read, backend.spec.input)
        held = list(frames)
    began = time.thread_time()
    for frame in held:
        if frame.image is not None:
            measure(frame.image, box)
    return (time.thread_time() - began) / len(held) * 1e3


def main(arguments: Sequence[str] | None = None) -> None:
    options = _make_parser().parse_args(arguments)
    recordings = find_recordings()
    if not recordings:
        raise InputError(
            "the shared recordings are not there",
            hint="set CAPSULE_EDGE_DATA to the folder that holds recordings/",
        )
    lossless = set(THRESHOLDS)
    cost = 0.0
    print("| model | threshold | recording | frames saved | labels kept | flagged frames hidden | events |")
    print("|---|---|---|---|---|---|---|")
    for model in options.models or [default_model()]:
        with closing(open_model(model, threads=1)) as backend:
            cost = _cost_ms(scan(recordings[0]), backend)
            for recording in recordings:
                for row in simulate_all(recording, backend, THRESHOLDS):
                    print(
                        f"| {model.name} | {row['threshold']} | {recording.stem} | {row['saved']:.1%} |"
                        f" {row['agreement']:.2%} | {row['hidden']} | {'same' if row['same_events'] else 'changed'} |"
                    )
                    loses = row["hidden"] or not row["same_events"] or row["agreement"] < _LEAST_AGREEMENT
                    if loses and recording.stem in _TRAIN:
                        lossless.discard(row["threshold"])
    # A threshold counts only if every smaller one loses nothing either; otherwise it is luck.
    safe = [t for t in THRESHOLDS if all(each in lossless for each in THRESHOLDS if each <= t)]
    best = max(safe, default=None)
    print(json.dumps({"benchmark": "redundancy", "threshold": best, "core_ms_per_frame": round(cost, 4)}))


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m capsule_edge.benchmarks.redundancy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "models", nargs="*", type=Path, metavar="MODEL", help="model files (default: the standard model)"
    )
    return parser


if __name__ == "__main__":
    from capsule_edge.evaluation._module import run_module

    run_module(main)
