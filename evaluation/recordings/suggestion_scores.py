"""Fit the score of suggestions, and measure what a score is worth.

An event is right when at least half of its frames carry its label in the truth (``findings``), and a suggestion is
right when its leading event is. The score is a logistic regression of that on the measures of an event, with a ridge
penalty on the weights and on an offset for each label. Everything that is reported about scores uses scores out of
fold: the events of each recording are scored with weights that were fitted on the other recordings.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.events import (
    EventGroup,
    EventMeasures,
    find_events,
    group_events,
    measure_events,
    score_event,
)
from capsule_edge.runtime.inference import (
    MEASURES,
    ModelSpec,
    PrecisionAtScore,
    SuggestionGrouping,
    SuggestionWeights,
)
from capsule_edge.runtime.study import FrameRecord

from .findings import FoundEvent, TrueFinding, findings, is_right
from .recording_scores import RecordingAnswers, read_answers

__all__ = [
    "FEWER",
    "RANKS",
    "ScoredRecording",
    "choose_grouping",
    "count_cards",
    "fit_weights",
    "log_loss",
    "precision_table",
    "rank_rows",
    "read_recording",
    "score_out_of_fold",
    "scored_with",
]

Floats = npt.NDArray[np.float64]

FEWER = 0.3
"""The default for the share of cards that grouping should save."""
RANKS = (1, 3, 5, 10)
"""A reader who opens this many suggestions of a recording: does one of them show what it says?"""

# The grid of grouping rules. The first value of ``within_s`` switches the grouping of similar places off.
_OVERLAPS = (0.25, 0.5, 0.75, 1.0)
_WITHIN_S = (0.0, 60.0, 120.0, 180.0, 300.0)
_DISTANCES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0)
# A bin of the precision table has at least this many suggestions: its interval is some 40 points wide even so.
_LEAST_IN_BIN = 20
_MOST_BINS = 6
_RESAMPLES = 2000
_Z = 1.959964  # standard normal, 97.5 %


@dataclass(frozen=True)
class ScoredRecording:
    """The events that a model finds in one recording, judged by the truth.

    Attributes:
        recording: The name of the recording.
        findings: The true findings.
        events: The measures of the events; frame indices are rows of the truth.
        right: bool (events,), whether each event is right.
        scores: The score of each event, 0..1, float64 (events,); NaN until it is scored.
        video_id: The video that the recording belongs to.
    """

    recording: str
    findings: Sequence[TrueFinding]
    events: Sequence[EventMeasures]
    right: npt.NDArray[np.bool_]
    scores: Floats
    video_id: str

    def hit_by(self, places: Sequence[int]) -> set[TrueFinding]:
        """Return the findings that the events at these places hit."""
        good = [self.events[at].event for at in places if self.right[at]]
        return {
            finding
            for finding in self.findings
            if any(
                event.label == finding.label
                and event.start_index <= finding.last
                and finding.first <= event.end_index
                for event in good
            )
        }


def read_recording(
    run: Path, truth: Path, spec: ModelSpec, *, capture_fps: float | None = None, video: str | None = None
) -> ScoredRecording:
    """Find the events of a recording in its ``frames.csv``, measure them, and judge them by the truth.

    Args:
        run: A ``frames.csv``, or the folder that holds it.
        truth: The truth table of the recording.
        spec: The labels, operating points and event parameters.
        capture_fps: Frames a second at which the capsule recorded; None where unknown.
        video: The id of the video that the recording belongs to; None: it is a video of its own.

    Raises:
        InputError: A file is missing or does not fit (``read_answers``).
    """
    return judge_events(read_answers(run, truth, spec, capture_fps=capture_fps, video=video), spec)


def judge_events(answers: RecordingAnswers, spec: ModelSpec) -> ScoredRecording:
    """Find, measure and judge the events of a recording whose answers are joined with the truth."""
    answered = np.zeros(len(answers.labels), bool)
    answered[answers.answered] = True
    frames = [
        FrameRecord(
            row,
            "classified" if answered[row] else "corrupt",
            time_s=float(answers.capture_s[row]) if np.isfinite(answers.capture_s[row]) else None,
            probabilities=answers.probabilities[row].astype(np.float32) if answered[row] else None,
        )
        for row in range(len(answered))
    ]
    # Times are capture time already, so the scale is 1.
    steps = np.diff(answers.capture_s[np.isfinite(answers.capture_s)])
    distance_s = float(np.median(steps)) if len(steps) else None
    events = find_events(frames, spec, median_distance_s=distance_s, time_kind="capture")
    labels = answers.labels.tolist()
    right = [
        is_right(FoundEvent(e.label, e.start_index, e.end_index, e.peak_index, e.peak_p), labels)
        for e in events
    ]
    return ScoredRecording(
        answers.recording,
        findings(labels),
        measure_events(events, frames, spec, scale=1.0),
        np.array(right, bool),
        np.full(len(events), np.nan),
        answers.video_id,
    )


def fit_weights(recordings: Sequence[ScoredRecording], spec: ModelSpec, *, ridge: float) -> SuggestionWeights:
    """Fit the weights of the score on the events of these recordings.

    The measures are scaled to a standard deviation of 1 for the penalty. The intercept has none. More evidence must
    not lower a score, so no weight of a measure is negative, but that of the number of frames.

    Args:
        recordings: The events and whether they are right.
        spec: The model, whose findings get an offset each.
        ridge: Penalty on the squared weights.

    Raises:
        InputError: The recordings have no right or no false event.
    """
    right = np.concatenate([one.right for one in recordings]) if recordings else np.zeros(0, bool)
    if not right.any() or right.all():
        raise InputError(
            f"of the {len(right)} events in {len(recordings)} recordings {int(right.sum())} are right, "
            "a score needs right and false events",
            hint="add recordings with findings, or lower the thresholds of the model",
        )
    keys = [spec.keys[column] for column in spec.index_of("finding")]
    rows = [event for one in recordings for event in one.events]
    measures = np.array([[event.values[name] for name in MEASURES] for event in rows])
    of_label = np.array([[event.event.label == key for key in keys] for event in rows], np.float64)
    centre, width = measures.mean(axis=0), measures.std(axis=0)
    width[width < 1e-9] = 1.0
    table = np.column_stack([np.ones(len(rows)), (measures - centre) / width, of_label])
    fitted = _logistic_from_zero(table, right.astype(np.float64), ridge)
    weights = fitted[1 : 1 + len(MEASURES)] / width
    return SuggestionWeights(
        _rounded(fitted[0] - weights @ centre),
        {name: _rounded(weight) for name, weight in zip(MEASURES, weights, strict=True)},
        {key: _rounded(offset) for key, offset in zip(keys, fitted[1 + len(MEASURES) :], strict=True)},
    )


def _logistic_from_zero(table: Floats, right: Floats, ridge: float) -> Floats:
    """Return the weights of a logistic regression in which the measures of evidence have no negative weight.

    The most negative weight is set to 0 and the others are fitted again, until none is negative.
    """
    evidence = [1 + at for at, name in enumerate(MEASURES) if name != "frames"]
    used = list(range(table.shape[1]))
    while True:
        weights = np.zeros(table.shape[1])
        weights[used] = _logistic(table[:, used], right, ridge)
        worst = min(evidence, key=lambda column: weights[column])
        if weights[worst] >= 0:
            return weights
        used.remove(worst)


def _rounded(value: float) -> float:
    return round(float(value), 6)


def _logistic(table: Floats, right: Floats, ridge: float) -> Floats:
    """Return the weights of a logistic regression by Newton's method; the first column has no penalty."""
    penalty = np.full(table.shape[1], ridge)
    penalty[0] = 1e-6  # keeps the intercept finite
    weights = np.zeros(table.shape[1])
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(table @ weights, -30, 30)))
        slope = table.T @ (p - right) + penalty * weights
        curvature = (table * (p * (1 - p))[:, None]).T @ table + np.diag(penalty)
        step = np.linalg.solve(curvature, slope)
        weights -= step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-9:
            break
    return weights


