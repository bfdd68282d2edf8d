"""Find and decode the pictures of a DICOM object that holds no video: raw ones, JPEG, JPEG 2000 and JPEG-LS.

    pictures = DicomPictures.open(Path("exam.dcm"))
    still = pictures.decode(3)

One picture is read from the file at a time. JPEG-LS needs a decoder that pydicom knows (``pyjpegls`` or
``pylibjpeg-libjpeg``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import InputError, PackageError
from .dicom_header import DicomHeader, Fragments, list_fragments, named, quiet, read_header
from .ffmpeg import MOST_PIXELS, quote
from .image_integrity import picture_is_cut
from .jpeg_colours import state_colours
from .leftovers import fits
from .still_image import StillImage, decode_still

__all__ = ["DicomPictures"]

Pixels = npt.NDArray[np.uint8]

# Transfer syntaxes (PS3.6, table A-1): JPEG Baseline and Extended, JPEG-LS, JPEG 2000.
_JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_CODECS = {**dict.fromkeys(_JPEG, "jpeg"), **dict.fromkeys(_JPEG_LS, "jpegls")}
_CODECS |= dict.fromkeys(_JPEG_2000, "jpeg2000")
# Attributes without which raw pixel data cannot be read.
_RAW_NEEDS = {
    "Rows": "rows",
    "Columns": "columns",
    "SamplesPerPixel": "samples",
    "BitsAllocated": "bits",
    "PhotometricInterpretation": "photometric",
}
# PhotometricInterpretation of the compressed pictures that are read (PS3.5, 8.2). JPEG 2000 undoes its own transforms,
# YBR_RCT and YBR_ICT. An object that does not say it is read by the word of its pictures.
_PHOTOMETRIC = {
    "jpeg": ("RGB", "YBR_FULL", "YBR_FULL_422", "MONOCHROME2"),
    "jpegls": ("RGB", "YBR_FULL", "MONOCHROME2"),
    "jpeg2000": ("RGB", "YBR_RCT", "YBR_ICT", "YBR_FULL", "MONOCHROME2"),
}
_JPEG_END = b"\xff\xd9"
# Start of a JPEG 2000 codestream with its size marker (ITU-T T.800, A.5.1).
_J2K_START = b"\xff\x4f\xff\x51"
# Marker of a JPEG 2000 codestream's coding style (ITU-T T.800, A.6.1).
_J2K_CODING = b"\xff\x52"
# Start of a JPEG-LS frame (ITU-T T.87, C.2.2), and its length and depth by the number of components.
_LS_FRAME = b"\xff\xf7"
_LS_HEAD = {b"\1": b"\0\x0b\x08", b"\3": b"\0\x11\x08"}
# The level of OpenCV's log belongs to the whole process.
_LOG = threading.Lock()
# OpenCV's LOG_LEVEL_SILENT.
_SILENT = 0
# One encoded picture of at most MOST_PIXELS takes no more.
_MOST_BYTES = 1 << 28


@dataclass(frozen=True)
class DicomPictures:
    """The pictures of one DICOM object.

    Attributes:
        header: of the object.
        places: for each picture that is there, the (start, end) of its fragments in the file, bytes.
        announced: number of pictures that the header announces, as far as the file can hold them.
        refused: the number in the header, where the file cannot hold it; else None.
        cut: the file ends before its pixel data do.
    """

    header: DicomHeader
    places: tuple[tuple[tuple[int, int], ...], ...]
    announced: int
    refused: int | None
    cut: bool

    @classmethod
    def open(cls, path: Path, header: DicomHeader | None = None) -> DicomPictures:
        """List the pictures of a DICOM file. None is decoded.

        Raises:
            InputError: the file is damaged, or its pictures are of a kind that is not read.
            PackageError: a package is missing that the file needs.
        """
        header = read_header(path) if header is None else header
        _check_form(header)
        fragments = list_fragments(header)
        places = _raw_places(header, fragments) if not header.encapsulated else _frames(header, fragments)
        announced = header.frames
        holds = _can_hold(header, announced)
        if not holds:
            announced = max(len(places), 1)
        short = not header.encapsulated and len(places) < announced
        return cls(header, places, announced, None if holds else header.frames, fragments.cut or short)

    @property
    def count(self) -> int:
        """Number of places for a picture. One that was announced and is not there keeps its place, and is damaged."""
        return max(self.announced, len(self.places))

    @property
    def codec(self) -> str:
        """Name of the pictures' coding; ``dcm`` for raw ones."""
        return _CODECS.get(self.header.syntax, "dcm")

    def decode(self, number: int) -> StillImage | None:
        """Return a picture; None where it is damaged or absent.

        Raises:
            InputError: the pictures are of a kind that is not read.
            PackageError: no decoder is installed for them.
        """
        if number >= len(self.places):
            return None
        with self.header.path.open("rb") as file:
            data = bytearray()
            for start, end in self.places[number]:
                file.seek(start)
                data += file.read(min(end - start, _MOST_BYTES - len(data)))
        if not self.header.encapsulated:
            return _decode_raw(self.header, bytes(data))
        if self.codec == "jpegls":
            return _decode_jpeg_ls(self.header, bytes(data))
        if self.codec == "jpeg2000":
            return _decode_jpeg_2000(self.header, bytes(data))
        return decode_still(state_colours(bytes(data), self.header.photometric))


