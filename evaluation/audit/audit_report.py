"""Render an audit as one self-contained HTML page: verdict, findings, class balance, and copied pictures."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.report import jpeg

from .._files import write_text
from .._pages import STYLE, page
from ..datasets import read_frame

__all__ = ["MEANING", "to_html", "write_audit"]

Document = Mapping[str, Any]

MEANING = {
    "misleading": "evaluation on this split would mislead",
    "doubtful": "no fault that falsifies, but figures rest on little or a leak cannot be ruled out",
    "note": "nothing that speaks against evaluation on this split",
    "sound": "nothing was found",
}
_STYLE = (
    STYLE
    + """
td{text-align:left}.n{text-align:right}.misleading{color:#b3261e}.doubtful{color:#8a6d00}.note,.sound{color:#2a7f3f}
summary{cursor:pointer}pre{overflow-x:auto;background:#f4f4f6;padding:.6em}figure{display:inline-block;margin:.5em}
figcaption{font-size:12px;max-width:340px;word-break:break-all}rect.a{fill:#335c9e}rect.b{fill:#9fb6dc}
"""
)
# At most this many pairs of pictures on the page; a pair takes 20 kB.
_PAIRS = 24


def write_audit(document: Document, root: Path, target: str | Path) -> Path:
    """Write the page of an audit, completely or not at all, and return its path.

    Args:
        document: What ``audit`` returned.
        root: The folder of the data set, from which the copied pictures are read.
        target: The HTML file to write.

    Raises:
        OutputError: The file cannot be written.
    """
    return write_text(target, to_html(document, root))


def to_html(document: Document, root: Path) -> str:
    """Return the self-contained page; pictures of copies are read from the data set folder ``root``."""
    data, verdict = document["data"], document["verdict"]
    title = f"Audit of {data['name']}"
    splits = ", ".join(f"{name} {count:,}" for name, count in data["splits"].items()) or "none"
    body = "".join(
        [
            f"<h1>{html.escape(title)}</h1>",
            f'<p class="verdict {verdict}">{verdict}: {MEANING[verdict]}</p>',
            f"<p>{data['frames']:,} files of {data['videos']:,} videos, by {html.escape(data['table'])}. "
            f"Splits: {html.escape(splits)}. Evaluated: {html.escape(', '.join(document['evaluated']) or 'all')}."
            f" {_images(document['images'])}</p>",
            "<h2>Findings</h2>",
            *map(_finding, document["findings"]),
            "<h2>Classes</h2>",
            _classes(document["classes"]),
            _copies(document["images"], root),
        ]
    )
    return page(title, body, style=_STYLE)


def _images(images: Mapping[str, Any] | None) -> str:
    if images is None:
        return "No picture was there to be read."
    return (
        f"{images['read']:,} pictures read, {images['absent']:,} not there, {images['unreadable']:,} unreadable; "
        f"{images['files_with_near_duplicates']:,} have a near duplicate."
    )


def _finding(finding: Mapping[str, Any]) -> str:
    head = (
        f'<span class="{finding["level"]}">{finding["level"]}</span> {finding["check"].replace("_", " ")}: '
        f"{html.escape(finding['message'])}"
    )
    if not finding["examples"]:
        return f"<p>{head}</p>"
    lines = "\n".join(finding["examples"])
    more = finding["count"] - len(finding["examples"])
    rest = f"\nand {more:,} more" if more > 0 else ""
    opened = " open" if finding["level"] == "misleading" else ""
    return f"<details{opened}><summary>{head}</summary><pre>{html.escape(lines + rest)}</pre></details>"


def _classes(classes: Mapping[str, Mapping[str, Mapping[str, int]]]) -> str:
    """Return the table of frames and videos of each class and split, with bars on one scale."""
    sides = list(next(iter(classes.values())))
    most = max(entry["all"]["frames"] for entry in classes.values())
    head = "".join(f"<th>{html.escape(side)}: frames</th><th>videos</th><th>rests on</th>" for side in sides)
    rows = []
    for label, entry in sorted(classes.items(), key=lambda item: -item[1]["all"]["frames"]):
        cells = "".join(
            f'<td class="n">{entry[side]["frames"]:,}</td><td class="n">{entry[side]["videos"]:,}</td>'
            f'<td class="n">{entry[side]["rests_on"]:,}</td>'
            for side in sides
        )
        width = 200 * entry["all"]["frames"] / most
        bar = f'<svg width="200" height="12"><rect class="a" width="{width:.1f}" height="12"/></svg>'
        rows.append(f"<tr><td>{html.escape(label)}</td>{cells}<td>{bar}</td></tr>")
    return f"<table><tr><th>class</th>{head}<th></th></tr>{''.join(rows)}</table>"


def _copies(images: Mapping[str, Any] | None, root: Path) -> str:
    figures = []
    for pair in (images or {}).get("copies", [])[:_PAIRS]:
        try:
            pictures = "".join(_picture(root / pair[side], pair[side]) for side in ("a", "b"))
        except InputError:
            continue
        caption = html.escape(
            f"{pair['a']} ~ {pair['b']}, {pair['distance']} bits: {', '.join(pair['checks'])}"
        )
        figures.append(f"<figure>{pictures}<figcaption>{caption}</figcaption></figure>")
    return f"<h2>Copies</h2>{''.join(figures)}" if figures else ""


def _picture(file: Path, name: str) -> str:
    source, width, height = jpeg(read_frame(file), longest=160, quality=80)
    return f'<img src="{source}" width="{width}" height="{height}" alt="{html.escape(name, quote=True)}">'
