"""Draw which frames a human has seen: a bar over the whole recording, with the landmarks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from capsule_edge.runtime.report import render_text

__all__ = ["draw_coverage"]

_BINS = 500
# Attributes and not rules of the style sheet, which WeasyPrint does not apply inside a drawing.
_COLOURS = {"seen": "#1f7a4d", "skimmed": "#a9cdb9"}
_TEMPLATE = (
    '<svg class="coverage" viewBox="0 0 500 20" preserveAspectRatio="none" role="img" aria-label="{{ label }}">'
    '<rect fill="#e3e6ea" x="0" y="4" width="500" height="12"/>'
    "{% for colour, start, width in parts %}"
    '<rect fill="{{ colour }}" x="{{ start }}" y="4" width="{{ width }}" height="12"/>'
    "{% endfor %}"
    '{% for at in marks %}<rect fill="#000" x="{{ at }}" y="0" width="1.5" height="20"/>{% endfor %}'
    "</svg>"
)


def draw_coverage(
    completeness: Mapping[str, Any], landmarks: Iterable[Mapping[str, Any]], *, frames: int, label: str
) -> str:
    """Return the bar as SVG.

    Args:
        completeness: of an exported reading.
        landmarks: of an exported reading.
        frames: number of frames of the recording.
        label: the same in words.
    """
    bins = [""] * _BINS
    # A bin is drawn as seen where most of it was seen, so that the bar never promises more than there is.
    for kind in ("skimmed", "seen"):
        for place, share in enumerate(_shares(completeness[kind], frames)):
            if share > 0.5:
                bins[place] = kind
    parts, start = [], 0
    for kind, run in groupby(bins):
        width = len(list(run))
        if kind:
            parts.append((_COLOURS[kind], start, width))
        start += width
    marks = [round(_BINS * mark["index"] / max(frames, 1), 1) for mark in landmarks]
    return str(render_text(_TEMPLATE, parts=parts, marks=marks, label=label))


def _shares(ranges: Iterable[Sequence[int]], frames: int) -> list[float]:
    """Return for each bin the share of it that the ranges cover, 0..1."""
    shares = [0.0] * _BINS
    for start, end in ranges:
        first, last = start * _BINS / frames, end * _BINS / frames
        for place in range(int(first), min(int(last) + 1, _BINS)):
            shares[place] += max(0.0, min(last, place + 1) - max(first, place))
    return shares
