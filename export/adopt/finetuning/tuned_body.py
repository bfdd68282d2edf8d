"""Fine-tune a Keras network for 8 bits: rebuild it, compare it, train it, and convert it to a float network again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from capsule_edge.runtime.errors import ModelError
from capsule_edge.runtime.inference import ModelSpec

from ...contract import FrameArray
from ..activation_ranges import Range
from ..facts import Floats
from ..float_body import FloatBody, make_body
from ..graph import Graph
from ..input_chain import follow_input
from ..judgement import MOST_DP, largest_difference, to_probabilities
from ..network_layers import NetworkLayer
from ..onnx_source import OnnxSource, read_onnx
from ..scaling import Scaling
from .distillation import SEED, Lesson, distil
from .trained_ranges import carry_ranges
from .training_frames import FineTuningFrames
from .twin_process import TwinProcess

__all__ = ["TunedBody", "tune_body"]

_BATCH = 16


@dataclass(frozen=True)
class TunedBody:
    """A fine-tuned float network.

    Attributes:
        body: The network.
        ranges: The ranges that training set, by the name of the value.
        record: The training as provenance records it: epochs, frames, their data set, and the loss.
    """

    body: FloatBody
    ranges: Mapping[str, Range]
    record: dict[str, Any]


def tune_body(
    source: OnnxSource,
    plan: tuple[NetworkLayer, ...],
    scaling: Scaling,
    body: FloatBody,
    spec: ModelSpec,
    frames: FineTuningFrames,
    *,
    epochs: int,
    compared: FrameArray,
    progress: Callable[[str], None] = lambda _: None,
) -> TunedBody:
    """Return a network of the same layers, trained so that its 8-bit form answers as the FP32 source does.

    Args:
        source: The source.
        plan: The layers of its twin (``twin_plan``).
        scaling: The scaling of its input.
        body: Its float network, which teaches.
        spec: The ModelSpec of the FP32 file.
        frames: The frames to train on.
        epochs: How often each frame is shown.
        compared: Frames on which the twin is compared with the source before it is trained, uint8 RGB.
        progress: Called with each line of progress.

    Raises:
        ModelError: The twin does not answer as its source, or the trained twin cannot be converted.
    """
    teach = body.runner()

    def scale(pixels: FrameArray) -> Floats:
        return scaling.apply(pixels, "nhwc")

    def probabilities(pixels: FrameArray) -> Floats:
        return to_probabilities(teach(pixels) / spec.temperature).astype(np.float32)

    progress(f"fine-tuning on {len(frames.dataset.samples):,} frames of {frames.dataset.root}")
    twin = TwinProcess(source.path, plan, SEED)
    try:
        difference = _compare(source.path, twin, scale, teach, compared)
        lesson = Lesson(frames.dataset, spec.input, scale, probabilities, epochs)
        trained = distil(twin, lesson, spec.temperature, progress)
        with tempfile.TemporaryDirectory() as folder:
            twin.convert(Path(folder) / "twin.onnx")
            tuned = _read(Path(folder) / "twin.onnx", source, scaling)
        few = compared[:_BATCH]
        ranges = carry_ranges(tuned, tuned.entry.apply(few), twin.ranges(scale(few)))
    finally:
        twin.close()
    if tuned.map_sides != body.map_sides:
        raise ModelError(f"{source.path}: the fine-tuned network does not end as its source does")
    record = {
        "epochs": epochs, "frames": trained.frames, "steps": trained.steps, "first_loss": trained.first_loss,
        "last_loss": trained.last_loss, "twin_max_abs_dp": difference, **frames.describe(),
    }  # fmt: skip
    return TunedBody(tuned, ranges, record)


def _compare(
    path: Path, twin: TwinProcess, scale: Callable[[FrameArray], Floats], teach: Callable[[FrameArray], Floats],
    frames: FrameArray,
) -> float:  # fmt: skip
    """Compare the twin with its source on real frames. Raise ``ModelError`` if they differ."""
    parts = [frames[at : at + _BATCH] for at in range(0, len(frames), _BATCH)]
    ours = np.concatenate([twin.answer(scale(part)) for part in parts])
    difference = largest_difference(ours, np.concatenate([teach(part) for part in parts]))
    if not difference <= MOST_DP:
        raise ModelError(
            f"the twin of {path} in tf_keras differs from it by {difference:.3g} in a probability on {len(frames)}"
            f" frames, allowed is {MOST_DP:g}",
            hint="leave --finetune out, and please report this with the model's architecture",
        )
    return difference


def _read(path: Path, source: OnnxSource, scaling: Scaling) -> FloatBody:
    """Read the converted twin, and join it with the scaling."""
    made = read_onnx(path)
    chain = follow_input(Graph(made.proto), made.input, made.layout)
    return make_body(made, chain, scaling, "logits")