def _check_form(header: DicomHeader) -> None:
    """Raise ``InputError`` where the form of the pictures is not read, or not said."""
    path = quote(header.path)
    if header.encapsulated:
        if header.syntax not in _CODECS:
            raise InputError(
                f"the pictures of {path} have {named('TransferSyntaxUID')} {header.syntax[:64]!r}, read are raw ones, "
                "JPEG Baseline, JPEG-LS, JPEG 2000 and, as video, MPEG-2, H.264 and HEVC",
                hint="export it as a video or as raw pictures",
            )
        codec = _CODECS[header.syntax]
        if header.photometric not in ("", *_PHOTOMETRIC[codec]):
            raise InputError(
                f"the pictures of {path} are {_shown(header.photometric)} in {codec}, "
                f"{named('PhotometricInterpretation')}, read are {', '.join(_PHOTOMETRIC[codec])}",
                hint="export it as RGB",
            )
        return
    absent = [named(name) for name, attribute in _RAW_NEEDS.items() if not getattr(header, attribute)]
    if absent:
        raise InputError(
            f"{path} is DICOM that does not say {', '.join(absent)}, which its pictures need",
            hint="export it again",
        )
    if (header.photometric, header.samples) not in _CONVERSIONS or header.bits != 8:
        raise InputError(
            f"the pictures of {path} are {_shown(header.photometric)} of {header.bits} bits, "
            f"{named('PhotometricInterpretation')}, read are RGB, YBR_FULL and MONOCHROME2 of 8 bits",
            hint="export it as RGB",
        )
    if not 0 < header.rows * header.columns <= MOST_PIXELS:
        raise InputError(
            f"{path} announces {header.columns} x {header.rows} pixels, {named('Rows')} and {named('Columns')}, "
            f"allowed are 1 to {MOST_PIXELS} in all",
            hint="its header is damaged: copy it again from the archive",
        )


def _shown(photometric: str) -> str:
    # The value comes from the file: no more than the length of a code string of it.
    return "".join(each if each.isprintable() else "?" for each in photometric[:16])


def _can_hold(header: DicomHeader, frames: int) -> bool:
    """Return whether the file can hold a number of frames."""
    if header.encapsulated:
        return fits(frames, header.size)
    # The length of an element has 32 bits (PS3.5, 7.1.1).
    return frames * header.rows * header.columns * header.samples < 1 << 32


def _raw_places(header: DicomHeader, fragments: Fragments) -> tuple[tuple[tuple[int, int], ...], ...]:
    ((start, end),) = fragments.places
    size = header.rows * header.columns * header.samples
    # Pixel data of odd length is padded by one byte, which is no frame of one pixel.
    count = (end - start) // size if size > 1 else min(header.frames, end - start)
    return tuple(((at, at + size),) for at in range(start, start + count * size, size))


