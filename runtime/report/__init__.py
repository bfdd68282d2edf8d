"""A study to one self-contained HTML page.

In: a ``Study`` and its colours. Out: the text of ``report.html``; nothing in it is loaded from elsewhere.
Must not know: files, decoders, engines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .figures import jpeg
    from .page import render_report
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        figures="jpeg",
        page="render_report",
    )

__all__ = ["jpeg", "render_report"]
