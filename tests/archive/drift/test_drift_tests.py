"""The stability index, the tests over recordings, and their correction; how often chance gives an alarm."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from capsule_edge.archive.drift import (
    DriftOptions,
    RecordingMeasures,
    adjust_holm,
    bootstrap_test,
    check_drift,
    drift_check,
    drift_tests,
    permutation_test,
    reference_of_archive,
    stability_index,
)
from capsule_edge.archive.drift.drift_tests import _sum_places
from capsule_edge.archive.drift.reference_measures import group_units

ARCHIVE = {"kind": "archive", "name": "x", "sha256": "0" * 64}


def made_recordings(
    rng: np.random.Generator, count: int, *, colour: float = 45.0, erosion: float = 0.02
) -> Iterator[RecordingMeasures]:
    """Recordings whose frames are near copies: they differ between recordings, and hardly within one."""
    for number in range(count):
        own = rng.normal(colour, 3)
        share = min(0.9, rng.gamma(0.5, erosion / 0.5))
        labels = Counter(rng.choice(["normal", "erosion"], size=500, p=[1 - share, share]).tolist())
        yield RecordingMeasures(
            f"recording {number}",
            "Köln",
            "2026-11",
            500,
            {
                "colour": rng.normal(own, 0.3, 64),
                "sharpness": rng.normal(8 + rng.normal(0, 1), 0.2, 64),
                "scores": rng.uniform(0, 1, rng.integers(0, 5)),
            },
            {"label_shares": labels, "size": Counter(["224x224"])},
        )


def alarms(document: dict) -> set[str]:
    return {alarm["measure"] for alarm in document["alarms"]}


def test_the_index_is_the_one_of_the_textbook() -> None:
    a, b = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.4, 0.2])
    expected = -0.1 * math.log(0.4 / 0.5) + 0.1 * math.log(0.4 / 0.3)
    assert stability_index(a, b) == pytest.approx(expected)
    assert stability_index(a, a) == 0
    # An empty bin makes it large, and not infinite.
    assert 0.2 < stability_index(np.array([1.0, 0.0]), np.array([0.9, 0.1])) < 1


def test_holm_is_the_one_of_the_paper() -> None:
    assert adjust_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust_holm([0.9, 0.9]) == [1.0, 1.0]
    assert adjust_holm([]) == []


def test_without_a_difference_the_p_values_of_permutations_are_even() -> None:
    """Under the null hypothesis the p-value is uniform: the share at most 0.1 is 0.1 within four standard errors."""
    rng = np.random.default_rng(3)
    p_values = []
    for seed in range(300):
        groups = [rng.dirichlet([0.4, 0.4, 0.4], size=size) for size in (14, 11)]
        p_values.append(permutation_test(*groups, ordered=bool(seed % 2), permutations=199, seed=seed))
    share = np.mean(np.array(p_values) <= 0.1)
    assert abs(share - 0.1) < 4 * math.sqrt(0.09 / 300)


def test_a_shift_of_all_recordings_is_found_and_the_least_p_value_is_reached() -> None:
    rng = np.random.default_rng(4)
    one, other = rng.dirichlet([8, 1, 1], size=12), rng.dirichlet([1, 1, 8], size=12)
    assert permutation_test(one, other, ordered=True, permutations=999, seed=0) == 1 / 1000
    weights = np.ones(12)
    found = bootstrap_test(one.mean(axis=0), 12, other, weights, ordered=True, permutations=9999, seed=0)
    assert found < 0.001
    same = bootstrap_test(other.mean(axis=0), 12, other, weights, ordered=True, permutations=999, seed=0)
    assert same == 1.0


def test_one_long_recording_does_not_prove_a_drift() -> None:
    """Its frames are near copies. It has most of the weight, so the test sees about one recording."""
    rng = np.random.default_rng(5)
    found = rng.dirichlet([5, 5], size=12)
    found[0] = [0.0, 1.0]
    weights = np.r_[10_000.0, np.full(11, 10.0)]
    p = bootstrap_test(np.array([0.5, 0.5]), 25, found, weights, ordered=False, permutations=1999, seed=0)
    assert p > 0.05


def test_chance_gives_few_alarms() -> None:
    """Two draws of the same kind: at most 5 % of the checks give an alarm. 12 or more of 100 have a chance of 0.4 %."""
    rng = np.random.default_rng(6)
    count = 0
    for seed in range(100):
        reference = reference_of_archive(made_recordings(rng, 20))
        held = list(made_recordings(rng, 15))
        options = DriftOptions(permutations=499, seed=seed)
        count += check_drift(held, reference, origin=ARCHIVE, options=options)["alarm"]
    assert count < 12


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_drift_is_found_and_named(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    reference = reference_of_archive(made_recordings(rng, 25))
    options = DriftOptions(permutations=999, seed=seed)
    tinted = list(made_recordings(rng, 15, colour=55))
    assert alarms(check_drift(tinted, reference, origin=ARCHIVE, options=options)) == {"colour"}
    mixed = list(made_recordings(rng, 15, erosion=0.3))
    assert alarms(check_drift(mixed, reference, origin=ARCHIVE, options=options)) == {"label_shares"}
    large = list(made_recordings(rng, 15))
    for one in large:
        one.counts["size"] = Counter(["512x512"])
    document = check_drift(large, reference, origin=ARCHIVE, options=options)
    assert alarms(document) == {"size"}
    # The new size is of no bin of the reference.
    assert "the share of other is 100.0 %" in document["alarms"][0]["message"]


def test_nothing_is_said_of_few_recordings_or_patients() -> None:
    rng = np.random.default_rng(7)
    reference = reference_of_archive(made_recordings(rng, 25))
    few = check_drift(list(made_recordings(rng, 9, colour=60)), reference, origin=ARCHIVE)
    assert (few["alarm"], few["tests"]) == (False, 0)
    reasons = {entry["measure"]: entry["reason"] for entry in few["groups"][0]["measures"]}
    assert reasons["colour"] == "the group has 9 recordings or patients with this measure, needed are 10"
    assert reasons["familiarity"] == "the reference does not have this measure"
    # Thirty recordings of three patients are three.
    patients = list(made_recordings(rng, 30, colour=60))
    for number, one in enumerate(patients):
        one.unit = f"patient {number % 3}"
    assert check_drift(patients, reference, origin=ARCHIVE)["tests"] == 0
    poor = reference_of_archive(made_recordings(rng, 5))
    held = list(made_recordings(rng, 20, colour=60))
    entry = check_drift(held, poor, origin=ARCHIVE)["groups"][0]["measures"][0]
    assert entry["reason"] == "the reference has 5 recordings or patients with this measure, needed are 10"


def test_a_patient_with_many_recordings_counts_once_in_the_index() -> None:
    """20 patients have one plain recording each, and one of them has 60 tinted ones more: a share of 1 in 20."""
    rng = np.random.default_rng(9)
    reference = reference_of_archive(made_recordings(rng, 25))
    held = list(made_recordings(rng, 20))
    for number, one in enumerate(held):
        one.unit = f"patient {number}"
    for one in made_recordings(rng, 60, colour=70):
        one.unit = "patient 0"
        held.append(one)
    (entry,) = (
        entry
        for entry in check_drift(held, reference, origin=ARCHIVE)["groups"][0]["measures"]
        if entry["measure"] == "colour"
    )
    assert entry["units"] == 20
    # Colours of 70 are in the last bin. By recordings, its share would be at least 60 of 80.
    assert entry["found"][-1] < 0.5
    # The figure is the one that the test compares: the mean over patients.
    measure = reference["colour"]
    histograms, _ = group_units(measure, "colour", held, by_length=False)
    assert entry["found"] == pytest.approx(histograms.mean(axis=0), abs=1e-6)
    assert entry["index"] == pytest.approx(stability_index(measure.shares, histograms.mean(axis=0)), abs=1e-6)


def test_the_places_that_are_drawn_are_distinct_and_equally_likely() -> None:
    """Each row is a unit vector, so a sum says which rows were drawn. All 6 pairs of 4 rows are equally likely."""
    sums = _sum_places(np.random.default_rng(10), np.eye(4), 2, 6000)
    assert set(np.unique(sums)) == {0.0, 1.0}
    pairs, counts = np.unique(sums, axis=0, return_counts=True)
    assert len(pairs) == 6
    # Four standard errors of a share of 1 in 6.
    assert np.abs(counts / 6000 - 1 / 6).max() < 4 * math.sqrt(5 / 36 / 6000)
    # Half of the rows, with many repetitions to be drawn again.
    half = _sum_places(np.random.default_rng(11), np.eye(40), 20, 500)
    assert (half.sum(axis=1) == 20).all()
    assert half.max() == 1


def test_drawn_places_give_the_p_values_of_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(12)
    for shift in (4, 5, 6):
        groups = rng.dirichlet([4, 4, 4], size=60), rng.dirichlet([shift, 4, 4], size=12)
        found = []
        for ranked in (1000, 1):
            monkeypatch.setattr(drift_tests, "_RANKED", ranked)
            found.append(permutation_test(*groups, ordered=True, permutations=9999, seed=1))
        # Both estimate one share: four standard errors of their difference.
        assert abs(found[0] - found[1]) < 4 * math.sqrt(2 * found[0] * (1 - found[0]) / 9999) + 1e-9


def many_groups(rng: np.random.Generator, groups: int) -> Iterator[RecordingMeasures]:
    for group in range(groups):
        for one in made_recordings(rng, 12, colour=50 if group == 3 else 45.5):
            one.site = f"site {group}"
            yield one


@pytest.mark.parametrize("kind", ["archive", "model"])
def test_a_test_that_ends_early_changes_no_alarm(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The same draws, ended early and made to the end: alarms and the p-values that can give one are the same."""
    rng = np.random.default_rng(13)
    reference = reference_of_archive(made_recordings(rng, 40))
    if kind == "model":
        reference = {name: replace(measure, histograms=None) for name, measure in reference.items()}
    held = list(many_groups(rng, 8))
    monkeypatch.setattr(drift_tests, "_LOOK", 200)
    options, origin = DriftOptions(permutations=4000), {**ARCHIVE, "kind": kind}
    short = check_drift(held, reference, origin=origin, options=options)
    monkeypatch.setitem(drift_check.MAX_P, kind, 1.0)
    whole = check_drift(held, reference, origin=origin, options=options)
    limit = {"archive": 0.05, "model": 0.02}[kind]
    entries = [
        [entry for group in document["groups"] for entry in group["measures"] if entry["p_value"] is not None]
        for document in (short, whole)
    ]
    assert len(entries[0]) == len(entries[1]) == short["tests"]
    ended = 0
    for one, other in zip(*entries, strict=True):
        assert (one["p_value"] > limit) == (other["p_value"] > limit)
        if one["p_value"] <= limit:
            assert (one["p_value"], one["p_adjusted"]) == (other["p_value"], other["p_adjusted"])
        ended += one["p_value"] != other["p_value"]
        assert one["alarm"] == (other["index"] >= drift_check.MIN_INDEX and other["p_adjusted"] <= limit)
    assert ended > 0
    assert short["alarm"]


