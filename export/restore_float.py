"""Find the fewest layers that must stay in float32 so that no gate of the shipping certificate fails.

The method follows NNCF's accuracy-aware quantisation (Kozlov et al., 2020), with the gates of shipping, which
include one for each class:

1. Rank the layers: keep each one alone in float and measure how near the logits come to FP32's.
2. Keep layers from the top of the ranking until no gate fails.
3. Quantise each of them again if the gates hold without it.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx

from capsule_edge.evaluation.classification import load_frames, predict
from capsule_edge.evaluation.datasets import Dataset
from capsule_edge.train.qat import keep_float, layers_with_weights

from .certify import KerasBackend
from .contract import FrameArray, Outputs, scale_pixels
from .gates import failing_gates, fewest_layers
from .int8 import build_int8_onnx, read_integers
from .run_folder import TrainedRun
from .runners import file_runner, in_batches, open_file

__all__ = ["rank_layers", "restore_layers"]

# Frames on which layers are ranked.
_RANKING_FRAMES = 48


def restore_layers(
    run: TrainedRun, dataset: Dataset, *, progress: Callable[[str], None] = lambda _: None
) -> list[str]:
    """Choose the layers of a QAT model to keep in float so that no gate of shipping fails.

    The QAT model ``run.qat`` is changed: the chosen layers, and no others, are kept in float.

    Args:
        run: The trained RUN.
        dataset: Labelled frames that neither training nor the certificates use.
        progress: Called with each line of progress.

    Returns:
        The names of the layers, the most harmful first. Empty if no gate fails without them.

    Raises:
        GateError: A gate fails even with every layer in float.
    """
    expected = predict(KerasBackend(run.fp32, run.spec, Path("keras-fp32")), dataset)
    _, frames = load_frames(dataset, run.spec.input)

    def failing(names: Sequence[str]) -> list[str]:
        answers = _run_int8(run, names, frames)
        found = failing_gates(expected, dataclasses.replace(expected, probabilities=answers["probabilities"]))
        progress(f"{len(names)} layers in float: {', '.join(found) or 'no gate'} failing")
        return found

    chosen = fewest_layers(failing, lambda: rank_layers(run, _evenly_spaced(frames))) if failing([]) else []
    keep_float(run.qat, chosen)
    return chosen


def rank_layers(run: TrainedRun, frames: FrameArray) -> list[str]:
    """Rank every layer with weights by how much keeping it in float helps.

    Args:
        run: The trained RUN. Its QAT model is changed: the layer tried last stays in float.
        frames: uint8 RGB (N, size, size, 3).

    Returns:
        The layers' names, the one first that alone brings the INT8 logits nearest to FP32's (mean squared
        difference).
    """
    expected = np.asarray(run.fp32(scale_pixels(frames), training=False))
    distance = {
        name: float(np.mean((_run_int8(run, [name], frames)["logits"] - expected) ** 2))
        for name in layers_with_weights(run.qat)
    }
    return sorted(distance, key=lambda name: distance[name])


def _run_int8(run: TrainedRun, names: Sequence[str], frames: FrameArray) -> Outputs:
    """Run the INT8 ONNX file that has the layers ``names`` in float."""
    keep_float(run.qat, names)
    spec = dataclasses.replace(run.spec, precision="int8")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(build_int8_onnx(read_integers(run.qat), spec), path)
        return in_batches(file_runner(open_file(path)), frames)


def _evenly_spaced(frames: FrameArray) -> FrameArray:
    """Return at most ``_RANKING_FRAMES`` of the frames."""
    rows = np.unique(np.linspace(0, len(frames) - 1, min(_RANKING_FRAMES, len(frames))).astype(int))
    return np.asarray(frames[rows])
