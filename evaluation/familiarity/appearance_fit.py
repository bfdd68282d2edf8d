"""Fit the measure ``appearance``, and choose its threshold on frames of videos that the fit has not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import APPEARANCE, AppearanceParameters, FamiliarityRule
from capsule_edge.runtime.preprocessing import AppearanceDistance, describe_appearance

from .disturbances import DISTURBANCES, Disturbance

__all__ = [
    "MOST",
    "AppearanceFit",
    "FoldRows",
    "choose_threshold",
    "count_by_class",
    "fit_appearance",
    "fit_rule",
]

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
FoldRows = Sequence[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]

MOST = 0.02
"""Largest share of the frames of any finding class that may be set aside."""
# The covariance is mixed with so much of the identity: two statistics of nearly the same meaning would otherwise make
# their difference count without bound.
_SHRINKAGE = 0.02
_DIGITS = 6
# A recorder that exports in real time repeats each picture up to 30 times (30 frames a second of a capsule that takes
# one). A still picture coded by x264 at crf 21 to 35 changed its mean colour by at most .18 levels. In the ``train``
# recordings no more than 7 successive frames came that close to each other.
_FROZEN_FRAMES, _FROZEN_LEVELS = 32, 0.2


@dataclass(frozen=True)
class AppearanceFit:
    """A rule, and what it does to frames of videos that its fit had not seen.

    Attributes:
        rule: The rule, fitted to all frames.
        distances: float64 (N,), the distance of each frame by a fit without its video.
        classes: The frames, the frames set aside and their share by label key.
        disturbances: The share of disturbed frames that is set aside, 0..1, by name.
    """

    rule: FamiliarityRule
    distances: Floats
    classes: Mapping[str, Mapping[str, float]]
    disturbances: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return the two tables, JSON-ready."""
        expected = {each.name: each.expected for each in DISTURBANCES}
        return {
            "classes": dict(self.classes),
            "disturbances": {
                name: {"expected": expected.get(name), "set_aside": share}
                for name, share in self.disturbances.items()
            },
        }


def fit_appearance(statistics: Floats) -> AppearanceParameters:
    """Return the parameters of the measure, rounded to six digits.

    Args:
        statistics: float64 (N, statistics), rows of ``describe_appearance``.

    Raises:
        InputError: There are too few rows, or a statistic is the same in all of them.
    """
    count, size = statistics.shape
    if count < 10 * size:
        raise InputError(
            f"{count} frames are too few to fit {size} statistics of them, at least {10 * size} are needed"
        )
    mean, deviation = statistics.mean(axis=0), statistics.std(axis=0)
    if not deviation.all():
        name = APPEARANCE[int(np.argmin(deviation))]
        raise InputError(
            f"the statistic {name!r} is the same in all {count} frames", hint="fit on more and other frames"
        )
    scaled = (statistics - mean) / deviation
    covariance = (1 - _SHRINKAGE) * np.cov(scaled.T, bias=True) + _SHRINKAGE * np.eye(size)
    # Rows of the inverse Cholesky factor, whose product with its own transpose is the inverse covariance.
    whitening = np.linalg.inv(np.linalg.cholesky(covariance)) / deviation
    return AppearanceParameters(
        APPEARANCE,
        tuple(_short(value) for value in mean),
        tuple(tuple(_short(value) for value in row) for row in whitening),
        _FROZEN_FRAMES,
        _FROZEN_LEVELS,
    )


def choose_threshold(
    distances: Floats, labels: Sequence[str], findings: Sequence[str], *, most: float = MOST
) -> float:
    """Return the smallest threshold that sets aside at most the share ``most`` of the frames of every finding.

    Args:
        distances: float64 (N,).
        labels: The label key of each frame.
        findings: The label keys of the findings; one without a frame is left out.
        most: A share, 0 up to 1.

    Raises:
        InputError: No frame shows a finding.
    """
    keys = np.array(labels)
    limits = []
    for finding in findings:
        own = np.sort(distances[keys == finding])[::-1]
        if len(own):
            limits.append(float(own[min(int(most * len(own)), len(own) - 1)]))
    if not limits:
        raise InputError("no frame shows a finding, so no threshold can be chosen")
    return max(limits)


def fit_rule(
    statistics: Floats,
    labels: Sequence[str],
    findings: Sequence[str],
    fold_rows: FoldRows,
    *,
    most: float = MOST,
    drawn: Mapping[int, Pixels] | None = None,
    disturbances: Sequence[Disturbance] = DISTURBANCES,
) -> AppearanceFit:
    """Fit the measure to all frames, and choose its threshold on the distances of frames by fits without their video.

    Args:
        statistics: float64 (N, statistics), rows of ``describe_appearance``.
        labels: The label key of each frame.
        findings: The label keys of the findings.
        fold_rows: For each fold the rows to fit to and the rows to measure.
        most: The largest share of the frames of a finding that may be set aside.
        drawn: Model inputs by row, uint8 RGB (size, size, 3), to measure the disturbances on.
        disturbances: The disturbances to measure.

    Raises:
        InputError: There are too few frames, or no frame shows a finding.
    """
    distances = np.full(len(statistics), np.nan)
    measures = []
    for rows, held in fold_rows:
        measures.append(_measure(fit_appearance(statistics[rows])))
        distances[held] = measures[-1].of_statistics(statistics[held])
    threshold = choose_threshold(distances, labels, findings, most=most)
    return AppearanceFit(
        FamiliarityRule("appearance", threshold, fit_appearance(statistics)),
        distances,
        count_by_class(labels, distances > threshold),
        _disturbed(measures, fold_rows, threshold, drawn or {}, disturbances),
    )


def count_by_class(labels: Sequence[str], beyond: npt.NDArray[np.bool_]) -> dict[str, dict[str, float]]:
    """Return ``frames``, ``set_aside`` and ``share`` by label key.

    Args:
        labels: The label key of each frame.
        beyond: bool (N,), whether the frame is set aside.
    """
    keys = np.array(labels)
    rows = {str(key): beyond[keys == key] for key in np.unique(keys)}
    return {
        key: {"frames": len(own), "set_aside": int(own.sum()), "share": float(own.mean())}
        for key, own in rows.items()
    }


def _disturbed(
    measures: Sequence[AppearanceDistance],
    fold_rows: FoldRows,
    threshold: float,
    drawn: Mapping[int, Pixels],
    disturbances: Sequence[Disturbance],
) -> dict[str, float]:
    """Return the share of disturbed frames beyond the threshold; each is measured by a fit without its video."""
    shares = {}
    for disturbance in disturbances if drawn else ():
        beyond = 0
        for measure, (_, held) in zip(measures, fold_rows, strict=True):
            frames = [drawn[row] for row in held.tolist() if row in drawn]
            if frames:
                statistics = describe_appearance(disturbance.apply(np.stack(frames)))
                beyond += int((measure.of_statistics(statistics) > threshold).sum())
        shares[disturbance.name] = beyond / len(drawn)
    return shares


def _measure(parameters: AppearanceParameters) -> AppearanceDistance:
    return AppearanceDistance(FamiliarityRule("appearance", 0.0, parameters))


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
