"""Judge INT8 answers by the gates of shipping, and find the fewest layers in float with which none fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from capsule_edge.evaluation.classification import Predictions
from capsule_edge.evaluation.parity import certify
from capsule_edge.runtime.errors import GateError

__all__ = ["failing_gates", "fewest_layers"]

# Resamples of the gates' intervals: enough to judge.
_RESAMPLES = 300
_NO_FILE = {"file": "", "name": "", "version": None, "precision": None, "sha256": "", "backend": None}
# Says which gates fail while the layers of the given names stay in float.
Judge = Callable[[Sequence[str]], list[str]]


def failing_gates(a: Predictions, b: Predictions) -> list[str]:
    """Return the names of the shipping gates that ``b`` fails against ``a``; an undecided gate has not failed."""
    models = {"a": _NO_FILE, "b": _NO_FILE}
    document = certify(a, b, kind="shipping", models=models, data={}, resamples=_RESAMPLES)
    return [gate["name"] for gate in document["gates"] if gate["verdict"] == "fail"]


def fewest_layers(failing: Judge, rank: Callable[[], list[str]]) -> list[str]:
    """Return the shortest top of the ranking with no gate failing, less the layers that are not needed in it."""
    ranked = rank()
    if failed := failing(ranked):
        raise GateError(
            f"{', '.join(failed)} fails even with every layer in float",
            hint="quantisation-aware training has moved the weights too far from FP32's: distil longer",
        )
    low, high = 1, len(ranked)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if not failing(ranked[:middle]) else (middle + 1, high)
    chosen = ranked[:low]
    for name in reversed(chosen[:-1]):
        fewer = [other for other in chosen if other != name]
        if not failing(fewer):
            chosen = fewer
    return chosen
