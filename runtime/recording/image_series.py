"""Read series of images that are no video: a folder of images, a TIFF of several pages, a DICOM file.

    container = scan_series("frames/")
    for index, rgb in read_series(container, range(container.present)): ...

Each image is independent, so damage stays in it. Images without times are numbered at 25 a second, which is
``playback``: nothing is inferred about how fast the capsule recorded. DICOM needs pydicom (extra ``[dicom]``); its
pixel data may be raw or baseline JPEG.
"""

from __future__ import annotations

import hashlib
import re
import struct
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import InputError, PackageError
from .container import Container, PacketInfo, PacketTable
from .damage_lines import damage_detection
from .ffmpeg import MOST_PIXELS, quote
from .image_integrity import picture_is_cut

__all__ = ["IMAGES", "ImageSeries", "is_series", "read_series", "scan_series"]

Pixels = npt.NDArray[np.uint8]

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
_PAGED = (".tif", ".tiff")
_DICOM = (".dcm", ".dicom")
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
        try:
            files = [each for each in path.iterdir() if each.is_file() and each.suffix.lower() in IMAGES]
        except OSError as error:
            raise _unopened(path, error) from error
        if not files:
            raise InputError(
                f"{quote(path)} is a folder without images, needed are {', '.join(IMAGES)}, or a video file",
                hint="name the file in it",
            )
        files.sort(key=lambda each: _natural(each.name))
        return _series(path, "folder", [(each, 0) for each in files], Fraction(1, _FPS), announced=len(files))
    with path.open("rb") as file:
        head = file.read(132)
    if head[128:132] == b"DICM":
        dataset = _open_dicom(path)
        frames = _count_frames(path, dataset)
        distance = _frame_distance(dataset)
        held = _held_frames(dataset)
        # A frame that was announced and is not there keeps its place, and is damaged.
        places = [(path, page) for page in range(frames if held is None else max(frames, held))]
        cut = held is not None and held < frames
        return _series(path, "dicom", places, distance, announced=frames, truncated=cut)
    pages, cut = _count_pages(path)
    return _series(
        path,
        "tiff",
        [(path, page) for page in range(pages)],
        Fraction(1, _FPS),
        announced=None if cut else pages,
        truncated=cut,
    )


def read_series(series: ImageSeries, wanted: range | list[int]) -> Iterator[tuple[int, Pixels | None]]:
    """Yield (index, image) of the wanted frames: uint8 RGB (height, width, 3), None for a damaged or odd-sized one."""
    dataset: Any = None
    for index in wanted:
        path, page = series.places[index]
        if series.format == "dicom":
            dataset = dataset if dataset is not None else _open_dicom(path)
            rgb = _read_dicom(path, dataset, page)
        else:
            rgb = _read_image(path, page)
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
        codec=places[0][0].suffix.lower().lstrip(".") or kind,
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
        rgb = _read_dicom(place, _open_dicom(place), page) if kind == "dicom" else _read_image(place, page)
        if rgb is not None:
            values = {name: getattr(series, name) for name in series.__dataclass_fields__}
            return ImageSeries(**{**values, "width": rgb.shape[1], "height": rgb.shape[0]})
    raise InputError(
        f"{quote(path)} holds no picture that can be decoded, of {count}",
        hint="copy it again from the recorder",
    )


def _natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return a sort key that puts 'frame 2' before 'frame 10' and ignores case."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part], name


def _unopened(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{quote(path)} cannot be opened: {(error.strerror or str(error)).lower()}",
        hint="check your rights to it, and that it was not moved meanwhile",
    )


def _read_image(path: Path, page: int) -> Pixels | None:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unopened(path, error) from error
    return _decode(data, page if path.suffix.lower() in _PAGED or data[:4] in (b"II*\0", b"MM\0*") else None)


def _decode(data: bytes, page: int | None = None) -> Pixels | None:
    if picture_is_cut(data):
        return None
    buffer = np.frombuffer(data, np.uint8)
    try:
        if page is None:
            bgr: Any = cv2.imdecode(buffer, cv2.IMREAD_COLOR)
        else:
            whole, pages = cv2.imdecodemulti(buffer, cv2.IMREAD_COLOR, range=(page, page + 1))
            bgr = pages[0] if whole and len(pages) == 1 else None
    except cv2.error:
        return None
    if bgr is None or not 0 < bgr.shape[0] * bgr.shape[1] <= MOST_PIXELS:
        return None
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


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
        dataset = pydicom.dcmread(path)
    except Exception as error:  # pydicom raises its own and many built-in types
        raise InputError(
            f"{quote(path)} cannot be read as DICOM: {' '.join(str(error).split())[:200]}",
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


def _read_dicom(path: Path, dataset: Any, page: int) -> Pixels | None:
    from pydicom.encaps import get_frame

    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        count = int(dataset.get("NumberOfFrames", 1) or 1)
        try:
            return _decode(get_frame(dataset.PixelData, page, number_of_frames=count))
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
        return convert(raw.reshape(height, width))
    pixels = (
        raw.reshape(samples, height, width).transpose(1, 2, 0) if planar else raw.reshape(height, width, 3)
    )
    return convert(np.ascontiguousarray(pixels))


def _from_ybr(pixels: Pixels) -> Pixels:
    # OpenCV has Cr before Cb.
    swapped = np.ascontiguousarray(pixels[:, :, [0, 2, 1]])
    return np.asarray(cv2.cvtColor(swapped, cv2.COLOR_YCrCb2RGB), np.uint8)


_CONVERSIONS: dict[tuple[str, int], Callable[[Pixels], Pixels]] = {
    ("RGB", 3): lambda pixels: pixels,
    ("YBR_FULL", 3): _from_ybr,
    ("MONOCHROME2", 1): lambda pixels: np.repeat(pixels[:, :, None], 3, axis=2),
}
