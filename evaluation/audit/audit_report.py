"""Render an audit as one self-contained HTML page: verdict, findings, class balance, and copied pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.report import jpeg, render_text

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
_BODY = (
    '<h1>{{ title }}</h1><p class="verdict {{ verdict }}">{{ verdict }}: {{ meaning }}</p><p>{{ counts }}</p>'
    "<h2>Findings</h2>"
    "{% for finding in findings %}{% set head %}"
    '<span class="{{ finding.level }}">{{ finding.level }}</span>'
    " {{ finding.check | replace('_', ' ') }}: {{ finding.message }}"
    "{% endset %}"
    "{% if finding.examples %}<details{% if finding.level == 'misleading' %} open{% endif %}>"
    "<summary>{{ head }}</summary><pre>{{ finding.examples }}</pre></details>"
    "{% else %}<p>{{ head }}</p>{% endif %}{% endfor %}"
    "<h2>Classes</h2><table><tr><th>class</th>"
    "{% for side in sides %}<th>{{ side }}: frames</th><th>videos</th><th>rests on</th>{% endfor %}<th></th></tr>"
    "{% for label, entry in classes %}<tr><td>{{ label }}</td>"
    "{% for side in sides %}{% for key in ('frames', 'videos', 'rests_on') %}"
    '<td class="n">{{ "{:,}".format(entry[side][key]) }}</td>{% endfor %}{% endfor %}'
    '<td><svg width="200" height="12"><rect class="a" width="{{ "%.1f" | format(200 * entry.all.frames / most) }}"'
    ' height="12"/></svg></td></tr>{% endfor %}</table>'
    "{% if copies %}<h2>Copies</h2>{% for copy in copies %}<figure>{% for picture in copy.pictures %}"
    '<img src="{{ picture.source }}" width="{{ picture.width }}" height="{{ picture.height }}"'
    ' alt="{{ picture.name }}">{% endfor %}<figcaption>{{ copy.caption }}</figcaption></figure>{% endfor %}{% endif %}'
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
    data, verdict, classes = document["data"], document["verdict"], document["classes"]
    title = f"Audit of {data['name']}"
    splits = ", ".join(f"{name} {count:,}" for name, count in data["splits"].items()) or "none"
    body = render_text(
        _BODY,
        title=title,
        verdict=verdict,
        meaning=MEANING[verdict],
        counts=f"{data['frames']:,} files of {data['videos']:,} videos, by {data['table']}. Splits: {splits}."
        f" Evaluated: {', '.join(document['evaluated']) or 'all'}. {_images(document['images'])}",
        findings=[{**finding, "examples": _examples(finding)} for finding in document["findings"]],
        sides=list(next(iter(classes.values()))),
        most=max(entry["all"]["frames"] for entry in classes.values()),
        classes=sorted(classes.items(), key=lambda item: -item[1]["all"]["frames"]),
        copies=_copies(document["images"], root),
    )
    return page(title, body, style=_STYLE)


def _images(images: Mapping[str, Any] | None) -> str:
    if images is None:
        return "No picture was there to be read."
    return (
        f"{images['read']:,} pictures read, {images['absent']:,} not there, {images['unreadable']:,} unreadable; "
        f"{images['files_with_near_duplicates']:,} have a near duplicate."
    )


def _examples(finding: Mapping[str, Any]) -> str:
    """Return the examples of a finding, a line each, and how many more there are."""
    more = finding["count"] - len(finding["examples"])
    rest = [f"and {more:,} more"] if more > 0 and finding["examples"] else []
    return "\n".join([*finding["examples"], *rest])


def _copies(images: Mapping[str, Any] | None, root: Path) -> list[dict[str, Any]]:
    """Return the caption and the two pictures of each pair of copies whose files can be read."""
    found = []
    for pair in (images or {}).get("copies", [])[:_PAIRS]:
        try:
            pictures = [_picture(root / pair[side], pair[side]) for side in ("a", "b")]
        except InputError:
            continue
        caption = f"{pair['a']} ~ {pair['b']}, {pair['distance']} bits: {', '.join(pair['checks'])}"
        found.append({"pictures": pictures, "caption": caption})
    return found


def _picture(file: Path, name: str) -> dict[str, Any]:
    source, width, height = jpeg(read_frame(file), longest=160, quality=80)
    return {"source": source, "width": width, "height": height, "name": name}
