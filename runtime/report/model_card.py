"""The report's account of the model: name, hash, how INT8 compares with FP32, and the thresholds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import Any, TypeGuard

from ..inference import ModelSpec
from ..study import Study

__all__ = ["model_card"]

# The gates of ``evaluation.certificate`` as a physician reads them.
_GATES = {
    "agreement": "share of frames with the same label",
    "macro_f1_loss": "mean accuracy over all labels (macro-F1)",
}


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
    rows += f"<dt>Agreement of the 8-bit model with the original</dt><dd>{_parity(model)}</dd>"
    return f'<dl class="pairs">{rows}</dl>{_operating_points(study)}'


def _parity(model: ModelSpec) -> str:
    """How the 8-bit file compares with its original, in sentences; the figures are the certificate's (HTML)."""
    if model.precision == "fp32":
        return "This is the full-precision model itself; there is nothing to compare."
    shipping = model.certificates.get("shipping")
    if shipping is None:
        return (
            "<strong>Not shown.</strong> The file has no certificate that this 8-bit model answers as the "
            "full-precision model does."
        )
    data = _mapping(shipping.get("data"))
    frames, videos, same = data.get("frames"), data.get("videos"), shipping.get("agreement")
    words = []
    if _is_number(same) and _is_number(frames):
        of = f" of {videos:,} videos" if _is_number(videos) else ""
        # Cut, not rounded: a share that missed its gate by little must not read as if it had not.
        share = math.floor(1000 * same) / 10
        words.append(f"Both give the same label on {share:.1f} % of {frames:,} frames{of}.")
    failed, undecided = (_gates(model, shipping.get(name)) for name in ("failed", "undecided"))
    verdict = shipping.get("verdict")
    if verdict == "pass":
        words.append("The comparison passed all that was demanded of it.")
    if failed:
        words.append(f"<strong>Not as demanded:</strong> {failed}.")
    if undecided:
        words.append(f"Not decided, for want of frames or videos that show it: {undecided}.")
    if verdict not in ("pass", "fail") and not undecided:
        words.append("The comparison was not decided.")
    return " ".join(words)


def _gates(model: ModelSpec, gates: object) -> str:
    """The names of a certificate's gates as a reader says them; sensitivities of many findings as one (HTML)."""
    names, losses = {label.key: label.name for label in model.labels}, []
    parts = []
    for gate in gates if isinstance(gates, list | tuple) else ():
        name, _, key = str(gate).partition(".")
        if name == "sensitivity_loss":
            losses.append(names.get(key, key))
        else:
            parts.append(_GATES.get(name, name.replace("_", " ")))
    if losses:
        parts.append(f"sensitivity for {', '.join(losses)}")
    return escape("; ".join(parts))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


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
