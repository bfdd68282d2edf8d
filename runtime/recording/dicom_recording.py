"""Scan a DICOM file or a DICOMDIR folder: an encapsulated video, or pictures as a series.

A video (Video Endoscopic Image; MPEG-2, H.264 or HEVC) is a bit stream in an MP4 or a transport stream, which lies in
one fragment or in several (PS3.5, 8.2.5 to 8.2.11). It is read where it lies, fragment by fragment, as if it were a
file of its own, so its frames get the answers of the naked file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

from ..errors import InputError, UsageError
from .container import Container, list_pictures
from .dicom_directory import list_directory
from .dicom_header import DicomHeader, is_dicom, list_fragments, named, read_header
from .dicom_pictures import DicomPictures
from .ffmpeg import quote
from .file_window import FragmentedFile
from .image_series import FPS, ImageSeries, build_series
from .leftovers import warn_of_header, warn_of_shape
from .warning import RecordingWarning

__all__ = ["is_dicom_directory", "scan_dicom"]

# Transfer syntaxes of video (PS3.6, table A-1) by the codec that they mean; fragmentable forms end in ".1".
_CODECS = {
    **{f"1.2.840.10008.1.2.4.{number}": "mpeg2video" for number in (100, 101)},
    **{f"1.2.840.10008.1.2.4.{number}": "h264" for number in (102, 103, 104, 105, 106)},
    **{f"1.2.840.10008.1.2.4.{number}": "hevc" for number in (107, 108)},
}
_CODECS |= {f"{syntax}.1": codec for syntax, codec in _CODECS.items()}
_DIRECTORY = "DICOMDIR"


def is_dicom_directory(path: Path) -> bool:
    """Return whether a path is a folder with a DICOMDIR, or that file."""
    return is_dicom(path / _DIRECTORY) if path.is_dir() else path.name == _DIRECTORY and is_dicom(path)


def scan_dicom(path: Path, *, stream: int | None = None) -> Container:
    """List the frames of a DICOM file, or of the one recording that a DICOMDIR names.

    Args:
        path: of the file, of the DICOMDIR, or of its folder.
        stream: number of the video stream inside an encapsulated video; None for the one with most pictures.

    Raises:
        InputError: the file is damaged, or holds nothing that can be read.
        UsageError: there is no video stream of this number.
        PackageError: a package is missing that the file needs.
    """
    if not is_dicom_directory(path):
        return _scan_objects(path, [read_header(path)], stream)
    folder = path if path.is_dir() else path.parent
    return _scan_objects(path, _choose(folder, list_directory(folder / _DIRECTORY)), stream)


def _scan_objects(path: Path, headers: Sequence[DicomHeader], stream: int | None) -> Container:
    if len(headers) == 1 and (codec := _video_codec(headers[0])) is not None:
        return _scan_video(headers[0], codec, stream)
    if stream is not None:
        raise UsageError(
            f"stream is {stream}, but {quote(path)} is a series of images and has no video streams",
            hint="leave --stream out",
        )
    return _scan_pictures(path, headers)


def _video_codec(header: DicomHeader) -> str | None:
    """Return FFmpeg's name of the codec that the transfer syntax means; None where it is no video."""
    return _CODECS.get(header.syntax)


def _choose(folder: Path, files: Sequence[Path]) -> list[DicomHeader]:
    """Return the headers of the one recording that the files hold, in the order of their pictures."""
    headers = list(_without_copies(read_header(file) for file in files))
    _check_patients(folder, headers)
    series: dict[str, list[DicomHeader]] = {}
    for header in headers:
        # A video is a recording of its own; pictures of one series are one.
        key = header.sop_instance if _video_codec(header) else header.series
        series.setdefault(key, []).append(header)
    if len(series) != 1:
        names = ", ".join(quote(found[0].path.relative_to(folder)) for found in list(series.values())[:4])
        raise InputError(
            f"the DICOMDIR of {quote(folder)} names {len(series):,} recordings, needed is one: {names}"
            + (", ..." if len(series) > 4 else ""),
            hint="name the file of one, or read each in turn",
        )
    (found,) = series.values()
    return sorted(found, key=lambda each: each.number)


def _without_copies(headers: Iterable[DicomHeader]) -> Iterator[DicomHeader]:
    """Yield each object once. Two files with one UID must be the same file twice."""
    seen: dict[str, DicomHeader] = {}
    for header in headers:
        known = seen.setdefault(header.sop_instance, header)
        if known is header:
            yield header
        elif not _same_bytes(known.path, header.path):
            raise InputError(
                f"{quote(known.path)} and {quote(header.path)} have the same {named('SOPInstanceUID')} and other "
                "content",
                hint="remove the file that is not of this examination",
            )


def _same_bytes(first: Path, second: Path) -> bool:
    if first.stat().st_size != second.stat().st_size:
        return False
    with first.open("rb") as one, second.open("rb") as other:
        while block := one.read(1 << 20):
            if block != other.read(1 << 20):
                return False
    return True


