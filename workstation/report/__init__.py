"""The report of a reading: what the reader decided, as one HTML page or a PDF. Preliminary, not signed.

In: an exported reading, pictures of frames by index, and the model. Out: HTML that loads nothing, or a PDF.
Must not know: HTTP, the database, how frames are decoded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .pdf import write_pdf
    from .reading_report import render_reading
else:
    __getattr__, __dir__ = lazy_names(__name__, pdf="write_pdf", reading_report="render_reading")

__all__ = ["render_reading", "write_pdf"]
