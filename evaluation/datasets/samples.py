"""Read the rows of label tables, and the picture of one labelled frame."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.recording import decode_still, picture_is_cut

__all__ = [
    "IMAGE_SUFFIXES",
    "SYNONYMS",
    "Sample",
    "decode_frame",
    "label_key",
    "read_bytes",
    "read_frame",
    "read_rows",
]

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm"}

SYNONYMS: Mapping[str, str] = {
    "angiectasia": "angioectasia",
    "angiodysplasia": "angioectasia",
    "blood": "bleeding",
    "blood_fresh": "bleeding",
    "erythematous": "erythema",
    "foreign_bodies": "foreign_body",
    "ileo_cecal_valve": "ileocecal_valve",
    "normal_clean_mucosa": "normal",
    "polyps": "polyp",
    "ulcers": "ulcer",
    "worm": "worms",
}
"""Other names of a class in published data sets (Kvasir-Capsule, Kvasir v2, Capsule Vision), and its label key."""


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
    """

    file: Path
    label: str
    source: str | None = None
    video_id: str | None = None
    frame_number: int | None = None
    split: str | None = None


def label_key(name: str) -> str:
    """Return the label key of a published class name: ``Foreign Bodies`` gives ``foreign_body``."""
    key = re.sub(r"[^0-9a-z]+", "_", name.strip().lower()).strip("_")
    return SYNONYMS.get(key, key)


def read_rows(table: Path, needed: Sequence[str], *, hint: str = "") -> Iterator[tuple[int, dict[str, str]]]:
    """Read a CSV file in UTF-8, separated by commas or semicolons.

    Args:
        table: The file.
        needed: Columns that it must have.
        hint: The error's hint if a column is missing.

    Yields:
        The line number and the cells of each row by column, stripped of white space.

    Raises:
        InputError: The file cannot be read or lacks a column.
    """
    try:
        # Spreadsheets write a byte-order mark, and semicolons where the comma is the decimal sign.
        text = table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{table} is not UTF-8 (byte {error.start})", hint="save it as CSV UTF-8") from None
    except OSError as error:
        raise InputError(f"{table} cannot be read: {error.strerror or error}") from None
    head = text.partition("\n")[0]
    rows = csv.DictReader(io.StringIO(text), delimiter=";" if ";" in head and "," not in head else ",")
    for column in needed:
        if column not in (rows.fieldnames or ()):
            found = ", ".join(rows.fieldnames or ()) or "none"
            raise InputError(f"{table} lacks the column {column!r}, it has {found}", hint=hint)
    try:
        for row in rows:
            cells = {name: (value or "").strip() for name, value in row.items() if isinstance(name, str)}
            yield rows.line_num, cells
    except csv.Error as error:
        raise InputError(f"{table} line {rows.line_num} is not CSV: {error}") from None


def read_frame(sample: Sample | str | Path) -> npt.NDArray[np.uint8]:
    """Read a picture as uint8 RGB (height, width, 3).

    Grey, RGBA (on black), CMYK and 16-bit (upper byte) pictures are converted, and EXIF rotation is applied.

    Raises:
        InputError: The file cannot be read, is not a picture, or is cut off.
    """
    path = sample.file if isinstance(sample, Sample) else Path(sample)
    return decode_frame(read_bytes(path), path)


def read_bytes(path: Path) -> npt.NDArray[np.uint8]:
    """Return the bytes of a file, uint8 (N,). Raise ``InputError`` if it cannot be read."""
    try:
        # cv2.imread cannot open non-ASCII paths on Windows.
        return np.fromfile(path, np.uint8)
    except OSError as error:
        raise InputError(f"the image {path} cannot be read: {error.strerror or error}") from None


def decode_frame(data: npt.NDArray[np.uint8], path: Path) -> npt.NDArray[np.uint8]:
    """Decode the bytes of the picture ``path`` as ``read_frame`` does."""
    if picture_is_cut(data.tobytes()):
        raise InputError(f"the image {path} is cut off at {len(data)} bytes")
    picture = decode_still(data.tobytes()) if len(data) else None
    if picture is None:
        raise InputError(f"the image {path} is not a picture that can be decoded ({len(data)} bytes)")
    return picture.rgb
