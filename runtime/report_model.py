"""The report's account of the model: name, hash, how INT8 compares with FP32, and the thresholds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from .study import Study

__all__ = ["model_card"]


def model_card(study: Study) -> str:
    """Name, hash, parity and operating points; what was not measured is said, not left out."""
    model = study.model
    pairs = {
        "Model": f"{model.name}, version {model.version}",
        "Precision": model.precision.upper(),
        "Run by": study.backend,
        "Input": f"{model.input.size} x {model.input.size} RGB",
        "Licence": model.license,
    }
    rows = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in pairs.items())
    rows += f"<dt>SHA-256</dt><dd><code>{escape(study.model_sha256)}</code></dd>"
    rows += f"<dt>Agreement of the 8-bit model with the original</dt><dd>{_parity(model.precision, model.parity)}</dd>"
    return f'<dl class="pairs">{rows}</dl>{_operating_points(study)}'


def _parity(precision: str, parity: Mapping[str, Any] | None) -> str:
    entries = "; ".join(
        f"{name} {_value(value)}" for name, value in _flat(parity or {}) if "sha256" not in name
    )
    if entries:
        return escape(entries)
    if precision == "fp32":
        return "This is an FP32 model; there is nothing to compare."
    return (
        "<strong>Not shown.</strong> "
        "The file has no certificate that this INT8 model answers as its FP32 twin does."
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        title = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{title} ")
        elif value is None or isinstance(value, str | int | float):
            yield title, value


def _value(value: object) -> str:
    if value is None:
        return "not measured"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _operating_points(study: Study) -> str:
    head = (
        '<th scope="col">Label</th><th scope="col">Role</th><th scope="col" class="n">Threshold</th>'
        '<th scope="col" class="n">Sensitivity</th><th scope="col" class="n">Specificity</th>'
        '<th scope="col">Measured on</th>'
    )
    rows = []
    for label in study.model.labels:
        point = study.model.operating_points.get(label.key)
        cells = f'<th scope="row">{escape(label.name)}</th><td>{label.role}</td>'
        if point is None:
            text = "makes no events" if label.role != "finding" else "no operating point, makes no events"
            rows.append(
                f'<tr>{cells}<td class="n"></td><td class="n"></td><td class="n"></td><td>{text}</td></tr>'
            )
            continue
        mark = ' <span class="tag">provisional</span>' if point.provisional else ""
        rates = "".join(
            f'<td class="n">{"not measured" if rate is None else f"{rate:.3f}"}</td>'
            for rate in (point.sensitivity, point.specificity)
        )
        rows.append(
            f'<tr>{cells}<td class="n">{point.threshold:.3f}</td>{rates}'
            f"<td>{escape(point.measured_on or 'not stated')}{mark}</td></tr>"
        )
    caption = "Findings and their thresholds. Sensitivity and specificity are shares of single frames."
    if any(point.provisional for point in study.model.operating_points.values()):
        caption += " Provisional: the threshold was not set on data fit for setting it; expect it to change."
    return (
        f'<div class="scroll"><table><caption>{caption}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
