"""Define and parse the records that ``capsule-edge/model/2`` adds to a ``ModelSpec``.

Each is optional in a model file: what a file does not state is None.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from ..errors import ModelError

__all__ = [
    "APPEARANCE",
    "MEASURES",
    "AppearanceParameters",
    "FamiliarityRule",
    "HeldOutBy",
    "HeldOutUnit",
    "PrecisionAtScore",
    "ReferenceHistogram",
    "SuggestionGrouping",
    "SuggestionPrecision",
    "SuggestionWeights",
    "parse_records",
]

HeldOutUnit = Literal["patient", "video", "frame", "unknown"]
APPEARANCE = (
    *("mean_red", "mean_green", "mean_blue"),
    *("deviation_red", "deviation_green", "deviation_blue", "deviation_red_green", "deviation_green_blue"),
    *("share_of_red", "share_of_blue"),
    *("dark", "white", "grey", "pale", "cool", "vivid", "edges", "hard_edges"),
    "contrast",
)
"""The statistics of ``preprocessing.describe_appearance``, in order: the measure ``appearance`` is made of them."""
# The measures of an event that its score is made of; ``runtime.events`` defines and computes them.
MEASURES = ("mean", "peak", "frames", "top_share", "margin", "abnormal")
# A sum of weighted measures stays finite.
_LARGEST_WEIGHT = 1e6
REFERENCES = ("colour", "sharpness", "field_of_view", "label_shares", "scores", "familiarity")


@dataclass(frozen=True)
class HeldOutBy:
    """The unit that was kept whole when frames were held out to set temperature and operating points.

    Attributes:
        by: ``patient``; ``video``; ``frame``, if frames of one patient may lie on both sides; or ``unknown``.
    """

    by: HeldOutUnit


@dataclass(frozen=True)
class AppearanceParameters:
    """The parameters of the measure ``appearance``, fitted to the training frames.

    Attributes:
        statistics: names of the statistics, in order: ``APPEARANCE``.
        mean: mean of each statistic over the training frames.
        whitening: a row for each direction. The distance of a frame is the root of the sum of squares of the products
            of these rows with its statistics less ``mean``.
        frozen_frames: a picture that repeats for this many frames is frozen; later repeats are set aside.
        frozen_levels: a picture repeats while no channel of its mean colour differs by more, levels of 255.
    """

    statistics: tuple[str, ...]
    mean: tuple[float, ...]
    whitening: tuple[tuple[float, ...], ...]
    frozen_frames: int
    frozen_levels: float


@dataclass(frozen=True)
class FamiliarityRule:
    """The rule that recognises a frame which resembles nothing in the training data.

    Attributes:
        measure: name of the measure: ``appearance``.
        threshold: frames at a greater distance are set aside.
        parameters: parameters of the measure.
    """

    measure: str
    threshold: float
    parameters: AppearanceParameters


@dataclass(frozen=True)
class ReferenceHistogram:
    """The distribution of one measure over the recordings of the training data.

    Attributes:
        edges: edges of the bins, rising, one more than bins; None where each label has a bin, in their order.
        histogram: count or share of each bin, 0 or more.
        n: number of values counted.
    """

    edges: tuple[float, ...] | None
    histogram: tuple[float, ...]
    n: int


@dataclass(frozen=True)
class PrecisionAtScore:
    """The share of suggestions that were right, among those from ``score`` up to the next entry's.

    Attributes:
        score: lowest score of these suggestions.
        estimate: share that was right, 0..1.
        low: lower end of its 95 % interval, 0..1.
        high: upper end of its 95 % interval, 0..1.
        n: number of suggestions counted.
    """

    score: float
    estimate: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class SuggestionWeights:
    """The logistic model that turns the measures of an event into its score.

    The score is 1 / (1 + exp(-t)), where t is ``intercept`` plus the offset of the event's label plus the sum of each
    measure times its weight.

    Attributes:
        intercept: the constant.
        measures: weight by measure (``MEASURES``); a measure that is not there has weight 0.
        labels: offset by label key; a label that is not there has offset 0.
    """

    intercept: float
    measures: Mapping[str, float]
    labels: Mapping[str, float]


@dataclass(frozen=True)
class SuggestionGrouping:
    """The rules by which several events become one suggestion.

    Attributes:
        overlap: events of different labels are one suggestion if they share at least this share of the frames of the
            shorter one, above 0 and up to 1.
        within_s: events of one label that look alike are one suggestion if they lie at most this far from its leading
            event, seconds of capture time; 0 switches it off.
        distance: two events look alike if their mean ``features`` differ by at most this (root mean square over the
            labels, each event's mean over the labels taken off).
    """

    overlap: float = 0.25
    within_s: float = 300.0
    distance: float = 0.7


@dataclass(frozen=True)
class SuggestionPrecision:
    """The scores of suggestions, and their measured precision.

    Attributes:
        precision: entries by rising score.
        n: number of suggestions counted in all.
        measured_on: text that names the recordings.
        weights: the score of an event; None: it is the mean probability, and the precision of suggestions is unknown.
        grouping: how events are grouped; None for the defaults of ``SuggestionGrouping``.
    """

    precision: tuple[PrecisionAtScore, ...]
    n: int
    measured_on: str
    weights: SuggestionWeights | None = None
    grouping: SuggestionGrouping | None = None

    def at(self, score: float) -> PrecisionAtScore | None:
        """Return the entry of a score: the last one that begins at or below it; None if there is none."""
        return next((entry for entry in reversed(self.precision) if entry.score <= score), None)


def parse_records(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the records of version 2 in the JSON of a model file, by the names of ``ModelSpec``'s attributes.

    Raises:
        ModelError: a record does not fit ``capsule-edge/model/2``; the message names it.
    """
    readers = {
        "familiarity": _familiarity,
        "reference": _reference,
        "suggestions": _suggestions,
        "held_out": _held_out,
    }
    return {
        name: None if document.get(name) is None else read(_object(document[name], name))
        for name, read in readers.items()
    }


def _held_out(entry: Mapping[str, Any]) -> HeldOutBy:
    by = entry.get("by")
    if by not in get_args(HeldOutUnit):
        allowed = ", ".join(get_args(HeldOutUnit))
        raise ModelError(f"the model's held_out.by is {by!r}, allowed is one of {allowed}")
    return HeldOutBy(cast(HeldOutUnit, by))


def _familiarity(entry: Mapping[str, Any]) -> FamiliarityRule:
    where = "familiarity"
    measure = _text(entry, "measure", where)
    if measure != "appearance":
        raise ModelError(
            f"the model's familiarity.measure is {measure!r}, this capsule-edge knows 'appearance'",
            hint="install the capsule-edge that made the model",
        )
    threshold = _not_negative(entry, "threshold", where)
    return FamiliarityRule(
        measure, threshold, _appearance(_object(entry.get("parameters"), f"{where}.parameters"))
    )


def _appearance(entry: Mapping[str, Any]) -> AppearanceParameters:
    where = "familiarity.parameters"
    names = entry.get("statistics")
    if names != list(APPEARANCE):
        raise ModelError(f"the model's {where}.statistics are {names!r}, needed are {', '.join(APPEARANCE)}")
    size = len(APPEARANCE)
    rows = entry.get("whitening")
    if not isinstance(rows, list) or len(rows) != size:
        raise ModelError(f"the model's {where}.whitening is {rows!r}, a list of {size} rows is needed")
    return AppearanceParameters(
        APPEARANCE,
        _row(entry.get("mean"), size, f"{where}.mean"),
        tuple(_row(row, size, f"{where}.whitening") for row in rows),
        _count(entry, where, "frozen_frames", least=2),
        _not_negative(entry, "frozen_levels", where),
    )


def _row(values: Any, size: int, where: str) -> tuple[float, ...]:
    row = _numbers(values, where)
    if len(row) != size:
        raise ModelError(f"the model's {where} has {len(row)} numbers, {size} are needed")
    return row


def _reference(entry: Mapping[str, Any]) -> dict[str, ReferenceHistogram | None]:
    odd = sorted(set(entry) - set(REFERENCES))
    if odd:
        raise ModelError(
            f"the model's reference has the measure {odd[0]!r}, allowed is one of {', '.join(REFERENCES)}"
        )
    return {
        name: None if entry.get(name) is None else _histogram(entry[name], f"reference.{name}")
        for name in REFERENCES
    }


def _histogram(value: Any, where: str) -> ReferenceHistogram:
    entry = _object(value, where)
    counts = _numbers(entry.get("histogram"), f"{where}.histogram")
    edges = None if entry.get("edges") is None else _numbers(entry["edges"], f"{where}.edges")
    if min(counts, default=-1.0) < 0:
        raise ModelError(f"the model's {where}.histogram is {list(counts)}, numbers of 0 or more are needed")
    if edges is not None and (
        len(edges) != len(counts) + 1 or any(b <= a for a, b in itertools.pairwise(edges))
    ):
        raise ModelError(
            f"the model's {where}.edges are {list(edges)}, {len(counts) + 1} rising numbers are needed"
        )
    return ReferenceHistogram(edges, counts, _count(entry, where))


def _suggestions(entry: Mapping[str, Any]) -> SuggestionPrecision:
    rows = entry.get("precision")
    if not isinstance(rows, list):
        raise ModelError(f"the model's suggestions.precision is {rows!r}, a list is needed")
    where = "suggestions.precision"
    table = tuple(_at_score(_object(row, where), where) for row in rows)
    scores = [row.score for row in table]
    if any(after <= before for before, after in itertools.pairwise(scores)):
        raise ModelError(f"the model's {where} has the scores {scores}, rising scores are needed")
    weights, grouping = entry.get("weights"), entry.get("grouping")
    return SuggestionPrecision(
        table,
        _count(entry, "suggestions"),
        _text(entry, "measured_on", "suggestions"),
        None if weights is None else _weights(_object(weights, "suggestions.weights")),
        None if grouping is None else _grouping(_object(grouping, "suggestions.grouping")),
    )


def _weights(entry: Mapping[str, Any]) -> SuggestionWeights:
    where = "suggestions.weights"
    _refuse_unknown(entry, ("intercept", "measures", "labels"), where)
    measures, labels = (_named_numbers(entry.get(part), f"{where}.{part}") for part in ("measures", "labels"))
    _refuse_unknown(measures, MEASURES, f"{where}.measures")
    intercept = _number(entry, "intercept", where)
    largest = max(map(abs, (intercept, *measures.values(), *labels.values())))
    if largest > _LARGEST_WEIGHT:
        raise ModelError(
            f"the model's {where} has the number {largest:g}, allowed is up to {_LARGEST_WEIGHT:g}"
        )
    return SuggestionWeights(intercept, measures, labels)


def _grouping(entry: Mapping[str, Any]) -> SuggestionGrouping:
    where = "suggestions.grouping"
    _refuse_unknown(entry, ("overlap", "within_s", "distance"), where)
    overlap, within_s, distance = (
        _number(entry, name, where) for name in ("overlap", "within_s", "distance")
    )
    if not 0 < overlap <= 1 or within_s < 0 or distance < 0:
        raise ModelError(
            f"the model's {where} has overlap {overlap:g}, within_s {within_s:g} and distance {distance:g}, allowed "
            "are an overlap above 0 and up to 1, and 0 or more"
        )
    return SuggestionGrouping(overlap, within_s, distance)


def _refuse_unknown(entry: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    odd = sorted(set(entry) - set(known))
    if odd:
        raise ModelError(f"the model's {where} has {odd[0]!r}, allowed is one of {', '.join(known)}")


def _at_score(entry: Mapping[str, Any], where: str) -> PrecisionAtScore:
    estimate, low, high = (_number(entry, name, where) for name in ("estimate", "low", "high"))
    if not all(0 <= share <= 1 for share in (estimate, low, high)):
        raise ModelError(f"the model's {where} has the shares {[estimate, low, high]}, allowed is 0 to 1")
    return PrecisionAtScore(_number(entry, "score", where), estimate, low, high, _count(entry, where))


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ModelError(f"the model's {where} is {value!r}, a JSON object is needed")
    return value


def _text(entry: Mapping[str, Any], name: str, where: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str) or not value:
        raise ModelError(f"the model's {where}.{name} is {value!r}, a non-empty text is needed")
    return value


def _number(entry: Mapping[str, Any], name: str, where: str) -> float:
    (number,) = _numbers([entry.get(name)], f"{where}.{name}")
    return number


def _not_negative(entry: Mapping[str, Any], name: str, where: str) -> float:
    number = _number(entry, name, where)
    if number < 0:
        raise ModelError(f"the model's {where}.{name} is {number}, allowed is 0 or more")
    return number


def _numbers(values: Any, where: str) -> tuple[float, ...]:
    fits = isinstance(values, list) and all(
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        for value in values
    )
    if not fits:
        raise ModelError(f"the model's {where} is {values!r}, finite numbers are needed")
    return tuple(float(value) for value in values)


def _named_numbers(value: Any, where: str) -> dict[str, float]:
    entry = _object(value, where)
    return {name: _number(entry, name, where) for name in entry}


def _count(entry: Mapping[str, Any], where: str, name: str = "n", *, least: int = 0) -> int:
    value = entry.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ModelError(
            f"the model's {where}.{name} is {value!r}, a whole number of {least} or more is needed"
        )
    return value
