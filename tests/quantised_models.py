"""Small untrained models with ranges calibrated on smooth random fields, for the tests of QAT and export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tf_keras
from tiny_model import tiny_spec

from capsule_edge.export.run_folder import synthetic_frames
from capsule_edge.train.models import architectures, weights
from capsule_edge.train.qat import quantised_model as qat

KEYS = tuple(f"label_{index}" for index in range(5))


def pixels_of(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return (frames.astype(np.float32) - 128) / 128


def fp32_model(architecture: str = "plain_cnn", size: int = 64) -> Any:
    """A seeded model whose batch normalisation knows its own statistics, with logits of some size."""
    tf_keras.utils.set_random_seed(1)
    model = architectures.build(architecture, size=size, labels=len(KEYS), keras=tf_keras)
    for layer in model.layers:
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            layer.momentum = 0.0
            layer.beta.assign(np.random.default_rng(3).normal(0.3, 0.2, layer.beta.shape))
    model(pixels_of(synthetic_frames(size, seed=1)), training=True)
    dense = model.layers[-1]
    dense.kernel.assign(dense.kernel * 8)
    dense.bias.assign(np.linspace(-1, 1, len(KEYS)))
    return model


def calibrated(model: Any, *, saturation_safe: bool = False) -> Any:
    size = model.inputs[0].shape[1]
    quantised = qat.quantize(model, saturation_safe=saturation_safe)
    pixels = pixels_of(synthetic_frames(size, seed=2))
    qat.calibrate(quantised, model, [pixels[:16], pixels[16:]])
    return quantised


def write_run(folder: Path, architecture: str, size: int, *, saturation_safe: bool = True) -> Path:
    """A RUN folder as training leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    model = fp32_model(architecture, size)
    spec = tiny_spec(KEYS, size, temperature=1.5).to_dict()
    del spec["precision"]
    document = {"architecture": architecture, "size": size, "labels": len(KEYS), "spec": spec}
    (folder / "run.json").write_text(json.dumps(document), "utf-8")
    weights.save(folder / "fp32.weights.npz", weights.collect(model))
    qat.save_qat(folder / "qat.weights.npz", calibrated(model, saturation_safe=saturation_safe))
    return folder
