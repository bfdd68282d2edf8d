"""Test whether one of two models is right more often than the other on the same cases."""

from __future__ import annotations

__all__ = ["exact_mcnemar"]


def exact_mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of McNemar's exact test (Psychometrika 1947).

    The test takes the cases as independent.

    Args:
        only_first: number of cases that only the first model gets right.
        only_second: number of cases that only the second model gets right.

    Returns:
        The p-value, 0..1; 1 where the models differ in no case.

    Example:
        >>> exact_mcnemar(1, 9)
        0.021484375
    """
    cases, fewer = only_first + only_second, min(only_first, only_second)
    if 2 * fewer == cases:
        return 1.0
    ways = term = 1
    for at in range(fewer):
        term = term * (cases - at) // (at + 1)
        ways += term
    # Whole numbers until here: a power of two beyond 2**1023 is no float.
    return float((ways << 1) / (1 << cases))
