"""Write every quantised variant of one FP32 model, to compare quantisation after training (PTQ) with QAT.

    python -m capsule_edge.export.tools.variants RUN --data DIR --out DIR [--frames 512]

writes these files, as ONNX and TFLite where both exist:

- FP32;
- INT8 by QAT, as in RUN;
- INT8 by PTQ, with ranges by minimum and maximum, percentile, entropy and least squared error;
- TFLite with FP16 weights, and with dynamic ranges.

PTQ takes its ranges from frames of the videos that RUN was trained on. The accuracy of each file is measured on the
videos that RUN held out. The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import tensorflow as tf

from capsule_edge.evaluation._module import run_module
from capsule_edge.evaluation.classification import Score, score_files
from capsule_edge.evaluation.datasets import Dataset, load_training, read_frame
from capsule_edge.runtime.errors import OutputError
from capsule_edge.runtime.inference import ModelSpec
from capsule_edge.runtime.preprocessing import preprocess
from capsule_edge.train.qat import is_saturation_safe

from ..contract import scale_pixels
from ..fp32 import ServingModel, build_fp32_onnx, build_fp32_tflite
from ..held_out import split_held_out
from ..int8 import METHODS, build_int8_onnx, build_int8_tflite, quantize_after_training, read_integers
from ..run_folder import TrainedRun, load_run
from ..runners import open_file

__all__ = ["make_variants", "representative"]

_BATCH = 32


def representative(dataset: Dataset, run: TrainedRun, count: int) -> list[npt.NDArray[np.float32]]:
    """Draw frames for PTQ, as evenly over the labels as the data set allows.

    Args:
        dataset: Labelled frames to draw from.
        run: The RUN whose preprocessing is used.
        count: Number of frames.

    Returns:
        Batches of at most 32 frames, float32 (N, size, size, 3) in [-1, 127/128].
    """
    rng = np.random.default_rng(0)
    labels = np.array([sample.label for sample in dataset.samples])
    shuffled = rng.permutation(len(labels))
    # Take the first frame of each label, then the second of each, and so on.
    turn = np.empty(len(labels), int)
    for label in np.unique(labels):
        rows = shuffled[labels[shuffled] == label]
        turn[rows] = np.arange(len(rows))
    chosen = shuffled[np.argsort(turn[shuffled], kind="stable")][:count]
    frames = np.stack([preprocess(read_frame(dataset.samples[row]), run.spec.input) for row in chosen])
    pixels = scale_pixels(frames)
    return [pixels[at : at + _BATCH] for at in range(0, len(pixels), _BATCH)]


def make_variants(
    run: TrainedRun,
    batches: Sequence[npt.NDArray[np.float32]],
    folder: Path,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Write every variant.

    Args:
        run: The trained RUN.
        batches: Representative frames for PTQ, float32 (N, size, size, 3) in [-1, 127/128].
        folder: Where to write; it is made if it does not exist.
        progress: Called with each line of progress.

    Returns:
        The files, FP32 ONNX first.

    Raises:
        OutputError: The folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror}") from None
    progress("writing FP32, FP16 and dynamic ranges")
    paths = _write_float_variants(run, folder)
    safe = is_saturation_safe(run.qat)
    for method in (None, *METHODS):
        name = f"ptq-{method}" if method else "qat"
        progress(f"writing INT8, {name}")
        model = run.qat
        if method:
            model = quantize_after_training(run.fp32, batches, method=method, saturation_safe=safe)
        integers = read_integers(model)
        spec = dataclasses.replace(_variant_spec(run.spec, name), precision="int8", saturation_safe=safe)
        paths += [folder / f"{name}.onnx", folder / f"{name}.tflite"]
        onnx.save(build_int8_onnx(integers, spec), paths[-2])
        paths[-1].write_bytes(build_int8_tflite(integers, spec))
    return paths


def _write_float_variants(run: TrainedRun, folder: Path) -> list[Path]:
    serving = ServingModel(run.fp32, run.spec)
    paths = [folder / "fp32.onnx"]
    onnx.save(build_fp32_onnx(serving, run.spec), paths[0])
    for name, configure in _CONVERSIONS.items():
        paths.append(folder / f"{name}.tflite")
        paths[-1].write_bytes(build_fp32_tflite(serving, _variant_spec(run.spec, name), configure=configure))
    return paths


def _fp32(converter: Any) -> None:
    """Leave the converter as it is: float32."""


def _fp16(converter: Any) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]


def _dynamic(converter: Any) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]


_CONVERSIONS: dict[str, Callable[[Any], None]] = {"fp32": _fp32, "fp16": _fp16, "dynamic": _dynamic}


def _variant_spec(spec: ModelSpec, variant: str) -> ModelSpec:
    return dataclasses.replace(spec, provenance={**spec.provenance, "variant": variant}, parity=None)


def _table(scores: Sequence[Score]) -> str:
    lines = [
        f"{'file':24}{'engine':13}{'bytes':>11}{'macro-F1':>10}{'mean AUC':>10}{'agreement':>11}{'rms dp':>9}"
    ]
    for s in scores:
        figures = "".join(f"{'-' if v is None else f'{v:.4f}':>10}" for v in (s.macro_f1, s.mean_auc))
        lines.append(f"{s.file:24}{s.backend:13}{s.bytes:>11,}{figures}{s.agreement:>11.2%}{s.rms_dp:>9.4f}")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder that training wrote")
    parser.add_argument("--data", type=Path, required=True, help="data set that RUN was trained on")
    parser.add_argument("--split", help="split to read; default: train, else all")
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--frames", type=int, default=512, help="number of representative frames for PTQ")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    options = _parser().parse_args(arguments)

    def progress(step: str) -> None:
        print(step, file=sys.stderr)

    run = load_run(options.run)
    dataset = load_training(options.data, split=options.split)
    calibrating, measuring = split_held_out(options.run, dataset, progress=progress)
    batches = representative(calibrating, run, options.frames)
    paths = make_variants(run, batches, options.out, progress=progress)
    scores = score_files([open_file(path) for path in paths], measuring, progress=progress)
    print(_table(scores))
    document = {
        "frames": len(measuring.samples),
        "representative": sum(len(batch) for batch in batches),
        "variants": [dataclasses.asdict(score) for score in scores],
    }
    print(json.dumps(document, allow_nan=False))


if __name__ == "__main__":
    run_module(main)
