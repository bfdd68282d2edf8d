"""The recording as a Video Endoscopic Image: its bit stream unchanged, where DICOM allows its profile and level.

Sources: PS3.5, 8.2.7 to 8.2.11 (limits of the transfer syntaxes) and A.4 (encapsulation); PS3.3, A.32.5 (the object).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np

from capsule_edge.runtime.recording import OPEN_OPTIONS, Container

from .common_modules import ObjectMaker, file_meta
from .frame_numbers import count_pictures

__all__ = ["VIDEO_CLASS", "VideoForm", "make_video_header", "video_form", "write_video"]

VIDEO_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.1.1"
# (decoder, FFmpeg's profile, highest level as the stream states it, transfer syntax, pixel formats), strictest first.
_FORMS = (
    ("h264", "High", 41, "1.2.840.10008.1.2.4.102", ("yuv420p", "yuvj420p")),
    ("h264", "High", 42, "1.2.840.10008.1.2.4.104", ("yuv420p", "yuvj420p")),
    ("hevc", "Main", 153, "1.2.840.10008.1.2.4.107", ("yuv420p", "yuvj420p")),
    ("hevc", "Main 10", 153, "1.2.840.10008.1.2.4.108", ("yuv420p", "yuv420p10le")),
)
# FFmpeg's names of MP4 and of transport streams, the containers that DICOM allows.
_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "mpegts")
# FFmpeg has one name for MP4 and QuickTime; the brand tells them apart. QuickTime before 2005 states none.
_QUICKTIME = b"qt  "
# A fragment's length has 32 bits and is even (PS3.5, A.4); its highest value means "undefined".
_MOST_BYTES = (1 << 32) - 4
# A vector of more steps is longer than an element of VR DS can be.
_MOST_STEPS = 8000
_MOST_VECTOR = (1 << 16) - 2


@dataclass(frozen=True)
class VideoForm:
    """The form in which a recording becomes a Video Endoscopic Image.

    Attributes:
        syntax: UID of the transfer syntax; empty where none fits.
        reason: why none fits; empty where one does.
        method: name of the compression in DICOM.
    """

    syntax: str
    reason: str = ""
    method: str = ""


def video_form(container: Container) -> VideoForm:
    """Return the transfer syntax that a recording's stream fits, or the reason why none does."""
    if container.size is None:
        return VideoForm("", "the recording is a series of pictures and no video")
    if container.format not in _CONTAINERS:
        return VideoForm("", f"its container is {container.format}, DICOM allows MP4 and MPEG-TS")
    if container.format != "mpegts" and _major_brand(container.path) in (b"", _QUICKTIME):
        return VideoForm("", "its container is QuickTime, DICOM allows MP4 and MPEG-TS")
    if container.size > _MOST_BYTES:
        return VideoForm("", f"it has {container.size:,} bytes, one fragment holds at most {_MOST_BYTES:,}")
    with av.open(str(container.path.absolute()), **OPEN_OPTIONS) as source:
        kinds = sorted(str(each.type) for each in source.streams)
        if kinds != ["video"]:
            return VideoForm("", f"it holds {', '.join(kinds)} streams, one video stream alone is allowed")
        context = source.streams.video[0].codec_context
        profile, level, pixels = str(context.profile), _level(context), str(context.pix_fmt)
    for codec, name, most, syntax, formats in _FORMS:
        if (container.codec, profile) == (codec, name) and level <= most and pixels in formats:
            return VideoForm(syntax, "", "ISO_14496_10" if codec == "h264" else "ISO_23008_2")
    found = f"{container.codec} {profile}, level {level}, {pixels}"
    allowed = "H.264 High up to level 4.2, HEVC Main and Main 10 up to 5.1"
    return VideoForm("", f"its stream is {found}; DICOM allows {allowed}")


def _major_brand(path: Path) -> bytes:
    """Return the major brand of a file of boxes (ISO/IEC 14496-12, 4.3); empty for one that states none."""
    with path.open("rb") as file:
        head = file.read(12)
    return head[8:12] if head[4:8] == b"ftyp" else b""


