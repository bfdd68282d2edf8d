"""What the redundancy gate saves and what it costs, threshold by threshold.

    python -m capsule_edge.benchmarks.redundancy [MODEL...]

Every frame of the shared recordings is answered once; then each threshold is played over these answers: a frame that
the gate would pass over takes the answer of the one before that passed. Of each recording: the share of frames
saved, labels kept, flagged frames (some finding at or above its threshold) that would be hidden, and whether every
event stays as it was. Prints the table of ``docs/runtime.md``, and last one line of JSON with the largest threshold
that loses nothing on the ``train`` recordings with any of the models.
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

__all__ = ["THRESHOLDS", "play", "play_all"]

THRESHOLDS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
# Of the three shared recordings, those of ``train`` videos.
_TRAIN = ("64440803f87b4843", "5e59c7fdb16c4228")
_LEAST_AGREEMENT = 0.995

Floats = npt.NDArray[np.float32]


def play(container: Container, backend: Backend, answers: Floats, originals: Sequence[int]) -> dict[str, Any]:
    """What becomes of a recording's ``answers`` (frames, labels) when frame i takes that of ``originals[i]``."""
    spec = backend.spec
    gated = answers[list(originals)]
    columns = [c for c in spec.index_of("finding") if spec.labels[c].key in spec.operating_points]
    thresholds = [spec.operating_points[spec.labels[c].key].threshold for c in columns]
    flagged, still = ((each[:, columns] >= thresholds).any(axis=1) for each in (answers, gated))
    return {
        "saved": float(np.mean(np.asarray(originals) != np.arange(len(answers)))),
        "agreement": float(np.mean(answers.argmax(axis=1) == gated.argmax(axis=1))),
        "hidden": int((flagged & ~still).sum()),
        "same_events": _events(container, backend, answers) == _events(container, backend, gated),
    }


def play_all(recording: Path, backend: Backend, thresholds: Sequence[float]) -> list[dict[str, Any]]:
    """``play`` of a recording for each threshold."""
    container = scan(recording)
    with closing(answer_frames(container, range(container.present), backend, Plan(count_cores()))) as batches:
        answers = np.concatenate([answered.probabilities for answered in batches])
    if len(answers) != container.present:
        raise InputError(f"{recording.name} has corrupt frames", hint="take a sound recording")
    played: list[dict[str, Any]] = []
    small, number = list(_small(container, backend)), gop_numbers(container)
    for threshold in thresholds:
        marked = mark_duplicates(small, threshold, gop_of=number)
        originals = [one.index if one.duplicate_of is None else one.duplicate_of for one in marked]
        played.append({"threshold": threshold, **play(container, backend, answers, originals)})
    return played


def _small(container: Container, backend: Backend) -> Iterator[Frame]:
    """Yield each frame as the near-duplicate filter measures it; measured again it is the same."""
    with closing(read_frames(container, range(container.present))) as read:
        box, frames = settle_field_of_view(read, backend.spec.input)
        for frame in frames:
            if frame.image is not None:
                yield Frame(frame.index, np.repeat(measure(frame.image, box)[:, :, None], 3, axis=2))


def _events(container: Container, backend: Backend, answers: Floats) -> list[tuple[Any, ...]]:
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
    """Core milliseconds of one measurement of the gate."""
    with closing(read_frames(container, range(200))) as read:
        box, frames = settle_field_of_view(read, backend.spec.input)
        held = list(frames)
    began = time.thread_time()
    for frame in held:
        if frame.image is not None:
            measure(frame.image, box)
    return (time.thread_time() - began) / len(held) * 1e3


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m capsule_edge.benchmarks.redundancy", description=__doc__)
    parser.add_argument("models", nargs="*", type=Path)
    options = parser.parse_args(arguments)
    recordings = find_recordings()
    if not recordings:
        raise InputError("the shared recordings are not there", hint="name their folder in CAPSULE_EDGE_DATA")
    lossless = set(THRESHOLDS)
    cost = 0.0
    print("| model | threshold | recording | frames saved | labels kept | flagged frames hidden | events |")
    print("|---|---|---|---|---|---|---|")
    for model in options.models or [default_model()]:
        with closing(open_model(model, threads=1)) as backend:
            cost = _cost_ms(scan(recordings[0]), backend)
            for recording in recordings:
                for row in play_all(recording, backend, THRESHOLDS):
                    print(
                        f"| {model.name} | {row['threshold']} | {recording.stem} | {row['saved']:.1%} |"
                        f" {row['agreement']:.2%} | {row['hidden']} | {'same' if row['same_events'] else 'changed'} |"
                    )
                    loses = row["hidden"] or not row["same_events"] or row["agreement"] < _LEAST_AGREEMENT
                    if loses and recording.stem in _TRAIN:
                        lossless.discard(row["threshold"])
    # A threshold below which another one loses something is luck.
    safe = [t for t in THRESHOLDS if all(each in lossless for each in THRESHOLDS if each <= t)]
    best = max(safe, default=None)
    print(json.dumps({"benchmark": "redundancy", "threshold": best, "core_ms_per_frame": round(cost, 4)}))


if __name__ == "__main__":
    from capsule_edge.evaluation._module import run_module

    run_module(main)
