"""The fewest layers that must stay in float32 for the gates of shipping to hold, each class's among them.

After NNCF's accuracy-aware quantisation (Kozlov et al., 2020), with other gates: layers are ranked by how much nearer
the logits come to FP32's when one alone is kept in float, taken from the top until no gate fails, and given back one by
one where the gates hold without.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from capsule_edge.evaluation.classification import Predictions, load_frames, predict
from capsule_edge.evaluation.datasets import Dataset
from capsule_edge.evaluation.parity import certify
from capsule_edge.runtime.errors import GateError
from capsule_edge.train.qat import keep_float, layers_with_weights

from .certify import KerasBackend
from .int8 import build_int8_onnx, read_integers
from .run_folder import Run
from .runners import Frames, file_runner, in_batches, open_file

__all__ = ["failing_gates", "rank_layers", "restore_layers"]

# Frames on which layers are ranked, and the resamples of the gates' intervals: enough to order and to judge.
_RANKING_FRAMES = 48
_RESAMPLES = 300
_NONE = {"file": "", "name": "", "version": None, "precision": None, "sha256": "", "backend": None}


def restore_layers(
    run: Run, dataset: Dataset, *, progress: Callable[[str], None] = lambda _: None
) -> list[str]:
    """The layers of ``run.qat`` to keep in float so that no gate fails on ``dataset``; none where none fails.

    The QAT model is left with those layers kept. Raises ``GateError`` when the gates fail even with all of them.
    """
    expected = predict(KerasBackend(run.fp32, run.spec, Path("keras-fp32")), dataset)
    _, frames = load_frames(dataset, run.spec.input)

    def failing(names: Sequence[str]) -> list[str]:
        answers = _answers(run, names, frames)
        found = failing_gates(expected, dataclasses.replace(expected, probabilities=answers["probabilities"]))
        progress(f"{len(names)} layers in float: {', '.join(found) or 'no gate'} failing")
        return found

    if not failing([]):
        keep_float(run.qat, [])
        return []
    chosen = rank_layers(run, _spread(frames))
    if failed := failing(chosen):
        raise GateError(
            f"{', '.join(failed)} fails even with every layer in float",
            hint="quantisation-aware training has moved the weights too far from FP32's: distil longer",
        )
    low, high = 1, len(chosen)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if not failing(chosen[:middle]) else (middle + 1, high)
    chosen = chosen[:low]
    for name in reversed(chosen[:-1]):
        fewer = [other for other in chosen if other != name]
        if not failing(fewer):
            chosen = fewer
    keep_float(run.qat, chosen)
    return chosen


def failing_gates(a: Predictions, b: Predictions) -> list[str]:
    """The gates of shipping that ``b`` fails against ``a``; one that is undecided does not."""
    models = {"a": _NONE, "b": _NONE}
    document = certify(a, b, kind="shipping", models=models, data={}, resamples=_RESAMPLES)
    return [gate["name"] for gate in document["gates"] if gate["verdict"] == "fail"]


def rank_layers(run: Run, frames: Frames) -> list[str]:
    """Every layer with weights, the one first whose keeping brings the logits nearest to FP32's on ``frames``."""
    pixels = (frames.astype(np.float32) - 128) / 128
    expected = np.asarray(run.fp32(pixels, training=False))
    distance = {
        name: float(np.mean((_answers(run, [name], frames)["logits"] - expected) ** 2))
        for name in layers_with_weights(run.qat)
    }
    return sorted(distance, key=lambda name: distance[name])


def _answers(run: Run, names: Sequence[str], frames: Frames) -> Any:
    """What the INT8 ONNX file with the layers ``names`` in float answers."""
    keep_float(run.qat, names)
    spec = dataclasses.replace(run.spec, precision="int8")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(build_int8_onnx(read_integers(run.qat), spec), path)
        return in_batches(file_runner(open_file(path)), frames)


def _spread(frames: Frames) -> npt.NDArray[np.uint8]:
    """At most ``_RANKING_FRAMES`` of the frames, evenly over all of them."""
    rows = np.unique(np.linspace(0, len(frames) - 1, min(_RANKING_FRAMES, len(frames))).astype(int))
    return np.asarray(frames[rows])
