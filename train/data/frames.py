"""Frames ready for training: preprocessed once by the runtime's own code, then drawn.

A draw depends on (seed, epoch) alone: a resumed run sees what the uninterrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from capsule_edge.evaluation.datasets import Dataset, read_frame
from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.runtime.inference import InputSpec
from capsule_edge.runtime.phantom import LESION_LABELS, NORMAL, training_frame
from capsule_edge.runtime.preprocessing import preprocess

from ..config import TrainConfig
from .augment import Variation, draw, palettes

__all__ = [
    "Draw",
    "Frames",
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
_CHUNK = 512  # frames decoded ahead of whoever takes them
PHANTOM = "phantom"  # the video that rendered frames are said to be of
# A made frame's video is called TRANSPLANT, the donor's and the host's, with BETWEEN between: a sign that no name has.
TRANSPLANT, BETWEEN = "transplant", "\t"


@dataclass(frozen=True)
class Frames:
    """``pixels`` uint8 RGB (N, size, size, 3), ``labels`` int (N,) into ``keys``, ``videos`` the group of each."""

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    videos: npt.NDArray[np.str_]
    keys: tuple[str, ...]
    unreadable: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: npt.NDArray[np.int64]) -> Frames:
        return Frames(self.pixels[rows], self.labels[rows], self.videos[rows], self.keys)

    def first(self, count: int) -> Frames:
        """The first ``count``, a view."""
        return Frames(
            self.pixels[:count], self.labels[:count], self.videos[:count], self.keys, self.unreadable
        )

    def join(self, other: Frames) -> Frames:
        if other.keys != self.keys:
            raise InputError(f"labels differ: {self.keys} and {other.keys}")
        return Frames(
            np.concatenate([self.pixels, other.pixels]),
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.videos, other.videos]),
            self.keys,
        )


def load_frames(dataset: Dataset, keys: Sequence[str], spec: InputSpec) -> Frames:
    """Decode and preprocess a data set; images that cannot be read are left out and named in ``unreadable``.

    Raises ``InputError`` for a label that is not among ``keys`` or when no image can be read.
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
    return Frames(pixels, labels, videos, tuple(keys), lost)


def check_labels(dataset: Dataset, keys: Sequence[str]) -> npt.NDArray[np.int64]:
    """The column of each sample's label. Raises ``InputError`` for a label that is not among ``keys``."""
    column = {key: i for i, key in enumerate(keys)}
    for sample in dataset.samples:
        if sample.label not in column:
            raise InputError(f"{sample.file} has label {sample.label!r}, allowed is one of {', '.join(keys)}")
    return np.array([column[s.label] for s in dataset.samples], np.int64)


def videos_of(dataset: Dataset) -> npt.NDArray[np.str_]:
    """The group of each sample: its video, or itself where none is named."""
    return np.array([s.video_id or s.file.stem for s in dataset.samples])


def decode(dataset: Dataset, spec: InputSpec) -> Iterator[npt.NDArray[np.uint8] | None]:
    """Every sample preprocessed by the runtime's code, in order, on several threads; None for what cannot be read."""

    def one(row: int) -> npt.NDArray[np.uint8] | None:
        try:
            return preprocess(read_frame(dataset.samples[row]), spec)
        except InputError:
            return None

    with ThreadPoolExecutor(_WORKERS) as pool:
        for start in range(0, len(dataset.samples), _CHUNK):
            yield from pool.map(one, range(start, min(start + _CHUNK, len(dataset.samples))))


def check_phantom(keys: Sequence[str]) -> tuple[str, ...]:
    """The lesions among ``keys`` that a phantom can show.

    Raises ``UsageError`` for ``keys`` without one or without ``normal``.
    """
    labels = tuple(key for key in LESION_LABELS if key in keys)
    if NORMAL not in keys or not labels:
        raise UsageError(
            f"the labels are {', '.join(keys)}, phantom frames need {NORMAL} and one of {', '.join(LESION_LABELS)}",
            hint="train without them: --set phantom=0",
        )
    return labels


