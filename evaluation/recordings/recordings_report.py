"""Render the scores of whole recordings (``recording_scores``) as PNG plots and one self-contained HTML page.

The reading curve shows the share of the abnormal frames that a reader sees who opens only the frames most likely to be
abnormal. Beside it are the curves of reading in order of time and of the best possible order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from capsule_edge.runtime.inference import INTENDED_USE
from capsule_edge.runtime.report import render_text

from .._extras import require
from .._files import check_free, write_together
from .._pages import inline_svg, page, png, table
from .event_matching import Span, reading_curve
from .recording_scores import describe_training

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .findings import Reading

__all__ = ["SIGN", "plots", "to_html", "write_recordings"]

SIGN = "recordings.json"
"""The main file of a report, written last: a folder that holds it holds a complete report."""

Documents = Sequence[Mapping[str, Any]]
_BODY = (
    "<h1>Recordings</h1><h2>Events</h2>{{ events }}{% for note in notes %}<p>{{ note }}.</p>{% endfor %}"
    "<h2>Sensitivity to abnormal frames by the share of all frames that is read</h2>{{ reading }}"
    "{% for heading, plot in plots %}<h2>{{ heading }}</h2>{{ plot }}{% endfor %}<p>{{ intended_use }}</p>"
)
_HEADINGS = {
    "reading": "What reading a part of the frames shows",
    "events": "What was there and what was found",
}
_GREY = "#9a9aa0"
_SHARES = np.r_[np.geomspace(0.001, 0.1, 60), np.linspace(0.11, 1, 90)]


def write_recordings(
    documents: Documents, summary: Mapping[str, Any], folder: str | Path, *, overwrite: bool = False
) -> list[Path]:
    """Write ``recordings.json``, ``recordings.html``, ``reading.png`` and ``events.png`` into a folder, all or none.

    Args:
        documents: What ``compare_with_truth`` returned for each recording.
        summary: What ``summarise`` returned for these documents.
        folder: The folder; it is made.
        overwrite: Replace a report that the folder holds.

    Returns:
        The paths of the files.

    Raises:
        OutputError: The folder cannot be written, or holds a report that may not be overwritten.
        PackageError: matplotlib is not installed.
    """
    require("matplotlib")
    check_free(folder, SIGN, overwrite=overwrite)
    figures = plots(documents)
    plain = [{k: v for k, v in d.items() if k not in ("reading", "spans")} for d in documents]
    text = json.dumps({"recordings": plain, "events": summary}, ensure_ascii=False, indent=1, allow_nan=False)
    contents: dict[str, str | bytes] = {
        SIGN: text + "\n",
        "recordings.html": to_html(documents, summary, figures),
    }
    for name, figure in figures.items():
        contents[f"{name}.png"] = png(figure)
    return write_together(folder, contents, sign=SIGN, overwrite=overwrite)


def plots(documents: Documents) -> dict[str, Figure]:
    """Draw ``reading``, the reading curve of each recording, and ``events``, true and found events over time."""
    return {"reading": _reading(documents), "events": _events(documents)}


def to_html(documents: Documents, summary: Mapping[str, Any], figures: Mapping[str, Figure]) -> str:
    """Return the self-contained page."""
    matched = summary["matched"]
    overall = [
        ("findings", summary["findings"]),
        ("of them hit", summary["hit"]),
        ("events", summary["events"]),
        ("of them false", summary["false_events"]),
        ("false events in 1,000 frames", summary["false_events_per_1000_frames"]),
        (f"event precision at IoU {matched['iou']}", matched["precision"]),
        (f"event recall at IoU {matched['iou']}", matched["recall"]),
        (f"temporal mAP at IoU {matched['iou']}", matched["mean_average_precision"]),
    ]
    shares = [entry["share"] for entry in documents[0]["sensitivity_by_share_read"]]
    heads = ["recording", "frames", "label right", "always normal", *(f"{s:.0%} read" for s in shares)]
    rows = [
        [
            document["recording"],
            _n(document["frames"]),
            _n(document["frame_accuracy"]),
            _n(document["always_normal"]),
            *(_n(entry["sensitivity"]) for entry in document["sensitivity_by_share_read"]),
        ]
        for document in documents
    ]
    body = render_text(
        _BODY,
        events=table(["figure", "value"], [[name, _n(value)] for name, value in overall]),
        notes=map(describe_training, documents),
        reading=table(heads, rows),
        plots=[(_HEADINGS[name], inline_svg(figure)) for name, figure in figures.items()],
        intended_use=INTENDED_USE,
    )
    return page("Recordings", body)


def _reading(documents: Documents) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.4, 4.4), layout="constrained")
    axes = figure.subplots()
    for number, document in enumerate(documents):
        reading: Reading = document["reading"]
        answered = np.isfinite(reading.abnormal)
        truth = np.array([label != "normal" for label in reading.labels])[answered]
        if not truth.any():
            continue
        curve = reading_curve(reading.abnormal[answered], truth, _SHARES.tolist())
        colour = f"C{number % 10}"
        seen = [entry["sensitivity"] for entry in curve]
        axes.plot(_SHARES, np.array(seen, np.float64), color=colour, label=document["recording"])
        best = np.minimum(1, _SHARES / truth.mean())
        axes.plot(_SHARES, best, color=colour, linewidth=0.8, linestyle=":")
    axes.plot(_SHARES, _SHARES, color=_GREY, linewidth=1, label="in order of time")
    axes.plot([], [], color=_GREY, linestyle=":", linewidth=0.8, label="the best that can be")
    axes.set_xscale("log")
    axes.set_xlim(_SHARES[0], 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("share of the frames that is read")
    axes.set_ylabel("share of the abnormal frames seen")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)
    return figure


def _events(documents: Documents) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.2 + 1.5 * len(documents)), layout="constrained")
    spans = [span for document in documents for side in document["spans"].values() for span in side]
    colours = {label: f"C{i % 10}" for i, label in enumerate(sorted({span.label for span in spans}))}
    panels = figure.subplots(len(documents), 1, squeeze=False)[:, 0]
    for axes, document in zip(panels, documents, strict=True):
        for row, side in enumerate(("true", "found")):
            drawn: Sequence[Span] = document["spans"][side]
            for span in drawn:
                # The edge makes an event visible that is narrower than a pixel, such as one of a single frame.
                width, colour = span.end_s - span.start_s, colours[span.label]
                axes.barh(1 - row, width, left=span.start_s, height=0.7, color=colour, edgecolor=colour)
        axes.set_yticks([1, 0], ["there", "found"])
        axes.set_ylim(-0.6, 1.6)
        axes.set_xlim(left=0)
        axes.set_title(document["recording"], fontsize=9, loc="left")
    panels[-1].set_xlabel("seconds of the file")
    for label, colour in colours.items():
        panels[0].bar(0, 0, color=colour, label=label)
    if colours:
        panels[0].legend(loc="lower left", bbox_to_anchor=(0.3, 1.0), fontsize=8, ncols=4, frameon=False)
    return figure


def _n(value: float | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