def scored_with(recording: ScoredRecording, weights: SuggestionWeights) -> ScoredRecording:
    """Return the recording with its events scored by these weights."""
    scores = np.array([score_event(event, weights) for event in recording.events], np.float64)
    return replace(recording, scores=scores)


def score_out_of_fold(
    recordings: Sequence[ScoredRecording], spec: ModelSpec, *, ridge: float
) -> list[ScoredRecording]:
    """Return the recordings, the events of each scored with weights fitted on the recordings of other videos.

    Raises:
        InputError: There are fewer than two videos, or the others of one have no right or no false event.
    """
    videos = {one.video_id for one in recordings}
    if len(videos) < 2:
        of = f" of one video, {min(videos)!r}," if len(recordings) > 1 else ""
        raise InputError(
            f"{len(recordings)} recordings{of} were given, leaving one out needs 2 or more",
            hint="add recordings of other videos, which the model has not seen",
        )
    weights = {
        video: fit_weights([one for one in recordings if one.video_id != video], spec, ridge=ridge)
        for video in sorted(videos)
    }
    return [scored_with(one, weights[one.video_id]) for one in recordings]


def log_loss(recordings: Sequence[ScoredRecording]) -> float:
    """Return the mean negative log-likelihood of the scores, in nats an event; lower is better."""
    right = np.concatenate([one.right for one in recordings])
    scores = np.clip(np.concatenate([one.scores for one in recordings]), 1e-6, 1 - 1e-6)
    return float(-np.mean(np.where(right, np.log(scores), np.log(1 - scores))))


