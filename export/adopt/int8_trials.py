"""Quantise a network in one of several ways, and measure how its answers differ from FP32's."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from capsule_edge.evaluation.classification import Predictions
from capsule_edge.runtime.inference import ModelSpec

from ..contract import FrameArray
from ..gates import failing_gates
from ..int8 import METHODS
from ..runners import file_runner, in_batches, open_file
from .activation_ranges import Range, choose_ranges, collect_histograms
from .bias_correction import bias_errors, correct_biases, correct_logits
from .float_body import PIXELS, FloatBody
from .quantiser import activations_of, quantise_body
from .serving_graph import build_file
from .weight_rounding import round_weights

__all__ = ["TRAINING", "Int8Candidate", "Measuring", "Trials", "is_better", "spread"]

TRAINING = "training"
"""The method of ranges that fine-tuning has set."""
_FALLBACK = "minmax"
# Frames on which the mean errors of channels are measured.
_CORRECTING_FRAMES = 32
# Frames whose inputs the weights of each layer are fitted to.
_ROUNDING_FRAMES = 128


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
        evened: Whether the channels between layers were evened before (``channel_evening``).
    """

    method: str
    saturation_safe: bool
    kept_float: tuple[str, ...]
    fitted: bool
    agreement: float
    mean_abs_dp: float
    failing: tuple[str, ...]
    finetuned: bool = False
    evened: bool = False

    def __str__(self) -> str:
        count = len(self.kept_float)
        kept = f", {count} layer{'s' * (count > 1)} in float" if count else ""
        gates = f"; failing: {', '.join(self.failing)}" if self.failing else ""
        safe = "saturation-safe" if self.saturation_safe else "not saturation-safe"
        figures = f"{self.agreement:.2%} equal labels, mean |dp| {self.mean_abs_dp:.4f}"
        fitted = ", fitted weights" if self.fitted else ""
        made = ", fine-tuned" if self.finetuned else ", evened channels" if self.evened else ""
        return f"{self.method}, {safe}{fitted}{made}{kept}: {figures}{gates}"


def is_better(candidate: Int8Candidate, other: Int8Candidate) -> bool:
    """Return whether a candidate is better than another.

    The one that misses fewer limits is better. If neither misses one, it is the one with fewer layers in float, or
    else the one with saturation-safe weights. Else the lower mean difference of probabilities decides.
    """
    missed, kept = (
        (len(getattr(candidate, name)), len(getattr(other, name))) for name in ("failing", "kept_float")
    )
    if missed[0] != missed[1]:
        return missed[0] < missed[1]
    if missed == (0, 0) and kept[0] != kept[1]:
        return kept[0] < kept[1]
    if missed == (0, 0) and candidate.saturation_safe != other.saturation_safe:
        return candidate.saturation_safe
    return candidate.mean_abs_dp < other.mean_abs_dp


@dataclass(frozen=True)
class Measuring:
    """The frames and answers by which the ways of quantising are compared.

    Attributes:
        spec: The ModelSpec of the FP32 file.
        fitting: Frames for ranges, weights and biases, uint8 RGB (N, size, size, 3).
        frames: Frames to measure on, of the same form.
        expected: FP32's answers to ``frames``.
        original: The float network whose logits are wanted.
        progress: Called with a line for each measurement.
    """

    spec: ModelSpec
    fitting: FrameArray
    frames: FrameArray
    expected: Predictions
    original: FloatBody
    progress: Callable[[str], None]


class Trials:
    """Quantise one float network in several ways and measure each.

    Args:
        body: The network.
        measuring: The frames and the wanted answers.
        trained: The ranges that fine-tuning has set, by the name of the value; None if the network was not fine-tuned.
        evened: Whether the channels of ``body`` were evened.
    """

    def __init__(
        self,
        body: FloatBody,
        measuring: Measuring,
        *,
        trained: Mapping[str, Range] | None = None,
        evened: bool = False,
    ) -> None:
        self.body, self.measuring, self.evened = body, measuring, evened
        self.finetuned = trained is not None
        self.tried: list[Int8Candidate] = []
        histograms = collect_histograms(body, activations_of(body), measuring.fitting)
        exact = {PIXELS: body.entry.ends} if PIXELS in histograms else {}
        self.ranges: dict[str, dict[str, Range]] = {
            method: choose_ranges(body, histograms, method, exact=exact) for method in METHODS
        }
        if trained is not None:
            # Values that are none of the twin's have no trained range.
            known = {name: ends for name, ends in trained.items() if name in histograms}
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
        return correct_logits(self.body, made, self.measuring.fitting, self.measuring.original)

    def plain(self, method: str, safe: bool, fitted: bool = False) -> onnx.ModelProto:
        """Quantise every layer, without correction of the biases."""
        weights = self._fitted(method, safe) if fitted else {}
        return quantise_body(self.body, self.ranges[method], saturation_safe=safe, weights=weights)

    def _fitted(self, method: str, safe: bool) -> dict[str, npt.NDArray[np.int8]]:
        if (method, safe) not in self._weights:
            self._weights[method, safe] = round_weights(
                self.body, self.plain(method, safe), spread(self.measuring.fitting, _ROUNDING_FRAMES),
                saturation_safe=safe,
            )  # fmt: skip
        return self._weights[method, safe]

    def _bias_errors(self, method: str, safe: bool, fitted: bool) -> dict[str, npt.NDArray[np.float64]]:
        if (method, safe, fitted) not in self._errors:
            self._errors[method, safe, fitted] = bias_errors(
                self.body,
                self.plain(method, safe, fitted),
                spread(self.measuring.fitting, _CORRECTING_FRAMES),
            )
        return self._errors[method, safe, fitted]

    def measure(
        self, method: str, safe: bool, kept: Sequence[str] = (), *, fitted: bool = False
    ) -> Int8Candidate:
        """Return the candidate with its figures."""
        candidate = Int8Candidate(
            method, safe, tuple(kept), fitted, 0.0, 0.0, (), self.finetuned, self.evened
        )
        p, expected = self._answers(candidate), self.measuring.expected
        answers = dataclasses.replace(expected, probabilities=p)
        measured = dataclasses.replace(
            candidate,
            agreement=float((answers.predicted == expected.predicted).mean()),
            mean_abs_dp=float(np.abs(p - expected.probabilities).mean()),
            failing=tuple(failing_gates(expected, answers)),
        )
        self.tried.append(measured)
        self.measuring.progress(str(measured))
        return measured

    def _answers(self, candidate: Int8Candidate) -> npt.NDArray[np.float32]:
        spec = dataclasses.replace(
            self.measuring.spec, precision="int8", saturation_safe=candidate.saturation_safe
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(build_file(self.body, spec, quantised=self.quantise(candidate)), path)
            backend = open_file(path)
            answers = in_batches(file_runner(backend), self.measuring.frames)["probabilities"]
            backend.close()
        return answers


def spread(frames: FrameArray, count: int) -> FrameArray:
    """Return at most ``count`` of the frames, evenly spaced."""
    rows = np.linspace(0, len(frames) - 1, min(count, len(frames))).astype(int)
    return np.asarray(frames[rows])
