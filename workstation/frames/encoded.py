"""Encode a picture for the page: JPEG with full colour resolution, or PNG without loss."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["QUALITY", "encode_jpeg", "encode_png", "shrink_picture"]

Pixels = npt.NDArray[np.uint8]

QUALITY = 92
_JPEG = [
    cv2.IMWRITE_JPEG_QUALITY,
    QUALITY,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
]
# Fast: the default level takes four times as long and saves a few percent.
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]


def encode_jpeg(rgb: Pixels) -> bytes:
    """Return a picture, uint8 RGB (height, width, 3), as JPEG: quality 92, chroma not subsampled (4:4:4)."""
    return _encode(".jpg", rgb, _JPEG)


def encode_png(rgb: Pixels) -> bytes:
    """Return a picture, uint8 RGB (height, width, 3), as PNG."""
    return _encode(".png", rgb, _PNG)


def shrink_picture(rgb: Pixels, size: int) -> Pixels:
    """Return a picture whose longer side has at most ``size`` pixels, shrunk by averaging areas."""
    height, width = rgb.shape[:2]
    longer = max(height, width)
    if longer <= size:
        return rgb
    shape = max(1, round(width * size / longer)), max(1, round(height * size / longer))
    return np.asarray(cv2.resize(rgb, shape, interpolation=cv2.INTER_AREA), np.uint8)


def _encode(kind: str, rgb: Pixels, options: list[int]) -> bytes:
    done, data = cv2.imencode(kind, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)
    assert (
        done
    )  # OpenCV refuses sizes beyond 65,535 only, and ``scan`` allows none of those in a JPEG's range
    return data.tobytes()