def test_the_work_of_a_test_does_not_grow_with_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers that are drawn, of 12 recordings against 1,200 and 12,000: those of the group alone."""
    counts = []
    for size in (1_200, 12_000):
        drawn = []

        class Counting(np.random.Generator):
            def integers(self, *arguments, size=None, held=drawn, **options):
                held.append(int(np.prod(size)))
                return super().integers(*arguments, size=size, **options)

            def random(self, *arguments, **options):
                pytest.fail("all recordings are ranked")

        rng = np.random.default_rng(14)
        groups = rng.dirichlet([4, 4, 4], size=size), rng.dirichlet([4, 4, 4], size=12)
        with monkeypatch.context() as counted:
            counted.setattr(np.random, "default_rng", lambda seed: Counting(np.random.PCG64(seed)))
            permutation_test(*groups, ordered=True, permutations=2000, seed=0)
        counts.append(sum(drawn))
    assert max(counts) < 1.1 * 12 * 2000


def test_many_groups_get_enough_permutations_for_an_alarm() -> None:
    """15 groups of at least 4 measures are 60 tests: with few permutations, no adjusted p-value could be small."""
    rng = np.random.default_rng(8)
    reference = reference_of_archive(made_recordings(rng, 20))
    held = []
    for group in range(15):
        for one in made_recordings(rng, 10, colour=60 if group == 7 else 45):
            one.site = f"site {group}"
            held.append(one)
    document = check_drift(held, reference, origin=ARCHIVE, options=DriftOptions(permutations=99))
    assert document["permutations"] >= 100 * document["tests"]
    assert {(alarm["site"], alarm["measure"]) for alarm in document["alarms"]} == {("site 7", "colour")}
