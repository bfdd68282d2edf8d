"""A small labelled data set of rendered frames, for trying the commands that train and measure models.

It has ``len(SPLITS)`` phantom videos. Each shows every lesion label once, so that every class is in both splits
and no video is in two. Figures measured on rendered frames say nothing about patients.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from .lesions import LESION_LABELS
from .recording import DATA_SET_SEEDS, Phantom, PlantedLesion

__all__ = ["MOST_DATA_SET_SEEDS", "SPLITS", "LabelledFrame", "count_frames", "render_data_set"]

SPLITS = ("train",) * 12 + ("val",) * 4
"""The split of each video."""

MOST_DATA_SET_SEEDS = len(DATA_SET_SEEDS) // len(SPLITS)
"""Number of different data sets. None shares a scene with another, with a demo or with phantoms for training."""

_SIZE = 224
_CAPTURE_FPS = 2.0
# A lesion of 18 s in view, then 12 s of normal wall; one frame every 6 s gives three frames of each lesion.
_LESION_S, _PERIOD_S, _STEP_S = 18.0, 30.0, 6.0
_DURATION_S = 12.0 + _PERIOD_S * len(LESION_LABELS)


@dataclass(frozen=True)
class LabelledFrame:
    """One rendered frame and its row in ``labels.csv``.

    Attributes:
        pixels: uint8 RGB (224, 224, 3), with black corners and a caption outside the field of view.
        label: ``normal`` or one of ``LESION_LABELS``.
        video_id: name of the phantom video, for example ``phantom-001000``.
        frame_number: index of the frame in that video.
        split: ``train`` or ``val``, the same for all frames of a video.
    """

    pixels: npt.NDArray[np.uint8]
    label: str
    video_id: str
    frame_number: int
    split: str


def count_frames() -> int:
    """Return the number of frames of a data set."""
    return len(SPLITS) * len(_frame_numbers())


def render_data_set(seed: int = 0) -> Iterator[LabelledFrame]:
    """Render the frames of a data set, video by video. The same seed gives the same frames.

    Args:
        seed: number of the data set, 0 to ``MOST_DATA_SET_SEEDS`` - 1.

    Raises:
        UsageError: there is no data set of that number.

    Example:
        ``labels = Counter(frame.label for frame in render_data_set())``
    """
    if not 0 <= seed < MOST_DATA_SET_SEEDS:
        raise UsageError(f"the data set's seed is {seed}, allowed is 0 to {MOST_DATA_SET_SEEDS - 1}")
    return _render(DATA_SET_SEEDS.start + seed * len(SPLITS))


def _render(first_seed: int) -> Iterator[LabelledFrame]:
    for video_seed, split in enumerate(SPLITS, start=first_seed):
        phantom = _video(video_seed)
        for number in _frame_numbers():
            pixels, label = phantom.render(number), phantom.truth(number)
            yield LabelledFrame(pixels, label, f"phantom-{video_seed:06d}", number, split)


def _video(seed: int) -> Phantom:
    """Return a phantom that shows every lesion label once, in an order of its own."""
    order = np.random.default_rng([seed, 6]).permutation(LESION_LABELS)
    starts = [12.0 + _PERIOD_S * place for place in range(len(order))]
    lesions = tuple(
        PlantedLesion(str(label), at, at + _LESION_S) for label, at in zip(order, starts, strict=True)
    )
    return Phantom(
        seed, frames=int(_DURATION_S * _CAPTURE_FPS), size=_SIZE, capture_fps=_CAPTURE_FPS, lesions=lesions
    )


def _frame_numbers() -> range:
    return range(0, int(_DURATION_S * _CAPTURE_FPS), int(_STEP_S * _CAPTURE_FPS))
