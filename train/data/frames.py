"""The frames of training: decoded and preprocessed by the runtime's own code, then drawn.

A draw depends on (seed, epoch) alone, so a resumed run sees the same frames as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from capsule_edge.evaluation.datasets import Dataset, read_frame
from capsule_edge.runtime.cores import count_cores
from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.runtime.inference import InputSpec
from capsule_edge.runtime.phantom import LESION_LABELS, NORMAL, training_frame
from capsule_edge.runtime.preprocessing import preprocess

from ..config import TrainConfig
from .augment import Variation, draw, palettes

__all__ = [
    "EpochDraw",
    "TrainingFrames",
    "check_labels",
    "check_phantom",
    "class_prior",
    "colours_of",
    "decode",
    "draw_epoch",
    "draw_mixing",
    "draw_weights",
    "is_real",
    "load_frames",
    "phantom_frames",
    "scale",
    "videos_of",
]

_WORKERS = 8
_CHUNK = 512  # frames decoded ahead of their use
PHANTOM = "phantom"  # the video name of rendered frames
# The video name of a transplant is TRANSPLANT, the donor's video and the host's video, joined by SEPARATOR, a
# character that no video name has.
TRANSPLANT, SEPARATOR = "transplant", "\t"


@dataclass(frozen=True)
class TrainingFrames:
    """Preprocessed frames with their labels.

    Attributes:
        pixels: uint8 RGB (N, size, size, 3).
        labels: int (N,), indices into ``keys``.
        videos: str (N,), the group of each frame: its video, or its file's stem where no video is named.
        keys: the labels of the model, in order.
        unreadable: the files, and the frames of recordings, that could not be read.
        places: int (N,), the index of each frame in the recording of its video; -1 for a frame of no recording.
            None stands for -1 throughout.
        hard: bool (N,), normal frames on which a model raised events (``TrainConfig.hard_weight``). None stands for
            no such frame.
    """

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    videos: npt.NDArray[np.str_]
    keys: tuple[str, ...]
    unreadable: tuple[str, ...] = ()
    places: npt.NDArray[np.int64] | None = None
    hard: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def recorded_at(self) -> npt.NDArray[np.int64]:
        """The index of each frame in its recording, int (N,); -1 for a frame of no recording."""
        return np.full(len(self), -1) if self.places is None else self.places

    @property
    def is_hard(self) -> npt.NDArray[np.bool_]:
        """The normal frames on which a model raised events, bool (N,)."""
        return np.zeros(len(self), bool) if self.hard is None else self.hard

    def take(self, rows: npt.NDArray[np.int64]) -> TrainingFrames:
        """Return a copy of the frames at ``rows``, int (n,)."""
        return self._chosen(rows, ())

    def first(self, count: int) -> TrainingFrames:
        """Return a view of the first ``count`` frames."""
        return self._chosen(slice(count), self.unreadable)

    def without_pixels(self) -> TrainingFrames:
        """Return the same frames with an array of pixels that takes no memory, (N, 0, 0, 3)."""
        return replace(self, pixels=np.empty((len(self), 0, 0, 3), np.uint8))

    def join(self, other: TrainingFrames) -> TrainingFrames:
        """Return a copy of these frames followed by ``other``.

        Raises:
            InputError: the two have different labels.
        """
        if other.keys != self.keys:
            raise InputError(f"frames of the labels {self.keys} and {other.keys} cannot be joined")
        return TrainingFrames(
            np.concatenate([self.pixels, other.pixels]),
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.videos, other.videos]),
            self.keys,
            self.unreadable + other.unreadable,
            np.concatenate([self.recorded_at, other.recorded_at]),
            np.concatenate([self.is_hard, other.is_hard]),
        )

    def _chosen(self, rows: npt.NDArray[np.int64] | slice, unreadable: tuple[str, ...]) -> TrainingFrames:
        places = None if self.places is None else self.places[rows]
        hard = None if self.hard is None else self.hard[rows]
        return TrainingFrames(
            self.pixels[rows], self.labels[rows], self.videos[rows], self.keys, unreadable, places, hard
        )


def load_frames(dataset: Dataset, keys: Sequence[str], spec: InputSpec) -> TrainingFrames:
    """Decode and preprocess all images of a data set.

    Images that cannot be read are left out and named in ``unreadable``.

    Args:
        dataset: the labelled images.
        keys: the labels of the model, in order.
        spec: the input of the model.

    Raises:
        InputError: a label is not among ``keys``, or no image can be read.
    """
    labels = check_labels(dataset, keys)
    pixels = np.empty((len(dataset.samples), spec.size, spec.size, 3), np.uint8)
    readable = np.ones(len(pixels), bool)
    for row, frame in enumerate(decode(dataset, spec)):
        if frame is None:
            readable[row] = False
        else:
            pixels[row] = frame
    if not readable.any():
        raise InputError(f"none of the {len(pixels)} images can be read")
    videos = videos_of(dataset)
    lost = tuple(str(dataset.samples[row].file) for row in np.flatnonzero(~readable))
    if lost:
        pixels, labels, videos = pixels[readable], labels[readable], videos[readable]
    return TrainingFrames(pixels, labels, videos, tuple(keys), lost)


def check_labels(dataset: Dataset, keys: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the column of each sample's label, int (N,).

    Raises:
        InputError: a label is not among ``keys``.
    """
    column = {key: i for i, key in enumerate(keys)}
    for sample in dataset.samples:
        if sample.label not in column:
            raise InputError(f"{sample.file} has label {sample.label!r}, allowed is one of {', '.join(keys)}")
    return np.array([column[s.label] for s in dataset.samples], np.int64)


