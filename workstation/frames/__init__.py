"""Exact frames by index: the pictures that the model judged, and nothing that merely looks like them.

In: the path of a recording and a frame's index. Out: its pixels, a JPEG or PNG of it, the SHA-256 of its model input,
its activation map; or the reason why it has no picture.
Must not know: HTTP, the database, readings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .activation import Activation, OpenModels, find_contours
    from .availability import Access, DecodingStoppedError, FrameUnavailable, StaleSourceError
    from .encoded import encode_jpeg
    from .frame_source import (
        LARGEST_TILE,
        STRIP,
        THUMBNAIL,
        USUAL_URGENCY,
        Caches,
        FrameSource,
        at_urgency,
        giving_up,
    )
    from .frame_store import FrameStore
    from .preview import Preview, preview_recording
    from .recording_mark import RecordingMark, mark_recording
    from .strip import Strip
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        activation="Activation OpenModels find_contours",
        availability="Access DecodingStoppedError FrameUnavailable StaleSourceError",
        encoded="encode_jpeg",
        frame_source="Caches FrameSource LARGEST_TILE STRIP THUMBNAIL USUAL_URGENCY at_urgency giving_up",
        frame_store="FrameStore",
        preview="Preview preview_recording",
        recording_mark="RecordingMark mark_recording",
        strip="Strip",
    )

__all__ = [
    "LARGEST_TILE",
    "STRIP",
    "THUMBNAIL",
    "USUAL_URGENCY",
    "Access",
    "Activation",
    "Caches",
    "DecodingStoppedError",
    "FrameSource",
    "FrameStore",
    "FrameUnavailable",
    "OpenModels",
    "Preview",
    "RecordingMark",
    "StaleSourceError",
    "Strip",
    "at_urgency",
    "encode_jpeg",
    "find_contours",
    "giving_up",
    "mark_recording",
    "preview_recording",
]
