"""Measure how far a distribution over recordings is from a reference, and test whether chance explains it.

Recordings are the units of every test, and not frames: the frames of one recording are near copies, so a test over
frames would call any two recordings different.

Each recording is a histogram: the share of its values in each bin. The *population stability index* of two mean
histograms is the sum over bins of (b - a) ln(b / a); 0.1 to 0.2 is commonly read as a small shift, and more as a large
one (Siddiqi, Credit Risk Scorecards, 2006). Two mean histograms differ by the squared distance of their cumulative
sums (Cramer-von Mises). Where the bins have no order it is that of the shares or, if those of each recording are known,
of their roots (Hellinger).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["adjust_holm", "bootstrap_test", "permutation_test", "stability_index"]

Floats = npt.NDArray[np.float64]

# The least share of a bin in the index: an empty bin would make it infinite.
_FLOOR = 1e-3
# Numbers held at once while permuting: 32 MB.
_CHUNK = 4_000_000
# Permutations after which a test looks whether it can end. A check of few groups makes fewer.
_LOOK = 10_000
# Recordings of both groups from which it is faster to draw those that are chosen than to rank all.
_RANKED = 1_000


def stability_index(reference: Floats, found: Floats) -> float:
    """Return the population stability index of two histograms of shares, each (bins,)."""
    a, b = (np.maximum(shares, _FLOOR) / np.maximum(shares, _FLOOR).sum() for shares in (reference, found))
    return float(((b - a) * np.log(b / a)).sum())


def permutation_test(
    reference: Floats, found: Floats, *, ordered: bool, permutations: int, seed: int, enough: float = 1.0
) -> float:
    """Test whether two groups of recordings have the same mean histogram, by permuting the recordings.

    Args:
        reference: float (n, bins), the histogram of each recording of the reference.
        found: float (m, bins), the histogram of each recording that is tested.
        ordered: whether the bins have an order.
        permutations: number of permutations.
        seed: of the drawing.
        enough: a p-value above this one need not be exact, so the test ends when it cannot be at most this any more.

    Returns:
        The p-value, at least 1 / (permutations + 1).
    """
    together = np.concatenate([reference, found])
    if not ordered:
        # A label that is rare everywhere and common in a few recordings would otherwise hide all others.
        together = np.sqrt(together)
    count, total, size = len(found), together.sum(axis=0), len(together)
    observed = _distance(together[:-count].mean(axis=0), together[-count:].mean(axis=0), ordered)
    generator = np.random.default_rng(seed)
    # The tolerance lets a permutation count that puts the same recordings together in another order.
    least = float(observed) * (1 - 1e-9)
    by_place = size > _RANKED and 2 * count <= size

    def draw(chunk: int) -> Floats:
        sums = (_sum_places if by_place else _sum_ranked)(generator, together, count, chunk)
        return _distance((total - sums) / (size - count), sums / count, ordered)

    return _p_value(
        draw, least, permutations, min(count, size) * together.shape[1] if by_place else size, enough
    )


def bootstrap_test(
    reference: Floats,
    units: int,
    found: Floats,
    weights: Floats,
    *,
    ordered: bool,
    permutations: int,
    seed: int,
    enough: float = 1.0,
) -> float:
    """Test whether a group of recordings has the histogram of a reference of which only the total is known.

    The reference does not say how much its recordings differ. So the test takes their spread from the group: it draws
    two groups from the recordings found, one as large as the group and one as large as the reference, and compares
    their distance with the observed one. The spread of few recordings is known badly, so each drawn distance is divided
    by a chi-square variable over its degrees of freedom: the step from the normal to Student's distribution.

    Args:
        reference: float (bins,), shares.
        units: number of recordings behind the reference.
        found: float (m, bins), the histogram of each recording that is tested.
        weights: float (m,), the weight of each recording in the total.
        ordered: whether the bins have an order.
        permutations: number of drawings.
        seed: of the drawing.
        enough: a p-value above this one need not be exact, so the test ends when it cannot be at most this any more.

    Returns:
        The p-value, at least 1 / (permutations + 1).
    """
    count = len(found)
    weighted = np.column_stack([found * weights[:, None], weights])
    observed = _distance(reference, _shares(weighted.sum(axis=0)), ordered)
    generator = np.random.default_rng(seed)
    even = np.full(count, 1 / count)
    # A few long recordings count as few.
    freedom = max(1.0, float(weights.sum() ** 2 / (weights**2).sum()) - 1)
    least = float(observed) * (1 - 1e-9)

    def draw(chunk: int) -> Floats:
        pair = [
            _shares(generator.multinomial(size, even, size=chunk).astype(np.float64) @ weighted)
            for size in (count, units)
        ]
        # Drawing from m recordings gives (m - 1) / m of their variance.
        drawn = _distance(pair[0], pair[1], ordered) * count / max(1, count - 1)
        return np.asarray(drawn * freedom / generator.chisquare(freedom, size=chunk))

    return _p_value(draw, least, permutations, count, enough)


def adjust_holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for many tests (Holm, Scand. J. Stat. 1979), in their order."""
    order = sorted(range(len(p_values)), key=lambda at: p_values[at])
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for place, at in enumerate(order):
        highest = max(highest, min(1.0, p_values[at] * (len(p_values) - place)))
        adjusted[at] = highest
    return adjusted


def _p_value(
    draw: Callable[[int], Floats], least: float, permutations: int, size: int, enough: float
) -> float:
    """Return the p-value of the distances that ``draw`` returns; end early when it is above ``enough`` for sure."""
    extreme = done = 0
    for chunk in _chunks(permutations, size):
        extreme += int((draw(chunk) >= least).sum())
        done += chunk
        if (1 + extreme) / (permutations + 1) > enough:
            break
    return (1 + extreme) / (done + 1)


def _sum_ranked(generator: np.random.Generator, rows: Floats, count: int, chunk: int) -> Floats:
    """Return the sums of ``count`` rows, drawn without repetition, ``chunk`` times: those of the lowest ranks."""
    ranks = generator.random((chunk, len(rows)))
    chosen = (ranks <= np.partition(ranks, count - 1, axis=1)[:, count - 1 : count]).astype(np.float64)
    return np.asarray(chosen @ rows)


def _sum_places(generator: np.random.Generator, rows: Floats, count: int, chunk: int) -> Floats:
    """Return what ``_sum_ranked`` returns, at a cost that does not depend on the number of rows.

    Places are drawn, and those that a draw repeats are drawn again. That treats all rows alike, so each choice of
    ``count`` rows is equally likely.
    """
    places = generator.integers(len(rows), size=(chunk, count))
    again = np.arange(chunk)
    while len(again):
        held = np.sort(places[again], axis=1)
        repeated = np.zeros(held.shape, bool)
        repeated[:, 1:] = held[:, 1:] == held[:, :-1]
        held[repeated] = generator.integers(len(rows), size=int(repeated.sum()))
        places[again] = held
        again = again[repeated.any(axis=1)]
    return np.asarray(rows[places].sum(axis=1))


def _distance(one: Floats, other: Floats, ordered: bool) -> Floats:
    difference = np.cumsum(one - other, axis=-1) if ordered else one - other
    return np.asarray((difference**2).sum(axis=-1))


def _shares(sums: Floats) -> Floats:
    """Return weighted sums, their weight in the last column, as shares."""
    return np.asarray(sums[..., :-1] / np.maximum(sums[..., -1:], 1e-300))


def _chunks(total: int, size: int) -> Iterator[int]:
    most = max(1, min(_CHUNK // size, _LOOK))
    for first in range(0, total, most):
        yield min(most, total - first)