def groups_of(recording: ScoredRecording, grouping: SuggestionGrouping | None) -> list[EventGroup]:
    """Return the suggestions of a recording by falling score."""
    return group_events(recording.events, recording.scores.tolist(), grouping)


def count_cards(recordings: Sequence[ScoredRecording], grouping: SuggestionGrouping | None) -> dict[str, Any]:
    """Count events and suggestions, and the findings that a false leading event hides.

    Returns:
        ``events``, ``suggestions``, ``fewer`` (the share of cards saved, None without an event), ``hit_by_events``,
        ``hit_by_suggestions`` (findings hit by a leading event, or by a similar one of its label, which the card
        shows too), ``lost`` (findings hit by an event and by no suggestion: their label is only an alternative on a
        card that another label leads), and ``lost_in``, the recordings of these.
    """
    events = suggestions = before = after = 0
    lost_in = []
    for one in recordings:
        groups = groups_of(one, grouping)
        by_events = one.hit_by(range(len(one.events)))
        by_leads = one.hit_by([at for group in groups for at in _of_leading_label(one, group)])
        events, suggestions = events + len(one.events), suggestions + len(groups)
        before, after = before + len(by_events), after + len(by_leads)
        lost_in += [one.recording] * len(by_events - by_leads)
    return {
        "events": events,
        "suggestions": suggestions,
        "fewer": 1 - suggestions / events if events else None,
        "hit_by_events": before,
        "hit_by_suggestions": after,
        "lost": len(lost_in),
        "lost_in": lost_in,
    }


def _of_leading_label(recording: ScoredRecording, group: EventGroup) -> list[int]:
    """Return the events of a suggestion that have the label of its leading event."""
    label = recording.events[group.lead].event.label
    return [at for at in group.members if recording.events[at].event.label == label]


def choose_grouping(recordings: Sequence[ScoredRecording], *, fewer: float = FEWER) -> SuggestionGrouping:
    """Return the grouping of a small grid that saves enough cards and loses the fewest hit findings.

    Of equal ones the one with the fewest cards is taken, and then the nearest to the default, in steps of the grid. If
    no grouping saves so many cards, all of the grid are candidates.

    Args:
        recordings: The events with their scores out of fold.
        fewer: Share of the cards to save, 0..1; 0 puts the findings first.
    """
    rows = []
    for overlap in _OVERLAPS:
        for within_s in _WITHIN_S:
            for distance in _DISTANCES if within_s else _DISTANCES[:1]:
                rule = SuggestionGrouping(overlap, within_s, distance)
                counts = count_cards(recordings, rule)
                saves = (counts["fewer"] or 0.0) >= fewer
                rows.append(
                    (not saves, counts["lost"], counts["suggestions"], _steps_from_default(rule), rule)
                )
    return min(rows, key=lambda row: row[:4])[4]


def _steps_from_default(rule: SuggestionGrouping) -> int:
    grid = ((_OVERLAPS, "overlap"), (_WITHIN_S, "within_s"), (_DISTANCES, "distance"))
    default = SuggestionGrouping()
    return sum(
        abs(values.index(getattr(rule, name)) - values.index(getattr(default, name))) for values, name in grid
    )