def videos_of(dataset: Dataset) -> npt.NDArray[np.str_]:
    """Return the group of each sample, str (N,): its video, or its file's stem where no video is named."""
    return np.array([s.video_id or s.file.stem for s in dataset.samples])


def decode(dataset: Dataset, spec: InputSpec) -> Iterator[npt.NDArray[np.uint8] | None]:
    """Decode and preprocess every sample on several threads.

    Yields:
        A frame, uint8 RGB (size, size, 3), for each sample in order, or None for an image that cannot be
        read.
    """

    def one(row: int) -> npt.NDArray[np.uint8] | None:
        try:
            return preprocess(read_frame(dataset.samples[row]), spec)
        except InputError:
            return None

    with ThreadPoolExecutor(min(_WORKERS, count_cores())) as pool:
        for start in range(0, len(dataset.samples), _CHUNK):
            yield from pool.map(one, range(start, min(start + _CHUNK, len(dataset.samples))))


def check_phantom(keys: Sequence[str]) -> tuple[str, ...]:
    """Return those lesions among ``keys`` that a phantom can show.

    Raises:
        UsageError: there is none, or ``keys`` lack ``normal``.
    """
    labels = tuple(key for key in LESION_LABELS if key in keys)
    if NORMAL not in keys or not labels:
        raise UsageError(
            f"the labels are {', '.join(keys)}, phantom frames need {NORMAL} and one of {', '.join(LESION_LABELS)}",
            hint="train without phantom frames: --set phantom=0",
        )
    return labels


def phantom_frames(count: int, keys: Sequence[str], spec: InputSpec, seed: int) -> TrainingFrames:
    """Render frames of the labels that a phantom can show, on all cores.

    They let the model read the rendered recording of the demo.

    Args:
        count: number of frames.
        keys: the labels of the model, in order.
        spec: the input of the model.
        seed: the same seed renders the same frames.

    Raises:
        UsageError: ``keys`` have no lesion that a phantom can show, or lack ``normal``.
    """
    column = {key: i for i, key in enumerate(keys)}
    labels = check_phantom(keys)
    # Windows allows 61 processes.
    with ProcessPoolExecutor(min(61, count_cores()), mp_context=get_context("spawn")) as pool:
        drawn = list(
            pool.map(partial(_phantom_frame, spec=spec, seed=seed, labels=labels), range(count), chunksize=16)
        )
    pixels = np.stack([frame for frame, _ in drawn])
    return TrainingFrames(
        pixels, np.array([column[key] for _, key in drawn]), np.full(count, PHANTOM), tuple(keys)
    )


def _phantom_frame(number: int, *, spec: InputSpec, seed: int, labels: tuple[str, ...]) -> tuple[Any, str]:
    """Render one frame and return it, preprocessed, with its label."""
    frame, key = training_frame(number, seed=seed, labels=labels)
    return preprocess(frame, spec), key


