"""What the model can be expected to see: a finding that it hardly ever marks is not excluded by its absence."""

from __future__ import annotations

from html import escape

from ..inference import Label, OperatingPoint
from ..study import Study

__all__ = ["blind_spots", "reach"]

# Marked on fewer than one in five of the single frames that show it: an event needs several in a row.
_HARDLY = 0.2


def blind_spots(study: Study) -> str:
    """A note on the findings that are hardly seen or were never measured; empty where there is none (HTML)."""
    measured = [(label.name, point.sensitivity) for label, point in _looked(study)]
    hardly = [name for name, sensitivity in measured if sensitivity is not None and sensitivity < _HARDLY]
    unknown = [name for name, sensitivity in measured if sensitivity is None]
    parts = []
    if hardly:
        parts.append(
            f"<strong>Hardly seen by this model: {escape(', '.join(hardly))}.</strong> Fewer than one in five single "
            "frames that show it are marked. That none was marked says next to nothing."
        )
    if unknown:
        parts.append(f"How well this model sees it was never measured: {escape(', '.join(unknown))}.")
    return f'<p class="note blind">{" ".join(parts)}</p>' if parts else ""


def reach(study: Study) -> str:
    """Findings that were looked for, with how many of a hundred frames that show them are marked (HTML)."""
    entries = []
    for label, point in sorted(_looked(study), key=lambda item: -(item[1].sensitivity or 0.0)):
        known = "not measured" if point.sensitivity is None else _of_hundred(point.sensitivity)
        entries.append(f"<li>{escape(label.name)}: {known}</li>")
    return f'<ul class="reach">{"".join(entries)}</ul>'


def _looked(study: Study) -> list[tuple[Label, OperatingPoint]]:
    model = study.model
    return [
        (label, model.operating_points[label.key])
        for label in model.labels
        if label.role == "finding" and label.key in model.operating_points
    ]


def _of_hundred(sensitivity: float) -> str:
    count = 100 * sensitivity
    text = "fewer than 1" if 0 < count < 1 else f"{count:.0f}"
    return f"{text} of 100"
