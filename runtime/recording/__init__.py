"""Bytes to frames: open a recording, list its frames, decode them and report damage.

In: the path of a video file, an image series, a TIFF or a DICOM file. Out: a ``Container`` (every frame that the file
holds, with its time) and the decoded frames in presentation order, each sound or corrupt.
Must not know: models, batches, events, results. It never guesses; what the file does not say is None.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .coded_planes import CodedPlanes, coded_of_rgb, to_coded
    from .colour import Planes, split, to_luma, to_planes, to_rgb, views
    from .container import Container
    from .decoder import decode, marks_keys
    from .ffmpeg import MOST_PIXELS, OPEN_OPTIONS, decode_logged, open_decoder
    from .folder import FolderContent, is_hidden, list_folder
    from .frame import Frame
    from .gop import ClosedGopError, find_gops, gop_numbers, gop_of
    from .image_header import picture_size
    from .image_integrity import picture_is_cut
    from .orientation import Orientations, orient, orientation_of
    from .source import fetch, hash_recording, read_closed_gops, read_frames, scan, study_name
    from .still_image import StillImage, decode_still
    from .timecode import TimeKind, clock, parse_clock, plain_seconds, time_kind
    from .warning import DamageDetection, RecordingWarning, TimesSource
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        coded_planes="CodedPlanes coded_of_rgb to_coded",
        colour="Planes split to_luma to_planes to_rgb views",
        container="Container",
        decoder="decode marks_keys",
        ffmpeg="MOST_PIXELS OPEN_OPTIONS decode_logged open_decoder",
        folder="FolderContent is_hidden list_folder",
        frame="Frame",
        gop="ClosedGopError find_gops gop_numbers gop_of",
        image_header="picture_size",
        image_integrity="picture_is_cut",
        orientation="Orientations orient orientation_of",
        still_image="StillImage decode_still",
        source="fetch hash_recording read_closed_gops read_frames scan study_name",
        timecode="TimeKind clock parse_clock plain_seconds time_kind",
        warning="DamageDetection RecordingWarning TimesSource",
    )

__all__ = [
    "MOST_PIXELS",
    "OPEN_OPTIONS",
    "ClosedGopError",
    "CodedPlanes",
    "Container",
    "DamageDetection",
    "FolderContent",
    "Frame",
    "Orientations",
    "Planes",
    "RecordingWarning",
    "StillImage",
    "TimeKind",
    "TimesSource",
    "clock",
    "coded_of_rgb",
    "decode",
    "decode_logged",
    "decode_still",
    "fetch",
    "find_gops",
    "gop_numbers",
    "gop_of",
    "hash_recording",
    "is_hidden",
    "list_folder",
    "marks_keys",
    "open_decoder",
    "orient",
    "orientation_of",
    "parse_clock",
    "picture_is_cut",
    "picture_size",
    "plain_seconds",
    "read_closed_gops",
    "read_frames",
    "scan",
    "split",
    "study_name",
    "time_kind",
    "to_coded",
    "to_luma",
    "to_planes",
    "to_rgb",
    "views",
]