def _check_patients(folder: Path, headers: Sequence[DicomHeader]) -> None:
    patients: dict[str, set[str]] = {}
    for header in headers:
        patients.setdefault(header.study, set()).add(header.patient)
    most = max(map(len, patients.values()), default=0)
    if most > 1:
        raise InputError(
            f"one study in {quote(folder)} has {most} different values of {named('PatientID')}, allowed is one",
            hint="export the study again, and check whose it is",
        )


def _scan_video(header: DicomHeader, codec: str, stream: int | None) -> Container:
    """List the frames of an encapsulated video."""
    found = list_fragments(header)
    if not found.places:
        raise InputError(
            f"{quote(header.path)} has no fragment in {named('PixelData')}",
            hint="copy it again from the archive",
        )
    file = _without_padding(header, FragmentedFile(header.path, found.places))
    try:
        container = list_pictures(file, stream)
    except InputError as error:
        raise InputError(f"{named('PixelData')}: {error.message}", hint=error.hint) from error
    warnings = [*container.warnings, *_contradictions(header, codec, container)]
    if found.cut:
        warnings.append(
            RecordingWarning(
                "dicom_cut",
                f"The file ends before its {named('PixelData')} does: the end of the video is lost.",
            )
        )
    return replace(
        container,
        size=header.size,
        truncated=True if found.cut else container.truncated,
        warnings=tuple(warnings),
    )


def _contradictions(header: DicomHeader, codec: str, container: Container) -> Iterator[RecordingWarning]:
    """Yield a warning for each attribute that the video contradicts. The video's own word is taken."""
    if header.frames not in (container.frames, container.frames + container.edited_out):
        yield RecordingWarning(
            "dicom_frames",
            f"{named('NumberOfFrames')} is {header.frames:,}, the video holds {container.frames:,}. The video was "
            "read as it is.",
        )
    yield from _warn_of_size(header, container)
    if codec != container.codec:
        yield RecordingWarning(
            "dicom_codec",
            f"{named('TransferSyntaxUID')} means {codec}, the video is {container.codec}. It was read as it is.",
        )


def _warn_of_size(header: DicomHeader, container: Container) -> Iterator[RecordingWarning]:
    if (header.columns, header.rows) not in ((container.width, container.height), (0, 0)):
        yield RecordingWarning(
            "dicom_size",
            f"{named('Columns')} and {named('Rows')} are {header.columns} x {header.rows}, the pictures are "
            f"{container.width} x {container.height}. They were read as they are.",
        )


def _without_padding(header: DicomHeader, file: FragmentedFile) -> FragmentedFile:
    """Return the bit stream without the byte that makes its length even.

    The object says how long the stream is, or the boxes of an MP4 do. Other streams keep the byte.
    """
    size = file.size
    end = header.stream_bytes or _end_of_boxes(file)
    if end != size - 1:
        return file
    last_start, last_end = file.fragments[-1]
    if last_end == last_start:
        return file
    return FragmentedFile(file.path, (*file.fragments[:-1], (last_start, last_end - 1)))


def _end_of_boxes(file: FragmentedFile) -> int | None:
    """Return the position behind the last whole box of an MP4; None where the stream is none."""
    at, size = 0, file.size
    with file.open("rb") as opened:
        for _ in range(1 << 20):
            opened.seek(at)
            head = opened.read(16)
            if at == 0 and head[4:8] not in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
                return None
            length = int.from_bytes(head[:4])
            if length == 1:
                length = int.from_bytes(head[8:16])
            if length < 8 or at + length > size:
                break
            at += length
    return at


def _scan_pictures(path: Path, headers: Sequence[DicomHeader]) -> ImageSeries:
    """List the pictures of one object, or of the objects of one series."""
    objects = [DicomPictures.open(header.path, header) for header in headers]
    warnings = [warn_of_header(each.refused, each.announced) for each in objects if each.refused is not None]
    first = objects[0]
    series = build_series(
        path,
        "dicom",
        [(each.header.path, page) for each in objects for page in range(each.count)],
        first.header.distance_s or Fraction(1, FPS),
        announced=sum(each.announced for each in objects),
        truncated=any(each.cut for each in objects),
        ticks=_ticks(first) if len(objects) == 1 else None,
    )
    warnings += _warn_of_size(first.header, series)
    warnings += warn_of_shape(first.header.pixel_ratio, series.width, series.height)
    return replace(series, warnings=(*warnings, *series.warnings))


def _ticks(pictures: DicomPictures) -> list[int] | None:
    """Return the time of each picture in microseconds, from Frame Time Vector; None where it does not hold them all.

    The first value is the time before the first picture (PS3.3, C.7.6.5.1.2).
    """
    steps = pictures.header.times_ms
    if len(steps) != pictures.count or not any(steps[1:]):
        return None
    return list(accumulate((round(1000 * step) for step in steps[1:]), initial=0))
