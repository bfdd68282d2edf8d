"""Compare the recordings of an archive with a reference, by site and month, and say where they drift.

A measure of a group gives an alarm if both hold: the stability index is at least ``MIN_INDEX``, so the shift is large;
and the test, adjusted for all tests of the check (Holm), has a p-value of at most ``MAX_P``, so chance does not explain
it. Against the reference in a model file that limit is lower, because the test then knows the spread of the group
alone. Of a group with fewer than ``MIN_UNITS`` recordings (or patients), and against such a reference, nothing is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from .drift_tests import adjust_holm, bootstrap_test, permutation_test, stability_index
from .recording_measures import MEASURES, RecordingMeasures
from .reference_measures import ReferenceMeasure, group_units

__all__ = ["MAX_P", "MIN_INDEX", "MIN_UNITS", "DriftOptions", "check_drift"]

SCHEMA = "capsule-edge/archive-drift/1"
MIN_INDEX, MIN_UNITS = 0.2, 10
MAX_P = {"archive": 0.05, "model": 0.02}

_PERMUTATIONS = 9_999
# Each test needs a p-value of MAX_P / number of tests. So many permutations for each test let it reach half of that.
_PERMUTATIONS_FOR_TEST = 100


@dataclass(frozen=True, kw_only=True)
class DriftOptions:
    """The options of a check for drift.

    Attributes:
        permutations: the fewest permutations of a test; more are made where there are many tests.
        seed: of their drawing.
    """

    permutations: int = _PERMUTATIONS
    seed: int = 0


@dataclass
class _Tested:
    """A measure of a group, on its way to a verdict."""

    entry: dict[str, Any]
    measure: ReferenceMeasure
    name: str
    histograms: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]


def check_drift(
    recordings: Sequence[RecordingMeasures],
    reference: Mapping[str, ReferenceMeasure],
    *,
    origin: Mapping[str, Any],
    options: DriftOptions | None = None,
) -> dict[str, Any]:
    """Return the drift of each group of recordings against a reference.

    Args:
        recordings: those of the archive.
        reference: by measure.
        origin: where the reference is from: ``kind`` (``model`` or ``archive``), ``name``, ``sha256``.
        options: of the tests.

    Returns:
        A JSON-ready document of ``schema/archive-drift-1.schema.json``.
    """
    options = options or DriftOptions()
    groups: dict[tuple[str | None, str | None], list[RecordingMeasures]] = {}
    for one in recordings:
        groups.setdefault((one.site, one.month), []).append(one)
    entries: list[dict[str, Any]] = []
    tested: list[_Tested] = []
    for site, month in sorted(groups, key=lambda place: [(part is None, part or "") for part in place]):
        held = groups[site, month]
        measures = [_prepare(name, held, reference.get(name), tested) for name in MEASURES]
        entries.append(
            {
                "site": site,
                "month": month,
                "recordings": len(held),
                "units": len({one.unit for one in held}),
                "measures": measures,
            }
        )
    permutations = max(options.permutations, _PERMUTATIONS_FOR_TEST * len(tested))
    max_p = MAX_P[origin["kind"]]
    _run_tests(tested, permutations, options.seed, max_p)
    alarms = [
        {
            "site": group["site"],
            "month": group["month"],
            "measure": entry["measure"],
            "message": _say(group, entry),
        }
        for group in entries
        for entry in group["measures"]
        if entry["alarm"]
    ]
    return {
        "schema": SCHEMA,
        "tool": {"name": "capsule-edge", "version": version("capsule-edge")},
        "alarm": bool(alarms),
        "alarms": alarms,
        "reference": {**origin, "measures": {name: one.units for name, one in reference.items()}},
        "rule": {"min_index": MIN_INDEX, "max_p": max_p, "min_units": MIN_UNITS, "correction": "Holm"},
        "tests": len(tested),
        "permutations": permutations,
        "seed": options.seed,
        "recordings": len(recordings),
        "groups": entries,
    }


def _prepare(
    name: str,
    recordings: Sequence[RecordingMeasures],
    measure: ReferenceMeasure | None,
    tested: list[_Tested],
) -> dict[str, Any]:
    """Return the entry of a measure, and add it to what is tested where the numbers suffice."""
    entry: dict[str, Any] = {
        "measure": name,
        "side": MEASURES[name].side,
        "units": 0,
        "index": None,
        "p_value": None,
        "p_adjusted": None,
        "alarm": False,
        "reason": None,
        "bins": [],
        "reference": [],
        "found": [],
    }
    if measure is None:
        entry["reason"] = "the reference does not have this measure"
        return entry
    by_length = measure.histograms is None
    histograms, weights = group_units(measure, name, recordings, by_length=by_length)
    entry["units"] = len(histograms)
    for count, of in ((len(histograms), "the group"), (measure.units, "the reference")):
        if count < MIN_UNITS:
            entry["reason"] = (
                f"{of} has {count} recordings or patients with this measure, needed are {MIN_UNITS}"
            )
            return entry
    # A reference in a model file counts frames; that of an archive counts each patient alike, and so does the test.
    found = (
        (histograms * weights[:, None]).sum(axis=0) / weights.sum() if by_length else histograms.mean(axis=0)
    )
    entry |= {
        "index": round(stability_index(measure.shares, found), 6),
        "bins": list(measure.bins),
        "reference": np.round(measure.shares, 6).tolist(),
        "found": np.round(found, 6).tolist(),
    }
    tested.append(_Tested(entry, measure, name, histograms, weights))
    return entry


def _run_tests(tested: Sequence[_Tested], permutations: int, seed: int, max_p: float) -> None:
    """Enter the p-values and the alarms.

    An adjusted p-value is no smaller than the p-value. So a test above ``max_p`` gives no alarm, and being larger it
    does not change the adjusted values of those below: it need not be exact.
    """
    for number, each in enumerate(tested):
        measure = each.measure
        ordered = MEASURES[each.name].numeric
        if measure.histograms is not None:
            p = permutation_test(
                measure.histograms,
                each.histograms,
                ordered=ordered,
                permutations=permutations,
                seed=seed + number,
                enough=max_p,
            )
        else:
            p = bootstrap_test(
                measure.shares,
                measure.units,
                each.histograms,
                each.weights,
                ordered=ordered,
                permutations=permutations,
                seed=seed + number,
                enough=max_p,
            )
        each.entry["p_value"] = round(p, 6)
    adjusted = adjust_holm([each.entry["p_value"] for each in tested])
    for each, p in zip(tested, adjusted, strict=True):
        each.entry["p_adjusted"] = round(p, 6)
        each.entry["alarm"] = each.entry["index"] >= MIN_INDEX and p <= max_p


def _say(group: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """Return an alarm in one sentence, with the bin that changed most."""
    changes = [new - old for old, new in zip(entry["reference"], entry["found"], strict=True)]
    at = max(range(len(changes)), key=lambda place: (round(abs(changes[place]), 6), changes[place]))
    where = f"{group['site'] or 'no site'}, {group['month'] or 'no month'}"
    return (
        f"{where}: {entry['measure'].replace('_', ' ')} has drifted (index {entry['index']:.2f}, adjusted p "
        f"{entry['p_adjusted']:.4f}, {entry['units']} recordings or patients); the share of {entry['bins'][at]} is "
        f"{100 * entry['found'][at]:.1f} %, in the reference {100 * entry['reference'][at]:.1f} %"
    )
