"""The FP32 file of a fold's model: what reads a recording that the shipped model was trained on.

    python -m capsule_edge.export.tools.fold_model RUN FOLDS/NAME/fold0.npz fold0.onnx --before OOF --after GRID_OOF

RUN is the run folder of the model that ships, its spec goes into the file. ``--before`` and ``--after`` are the
out-of-fold answers to the same frames as ``train.folds`` and ``train.gpu_qat`` left them: the factor and the shift
between the two, which stand for what the second step did to the shipped model, go into the last layer.

The videos that the fold held out, which ``fold0.answers.npz`` beside its weights names, are not among those that the
file says it was trained on. Without that table the file does not say which those were.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from capsule_edge.evaluation._module import run_module
from capsule_edge.evaluation.datasets import video_mark
from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.runtime.inference import ModelSpec
from capsule_edge.train.config import TrainConfig
from capsule_edge.train.models import BRANCHED, merge, weights

from ..fp32 import ServingModel, build_fp32_onnx
from ..run_folder import load_fp32

__all__ = ["carried", "without_held_out", "write_fold_model"]


def carried(before: Path, after: Path) -> tuple[float, npt.NDArray[np.float64]]:
    """Factor and shift (labels,) that make the logits of ``after`` of those of ``before``.

    Raises ``InputError`` where one holds no answers, the two are not of the same frames, or no factor and shift does
    that.
    """
    old, new = _logits(before), _logits(after)
    if old.shape != new.shape:
        raise InputError(f"{before} has answers {old.shape}, {after} {new.shape}: they are of other frames")
    spread = old - old.mean(0)
    factor = float((spread * (new - new.mean(0))).sum() / (spread * spread).sum())
    shift = (new - factor * old).mean(0)
    if np.abs(factor * old + shift - new).max() > 1e-3:
        raise InputError(
            f"{after} is not {before} with a factor and a shift", hint="train.gpu_qat makes it so"
        )
    return factor, shift


def _logits(path: Path) -> npt.NDArray[np.float64]:
    try:
        with np.load(path) as archive:
            return np.asarray(archive["logits"], np.float64)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} holds no out-of-fold answers: {error}") from None


def without_held_out(spec: ModelSpec, fold: Path) -> ModelSpec:
    """``spec`` of a run on all of ``train``, for the weights ``fold``: of all but what the fold held out."""
    part = fold.name.split(".")[0]
    if part == "all":
        return spec
    said = dict(spec.provenance)
    marks = said.pop("training_videos", None)
    said.pop("training_frames_without_video", None)
    answers = fold.with_name(f"{part}.answers.npz")
    if marks is not None and answers.exists():
        with np.load(answers) as archive:
            held_out = {video_mark(str(video)) for video in archive["videos"]}
        said["training_videos"] = sorted(set(marks) - held_out)
    return replace(spec, provenance=said)


def write_fold_model(
    run: Path, fold: Path, out: Path, *, before: Path | None = None, after: Path | None = None
) -> None:
    """Write ``out``. Raises ``InputError`` for files that do not fit each other, ``UsageError`` for half a pair."""
    if (before is None) != (after is None):
        raise UsageError("--before and --after go together: what is carried is from one to the other")
    fp32, spec = load_fp32(run)
    spec = without_held_out(spec, fold)
    arrays = weights.load(fold)
    branched = TrainConfig.read(fold.parent / "config.json").architecture in BRANCHED
    weights.assign(fp32, merge(arrays) if branched else arrays)
    if before and after:
        factor, shift = carried(before, after)
        kernel, bias = fp32.get_layer("logits").weights
        kernel.assign(kernel * factor)
        bias.assign(bias * factor + shift)
    onnx.save(build_fp32_onnx(ServingModel(fp32, spec), spec), out)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("fold", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--after", type=Path)
    options = parser.parse_args()
    write_fold_model(options.run, options.fold, options.out, before=options.before, after=options.after)


if __name__ == "__main__":
    run_module(main)
