"""The choice of thresholds is the best of all combinations."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from capsule_edge.evaluation.recordings.threshold_choice import choose_thresholds

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("seed", range(5))
def test_the_choice_is_the_best_of_all_combinations(seed: int) -> None:
    generator = np.random.default_rng(seed)
    worth, false = generator.integers(0, 6, (3, 3, 4)) / 2.0, generator.integers(1, 6, (3, 3, 4))
    worth[:, 1, 2] = -np.inf
    limits = [3, 5, 8, 100]
    choices = choose_thresholds(worth, false, limits, np.zeros(3))
    for limit, choice in zip(limits, choices, strict=True):
        every = [_total(worth[k], false[k], s) for k, s in product(range(3), product(range(4), repeat=3))]
        within = [(total, -cost) for total, cost in every if cost <= limit and np.isfinite(total)]
        total, cost = _total(worth[choice.rule], false[choice.rule], choice.steps)
        assert not within or (total, -cost) == max(within)
        assert within or cost == min(cost for total, cost in every if np.isfinite(total))


def _total(worth: np.ndarray, false: np.ndarray, steps: tuple[int, ...]) -> tuple[float, int]:
    labels = range(len(steps))
    return float(worth[labels, steps].sum()), int(false[labels, steps].sum())


def test_a_budget_that_nothing_meets_gives_the_fewest_false_events() -> None:
    worth, false = np.array([[[9.0, 1.0]], [[9.0, 2.0]]]), np.array([[[7, 4]], [[8, 3]]])
    (choice,) = choose_thresholds(worth, false, [0], np.zeros(2))
    assert (choice.rule, choice.steps) == (1, (1,))


def test_among_equals_the_preference_decides() -> None:
    worth, false = np.ones((3, 1, 1)), np.ones((3, 1, 1), np.intp)
    assert choose_thresholds(worth, false, [5], np.array([2.0, 0.5, 1.0]))[0].rule == 1
