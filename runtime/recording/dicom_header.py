"""Read the header of a DICOM file, and find its pixel data without reading them (PS3.5, PS3.10).

    header = read_header(Path("exam.dcm"))
    fragments = list_fragments(header)

pydicom (extra ``[dicom]``) reads the attributes that a recording needs, and skips all others. No error quotes a value
that may say whose the recording is.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from ..errors import InputError, PackageError
from .ffmpeg import quote

__all__ = ["DicomHeader", "Fragments", "is_dicom", "list_fragments", "named", "quiet", "read_header"]

T = TypeVar("T")

# The filters of Python's warnings belong to the whole process: one thread at a time changes them and puts them back.
_QUIET = threading.Lock()
# Bytes that are read of a header. What is not needed is skipped, so no sound header comes near.
_MOST_BYTES = 1 << 26
# A recording of a day has 57,600 pictures or so, each in one fragment or a few.
_MOST_FRAGMENTS = 1 << 20
_DEFLATED = "1.2.840.10008.1.2.1.99"
_IMPLICIT = "1.2.840.10008.1.2"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_NATIVE = frozenset({_IMPLICIT, "1.2.840.10008.1.2.1", _BIG_ENDIAN})
_SYNTAX_TAG = b"\x02\x00\x10\x00"
_ITEM, _ITEMS_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_PIXEL_DATA = {"little": b"\xe0\x7f\x10\x00", "big": b"\x7f\xe0\x00\x10"}
_UNDEFINED = 0xFFFFFFFF
# Value representations with a length of 4 bytes (PS3.5, 7.1.2).
_LONG = (b"OB", b"OW", b"UN", b"SQ", b"UT", b"OF", b"OD", b"OL", b"OV", b"UC", b"UR", b"SV", b"UV")
_HINT = "copy it again from the archive"

_TAGS = {
    "SOPClassUID": 0x00080016,
    "SOPInstanceUID": 0x00080018,
    "PatientID": 0x00100020,
    "FrameTime": 0x00181063,
    "FrameTimeVector": 0x00181065,
    "CineRate": 0x00180040,
    "StudyInstanceUID": 0x0020000D,
    "SeriesInstanceUID": 0x0020000E,
    "InstanceNumber": 0x00200013,
    "SamplesPerPixel": 0x00280002,
    "PhotometricInterpretation": 0x00280004,
    "PlanarConfiguration": 0x00280006,
    "NumberOfFrames": 0x00280008,
    "Rows": 0x00280010,
    "Columns": 0x00280011,
    "PixelAspectRatio": 0x00280034,
    "BitsAllocated": 0x00280100,
    "RecommendedDisplayFrameRate": 0x00082144,
    "ExtendedOffsetTable": 0x7FE00001,
    "EncapsulatedPixelDataValueTotalLength": 0x7FE00003,
}
_OTHER_TAGS = {
    "TransferSyntaxUID": 0x00020010,
    "ReferencedFileID": 0x00041500,
    "DirectoryRecordSequence": 0x00041220,
    "PixelData": 0x7FE00010,
}


def named(keyword: str) -> str:
    """Return the keyword of an attribute with its tag: ``Rows (0028,0010)``."""
    tag = (_TAGS | _OTHER_TAGS)[keyword]
    return f"{keyword} ({tag >> 16:04X},{tag & 0xFFFF:04X})"


@dataclass(frozen=True)
class DicomHeader:
    """The attributes of a DICOM object that a recording needs. Empty or 0 where an attribute is absent.

    Attributes:
        path: of the file.
        size: of the file in bytes.
        syntax: UID of the transfer syntax.
        sop_class, sop_instance, study, series: UIDs of the object.
        patient: PatientID, to tell patients apart; never shown.
        number: InstanceNumber.
        rows, columns, samples, bits, planar, photometric: the form of a picture.
        frames: NumberOfFrames, 1 where it is absent.
        distance_s: seconds between frames; None where the object does not say.
        times_ms: milliseconds from each frame to the one before (FrameTimeVector).
        pixel_ratio: width of a pixel over its height; None where the object does not say.
        stream_bytes: length of the encapsulated data without padding; None where the object does not say.
        offsets: position of each frame behind the table of offsets, bytes (ExtendedOffsetTable).
        pixels: position of the element PixelData in the file.
    """

    path: Path
    size: int
    syntax: str
    sop_class: str
    sop_instance: str
    study: str
    series: str
    patient: str = field(repr=False)
    number: int
    rows: int
    columns: int
    samples: int
    bits: int
    planar: int
    photometric: str
    frames: int
    distance_s: Fraction | None
    times_ms: tuple[float, ...] = field(repr=False)
    pixel_ratio: Fraction | None
    stream_bytes: int | None
    offsets: tuple[int, ...] = field(repr=False)
    pixels: int

    @property
    def encapsulated(self) -> bool:
        """True where the pixel data lie in fragments."""
        return self.syntax not in _NATIVE


@dataclass(frozen=True)
class Fragments:
    """The place of the pixel data in a file.

    Attributes:
        places: (start, end) of each fragment, bytes; of native pixel data there is one.
        offsets: position of each frame relative to the first fragment's item, from the table of offsets; or empty.
        cut: the file ends before the pixel data do.
    """

    places: tuple[tuple[int, int], ...]
    offsets: tuple[int, ...] = ()
    cut: bool = False


def is_dicom(path: Path) -> bool:
    """Return whether a path is a file that begins like DICOM (PS3.10, 7.1)."""
    try:
        # Opening a pipe that nobody writes to would wait for ever.
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except (OSError, ValueError):
        return False


def read_header(path: Path) -> DicomHeader:
    """Return the header of a DICOM file that holds pictures.

    Raises:
        InputError: the file cannot be read, is damaged, or holds no pictures.
        PackageError: pydicom is not installed.
    """
    _import_pydicom(path)
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            syntax = _read_syntax(path, file)
            file.seek(0)
            dataset = quiet(path, lambda pydicom: _read_attributes(pydicom, file))
            return quiet(path, lambda _: _describe(path, size, syntax, dataset, file.tell()))
    except OSError as error:
        raise InputError(
            f"{quote(path)} cannot be opened: {(error.strerror or str(error)).lower()}",
            hint="check your rights to it, and that it was not moved meanwhile",
        ) from error


def quiet(path: Path, work: Callable[[Any], T]) -> T:
    """Return ``work(pydicom)`` without pydicom's warnings, which quote values and paths.

    Args:
        path: of the file that is read, for the error message.
        work: is given the package.

    Raises:
        InputError: pydicom failed, with whatever exception; its text is left out, because it may quote a value.
        PackageError: pydicom is not installed.
    """
    pydicom = _import_pydicom(path)
    try:
        with _QUIET, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return work(pydicom)
    except (InputError, PackageError):
        raise
    except Exception as error:  # pydicom raises its own and many built-in types
        found = type(error).__name__
    # Not inside the except block: the error that was caught would go along, and its text with it.
    raise InputError(f"{quote(path)} cannot be read as DICOM: {found}", hint=_HINT)


def _import_pydicom(path: Path) -> Any:
    try:
        import pydicom
    except ImportError:
        raise PackageError(
            f"{quote(path)} is DICOM, which needs pydicom", hint="pip install 'capsule-edge[dicom]'"
        ) from None
    return pydicom


class _LimitedReader:
    """Read a file up to a number of bytes in all. A damaged header may ask for gigabytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left = file, _MOST_BYTES
        self.seek, self.tell = file.seek, file.tell

    def read(self, count: int = -1) -> bytes:
        data = self._file.read(self._left + 1 if count < 0 else min(count, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("the header is too long")
        return data


def _read_attributes(pydicom: Any, file: BinaryIO) -> Any:
    tags = list(_TAGS.values())
    return pydicom.dcmread(_LimitedReader(file), stop_before_pixels=True, specific_tags=tags)


def _read_syntax(path: Path, file: BinaryIO) -> str:
    """Return the transfer syntax from the file meta information (PS3.10, 7.1), which is explicit, little endian."""
    file.seek(132)
    for _ in range(100):
        head = file.read(8)
        if len(head) < 8 or head[:2] != b"\x02\x00":
            break
        length = int.from_bytes(head[6:8], "little")
        if head[4:6] in _LONG:
            length = int.from_bytes(file.read(4), "little")
        if head[:4] == _SYNTAX_TAG:
            syntax = file.read(min(length, 64)).rstrip(b"\0 ").decode("ascii", "replace")
            if syntax == _DEFLATED:
                raise InputError(
                    f"{quote(path)} is deflated DICOM, {named('TransferSyntaxUID')}: read are files that are not",
                    hint="export it in another transfer syntax",
                )
            if syntax:
                return syntax
            break
        file.seek(length, 1)
    raise InputError(
        f"{quote(path)} is DICOM that does not say {named('TransferSyntaxUID')}, which its pictures need",
        hint="export it again",
    )


def _describe(path: Path, size: int, syntax: str, dataset: Any, pixels: int) -> DicomHeader:
    frames = _number(path, dataset, "NumberOfFrames", 1)
    if frames < 1:
        raise InputError(
            f"{quote(path)} announces {named('NumberOfFrames')} {frames}, allowed is 1 or more",
            hint=f"its header is damaged: {_HINT}",
        )
    return DicomHeader(
        path=path,
        size=size,
        syntax=syntax,
        sop_class=_text(dataset, "SOPClassUID"),
        sop_instance=_text(dataset, "SOPInstanceUID"),
        study=_text(dataset, "StudyInstanceUID"),
        series=_text(dataset, "SeriesInstanceUID"),
        patient=_text(dataset, "PatientID"),
        number=_number(path, dataset, "InstanceNumber", 0),
        rows=_number(path, dataset, "Rows", 0),
        columns=_number(path, dataset, "Columns", 0),
        samples=_number(path, dataset, "SamplesPerPixel", 0),
        bits=_number(path, dataset, "BitsAllocated", 0),
        planar=_number(path, dataset, "PlanarConfiguration", 0),
        photometric=_text(dataset, "PhotometricInterpretation"),
        frames=frames,
        distance_s=_frame_distance(dataset),
        times_ms=_frame_times(dataset),
        pixel_ratio=_pixel_ratio(dataset),
        stream_bytes=_number(path, dataset, "EncapsulatedPixelDataValueTotalLength", 0) or None,
        offsets=_words(dataset.get("ExtendedOffsetTable") or b"", 8),
        pixels=pixels,
    )


def _number(path: Path, dataset: Any, keyword: str, absent: int) -> int:
    try:
        value = dataset.get(keyword)
        return absent if value in (None, "") else int(value)
    except Exception:
        pass
    raise InputError(
        f"{quote(path)} has a damaged {named(keyword)}, needed is a whole number",
        hint=f"its header is damaged: {_HINT}",
    )


def _text(dataset: Any, keyword: str) -> str:
    try:
        return str(dataset.get(keyword) or "").strip()
    except Exception:  # a value that is damaged, or in no known character set
        return ""


def _frame_times(dataset: Any) -> tuple[float, ...]:
    try:
        found = dataset.get("FrameTimeVector")
        values = found if hasattr(found, "__iter__") and not isinstance(found, str) else [found]
        times = tuple(float(value) for value in values if value not in (None, ""))
    except Exception:  # damaged times are absent ones
        return ()
    return times if all(0 <= value < 1e9 for value in times) else ()


def _pixel_ratio(dataset: Any) -> Fraction | None:
    """Return the width of a pixel over its height by Pixel Aspect Ratio (0028,0034); None where it is absent."""
    try:
        height, width = (int(value) for value in dataset.get("PixelAspectRatio") or ())
        return Fraction(width, height)
    except Exception:  # absent, or damaged
        return None


def _frame_distance(dataset: Any) -> Fraction | None:
    """Return the seconds between frames from Frame Time (0018,1063), Cine Rate or Recommended Display Frame Rate."""
    for keyword, scale in (("FrameTime", 1000), ("CineRate", 0), ("RecommendedDisplayFrameRate", 0)):
        try:
            value = float(dataset.get(keyword) or 0)
            # Half a microsecond or less is no distance between frames.
            distance = Fraction(value / scale if scale else 1 / value).limit_denominator(1_000_000)
        except Exception:
            continue
        if distance > 0:
            return distance
    return None


def list_fragments(header: DicomHeader) -> Fragments:
    """Return the place of the pixel data in the file. Only their headers are read.

    Raises:
        InputError: the file holds no pixel data, or they are not as the transfer syntax says.
    """
    with header.path.open("rb") as file:
        file.seek(header.pixels)
        start = _skip_element_head(header, file)
        if not header.encapsulated:
            return _native(header, file, start)
        return _list_items(header, file)


def _skip_element_head(header: DicomHeader, file: BinaryIO) -> int:
    """Read the head of the element PixelData and return its length; the file stands behind it."""
    order: Any = "big" if header.syntax == _BIG_ENDIAN else "little"
    head = file.read(8)
    if head[:4] != _PIXEL_DATA[order] or len(head) < 8:
        raise InputError(
            f"{quote(header.path)} is DICOM without pictures, {named('PixelData')}",
            hint="give the object that holds the pictures",
        )
    if header.syntax == _IMPLICIT:
        return int.from_bytes(head[4:8], "little")
    if header.syntax == _BIG_ENDIAN and head[4:6] == b"OW":
        raise InputError(
            f"the pictures of {quote(header.path)} are words in big endian, {named('PixelData')}: read are bytes",
            hint="export it in another transfer syntax",
        )
    return int.from_bytes(file.read(4), order)


def _native(header: DicomHeader, file: BinaryIO, length: int) -> Fragments:
    if length == _UNDEFINED:
        raise _contradiction(header, "in fragments, which its transfer syntax does not allow")
    start = file.tell()
    return Fragments(((start, min(start + length, header.size)),), cut=start + length > header.size)


def _list_items(header: DicomHeader, file: BinaryIO) -> Fragments:
    """List the items of encapsulated pixel data (PS3.5, A.4)."""
    places: list[tuple[int, int]] = []
    offsets: tuple[int, ...] = ()
    at = file.tell()
    for number in range(_MOST_FRAGMENTS):
        file.seek(at)
        head = file.read(8)
        if head[:4] != _ITEM or len(head) < 8:
            return Fragments(tuple(places), offsets, cut=head[:4] != _ITEMS_END)
        length = int.from_bytes(head[4:], "little")
        end = min(at + 8 + length, header.size)
        if number:
            places.append((at + 8, end))
        else:
            offsets = _words(file.read(end - at - 8) if length <= _MOST_BYTES else b"", 4)
        if at + 8 + length > header.size:
            return Fragments(tuple(places), offsets, cut=True)
        at = end
    raise _contradiction(header, f"in more than {_MOST_FRAGMENTS:,} fragments")


def _words(data: bytes, width: int) -> tuple[int, ...]:
    return tuple(
        int.from_bytes(data[at : at + width], "little") for at in range(0, len(data) - width + 1, width)
    )


def _contradiction(header: DicomHeader, found: str) -> InputError:
    return InputError(f"{quote(header.path)} has {named('PixelData')} {found}", hint=_HINT)