def _frames(header: DicomHeader, fragments: Fragments) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Group the fragments by frame: by a table of offsets, or one fragment each, or by JPEG's end marker."""
    places = fragments.places
    if not places:
        raise InputError(
            f"{quote(header.path)} has no fragment in {named('PixelData')}",
            hint="copy it again from the archive",
        )
    if header.frames == 1:
        return (places,)
    for offsets in (header.offsets, fragments.offsets):
        if (found := _by_offsets(places, offsets)) is not None:
            return found
    if header.frames >= len(places):
        return tuple((place,) for place in places)
    ended = tuple(_by_end_marker(header, places))
    # Where the markers contradict the header too, each fragment is a picture.
    return ended if len(ended) == header.frames else tuple((place,) for place in places)


def _by_offsets(
    places: tuple[tuple[int, int], ...], offsets: tuple[int, ...]
) -> tuple[tuple[tuple[int, int], ...], ...] | None:
    """Return the fragments of each frame; None where the offsets are no starts of fragments."""
    if not offsets:
        return None
    lengths = (8 + end - start for start, end in places)
    number_of = {at: number for number, at in enumerate(accumulate(lengths, initial=0))}
    starts = [number_of.get(offset) for offset in offsets]
    if starts[0] != 0 or None in starts:
        return None
    bounds = [start for start in starts if start is not None] + [len(places)]
    if any(after <= before for before, after in pairwise(bounds)):
        return None
    return tuple(places[before:after] for before, after in pairwise(bounds))


def _by_end_marker(
    header: DicomHeader, places: tuple[tuple[int, int], ...]
) -> Iterator[tuple[tuple[int, int], ...]]:
    frame: list[tuple[int, int]] = []
    with header.path.open("rb") as file:
        for start, end in places:
            frame.append((start, end))
            file.seek(max(start, end - 16))
            if _JPEG_END in file.read(min(16, end - start)):
                yield tuple(frame)
                frame = []
    if frame:
        yield tuple(frame)


def _decode_raw(header: DicomHeader, data: bytes) -> StillImage | None:
    height, width, samples = header.rows, header.columns, header.samples
    raw = np.frombuffer(data, np.uint8)
    if len(raw) != height * width * samples:
        return None
    convert = _CONVERSIONS[header.photometric, samples]
    if samples == 1:
        return StillImage(convert(raw.reshape(height, width)), False)
    planar = header.planar == 1
    pixels = (
        raw.reshape(samples, height, width).transpose(1, 2, 0) if planar else raw.reshape(height, width, 3)
    )
    return StillImage(convert(np.ascontiguousarray(pixels)), False)


def _decode_jpeg_2000(header: DicomHeader, data: bytes) -> StillImage | None:
    boxed = _box_codestream(data)
    if boxed is None or _size_2000(data) != (header.columns, header.rows):
        return None
    # OpenCV writes some lines about each damaged picture to stderr.
    with _LOG:
        level = _set_log_level(_SILENT)
        try:
            still = decode_still(boxed)
        finally:
            _set_log_level(level)
    if still is None or header.photometric != "YBR_FULL" or _has_transform(data):
        return still
    return StillImage(_from_ybr(still.rgb), still.transparent)


def _has_transform(data: bytes) -> bool:
    """Return whether a JPEG 2000 codestream has a transform of colours, which decoding undoes (ITU-T T.800, A.6.1)."""
    at = data.find(_J2K_CODING)
    return at >= 0 and data[at + 8 : at + 9] == b"\1"


def _set_log_level(level: int) -> int:
    """Set OpenCV's log level and return the one before. The function moved in OpenCV 5."""
    if hasattr(cv2, "setLogLevel"):
        return int(cv2.setLogLevel(level))
    return int(cv2.utils.logging.setLogLevel(level))


def _size_2000(data: bytes) -> tuple[int, int]:
    """Return the width and height that a JPEG 2000 codestream states (ITU-T T.800, A.5.1)."""
    right, lower, left, upper = (int.from_bytes(data[at : at + 4]) for at in (8, 12, 16, 20))
    return right - left, lower - upper


