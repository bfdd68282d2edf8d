"""Choose how a network is quantised: the method of ranges, safe weights, and the layers that stay in float.

All choices are made on frames that the certificate does not use.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from capsule_edge.evaluation.classification import Predictions
from capsule_edge.runtime.errors import ModelError, UsageError
from capsule_edge.runtime.inference import ModelSpec

from ..contract import FrameArray
from ..gates import failing_gates
from ..int8 import METHODS
from ..runners import file_runner, in_batches, open_file
from .activation_ranges import Range, choose_ranges, collect_histograms
from .bias_correction import bias_errors, correct_biases, correct_logits
from .float_body import PIXELS, FloatBody
from .graph import Graph
from .layer_ranking import rank_by_noise
from .quantised_nodes import layers_of, quantised_nodes
from .quantiser import activations_of, quantise_body
from .serving_graph import build_file
from .weight_rounding import round_weights

__all__ = ["Int8Candidate", "Int8Choice", "Trained", "choose_int8"]

AUTO = "auto"
TRAINING = "training"
"""The method of ranges that fine-tuning has set."""
_FALLBACK = "minmax"
# Frames on which the noise of layers is measured: even one frame has thousands of values of most layers.
_RANKING_FRAMES = 16
# Frames on which the mean errors of channels are measured.
_CORRECTING_FRAMES = 32
# Frames whose inputs the weights of each layer are fitted to.
_ROUNDING_FRAMES = 128
# Weights that are not saturation-safe must lose less than this share of what safe ones lose, to be preferred.
_MUCH_BETTER = 0.7
# With fewer frames one or two of them decide about a limit of 1 %, and weights stay saturation-safe.
_ENOUGH = 300
# The largest share of layers that "auto" keeps in float. With more, INT8 has no use.
_MOST_FLOAT = 0.25
# The share of equal labels that a float layer must gain where no choice of them passes the gates.
_WORTH = 0.001


@dataclass(frozen=True)
class Int8Candidate:
    """One way of quantising, measured against FP32 on the frames of the choice.

    Attributes:
        method: How the ranges were chosen (``int8.METHODS``, or ``training``).
        saturation_safe: Whether weights were widened against saturation.
        kept_float: The names of the layers that stay in float.
        fitted: Whether the weights were rounded so that each layer's answers change least (``weight_rounding``).
        agreement: The share of frames with FP32's label.
        mean_abs_dp: The mean difference of a probability.
        failing: The gates of shipping that fail.
        finetuned: Whether the weights were fine-tuned for 8 bits before.
    """

    method: str
    saturation_safe: bool
    kept_float: tuple[str, ...]
    fitted: bool
    agreement: float
    mean_abs_dp: float
    failing: tuple[str, ...]
    finetuned: bool = False

    def __str__(self) -> str:
        count = len(self.kept_float)
        kept = f", {count} layer{'s' * (count > 1)} in float" if count else ""
        gates = f"; failing: {', '.join(self.failing)}" if self.failing else ""
        safe = "saturation-safe" if self.saturation_safe else "not saturation-safe"
        figures = f"{self.agreement:.2%} equal labels, mean |dp| {self.mean_abs_dp:.4f}"
        fitted = ", fitted weights" if self.fitted else ""
        fitted += ", fine-tuned" if self.finetuned else ""
        return f"{self.method}, {safe}{fitted}{kept}: {figures}{gates}"


@dataclass(frozen=True)
class Int8Choice:
    """The chosen way of quantising.

    Attributes:
        proto: The network in 8 bits.
        chosen: The candidate that was chosen.
        tried: All candidates, in the order in which they were measured.
        noise: The ratio of signal to noise of each layer in decibels, the lowest first; empty if it was not needed.
    """

    proto: onnx.ModelProto
    chosen: Int8Candidate
    tried: tuple[Int8Candidate, ...]
    noise: tuple[tuple[str, float], ...] = field(default=())


@dataclass(frozen=True)
class Trained:
    """The parts of a fine-tuning that the choice needs.

    Attributes:
        original: The float network before it was fine-tuned, whose logits are wanted.
        ranges: The ranges that training set, by the name of the value.
    """

    original: FloatBody
    ranges: Mapping[str, Range]


class _Trials:
    """Quantise in several ways and measure each."""

    def __init__(
        self, body: FloatBody, spec: ModelSpec, frames: FrameArray, fitting: FrameArray, expected: Predictions,
        trained: Trained | None,
    ) -> None:  # fmt: skip
        self.body, self.spec, self.frames, self.expected = body, spec, frames, expected
        self.finetuned, self.original = trained is not None, body if trained is None else trained.original
        self.tried: list[Int8Candidate] = []
        self.fitting = fitting
        histograms = collect_histograms(body, activations_of(body), fitting)
        exact = {PIXELS: body.entry.ends} if PIXELS in histograms else {}
        self.ranges: dict[str, dict[str, Range]] = {
            method: choose_ranges(body, histograms, method, exact=exact) for method in METHODS
        }
        if trained is not None:
            # Values that are none of the twin's have no trained range.
            known = {name: ends for name, ends in trained.ranges.items() if name in histograms}
            self.ranges[TRAINING] = {**self.ranges[_FALLBACK], **known}
        self._weights: dict[tuple[str, bool], dict[str, npt.NDArray[np.int8]]] = {}
        self._errors: dict[tuple[str, bool, bool], dict[str, npt.NDArray[np.float64]]] = {}

    def quantise(self, candidate: Int8Candidate) -> onnx.ModelProto:
        """Quantise, and correct the biases for the mean errors of rounding."""
        method, safe, fitted = candidate.method, candidate.saturation_safe, candidate.fitted
        # Training has fitted weights and biases to these ranges and to the nearest levels.
        errors = {} if method == TRAINING else self._bias_errors(method, safe, fitted)
        used = {name: error for name, error in errors.items() if name not in candidate.kept_float}
        made = quantise_body(
            correct_biases(self.body, used), self.ranges[method], kept=candidate.kept_float,
            saturation_safe=safe, weights=self._fitted(method, safe) if fitted else {},
        )  # fmt: skip
        return correct_logits(self.body, made, self.fitting, self.original)

    def plain(self, method: str, safe: bool, fitted: bool = False) -> onnx.ModelProto:
        """Quantise every layer, without correction of the biases."""
        weights = self._fitted(method, safe) if fitted else {}
        return quantise_body(self.body, self.ranges[method], saturation_safe=safe, weights=weights)

    def _fitted(self, method: str, safe: bool) -> dict[str, npt.NDArray[np.int8]]:
        if (method, safe) not in self._weights:
            self._weights[method, safe] = round_weights(
                self.body, self.plain(method, safe), _spread(self.fitting, _ROUNDING_FRAMES),
                saturation_safe=safe,
            )  # fmt: skip
        return self._weights[method, safe]

    def _bias_errors(self, method: str, safe: bool, fitted: bool) -> dict[str, npt.NDArray[np.float64]]:
        if (method, safe, fitted) not in self._errors:
            self._errors[method, safe, fitted] = bias_errors(
                self.body, self.plain(method, safe, fitted), _spread(self.fitting, _CORRECTING_FRAMES)
            )
        return self._errors[method, safe, fitted]

    def measure(
        self, method: str, safe: bool, kept: Sequence[str] = (), *, fitted: bool = False
    ) -> Int8Candidate:
        """Return the candidate with its figures."""
        candidate = Int8Candidate(method, safe, tuple(kept), fitted, 0.0, 0.0, (), self.finetuned)
        p = self._answers(candidate)
        answers = dataclasses.replace(self.expected, probabilities=p)
        measured = dataclasses.replace(
            candidate,
            agreement=float((answers.predicted == self.expected.predicted).mean()),
            mean_abs_dp=float(np.abs(p - self.expected.probabilities).mean()),
            failing=tuple(failing_gates(self.expected, answers)),
        )
        self.tried.append(measured)
        return measured

    def _answers(self, candidate: Int8Candidate) -> npt.NDArray[np.float32]:
        spec = dataclasses.replace(self.spec, precision="int8", saturation_safe=candidate.saturation_safe)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(build_file(self.body, spec, quantised=self.quantise(candidate)), path)
            backend = open_file(path)
            answers = in_batches(file_runner(backend), self.frames)["probabilities"]
            backend.close()
        return answers


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

    1. Each method of ranges is tried with saturation-safe weights. Of those with no gate of shipping
       failing, or else of all, the one with the smallest mean difference of probabilities is taken.
    2. With it, weights that are fitted to each layer's inputs are tried, and taken if they are better by this measure.
    3. If a gate fails, the same is tried without safe weights, and taken if no gate fails then and the frames are many.
    4. Else layers are put back in float, the noisiest first, until no gate fails; with safe weights, unless the others
       lose much less.

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
    if not quantised_nodes(Graph(body.proto), body.cheap, readers=body.cheap):
        raise ModelError(
            "no layer of the model can compute in 8 bits: it has no convolution and no dense layer with constant"
            " weights before its last pooling",
            hint="its FP32 form runs as it is; adopt makes both or none",
        )
    trials = _Trials(body, spec, frames, fitting, expected, trained)
    automatic, kept = AUTO in keep, _checked(body, keep)
    found = []
    for method in trials.ranges:
        found.append(trials.measure(method, True, kept))
        progress(str(found[-1]))
    best = min(found, key=_rank)
    fitted = trials.measure(best.method, True, kept, fitted=True)
    progress(str(fitted))
    best = min(best, fitted, key=_rank)
    noise: list[tuple[str, float]] = []
    if best.failing:
        plain = trials.measure(best.method, False, kept, fitted=best.fitted)
        progress(str(plain))
        enough = len(frames) >= _ENOUGH
        if enough and not plain.failing:
            best = plain
        elif automatic:
            if enough and plain.mean_abs_dp < _MUCH_BETTER * best.mean_abs_dp:
                best = plain
            # Of plain rounding: fitted weights hide that a layer's activations are what it loses most by.
            made = trials.plain(best.method, best.saturation_safe)
            noise = rank_by_noise(body, made, _spread(fitting, _RANKING_FRAMES))
            best = _restore(trials, best, [name for name, _ in noise], progress)
    return Int8Choice(trials.quantise(best), best, tuple(trials.tried), tuple(noise))


def _rank(candidate: Int8Candidate) -> tuple[bool, float]:
    """Return what the better of two candidates has less of."""
    return bool(candidate.failing), candidate.mean_abs_dp


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


def _spread(frames: FrameArray, count: int) -> FrameArray:
    """Return at most ``count`` of the frames, evenly spaced."""
    rows = np.linspace(0, len(frames) - 1, min(count, len(frames))).astype(int)
    return np.asarray(frames[rows])


def _restore(
    trials: _Trials, best: Int8Candidate, ranked: Sequence[str], progress: Callable[[str], None]
) -> Int8Candidate:
    """Keep the noisiest layers in float until no gate fails; what is worth it if a quarter is not enough."""
    most = max(1, int(len(ranked) * _MOST_FLOAT))
    found = [best]

    def measure(kept: Sequence[str]) -> Int8Candidate:
        found.append(trials.measure(best.method, best.saturation_safe, kept, fitted=best.fitted))
        progress(str(found[-1]))
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
