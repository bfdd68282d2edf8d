"""Build the parts that all reports share: a self-contained HTML page, tables, and reproducible figures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from capsule_edge.runtime.report import as_markup, render_text

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

__all__ = ["STYLE", "inline_svg", "page", "png", "svg", "table"]

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;color:#1d1d1f}
table{border-collapse:collapse;margin:.5em 0 1.5em;display:block;overflow-x:auto}
th,td{border:1px solid #ccc;padding:.25em .6em;text-align:right}th{background:#f4f4f6}
td:first-child,th:first-child{text-align:left}.verdict{font-size:1.3em;font-weight:600}
svg{max-width:100%;height:auto}code{word-break:break-all}
"""


_PAGE = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    "<title>{{ title }}</title><style>{{ style }}</style></head>\n<body>{{ body }}</body></html>\n"
)
_TABLE = (
    "<table><tr>{% for name in head %}<th>{{ name }}</th>{% endfor %}</tr>"
    "{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}</table>"
)


def page(title: str, body: Markup, *, style: str = STYLE) -> str:
    """Return a complete HTML document; ``title`` is plain text, ``body`` is markup, ``style`` is our own CSS."""
    return str(render_text(_PAGE, title=title, body=body, style=as_markup(style)))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    """Return the markup of a table whose cells are plain text."""
    return render_text(_TABLE, head=head, rows=rows)


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG file, without the drawing library's version in it."""
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=110, metadata={"Software": None})
    return target.getvalue()


def svg(figure: Figure) -> str:
    """Return a figure as an SVG file. With a fixed salt and no date, equal figures give equal bytes."""
    from matplotlib import rc_context

    target = io.StringIO()
    with rc_context({"svg.hashsalt": "capsule-edge", "svg.fonttype": "none"}):
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    return target.getvalue()


def inline_svg(figure: Figure) -> Markup:
    """Return a figure as SVG markup for use within a page."""
    picture = svg(figure)
    return as_markup(picture[picture.index("<svg") :])
