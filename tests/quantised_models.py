"""Small untrained models with ranges calibrated on smooth random fields, for the tests of QAT and export."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tf_keras
from tiny_model import tiny_spec

from capsule_edge.export.run_folder import synthetic_frames
from capsule_edge.train.models import architectures, weights
from capsule_edge.train.qat import quantised_model as qat

if TYPE_CHECKING:
    from capsule_edge.export.bundle import ExportReport
    from capsule_edge.export.int8 import IntegerModel
    from capsule_edge.export.run_folder import TrainedRun

KEYS = tuple(f"label_{index}" for index in range(5))


@dataclass(frozen=True)
class Exported:
    """A RUN folder, the RUN as it is loaded, its integers, and the report of its export."""

    folder: Path
    run: TrainedRun
    integers: IntegerModel
    report: ExportReport


def short_mobilenet(x: Any, layers: Any) -> Any:
    """The first blocks of MobileNetV2 under the same layer names: depthwise layers and one addition."""

    def convolve(x: Any, name: str, filters: int, stride: int = 1, *, relu: bool = True) -> Any:
        if name.endswith("_depthwise"):
            x = layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False, name=name)(x)
        else:
            window = 3 if name == "Conv1" else 1
            x = layers.Conv2D(filters, window, stride, padding="same", use_bias=False, name=name)(x)
        x = layers.BatchNormalization(epsilon=1e-3, name=f"{name}_BN")(x)
        return layers.ReLU(6.0, name=f"{name}_relu")(x) if relu else x

    x = convolve(x, "Conv1", 16, 2)
    x = convolve(x, "expanded_conv_depthwise", 0, 2)
    x = convolve(x, "expanded_conv_project", 8, relu=False)
    for block, stride in (("block_1", 2), ("block_2", 1)):
        before = x
        x = convolve(x, f"{block}_expand", 48)
        x = convolve(x, f"{block}_depthwise", 0, stride)
        x = convolve(x, f"{block}_project", 8, relu=False)
        if stride == 1:
            x = layers.Add(name=f"{block}_add")([before, x])
    return convolve(x, "Conv_1", 64)


def pixels_of(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Scale uint8 frames to the input of a Keras model, [-1, 127/128]."""
    return (frames.astype(np.float32) - 128) / 128


def fp32_model(architecture: str = "plain_cnn", size: int = 64) -> Any:
    """Build a seeded model with the batch statistics of random fields, and logits spread over several units."""
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
    """Quantise a model and calibrate its ranges."""
    size = model.inputs[0].shape[1]
    quantised = qat.quantize(model, saturation_safe=saturation_safe)
    pixels = pixels_of(synthetic_frames(size, seed=2))
    qat.calibrate(quantised, model, [pixels[:16], pixels[16:]])
    return quantised


def write_run(folder: Path, architecture: str, size: int, *, saturation_safe: bool = True) -> Path:
    """Write a RUN folder as training leaves it, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    model = fp32_model(architecture, size)
    spec = tiny_spec(KEYS, size, temperature=1.5).to_dict()
    del spec["precision"]
    document = {"architecture": architecture, "size": size, "labels": len(KEYS), "spec": spec}
    (folder / "run.json").write_text(json.dumps(document), "utf-8")
    weights.save(folder / "fp32.weights.npz", weights.collect(model))
    qat.save_qat(folder / "qat.weights.npz", calibrated(model, saturation_safe=saturation_safe))
    return folder
