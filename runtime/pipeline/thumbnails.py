"""Make the image and the activation map of each event's peak, which the report shows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..events import MOST, PeakFrames, Thumbnails, activation_map, enlarge, pack
from ..inference import Backend
from ..preprocessing import FieldOfView, preprocess_frame
from ..recording import Container, fetch
from ..study import Event

__all__ = ["illustrate"]

Map = npt.NDArray[np.float32]


def illustrate(
    container: Container,
    events: Sequence[Event],
    backend: Backend,
    field_of_view: FieldOfView | None,
    peaks: PeakFrames | None = None,
) -> tuple[Thumbnails, dict[int, Map]]:
    """Return the image and the activation map of the peak of each event, by event id.

    A model without ``features`` gives no map.

    Peak frames that were not kept while the recording was read are decoded again, with the frames they build on.

    Args:
        events: in the order in which to look at them; the first ``MOST`` are shown.
        backend: the opened model; answers the frames that are decoded again.
        peaks: the peak frames that were kept.
    """
    keys = backend.spec.keys
    images: dict[int, bytes] = {}
    maps: dict[int, Map] = {}
    absent: defaultdict[int, list[Event]] = defaultdict(list)
    for event in events[:MOST]:
        kept = peaks.find(keys.index(event.label), event.peak_index) if peaks is not None else None
        if kept is None:
            absent[event.peak_index].append(event)
        else:
            images[event.id], maps[event.id] = kept[0], activation_map(kept[1])
    if absent:
        spec = backend.spec.input
        large = enlarge(spec)
        for frame in fetch(container, absent):
            image = pack(preprocess_frame(frame, large, field_of_view))
            features = backend.run(preprocess_frame(frame, spec, field_of_view)[None]).features[0]
            for event in absent[frame.index]:
                images[event.id] = image
                maps[event.id] = activation_map(features[..., keys.index(event.label)])
    return Thumbnails(images), maps if backend.spec.has_maps else {}
