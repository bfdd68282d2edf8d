"""Equalise the channels of an FP32 model and round its weights to the integer grid, without further training.

An 8-bit tensor has one scale, so a channel of small values has few steps. Between two convolutions a channel
can be scaled up if its reader's weights are scaled down: the function stays the same and the steps get finer
(Nagel et al., ICCV 2019). In depthwise networks most of the noise comes from such channels: behind the first
convolution of MobileNetV2 some channels never exceed a tenth of the range. Weights have one scale for each
output channel and lose nothing there.

The weights are then rounded as in the INT8 file. The shipped FP32 model thus computes with exactly the
weights of its INT8 twin, and the two differ by the rounding of activations alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tf_keras

from ..models import weights
from .channels import group_channels
from .fold_batch_norm import FoldedLayer, fold_layers, kernel_of
from .quantised_model import pairs_of
from .weight_ranges import weight_limits

__all__ = ["equalise", "snap"]

_layers = tf_keras.layers
Floats = npt.NDArray[np.float64]
# A channel may exceed its observed reach by this factor before a ReLU's ceiling cuts it.
_MARGIN = 1.25
# The largest factor of a channel. Beyond it, its reader's weights have too few steps if they share a scale.
_MOST, _MOST_DEPTHWISE = 4.0, 16.0


def equalise(model: Any, batches: Iterable[npt.NDArray[np.float32]]) -> weights.Arrays:
    """Return weights of ``model`` that compute the same with equalised channels.

    Normalisations become a bias alone. The result is exact up to float32, except for values that exceed the
    observed ones by more than ``_MARGIN`` below a ReLU's ceiling.

    Args:
        model: a functional tf_keras model.
        batches: float32 (N, s, s, 3) in [-1, 127/128]. They show how far each channel reaches.

    Raises:
        UsageError: the model has a layer that cannot be quantised.
    """
    steps = fold_layers(model)
    group = group_channels(
        (id(step.output), [id(tensor) for tensor in step.inputs], kernel_of(step.layer) is not None)
        for step in steps
    )
    reach = _reach(model, steps, group, batches)
    fixed = {group[id(tensor)] for tensor in (model.inputs[0], model.outputs[0])}
    scales = {key: _scales(key, steps, group, values) for key, values in reach.items() if key not in fixed}
    folded: dict[str, dict[str, Floats]] = {}
    for step in steps:
        name = kernel_of(step.layer)
        if name is None:
            continue
        given, out = (scales.get(group[id(t)]) for t in (step.inputs[0], step.output))
        kernel, bias = (step.weights[key].astype(np.float64) for key in (name, "bias"))
        channel = 2 if name == "depthwise_kernel" else kernel.ndim - 1
        if given is not None:
            kernel /= _along(given, kernel.ndim, 2 if kernel.ndim == 4 else 0)
        if out is not None:
            kernel *= _along(out, kernel.ndim, channel)
            bias *= out
        folded[step.layer.name] = {name: kernel, "bias": bias}
    return _unfolded(model, steps, folded)


def snap(model: Any, *, saturation_safe: bool) -> weights.Arrays:
    """Return weights of ``model`` rounded to the steps that ``quantize`` gives them.

    Args:
        model: a functional tf_keras model.
        saturation_safe: as for ``quantize``.

    Raises:
        UsageError: the model has a layer that cannot be quantised.
    """
    steps = fold_layers(model)
    folded: dict[str, dict[str, Floats]] = {}
    for step in steps:
        name = kernel_of(step.layer)
        if name is None:
            continue
        kernel: npt.NDArray[Any] = step.weights[name]
        pairs = pairs_of(step.layer) if saturation_safe else "none"
        channels = kernel.shape[2] if name == "depthwise_kernel" else kernel.shape[-1]
        # If a pair is rounded down, its channel's range gets narrower. Repeat until the range is stable.
        for _ in range(16):
            flat = kernel.reshape(-1, channels)
            step_size = np.asarray(weight_limits(flat, keras.ops, pairs=pairs)) / 127
            kernel = (np.clip(np.rint(flat / step_size), -127, 127) * step_size).reshape(kernel.shape)
            kernel = kernel.astype(np.float32)
        bias = step.weights["bias"].astype(np.float64)
        folded[step.layer.name] = {name: kernel.astype(np.float64), "bias": bias}
    return _unfolded(model, steps, folded)


def _reach(
    model: Any, steps: list[FoldedLayer], group: dict[int, int], batches: Iterable[npt.NDArray[np.float32]]
) -> dict[int, Floats]:
    """Return the largest magnitude of each channel of each group, over the outputs that are rounded."""
    relus = {id(step.inputs[0]) for step in steps if isinstance(step.layer, _layers.ReLU)}
    watched = [step for step in steps if step.quantized and id(step.output) not in relus]
    outputs = tf_keras.Model(model.inputs, [step.output for step in watched])
    reach: dict[int, Floats] = {}
    for batch in batches:
        for step, values in zip(watched, outputs(batch, training=False), strict=True):
            flat = np.abs(np.asarray(values, np.float64)).reshape(-1, values.shape[-1]).max(axis=0)
            key = group[id(step.output)]
            reach[key] = np.maximum(reach.get(key, 0.0), flat)
    return reach


def _scales(key: int, steps: list[FoldedLayer], group: dict[int, int], reach: Floats) -> Floats:
    """Return the factor of each channel of a group."""
    readers = [s for s in steps if kernel_of(s.layer) and group[id(s.inputs[0])] == key]
    depthwise = all(isinstance(s.layer, _layers.DepthwiseConv2D) for s in readers)
    ceilings = [
        float(s.layer.max_value)
        for s in steps
        if isinstance(s.layer, _layers.ReLU) and s.layer.max_value and group[id(s.output)] == key
    ]
    most = min(ceilings) / _MARGIN if ceilings else float(reach.max())
    return np.asarray(np.clip(most / np.maximum(reach, 1e-6), 1.0, _MOST_DEPTHWISE if depthwise else _MOST))


def _along(values: Floats, rank: int, axis: int) -> Floats:
    """Reshape a vector so that it broadcasts along ``axis`` of a tensor of ``rank``."""
    return values.reshape([-1 if at == axis else 1 for at in range(rank)])


def _unfolded(model: Any, steps: list[FoldedLayer], folded: dict[str, dict[str, Floats]]) -> weights.Arrays:
    """Return all weights of the model. A layer's bias goes into the normalisation behind it, if there is one."""
    arrays = weights.collect(model)
    for step in steps:
        if step.layer.name not in folded:
            continue
        parts = dict(folded[step.layer.name])
        if step.source != step.layer.name:
            bias = parts.pop("bias")
            normalisation = model.get_layer(step.source)
            ones = np.ones_like(bias)
            of = {"gamma": ones, "beta": bias, "moving_mean": 0 * ones}
            of["moving_variance"] = ones * (1 - normalisation.epsilon)
            for name, values in of.items():
                arrays[f"{step.source}/{name}"] = values.astype(np.float32)
        for name, values in parts.items():
            arrays[f"{step.layer.name}/{name}"] = values.astype(np.float32)
    return arrays
