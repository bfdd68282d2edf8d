"""Choose how a network is quantised: ranges, evened channels, safe weights, and the layers that stay in float.

All choices are made on frames that the certificate does not use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx

from capsule_edge.evaluation.classification import Predictions
from capsule_edge.runtime.errors import ModelError, UsageError
from capsule_edge.runtime.inference import ModelSpec

from ..contract import FrameArray
from .activation_ranges import Range
from .channel_evening import Evening, even_channels
from .float_body import FloatBody
from .graph import Graph
from .int8_trials import TRAINING, Int8Candidate, Measuring, Trials, is_better, spread
from .layer_ranking import rank_by_noise
from .quantised_nodes import layers_of, quantised_nodes

__all__ = ["AUTO", "TRAINING", "Int8Candidate", "Int8Choice", "Trained", "choose_int8"]

AUTO = "auto"
# The number of methods of ranges with which fitted weights are tried: the best with nearest weights may not be it then.
_MOST_FITTED = 2
# Frames on which the noise of layers is measured: even one frame has thousands of values of most layers.
_RANKING_FRAMES = 16
# Weights that are not saturation-safe must lose less than this share of what safe ones lose, to be preferred.
_MUCH_BETTER = 0.7
# With fewer frames one or two of them decide about a limit of 1 %, and weights stay saturation-safe.
_ENOUGH = 300
# The largest share of layers that "auto" keeps in float. With more, INT8 has no use.
_MOST_FLOAT = 0.25
# The share of equal labels that a float layer must gain where no choice of them passes the gates.
_WORTH = 0.001


@dataclass(frozen=True)
class Int8Choice:
    """The chosen way of quantising.

    Attributes:
        body: The float network that was quantised: the given one, or the same with evened channels.
        proto: The network in 8 bits.
        chosen: The candidate that was chosen.
        tried: All candidates, in the order in which they were measured.
        noise: The ratio of signal to noise of each layer in decibels, the lowest first; empty if it was not needed.
        evening: The layers whose channels were evened for some of the candidates, and why others were not; None if it
            was not tried.
    """

    body: FloatBody
    proto: onnx.ModelProto
    chosen: Int8Candidate
    tried: tuple[Int8Candidate, ...]
    noise: tuple[tuple[str, float], ...] = field(default=())
    evening: Evening | None = None


@dataclass(frozen=True)
class Trained:
    """The parts of a fine-tuning that the choice needs.

    Attributes:
        original: The float network before it was fine-tuned, whose logits are wanted.
        ranges: The ranges that training set, by the name of the value.
    """

    original: FloatBody
    ranges: Mapping[str, Range]


@dataclass(frozen=True)
class _Found:
    """The best way of quantising one float network.

    Attributes:
        trials: The trials of this network.
        chosen: The best candidate.
        noise: The noise of each layer, if it was measured.
    """

    trials: Trials
    chosen: Int8Candidate
    noise: tuple[tuple[str, float], ...] = ()


def choose_int8(
    body: FloatBody,
    spec: ModelSpec,
    *,
    fitting: FrameArray,
    frames: FrameArray,
    expected: Predictions,
    keep: Sequence[str] = (AUTO,),
    trained: Trained | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Int8Choice:
    """Choose how to quantise a network.

    1. Each method of ranges is tried with saturation-safe weights.
    2. With two of them, weights that are fitted to each layer's inputs are tried: those with no gate of shipping
       failing, or else any, that have the smallest mean difference of probabilities. Of all candidates the one with the
       fewest failing gates is taken, and among equals the one with the smallest mean difference.
    3. If a gate fails, the same is tried without safe weights, and taken if no gate fails then and the frames are many.
    4. Else layers are put back in float, the noisiest first, until no gate fails; with safe weights, unless the others
       lose much less.
    5. All this is done for the network as it is, and where its channels can be evened (``channel_evening``) for the
       evened network too. The better result is taken (``int8_trials.is_better``). Training has evened them already.

    In every trial the biases are corrected for the mean errors of rounding (``bias_correction``), but where training
    has set the ranges: it has fitted the biases too.

    Args:
        body: The float network.
        spec: The ModelSpec of the FP32 file.
        fitting: Frames for the ranges, uint8 RGB (N, size, size, 3).
        frames: Frames for the choices, of the same form.
        expected: FP32's answers to ``frames``.
        keep: Names of layers to keep in float; ``auto`` chooses them, none keeps none.
        trained: The parts of a fine-tuning that ``body`` comes from; None if it is the network of the source.
        progress: Called with each line of progress.

    Raises:
        UsageError: ``keep`` names a layer that is not there, or layers beside ``auto``.
        ModelError: There is no layer to quantise.
    """
    _check_quantisable(body)
    kept = _checked(body, keep)
    original = body if trained is None else trained.original
    measuring = Measuring(spec, fitting, frames, expected, original, progress)
    ranges = None if trained is None else trained.ranges
    found = [_search(Trials(body, measuring, trained=ranges), kept, automatic=AUTO in keep)]
    evening = even_channels(body, fitting) if trained is None else None
    if evening is not None and evening.factors:
        trials = Trials(evening.body, measuring, evened=True)
        found.append(_search(trials, kept, automatic=AUTO in keep))
    best = found[-1] if is_better(found[-1].chosen, found[0].chosen) else found[0]
    tried = tuple(candidate for each in found for candidate in each.trials.tried)
    return Int8Choice(
        best.trials.body, best.trials.quantise(best.chosen), best.chosen, tried, best.noise, evening
    )


def _check_quantisable(body: FloatBody) -> None:
    """Refuse a network without a layer to quantise."""
    if not quantised_nodes(Graph(body.proto), body.cheap, readers=body.cheap):
        raise ModelError(
            "no layer of the model can compute in 8 bits: it has no convolution and no dense layer with constant"
            " weights before its last pooling",
            hint="its FP32 form runs as it is; adopt makes both or none",
        )


def _search(trials: Trials, kept: tuple[str, ...], *, automatic: bool) -> _Found:
    """Return the best way of quantising a float network."""
    nearest = sorted((trials.measure(method, True, kept) for method in trials.ranges), key=_rank_ranges)
    fitted = [trials.measure(each.method, True, kept, fitted=True) for each in nearest[:_MOST_FITTED]]
    best = min((*nearest, *fitted), key=_rank)
    return _repair(trials, best, kept, automatic=automatic) if best.failing else _Found(trials, best)


def _repair(trials: Trials, best: Int8Candidate, kept: tuple[str, ...], *, automatic: bool) -> _Found:
    """Look for a candidate that misses no limit: without safe weights, or with layers in float."""
    plain = trials.measure(best.method, False, kept, fitted=best.fitted)
    enough = len(trials.measuring.frames) >= _ENOUGH
    if enough and not plain.failing:
        return _Found(trials, plain)
    if not automatic:
        return _Found(trials, best)
    if enough and plain.mean_abs_dp < _MUCH_BETTER * best.mean_abs_dp:
        best = plain
    # Of plain rounding: fitted weights hide that a layer's activations are what it loses most by.
    made = trials.plain(best.method, best.saturation_safe)
    noise = rank_by_noise(trials.body, made, spread(trials.measuring.fitting, _RANKING_FRAMES))
    return _Found(trials, _restore(trials, best, [name for name, _ in noise]), tuple(noise))


def _rank_ranges(candidate: Int8Candidate) -> tuple[bool, float]:
    """Return what the better of two methods of ranges has less of; fitted weights may win back a limit or lose one."""
    return bool(candidate.failing), candidate.mean_abs_dp


def _rank(candidate: Int8Candidate) -> tuple[int, float]:
    """Return what the better of two candidates has less of: missed limits, or else the difference of probabilities."""
    return len(candidate.failing), candidate.mean_abs_dp


def _checked(body: FloatBody, keep: Sequence[str]) -> tuple[str, ...]:
    """Return the layers to keep in float; none if they are to be chosen."""
    if set(keep) == {AUTO}:
        return ()
    if AUTO in keep:
        raise UsageError(
            f"keep_float is {', '.join(keep)}: {AUTO} goes with no other layer", hint="leave one of them out"
        )
    names = [node.name for node in layers_of(Graph(body.proto))]
    unknown = [name for name in keep if name not in names]
    if unknown:
        raise UsageError(
            f"the model has no layer {unknown[0]!r} to keep in float, it has {', '.join(names[:8])}"
            + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        )
    return tuple(keep)


def _restore(trials: Trials, best: Int8Candidate, ranked: Sequence[str]) -> Int8Candidate:
    """Keep the noisiest layers in float until no gate fails; what is worth it if a quarter is not enough."""
    most = max(1, int(len(ranked) * _MOST_FLOAT))
    found = [best]

    def measure(kept: Sequence[str]) -> Int8Candidate:
        found.append(trials.measure(best.method, best.saturation_safe, kept, fitted=best.fitted))
        return found[-1]

    count, low = 1, 0
    while (candidate := measure(ranked[:count])).failing:
        if count == most:
            return max(found, key=lambda each: each.agreement - _WORTH * len(each.kept_float))
        low, count = count, min(2 * count, most)
    while count - low > 1:
        middle = (low + count) // 2
        between = measure(ranked[:middle])
        if between.failing:
            low = middle
        else:
            count, candidate = middle, between
    return candidate
