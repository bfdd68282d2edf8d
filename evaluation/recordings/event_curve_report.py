"""Render a fit of events (``event_fit``) as text tables and its curve as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capsule_edge.runtime.errors import UsageError
from capsule_edge.runtime.inference import EventParameters

from .._documents import to_table
from .._extras import require
from .._files import write_text
from .._pages import png, svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["check_plot", "plot_curve", "render_fit", "write_plot"]

_RATE = "false_events_per_1000_frames"
_GREY = "#9a9aa0"
_SUFFIXES = (".png", ".svg")


def render_fit(document: Mapping[str, Any]) -> str:
    """Return the parameters and tables of a fit as text.

    Args:
        document: What ``fit_document`` returned.
    """
    parts = [_rule(document), *_summary(document)]
    if document["curve"] is not None:
        parts += ["", _curve_table(document["curve"])]
    for name, title in (("left_out", "each video left out"), ("held", "held recordings")):
        if (scores := document["measured"][name]) is not None:
            parts += ["", f"by class, {title}, fitted within {document['budget']:g} false events in 1,000:"]
            parts += [_class_table(scores["by_label"])]
    parts += ["", *_recording_table(document)]
    if document["not_judged"]:
        names = ", ".join(document["not_judged"])
        parts += [
            f"not judged: {names} (no fitted recording has such a finding; the model's threshold stays)"
        ]
    return "\n".join([*parts, _origin(document), document["unit"]])


def _rule(document: Mapping[str, Any]) -> str:
    rule = EventParameters(**document["events"])
    return (
        f"smoothing {rule.smoothing_s:g} s, gaps {rule.max_gap_s:g} s, at least {rule.min_frames} frames, "
        f"release {rule.release:g}, merge equal events within {rule.merge_s:g} s"
    )


def _origin(document: Mapping[str, Any]) -> str:
    if document["out_of_fold"]:
        return "As stated with --out-of-fold, each recording was read by a model that had not seen its video."
    return "Nobody stated that the models had not seen these videos (--out-of-fold): the figures may flatter."


def _summary(document: Mapping[str, Any]) -> list[str]:
    """Return one line for each score of the fit and of frame-by-frame thresholds."""
    measured = document["measured"]
    by_frame = {f"{name}, frame by frame": row for name, row in measured["frame_by_frame"].items()}
    return [
        f"{name:24} {row['hit']:3} of {row['findings']} findings hit, {row['seen']} seen, "
        f"{row['matched']['hits']} at IoU .5; {row[_RATE]:.2f} false events in 1,000 frames "
        f"({row['false_on_normal']} on normal frames, {row['false_on_finding']} on a finding)"
        for name, row in {**measured, **by_frame}.items()
        if row and "hit" in row
    ]


def _curve_table(curve: Mapping[str, Any]) -> str:
    head = ("budget", "hit", "seen", "false in 1,000", "on normal", "on a finding")
    rows = []
    for point in curve["events"]:
        other = point["frame_by_frame"]
        rows.append(
            [
                f"{point['budget']:g}",
                _share(point, "hit"),
                _share(point, "seen"),
                f"{point[_RATE]:.2f}{_ends(point, _RATE, 1, '.1f')}",
                str(point["false_on_normal"]),
                str(point["false_on_finding"]),
                "none" if other is None else f"{other[_RATE]:.2f} ({other['hit']} hit)",
            ]
        )
    table = to_table([*head, "frame by frame, as many hits"], rows, right=len(head) + 1)
    return f"each of {curve['videos']} videos left out in turn, with 95 % intervals over videos:\n{table}"


def _share(point: Mapping[str, Any], name: str) -> str:
    """Return a count of findings and its share in per cent, with the interval of the share."""
    share = f"{name}_share"
    shown = f"{point[name]} of {point['findings']}, {100 * point[share]:.0f} %"
    return shown + _ends(point, share, 100, ".0f", " %")


def _ends(point: Mapping[str, Any], name: str, scale: float, form: str, unit: str = "") -> str:
    ends = (point["intervals"] or {}).get(name)
    return "" if ends is None else f" ({scale * ends[0]:{form}} to {scale * ends[1]:{form}}{unit})"


def _class_table(classes: Mapping[str, Mapping[str, int]]) -> str:
    names = ("findings", "hit", "seen", "right_events", "false_events", "false_on_normal", "false_on_finding")
    rows = [[key, *(str(row[name]) for name in names)] for key, row in classes.items()]
    return to_table(["class", *(name.replace("_", " ") for name in names)], rows, right=len(names))


def _recording_table(document: Mapping[str, Any]) -> list[str]:
    names = ("frames", "findings", "hit", "seen", "right_events", "false_on_normal", "false_on_finding")
    parts = []
    for title, rows in document["per_recording"].items():
        if rows:
            cells = [[row["recording"], *(str(row[name]) for name in names)] for row in rows]
            head = ["recording", *(name.replace("_", " ") for name in names)]
            parts += [
                f"by recording, {title.replace('_', ' ')}:",
                to_table(head, cells, right=len(names)),
                "",
            ]
    return parts


def check_plot(path: Path) -> None:
    """Check that ``write_plot`` can write this file.

    Raises:
        PackageError: matplotlib is not installed.
        UsageError: The name ends neither in .png nor in .svg.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"the plot {path} must end in {' or '.join(_SUFFIXES)}")
    require("matplotlib")


def write_plot(document: Mapping[str, Any], path: Path) -> None:
    """Write the curve of a fit as a PNG or SVG file, by the name's ending.

    Raises:
        OutputError: The file cannot be written.
        PackageError: matplotlib is not installed.
        UsageError: The name ends neither in .png nor in .svg.
    """
    check_plot(path)
    figure = plot_curve(document)
    write_text(path, png(figure) if path.suffix.lower() == ".png" else svg(figure))


def plot_curve(document: Mapping[str, Any]) -> Figure:
    """Draw the share of findings hit and seen over the false events in 1,000 frames, with intervals over videos."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    curve, budget = document["curve"], document["budget"]
    for axes, name in zip(panels, ("hit", "seen"), strict=True):
        _draw(axes, curve["frame_by_frame"], name, "thresholds frame by frame", _GREY)
        _draw(axes, curve["events"], name, "events", "C0")
        chosen = next(point for point in curve["events"] if point["budget"] == budget)
        axes.plot(
            chosen[_RATE], 100 * chosen[f"{name}_share"], "o", ms=11, mfc="none", mec="C3", label="chosen"
        )
        axes.set_title(f"findings {name}", fontsize=10, loc="left")
        axes.set_xlabel("false events in 1,000 frames")
        axes.set_xlim(0, 2 * max(point[_RATE] for point in curve["events"]) + 1)
        axes.set_ylim(0, 100)
        axes.grid(color="#e4e4e8")
    panels[0].set_ylabel(f"% of {curve['events'][0]['findings']} findings")
    panels[1].legend(fontsize=8, frameon=False, loc="lower right")
    figure.suptitle(f"{document['unit']}\n{_origin(document)}", fontsize=9)
    return figure


def _draw(axes: Any, points: Sequence[Mapping[str, Any]], name: str, label: str, colour: str) -> None:
    """Draw one curve, each point with its interval of the share."""
    share = f"{name}_share"
    x, y = [point[_RATE] for point in points], [100 * point[share] for point in points]
    axes.plot(x, y, "o-", ms=4, color=colour, label=label)
    for at, point in enumerate(points):
        if point["intervals"] and point["intervals"][share]:
            ends = [100 * end for end in point["intervals"][share]]
            axes.plot([x[at]] * 2, ends, color=colour, alpha=0.35, lw=1.5)
