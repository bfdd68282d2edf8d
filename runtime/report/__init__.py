"""Render a study as one self-contained HTML page.

In: a ``Study`` and the mean colours of its frames. Out: the text of ``report.html``, which loads nothing.
Must not know: result files, decoders, engines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .figures import jpeg
    from .page import render_report
    from .templates import as_markup, render_text
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        figures="jpeg",
        page="render_report",
        templates="as_markup render_text",
    )

__all__ = ["as_markup", "jpeg", "render_report", "render_text"]
