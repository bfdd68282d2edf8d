"""Choose one threshold for each label so that the sum of their worth is largest within a budget of false events.

With fixed event parameters, the labels are independent of each other: each threshold of a label has a worth and a
cost. Choosing one for each label is then a knapsack problem. It is solved exactly, for all sets of event parameters
and all budgets at once.

K is the number of sets of event parameters, L of labels, T of thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["ThresholdChoice", "choose_thresholds"]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

# Sums of worth that differ by less than this count as equal.
_EQUAL = 1e-9


@dataclass(frozen=True)
class ThresholdChoice:
    """The best choice within one budget: the set of event parameters, and the threshold of each label, by position."""

    rule: int
    steps: tuple[int, ...]


def choose_thresholds(
    worth: Floats, false: Indices, limits: Sequence[int], preference: Floats
) -> list[ThresholdChoice]:
    """Return the best choice within each budget.

    Args:
        worth: float (K, L, T); -inf for a threshold that must not be chosen. Each label needs one that may.
        false: intp (K, L, T), the number of false events.
        limits: The largest number of false events, for each budget. Where no choice keeps to it, the smallest possible
            number takes its place.
        preference: float (K,). Among choices of equal worth the fewest false events are best, then the set of event
            parameters with the smallest preference.
    """
    allowed = np.isfinite(worth)
    fewest = int(np.where(allowed, false, np.iinfo(np.intp).max).min(axis=2).sum(axis=1).min())
    limits = [max(limit, fewest) for limit in limits]
    sums, chosen = _fill(worth, false, max(limits))
    choices = []
    for limit in limits:
        best = sums[:, limit]
        # The sums never fall, so this is the smallest number of false events with the same worth.
        spent = (sums < best[:, None] - _EQUAL).sum(axis=1)
        rounded = np.where(np.isfinite(best), np.round(best / _EQUAL), -np.inf)
        rule = int(np.lexsort((preference, spent, -rounded))[0])
        choices.append(ThresholdChoice(rule, _steps(chosen, false[rule], rule, int(spent[rule]))))
    return choices


def _fill(worth: Floats, false: Indices, limit: int) -> tuple[Floats, list[npt.NDArray[np.uint8]]]:
    """Return the largest sum of worth with at most b false events, float (K, limit + 1), and the choices behind it.

    The choices are one array (K, limit + 1) for each label: the threshold that the best sum up to this label takes.
    """
    budgets = np.arange(limit + 1)
    sums = np.zeros((len(worth), limit + 1))
    chosen = []
    for label in range(worth.shape[1]):
        best, step_of = np.full_like(sums, -np.inf), np.zeros(sums.shape, np.uint8)
        for step in range(worth.shape[2]):
            value, cost = worth[:, label, step, None], false[:, label, step, None]
            rules = np.flatnonzero(np.isfinite(value[:, 0]) & (cost[:, 0] <= limit))
            before = np.take_along_axis(sums[rules], np.maximum(budgets - cost[rules], 0), axis=1)
            total = np.where(budgets >= cost[rules], before + value[rules], -np.inf)
            better = total > best[rules]
            best[rules] = np.where(better, total, best[rules])
            step_of[rules] = np.where(better, np.uint8(step), step_of[rules])
        sums = best
        chosen.append(step_of)
    return sums, chosen


def _steps(chosen: Sequence[npt.NDArray[np.uint8]], false: Indices, rule: int, spent: int) -> tuple[int, ...]:
    """Return the thresholds behind the best sum of one set of event parameters."""
    steps: list[int] = []
    for label in reversed(range(len(chosen))):
        steps.append(int(chosen[label][rule, spent]))
        spent -= int(false[label, steps[-1]])
    return tuple(reversed(steps))
