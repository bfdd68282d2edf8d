"""Bytes to frames: open a recording, list its frames, decode them and report damage.

In: the path of a video file, an image series, a TIFF, a DICOM file or a DICOMDIR folder. Out: a ``Container``
(every frame that the file holds, with its time) and the decoded frames in presentation order, each sound or corrupt.
Must not know: models, batches, events, results. It never guesses; what the file does not say is None.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .coded_pictures import PacketRole
    from .coded_planes import CodedPicture, CodedPlanes, coded_of_rgb, to_coded, to_picture
    from .colour import Planes, split, to_luma, to_planes, to_rgb, views
    from .container import Container
    from .decoder import FrameBuilder, decode, marks_keys
    from .dicom_header import is_dicom
    from .dicom_recording import is_dicom_directory
    from .ffmpeg import MOST_PIXELS, OPEN_OPTIONS, decode_logged, open_decoder, quote
    from .folder import RECORDING_SUFFIXES, FolderContent, is_hidden, list_folder
    from .frame import Frame
    from .gop import ClosedGopError, count_closed, find_gops, gop_numbers, gop_of
    from .image_header import picture_size
    from .image_integrity import picture_is_cut
    from .image_series import ImageSeries, read_series
    from .orientation import Orientations, orient, orientation_of
    from .random_access import Entries, FrameDecoder, SeekError, find_entries
    from .source import (
        decoding_runs,
        fetch,
        hash_recording,
        list_files,
        read_closed_gops,
        read_frames,
        scan,
        study_name,
    )
    from .still_image import StillImage, decode_still
    from .timecode import TimeKind, clock, parse_clock, plain_seconds, time_kind
    from .warning import DamageDetection, RecordingWarning, TimesSource
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        coded_pictures="PacketRole",
        coded_planes="CodedPicture CodedPlanes coded_of_rgb to_coded to_picture",
        colour="Planes split to_luma to_planes to_rgb views",
        container="Container",
        decoder="FrameBuilder decode marks_keys",
        dicom_header="is_dicom",
        dicom_recording="is_dicom_directory",
        ffmpeg="MOST_PIXELS OPEN_OPTIONS decode_logged open_decoder quote",
        folder="RECORDING_SUFFIXES FolderContent is_hidden list_folder",
        frame="Frame",
        gop="ClosedGopError count_closed find_gops gop_numbers gop_of",
        image_header="picture_size",
        image_integrity="picture_is_cut",
        image_series="ImageSeries read_series",
        orientation="Orientations orient orientation_of",
        random_access="Entries FrameDecoder SeekError find_entries",
        still_image="StillImage decode_still",
        source="decoding_runs fetch hash_recording list_files read_closed_gops read_frames scan study_name",
        timecode="TimeKind clock parse_clock plain_seconds time_kind",
        warning="DamageDetection RecordingWarning TimesSource",
    )

__all__ = [
    "MOST_PIXELS",
    "OPEN_OPTIONS",
    "RECORDING_SUFFIXES",
    "ClosedGopError",
    "CodedPicture",
    "CodedPlanes",
    "Container",
    "DamageDetection",
    "Entries",
    "FolderContent",
    "Frame",
    "FrameBuilder",
    "FrameDecoder",
    "ImageSeries",
    "Orientations",
    "PacketRole",
    "Planes",
    "RecordingWarning",
    "SeekError",
    "StillImage",
    "TimeKind",
    "TimesSource",
    "clock",
    "coded_of_rgb",
    "count_closed",
    "decode",
    "decode_logged",
    "decode_still",
    "decoding_runs",
    "fetch",
    "find_entries",
    "find_gops",
    "gop_numbers",
    "gop_of",
    "hash_recording",
    "is_dicom",
    "is_dicom_directory",
    "is_hidden",
    "list_files",
    "list_folder",
    "marks_keys",
    "open_decoder",
    "orient",
    "orientation_of",
    "parse_clock",
    "picture_is_cut",
    "picture_size",
    "plain_seconds",
    "quote",
    "read_closed_gops",
    "read_frames",
    "read_series",
    "scan",
    "split",
    "study_name",
    "time_kind",
    "to_coded",
    "to_luma",
    "to_picture",
    "to_planes",
    "to_rgb",
    "views",
]
