"""Render a study as one self-contained HTML page.

In: a ``Study`` and the mean colours of its frames. Out: the text of ``report.html``, which loads nothing.
Must not know: result files, decoders, engines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .figures import jpeg
    from .model_card import ModelCard, describe_model
    from .page import render_report
    from .templates import as_markup, read_asset, render_text
    from .transit import SEGMENTS, duration
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        figures="jpeg",
        model_card="ModelCard describe_model",
        page="render_report",
        templates="as_markup read_asset render_text",
        transit="SEGMENTS duration",
    )

__all__ = [
    "SEGMENTS",
    "ModelCard",
    "as_markup",
    "describe_model",
    "duration",
    "jpeg",
    "read_asset",
    "render_report",
    "render_text",
]
