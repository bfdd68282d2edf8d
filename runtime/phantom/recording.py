"""A rendered capsule-endoscopy recording whose findings are known, for the demo, tests and training.

A frame depends on the phantom and the frame's index alone. Phantoms do not replace frames of patients: a model
that reads them well shows that the software works, not that the model finds lesions.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from ..errors import OutputError, UsageError
from .lesions import LESION_LABELS
from .scene import find_scene

__all__ = [
    "DATA_SET_SEEDS",
    "DEMO_SEED",
    "LESION_LABELS",
    "NORMAL",
    "RECORDING_SEEDS",
    "TRAINING_SEEDS",
    "Phantom",
    "PlantedLesion",
    "is_recording_of",
    "training_frame",
    "training_frames",
    "write_recording",
]

Frame = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

NORMAL = "normal"
# Seeds of scenes, by use. The ranges are disjoint: a model that was trained on phantoms may be tested on the demo
# or on the rendered data set, and one trained on that data set on the demo.
RECORDING_SEEDS = range(0, 1_000)
DATA_SET_SEEDS = range(1_000, 1_000_000)
TRAINING_SEEDS = range(1_000_000, 2**31)
DEMO_SEED = 7

# Seconds in which a lesion grows to its full size, and shrinks again at its end.
_RAMP_S = 2.0
# A decoded frame shows a rendered one if they differ by less than this many grey levels on average. Coding costs
# less than 5; the first frames of 28 other scenes differed by 15 or more.
_MOST_CODING_LOSS = 8.0


@dataclass(frozen=True)
class PlantedLesion:
    """A lesion in a phantom.

    Attributes:
        label: one of ``LESION_LABELS``.
        start_s: time of the first frame that shows it, in seconds of capture time.
        end_s: time of the first frame that no longer shows it, in seconds of capture time.

    Capture time is also container time, unless ``write_recording`` is given another frame rate.
    """

    label: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Phantom:
    """A rendered recording.

    Attributes:
        seed: number of the scene, 0 or more: wall, light, camera path and looks of the lesions.
        frames: number of frames, 1 or more.
        size: width and height of a frame in pixels, even, 64 or more.
        capture_fps: frames per second of capture time.
        lesions: what is planted, without overlap in time. None plants ``default_lesions``, an empty tuple
            nothing.

    Raises:
        UsageError: a value is out of its range, or two lesions overlap.

    Example:
        ``Phantom(7, lesions=(PlantedLesion("polyp", 20.0, 40.0),)).render(50)``
    """

    seed: int
    frames: int = 600
    size: int = 336
    capture_fps: float = 2.0
    lesions: tuple[PlantedLesion, ...] | None = None

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UsageError(f"the phantom's seed is {self.seed}, allowed is 0 or more")
        if self.frames < 1:
            raise UsageError(f"the phantom has {self.frames} frames, allowed is 1 or more")
        if self.size < 64 or self.size % 2:
            raise UsageError(f"the phantom's size is {self.size}, allowed is an even number from 64")
        if not (math.isfinite(self.capture_fps) and self.capture_fps > 0):
            raise UsageError(f"capture_fps is {self.capture_fps}, allowed is a number above 0")
        self._check_lesions()

    def _check_lesions(self) -> None:
        """Raise ``UsageError`` for an unknown label, a time outside the recording, or an overlap."""
        before = PlantedLesion("", -1.0, 0.0)
        for lesion in sorted(self.lesions or (), key=lambda one: one.start_s):
            if lesion.label not in LESION_LABELS:
                raise UsageError(
                    f"lesion label is {lesion.label!r}, allowed is one of {', '.join(LESION_LABELS)}"
                )
            if not 0 <= lesion.start_s < lesion.end_s <= self.duration_s:
                raise UsageError(
                    f"lesion {lesion.label} is planted from {lesion.start_s} to {lesion.end_s} s,"
                    f" allowed is a stretch within 0 to {self.duration_s} s"
                )
            if lesion.start_s < before.end_s:
                raise UsageError(
                    f"lesion {lesion.label} starts at {lesion.start_s} s,"
                    f" allowed is from {before.end_s} s on, where {before.label} ends"
                )
            before = lesion

    @property
    def duration_s(self) -> float:
        """The length of the recording in seconds of capture time."""
        return self.frames / self.capture_fps

    @property
    def planted(self) -> tuple[PlantedLesion, ...]:
        """The lesions in the recording: ``lesions``, or the default ones."""
        return self.default_lesions() if self.lesions is None else self.lesions

    def clean(self) -> Phantom:
        """Return the same recording without lesions."""
        return replace(self, lesions=())

    def default_lesions(self) -> tuple[PlantedLesion, ...]:
        """Return up to four lesions of different labels, each 16 to 28 s long, 20 s or more apart.

        A recording of less than 220 s has fewer.
        """
        rng = np.random.default_rng([self.seed, 1])
        count = max(0, min(4, int((self.duration_s - 20) // 50)))
        labels = rng.permutation(LESION_LABELS)[:count]
        lasts = rng.integers(16, 29, count)
        spare = self.duration_s - float(lasts.sum()) - 20.0 * (count + 1)
        gaps = np.floor(20.0 + spare * rng.dirichlet(np.full(count + 1, 3.0)))
        planted, at = [], 0.0
        for label, last, gap in zip(labels, lasts, gaps, strict=False):
            planted.append(PlantedLesion(str(label), at + float(gap), at + float(gap) + float(last)))
            at += float(gap) + float(last)
        return tuple(planted)

    def truth(self, index: int) -> str:
        """Return the label key of frame ``index``: ``normal``, or the lesion it shows. Raises as ``render``."""
        found = self._lesion_at(index)
        return NORMAL if found is None else found[1].label

    def render(self, index: int) -> Frame:
        """Return frame ``index`` as uint8 RGB (size, size, 3). Raises ``UsageError`` outside 0 to ``frames`` - 1."""
        layer = self._lesion_layer(index)
        return find_scene(self.seed, self.size).render(index, index / self.capture_fps, layer)

    def lesion_mask(self, index: int) -> Mask | None:
        """Return where the lesion covers the wall, bool (size, size); None for a frame without a lesion.

        A pixel is True where the lesion hides a quarter of the wall or more.
        """
        layer = self._lesion_layer(index)
        return None if layer is None else (layer[..., 3] > 63) & find_scene(self.seed, self.size).inside

    def _lesion_at(self, index: int) -> tuple[int, PlantedLesion] | None:
        if not 0 <= index < self.frames:
            raise UsageError(f"frame index is {index}, allowed is 0 to {self.frames - 1}")
        # Compare frame numbers, not times: in floating point, index / fps may fall just short of a time it equals.
        for number, lesion in enumerate(self.planted):
            first = math.ceil(round(lesion.start_s * self.capture_fps, 6))
            last = math.ceil(round(lesion.end_s * self.capture_fps, 6))
            if first <= index < last:
                return number, lesion
        return None

    def _lesion_layer(self, index: int) -> Frame | None:
        """Return the lesion at its place in frame ``index``, uint8 RGBA (size, size, 4), or None."""
        found = self._lesion_at(index)
        if found is None:
            return None
        number, lesion = found
        t = index / self.capture_fps
        # A lesion starts at 60 % of its size, so that the first frame that is labelled with it shows it.
        grown = min(1.0, 0.6 + 0.4 * min(t - lesion.start_s, lesion.end_s - t) / _RAMP_S)
        scene = find_scene(self.seed, self.size)
        return scene.place(
            number, lesion.label, (t - lesion.start_s) / (lesion.end_s - lesion.start_s), grown, t
        )


def training_frames(
    count: int, *, size: int = 224, seed: int, labels: Sequence[str] = LESION_LABELS
) -> Iterator[tuple[Frame, str]]:
    """Render frames for training, each of a scene of its own (seeds of ``TRAINING_SEEDS``).

    Each frame is ``normal`` with probability 1/2, else of one of ``labels``, each equally likely. A longer series
    starts with the frames of a shorter one.

    Args:
        count: number of frames, 0 or more.
        size: width and height in pixels, even, 64 or more.
        seed: number of the series, 0 or more.
        labels: lesion labels to draw from, some of ``LESION_LABELS``.

    Returns:
        Pairs of a frame, uint8 RGB (size, size, 3) with border and caption, and its label key.

    Raises:
        UsageError: a value is out of its range.
    """
    if count < 0:
        raise UsageError(f"count is {count}, allowed is 0 or more")
    unknown = [label for label in labels if label not in LESION_LABELS]
    if unknown or not labels:
        raise UsageError(f"labels are {list(labels)}, allowed is some of {', '.join(LESION_LABELS)}")
    Phantom(seed, size=size, lesions=())
    return (training_frame(number, size=size, seed=seed, labels=labels) for number in range(count))


def training_frame(
    number: int, *, size: int = 224, seed: int, labels: Sequence[str] = LESION_LABELS
) -> tuple[Frame, str]:
    """Render one frame of the series that ``training_frames`` yields.

    Args:
        number: index of the frame in the series.
        size: as for ``training_frames``.
        seed: as for ``training_frames``.
        labels: as for ``training_frames``.

    Returns:
        The frame, uint8 RGB (size, size, 3), and its label key. Painting its scene takes most of the time.
    """
    rng = np.random.default_rng([seed, 5, number])
    scene_seed = int(rng.integers(TRAINING_SEEDS.start, TRAINING_SEEDS.stop))
    index = int(rng.integers(200, 240))
    lesions: tuple[PlantedLesion, ...] = ()
    if rng.random() < 0.5:
        lesions = (PlantedLesion(str(rng.choice(list(labels))), 100.0, 120.0),)
    phantom = Phantom(scene_seed, size=size, lesions=lesions)
    return phantom.render(index), phantom.truth(index)


def write_recording(path: str | os.PathLike[str], phantom: Phantom, *, fps: float | None = None) -> None:
    """Write a phantom as a video: H.264 (4:2:0, untagged colour) in MP4. The same call writes the same bytes.

    Args:
        path: the file to write or replace.
        phantom: the recording.
        fps: frames per second of container time: frame i is at i / ``fps`` s. None is the capture rate. A higher
            rate gives a recording that plays faster than it was captured, as exported ones do.

    Raises:
        UsageError: ``fps`` is not within 0.01 to 1000.
        OutputError: the file cannot be written; nothing is left behind.
    """
    import av  # not at the top: rendering for training does not need it

    from ..results import whole_file

    wanted = phantom.capture_fps if fps is None else fps
    if not 1e-2 <= wanted <= 1e3:
        raise UsageError(f"fps is {wanted}, allowed is a number from 0.01 to 1000")
    rate = Fraction(wanted).limit_denominator(1001)
    hint = "choose a folder that can be written"
    try:
        with whole_file(path, hint=hint) as temporary:
            _encode(str(temporary), phantom, rate)
    except av.FFmpegError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}", hint=hint) from error


def is_recording_of(path: str | os.PathLike[str], phantom: Phantom) -> bool:
    """Return whether a file is a recording of ``phantom``: as many frames, of its size, and its first frame.

    A file that cannot be read is not.
    """
    import av

    try:
        with av.open(os.fspath(path)) as container:
            stream = container.streams.video[0]
            if (stream.frames, stream.width, stream.height) != (phantom.frames, phantom.size, phantom.size):
                return False
            first = next(container.decode(stream)).to_ndarray(format="rgb24")
    except (OSError, av.FFmpegError, IndexError, StopIteration):
        return False
    difference = np.abs(first.astype(np.int16) - phantom.render(0)).mean()
    return bool(difference < _MOST_CODING_LOSS)


def _encode(path: str, phantom: Phantom, rate: Fraction) -> None:
    import av

    # One thread, so that the bytes do not depend on the number of cores. No B-frames, so that the file needs no
    # edit list.
    options = {"preset": "veryfast", "crf": "21", "threads": "1", "bf": "0", "g": "32"}
    with av.open(path, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.width = stream.height = phantom.size
        stream.pix_fmt = "yuv420p"
        stream.time_base = 1 / rate
        for index in range(phantom.frames):
            picture = av.VideoFrame.from_ndarray(phantom.render(index), format="rgb24")
            picture.pts, picture.time_base = index, 1 / rate
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
