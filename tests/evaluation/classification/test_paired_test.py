"""McNemar's exact test agrees with scipy's binomial test, and takes numbers beyond the range of floats."""

from __future__ import annotations

import pytest

from capsule_edge.evaluation.classification import exact_mcnemar


@pytest.mark.parametrize(("first", "second"), [(1, 9), (9, 1), (0, 6), (40, 60), (1000, 1200)])
def test_it_is_the_binomial_test(first: int, second: int) -> None:
    scipy = pytest.importorskip("scipy.stats")
    expected = scipy.binomtest(first, first + second).pvalue
    assert exact_mcnemar(first, second) == pytest.approx(expected, rel=1e-9)


def test_equal_numbers_say_nothing() -> None:
    assert exact_mcnemar(0, 0) == exact_mcnemar(7, 7) == 1.0


def test_large_numbers_are_exact() -> None:
    # 2 ** 5000 is no float. Six standard deviations of a binomial: two tails of 1e-9 each.
    assert exact_mcnemar(2288, 2712) == pytest.approx(2.1e-9, rel=0.1)