def _level(context: Any) -> int:
    """Return the level as the stream states it (41 is H.264's 4.1, 153 HEVC's 5.1); 255 where it does not."""
    header = bytes(context.extradata or b"")
    if context.name == "h264":
        if header[:1] == b"\1" and len(header) > 3:
            return header[3]
        return _after_start_code(header, lambda kind: kind & 0x1F == 7, 3)
    if header[:1] == b"\1" and len(header) > 12:
        return header[12]
    # The level of HEVC's sequence parameter set: two bytes of header, one of ids, eleven of profile.
    return _after_start_code(header, lambda kind: kind >> 1 & 0x3F == 33, 14)


def _after_start_code(header: bytes, wanted: Any, place: int) -> int:
    at = header.find(b"\0\0\1")
    while 0 <= at < len(header) - 3 - place:
        if wanted(header[at + 3]):
            # Emulation prevention changes no byte before the level but behind two zero bytes.
            unit = header[at + 3 : at + 3 + place + 8].replace(b"\0\0\3", b"\0\0")
            return unit[place] if len(unit) > place else 255
        at = header.find(b"\0\0\1", at + 3)
    return 255


def make_video_header(
    maker: ObjectMaker, container: Container, form: VideoForm, *, sop_instance: str, series: str
) -> Any:
    """Return the object without its pixel data.

    Args:
        maker: of the examination.
        container: of the recording.
        form: from ``video_form``.
        sop_instance, series: UIDs.
    """
    dataset = maker.begin(VIDEO_CLASS, sop_instance, series, 1, "ES")
    dataset.SeriesDescription = "Capsule endoscopy"
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = (
        3,
        "YBR_PARTIAL_420",
        0,
    )
    dataset.Rows, dataset.Columns = container.height, container.width
    bits = 10 if form.syntax.endswith(".108") else 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = (16, 10, 9) if bits == 10 else (8, 8, 7)
    dataset.PixelRepresentation = 0
    pictures = count_pictures(container)
    dataset.NumberOfFrames = pictures
    _set_times(dataset, container, pictures)
    dataset.LossyImageCompression, dataset.LossyImageCompressionMethod = "01", form.method
    whole = container.width * container.height * 3 * pictures
    dataset.LossyImageCompressionRatio = f"{whole / max(container.size or 1, 1):.2f}"[:16]
    maker.place(dataset, "")
    dataset.file_meta = file_meta(dataset, form.syntax)
    return dataset


def _set_times(dataset: Any, container: Container, pictures: int) -> None:
    """Set the distance between frames: one value, or a vector where it varies and an element can hold it."""
    distance_ms = 1000 * (container.frame_distance_s or 0.04)
    steps = 1000 * np.diff(np.asarray(container.times_s))
    varies = len(steps) > 0 and float(np.ptp(steps)) > 0.01
    if varies and pictures == container.present <= _MOST_STEPS:
        vector = ["0", *(decimal(step) for step in steps)]
        if len("\\".join(vector)) <= _MOST_VECTOR:
            dataset.FrameIncrementPointer = 0x00181065
            dataset.FrameTimeVector = vector
            return
    dataset.FrameIncrementPointer = 0x00181063
    dataset.FrameTime = decimal(distance_ms)


def decimal(value: float) -> str:
    """Return a number as a decimal string of at most 16 characters (VR DS; PS3.5, 6.2), with up to 3 decimals."""
    text = f"{value:.3f}".rstrip("0").rstrip(".") or "0"
    return text if len(text) <= 16 else f"{value:.9g}"


def write_video(path: Path, header: Any, container: Container) -> None:
    """Write the object with the recording's bytes, unchanged, in one fragment. The recording is not held in memory.

    Args:
        path: of the new file.
        header: from ``make_video_header``.
        container: of the recording.
    """
    import pydicom

    size = container.size or 0
    with path.open("wb") as out:
        pydicom.dcmwrite(out, header, enforce_file_format=True)
        # The element PixelData of undefined length, an empty table of offsets, and the item that holds the stream.
        out.write(b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0" + bytes(4))
        out.write(b"\xfe\xff\x00\xe0" + (size + size % 2).to_bytes(4, "little"))
        with container.path.open("rb") as stream:
            _copy(stream, out, size)
        out.write(bytes(size % 2) + b"\xfe\xff\xdd\xe0" + bytes(4))
        out.flush()
        os.fsync(out.fileno())


def _copy(stream: BinaryIO, out: BinaryIO, size: int) -> None:
    while size:
        block = stream.read(min(size, 1 << 20))
        if not block:
            raise OSError("the recording became shorter while it was copied")
        out.write(block)
        size -= len(block)
