"""Turn a frame into the model's input. Training, calibration, export and reading use this one implementation.

A capsule's image is a circle or octagon on black, with text burnt in beside it. The bounding box of that field of
view is cropped and resized to the model's square, and everything outside the inscribed ellipse is set to black. So no
border, no text and no brand's frame shape reaches the model, and a rotated frame stays a valid frame.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from ..inference import InputSpec
from ..recording import CodedPlanes, Frame, Planes, coded_of_rgb, split, views
from .field_of_view import FieldOfView, check_box, check_pixels, find_field_of_view
from .plane_scaler import shrink

__all__ = [
    "mean_colours",
    "preprocess",
    "preprocess_coded",
    "preprocess_frame",
    "preprocess_planes",
    "resize",
]

Pixels = npt.NDArray[np.uint8]

_AREA = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
# A reformatter keeps its tables for the last sizes, and serves one thread at a time.
_local = threading.local()


def preprocess(frame: Pixels, spec: InputSpec, field_of_view: FieldOfView | None = None) -> Pixels:
    """Return an RGB frame as model input, uint8 RGB (size, size, 3).

    Args:
        frame: uint8 RGB (height, width, 3).
        spec: input of the model.
        field_of_view: of the recording; None to find it in this frame alone.

    Raises:
        InputError: the array is no such frame, or the field of view does not lie in it.
    """
    check_pixels(frame)
    if spec.crop == "field_of_view" and field_of_view is None:
        field_of_view = find_field_of_view([frame])
    if spec.preprocessing == 2:
        return preprocess_coded(coded_of_rgb(frame), spec, field_of_view)
    return preprocess_planes(split(frame), spec, field_of_view)


def preprocess_frame(
    frame: Frame, spec: InputSpec, field_of_view: FieldOfView | None = None, *, out: Pixels | None = None
) -> Pixels:
    """Return a frame of a recording or a stream as model input, uint8 RGB (size, size, 3).

    Args:
        frame: a frame with an image.
        spec: input of the model; its version of the preprocessing decides how the frame is read.
        field_of_view: of the recording; None for the whole frame.
        out: contiguous uint8 (size, size, 3) array to write to; None for a new one.

    Raises:
        InputError: the frame has no image or one that cannot be converted, or the field of view does not lie in it.
    """
    if spec.preprocessing == 2:
        return preprocess_coded(frame.coded(), spec, field_of_view, out=out)
    return preprocess_planes(frame.planes(), spec, field_of_view, out=out)


def preprocess_coded(
    planes: CodedPlanes,
    spec: InputSpec,
    field_of_view: FieldOfView | None = None,
    *,
    out: Pixels | None = None,
) -> Pixels:
    """Return luma and chroma as model input, uint8 RGB (size, size, 3): preprocessing version 2.

    ``docs/preprocessing.md`` gives the arithmetic, which is all in integers.

    Args:
        planes: 8-bit luma and chroma.
        spec: input of the model.
        field_of_view: of the recording; None for the whole frame.
        out: contiguous uint8 (size, size, 3) array to write to; None for a new one.

    Raises:
        InputError: the field of view does not lie in the frame.
    """
    box = FieldOfView.whole(planes.luma)
    if spec.crop == "field_of_view" and field_of_view is not None:
        box = check_box(field_of_view, *planes.luma.shape)
    if out is None:
        out = np.empty((spec.size, spec.size, 3), np.uint8)
    cv2.merge(shrink(planes, box, spec.size), out)
    if spec.mask == "ellipse":
        cv2.bitwise_and(out, _ellipse(spec.size), out)
    return out


def preprocess_planes(
    planes: Planes,
    spec: InputSpec,
    field_of_view: FieldOfView | None = None,
    *,
    out: Pixels | None = None,
) -> Pixels:
    """Return red, green and blue as model input, uint8 RGB (size, size, 3): preprocessing version 1.

    Args:
        planes: red, green and blue, uint8 (height, width) each (``recording.to_planes``).
        spec: input of the model.
        field_of_view: of the recording; None for the whole frame.
        out: contiguous uint8 (size, size, 3) array to write to; None for a new one.

    Raises:
        InputError: the field of view does not lie in the frame.
    """
    height, width = planes[0].shape
    if spec.crop == "field_of_view" and field_of_view is not None:
        box = check_box(field_of_view, height, width)
        rows, columns = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
        planes = (planes[0][rows, columns], planes[1][rows, columns], planes[2][rows, columns])
    if out is None:
        out = np.empty((spec.size, spec.size, 3), np.uint8)
    cv2.merge(resize(planes, spec.size), out)
    if spec.mask == "ellipse":
        cv2.bitwise_and(out, _ellipse(spec.size), out)
    return out


def resize(planes: Planes, size: int) -> Planes:
    """Resize channels to a square: by area averaging where they shrink, by interpolation where they grow.

    The averages are those of swscale's bit-exact mode: integers, the same with and without vector units, and within 1
    level of OpenCV's (whose floats cost four times as much). swscale gets the three channels as a 4:4:4 image, whose
    planes it scales one by one; a call per channel costs nearly twice as much.

    Args:
        planes: uint8 (height, width) each.
        size: side of the square, pixels.
    """
    height, width = planes[0].shape
    if (height, width) == (size, size):
        return planes
    if min(height, width) < size:
        red, green, blue = (
            np.asarray(cv2.resize(plane, (size, size), interpolation=cv2.INTER_LINEAR_EXACT), np.uint8)
            for plane in planes
        )
        return red, green, blue
    scaler = _scaler(width, height)
    for own, plane in zip(scaler.planes, planes, strict=True):
        np.copyto(own, plane)
    scaled = scaler.reformatter.reformat(
        scaler.picture, width=size, height=size, format="yuv444p", interpolation=_AREA, threads=1
    )
    return views(scaled)


def mean_colours(pixels: Pixels, spec: InputSpec) -> npt.NDArray[np.float64]:
    """Return the mean red, green and blue inside the field of view of model inputs.

    Args:
        pixels: uint8 RGB (n, size, size, 3), from ``preprocess``.

    Returns:
        float64 (n, 3), 0..255.
    """
    inside = _inside(spec)
    return np.array([cv2.mean(each, mask=inside)[:3] for each in pixels], np.float64).reshape(-1, 3)


@lru_cache(maxsize=8)
def _inside(spec: InputSpec) -> Pixels:
    """Return the mask of the field of view in a model input: what preprocessing leaves of a white frame."""
    white = np.full((spec.size, spec.size, 3), 255, np.uint8)
    return np.ascontiguousarray(preprocess(white, replace(spec, crop="none"))[..., 0])


class _Scaler:
    """A reformatter with an image of one size to scale from. Serves one thread."""

    def __init__(self, width: int, height: int) -> None:
        self.reformatter = VideoReformatter()
        self.picture = VideoFrame(width, height, "yuv444p")
        self.planes = views(self.picture)


def _scaler(width: int, height: int) -> _Scaler:
    """Return this thread's scaler; only the last size is kept."""
    found: _Scaler | None = getattr(_local, "scaler", None)
    if found is None or (found.picture.width, found.picture.height) != (width, height):
        found = _local.scaler = _Scaler(width, height)
    return found


@lru_cache(maxsize=8)
def _ellipse(size: int) -> Pixels:
    """Return a mask (size, size, 3): 255 where the pixel's centre lies in the inscribed circle, 0 elsewhere."""
    at = np.arange(size) + 0.5 - size / 2
    inside = at[:, None] ** 2 + at[None, :] ** 2 <= (size / 2) ** 2
    mask = np.repeat((inside * 255).astype(np.uint8)[:, :, None], 3, axis=2)
    mask.setflags(write=False)
    return mask
