"""Findings hit, false events and the share of frames to open, against cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from capsule_edge.evaluation.recordings.findings import (
    FoundEvent,
    Reading,
    TrueFinding,
    findings,
    is_right,
    score_findings,
    share_to_open,
)
from capsule_edge.runtime.errors import InputError

pytestmark = pytest.mark.quick


def reading(
    labels: str, events: list[FoundEvent], abnormal: list[float] | None = None, name: str = "r"
) -> Reading:
    """A reading whose frames are given by letters: n normal, p polyp, u ulcer."""
    keys = [{"n": "normal", "p": "polyp", "u": "ulcer"}[letter] for letter in labels]
    scores = [float(letter != "n") for letter in labels] if abnormal is None else abnormal
    return Reading(name, keys, np.array(scores, np.float64), events)


def event(
    first: int, last: int, label: str = "polyp", score: float = 0.9, peak: int | None = None
) -> FoundEvent:
    return FoundEvent(label, first, last, first if peak is None else peak, score)


def test_a_finding_is_a_run_of_one_label() -> None:
    assert findings(reading("nppunp", []).labels) == [
        TrueFinding("polyp", 1, 2),
        TrueFinding("ulcer", 3, 3),
        TrueFinding("polyp", 5, 5),
    ]
    assert findings([]) == []


def test_an_event_is_right_if_half_of_its_frames_carry_its_label() -> None:
    labels = reading("nnnppp", []).labels
    assert is_right(event(0, 5), labels)
    assert not is_right(event(0, 4), labels)
    assert not is_right(event(3, 5, "ulcer"), labels)


def test_an_event_over_the_whole_recording_hits_nothing() -> None:
    scores = score_findings([reading("nnnnnppnnn", [event(0, 9)])])
    assert (scores["findings"], scores["hit"], scores["touched"], scores["false_events"]) == (1, 0, 1, 1)
    assert scores["false_events_per_1000_frames"] == 100.0


def test_one_event_may_hit_two_findings() -> None:
    scores = score_findings([reading("ppnpp", [event(0, 4)])])
    assert (scores["findings"], scores["hit"], scores["events"], scores["false_events"]) == (2, 2, 1, 0)


def test_a_finding_under_another_name_is_seen_and_not_hit() -> None:
    scores = score_findings([reading("nnppnn", [event(2, 3, "ulcer")])])
    assert (scores["hit"], scores["seen"], scores["false_events"]) == (0, 1, 1)
    counts = {
        label: {name: count for name, count in row.items() if count}
        for label, row in scores["by_label"].items()
    }
    assert counts == {
        "polyp": {"findings": 1, "seen": 1},
        "ulcer": {"events": 1, "false_events": 1, "false_on_finding": 1},
    }


def test_a_false_event_lies_on_normal_frames_or_on_a_finding() -> None:
    # Two of four frames are of a finding, then one of four.
    scores = score_findings([reading("nnppnnnnpnnn", [event(1, 4, "ulcer"), event(6, 9, "ulcer")])])
    assert (scores["false_events"], scores["false_on_finding"], scores["false_on_normal"]) == (2, 1, 1)
    right = score_findings([reading("nnppnn", [event(1, 4)])])
    assert (right["right_events"], right["false_on_finding"], right["false_on_normal"]) == (1, 0, 0)


def test_matching_counts_marked_frames() -> None:
    # Frames 2 and 3 of 2 to 5: an overlap of one half.
    assert score_findings([reading("nnppppnn", [event(2, 3)])])["matched"]["hits"] == 1
    assert score_findings([reading("nnpppppn", [event(2, 3)])])["matched"]["hits"] == 0


def test_the_share_to_open_by_hand() -> None:
    # The polyp at 4, 5 is the stronger event's; the ulcer at 8 has none and is the fourth of the other frames.
    one = reading("nnnnppnnun", [event(4, 6, peak=5)], [0.1, 0.8, 0.7, 0.1, 0.9, 0.9, 0.6, 0.1, 0.5, 0.1])
    # the peak, then 4 (.9), 1, 2, 6, 8
    assert share_to_open([one], by="pictures") == 6 / 10
    # 4 to 6, then 1, 2, 8
    assert share_to_open([one], by="events") == 6 / 10
    # 4, 5, 1, 2, 6, 8
    assert share_to_open([one], by="frames") == 6 / 10
    # Two recordings are read as one: the second needs one frame more, opened where its score comes.
    other = reading("np", [], [0.95, 0.2], name="s")
    # all of the above with 0 of s before them, then 1 of s
    assert share_to_open([one, other], by="frames") == 8 / 12
    assert share_to_open([one, reading("p", [event(0, 0)], name="s")], by="pictures") == 7 / 11


def test_a_frame_without_an_answer_is_opened_last() -> None:
    assert share_to_open([reading("pn", [], [float("nan"), 0.0])], by="frames") == 1.0


def test_shares_and_rates_without_a_finding_or_frame_are_undefined() -> None:
    scores = score_findings([reading("nnn", [event(0, 1)])])
    assert set(scores["share_to_open"].values()) == {None}
    assert scores["false_events"] == 1
    assert score_findings([])["false_events_per_1000_frames"] is None


def test_labels_and_scores_of_different_length_are_refused() -> None:
    with pytest.raises(InputError, match="3 labels and scores"):
        Reading("r", ["normal"] * 3, np.zeros(2), [])
