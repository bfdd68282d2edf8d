"""Read series of images that are no video: a folder of images, a TIFF of several pages, a DICOM file.

    container = scan_series("frames/")
    for index, rgb in read_series(container, range(container.present)): ...

Each image is independent, so damage stays in it. Images without times are numbered at 25 a second, which is
``playback``: nothing is inferred about how fast the capsule recorded. DICOM needs pydicom (extra ``[dicom]``); its
pixel data may be raw or baseline JPEG.
"""

from __future__ import annotations

import hashlib
import struct
import threading
import warnings
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import InputError, PackageError
from .colour import TRANSPARENCY
from .container import Container, PacketInfo, PacketTable
from .damage_lines import damage_detection
from .ffmpeg import quote
from .folder import IMAGES, list_folder
from .leftovers import (
    fits,
    warn_of_growth,
    warn_of_header,
    warn_of_hidden,
    warn_of_recordings,
    warn_of_shape,
)
from .still_image import StillImage, decode_still
from .warning import RecordingWarning

__all__ = ["IMAGES", "ImageSeries", "is_series", "read_series", "scan_series"]

Pixels = npt.NDArray[np.uint8]

_PAGED = (".tif", ".tiff")
_DICOM = (".dcm", ".dicom")
# The filters of Python's warnings belong to the whole process: one thread at a time changes them and puts them back.
_QUIET = threading.Lock()
_FPS = 25
# DICOM PS3.5, A.4: the encapsulated transfer syntax with one baseline JPEG per frame.
_JPEG_SYNTAX = "1.2.840.10008.1.2.4.50"
# Attributes without which raw pixel data cannot be read.
_RAW_NEEDS = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "PhotometricInterpretation")


@dataclass(frozen=True)
class ImageSeries(Container):
    """A ``Container`` whose frames ``read_series`` reads; ``places`` holds the file and the page of each."""

    places: tuple[tuple[Path, int], ...] = field(default=(), repr=False)

    def digest(self) -> str:
        """Return the SHA-256 of the file; for a folder, that of its files' names and contents in order.

        Raises:
            InputError: a file cannot be opened; the message names it.
        """
        whole = hashlib.sha256()
        folder = self.path.is_dir()
        for path in dict.fromkeys(path for path, _ in self.places):
            try:
                with path.open("rb") as file:
                    one = hashlib.file_digest(file, "sha256")
            except OSError as error:
                raise _unopened(path, error) from error
            if not folder:
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
    """Return whether a path is a folder, or a file that begins like TIFF or DICOM."""
    if path.is_dir():
        return True
    try:
        # Opening a pipe that nobody writes to would wait for ever.
        if not path.is_file():
            return False
        with path.open("rb") as file:
            head = file.read(132)
    except (OSError, ValueError):
        return False
    return head[:4] in (b"II*\0", b"MM\0*") or head[128:132] == b"DICM"


def scan_series(path: str | Path) -> ImageSeries:
    """List the frames of a folder (in natural order), a TIFF or a DICOM file. One is decoded to learn its size.

    Raises:
        InputError: no frame can be decoded.
    """
    path = Path(path)
    if path.is_dir():
        content = list_folder(path)
        files = content.pictures
        if not files:
            raise _no_images(path, len(content.recordings))
        series = _series(
            path, "folder", [(each, 0) for each in files], Fraction(1, _FPS), announced=len(files)
        )
        warnings = warn_of_hidden(content.hidden_pictures) + warn_of_recordings(len(content.recordings))
        return replace(series, warnings=(*warnings, *series.warnings))
    with path.open("rb") as file:
        head = file.read(132)
    if head[128:132] == b"DICM":
        return _scan_dicom(path)
    pages, cut = _count_pages(path)
    return _series(
        path,
        "tiff",
        [(path, page) for page in range(pages)],
        Fraction(1, _FPS),
        announced=None if cut else pages,
        truncated=cut,
    )


def _scan_dicom(path: Path) -> ImageSeries:
    dataset = _open_dicom(path)
    announced, warnings = _count_frames(path, dataset), []
    held = _held_frames(dataset)
    if not _can_hold(path, dataset, announced):
        there = _count_fragments(dataset) if held is None else held
        warnings.append(warn_of_header(announced, there))
        announced = max(there, 1)
    # A frame that was announced and is not there keeps its place, and is damaged.
    places = [(path, page) for page in range(announced if held is None else max(announced, held))]
    cut = held is not None and held < announced
    distance = _frame_distance(dataset)
    series = _series(path, "dicom", places, distance, announced=announced, truncated=cut)
    warnings += warn_of_shape(_pixel_ratio(dataset), series.width, series.height)
    return replace(series, warnings=(*warnings, *series.warnings))


