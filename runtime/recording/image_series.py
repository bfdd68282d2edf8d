"""Read series of images that are no video: a folder of images, a TIFF of several pages, a DICOM file.

    container = scan_series("frames/")
    for index, rgb in read_series(container, range(container.present)): ...

Each image is independent, so damage stays in it. Images without times are numbered at 25 a second, which is
``playback``: nothing is inferred about how fast the capsule recorded. ``dicom_recording`` lists the pictures of DICOM
objects.
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from .colour import TRANSPARENCY
from .container import Container, PacketInfo, PacketTable
from .damage_lines import damage_detection
from .dicom_pictures import DicomPictures
from .ffmpeg import quote
from .folder import IMAGES, list_folder
from .leftovers import warn_of_growth, warn_of_hidden, warn_of_recordings
from .packets import list_times
from .still_image import StillImage, decode_still
from .warning import RecordingWarning

__all__ = [
    "FPS",
    "IMAGES",
    "ImageSeries",
    "build_series",
    "is_series",
    "read_series",
    "scan_series",
]

Pixels = npt.NDArray[np.uint8]

_PAGED = (".tif", ".tiff")
_DICOM = (".dcm", ".dicom")
# Pictures a second of a series without times.
FPS = 25
_MICROSECOND = Fraction(1, 1_000_000)


@dataclass(frozen=True)
class ImageSeries(Container):
    """A ``Container`` whose frames ``read_series`` reads; ``places`` holds the file and the page of each."""

    places: tuple[tuple[Path, int], ...] = field(default=(), repr=False)

    def digest(self) -> str:
        """Return the SHA-256 of the file; for a folder or several DICOM objects, that of all names and contents.

        Raises:
            InputError: a file cannot be opened; the message names it.
        """
        whole = hashlib.sha256()
        paths = dict.fromkeys(path for path, _ in self.places)
        # A DICOMDIR and its folder name the same objects, so they have the same hash.
        single = self.format != "folder" and len(paths) == 1
        for path in paths:
            try:
                with path.open("rb") as file:
                    one = hashlib.file_digest(file, "sha256")
            except OSError as error:
                raise _unopened(path, error) from error
            if single:
                return one.hexdigest()
            whole.update(f"{path.name}\0{one.hexdigest()}\n".encode("utf-8", "surrogateescape"))
        return whole.hexdigest()

    def growth(self) -> tuple[RecordingWarning, ...]:
        """Return a warning where images were added to the folder since it was scanned."""
        if self.format != "folder":
            return super().growth()
        try:
            added = len(list_folder(self.path).pictures) - len(self.places)
        except InputError:
            return ()
        return (warn_of_growth(self.path, f"{added:,} images"),) if added > 0 else ()


def is_series(path: Path) -> bool:
    """Return whether a path is a folder, or a file that begins like TIFF."""
    if path.is_dir():
        return True
    try:
        # Opening a pipe that nobody writes to would wait for ever.
        if not path.is_file():
            return False
        with path.open("rb") as file:
            head = file.read(4)
    except (OSError, ValueError):
        return False
    return head in (b"II*\0", b"MM\0*")


def scan_series(path: str | Path) -> ImageSeries:
    """List the frames of a folder (in natural order) or a TIFF. One is decoded to learn its size.

    Raises:
        InputError: no frame can be decoded.
    """
    path = Path(path)
    if path.is_dir():
        content = list_folder(path)
        files = content.pictures
        if not files:
            raise _no_images(path, len(content.recordings))
        series = build_series(
            path, "folder", [(each, 0) for each in files], Fraction(1, FPS), announced=len(files)
        )
        warnings = warn_of_hidden(content.hidden_pictures) + warn_of_recordings(len(content.recordings))
        return replace(series, warnings=(*warnings, *series.warnings))
    pages, cut = _count_pages(path)
    return build_series(
        path,
        "tiff",
        [(path, page) for page in range(pages)],
        Fraction(1, FPS),
        announced=None if cut else pages,
        truncated=cut,
    )


def read_series(series: ImageSeries, wanted: Iterable[int]) -> Iterator[tuple[int, Pixels | None]]:
    """Yield (index, image) of the wanted frames: uint8 RGB (height, width, 3), None for a damaged or odd-sized one.

    ``wanted`` may be endless: its next index is taken when the next image is asked for.
    """
    read = _reader(series.format)
    for index in wanted:
        still = read(*series.places[index])
        rgb = None if still is None else still.rgb
        if rgb is not None and rgb.shape[:2] != (series.height, series.width):
            rgb = None
        yield index, rgb


def build_series(
    path: Path,
    kind: str,
    places: list[tuple[Path, int]],
    distance: Fraction,
    *,
    announced: int | None,
    truncated: bool | None = None,
    ticks: Sequence[int] | None = None,
) -> ImageSeries:
    """Return a series of images. One is decoded to learn the size.

    Args:
        path: of the file or folder.
        kind: ``folder``, ``tiff`` or ``dicom``.
        places: the file and the page of each image.
        distance: seconds between images.
        announced: number of images that the file announces; None where it announces none.
        truncated: the file ends before its header says.
        ticks: time of each image in microseconds, ascending, where they are not at equal distances.

    Raises:
        InputError: no image can be decoded.
    """
    count = len(places)
    pts = array("q", range(count) if ticks is None else ticks)
    time_base = distance if ticks is None else _MICROSECOND
    times_s, middle = list_times(pts, time_base)
    frame_distance = distance if middle is None else middle * time_base
    series = ImageSeries(
        path=path,
        format=kind,
        codec=_codec(places[0][0], kind),
        intra_only=True,
        width=0,
        height=0,
        colorspace=2,
        color_range=0,
        time_base=time_base,
        announced=announced,
        truncated=truncated,
        edited_out=0,
        start_pts=0,
        duration_s=float((pts[-1] - pts[0]) * time_base + frame_distance),
        frame_distance_s=float(frame_distance) if count > 1 else None,
        packets=PacketTable.of(PacketInfo(at, at, 0, True, False, False) for at in pts),
        order=array("q", range(count)),
        pts=pts,
        times_s=times_s,
        places=tuple(places),
        damage_detection=damage_detection(places[0][0].suffix.lower()),
    )
    # The size is that of the first frame that can be decoded.
    read = _reader(kind)
    for place in places:
        still = read(*place)
        if still is not None:
            height, width = still.rgb.shape[:2]
            warnings = (*series.warnings, TRANSPARENCY) if still.transparent else series.warnings
            return replace(series, width=width, height=height, warnings=warnings)
    raise InputError(
        f"{quote(path)} holds no picture that can be decoded, of {count}",
        hint="copy it again from the recorder",
    )


def _reader(kind: str) -> Callable[[Path, int], StillImage | None]:
    """Return the function that reads the image of a file and a page."""
    if kind != "dicom":
        return _read_image
    opened: list[DicomPictures] = []

    def read(path: Path, page: int) -> StillImage | None:
        # The header of the last file is kept: most objects hold all the pictures.
        if not opened or opened[0].header.path != path:
            opened[:] = [DicomPictures.open(path)]
        return opened[0].decode(page)

    return read


def _no_images(path: Path, recordings: int) -> InputError:
    if recordings:
        return InputError(
            f"{quote(path)} is a folder of recordings ({recordings:,}) without images, needed is one recording",
            hint='name the file in it, or read each with "capsule-edge run FOLDER"',
        )
    return InputError(
        f"{quote(path)} is a folder without images, needed are {', '.join(IMAGES)}, or a video file",
        hint="name the file in it",
    )


def _codec(path: Path, kind: str) -> str:
    """Return the suffix of the first file. Behind the last dot of another name, such as a UID, stands no format."""
    suffix = path.suffix.lower()
    return suffix.lstrip(".") if suffix in (*IMAGES, *_DICOM) else kind


def _unopened(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{quote(path)} cannot be opened: {(error.strerror or str(error)).lower()}",
        hint="check your rights to it, and that it was not moved meanwhile",
    )


def _read_image(path: Path, page: int) -> StillImage | None:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unopened(path, error) from error
    return decode_still(
        data, page if path.suffix.lower() in _PAGED or data[:4] in (b"II*\0", b"MM\0*") else None
    )


def _count_pages(path: Path) -> tuple[int, bool]:
    """Return the number of image file directories of a TIFF, and whether the file ends before their chain does.

    Source: TIFF 6.0, section 2.
    """
    with path.open("rb") as file:
        head = file.read(8)
        order = "<" if head[:2] == b"II" else ">"
        seen: set[int] = set()
        cut = False
        at = struct.unpack(order + "I", head[4:])[0] if len(head) == 8 else 0
        while at and at not in seen:
            file.seek(at)
            size = file.read(2)
            if len(size) < 2:
                cut = True
                break
            seen.add(at)
            file.seek(at + 2 + 12 * struct.unpack(order + "H", size)[0])
            following = file.read(4)
            cut = len(following) < 4
            at = 0 if cut else struct.unpack(order + "I", following)[0]
    if not seen:
        raise InputError(f"{quote(path)} holds no picture", hint="copy it again from the recorder")
    return len(seen), cut
