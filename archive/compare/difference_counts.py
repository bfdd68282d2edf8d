"""Count the differences of two models by class, site and capsule type, with intervals by bootstrap over recordings.

The recordings of one patient are not independent, so they are drawn together where the list names patients.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.evaluation.classification import interval, resample_videos

from .suggestion_matching import SuggestionMatch

__all__ = [
    "LEAST_UNITS",
    "RecordingCounts",
    "count_matches",
    "describe_figure",
    "describe_strata",
    "resample_sums",
    "spread_change",
]

Floats = npt.NDArray[np.float64]

LEAST_UNITS = 5
"""The fewest recordings (or patients) for an interval: fewer have too few different resamples."""

# The counts of a class. Those of the old model's suggestions count by its label, those of the new one's by its label.
COUNTS = (
    "old",
    "new",
    "same_label",
    "only_old",
    "only_new",
    "covered_old",
    "covered_new",
    "relabelled",
    "moved",
    "reordered",
)
_Z = 1.959964  # standard normal, 97.5 %
# Numbers held at once in a chunk of resamples: 64 MB.
_CHUNK = 8_000_000


@dataclass(frozen=True)
class RecordingCounts:
    """The counts of one recording.

    Attributes:
        unit: the unit of the bootstrap: a patient or a recording.
        site, capsule_type: as the list of recordings has them; None where it says nothing.
        frames: number of container frames.
        by_label: the counts of ``COUNTS`` by label.
    """

    unit: str
    site: str | None
    capsule_type: str | None
    frames: int
    by_label: Mapping[str, Counter[str]]

    def total(self, name: str) -> int:
        """Return a count over all labels."""
        return sum(counts[name] for counts in self.by_label.values())


def count_matches(matches: Iterable[SuggestionMatch]) -> dict[str, Counter[str]]:
    """Return the counts of a recording by label."""
    found: dict[str, Counter[str]] = {}

    def add(label: str, *names: str) -> None:
        found.setdefault(label, Counter()).update(names)

    for match in matches:
        kinds = match.kinds
        if match.old is not None:
            add(match.old.label, "old")
        if match.new is not None:
            add(match.new.label, "new")
        if match.old is None and match.new is not None:
            add(match.new.label, *kinds)
        elif match.old is not None and match.new is None:
            add(match.old.label, *kinds)
        elif match.old is not None:
            changes = {"label": "relabelled", "time": "moved", "rank": "reordered"}
            add(match.old.label, *(changes[kind] for kind in kinds))
            if "label" not in kinds:
                add(match.old.label, "same_label")
    return found


def describe_strata(recordings: Sequence[RecordingCounts], *, resamples: int, seed: int) -> dict[str, Any]:
    """Return the figures over all recordings, and by class, site and capsule type.

    Returns:
        ``overall``, and lists ``by_label``, ``by_site`` and ``by_capsule_type``, sorted by name with null last. Each
        entry has ``recordings``, ``units``, ``frames``, the counts of ``COUNTS``; and the figures
        ``old_per_1000_frames``, ``new_per_1000_frames`` (suggestions), ``change_per_1000_frames``, ``rise`` (of the
        number of suggestions, as a share of the old number), ``places_lost`` (share of the old suggestions whose
        place the new model does not show), ``places_added`` (share of the new suggestions whose place the old model
        does not show), each ``{value, interval}`` with None where it is undefined.
    """
    labels = sorted({label for one in recordings for label in one.by_label})
    document: dict[str, Any] = {"overall": _entry(recordings, None, resamples, seed)}
    document["by_label"] = [
        {"label": label, **_entry(recordings, label, resamples, seed)} for label in labels
    ]
    for name in ("site", "capsule_type"):
        values = sorted({getattr(one, name) for one in recordings}, key=lambda value: (value is None, value))
        if values == [None]:  # the list of recordings says nothing
            values = []
        document[f"by_{name}"] = [
            {
                name: value,
                **_entry([one for one in recordings if getattr(one, name) == value], None, resamples, seed),
            }
            for value in values
        ]
    return document


def resample_sums(units: Sequence[str], columns: Floats, *, resamples: int, seed: int) -> Floats | None:
    """Return the sums of columns over resampled units.

    Args:
        units: the unit of each of N recordings.
        columns: float (N, C).
        resamples: R, the number of resamples.
        seed: of the drawing.

    Returns:
        float (R, C); None if there are fewer than ``LEAST_UNITS`` units, or no resamples are wanted.
    """
    distinct = sorted(set(units))
    if len(distinct) < LEAST_UNITS or resamples < 1:
        return None
    at = np.searchsorted(np.array(distinct), np.array(units))
    sums = np.zeros((len(distinct), columns.shape[1]))
    np.add.at(sums, at, columns)
    return np.concatenate(list(_draw(distinct, sums, resamples, seed)))


def _draw(units: Sequence[str], sums: Floats, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield the resampled sums in chunks whose weights fit into memory."""
    size = max(1, _CHUNK // len(units))
    for number, first in enumerate(range(0, resamples, size)):
        count = min(size, resamples - first)
        drawn = resample_videos(units, resamples=count, seed=seed + number)
        assert drawn is not None  # there are at least ``LEAST_UNITS`` units
        yield drawn.counts @ sums


def _entry(
    recordings: Sequence[RecordingCounts], label: str | None, resamples: int, seed: int
) -> dict[str, Any]:
    """Return the counts and figures of some recordings, of one label or of all."""

    def count(one: RecordingCounts, name: str) -> int:
        return one.total(name) if label is None else one.by_label.get(label, Counter())[name]

    rows = np.array(
        [[one.frames, *(count(one, name) for name in COUNTS)] for one in recordings], np.float64
    ).reshape(len(recordings), 1 + len(COUNTS))
    units = [one.unit for one in recordings]
    totals = rows.sum(axis=0)
    drawn = resample_sums(units, rows, resamples=resamples, seed=seed)
    figures = _figures(totals[None])
    spread = {} if drawn is None else _figures(drawn)
    counts = dict(zip(COUNTS, map(int, totals[1:]), strict=True))
    least = {
        "places_lost": _wilson(counts["only_old"], counts["old"]),
        "places_added": _wilson(counts["only_new"], counts["new"]),
        "rise": spread_change(counts["new"] - counts["old"], counts["old"]),
        "change_per_1000_frames": spread_change(counts["new"] - counts["old"], float(totals[0]) / 1000),
    }
    return {
        "recordings": len(recordings),
        "units": len(set(units)),
        "frames": int(totals[0]),
        **counts,
        **{
            name: describe_figure(float(value[0]), spread.get(name), least.get(name))
            for name, value in figures.items()
        },
    }


def describe_figure(
    value: float, spread: Floats | None, least: tuple[float, float] | None = None
) -> dict[str, Any]:
    """Return a figure and its interval as JSON.

    Args:
        value: the figure; NaN where it is undefined.
        spread: the resampled figures; None without resamples.
        least: an interval that takes the cases as independent. The wider of the two ends counts, because a bootstrap
            in which nothing happens has no width. Without it, such a bootstrap gives no interval.
    """
    if not np.isfinite(value):
        return {"value": None, "interval": None}
    found = None if spread is None else interval(spread)
    if found is not None and least is not None:
        found = [min(found[0], least[0]), max(found[1], least[1])]
    elif found is not None and found[0] == found[1]:
        found = None
    return {"value": value, "interval": found}


def spread_change(change: int, per: float) -> tuple[float, float] | None:
    """Return the least 95 % interval of a change of a number of suggestions, divided by ``per``; None if that is 0.

    The bootstrap knows how much the change differs between recordings. It has no width if all change alike, and if
    nothing changes at all. So one suggestion is added to those that come and go, as Agresti and Min add one to the
    pairs that differ (Stat. Med. 2005): a count of one has a standard deviation of one.
    """
    return ((change - _Z) / per, (change + _Z) / per) if per else None


def _wilson(hits: int, cases: int) -> tuple[float, float] | None:
    """Return Wilson's 95 % interval of a share (Wilson, JASA 1927); None without a case."""
    if not cases:
        return None
    share, z2 = hits / cases, _Z**2
    centre = (share + z2 / (2 * cases)) / (1 + z2 / cases)
    half = _Z * math.sqrt(share * (1 - share) / cases + z2 / (4 * cases * cases)) / (1 + z2 / cases)
    return max(0.0, centre - half), min(1.0, centre + half)


def _figures(sums: Floats) -> dict[str, Floats]:
    """Return the figures of rows of sums, (R, 1 + counts); NaN where undefined."""
    frames = sums[:, 0]
    held = {name: sums[:, 1 + at] for at, name in enumerate(COUNTS)}
    with np.errstate(divide="ignore", invalid="ignore"):
        figures = {
            "old_per_1000_frames": 1000 * held["old"] / frames,
            "new_per_1000_frames": 1000 * held["new"] / frames,
            "change_per_1000_frames": 1000 * (held["new"] - held["old"]) / frames,
            "rise": held["new"] / held["old"] - 1,
            "places_lost": held["only_old"] / held["old"],
            "places_added": held["only_new"] / held["new"],
        }
    # A share of nothing is undefined; infinite values come from a division by 0 too.
    return {name: np.where(np.isfinite(value), value, np.nan) for name, value in figures.items()}
