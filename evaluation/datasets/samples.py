"""The labelled frame and its picture: every command on data sets reads pictures here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.recording import MOST_PIXELS, decode_still, picture_is_cut, picture_size

__all__ = [
    "IMAGE_SUFFIXES",
    "ListingRemark",
    "Sample",
    "decode_frame",
    "decode_picture",
    "listed",
    "read_bytes",
    "read_frame",
]

IMAGE_SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp",
    ".png", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm",
}  # fmt: skip
"""Suffixes of pictures in class folders, in lower case. A table may name files of any suffix."""

# No picture of MOST_PIXELS has more bytes than 16-bit RGBA without compression, and its headers.
_MOST_BYTES = 8 * MOST_PIXELS + (1 << 20)


@dataclass(frozen=True)
class Sample:
    """One labelled frame; a value that the data set does not give is None.

    Attributes:
        file: The picture.
        label: The label key.
        source: The source of the frame, such as a hospital or an older data set.
        video_id: The video that the frame was taken from.
        frame_number: The number of the frame in the video.
        split: The split that the frame belongs to.
        line: The line of the table that lists the frame.
        video_inferred: Whether ``video_id`` was taken from the file's name and not from a table.
    """

    file: Path
    label: str
    source: str | None = None
    video_id: str | None = None
    frame_number: int | None = None
    split: str | None = None
    line: int | None = field(default=None, compare=False)
    video_inferred: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class ListingRemark:
    """One thing that the reader of a data set found, and what it did.

    Attributes:
        check: A word for programs, such as ``repeated_rows``.
        count: The number of items.
        message: One sentence for people.
        examples: The items, one line each.
    """

    check: str
    count: int
    message: str
    examples: tuple[str, ...] = ()


def listed(items: Sequence[str], most: int = 3) -> str:
    """Return the first items with commas between, and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def read_frame(sample: Sample | str | Path) -> npt.NDArray[np.uint8]:
    """Read a picture as uint8 RGB (height, width, 3).

    Grey, RGBA (on black), CMYK and 16-bit pictures are converted, and EXIF rotation is applied. The upper byte of 16
    bits is kept; a picture whose values all stay below 4096 holds 12 bits, and their upper eight are kept.

    Raises:
        InputError: The file cannot be read, is not a picture, is cut off, or has more than ``MOST_PIXELS``.
    """
    path = sample.file if isinstance(sample, Sample) else Path(sample)
    return decode_frame(read_bytes(path), path)


def read_bytes(path: Path) -> npt.NDArray[np.uint8]:
    """Return the bytes of a file, uint8 (N,). Raise ``InputError`` if it cannot be read or is too large."""
    try:
        size = path.stat().st_size
        if size > _MOST_BYTES:
            raise InputError(f"the image {path} has {size} bytes, at most {_MOST_BYTES} are read")
        # cv2.imread cannot open non-ASCII paths on Windows.
        return np.fromfile(path, np.uint8)
    except OSError as error:
        raise InputError(f"the image {path} cannot be read: {error.strerror or error}") from None


def decode_frame(data: npt.NDArray[np.uint8], path: Path) -> npt.NDArray[np.uint8]:
    """Decode the bytes of the picture ``path`` as ``read_frame`` does."""
    return decode_picture(data, path)[0]


def decode_picture(data: npt.NDArray[np.uint8], path: Path) -> tuple[npt.NDArray[np.uint8], bool]:
    """Decode a picture as ``read_frame`` does. Return it, and whether it was read as 12 bits in 16."""
    content = data.tobytes()
    if picture_is_cut(content):
        raise InputError(f"the image {path} is cut off at {len(data)} bytes")
    width, height = picture_size(content) or (0, 0)
    if width * height > MOST_PIXELS:
        raise InputError(
            f"the image {path} has {width} x {height} pixels, at most {MOST_PIXELS} are read",
            hint="a frame of a capsule has less than a million",
        )
    picture = decode_still(content, twelve_bits=True) if content else None
    if picture is None:
        raise InputError(f"the image {path} is not a picture that can be decoded ({len(data)} bytes)")
    return picture.rgb, picture.twelve_bits
