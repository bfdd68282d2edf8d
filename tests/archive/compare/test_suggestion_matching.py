"""The rule by which suggestions of two models are the same place, and what counts as a difference."""

from __future__ import annotations

import random

import pytest

from capsule_edge.archive.compare.stored_results import PlacedEvent, PlacedSuggestion, join_spans
from capsule_edge.archive.compare.suggestion_matching import SuggestionMatch, match_suggestions, shared_frames


def place(rank: int, label: str, *spans: tuple[int, int]) -> PlacedSuggestion:
    """A suggestion over half-open ranges of frames."""
    events = tuple(
        PlacedEvent(label, start, end - 1, float(start), float(end), start, float(start), 0.9)
        for start, end in spans
    )
    return PlacedSuggestion(rank, label, 0.5, events, (), join_spans(spans))


def kinds(matches: list[SuggestionMatch]) -> list[tuple[int | None, int | None, tuple[str, ...]]]:
    return [(match.old and match.old.rank, match.new and match.new.rank, match.kinds) for match in matches]


def test_the_same_frames_and_label_are_no_difference() -> None:
    one = [place(1, "ulcer", (0, 10)), place(2, "erosion", (50, 60), (70, 80))]
    assert kinds(match_suggestions(one, one)) == [(1, 1, ()), (2, 2, ())]


def test_half_of_the_shorter_one_is_enough_and_less_is_not() -> None:
    old = [place(1, "ulcer", (0, 10))]
    # 5 of 10 frames are shared, of 15 in either: a pair, at another time.
    assert kinds(match_suggestions(old, [place(1, "ulcer", (5, 15))])) == [(1, 1, ("time",))]
    assert kinds(match_suggestions(old, [place(1, "ulcer", (6, 16))])) == [
        (1, None, ("only_old",)),
        (None, 1, ("only_new",)),
    ]
    # A short one within a long one is a pair: its place is shown.
    (match,) = match_suggestions(old, [place(1, "ulcer", (0, 100))])
    assert match.kinds == ("time",)
    assert match.overlap == pytest.approx(0.1)


def test_another_label_is_a_difference_and_the_same_label_goes_first() -> None:
    old = [place(1, "ulcer", (0, 10))]
    assert kinds(match_suggestions(old, [place(1, "erosion", (0, 10))])) == [(1, 1, ("label",))]
    # The erosion overlaps more, the ulcer has the label.
    new = [place(1, "erosion", (0, 10)), place(2, "ulcer", (2, 12))]
    assert kinds(match_suggestions(old, new)) == [(1, 2, ()), (None, 1, ("covered_new",))]


def test_a_suggestion_that_was_split_is_covered_and_not_lost() -> None:
    old = [place(1, "ulcer", (0, 20))]
    new = [place(1, "ulcer", (0, 12)), place(2, "ulcer", (12, 20))]
    assert kinds(match_suggestions(old, new)) == [(1, 1, ()), (None, 2, ("covered_new",))]
    assert kinds(match_suggestions(new, old)) == [(1, 1, ()), (2, None, ("covered_old",))]


def test_frames_of_several_others_together_cover_a_suggestion() -> None:
    """The long one shows 60 of 100 frames of three others, each of which has its own partner."""
    old = [place(1, "ulcer", (0, 100))]
    thirds = [place(rank, "erosion", (at, at + 20)) for rank, at in enumerate((0, 30, 60), 1)]
    # Each is inside the long one, so one of them is its partner, and the others are covered.
    found = match_suggestions(old, thirds)
    assert [match.kinds for match in found] == [("label", "time"), ("covered_new",), ("covered_new",)]
    assert [match.kinds for match in match_suggestions(thirds[:2], [place(1, "erosion", (200, 210))])] == [
        ("only_old",),
        ("only_old",),
        ("only_new",),
    ]


def test_the_rank_has_changed_from_three_places_on() -> None:
    spans = [(at * 20, at * 20 + 10) for at in range(6)]
    old = [place(rank, "ulcer", span) for rank, span in enumerate(spans, 1)]
    # The first goes to the fourth place; the three behind it move up by one.
    new = [place(rank, "ulcer", spans[at]) for rank, at in enumerate((1, 2, 3, 0, 4, 5), 1)]
    assert [match.kinds for match in match_suggestions(old, new)] == [("rank",), (), (), (), (), ()]
    assert [match.moved for match in match_suggestions(old, new)] == [3, -1, -1, -1, 0, 0]


def test_suggestions_that_only_one_model_has_change_no_rank() -> None:
    old = [place(1, "ulcer", (0, 10))]
    new = [place(rank, "ulcer", (100 * rank, 100 * rank + 5)) for rank in range(1, 9)]
    new.append(place(9, "ulcer", (0, 10)))
    assert match_suggestions(old, new)[0].kinds == ()


def test_gaps_between_the_events_of_a_suggestion_are_no_frames_of_it() -> None:
    old = [place(1, "ulcer", (0, 10), (90, 100))]
    assert kinds(match_suggestions(old, [place(1, "ulcer", (40, 50))])) == [
        (1, None, ("only_old",)),
        (None, 1, ("only_new",)),
    ]


@pytest.mark.parametrize("seed", range(20))
def test_every_suggestion_is_in_one_match_and_pairs_obey_the_rule(seed: int) -> None:
    rng = random.Random(seed)

    def make() -> list[PlacedSuggestion]:
        made = []
        for rank in range(1, rng.randint(1, 12)):
            starts = [rng.randrange(0, 300) for _ in range(rng.randint(1, 3))]
            spans = [(start, start + rng.randint(1, 40)) for start in starts]
            made.append(place(rank, rng.choice(["ulcer", "erosion"]), *spans))
        return made

    old, new = make(), make()
    matches = match_suggestions(old, new)
    assert sorted(match.old.rank for match in matches if match.old) == [one.rank for one in old]
    assert sorted(match.new.rank for match in matches if match.new) == [one.rank for one in new]
    for match in matches:
        if match.old and match.new:
            # The frames counted one by one, as a check of the ranges.
            frames = [
                {frame for start, end in one.spans for frame in range(start, end)}
                for one in (match.old, match.new)
            ]
            shared = len(frames[0] & frames[1])
            assert shared == shared_frames(match.old.spans, match.new.spans)
            assert 2 * shared >= min(map(len, frames))
            assert match.overlap == pytest.approx(shared / len(frames[0] | frames[1]))
    # Turned round, the same pairs come out, and only the names of the sides change.
    turned = match_suggestions(new, old)
    assert {(match.old, match.new) for match in matches if match.old and match.new} == {
        (match.new, match.old) for match in turned if match.old and match.new
    }