def _box_codestream(data: bytes) -> bytes | None:
    """Return a JPEG 2000 codestream as a file that states its colours (ITU-T T.800, annex I).

    OpenCV prints a warning for each codestream without them. None where the codestream does not begin as one, or states
    more than ``MOST_PIXELS``, or neither 1 nor 3 components.
    """
    if not data.startswith(_J2K_START):
        return None
    (width, height), components = _size_2000(data), int.from_bytes(data[40:42])
    if not 0 < width * height <= MOST_PIXELS or width < 1 or components not in (1, 3):
        return None
    size = height.to_bytes(4) + width.to_bytes(4) + components.to_bytes(2)
    # Unsigned values of 8 bits, wavelet coding; then the colours: 16 is sRGB, 17 grey.
    header = _box(b"ihdr", size + b"\x07\x07\x00\x00") + _box(
        b"colr", b"\x01\x00\x00" + (16 if components == 3 else 17).to_bytes(4)
    )
    kind = _box(b"ftyp", b"jp2 \x00\x00\x00\x00jp2 ")
    return _box(b"jP  ", b"\r\n\x87\n") + kind + _box(b"jp2h", header) + _box(b"jp2c", data)


def _box(kind: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4) + kind + content


def _decode_jpeg_ls(header: DicomHeader, data: bytes) -> StillImage | None:
    found = quiet(header.path, lambda pydicom: pydicom.pixels.get_decoder(header.syntax))
    if not found.is_available:
        raise PackageError(
            f"the pictures of {quote(header.path)} are JPEG-LS, which needs a decoder that pydicom knows",
            hint="pip install pyjpegls",
        )
    # CharLS searches for a missing end marker for a minute, and an object pads a picture behind its own.
    if picture_is_cut(data):
        return None
    data = data[: data.rfind(_JPEG_END) + len(_JPEG_END)]
    at = data.find(_LS_FRAME)
    frame = data[at + 2 : at + 10]
    height, width, samples = int.from_bytes(frame[3:5]), int.from_bytes(frame[5:7]), frame[7:8]
    if at < 0 or (height, width) != (header.rows, header.columns) or not 0 < height * width <= MOST_PIXELS:
        return None
    if frame[:3] != _LS_HEAD.get(samples):
        return None
    try:
        pixels = quiet(header.path, partial(_run_decoder, found, data, height, width, samples[0]))
    except InputError:  # a damaged picture
        return None
    colours = samples == b"\3" and header.photometric == "YBR_FULL"
    return StillImage(_from_ybr(pixels) if colours else pixels, False)


def _run_decoder(decoder: Any, data: bytes, height: int, width: int, samples: int, pydicom: Any) -> Pixels:
    from pydicom.encaps import encapsulate

    pixels, _ = decoder.as_array(
        encapsulate([data]),
        index=0,
        rows=height,
        columns=width,
        number_of_frames=1,
        samples_per_pixel=samples,
        bits_allocated=8,
        bits_stored=8,
        pixel_representation=0,
        planar_configuration=0,
        photometric_interpretation="RGB" if samples == 3 else "MONOCHROME2",
        pixel_keyword="PixelData",
    )
    found = np.ascontiguousarray(pixels, np.uint8)
    return found if found.ndim == 3 else np.repeat(found[:, :, None], 3, axis=2)


def _from_ybr(pixels: Pixels) -> Pixels:
    # OpenCV has Cr before Cb.
    swapped = np.ascontiguousarray(pixels[:, :, [0, 2, 1]])
    return np.asarray(cv2.cvtColor(swapped, cv2.COLOR_YCrCb2RGB), np.uint8)


_CONVERSIONS: dict[tuple[str, int], Callable[[Pixels], Pixels]] = {
    ("RGB", 3): lambda pixels: pixels,
    ("YBR_FULL", 3): _from_ybr,
    ("MONOCHROME2", 1): lambda pixels: np.repeat(pixels[:, :, None], 3, axis=2),
}
