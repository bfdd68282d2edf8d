"""The report of a reading as PDF, for the object that carries it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.recording import fetch, scan

from .findings import FindingsDocument

__all__ = ["make_reading_pdf"]

# As the workstation shows frames: quality 92, colours at full size.
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 92, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]


def make_reading_pdf(document: FindingsDocument, recording: Path) -> Callable[[], bytes] | None:
    """Return a function that writes the report of a reading as PDF; None for a result without a reading.

    The function raises ``PackageError`` where the extra ``[serve]``, or the library Pango, is not installed.

    Args:
        document: the findings.
        recording: that was read.
    """
    reading = document.reading
    if reading is None:
        return None

    def write() -> bytes:
        from ..report import render_reading, write_pdf

        container = scan(recording, stream=document.stream)
        wanted = {each.key_index for each in document.findings}
        pictures = {frame.index: frame.rgb() for frame in fetch(container, wanted)}

        def picture(index: int) -> bytes:
            if index not in pictures:
                raise InputError(f"frame {index} has no picture")
            bgr = cv2.cvtColor(pictures[index], cv2.COLOR_RGB2BGR)
            return cv2.imencode(".jpg", bgr, _JPEG)[1].tobytes()

        return write_pdf(render_reading(reading, picture=picture))

    return write
