"""Render an evaluation (``metrics``) as one self-contained HTML page and PNG plots."""

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
from ..datasets import describe_frames, describe_overlap
from .curves import ABNORMAL

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["SIGN", "plots", "to_html", "write_report"]

SIGN = "evaluation.json"
"""The main file of a report, written last: a folder that holds it holds a complete report."""

Document = Mapping[str, Any]
_BODY = """<h1>{{ title }}</h1>
<p>{{ counts }} Model SHA-256 <code>{{ model_sha256 }}</code>, data SHA-256 <code>{{ data_sha256 }}</code>.</p>
{% for note in notes %}<p>{{ note }}</p>
{% endfor %}{% for heading, content in sections %}<h2>{{ heading }}</h2>{{ content }}
{% endfor %}<p>{{ intended_use }}</p>"""
_HEADINGS = {
    "confusion": "Confusion",
    "classes": "Sensitivity and AUC of each class, with 95 % intervals",
    "roc": "Sensitivity against specificity (ROC)",
    "precision_recall": "Precision against recall",
    "reliability": "Accuracy against confidence",
}
_BLUE, _GREY = "#335c9e", "#9a9aa0"


def write_report(document: Document, folder: str | Path, *, overwrite: bool = False) -> list[Path]:
    """Write ``evaluation.json``, ``evaluation.html`` and a PNG for each plot into a folder, all or none.

    Args:
        document: What ``evaluate`` returns, with ``model`` and ``data``, as ``capsule-edge evaluate --json`` prints it.
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
    figures = plots(document)
    contents: dict[str, bytes] = {
        SIGN: (json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode(),
        "evaluation.html": to_html(document, figures).encode(),
    }
    for name, figure in figures.items():
        contents[f"{name}.png"] = png(figure)
    return write_together(folder, contents, sign=SIGN, overwrite=overwrite)


def plots(document: Document) -> dict[str, Figure]:
    """Draw the plots ``confusion``, ``classes``, ``roc``, ``precision_recall`` and ``reliability``."""
    require("matplotlib")
    return {
        "confusion": _confusion(document),
        "classes": _classes(document),
        "roc": _curves(document, "roc"),
        "precision_recall": _curves(document, "precision_recall"),
        "reliability": _reliability(document),
    }


def to_html(document: Document, figures: Mapping[str, Figure] | None = None) -> str:
    """Return the self-contained page: tables, and the plots as inline SVG (drawn if not given)."""
    model, data = document["model"], document["data"]
    title = f"{model['name']} {model['version']} ({model['precision']}) on {data['name']}"
    drawn = (figures or plots(document)).items()
    body = render_text(
        _BODY,
        title=title,
        counts=f"{describe_frames(document['frames'], document['videos'])}, split {data['split'] or 'all'}.",
        model_sha256=model["sha256"],
        data_sha256=data["sha256"],
        notes=_notes(document),
        sections=[
            *((heading, table(head, rows)) for heading, head, rows in _tables(document)),
            *((_HEADINGS[name], inline_svg(figure)) for name, figure in drawn),
        ],
        intended_use=INTENDED_USE,
    )
    return page(title, body)


def _notes(document: Document) -> list[str]:
    notes = []
    absent = [key for key in document["labels"] if key not in document["averaged_over"]]
    if absent:
        notes.append(f"No frame of {', '.join(absent)}: averages are over the other classes.")
    intervals = document["confidence_intervals"]
    if intervals and intervals["reason"]:
        notes.append(f"No intervals: {intervals['reason']}.")
    if document["skipped"]:
        notes.append(f"{len(document['skipped'])} frames could not be read and are left out.")
    notes.append(f"As to training: {describe_overlap(document.get('training_overlap'), document['frames'])}.")
    return notes


def _tables(document: Document) -> list[tuple[str, Sequence[str], list[list[str]]]]:
    intervals = document["confidence_intervals"] or {}
    binary, majority = document["normal_vs_abnormal"], document["majority_baseline"]
    constant = majority["normal_vs_abnormal"]
    overall = [
        [name, _n(document[name]), _span(intervals.get(name)), _n(majority[name])]
        for name in ("accuracy", "macro_f1", "balanced_accuracy", "mean_auc", "mean_pr_auc", "mcc")
    ]
    for name in ("precision", "recall", "f1"):
        overall += [
            [f"{name}, {how}", _n(document[name][how]), "-", _n(majority[name][how])]
            for how in ("macro", "micro", "weighted")
        ]
    overall.append(["ece", _n(document["ece"]), "-", "-"])
    for name, title in (("auc", "AUC"), ("pr_auc", "PR-AUC")):
        span = _span(intervals.get(f"normal_vs_abnormal_{name}"))
        overall.append([f"normal against abnormal, {title}", _n(binary[name]), span, _n(constant[name])])
    at_specificity = intervals.get("sensitivity_at_specificity", {})
    without = constant["sensitivity_at_specificity"]
    overall += [
        [f"sensitivity at specificity {at}", _n(value), _span(at_specificity.get(at)), _n(without[at])]
        for at, value in binary["sensitivity_at_specificity"].items()
    ]
    names = ("support", "videos", "precision", "recall", "specificity", "f1", "auc", "pr_auc")
    recalls = {key: entry["recall"] for key, entry in intervals.get("per_class", {}).items()}
    classes = [
        [key, *(_n(entry[name]) for name in names), _span(recalls.get(key))]
        for key, entry in document["per_class"].items()
    ]
    short = ("frames", "accuracy", "majority_accuracy", "macro_f1", "balanced_accuracy", "mean_auc", "mcc")
    return [
        ("Overall", ("figure", "value", "95 % interval over videos", f"always {majority['label']}"), overall),
        ("Classes", ("class", *names, "95 % of recall"), classes),
        *(
            (heading, ("name", *short), [[n, *(_n(e[s]) for s in short)] for n, e in document[key].items()])
            for heading, key in (("Sources", "per_source"), ("Videos", "per_video"))
            if document[key]
        ),
    ]


def _confusion(document: Document) -> Figure:
    """Draw the confusion matrix: counts, coloured by their share of the true class."""
    from matplotlib.figure import Figure

    counts, keys = np.array(document["confusion"]["matrix"]), document["labels"]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(2.5 + 0.6 * len(keys), 2 + 0.5 * len(keys)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(keys)), keys, rotation=45, ha="right")
    axes.set_yticks(range(len(keys)), keys)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for row, column in np.argwhere(counts > 0):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=8)
    return figure


def _classes(document: Document) -> Figure:
    """Draw the sensitivity and AUC of each class with their intervals."""
    from matplotlib.figure import Figure

    classes = list(document["per_class"].items())[::-1]
    intervals = (document["confidence_intervals"] or {}).get("per_class", {})
    figure = Figure(figsize=(9, 1.5 + 0.35 * len(classes)), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2, sharey=True), ("recall", "auc"), strict=True):
        for row, (key, entry) in enumerate(classes):
            if entry[name] is None:
                continue
            axes.plot([entry[name]], [row], "o", color=_BLUE)
            span = intervals.get(key, {}).get(name)
            if span is not None:
                axes.plot(span, [row, row], color=_BLUE, linewidth=2)
        axes.set_yticks(range(len(classes)), [f"{key} ({entry['support']})" for key, entry in classes])
        axes.set_xlim(0, 1.02)
        axes.set_ylim(-0.6, len(classes) - 0.4)
        axes.set_xlabel("sensitivity" if name == "recall" else "ROC-AUC against the rest")
        axes.grid(axis="x", color="#ddd")
    return figure


def _curves(document: Document, kind: str) -> Figure:
    """Draw a curve for each class, most frames first, and a bold one for any finding against none."""
    from matplotlib.figure import Figure

    across, up = ("false_positive_rate", "sensitivity") if kind == "roc" else ("recall", "precision")
    area = "auc" if kind == "roc" else "pr_auc"
    figure = Figure(figsize=(7.6, 4.6), layout="constrained")
    axes = figure.subplots()
    found = document["curves"]
    order = sorted(
        (key for key in document["labels"] if key in found),
        key=lambda key: -document["per_class"][key]["support"],
    )
    for number, key in enumerate(order):
        label = f"{key} {_n(document['per_class'][key][area])}"
        points = found[key][kind]
        # Ten solid colours, then the same ten dashed.
        style = "-" if number < 10 else "--"
        axes.plot(points[across], points[up], style, color=f"C{number % 10}", linewidth=1.1, label=label)
    if ABNORMAL in found:
        label = f"abnormal {_n(document['normal_vs_abnormal'][area])}"
        points = found[ABNORMAL][kind]
        axes.plot(points[across], points[up], color="black", linewidth=2.2, label=label)
    if kind == "roc":
        axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1)
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.set_xlabel("1 - specificity" if kind == "roc" else "sensitivity (recall)")
    axes.set_ylabel("sensitivity" if kind == "roc" else "precision")
    if found:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, title="area", frameon=False)
    return figure


def _reliability(document: Document) -> Figure:
    """Draw accuracy against the confidence in the top label; a point's area is its share of the frames."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1)
    rows = document["reliability"]
    confidence, accuracy = [r["confidence"] for r in rows], [r["accuracy"] for r in rows]
    axes.plot(confidence, accuracy, color=_BLUE, linewidth=1)
    areas = [10 + 600 * r["frames"] / document["frames"] for r in rows]
    axes.scatter(confidence, accuracy, s=areas, color=_BLUE, alpha=0.6)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel(f"confidence (expected calibration error {document['ece']:.3f})")
    axes.set_ylabel("accuracy")
    return figure


def _n(value: float | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def _span(value: Sequence[float] | None) -> str:
    return "-" if value is None else f"{value[0]:.3f} to {value[1]:.3f}"