def phantom_frames(count: int, keys: Sequence[str], spec: InputSpec, seed: int) -> Frames:
    """Rendered frames of the labels that a phantom can show, for the demo's sake; on all cores.

    Raises what ``check_phantom`` raises.
    """
    column = {key: i for i, key in enumerate(keys)}
    labels = check_phantom(keys)
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        drawn = list(
            pool.map(partial(_phantom_frame, spec=spec, seed=seed, labels=labels), range(count), chunksize=16)
        )
    pixels = np.stack([frame for frame, _ in drawn])
    return Frames(pixels, np.array([column[key] for _, key in drawn]), np.full(count, PHANTOM), tuple(keys))


def _phantom_frame(number: int, *, spec: InputSpec, seed: int, labels: tuple[str, ...]) -> tuple[Any, str]:
    frame, key = training_frame(number, seed=seed, labels=labels)
    return preprocess(frame, spec), key


def scale(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """uint8 to [-1, 127/128] in steps of 1/128: the pixel is its own 8-bit quantisation."""
    return np.asarray((pixels.astype(np.float32) - 128) / 128, np.float32)


def draw_weights(
    frames: Frames, config: TrainConfig, among: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.float64]:
    """Probability of each frame to be drawn, by the size of its class and of its video within the class.

    Frames that are not ``among`` (N,) have none: a held-out fold.
    """
    if among is not None:
        weight = np.zeros(len(frames))
        weight[among] = draw_weights(frames.take(np.flatnonzero(among)), config)
        return weight
    # Made frames of many pairs of videos are one video here: they are not to outweigh the real ones.
    videos = np.where(is_transplant(frames.videos), TRANSPLANT, frames.videos)
    _, group = np.unique(np.char.add(frames.labels.astype(str), videos), return_inverse=True)
    weight = np.bincount(group)[group].astype(np.float64) ** -config.video_sampling
    totals = np.bincount(frames.labels, weight, len(frames.keys))
    counts = np.bincount(frames.labels, minlength=len(frames.keys))
    wanted = np.where(counts > 0, counts, 0).astype(np.float64) ** (1 - config.sampling) * (counts > 0)
    weight *= (wanted / np.maximum(totals, 1e-12))[frames.labels]
    return np.asarray(weight / weight.sum())


def is_transplant(videos: npt.NDArray[np.str_]) -> npt.NDArray[np.bool_]:
    return np.char.startswith(videos, TRANSPLANT + BETWEEN)


def is_real(videos: npt.NDArray[np.str_]) -> npt.NDArray[np.bool_]:
    """Which frames a camera saw: neither rendered nor made of two others."""
    return np.asarray((videos != PHANTOM) & ~is_transplant(videos))


def class_prior(frames: Frames, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Share of each class among drawn frames, 1 for a class without frames.

    A small share there would adjust the logit of a class that nothing holds down: the model would see it everywhere.
    """
    shares = np.bincount(frames.labels, weights, len(frames.keys))
    return np.asarray(np.where(shares > 0, shares, 1.0), np.float64)


class Draw(NamedTuple):
    """One epoch's frames: ``rows`` int (steps, batch) into the frames, and how each is varied, (steps, batch, ...)."""

    rows: Any
    variation: Variation


def draw_epoch(
    weights: npt.NDArray[np.float64],
    size: int,
    config: TrainConfig,
    epoch: int,
    steps: int,
    colours: npt.NDArray[np.float32] | None = None,
) -> Draw:
    """The frames of one epoch: ``steps`` batches drawn by ``weights`` (N,), one probability a frame.

    ``colours`` (N, 6) are the frames' own palettes (``colours_of``), for what ``config.recolour`` says.
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
    return Draw(
        rows.astype(np.int32), Variation(*(v.reshape(steps, config.batch, *v.shape[1:]) for v in flat))
    )


def colours_of(frames: Frames, config: TrainConfig) -> npt.NDArray[np.float32] | None:
    """The palettes that frames may be given, None where none is."""
    return palettes(frames.pixels) if config.recolour else None


def draw_mixing(config: TrainConfig, epoch: int, steps: int) -> npt.NDArray[np.float32]:
    """How much of its neighbour each frame takes on, (steps, batch), at most half (mixup, Zhang et al., ICLR 2018)."""
    if not config.mixup:
        return np.zeros((steps, config.batch), np.float32)
    rng = np.random.default_rng((config.seed, epoch, 1))
    drawn = rng.beta(config.mixup, config.mixup, (steps, config.batch))
    return np.minimum(drawn, 1 - drawn).astype(np.float32)
