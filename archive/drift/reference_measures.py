"""The reference that recordings are compared with: that in a model file, or another archive.

A numeric measure has at most ten bins, each with about a tenth of the reference, as is usual for the stability index.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import ModelSpec, ReferenceHistogram

from .recording_measures import MEASURES, RecordingMeasures

__all__ = ["ReferenceMeasure", "group_units", "reference_of_archive", "reference_of_model"]

Floats = npt.NDArray[np.float64]

_BINS = 10
OTHER = "other"
"""The category of what the reference does not have."""


@dataclass(frozen=True)
class ReferenceMeasure:
    """The reference of one measure.

    Attributes:
        edges: inner edges of the bins, rising; None where the bins are categories.
        bins: names of the bins.
        shares: float (bins,), the share of each.
        units: number of patients or recordings behind it.
        histograms: float (units, bins), of each unit; None where the reference gives the total alone.
    """

    edges: tuple[float, ...] | None
    bins: tuple[str, ...]
    shares: Floats
    units: int
    histograms: Floats | None = None

    def histogram(self, name: str, one: RecordingMeasures) -> Floats | None:
        """Return the share of a recording's values in each bin, float (bins,); None without a value."""
        counts = np.zeros(len(self.bins))
        if self.edges is not None:
            values = one.numbers.get(name)
            if values is None or not len(values):
                return None
            np.add.at(counts, np.searchsorted(self.edges, values, side="right"), 1)
        else:
            found = one.counts.get(name)
            if not found:
                return None
            place = {bin_name: at for at, bin_name in enumerate(self.bins)}
            for category, count in found.items():
                counts[place.get(category, len(self.bins) - 1)] += count
        total = counts.sum()
        return counts / total if total else None


def reference_of_model(spec: ModelSpec) -> dict[str, ReferenceMeasure]:
    """Return the reference that a model file carries.

    Raises:
        InputError: the file has none, or does not say over how many recordings it was counted.
    """
    if spec.reference is None:
        raise InputError(
            f"the model {spec.name} {spec.version} has no reference of its training recordings",
            hint="name an archive of recordings to compare with: --reference DIR",
        )
    view = spec.reference.get("field_of_view")
    if view is None or view.n < 2:
        raise InputError(
            f"the reference of the model {spec.name} {spec.version} does not say how many recordings it counts",
            hint="name an archive of recordings to compare with: --reference DIR",
        )
    # The field of view has one value a recording.
    found = {}
    for name, held in spec.reference.items():
        if held is not None and name in MEASURES and sum(held.histogram) > 0:
            found[name] = _of_histogram(held, spec.keys, view.n)
    return found


def reference_of_archive(recordings: Iterable[RecordingMeasures]) -> dict[str, ReferenceMeasure]:
    """Return the reference that other recordings give; each of them counts alike, however long it is."""
    held = list(recordings)
    found = {}
    for name, kind in MEASURES.items():
        made = _numeric(name, held) if kind.numeric else _categories(name, held)
        if made is not None:
            found[name] = made
    return found


def group_units(
    measure: ReferenceMeasure, name: str, recordings: Sequence[RecordingMeasures], *, by_length: bool
) -> tuple[Floats, Floats]:
    """Return the histogram and the weight of each patient or recording: float (units, bins) and (units,).

    Args:
        measure: gives the bins.
        name: of the measure.
        recordings: those of a group.
        by_length: weigh a recording by its number of frames, as a reference in a model file does.
    """
    sums: dict[str, Floats] = {}
    weights: dict[str, float] = {}
    for one in recordings:
        histogram = measure.histogram(name, one)
        if histogram is None:
            continue
        # The field of view has one value a recording, and a score one a suggestion.
        weight = _weight(name, one) if by_length else 1.0
        sums[one.unit] = sums.get(one.unit, np.zeros(len(histogram))) + weight * histogram
        weights[one.unit] = weights.get(one.unit, 0.0) + weight
    if not sums:
        return np.empty((0, len(measure.bins))), np.empty(0)
    weight_of = np.array([weights[unit] for unit in sums])
    return np.stack([sums[unit] for unit in sums]) / weight_of[:, None], weight_of


def _weight(name: str, one: RecordingMeasures) -> float:
    if name == "field_of_view":
        return 1.0
    return float(len(one.numbers["scores"])) if name == "scores" else float(max(1, one.frames))


def _of_histogram(held: ReferenceHistogram, keys: Sequence[str], units: int) -> ReferenceMeasure:
    counts = np.array(held.histogram, np.float64)
    if held.edges is None:
        return ReferenceMeasure(None, (*keys, OTHER), np.append(counts / counts.sum(), 0.0), units)
    joined = _join_bins(counts)
    edges = tuple(float(held.edges[at]) for at in joined[1:-1])
    shares = np.add.reduceat(counts, joined[:-1]) / counts.sum()
    return ReferenceMeasure(edges, _names(edges), shares, units)


def _join_bins(counts: Floats) -> list[int]:
    """Return the places at which bins begin when neighbours are joined until each holds about a tenth; and the end."""
    places, held, target = [0], 0.0, counts.sum() / _BINS
    for at, count in enumerate(counts.tolist()):
        if held >= target and counts[at:].sum() >= target / 2:
            places.append(at)
            held = 0.0
        held += count
    return [*places, len(counts)]


def _numeric(name: str, recordings: Sequence[RecordingMeasures]) -> ReferenceMeasure | None:
    values = [one.numbers[name] for one in recordings if len(one.numbers.get(name, ()))]
    if not values:
        return None
    # Each recording counts alike in the edges, too.
    every = np.concatenate(values)
    weights = np.concatenate([np.full(len(each), 1 / len(each)) for each in values])
    order = np.argsort(every, kind="stable")
    reached = np.cumsum(weights[order]) / weights.sum()
    at = [int(np.searchsorted(reached, share)) for share in np.arange(1, _BINS) / _BINS]
    edges = tuple(sorted({float(every[order][min(place, len(every) - 1)]) for place in at}))
    return _of_units(name, recordings, edges, _names(edges))


def _categories(name: str, recordings: Sequence[RecordingMeasures]) -> ReferenceMeasure | None:
    total: Counter[str] = Counter()
    for one in recordings:
        total.update(one.counts.get(name, Counter()))
    return _of_units(name, recordings, None, (*sorted(total), OTHER)) if total else None


def _of_units(
    name: str,
    recordings: Sequence[RecordingMeasures],
    edges: tuple[float, ...] | None,
    bins: tuple[str, ...],
) -> ReferenceMeasure:
    empty = ReferenceMeasure(edges, bins, np.zeros(len(bins)), 0)
    histograms, _ = group_units(empty, name, recordings, by_length=False)
    return ReferenceMeasure(edges, bins, histograms.mean(axis=0), len(histograms), histograms)


def _names(edges: Sequence[float]) -> tuple[str, ...]:
    if not edges:
        return ("all",)
    between = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
    return (f"below {edges[0]:g}", *between, f"from {edges[-1]:g}")
