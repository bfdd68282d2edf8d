"""Which layer hurts: the ratio of signal to quantisation noise of each layer, in decibels.

``own_db`` is what the layer itself loses: it is given FP32's values, rounded to its input's scale, and its
output compared with FP32's. ``total_db`` compares what reaches it in the whole INT8 model, with all that the
layers before it lost. The layer to look at first is the one whose own ratio is lowest; 6 dB are one bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tf_keras

from capsule_edge.train.qat import observed_ranges

from .integers import IntegerModel, IntegerTensor
from .reference import Integers, compute, compute_node
from .runners import Frames

__all__ = ["LayerNoise", "measure_layers"]


@dataclass(frozen=True)
class LayerNoise:
    """Signal to noise of one layer's output in dB, infinite where nothing is lost."""

    layer: str
    kind: str
    own_db: float
    total_db: float


def measure_layers(model: IntegerModel, qat_model: Any, fp32_model: Any, frames: Frames) -> list[LayerNoise]:
    """Every layer of ``model`` (read from ``qat_model``, made of ``fp32_model``), the one that loses most
    first.

    ``frames`` are uint8 (N, s, s, 3). Where QAT has moved the weights, what they changed counts as noise too.
    """
    sources = {point.layer: point.source for point in observed_ranges(qat_model)}
    nodes = [node for node in model.nodes if node.output.name in sources]
    outputs = [fp32_model.get_layer(sources[node.output.name]).output for node in nodes]
    values = tf_keras.Model(fp32_model.inputs, outputs)(
        (frames.astype(np.float32) - 128) / 128, training=False
    )
    shapes = {node.output.name: (len(frames), *node.output.shape) for node in nodes}
    real = {
        node.output.name: np.asarray(value).reshape(shapes[node.output.name])
        for node, value in zip(nodes, values, strict=True)
    }
    whole = compute(model, frames)
    given: dict[str, Integers] = {model.pixels.name: whole[model.pixels.name]}
    noises = []
    for node in model.nodes:
        own = compute_node(node, [given[tensor.name] for tensor in node.inputs])
        name = node.output.name
        if name not in real:
            given[name] = own
            continue
        noises.append(
            LayerNoise(
                node.name,
                node.kind,
                _decibels(real[name], _real(own, node.output)),
                _decibels(real[name], _real(whole[name], node.output)),
            )
        )
        steps = np.rint(real[name] / node.output.scale) + node.output.zero_point
        given[name] = np.asarray(np.clip(steps, -128, 127), np.int8)
    return sorted(noises, key=lambda noise: noise.own_db)


def _real(values: Integers, tensor: IntegerTensor) -> npt.NDArray[np.float64]:
    return (values.astype(np.float64) - tensor.zero_point) * float(tensor.scale)


def _decibels(signal: npt.NDArray[np.float32], found: npt.NDArray[np.float64]) -> float:
    noise = float(np.mean((found - signal) ** 2))
    power = float(np.mean(signal.astype(np.float64) ** 2))
    return float("inf") if noise == 0 else 10 * float(np.log10(max(power, 1e-30) / noise))
