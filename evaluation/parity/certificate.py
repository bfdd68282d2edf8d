"""Write a parity certificate as JSON, as Markdown and as one HTML page with plots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capsule_edge.runtime.inference import INTENDED_USE
from capsule_edge.runtime.report import render_text

from .._extras import require
from .._files import check_free, write_together
from .._pages import inline_svg, page, table
from ..datasets import describe_frames, describe_overlap

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["certificate_stem", "describe_pair", "schema_path", "to_html", "to_markdown", "write_certificate"]

Certificate = Mapping[str, Any]
Rows = Sequence[Sequence[str]]

_COLOURS = {"pass": "#2a7f3f", "fail": "#b3261e", "undecided": "#8a6d00"}
_BODY = """<h1>{{ title }}</h1>
<p class="verdict" style="color:{{ colour }}">Verdict: {{ verdict }}</p>
<p>{{ scope }}</p>
{{ plots }}
{% for heading, note, table in sections %}<h2>{{ heading }}</h2>{% if note %}<p>{{ note }}</p>{% endif %}
{{ table }}
{% endfor %}<p>{{ intended_use }}</p>"""


def schema_path() -> Path:
    """Return the path of the certificate's published JSON Schema."""
    return Path(str(resources.files("capsule_edge.evaluation") / "schema" / "certificate.schema.json"))


def certificate_stem(file: str, kind: str) -> str:
    """Return the name of a certificate's files without suffix: the certified file's name and the kind."""
    return f"{file}.{kind}"


def write_certificate(
    certificate: Certificate, folder: str | Path, *, stem: str | None = None, overwrite: bool = False
) -> list[Path]:
    """Write ``<stem>.json``, ``<stem>.md`` and ``<stem>.html`` into a folder, all or none.

    Args:
        certificate: What ``certify`` returned.
        folder: The folder; it is made.
        stem: The name of the files without suffix; None: ``certificate_stem``.
        overwrite: Replace a certificate of that name.

    Returns:
        The paths of the files.

    Raises:
        OutputError: The folder cannot be written, or holds a certificate that may not be overwritten.
        PackageError: matplotlib is not installed.
    """
    stem = stem or certificate_stem(certificate["models"]["b"]["file"], certificate["kind"])
    check_free(folder, f"{stem}.json", overwrite=overwrite)
    texts = {
        "json": json.dumps(certificate, ensure_ascii=False, indent=1, allow_nan=False) + "\n",
        "md": to_markdown(certificate),
        "html": to_html(certificate),
    }
    contents = {f"{stem}.{suffix}": text for suffix, text in texts.items()}
    return write_together(folder, contents, sign=f"{stem}.json", overwrite=overwrite)


def to_markdown(certificate: Certificate) -> str:
    """Return the certificate as GitHub Markdown."""
    parts = [f"# {_title(certificate)}", f"Verdict: **{certificate['verdict']}**. {_scope(certificate)}"]
    for heading, note, head, rows in _tables(certificate):
        lines = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *_escaped(rows)]]
        parts += [f"## {heading}", *([note] if note else []), "\n".join(lines)]
    return "\n\n".join([*parts, INTENDED_USE]) + "\n"


def to_html(certificate: Certificate) -> str:
    """Return the certificate as one self-contained HTML page; the plots (matplotlib) are inline SVG."""
    body = render_text(
        _BODY,
        title=_title(certificate),
        verdict=certificate["verdict"],
        colour=_COLOURS[certificate["verdict"]],
        scope=_scope(certificate),
        plots=_plots(certificate),
        sections=[(heading, note, table(head, rows)) for heading, note, head, rows in _tables(certificate)],
        intended_use=INTENDED_USE,
    )
    return page(_title(certificate), body)


def _title(certificate: Certificate) -> str:
    models = certificate["models"]
    return (
        f"{certificate['kind'].capitalize()} certificate: {models['b']['file']} against {models['a']['file']}"
    )


def _scope(certificate: Certificate) -> str:
    data, tool = certificate["data"], certificate["tool"]
    skipped = f", {len(data['skipped'])} frames could not be read" if data["skipped"] else ""
    return (
        f"Measured on {describe_frames(data['frames'], data['videos'])} of {data['name']}, split "
        f"{data['split'] or 'all'}{skipped}, by {tool['name']} {tool['version']}. "
        f"A is {_model(certificate, 'a')}; B is {_model(certificate, 'b')}. Data SHA-256 {data['sha256']}. "
        f"As to training: {describe_overlap(data.get('training_overlap'), data['frames'])}."
        f"{' Note: ' + remark + '.' if (remark := describe_pair(certificate)) else ''}"
    )


def describe_pair(certificate: Certificate) -> str:
    """Return what makes a pair of models a poor one for a certificate of quantisation; empty if nothing does."""
    a, b = (certificate["models"][side] for side in "ab")
    if a["sha256"] == b["sha256"]:
        engines = "" if a["backend"] == b["backend"] else f", with {a['backend']} and with {b['backend']}"
        return f"A and B are the same file{engines}, so this says nothing about quantisation"
    if certificate["kind"] == "shipping" and a["precision"] == b["precision"]:
        return f"A and B are both {a['precision'].upper()}, so this says nothing about quantisation"
    return ""