def read_series(series: ImageSeries, wanted: range | list[int]) -> Iterator[tuple[int, Pixels | None]]:
    """Yield (index, image) of the wanted frames: uint8 RGB (height, width, 3), None for a damaged or odd-sized one."""
    dataset: Any = None
    for index in wanted:
        path, page = series.places[index]
        if series.format == "dicom":
            dataset = dataset if dataset is not None else _open_dicom(path)
            still = _read_dicom(path, dataset, page)
        else:
            still = _read_image(path, page)
        rgb = None if still is None else still.rgb
        if rgb is not None and rgb.shape[:2] != (series.height, series.width):
            rgb = None
        yield index, rgb


def _series(
    path: Path,
    kind: str,
    places: list[tuple[Path, int]],
    distance: Fraction,
    *,
    announced: int | None,
    truncated: bool | None = None,
) -> ImageSeries:
    count = len(places)
    series = ImageSeries(
        path=path,
        format=kind,
        codec=_codec(places[0][0], kind),
        intra_only=True,
        width=0,
        height=0,
        colorspace=2,
        color_range=0,
        time_base=distance,
        announced=announced,
        truncated=truncated,
        edited_out=0,
        start_pts=0,
        duration_s=float(count * distance),
        frame_distance_s=float(distance) if count > 1 else None,
        packets=PacketTable.of(PacketInfo(at, at, 0, True, False, False) for at in range(count)),
        order=array("q", range(count)),
        pts=array("q", range(count)),
        times_s=array("d", (float(at * distance) for at in range(count))),
        places=tuple(places),
        damage_detection=damage_detection(places[0][0].suffix.lower()),
    )
    # The size is that of the first frame that can be decoded.
    for index in range(count):
        place, page = places[index]
        still = _read_dicom(place, _open_dicom(place), page) if kind == "dicom" else _read_image(place, page)
        if still is not None:
            height, width = still.rgb.shape[:2]
            warnings = (*series.warnings, TRANSPARENCY) if still.transparent else series.warnings
            return replace(series, width=width, height=height, warnings=warnings)
    raise InputError(
        f"{quote(path)} holds no picture that can be decoded, of {count}",
        hint="copy it again from the recorder",
    )


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


def _open_dicom(path: Path) -> Any:
    try:
        import pydicom
    except ImportError:
        raise PackageError(
            f"{quote(path)} is DICOM, which needs pydicom", hint="pip install 'capsule-edge[dicom]'"
        ) from None
    try:
        # pydicom warns about odd values and quotes them, and the path, on stderr.
        with _QUIET, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path)
    except Exception as error:  # pydicom raises its own and many built-in types
        raise InputError(
            # Without pydicom's own text: it may quote an attribute, such as the name of the patient.
            f"{quote(path)} cannot be read as DICOM: {type(error).__name__}",
            hint="copy it again from the archive",
        ) from error
    if "PixelData" not in dataset:
        raise InputError(
            f"{quote(path)} is DICOM without pictures", hint="give the object that holds the pictures"
        )
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    needed = () if syntax and syntax.is_encapsulated else _RAW_NEEDS
    absent = [] if syntax else ["TransferSyntaxUID"]
    absent += [name for name in needed if not dataset.get(name)]
    if absent:
        raise InputError(
            f"{quote(path)} is DICOM that does not say {', '.join(absent)}, which its pictures need",
            hint="export it again",
        )
    if syntax.is_encapsulated and str(syntax) != _JPEG_SYNTAX:
        raise InputError(
            f"the pictures of {quote(path)} are {syntax.name}, read are raw ones and JPEG Baseline",
            hint="export it as a video or as raw pictures",
        )
    return dataset


def _count_frames(path: Path, dataset: Any) -> int:
    """Return the number that Number of Frames (0028,0008) announces; 1 where it is absent."""
    frames = int(dataset.get("NumberOfFrames", 1) or 1)
    if frames < 1:
        raise InputError(
            f"{quote(path)} announces NumberOfFrames {frames}, allowed is 1 or more",
            hint="its header is damaged: copy it again from the archive",
        )
    return frames


