"""Match the suggestions of two models in one recording by the frames that they show.

The rule:

- A suggestion shows the frames from the first to the last frame of each of its events.
- Two suggestions can be a pair if at least half of the frames of the shorter one are frames of the other.
- Each suggestion is in one pair at most. Pairs of the same leading label are made first, and among these those with
  the largest overlap (frames that both show, as a share of the frames that either shows).
- A suggestion without a partner is *covered* if the other model's suggestions together show at least half of its
  frames. A reader of the other model's suggestions sees this place. Otherwise only one model *has* it.

A pair can differ in three ways: its leading **label**; its **time**, if the overlap is less than one half; and its
**rank**, if its place in the order of all pairs of the recording differs by three or more. Suggestions that only one
model has move the others down. That is no change of rank.

Frames are counted and not seconds, because a recording may lack the frames between two of its pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .stored_results import PlacedSuggestion, Span, join_spans

__all__ = ["HALF", "KINDS", "RANK_STEPS", "SuggestionMatch", "match_suggestions", "shared_frames"]

HALF = 0.5
"""Share of frames from which two suggestions show the same place, and overlap below which the time has changed."""

RANK_STEPS = 3
"""Number of places from which the rank of a pair has changed: scores of two models differ a little everywhere."""

KINDS = ("only_old", "only_new", "label", "time", "rank", "covered_old", "covered_new")
"""The kinds of differences, in the order in which to look at them. One match can have several of them."""


@dataclass(frozen=True)
class SuggestionMatch:
    """A suggestion of the old and of the new model that show the same place, or one that has no partner.

    Attributes:
        old, new: the suggestions; None where there is no partner.
        overlap: frames that both show, as a share of the frames that either shows; 0 without a partner.
        covered: True if the suggestion has no partner and the other model shows its place all the same.
        moved: number of places by which the pair comes later in the new model's order of the pairs than in the old's.
    """

    old: PlacedSuggestion | None
    new: PlacedSuggestion | None
    overlap: float = 0.0
    covered: bool = False
    moved: int = 0

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of the difference, of ``KINDS``; empty if the models agree."""
        if self.old is None or self.new is None:
            side = "old" if self.new is None else "new"
            return (f"covered_{side}" if self.covered else f"only_{side}",)
        changed = {
            "label": self.old.label != self.new.label,
            "time": self.overlap < HALF,
            "rank": abs(self.moved) >= RANK_STEPS,
        }
        return tuple(kind for kind, is_so in changed.items() if is_so)


def match_suggestions(
    old: Sequence[PlacedSuggestion], new: Sequence[PlacedSuggestion]
) -> list[SuggestionMatch]:
    """Return all suggestions of both models: the pairs by the old rank, then those without a partner."""
    free_old, free_new = set(range(len(old))), set(range(len(new)))
    pairs: list[tuple[int, int, float]] = []
    for _, overlap, i, j in _candidates(old, new):
        if i in free_old and j in free_new:
            pairs.append((i, j, -overlap))
            free_old.remove(i)
            free_new.remove(j)
    pairs.sort(key=lambda pair: old[pair[0]].rank)
    places = zip(
        _places([old[i].rank for i, _, _ in pairs]), _places([new[j].rank for _, j, _ in pairs]), strict=True
    )
    matches = [
        SuggestionMatch(old[i], new[j], overlap, moved=after - before)
        for (i, j, overlap), (before, after) in zip(pairs, places, strict=True)
    ]
    shown_old = join_spans(span for one in old for span in one.spans)
    shown_new = join_spans(span for one in new for span in one.spans)
    matches += [
        SuggestionMatch(old[i], None, covered=_is_covered(old[i], shown_new)) for i in sorted(free_old)
    ]
    matches += [
        SuggestionMatch(None, new[j], covered=_is_covered(new[j], shown_old)) for j in sorted(free_new)
    ]
    return matches


def shared_frames(one: Sequence[Span], other: Sequence[Span]) -> int:
    """Return the number of frames in both of two lists of half-open ranges, each ascending and apart."""
    shared = i = j = 0
    while i < len(one) and j < len(other):
        shared += max(0, min(one[i][1], other[j][1]) - max(one[i][0], other[j][0]))
        if one[i][1] <= other[j][1]:
            i += 1
        else:
            j += 1
    return shared


def _candidates(
    old: Sequence[PlacedSuggestion], new: Sequence[PlacedSuggestion]
) -> list[tuple[bool, float, int, int]]:
    """Return the possible pairs, the best first: (labels differ, minus the overlap, place in old, place in new)."""
    if not old or not new:
        return []
    first = [np.array([one.spans[0][0] for one in side]) for side in (old, new)]
    last = [np.array([one.spans[-1][1] for one in side]) for side in (old, new)]
    near = (first[0][:, None] < last[1]) & (first[1] < last[0][:, None])
    found = []
    for i, j in np.argwhere(near).tolist():
        shared = shared_frames(old[i].spans, new[j].spans)
        if shared and shared >= HALF * min(old[i].frames, new[j].frames):
            either = old[i].frames + new[j].frames - shared
            found.append((old[i].label != new[j].label, -shared / either, i, j))
    return sorted(found)


def _is_covered(one: PlacedSuggestion, shown: Sequence[Span]) -> bool:
    return shared_frames(one.spans, shown) >= HALF * one.frames


def _places(ranks: Sequence[int]) -> list[int]:
    """Return the place of each rank among all of them, from 1."""
    order = {rank: place for place, rank in enumerate(sorted(ranks), 1)}
    return [order[rank] for rank in ranks]
