"""A frame as the decoder leaves it: its image, or the reason why it has none."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from ..errors import InputError
from .coded_planes import CodedPlanes, coded_of_rgb, to_coded
from .colour import Planes, split, to_planes, to_rgb
from .orientation import orientation_of

__all__ = ["Detail", "Frame"]

Detail = Literal["", "damaged", "depends_on_damaged"]


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a recording or a stream.

    Attributes:
        index: place in presentation order, from 0.
        image: as decoded, or uint8 RGB (height, width, 3); None for a corrupt frame, and for a duplicate whose image
            is no longer needed.
        detail: why a corrupt frame has no image. ``damaged``: its packet is flagged, the decoder reported an error,
            or it returned nothing for the packet. ``depends_on_damaged``: it builds on such a frame.
        duplicate_of: index of the near-identical frame whose answer this one takes.
        pts: time stamp in ticks of the container's time base; None in a stream.
        time_s: seconds from the first presented frame; None in a stream.
    """

    index: int
    image: VideoFrame | npt.NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)
    detail: Detail = ""
    duplicate_of: int | None = None
    pts: int | None = None
    time_s: float | None = None

    @property
    def status(self) -> Literal["ok", "corrupt", "duplicate"]:
        """``corrupt``, ``duplicate`` or ``ok``."""
        if self.detail:
            return "corrupt"
        return "ok" if self.duplicate_of is None else "duplicate"

    @property
    def shape(self) -> tuple[int, int] | None:
        """Height and width of the upright image in pixels; None without an image."""
        if self.image is None:
            return None
        if isinstance(self.image, VideoFrame):
            stored = self.image.height, self.image.width
            orientation = orientation_of(self.image)
            return stored[::-1] if orientation is not None and orientation.transposed else stored
        height, width = self.image.shape[:2]
        return height, width

    @property
    def nbytes(self) -> int:
        """Approximate size of the image in bytes. A decoded image is taken as 4:2:0; others take up to twice that."""
        if self.image is None:
            return 0
        if isinstance(self.image, VideoFrame):
            return self.image.height * self.image.width * 3 // 2
        return self.image.nbytes

    def planes(self) -> Planes:
        """Return red, green and blue, each uint8 (height, width), full range and upright.

        Raises:
            InputError: the frame has no image, or an image that cannot be converted (``to_planes``).
        """
        image = self._image()
        return to_planes(image) if isinstance(image, VideoFrame) else split(image)

    def coded(self) -> CodedPlanes:
        """Return the image as 8-bit luma and chroma, upright.

        Raises:
            InputError: as ``planes``.
        """
        image = self._image()
        return to_coded(image) if isinstance(image, VideoFrame) else coded_of_rgb(image)

    def rgb(self) -> npt.NDArray[np.uint8]:
        """Return the image as uint8 RGB (height, width, 3), full range and upright.

        Raises:
            InputError: as ``planes``.
        """
        image = self._image()
        return to_rgb(image) if isinstance(image, VideoFrame) else image

    def without_image(self) -> Frame:
        """Return the frame without its image, which frees the memory."""
        return replace(self, image=None)

    def _image(self) -> VideoFrame | npt.NDArray[np.uint8]:
        if self.image is None:
            raise InputError(f"frame {self.index} is {self.status} ({self.detail}) and has no image")
        return self.image
