"""Measure the events of a recording, and turn the measures of an event into its score.

The score is the estimated probability that the event is right, which means that at least half of its frames show its
label. Its weights are fitted on recordings that the model had not seen and travel in the model file.

A measure uses the frames of the event that have an answer. Probabilities are rounded to six decimals, as in
``frames.csv``, so the measures can be computed from that file too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..inference import MEASURES, ModelSpec, SuggestionWeights, most_probable
from ..study import Columns, Event, FrameRecord, columns

__all__ = ["EventMeasures", "feature_distance", "measure_events", "score_event"]

Floats = npt.NDArray[np.float64]

_DECIMALS = 6
# The smallest probability that six decimals tell from 0; in logarithms a 0 counts as this.
_LEAST = 1e-6
# Log-odds end here: closer to 0 or 1 the mean of a few frames is not known.
_SURE = 1e-4
# Sums beyond this give the same six decimals as the sum itself.
_LARGEST_SUM = 50.0


@dataclass(frozen=True)
class EventMeasures:
    """The measures of one event.

    Attributes:
        event: the event.
        mean_p: mean probability of its label over its frames, 0..1.
        values: number by measure (``MEASURES``): ``mean``, the log-odds of ``mean_p``; ``peak``, the log-odds of the
            highest probability; ``frames``, the logarithm of the number of frames; ``top_share``, the share of frames
            on which its label is the most probable one, 0..1; ``margin``, the mean logarithm of its probability over
            that of the most probable other label; ``abnormal``, the log-odds of not being normal, from the mean
            probability of the normal labels.
        features: mean ``features`` of the frames, without their mean over the labels, float64 (labels,).
        begin_s: start of the event, seconds of capture time.
        end_s: end of the event, exclusive, seconds of capture time.
    """

    event: Event
    mean_p: float
    values: Mapping[str, float]
    features: Floats
    begin_s: float
    end_s: float


def measure_events(
    events: Sequence[Event], frames: Sequence[FrameRecord], spec: ModelSpec, *, scale: float
) -> list[EventMeasures]:
    """Return the measures of each event, in the order of the events.

    Args:
        events: of one recording.
        frames: all its container frames, in presentation order.
        spec: description of the model that answered the frames.
        scale: seconds of capture time in one second of container time (``capture_scale``).
    """
    every = columns(frames)
    # Frames that were set aside make no event, so they say nothing of its worth either.
    evidence = every.evidence
    return [_measure(event, every, evidence, spec, scale) for event in events]


def _measure(
    event: Event, every: Columns, evidence: npt.NDArray[np.bool_], spec: ModelSpec, scale: float
) -> EventMeasures:
    column = spec.keys.index(event.label)
    rows = _answers(event, every, evidence, column, len(spec.keys))
    logs = np.log(np.maximum(rows, _LEAST))
    mine = rows[:, column]
    mean_p = float(mine.mean())
    others = np.delete(logs, column, axis=1)
    rival = others.max(axis=1) if others.shape[1] else np.zeros(len(rows))
    normal = float(rows[:, list(spec.index_of("normal"))].sum(axis=1).mean())
    values = {
        "mean": _log_odds(mean_p),
        "peak": _log_odds(float(mine.max())),
        "frames": math.log(len(rows)),
        "top_share": float((most_probable(rows) == column).mean()),
        "margin": float((logs[:, column] - rival).mean()),
        "abnormal": _log_odds(1 - normal),
    }
    # The mean of ``features`` over the image is the logits without the bias. The logarithm of the softmax is the
    # logits over the temperature, less a number that is the same for all labels. So the difference of two events in
    # ``features``, the mean over the labels taken off, is the difference of these rows: the bias cancels out.
    features = spec.temperature * (logs - logs.mean(axis=1, keepdims=True)).mean(axis=0)
    return EventMeasures(event, mean_p, values, features, event.start_s * scale, event.end_s * scale)


def _answers(
    event: Event, every: Columns, evidence: npt.NDArray[np.bool_], column: int, labels: int
) -> Floats:
    """Return the probabilities of the event's frames that are answered and not set aside, float64 (frames, labels)."""
    first = int(np.searchsorted(every.indices, event.start_index, side="left"))
    after = int(np.searchsorted(every.indices, event.end_index, side="right"))
    rows = every.probabilities[first:after][evidence[first:after]].astype(np.float64)
    if not len(rows):  # the frames of this study were not kept: only the event's own peak is known
        rows = np.full((1, labels), (1 - event.peak_p) / max(1, labels - 1))
        rows[0, column] = event.peak_p
    return np.round(rows, _DECIMALS)


def _log_odds(p: float) -> float:
    p = min(max(p, _SURE), 1 - _SURE)
    return math.log(p / (1 - p))


def score_event(measured: EventMeasures, weights: SuggestionWeights | None) -> float:
    """Return the score of an event, 0..1, rounded to six decimals.

    Args:
        measured: the measures of the event.
        weights: of the model file; None: the score is the mean probability of the event's label.
    """
    if weights is None:
        return round(measured.mean_p, _DECIMALS)
    total = weights.intercept + weights.labels.get(measured.event.label, 0.0)
    for name in MEASURES:
        total += weights.measures.get(name, 0.0) * measured.values[name]
    total = min(max(total, -_LARGEST_SUM), _LARGEST_SUM)
    return round(1 / (1 + math.exp(-total)), _DECIMALS)


def feature_distance(features: Floats, others: Floats) -> Floats:
    """Return how far the mean ``features`` of an event lie from those of others, root mean square over the labels.

    Args:
        features: of the event, float64 (labels,).
        others: of n events, float64 (n, labels).

    Returns:
        float64 (n,).
    """
    return np.asarray(np.sqrt(((others - features) ** 2).mean(axis=1)), np.float64)
