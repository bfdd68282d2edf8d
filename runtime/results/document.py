"""Make parts of ``study.json``: rules for events, landmarks, quality of the view, and frames that were set aside.

If the model has no label of a role, ``assessed`` is false and the values are null: no label is no evidence of absence.
"""

from __future__ import annotations

import math
from typing import Any

from ..events import locate_events, median_frame_distance
from ..inference import Role
from ..study import Study, answered_values, count_set_aside, reduced_view

__all__ = ["familiarity_document", "landmarks_document", "quality_document", "rounded", "rules_document"]


def rules_document(study: Study) -> dict[str, Any]:
    """Return ``rules`` of ``study.json``: the capture rate and the thresholds by which frames became events."""
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
    """Return ``landmarks`` of ``study.json``: labels of that role, marks, transit times, positions of events."""
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
    """Return ``quality`` of ``study.json``: the labels of that role, and the number of frames with a reduced view."""
    if not study.model.index_of("quality"):
        return {"assessed": False, "labels": None, "reduced_frames": None, "reduced_share": None}
    reduced = reduced_view(study)
    return {
        "assessed": True,
        "labels": _labels(study, "quality"),
        "reduced_frames": None if reduced is None else reduced[0],
        "reduced_share": None if reduced is None else rounded(reduced[0] / reduced[1]),
    }


def familiarity_document(study: Study) -> dict[str, Any] | None:
    """Return ``familiarity`` of ``study.json``; None where the model cannot tell unfamiliar frames."""
    rule, counted = study.model.familiarity, count_set_aside(study)
    if rule is None or counted is None:
        return None
    set_aside, share = counted
    return {
        "measure": rule.measure,
        "threshold": rounded(rule.threshold),
        "set_aside": set_aside,
        "share": rounded(share),
    }


def _labels(study: Study, role: Role) -> list[dict[str, Any]]:
    """Count the frames at or above the operating point of each label of a role.

    The counts are None for a label without an operating point, and in a recording without an answered frame.
    """
    times_s, values = answered_values(study)
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


def rounded(value: float | None) -> float | None:
    """Return a number rounded to six decimals: microseconds for times, and finer than the noise of probabilities.

    NaN and infinity become None, and minus zero becomes zero, because JSON readers treat them differently.
    """
    return None if value is None or not math.isfinite(value) else round(float(value), 6) + 0.0
