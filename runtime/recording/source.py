"""Scan and read any recording: a video file or a series of images."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Generator, Iterator
from contextlib import closing, contextmanager
from itertools import takewhile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import InputError, UsageError
from .container import Container, scan_video
from .decoder import decode, decode_closed_gops, fetch_images, packets_behind
from .dicom_directory import list_directory
from .dicom_header import is_dicom
from .dicom_recording import is_dicom_directory, scan_dicom
from .ffmpeg import quote
from .folder import RECORDING_SUFFIXES, list_folder
from .frame import Frame
from .gop import ClosedGopError
from .image_series import ImageSeries, is_series, read_series, scan_series

__all__ = [
    "decoding_runs",
    "fetch",
    "hash_recording",
    "list_files",
    "read_closed_gops",
    "read_frames",
    "scan",
    "study_name",
]

# Suffixes that are not part of a recording's name. Anything else after a dot belongs to the name: that of a folder, or
# a DICOM object that is named by a number.
_SUFFIXES = (*RECORDING_SUFFIXES, ".tif", ".tiff")


def study_name(path: Path) -> str:
    """Return the name for a recording's results: its file name without the suffix of a known format."""
    known = path.suffix.lower() in _SUFFIXES and not path.is_dir()
    return path.stem if known else path.name


def scan(path: str | Path, *, stream: int | None = None) -> Container:
    """List every frame of a recording: a video file, a folder of images, a TIFF, a DICOM file or a DICOMDIR folder.

    Args:
        path: of the file or folder.
        stream: number of the video stream in a video file; None for the one with most pictures.

    Raises:
        InputError: the path cannot be read as any of these.
        UsageError: there is no video stream of this number.
    """
    path = Path(path)
    if is_dicom(path) or is_dicom_directory(path):
        return scan_dicom(path, stream=stream)
    if not is_series(path):
        return scan_video(path, stream=stream)
    if stream is not None:
        raise UsageError(
            f"stream is {stream}, but {quote(path)} is a series of images and has no video streams",
            hint="leave --stream out",
        )
    return scan_series(path)


def hash_recording(path: str | Path) -> str:
    """Return the SHA-256 of a recording, as ``study.json`` has it, without listing the frames of a file but a DICOMDIR.

    Raises:
        InputError: the path cannot be read.
    """
    path = Path(path)
    if path.is_dir() or is_dicom_directory(path):
        return scan(path).digest()
    try:
        # Opening a pipe that nobody writes to would wait for ever.
        if path.exists() and not path.is_file():
            raise InputError(f"{quote(path)} is no regular file, needed is a recording")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise InputError(
            f"{quote(path)} cannot be opened: {reason}", hint="check the path and your rights to it"
        ) from error


def list_files(path: str | Path) -> tuple[Path, ...]:
    """Return the files that a recording is read from: one, the pictures of a folder, or a DICOMDIR and its objects.

    Raises:
        InputError: the folder or the DICOMDIR cannot be read.
        PackageError: pydicom is not installed.
    """
    path = Path(path)
    if is_dicom_directory(path):
        directory = path / "DICOMDIR" if path.is_dir() else path
        return (directory, *list_directory(directory))
    return list_folder(path).pictures if path.is_dir() else (path,)


def read_frames(container: Container, wanted: Collection[int], *, first_packet: int = 0) -> Generator[Frame]:
    """Read the wanted frames of a recording in presentation order. Reading ends after the last of them.

    Args:
        container: from ``scan``.
        wanted: frame indices.
        first_packet: start decoding here (see ``decoder.decode``).
    """
    if isinstance(container, ImageSeries):
        for index, rgb in read_series(container, sorted(wanted)):
            yield Frame(index, rgb, "" if rgb is not None else "damaged")
        return
    yield from _select(decode(container, first_packet=first_packet), wanted, max(wanted, default=-1))


@contextmanager
def read_closed_gops(
    container: Container, wanted: Collection[int], *, first_packet: int = 0
) -> Iterator[Iterator[Generator[Frame]]]:
    """Read the wanted frames by closed GOPs: several threads may each take the frames of one GOP.

    Both the iterator of GOPs and the frames of a GOP may end in ``ClosedGopError``: then read on with ``read_frames``
    from its ``first_packet``.
    """
    if isinstance(container, ImageSeries):
        raise ClosedGopError(0, 0)
    last = max(wanted, default=-1)
    with decode_closed_gops(container, first_packet=first_packet) as gops:
        needed = takewhile(lambda gop: gop[0] <= last, gops)
        yield (_select(frames, wanted, last) for _, frames in needed)


def _select(frames: Generator[Frame], wanted: Collection[int], last: int) -> Generator[Frame]:
    with closing(frames):
        for frame in frames:
            if frame.index in wanted:
                yield frame
            if frame.index >= last:
                return


def fetch(container: Container, wanted: Collection[int]) -> Iterator[Frame]:
    """Read some sound frames again, in any order. Only the packets that they build on are decoded.

    A frame that does not come out so is decoded from further back, as far as the start of the recording.
    """
    if isinstance(container, ImageSeries):
        for index, rgb in read_series(container, sorted(wanted)):
            if rgb is not None:
                yield Frame(index, rgb)
        return
    for index, image in fetch_images(container, wanted):
        yield Frame(index, image)


def decoding_runs(container: Container) -> npt.NDArray[np.int64]:
    """Return what ``fetch`` decodes first for each frame, as a range of packets. What two share is decoded once.

    Returns:
        The first packet and the one after the last, int64 (frames that are there, 2).
    """
    if isinstance(container, ImageSeries):
        return np.column_stack((np.arange(container.present), np.arange(container.present) + 1))
    return packets_behind(container)