def _model(certificate: Certificate, side: str) -> str:
    model = certificate["models"][side]
    named = " ".join(str(model[name]) for name in ("name", "version", "precision") if model[name])
    return f"{named}, SHA-256 {model['sha256']}"


def _tables(certificate: Certificate) -> list[tuple[str, str, list[str], Rows]]:
    """Return the heading, note, column names and rows of each section."""
    boot, test = certificate["bootstrap"], certificate["mcnemar"]
    sections: list[tuple[str, str, list[str], Rows]] = [
        (
            "Gates",
            "",
            ["gate", "value", "limit", "verdict"],
            [[g["name"], _n(g["value"]), _n(g["limit"]), g["verdict"] or "-"] for g in certificate["gates"]],
        ),
        (
            "Overall",
            f"Differences are B less A, {_intervals(boot)}. "
            f"Max |dp| {_n(certificate['max_abs_dp'])}, mean {_n(certificate['mean_abs_dp'])}. "
            f"Only A right {test['only_a_right']}, only B right {test['only_b_right']}, "
            f"McNemar p {_n(test['p_value'])} (frames taken as independent).",
            ["figure", "A", "B", "B - A", "interval"],
            [
                [name, *_figure(certificate[name])]
                for name in ("accuracy", "macro_f1", "balanced_accuracy", "mean_auc", "ece")
            ],
        ),
    ]
    for name in ("sensitivity", "specificity"):
        rows = [
            [key, str(entry["support"]), str(entry["videos"]), *_figure(entry[name]), entry["reason"] or ""]
            for key, entry in certificate["per_class"].items()
        ]
        head = ["class", "frames", "videos", "A", "B", "B - A", "interval", "why undecided"]
        if name == "specificity" or certificate["kind"] != "shipping":
            rows, head = [row[:-1] for row in rows], head[:-1]
        sections.append((f"{name.capitalize()} by class", "", head, rows))
    found = certificate["events"]
    if found is not None:
        cells = [str(found[name]) for name in ("a", "b", "matched")]
        head = ["found by A", "by B", "by both", "agreement (F1)"]
        note = f"Events match by label and a temporal overlap (IoU) of at least {found['iou']}."
        sections.append(("Events on recordings", note, head, [[*cells, _n(found["agreement"])]]))
    flips = [
        [flip["from"], flip["to"], str(flip["frames"]), ", ".join(frame["file"] for frame in flip["worst"])]
        for flip in certificate["flips"]
    ]
    note = "" if flips else "No answer changed."
    sections.append(("Flips", note, ["A answered", "B answers", "frames", "moved most"], flips))
    return sections


def _intervals(boot: Mapping[str, Any]) -> str:
    if boot.get("reason"):
        return f"without intervals: {boot['reason']}"
    return f"intervals {boot['level']:.0%} by {boot['method']} ({boot['resamples']} resamples, seed {boot['seed']})"


def _plots(certificate: Certificate) -> Markup:
    """Draw the differences in sensitivity with their intervals, and a histogram of the largest |dp| of a frame."""
    require("matplotlib")
    from matplotlib.figure import Figure

    classes = list(certificate["per_class"].items())[::-1]
    figure = Figure(figsize=(10, 1.6 + 0.3 * len(classes)), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.axvspan(-1, 1, color="#e8f0ea")
    left.axvline(0, color="#888", linewidth=0.8)
    for row, (_, entry) in enumerate(classes):
        colour = _COLOURS.get(entry["verdict"], "#335c9e")
        change = entry["sensitivity"]
        if change["interval"] is not None:
            left.plot([100 * edge for edge in change["interval"]], [row, row], color=colour, linewidth=2)
        if change["delta"] is not None:
            left.plot([100 * change["delta"]], [row], "o", color=colour)
    left.set_yticks(range(len(classes)), [key for key, _ in classes])
    left.set_ylim(-0.6, len(classes) - 0.4)
    left.set_xlabel("sensitivity, B less A, points (shaded: within 1)")
    histogram = certificate["dp_histogram"]
    names = [f"< {edge:g}" for edge in histogram["edges"][1:-1]] + ["<= 1"]
    right.bar(range(len(names)), histogram["frames"], color="#335c9e")
    right.set_yscale("symlog", linthresh=1)
    right.set_xticks(range(len(names)), names, rotation=60, ha="right")
    right.set_xlabel("largest |dp| of a frame")
    right.set_ylabel("frames")
    return inline_svg(figure)


def _figure(figure: Mapping[str, Any]) -> list[str]:
    low_high = figure["interval"]
    span = "-" if low_high is None else f"{low_high[0]:.4f} to {low_high[1]:.4f}"
    return [*(_n(figure[side]) for side in ("a", "b", "delta")), span]


def _n(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}" if 0 < abs(value) < 1e-3 else f"{value:.4f}"


def _escaped(rows: Rows) -> list[list[str]]:
    return [[cell.replace("|", "\\|") for cell in row] for row in rows]
