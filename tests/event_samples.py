"""Made-up answers and truths of recordings for the tests of event fits; none of their numbers is a measurement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from study_samples import SPEC

from capsule_edge.evaluation.recordings.recording_scores import RecordingAnswers

# First frame, end frame (exclusive), true label, label of the model or None, its probability.
MarkedStretch = tuple[int, int, str, str | None, float]

ULCERS: list[MarkedStretch] = [
    (100, 120, "ulcer", "ulcer", 0.35),
    (400, 420, "ulcer", "ulcer", 0.32),
]
SMALL_GRID = {
    "smoothing_s": (1.0, 4.0),
    "max_gap_s": (5.0,),
    "min_frames": (1, 3),
    "release": (0.5,),
    "merge_s": (0.0,),
}


def make_answers(
    stretches: Sequence[MarkedStretch], count: int = 1000, name: str = "r", video: str | None = None
) -> RecordingAnswers:
    """Return answers for ``count`` normal frames, two a second, with other stretches among them."""
    truth = np.full(count, "normal", dtype="<U20")
    values = np.full((count, len(SPEC.labels)), 0.02)
    for first, after, marked, answered, probability in stretches:
        truth[first:after] = marked
        if answered is not None:
            values[first:after, SPEC.keys.index(answered)] = probability
    values[:, 0] = 1 - values[:, 1:].sum(axis=1)
    return RecordingAnswers(name, truth, np.arange(count) * 0.5, values, video)


def make_noisy_answers(seed: int, count: int = 400, name: str = "r") -> RecordingAnswers:
    """Return answers that walk at random, some of them missing, with a truth of random stretches."""
    generator = np.random.default_rng(seed)
    walk = np.clip(0.4 + np.cumsum(generator.normal(0, 0.25, (count, 2)), axis=0), 0, 1) / 2
    values = np.column_stack([1 - walk.sum(axis=1), walk])
    values[generator.random(count) < 0.05] = np.nan
    truth = np.array(["normal", "ulcer", "blood_fresh"])[np.repeat(generator.integers(0, 3, count // 8), 8)]
    gaps = np.where(generator.random(count) < 0.02, 30.0, 0.5)
    return RecordingAnswers(name, truth, np.cumsum(gaps), values)
