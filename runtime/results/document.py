"""By which rules frames became events, and what the labels of the roles ``landmark`` and ``quality`` say.

As ``study.json`` has it. Where the model has no label of a role nothing is said at all: ``assessed`` is false and
the rest null.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..events import locate_events, median_frame_distance
from ..inference import Role
from ..study import Study, columns
from .rounding import rounded

__all__ = ["landmarks_document", "quality_document", "reduced_view", "rules_document"]


def rules_document(study: Study) -> dict[str, Any]:
    """``rules`` of ``study.json``: the capture rate and the thresholds with which frames became events."""
    source, model = study.source, study.model
    distance_s = median_frame_distance(study.frames)
    fps: float | None
    if source.capture_fps is not None:
        origin, fps = "given", source.capture_fps
    elif source.time_kind == "playback":
        origin, fps = "assumed", model.events.assumed_capture_fps
    else:
        origin, fps = "file", None if not distance_s else 1 / distance_s
    points = {key: model.operating_points.get(key) for key in model.keys}
    return {
        "capture_fps": rounded(fps),
        "capture_fps_from": origin,
        "smoothing_s": rounded(model.events.smoothing_s),
        "max_gap_s": rounded(model.events.max_gap_s),
        "merge_s": rounded(model.events.merge_s),
        "min_frames": model.events.min_frames,
        "release": rounded(model.events.release),
        "thresholds": {
            key: None if point is None else rounded(point.threshold) for key, point in points.items()
        },
    }


def landmarks_document(study: Study) -> dict[str, Any]:
    """``landmarks`` of ``study.json``: what the model's labels saw, the marks, and what follows from them."""
    found = locate_events(study)
    columns = study.model.index_of("landmark")
    return {
        "assessed": bool(columns),
        "labels": _labels(study, "landmark") if columns else None,
        "marks": [
            {"name": mark.name, "time_s": rounded(mark.time_s), "source": mark.source, "label": mark.label}
            for mark in found.marks
        ],
        "transit": {
            "gastric_s": rounded(found.gastric_s),
            "gastric_from": found.gastric_from,
            "small_bowel_s": rounded(found.small_bowel_s),
            "colon_s": rounded(found.colon_s),
            "unknown_for_lack_of": found.transit_unknown,
        },
        "positions": [
            {"event": place.event, "segment": place.segment, "share": rounded(place.share)}
            for place in found.positions
        ]
        if found.marks
        else None,
    }


def quality_document(study: Study) -> dict[str, Any]:
    """``quality`` of ``study.json``: each label, and the frames on which any of them reduces the view."""
    if not study.model.index_of("quality"):
        return {"assessed": False, "labels": None, "reduced_frames": None, "reduced_share": None}
    reduced = reduced_view(study)
    return {
        "assessed": True,
        "labels": _labels(study, "quality"),
        "reduced_frames": None if reduced is None else reduced[0],
        "reduced_share": None if reduced is None else rounded(reduced[0] / reduced[1]),
    }


def reduced_view(study: Study) -> tuple[int, int] | None:
    """Frames with any quality label at or above its operating point, and frames answered; None where unknown."""
    spec = study.model
    points = {
        column: spec.operating_points[spec.keys[column]].threshold
        for column in spec.index_of("quality")
        if spec.keys[column] in spec.operating_points
    }
    _, values = _answers(study)
    if not points or not len(values):
        return None
    seen = np.any([values[:, column] >= threshold for column, threshold in points.items()], axis=0)
    return int(seen.sum()), len(values)


def _answers(study: Study) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Times (n,) and probabilities (n, labels) of the frames that have an answer."""
    every = columns(study.frames)
    used = every.answered
    if not used.any():
        return np.empty(0), np.empty((0, len(study.model.labels)))
    # As they are written, with six decimals: float32 holds 0.7 as 0.69999999.
    values = every.probabilities[used].astype(np.float64)
    return every.times_s[used], np.round(values, 6, out=values)


def _labels(study: Study, role: Role) -> list[dict[str, Any]]:
    """Frames at or above the operating point of each label of a role.

    A label without an operating point, or a recording without a classified frame, has null: nothing was
    measured.
    """
    times_s, values = _answers(study)
    labels = []
    for column in study.model.index_of(role):
        key = study.model.labels[column].key
        point = study.model.operating_points.get(key)
        measured = point is not None and len(times_s)
        seen = times_s[values[:, column] >= point.threshold] if measured and point else times_s[:0]
        labels.append(
            {
                "label": key,
                "threshold": None if point is None else rounded(point.threshold),
                "frames": len(seen) if measured else None,
                "share": rounded(len(seen) / len(times_s)) if measured else None,
                "first_s": rounded(float(seen[0])) if len(seen) else None,
                "last_s": rounded(float(seen[-1])) if len(seen) else None,
            }
        )
    return labels
