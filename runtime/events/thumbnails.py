"""What the report shows of the frames themselves: colours over time, pictures of events, activation maps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from ..inference import Backend, InputSpec
from ..preprocessing import FieldOfView, preprocess, preprocess_planes
from ..recording import Container, fetch
from ..study import Event
from .peak_frames import MOST, Gallery, Pictures, enlarge, pack
from .ranking import rank_events

__all__ = ["ColourBar", "activation_map", "illustrate", "mean_colours"]

Picture = npt.NDArray[np.uint8]
Map = npt.NDArray[np.float32]

_BINS = 1000


class ColourBar:
    """Mean colour of the frames in equal stretches of ``duration_s`` seconds of container time."""

    def __init__(self, *, frames: int, duration_s: float) -> None:
        # Two frames a stretch: with one, rounding leaves stretches empty between frames that are evenly spaced.
        self._bins = max(1, min(_BINS, frames // 2))
        self._duration_s = duration_s or 1.0
        self._sums = np.zeros((self._bins, 3))
        self._counts = np.zeros(self._bins, np.int64)
        self._last = np.zeros(3)

    def add(self, time_s: float, colour: npt.NDArray[np.float64]) -> None:
        """Count a frame by its mean colour (``mean_colours``)."""
        place = min(int(time_s / self._duration_s * self._bins), self._bins - 1)
        self._sums[place] += colour
        self._counts[place] += 1
        self._last = colour

    def again(self, time_s: float) -> None:
        """Count a frame that is as the last one was."""
        self.add(time_s, self._last)

    def means(self) -> npt.NDArray[np.float64]:
        """RGB 0..255 of shape (bins, 3), NaN for a stretch without a frame."""
        means = np.full((self._bins, 3), np.nan)
        np.divide(self._sums, self._counts[:, None], out=means, where=self._counts[:, None] > 0)
        return means


def mean_colours(pixels: Picture, spec: InputSpec) -> npt.NDArray[np.float64]:
    """Mean red, green and blue inside the field of view, float64 (n, 3), of inputs of the model."""
    inside = _inside(spec)
    return np.array([cv2.mean(each, mask=inside)[:3] for each in pixels], np.float64).reshape(-1, 3)


@lru_cache(maxsize=8)
def _inside(spec: InputSpec) -> Picture:
    """What preprocessing leaves of a white frame is what lies inside the field of view."""
    white = np.full((spec.size, spec.size, 3), 255, np.uint8)
    return np.ascontiguousarray(preprocess(white, replace(spec, crop="none"))[..., 0])


def illustrate(
    container: Container,
    events: Sequence[Event],
    backend: Backend,
    field_of_view: FieldOfView | None,
    gallery: Gallery | None = None,
) -> tuple[Pictures, dict[int, Map]]:
    """Picture and activation map of the peak of each event, by event id.

    Peaks that the gallery does not have are decoded again, with what they build on.
    """
    keys = backend.spec.keys
    pictures: dict[int, bytes] = {}
    maps: dict[int, Map] = {}
    absent: defaultdict[int, list[Event]] = defaultdict(list)
    for event in rank_events(events, most=MOST):
        kept = gallery.find(keys.index(event.label), event.peak_index) if gallery is not None else None
        if kept is None:
            absent[event.peak_index].append(event)
        else:
            pictures[event.id], maps[event.id] = kept[0], activation_map(kept[1])
    if absent:
        spec = backend.spec.input
        large = enlarge(spec)
        for frame in fetch(container, absent):
            if (planes := frame.planes()) is None:
                continue
            picture = pack(preprocess_planes(planes, large, field_of_view))
            features = backend.run(preprocess_planes(planes, spec, field_of_view)[None]).features[0]
            for event in absent[frame.index]:
                pictures[event.id] = picture
                maps[event.id] = activation_map(features[..., keys.index(event.label)])
    return Pictures(pictures), maps


def activation_map(feature: Map) -> Map:
    """One label's class activation, float32 (h, w), as 0..1: what speaks for it, as a share of the strongest.

    After Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016.
    """
    positive = np.maximum(np.nan_to_num(feature), 0)
    return np.asarray(positive / (positive.max() or 1), np.float32)