def _held_frames(dataset: Any) -> int | None:
    """Return the number of complete frames in raw 8-bit pixel data; None for encapsulated data."""
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return None
    size = int(dataset.Rows) * int(dataset.Columns) * int(dataset.SamplesPerPixel)
    # Pixel data of odd length is padded by one byte, which is no frame of one pixel.
    return len(dataset.PixelData or b"") // size if size > 1 else None


def _can_hold(path: Path, dataset: Any, frames: int) -> bool:
    """Return whether the pixel data can hold a number of frames."""
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return fits(frames, path.stat().st_size)
    # The length of an element has 32 bits (PS3.5, 7.1.1).
    return frames * int(dataset.Rows) * int(dataset.Columns) * int(dataset.SamplesPerPixel) < 1 << 32


def _count_fragments(dataset: Any) -> int:
    from pydicom.encaps import parse_fragments

    try:
        # The first item is the table of offsets.
        return max(0, int(parse_fragments(dataset.PixelData)[0]) - 1)
    except ValueError:
        return 0


def _pixel_ratio(dataset: Any) -> Fraction | None:
    """Return the width of a pixel over its height by Pixel Aspect Ratio (0028,0034); None where it is absent."""
    try:
        height, width = (int(value) for value in dataset.get("PixelAspectRatio") or ())
        return Fraction(width, height)
    except (ValueError, ZeroDivisionError):
        return None


def _frame_distance(dataset: Any) -> Fraction:
    """Return the seconds between frames: from Frame Time (0018,1063), Recommended Display or Cine Rate, else 1/25."""
    milliseconds = float(dataset.get("FrameTime", 0) or 0)
    rate = float(dataset.get("CineRate", 0) or dataset.get("RecommendedDisplayFrameRate", 0) or 0)
    for seconds in (milliseconds / 1000, 1 / rate if rate > 0 else 0.0):
        # Half a microsecond or less is no distance between frames.
        distance = Fraction(seconds).limit_denominator(1_000_000)
        if distance > 0:
            return distance
    return Fraction(1, _FPS)


def _read_dicom(path: Path, dataset: Any, page: int) -> StillImage | None:
    from pydicom.encaps import get_frame

    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        count = int(dataset.get("NumberOfFrames", 1) or 1)
        try:
            return decode_still(get_frame(dataset.PixelData, page, number_of_frames=count))
        except Exception:  # a broken fragment damages this frame, whatever pydicom raises
            return None
    height, width = int(dataset.Rows), int(dataset.Columns)
    samples, depth = int(dataset.SamplesPerPixel), int(dataset.BitsAllocated)
    photometric = str(dataset.PhotometricInterpretation)
    convert = _CONVERSIONS.get((photometric, samples))
    planar = int(dataset.get("PlanarConfiguration", 0) or 0)
    if convert is None or depth != 8:
        raise InputError(
            f"the pictures of {quote(path)} are {photometric} of {depth} bits, read are RGB, YBR_FULL and"
            " MONOCHROME2 of 8 bits",
            hint="export it as RGB",
        )
    size = height * width * samples
    raw = np.frombuffer(dataset.PixelData[page * size : (page + 1) * size], np.uint8)
    if len(raw) != size:
        return None
    if samples == 1:
        return StillImage(convert(raw.reshape(height, width)), False)
    pixels = (
        raw.reshape(samples, height, width).transpose(1, 2, 0) if planar else raw.reshape(height, width, 3)
    )
    return StillImage(convert(np.ascontiguousarray(pixels)), False)


def _from_ybr(pixels: Pixels) -> Pixels:
    # OpenCV has Cr before Cb.
    swapped = np.ascontiguousarray(pixels[:, :, [0, 2, 1]])
    return np.asarray(cv2.cvtColor(swapped, cv2.COLOR_YCrCb2RGB), np.uint8)


_CONVERSIONS: dict[tuple[str, int], Callable[[Pixels], Pixels]] = {
    ("RGB", 3): lambda pixels: pixels,
    ("YBR_FULL", 3): _from_ybr,
    ("MONOCHROME2", 1): lambda pixels: np.repeat(pixels[:, :, None], 3, axis=2),
}
