"""Quantisation after training beside quantisation-aware training, from one FP32 model.

    python -m capsule_edge.export.tools.variants RUN --data DIR --out DIR [--frames 512]

writes FP32 and INT8 files (ONNX and TFLite; INT8 by QAT as in RUN, and after training with ranges by minimum and
maximum, percentile and entropy) and TFLite with FP16 weights and with dynamic ranges. The representative frames are of
``train`` videos; what the files are worth is measured on those that the run held out. Ends in one line of JSON.
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
from tensorflow.lite.python import schema_py_generated as schema

from capsule_edge.evaluation._module import run_module
from capsule_edge.evaluation.classification import Score, score_files
from capsule_edge.evaluation.datasets import Dataset, load_training, read_frame
from capsule_edge.runtime.errors import OutputError
from capsule_edge.runtime.inference import ModelSpec, open_model
from capsule_edge.runtime.preprocessing import preprocess
from capsule_edge.train.qat import is_saturation_safe

from ..fp32 import ServingModel, build_fp32_onnx
from ..held_out import part
from ..int8 import METHODS, build_int8_onnx, build_int8_tflite, finish, quantize_after_training, read_integers
from ..run_folder import Run, load_run

__all__ = ["make_variants", "representative"]

Progress = Callable[[str], None]
_BATCH = 32


def representative(dataset: Dataset, run: Run, count: int) -> list[npt.NDArray[np.float32]]:
    """Batches of ``count`` frames, as many of each label as there are, float32 (N, s, s, 3) in [-1, 127/128]."""
    rng = np.random.default_rng(0)
    labels = np.array([sample.label for sample in dataset.samples])
    shuffled = rng.permutation(len(labels))
    # The first frame of each label, then the second of each, and so on.
    turn = np.empty(len(labels), int)
    for label in np.unique(labels):
        rows = shuffled[labels[shuffled] == label]
        turn[rows] = np.arange(len(rows))
    chosen = shuffled[np.argsort(turn[shuffled], kind="stable")][:count]
    frames = np.stack([preprocess(read_frame(dataset.samples[row]), run.spec.input) for row in chosen])
    pixels = np.asarray((frames.astype(np.float32) - 128) / 128, np.float32)
    return [pixels[at : at + _BATCH] for at in range(0, len(pixels), _BATCH)]


def make_variants(
    run: Run, batches: Sequence[npt.NDArray[np.float32]], folder: Path, *, progress: Progress = lambda _: None
) -> list[Path]:
    """Write every variant into ``folder``, the FP32 ONNX file first. Raises ``OutputError``."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror}") from None
    serving = ServingModel(run.fp32, run.spec)
    paths = [folder / "fp32.onnx"]
    progress("FP32, FP16 and dynamic ranges")
    onnx.save(build_fp32_onnx(serving, run.spec), paths[0])
    for name, change in _CONVERSIONS.items():
        paths.append(folder / f"{name}.tflite")
        paths[-1].write_bytes(_convert(serving, _named(run.spec, name), change))
    safe = is_saturation_safe(run.qat)
    for name in ("qat", *METHODS):
        progress(f"INT8, {name}")
        model = run.qat
        if name != "qat":
            model = quantize_after_training(run.fp32, batches, method=name, saturation_safe=safe)  # type: ignore[arg-type]
            name = f"ptq-{name}"
        integers = read_integers(model)
        spec = dataclasses.replace(_named(run.spec, name), precision="int8", saturation_safe=safe)
        paths += [folder / f"{name}.onnx", folder / f"{name}.tflite"]
        onnx.save(build_int8_onnx(integers, spec), paths[-2])
        paths[-1].write_bytes(build_int8_tflite(integers, spec))
    return paths


def _fp32(converter: Any) -> None:
    return None


def _fp16(converter: Any) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]


def _dynamic(converter: Any) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]


_CONVERSIONS: dict[str, Callable[[Any], None]] = {"fp32": _fp32, "fp16": _fp16, "dynamic": _dynamic}


def _convert(serving: ServingModel, spec: ModelSpec, change: Callable[[Any], None]) -> bytes:
    function = serving.serve.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], serving)
    change(converter)
    return finish(schema.ModelT.InitFromObj(schema.Model.GetRootAs(converter.convert(), 0)), spec)


def _named(spec: ModelSpec, variant: str) -> ModelSpec:
    return dataclasses.replace(spec, provenance={**spec.provenance, "variant": variant}, parity=None)


def _table(scores: Sequence[Score]) -> str:
    lines = [
        f"{'file':24}{'engine':13}{'bytes':>11}{'macro-F1':>10}{'mean AUC':>10}{'agreement':>11}{'rms dp':>9}"
    ]
    for s in scores:
        figures = "".join(f"{'-' if v is None else f'{v:.4f}':>10}" for v in (s.macro_f1, s.mean_auc))
        lines.append(f"{s.file:24}{s.backend:13}{s.bytes:>11,}{figures}{s.agreement:>11.2%}{s.rms_dp:>9.4f}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", help="default: train, else all")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=512, help="representative frames")
    options = parser.parse_args(arguments)

    def progress(step: str) -> None:
        print(step, file=sys.stderr)

    run = load_run(options.run)
    dataset = load_training(options.data, split=options.split)
    calibrating, measuring = part(options.run, dataset, progress=progress)
    batches = representative(calibrating, run, options.frames)
    paths = make_variants(run, batches, options.out, progress=progress)
    opened = [
        open_model(path, backend="litert" if path.suffix == ".tflite" else "onnxruntime") for path in paths
    ]
    scores = score_files(opened, measuring, progress=progress)
    print(_table(scores))
    document = {
        "frames": len(measuring.samples),
        "representative": sum(len(batch) for batch in batches),
        "variants": [dataclasses.asdict(score) for score in scores],
    }
    print(json.dumps(document, allow_nan=False))


if __name__ == "__main__":
    run_module(main)
