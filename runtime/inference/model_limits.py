"""State what every model file must keep, whatever its format: whole in itself, bounded, with positive scales."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from ..errors import ModelError
from .spec import METADATA_KEY

__all__ = ["MAX_TENSOR_BYTES", "check_positive", "check_single", "check_size", "refuse_external"]

# The largest tensor and the largest file of a model, in bytes. Protobuf allows no larger message, and a flatbuffer no
# larger file. The largest tensor of the shipped models has 1.6 MB.
MAX_TENSOR_BYTES = 2**31


def check_size(path: Path, what: str, sides: Sequence[int], element: int) -> None:
    """Raise ``ModelError`` if a tensor has a negative side or more than ``MAX_TENSOR_BYTES``.

    Args:
        path: path of the file, for messages.
        what: names the tensor, for messages.
        sides: its shape.
        element: bytes of an element.
    """
    if any(side < 0 for side in sides):
        raise ModelError(f"{path}: {what} has a negative side, allowed is 0 or more")
    size = math.prod(sides) * element
    if size > MAX_TENSOR_BYTES:
        raise ModelError(
            f"{path}: {what} takes {size:.3g} bytes, allowed are {MAX_TENSOR_BYTES:,}",
            hint="the file is damaged, or is not a model for this program",
        )


def check_positive(path: Path, name: str, scales: npt.NDArray[np.float32]) -> None:
    """Raise ``ModelError`` unless all scales of the quantised tensor ``name`` are finite and above 0."""
    wrong = scales[~(np.isfinite(scales) & (scales > 0))]
    if len(wrong):
        raise ModelError(
            f"{path}: a scale of {name!r} is {wrong[0]:g}, allowed is a finite number above 0",
            hint="the file is damaged or was not exported by capsule-edge; copy it or export it again",
        )


def check_single(path: Path, entries: int) -> None:
    """Raise ``ModelError`` if the metadata of a file has more than one entry with the ModelSpec."""
    if entries > 1:
        raise ModelError(
            f"{path} has {entries} {METADATA_KEY} entries in its metadata, allowed is one",
            hint="engines differ in which one they read; export the model again",
        )


def refuse_external(path: Path, what: str, hint: str) -> NoReturn:
    """Raise ``ModelError``: values of the model lie in another file, which the file's hash does not cover."""
    raise ModelError(
        f"{path}: {what} would be read from another file (external data), allowed is one file that holds all",
        hint=hint,
    )
