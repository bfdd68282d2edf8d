"""Quantise a network after training and, if asked for, fine-tuned as well, and decide between the two."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from capsule_edge.evaluation.classification import Predictions
from capsule_edge.runtime.inference import ModelSpec

from .finetuning import FineTuningFrames, tune_body
from .float_body import FloatBody, mark_inside
from .held_out_frames import HeldOutFrames
from .int8_search import Int8Choice, Trained, choose_int8
from .int8_trials import is_better
from .network_layers import NetworkLayer
from .onnx_source import OnnxSource
from .options import AdoptOptions
from .scaling import Scaling

__all__ = ["QuantisedNetwork", "Tuning", "quantise_network"]

# Frames on which ranges are measured, and a twin is compared with its source.
_FITTING_FRAMES, _COMPARED_FRAMES = 128, 256


@dataclass(frozen=True)
class Tuning:
    """The twin to train, and the frames to train it on.

    Attributes:
        plan: The layers of the twin.
        frames: The frames to train on.
    """

    plan: tuple[NetworkLayer, ...]
    frames: FineTuningFrames


@dataclass(frozen=True)
class QuantisedNetwork:
    """A network in 8 bits.

    Attributes:
        choice: The way of quantising that was chosen, and all that were tried. Its ``body`` is the float network of the
            source, the same with evened channels, or the fine-tuned one.
        finetuned: The record of the fine-tuning, and the figures with and without it; None without ``--finetune``.
    """

    choice: Int8Choice
    finetuned: dict[str, Any] | None = None


def quantise_network(
    source: OnnxSource,
    scaling: Scaling,
    body: FloatBody,
    spec: ModelSpec,
    frames: HeldOutFrames,
    expected: Predictions,
    options: AdoptOptions,
    tuning: Tuning | None,
    progress: Callable[[str], None],
) -> QuantisedNetwork:
    """Return the network in 8 bits that loses least of the FP32 file's answers.

    A fine-tuned network is quantised in the same ways, and judged by the same limits against the same answers on the
    same frames. The better of the two is taken (``int8_trials.is_better``).

    Args:
        source: The source.
        scaling: The scaling of its input.
        body: Its float network.
        spec: The ModelSpec of the FP32 file.
        frames: The frames of the choices.
        expected: The FP32 file's answers to them.
        options: The options of the adoption.
        tuning: The parts of a fine-tuning; None quantises after training only.
        progress: Called with each line of progress.
    """
    rows = np.linspace(0, len(frames.pixels) - 1, min(_FITTING_FRAMES, len(frames.pixels))).astype(int)

    def choose(levels: FloatBody, trained: Trained | None = None) -> Int8Choice:
        return choose_int8(
            levels, spec, fitting=frames.pixels[rows], frames=frames.pixels, expected=expected,
            keep=options.keep_float, trained=trained, progress=progress,
        )  # fmt: skip

    progress("quantising")
    plain = choose(mark_inside(body))
    if tuning is None:
        return QuantisedNetwork(plain)
    tuned = tune_body(
        source, tuning.plan, scaling, body, spec, tuning.frames, epochs=options.finetuning_epochs,
        compared=frames.pixels[:: max(1, len(frames.pixels) // _COMPARED_FRAMES)], progress=progress,
    )  # fmt: skip
    progress("quantising the fine-tuned network")
    better = choose(mark_inside(tuned.body), Trained(body, tuned.ranges))
    is_kept = is_better(better.chosen, plain.chosen)
    record = {
        **tuned.record, "kept": is_kept, "without": dataclasses.asdict(plain.chosen),
        "with": dataclasses.asdict(better.chosen),
    }  # fmt: skip
    taken = better if is_kept else plain
    tried = (*plain.tried, *better.tried)
    choice = dataclasses.replace(taken, tried=tried, evening=plain.evening)
    return QuantisedNetwork(choice, record)
