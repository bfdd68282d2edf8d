"""Write the FP32 file of a cross-validation fold, to read recordings that the shipped model was trained on.

    python -m capsule_edge.export.tools.fold_model RUN FOLDS/NAME/fold0.npz fold0.onnx --before OOF --after GRID_OOF

RUN is the run folder of the shipped model; its spec goes into the file. ``--before`` and ``--after`` are out-of-fold
answers for the same frames. ``capsule-edge train --recipes`` wrote the first as ``out_of_fold.npz``, and its last
pass for 8 bits the second: the first times a factor plus a shift, which stand for what the pass did to the shipped
model. This program applies the same factor and shift to the last layer of the fold's model.

The file names the videos that the model was trained on: those of the RUN without those that the fold held out, which
``fold0.answers.npz`` beside the weights lists. Without that table the file names no videos.
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

__all__ = ["factor_and_shift", "without_held_out", "write_fold_model"]


def factor_and_shift(before: Path, after: Path) -> tuple[float, npt.NDArray[np.float64]]:
    """Find the factor and the shift that turn the logits in ``before`` into those in ``after``.

    Args:
        before: Out-of-fold answers (NPZ with ``logits``, (N, labels)).
        after: The answers of the same frames after the second step.

    Returns:
        The factor, and the shift of each label, float64 (labels,).

    Raises:
        InputError: A file holds no answers, the files are of different frames, or no factor and shift fits.
    """
    old, new = _logits(before), _logits(after)
    if old.shape != new.shape:
        raise InputError(
            f"{before} has answers of shape {old.shape}, {after} of {new.shape}: they are of other frames"
        )
    spread = old - old.mean(0)
    factor = float((spread * (new - new.mean(0))).sum() / (spread * spread).sum())
    shift = (new - factor * old).mean(0)
    if np.abs(factor * old + shift - new).max() > 1e-3:
        raise InputError(
            f"{after} is not {before} with a factor and a shift",
            hint="give the answers that a pass for 8 bits wrote",
        )
    return factor, shift


def _logits(path: Path) -> npt.NDArray[np.float64]:
    try:
        with np.load(path) as archive:
            return np.asarray(archive["logits"], np.float64)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} holds no out-of-fold answers: {error}") from None


def without_held_out(spec: ModelSpec, fold: Path) -> ModelSpec:
    """Return the ModelSpec for a fold's weights.

    Args:
        spec: The ModelSpec of a RUN that was trained on all of ``train``.
        fold: The weights of a fold, ``foldN.npz``, or ``all.npz`` for weights trained on every frame.

    Returns:
        ``spec`` with the fold's held-out videos removed from ``training_videos``. Where the held-out videos are
        unknown, ``training_videos`` is removed. For ``all`` the spec is returned as it is.
    """
    part = fold.name.split(".")[0]
    if part == "all":
        return spec
    provenance = dict(spec.provenance)
    marks = provenance.pop("training_videos", None)
    provenance.pop("training_frames_without_video", None)
    answers = fold.with_name(f"{part}.answers.npz")
    if marks is not None and answers.exists():
        with np.load(answers) as archive:
            held_out = {video_mark(str(video)) for video in archive["videos"]}
        provenance["training_videos"] = sorted(set(marks) - held_out)
    return replace(spec, provenance=provenance)


def write_fold_model(
    run: Path, fold: Path, out: Path, *, before: Path | None = None, after: Path | None = None
) -> None:
    """Write the FP32 ONNX file of a fold's model.

    Args:
        run: The run folder of the shipped model.
        fold: The weights of the fold, NPZ, beside the ``config.json`` they were trained with.
        out: The file to write.
        before: Out-of-fold answers of the first step. Given together with ``after``.
        after: Out-of-fold answers of the second step.

    Raises:
        UsageError: Only one of ``before`` and ``after`` is given.
        InputError: A file cannot be read or does not fit the others.
    """
    if (before is None) != (after is None):
        raise UsageError("--before and --after go together: the factor and shift lead from one to the other")
    fp32, spec = load_fp32(run)
    spec = without_held_out(spec, fold)
    arrays = weights.load(fold)
    branched = TrainConfig.read(fold.parent / "config.json").architecture in BRANCHED
    weights.assign(fp32, merge(arrays) if branched else arrays)
    if before and after:
        factor, shift = factor_and_shift(before, after)
        kernel, bias = fp32.get_layer("logits").weights
        kernel.assign(kernel * factor)
        bias.assign(bias * factor + shift)
    onnx.save(build_fp32_onnx(ServingModel(fp32, spec), spec), out)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="run folder of the shipped model")
    parser.add_argument("fold", type=Path, help="weights of the fold, NPZ")
    parser.add_argument("out", type=Path, help="ONNX file to write")
    parser.add_argument("--before", type=Path, help="out-of-fold answers of the recipe")
    parser.add_argument(
        "--after", type=Path, help="out-of-fold answers of its pass for 8 bits, for the same frames"
    )
    options = parser.parse_args()
    write_fold_model(options.run, options.fold, options.out, before=options.before, after=options.after)


if __name__ == "__main__":
    run_module(main)
