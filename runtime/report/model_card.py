"""The model in the report: its name and hash, how INT8 compares with FP32, and how well it sees.

A finding that the model hardly ever marks is not excluded by the absence of events, and the report says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from ..inference import Label, ModelSpec, OperatingPoint, SuggestionPrecision
from ..study import Study

__all__ = ["ModelCard", "Remark", "describe_model", "model_card"]

# Marked on fewer than one in five of the single frames that show it: an event needs several in a row.
_HARDLY = 0.2
# The gates of ``evaluation.parity`` in a physician's words.
_GATES = {
    "agreement": "share of frames with the same label",
    "macro_f1_loss": "mean accuracy over all labels (macro-F1)",
}


@dataclass(frozen=True)
class Remark:
    """One or more sentences; ``strong`` is their beginning, in bold."""

    text: str
    strong: str = ""


@dataclass(frozen=True)
class ModelCard:
    """The model as the report shows it.

    ``pairs`` are (name, value); ``parity`` compares INT8 with FP32; ``blind_spots`` are the findings that are hardly
    seen or were never measured; ``sensitivities`` are (finding, frames marked of a hundred), the best first;
    ``operating_points`` has None for a label without one.
    """

    pairs: list[tuple[str, str]]
    parity: list[Remark]
    blind_spots: list[Remark]
    sensitivities: list[tuple[str, str]]
    operating_points: list[tuple[Label, OperatingPoint | None]]

    @property
    def provisional(self) -> bool:
        """True if any threshold was not set on data fit for setting it."""
        return any(point is not None and point.provisional for _, point in self.operating_points)


def model_card(study: Study) -> ModelCard:
    """Return the account of the model that read a study."""
    return describe_model(study.model, study.backend)


def describe_model(model: ModelSpec, backend: str) -> ModelCard:
    """Return the model's account; what was not measured is said, not left out.

    Args:
        model: the description in the model file.
        backend: name of the engine that ran it.
    """
    pairs = {
        "Model": f"{model.name}, version {model.version}",
        "Precision": model.precision.upper(),
        "Run by": backend,
        "Input": f"{model.input.size} x {model.input.size} RGB",
        "Licence": model.license,
    }
    if "data_license" in model.provenance:
        pairs["Licence of the training data"] = str(model.provenance["data_license"])
    if model.suggestions and model.suggestions.weights and model.suggestions.precision:
        pairs["Suggestions that were right"] = _precision(model.suggestions)
    if model.unknown_patients:
        pairs["Measured on"] = model.unknown_patients
    return ModelCard(
        pairs=list(pairs.items()),
        parity=_parity(model),
        blind_spots=_blind_spots(model),
        sensitivities=_sensitivities(model),
        operating_points=[(label, model.operating_points.get(label.key)) for label in model.labels],
    )


def _precision(rule: SuggestionPrecision) -> str:
    """Return the measured precision of suggestions by score, as a sentence."""
    parts = [
        f"{100 * row.estimate:.0f} % from a score of {row.score:.2f} ({100 * row.low:.0f} to {100 * row.high:.0f} %, "
        f"n = {row.n:,})"
        for row in rule.precision
    ]
    return f"{'; '.join(parts)}. Measured on {rule.measured_on}."


def _parity(model: ModelSpec) -> list[Remark]:
    """Say how the INT8 file compares with its FP32 original; the figures are the certificate's."""
    if model.precision == "fp32":
        return [Remark("This is the full-precision model itself; there is nothing to compare.")]
    shipping = model.certificates.get("shipping")
    if shipping is None:
        text = "The file has no certificate that this 8-bit model answers as the full-precision model does."
        return [Remark(text, strong="Not shown.")]
    remarks = [*_agreement(shipping)]
    failed, undecided = (_gate_names(model, shipping.get(name)) for name in ("failed", "undecided"))
    verdict = shipping.get("verdict")
    if verdict == "pass":
        remarks.append(Remark("The comparison passed all that was demanded of it."))
    if failed:
        remarks.append(Remark(f"{failed}.", strong="Not as demanded:"))
    if undecided:
        remarks.append(Remark(f"Not decided, for want of frames or videos that show it: {undecided}."))
    if verdict not in ("pass", "fail") and not undecided:
        remarks.append(Remark("The comparison was not decided."))
    return remarks


def _agreement(shipping: Mapping[str, Any]) -> list[Remark]:
    """Say on how many frames both models give the same label; nothing where the certificate does not say."""
    data, same = shipping.get("data"), shipping.get("agreement")
    counts: Mapping[str, Any] = data if isinstance(data, Mapping) else {}
    frames, videos = counts.get("frames"), counts.get("videos")
    if not (_is_number(same) and _is_number(frames)):
        return []
    of = (
        ""
        if not _is_number(videos)
        else f" of {videos:,} videos"
        if videos
        else ", whose patients are unknown"
    )
    # Rounded down: a share just below its gate must not read as if it had reached it.
    share = math.floor(1000 * same) / 10
    return [Remark(f"Both give the same label on {share:.1f} % of {frames:,} frames{of}.")]


def _gate_names(model: ModelSpec, gates: object) -> str:
    """Name the gates of a certificate in a reader's words, the sensitivities of all findings as one."""
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
    return "; ".join(parts)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _blind_spots(model: ModelSpec) -> list[Remark]:
    """Name the findings that are hardly seen, and those whose sensitivity was never measured."""
    measured = [(label.name, point.sensitivity) for label, point in _looked_for(model)]
    hardly = [name for name, sensitivity in measured if sensitivity is not None and sensitivity < _HARDLY]
    unknown = [name for name, sensitivity in measured if sensitivity is None]
    remarks = []
    if hardly:
        text = (
            "Fewer than one in five single frames that show it are marked. "
            "That none was marked says next to nothing."
        )
        remarks.append(Remark(text, strong=f"Hardly seen by this model: {', '.join(hardly)}."))
    if unknown:
        remarks.append(Remark(f"How well this model sees it was never measured: {', '.join(unknown)}."))
    return remarks


def _sensitivities(model: ModelSpec) -> list[tuple[str, str]]:
    """Say of each finding how many of a hundred frames that show it are marked."""
    found = sorted(_looked_for(model), key=lambda item: -(item[1].sensitivity or 0.0))
    return [
        (label.name, "not measured" if point.sensitivity is None else _of_hundred(point.sensitivity))
        for label, point in found
    ]


def _looked_for(model: ModelSpec) -> list[tuple[Label, OperatingPoint]]:
    return [
        (label, model.operating_points[label.key])
        for label in model.labels
        if label.role == "finding" and label.key in model.operating_points
    ]


def _of_hundred(sensitivity: float) -> str:
    count = 100 * sensitivity
    text = "fewer than 1" if 0 < count < 1 else f"{count:.0f}"
    return f"{text} of 100"