def scale(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Scale uint8 pixels to float32 in [-1, 127/128].

    The steps are 1/128, so a pixel is its own 8-bit quantisation.
    """
    return np.asarray((pixels.astype(np.float32) - 128) / 128, np.float32)


def draw_weights(
    frames: TrainingFrames, config: TrainConfig, among: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.float64]:
    """Return the probability of each frame to be drawn.

    It depends on the size of the frame's class and on the size of its video within the class. Hard frames are
    drawn ``hard_weight`` times as often as the other frames of their class and video; the share of the class stays.

    Args:
        frames: N frames.
        config: ``sampling`` and ``video_sampling`` set how evenly to draw, ``hard_weight`` how often hard frames.
        among: which frames may be drawn, bool (N,); by default all. The others get 0.

    Returns:
        float64 (N,), with sum 1.
    """
    if among is not None:
        weight = np.zeros(len(frames))
        weight[among] = draw_weights(frames.without_pixels().take(np.flatnonzero(among)), config)
        return weight
    # Transplants stem from many pairs of videos. Count them as one video, so that they do not outweigh real videos.
    videos = np.where(is_transplant(frames.videos), TRANSPLANT, frames.videos)
    _, group = np.unique(np.char.add(frames.labels.astype(str), videos), return_inverse=True)
    weight = np.bincount(group)[group].astype(np.float64) ** -config.video_sampling
    weight = np.where(frames.is_hard, weight * config.hard_weight, weight)
    totals = np.bincount(frames.labels, weight, len(frames.keys))
    counts = np.bincount(frames.labels, minlength=len(frames.keys))
    wanted = np.where(counts > 0, counts, 0).astype(np.float64) ** (1 - config.sampling) * (counts > 0)
    weight *= (wanted / np.maximum(totals, 1e-12))[frames.labels]
    return np.asarray(weight / weight.sum())


def is_transplant(videos: npt.NDArray[np.str_]) -> npt.NDArray[np.bool_]:
    """Return which frames are transplants, bool (N,)."""
    return np.char.startswith(videos, TRANSPLANT + SEPARATOR)


def is_real(videos: npt.NDArray[np.str_]) -> npt.NDArray[np.bool_]:
    """Return which frames a camera recorded, bool (N,): those that are neither rendered nor transplants."""
    return np.asarray((videos != PHANTOM) & ~is_transplant(videos))


def class_prior(frames: TrainingFrames, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the share of each class among drawn frames, float64 (labels,), and 1 for a class without frames.

    A small share instead of 1 would raise the logit of a class that no frame holds down. The model would then
    see this class everywhere.

    Args:
        frames: N frames.
        weights: the probability of each frame to be drawn, float64 (N,).
    """
    shares = np.bincount(frames.labels, weights, len(frames.keys))
    return np.asarray(np.where(shares > 0, shares, 1.0), np.float64)


class EpochDraw(NamedTuple):
    """The frames of one epoch.

    ``rows`` are indices into the frames, int (steps, batch). ``variation`` is their augmentation, (steps,
    batch, ...).
    """

    rows: Any
    variation: Variation


def draw_epoch(
    weights: npt.NDArray[np.float64],
    size: int,
    config: TrainConfig,
    epoch: int,
    steps: int,
    colours: npt.NDArray[np.float32] | None = None,
) -> EpochDraw:
    """Draw the frames of one epoch and their augmentation.

    Args:
        weights: the probability of each frame to be drawn, float64 (N,).
        size: side of the frames in pixels.
        config: batch size, seed and augmentation.
        epoch: number of the epoch; with the seed it determines the draw.
        steps: number of batches.
        colours: the palettes of the frames (``colours_of``), float32 (N, 6), or None.
    """
    rng = np.random.default_rng((config.seed, epoch))
    rows = rng.choice(len(weights), (steps, config.batch), p=weights)
    others = None
    if colours is not None:
        others = colours[
            np.random.default_rng((config.seed, epoch, 3)).choice(len(weights), rows.size, p=weights)
        ]
    flat = draw(
        rng, rows.size, size, config.augmentation,
        debris=config.debris, compression=config.compression, recolour=config.recolour, others=others,
    )  # fmt: skip
    return EpochDraw(
        rows.astype(np.int32), Variation(*(v.reshape(steps, config.batch, *v.shape[1:]) for v in flat))
    )


def colours_of(frames: TrainingFrames, config: TrainConfig) -> npt.NDArray[np.float32] | None:
    """Return the palettes (N, 6) that frames may take on, or None if ``config.recolour`` is 0."""
    return palettes(frames.pixels) if config.recolour else None


def draw_mixing(config: TrainConfig, epoch: int, steps: int) -> npt.NDArray[np.float32]:
    """Draw how much of its neighbour each frame takes on (mixup, Zhang et al., ICLR 2018).

    Returns:
        float32 (steps, batch), at most 0.5.
    """
    if not config.mixup:
        return np.zeros((steps, config.batch), np.float32)
    rng = np.random.default_rng((config.seed, epoch, 1))
    drawn = rng.beta(config.mixup, config.mixup, (steps, config.batch))
    return np.minimum(drawn, 1 - drawn).astype(np.float32)
