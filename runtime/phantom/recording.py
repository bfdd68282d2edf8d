"""A rendered capsule-endoscopy recording whose findings are known, for demo, tests and training.

Every frame is a function of the phantom and its index alone. Phantoms are no substitute for patients'
frames: a model that reads them well has shown that its plumbing works, nothing more.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import OutputError, UsageError
from .lesions import LESION_LABELS
from .scene import find_scene

__all__ = [
    "DEMO_SEED",
    "LESION_LABELS",
    "NORMAL",
    "RECORDING_SEEDS",
    "TRAINING_SEEDS",
    "Phantom",
    "PlantedLesion",
    "training_frame",
    "training_frames",
    "write_recording",
]

Frame = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

NORMAL = "normal"
# A model may train on phantoms and then read the demo: no scene of one may be a scene of the other.
RECORDING_SEEDS = range(0, 1_000)
TRAINING_SEEDS = range(1_000_000, 2**31)
DEMO_SEED = 7

_RAMP_S = 2.0


@dataclass(frozen=True)
class PlantedLesion:
    """A lesion of ``label`` (one of ``LESION_LABELS``) in view from ``start_s`` up to before ``end_s``.

    Seconds of capture time, which is container time unless ``write_recording`` is given another rate.
    """

    label: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Phantom:
    """A recording of ``frames`` frames of ``size`` x ``size`` pixels (even, >= 64), ``capture_fps`` a second.

    ``lesions`` None plants ``default_lesions``; an empty tuple plants none. They may not overlap.
    Raises ``UsageError`` for anything that cannot be rendered.
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
        return self.frames / self.capture_fps

    @property
    def planted(self) -> tuple[PlantedLesion, ...]:
        """The lesions in the recording, given or default."""
        return self.default_lesions() if self.lesions is None else self.lesions

    def clean(self) -> Phantom:
        """The same recording without lesions."""
        return replace(self, lesions=())

    def default_lesions(self) -> tuple[PlantedLesion, ...]:
        """Up to four lesions of different labels, 16 to 28 s each, 20 s or more apart; fewer if short."""
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
        """Label key of frame ``index``, ``normal`` where no lesion is planted."""
        found = self._lesion_at(index)
        return NORMAL if found is None else found[1].label

    def render(self, index: int) -> Frame:
        """Frame ``index`` as uint8 RGB (size, size, 3). Raises ``UsageError`` outside 0 to ``frames`` - 1."""
        layer = self._lesion_layer(index)
        return find_scene(self.seed, self.size).render(index, index / self.capture_fps, layer)

    def lesion_mask(self, index: int) -> Mask | None:
        """True where the lesion hides a quarter of the wall or more, bool (size, size), or None."""
        layer = self._lesion_layer(index)
        return None if layer is None else (layer[..., 3] > 63) & find_scene(self.seed, self.size).inside

    def _lesion_at(self, index: int) -> tuple[int, PlantedLesion] | None:
        if not 0 <= index < self.frames:
            raise UsageError(f"frame index is {index}, allowed is 0 to {self.frames - 1}")
        # Compared in frames: index / fps in floating point may fall just short of a boundary that it equals.
        for number, lesion in enumerate(self.planted):
            first = math.ceil(round(lesion.start_s * self.capture_fps, 6))
            last = math.ceil(round(lesion.end_s * self.capture_fps, 6))
            if first <= index < last:
                return number, lesion
        return None

    def _lesion_layer(self, index: int) -> Frame | None:
        found = self._lesion_at(index)
        if found is None:
            return None
        number, lesion = found
        t = index / self.capture_fps
        # Never from nothing: a lesion is there to be seen in the first frame whose truth names it.
        grown = min(1.0, 0.6 + 0.4 * min(t - lesion.start_s, lesion.end_s - t) / _RAMP_S)
        scene = find_scene(self.seed, self.size)
        return scene.place(
            number, lesion.label, (t - lesion.start_s) / (lesion.end_s - lesion.start_s), grown, t
        )


def training_frames(
    count: int, *, size: int = 224, seed: int, labels: Sequence[str] = LESION_LABELS
) -> Iterator[tuple[Frame, str]]:
    """``count`` pairs of a frame (uint8 RGB (size, size, 3), with border and caption) and its label key.

    Each is of a scene of its own, from ``TRAINING_SEEDS``; half of them, by chance, are ``normal``, the
    others of ``labels`` in equal shares. A longer series starts with the frames of a shorter one.
    Raises ``UsageError``.
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
    """Frame ``number`` of the series ``training_frames``, by itself: a frame takes a scene's time to render."""
    rng = np.random.default_rng([seed, 5, number])
    scene_seed = int(rng.integers(TRAINING_SEEDS.start, TRAINING_SEEDS.stop))
    index = int(rng.integers(200, 240))
    lesions: tuple[PlantedLesion, ...] = ()
    if rng.random() < 0.5:
        lesions = (PlantedLesion(str(rng.choice(list(labels))), 100.0, 120.0),)
    phantom = Phantom(scene_seed, size=size, lesions=lesions)
    return phantom.render(index), phantom.truth(index)


def write_recording(path: str | os.PathLike[str], phantom: Phantom, *, fps: float | None = None) -> None:
    """Writes ``phantom`` to ``path``: H.264 (4:2:0, untagged colour) in MP4, frame i at i / ``fps`` s.

    ``fps`` defaults to the capture rate; another one makes an exported recording that plays faster. The same
    call leaves the same bytes. Raises ``UsageError`` for an impossible rate, ``OutputError`` for a place that
    cannot be written.
    """
    import av  # rendering alone, as for training, does without

    wanted = phantom.capture_fps if fps is None else fps
    if not 1e-2 <= wanted <= 1e3:
        raise UsageError(f"fps is {wanted}, allowed is a number from 0.01 to 1000")
    rate = Fraction(wanted).limit_denominator(1001)
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        _encode(str(temporary), phantom, rate)
        os.replace(temporary, target)
    except (OSError, av.FFmpegError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(
            f"cannot write {target}: {reason}", hint="choose a folder that can be written"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _encode(path: str, phantom: Phantom, rate: Fraction) -> None:
    import av

    # One thread and no B-frames: the bytes do not depend on the cores and the file needs no edit list.
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
