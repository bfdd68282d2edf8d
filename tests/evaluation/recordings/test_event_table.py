"""The table of counts agrees with the runtime's events and the definitions of ``findings``."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from event_samples import make_noisy_answers
from study_samples import SPEC

from capsule_edge.evaluation.recordings.event_search import EventFit, read_with
from capsule_edge.evaluation.recordings.event_table import tabulate_events
from capsule_edge.evaluation.recordings.findings import count_by_label

KEYS = ("ulcer", "blood_fresh")
# More than one rule with equal smoothing, gap and release, so that runs are shared; joins by gap and by likeness.
RULES = [
    replace(SPEC.events, smoothing_s=s, max_gap_s=gap, min_frames=least, release=release, merge_s=merge)
    for s, gap, least, release, merge in product((1.0, 6.0), (1.0, 5.0), (1, 4), (0.4, 1.0), (0.0, 40.0))
]


@pytest.fixture(scope="module")
def recordings() -> list:
    return [make_noisy_answers(seed, name=f"r{seed}") for seed in range(4)]


def test_the_counts_are_those_of_the_events_of_each_recording(recordings: list) -> None:
    table = tabulate_events(SPEC, recordings, RULES, (0.1, 0.25, 0.4), KEYS)
    assert table.thresholds.tolist() == [[0.1, 0.25, 0.4, 0.5], [0.1, 0.25, 0.4, 0.6]]
    assert table.hits.shape == (len(RULES), 2, 4, 4)
    assert table.frames.tolist() == [400] * 4
    for rule, step in product(range(len(RULES)), range(4)):
        thresholds = dict(zip(KEYS, table.thresholds[:, step].tolist(), strict=True))
        for at, answers in enumerate(recordings):
            reading = read_with(SPEC, answers, EventFit(RULES[rule], thresholds))
            counts = count_by_label([reading], KEYS)
            for row, key in enumerate(KEYS):
                assert table.hits[rule, row, step, at] == counts[key]["hit"]
                assert table.right[rule, row, step, at] == counts[key]["right_events"]
                assert table.false[rule, row, step, at] == counts[key]["false_events"]
                assert table.findings[row, at] == counts[key]["findings"]
    # The samples would prove little if nothing were found or joined.
    assert table.hits.sum() > 100
    assert table.false.sum() > 100
    assert (table.false[1::2] < table.false[::2]).any()


def test_a_recording_without_an_answer_counts_its_findings_and_no_event(recordings: list) -> None:
    silent = replace(recordings[0], probabilities=recordings[0].probabilities * float("nan"))
    table = tabulate_events(SPEC, [recordings[1], silent], RULES[:2], (0.1,), KEYS)
    assert table.findings[:, 1].min() > 0
    assert table.hits[..., 1].sum() == table.false[..., 1].sum() == 0
    assert table.hits[..., 0].sum() > 0