def precision_table(
    recordings: Sequence[ScoredRecording], grouping: SuggestionGrouping | None, *, seed: int = 0
) -> tuple[PrecisionAtScore, ...]:
    """Return the precision of suggestions by their score, rising with it.

    The suggestions of all recordings are sorted by score and cut into bins of equal counts. Neighbouring bins are
    joined until a higher score has a higher precision (isotonic regression). The 95 % interval is the wider of Wilson's
    and of a bootstrap over videos: suggestions of one video are not independent, and a bootstrap of a bin
    without a false suggestion has no width.

    Args:
        recordings: The events with their scores out of fold.
        grouping: The grouping of events into suggestions.
        seed: Of the bootstrap.

    Raises:
        InputError: The recordings have no event.
    """
    number = {video: at for at, video in enumerate(dict.fromkeys(one.video_id for one in recordings))}
    leads = [
        (one.scores[group.lead], bool(one.right[group.lead]), number[one.video_id])
        for one in recordings
        for group in groups_of(one, grouping)
    ]
    if not leads:
        raise InputError(f"the {len(recordings)} recordings have no event, precision cannot be measured")
    leads.sort()
    scores = np.array([lead[0] for lead in leads])
    right = np.array([lead[1] for lead in leads])
    of = np.array([lead[2] for lead in leads])
    bins = _join_bins(_cut(scores), right)
    generator = np.random.default_rng(seed)
    return tuple(
        _entry(
            0.0 if first == 0 else float(scores[first]),
            right[first:after],
            of[first:after],
            generator,
            len(number),
        )
        for first, after in bins
    )


def _cut(scores: Floats) -> list[tuple[int, int]]:
    """Cut sorted scores into bins of about equal counts; equal scores stay in one bin."""
    count = len(scores)
    bins = min(_MOST_BINS, max(1, count // _LEAST_IN_BIN))
    edges = {0, count}
    for at in range(1, bins):
        edges.add(int(np.searchsorted(scores, scores[round(at * count / bins)], side="left")))
    ordered = sorted(edges)
    return list(itertools.pairwise(ordered))


def _join_bins(bins: Sequence[tuple[int, int]], right: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Join neighbouring bins until the share of right ones rises from bin to bin (pool adjacent violators)."""
    joined: list[tuple[int, int]] = []
    for first, after in bins:
        joined.append((first, after))
        while len(joined) > 1 and _share(joined[-1], right) <= _share(joined[-2], right):
            _, end = joined.pop()
            joined[-1] = (joined[-1][0], end)
    return joined


def _share(span: tuple[int, int], right: npt.NDArray[np.bool_]) -> float:
    return float(right[span[0] : span[1]].mean())


def _entry(
    score: float,
    right: npt.NDArray[np.bool_],
    of: npt.NDArray[np.int64],
    generator: np.random.Generator,
    videos: int,
) -> PrecisionAtScore:
    """Return the precision of one bin, given the number of the video of each of its suggestions."""
    hits = np.bincount(of[right], minlength=videos).astype(np.float64)
    counts = np.bincount(of, minlength=videos).astype(np.float64)
    drawn = generator.integers(0, videos, (_RESAMPLES, videos))
    totals = counts[drawn].sum(axis=1)
    shares = hits[drawn].sum(axis=1)[totals > 0] / totals[totals > 0]
    estimate, n = float(right.mean()), len(right)
    low, high = _wilson(estimate, n)
    return PrecisionAtScore(
        round(score, 6),
        round(estimate, 6),
        round(min(low, float(np.quantile(shares, 0.025))), 6),
        round(max(high, float(np.quantile(shares, 0.975))), 6),
        n,
    )


def _wilson(share: float, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share (Wilson, JASA 1927)."""
    z2 = _Z**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z * float(np.sqrt(share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def rank_rows(
    recordings: Sequence[ScoredRecording], grouping: SuggestionGrouping | None
) -> dict[str, dict[str, int]]:
    """Count the recordings with a finding that have a right suggestion among their first 1, 3, 5 and 10.

    Returns:
        By order of looking (``suggestions``: by score; ``events_by_score`` and ``events_by_peak``: every event by
        itself, by score or highest probability) the counts by number of suggestions opened, and ``recordings``,
        the number of recordings with a finding.
    """
    with_finding = [one for one in recordings if one.findings]

    def row(order: Callable[[ScoredRecording], list[int]]) -> dict[str, int]:
        ranks = [_first_right(one, order(one)) for one in with_finding]
        return {str(first): sum(rank < first for rank in ranks) for first in RANKS}

    return {
        "suggestions": row(lambda one: [group.lead for group in groups_of(one, grouping)]),
        "events_by_score": row(lambda one: np.argsort(-one.scores, kind="stable").tolist()),
        "events_by_peak": row(
            lambda one: np.argsort([-e.event.peak_p for e in one.events], kind="stable").tolist()
        ),
        "recordings": {str(first): len(with_finding) for first in RANKS},
    }


def _first_right(recording: ScoredRecording, order: Sequence[int]) -> int:
    """Return the place of the first right event in this order, from 0; a number above all ranks without one."""
    return next((place for place, at in enumerate(order) if recording.right[at]), max(RANKS))
