"""Bytes to frames: open a recording, list its frames, decode them and report damage.

In: the path of a video file, an image series, a TIFF or a DICOM file. Out: a ``Container`` (every frame that the file
holds, with its time) and the decoded frames in presentation order, each sound or corrupt.
Must not know: models, batches, events, results. It never guesses; what the file does not say is None.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .colour import Planes, split, to_planes, to_rgb, views
    from .container import Container
    from .decoder import decode
    from .ffmpeg import MOST_PIXELS, OPEN_OPTIONS, decode_heard, open_decoder
    from .gop import NotApartError, find_groups, group_numbers, group_of
    from .image_integrity import picture_is_cut
    from .orientation import orient, orientation_of
    from .source import fetch, scan, sight, sight_apart, study_name
    from .timecode import clock, parse_clock
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        colour="Planes split to_planes to_rgb views",
        container="Container",
        decoder="decode",
        ffmpeg="MOST_PIXELS OPEN_OPTIONS decode_heard open_decoder",
        gop="NotApartError find_groups group_numbers group_of",
        image_integrity="picture_is_cut",
        orientation="orient orientation_of",
        source="fetch scan sight sight_apart study_name",
        timecode="clock parse_clock",
    )

__all__ = [
    "MOST_PIXELS",
    "OPEN_OPTIONS",
    "Container",
    "NotApartError",
    "Planes",
    "clock",
    "decode",
    "decode_heard",
    "fetch",
    "find_groups",
    "group_numbers",
    "group_of",
    "open_decoder",
    "orient",
    "orientation_of",
    "parse_clock",
    "picture_is_cut",
    "scan",
    "sight",
    "sight_apart",
    "split",
    "study_name",
    "to_planes",
    "to_rgb",
    "views",
]
