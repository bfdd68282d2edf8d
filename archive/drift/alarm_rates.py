"""Measure how often ``archive drift`` gives an alarm by chance, and whether it finds shifts that were planted.

    python -m capsule_edge.archive.drift.alarm_rates DIR [--model standard] [--checks 400] [--planted 50]

DIR is an archive whose recordings are still there. For each check its recordings are divided into two random halves;
one is the reference and the other is tested. So every alarm is false. Then shifts are planted in the tested half: a
bluish *tint* and a *blur* of the model's input, and *labels*: 15 % of its normal frames get the most frequent label
of a finding. Each is done twice, with the recordings of the reference known (``archive``), and with their total alone
(``model``, as in a model file). The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import CapsuleEdgeError
from capsule_edge.runtime.inference import ModelSpec, find_model, open_model

from .drift_check import DriftOptions, check_drift
from .input_samples import InputSample, measure_frames
from .recording_measures import ArchiveMeasures, RecordingMeasures, load_measures
from .reference_measures import ReferenceMeasure, group_units, reference_of_archive

__all__ = ["measure_alarm_rates"]

Pixels = npt.NDArray[np.uint8]

_KINDS = ("archive", "model")
_PERMUTATIONS = 1999
_MOVED = 0.15


def measure_alarm_rates(
    measures: ArchiveMeasures, spec: ModelSpec, *, checks: int, planted: int
) -> dict[str, Any]:
    """Return the number of checks with an alarm, without a shift and with planted ones.

    Args:
        measures: of the archive.
        spec: the model that read it.
        checks: number of checks of random halves.
        planted: number of checks with each planted shift.
    """
    samples: dict[str, dict[str, InputSample]] = {name: {} for name in _SHIFTS}
    for task in measures.tasks:
        plain = measure_frames(spec, task)
        measures.recordings[task.key].add_sample(plain)
        for name, shift in _SHIFTS.items():
            samples[name][task.key] = measure_frames(spec, task, shift)
    document: dict[str, Any] = {"recordings": len(measures.recordings), "checks": checks, "planted": planted}
    for kind in _KINDS:
        rows = {"none": _count(measures, kind, checks, lambda _, one: one)}
        for name, of_key in samples.items():
            rows[name] = _count(measures, kind, planted, _resampler(of_key))
        rows["labels"] = _count(measures, kind, planted, _relabeller(measures))
        document[kind] = rows
    return document


def _tint(pixels: Pixels) -> Pixels:
    tinted = pixels.astype(np.float32) * np.array([0.9, 1.0, 1.3], np.float32)
    return np.clip(tinted, 0, 255).astype(np.uint8)


def _blur(pixels: Pixels) -> Pixels:
    return np.stack([np.asarray(cv2.GaussianBlur(each, (0, 0), 1.5), np.uint8) for each in pixels])


_SHIFTS: Mapping[str, Callable[[Pixels], Pixels]] = {"tint": _tint, "blur": _blur}


def _resampler(
    of_key: Mapping[str, InputSample],
) -> Callable[[str, RecordingMeasures], RecordingMeasures]:
    def shift(key: str, one: RecordingMeasures) -> RecordingMeasures:
        one.add_sample(of_key[key])
        return one

    return shift


def _relabeller(measures: ArchiveMeasures) -> Callable[[str, RecordingMeasures], RecordingMeasures]:
    total: Counter[str] = Counter()
    for each in measures.recordings.values():
        total.update(each.counts.get("label_shares", Counter()))
    label = next((label for label, _ in total.most_common() if label != "normal"), "other")

    def shift(_: str, one: RecordingMeasures) -> RecordingMeasures:
        labels = one.counts.get("label_shares", Counter())
        moved = int(_MOVED * labels["normal"])
        labels.update({"normal": -moved, label: moved})
        return one

    return shift


def _count(
    measures: ArchiveMeasures,
    kind: str,
    checks: int,
    shift: Callable[[str, RecordingMeasures], RecordingMeasures],
) -> dict[str, Any]:
    """Return how many checks gave an alarm, and how often each measure did."""
    keys = list(measures.recordings)
    alarms, by_measure = 0, Counter[str]()
    for seed in range(checks):
        order = np.random.default_rng(seed).permutation(len(keys)).tolist()
        half = len(keys) // 2
        before = [measures.recordings[keys[at]] for at in order[:half]]
        after = [shift(keys[at], deepcopy(measures.recordings[keys[at]])) for at in order[half:]]
        # One group, whatever the sites and months are.
        after = [replace(one, site=None, month=None) for one in after]
        reference = reference_of_archive(before)
        if kind == "model":
            reference = _total_alone(reference, before)
        found = check_drift(
            after,
            reference,
            origin={"kind": kind, "name": "", "sha256": ""},
            options=DriftOptions(permutations=_PERMUTATIONS, seed=seed),
        )
        alarms += bool(found["alarm"])
        by_measure.update(alarm["measure"] for alarm in found["alarms"])
    return {"checks": checks, "alarms": alarms, "by_measure": dict(by_measure.most_common())}


def _total_alone(
    reference: Mapping[str, ReferenceMeasure], recordings: Sequence[RecordingMeasures]
) -> dict[str, ReferenceMeasure]:
    """Return a reference as a model file has it: the total of its recordings, by their length."""
    totals = {}
    for name, measure in reference.items():
        histograms, weights = group_units(measure, name, recordings, by_length=True)
        shares = (histograms * weights[:, None]).sum(axis=0) / weights.sum()
        totals[name] = replace(measure, shares=shares, histograms=None)
    return totals


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archive", metavar="DIR", type=Path, help="the archive")
    parser.add_argument("--model", default="standard", help="model that read it  [default: standard]")
    parser.add_argument("--checks", type=int, default=400, help="random halves  [default: 400]")
    parser.add_argument(
        "--planted", type=int, default=50, help="checks with each planted shift  [default: 50]"
    )
    options = parser.parse_args()
    try:
        backend = open_model(find_model(options.model), threads=1)
        measures = load_measures(str(options.archive), model_sha256=backend.sha256)
        document = measure_alarm_rates(measures, backend.spec, checks=options.checks, planted=options.planted)
    except CapsuleEdgeError as error:
        sys.exit(f"error: {error}")
    for kind in _KINDS:
        for name, row in document[kind].items():
            print(
                f"{kind:8} {name:8} alarms in {row['alarms']} of {row['checks']} checks {row['by_measure']}"
            )
    print(json.dumps(document))


if __name__ == "__main__":
    main()
