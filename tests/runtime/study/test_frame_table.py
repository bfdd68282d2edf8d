"""A ``FrameTable`` equals the records that were put into it, and so do its columns."""

from __future__ import annotations

import math

import numpy as np
import pytest

from capsule_edge.runtime.study import STATUSES, FrameRecord, FrameTable, columns


def table() -> FrameTable:
    """Return a table of five frames, the last of which is missing."""
    statuses = np.array([STATUSES.index("unread")] * 4 + [STATUSES.index("missing")], np.int8)
    made = FrameTable(
        count=5, labels=2, pts=[10, 20, 30, 40], times_s=[0.0, 0.5, 1.0, 1.5], statuses=statuses
    )
    made.settle(0, "classified", probabilities=np.array([0.25, 0.75], np.float32))
    made.settle(1, "duplicate", duplicate_of=0, probabilities=np.array([0.25, 0.75], np.float32))
    made.settle(2, "corrupt", detail="depends_on_damaged")
    return made


def same(one: FrameRecord, other: FrameRecord) -> bool:
    names = ("index", "status", "pts", "time_s", "duplicate_of", "detail")
    assert [getattr(one, name) for name in names] == [getattr(other, name) for name in names]
    if one.probabilities is None or other.probabilities is None:
        return one.probabilities is other.probabilities
    return bool((one.probabilities == other.probabilities).all())


@pytest.mark.quick
def test_a_table_is_a_sequence_of_records() -> None:
    answer = np.array([0.25, 0.75], np.float32)
    wanted = [
        FrameRecord(0, "classified", 10, 0.0, probabilities=answer),
        FrameRecord(1, "duplicate", 20, 0.5, duplicate_of=0, probabilities=answer),
        FrameRecord(2, "corrupt", 30, 1.0, detail="depends_on_damaged"),
        FrameRecord(3, "unread", 40, 1.5),
        FrameRecord(4, "missing"),
    ]
    found = table()
    assert len(found) == 5
    assert all(map(same, found, wanted))
    assert same(found[-1], wanted[-1])
    assert all(map(same, found[1:3], wanted[1:3]))
    assert type(found[0].pts) is int
    assert type(found[0].time_s) is float
    with pytest.raises(IndexError):
        found[5]


@pytest.mark.quick
def test_the_columns_of_a_table_equal_those_of_its_records() -> None:
    found = table()
    found.settle(3, "classified", probabilities=np.array([math.nan, 1.0], np.float32))
    ours, theirs = columns(found), columns(list(found))
    for name in ("indices", "times_s", "given", "status", "timed", "answered"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    np.testing.assert_array_equal(ours.probabilities[ours.given], theirs.probabilities[theirs.given])
    # A frame with NaN probabilities counts as not answered, and so does a frame without a time.
    assert ours.answered.tolist() == [True, True, False, False, False]
    assert ours.timed.tolist() == [True, True, True, True, False]


@pytest.mark.quick
def test_frames_without_probabilities_have_columns() -> None:
    found = columns([FrameRecord(0, "missing"), FrameRecord(1, "unread", 5, 0.5)])
    assert found.probabilities.shape == (2, 0)
    assert not found.answered.any()
    assert len(columns([]).indices) == 0
