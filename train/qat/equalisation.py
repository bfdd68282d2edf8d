"""Even out the channels of an FP32 model and put its weights on the integers' grid, without another training.

An 8-bit tensor has one scale, so a channel of small values has few steps left. Between two convolutions a channel may
be scaled up and its reader's weights scaled down: the function stays, the steps get finer (Nagel et al., ICCV 2019). In
depthwise networks this is where most of the noise comes from: behind the first convolution of MobileNetV2 some channels
never exceed a tenth of the range. Weights have a scale for each output channel and lose nothing by it there.

The weights are then rounded as the INT8 file will round them, so that the FP32 model that ships computes with the very
weights of its INT8 twin, and only the rounding of activations is left between the two.
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
from .fold_batch_norm import Step, kernel_of, plan
from .quantised_model import pairs_of
from .weight_ranges import weight_limits

__all__ = ["equalise", "snap"]

_layers = tf_keras.layers
Floats = npt.NDArray[np.float64]
# A channel may reach this much beyond what was seen before a ReLU's ceiling cuts it.
_MARGIN = 1.25
# The most that a channel is scaled up: beyond, its reader's weights have too few steps where they share a scale.
_MOST, _MOST_DEPTHWISE = 4.0, 16.0


def equalise(model: Any, batches: Iterable[npt.NDArray[np.float32]]) -> weights.Arrays:
    """Weights of ``model`` (functional, tf_keras) that compute the same with evened channels.

    ``batches`` float32 (N, s, s, 3) in [-1, 127/128] show how far each channel goes. Normalisations come back as a
    bias alone. Exact up to float32, but for values beyond ``_MARGIN`` of what was seen below a ReLU's ceiling.
    """
    steps = plan(model)
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
    """Weights of ``model`` rounded to the steps that ``qat.quantize`` gives them."""
    steps = plan(model)
    folded: dict[str, dict[str, Floats]] = {}
    for step in steps:
        name = kernel_of(step.layer)
        if name is None:
            continue
        kernel: npt.NDArray[Any] = step.weights[name]
        pairs = pairs_of(step.layer) if saturation_safe else "none"
        channels = kernel.shape[2] if name == "depthwise_kernel" else kernel.shape[-1]
        # A pair that rounds down narrows its channel's range: round until the range stays.
        for _ in range(16):
            flat = kernel.reshape(-1, channels)
            step_size = np.asarray(weight_limits(flat, keras.ops, pairs=pairs)) / 127
            kernel = (np.clip(np.rint(flat / step_size), -127, 127) * step_size).reshape(kernel.shape)
            kernel = kernel.astype(np.float32)
        bias = step.weights["bias"].astype(np.float64)
        folded[step.layer.name] = {name: kernel.astype(np.float64), "bias": bias}
    return _unfolded(model, steps, folded)


def _reach(
    model: Any, steps: list[Step], group: dict[int, int], batches: Iterable[npt.NDArray[np.float32]]
) -> dict[int, Floats]:
    """The largest magnitude of each channel of each group, over the outputs that are rounded."""
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


def _scales(key: int, steps: list[Step], group: dict[int, int], reach: Floats) -> Floats:
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
    return values.reshape([-1 if at == axis else 1 for at in range(rank)])


def _unfolded(model: Any, steps: list[Step], folded: dict[str, dict[str, Floats]]) -> weights.Arrays:
    """All of the model's weights: a layer's bias goes to the normalisation behind it where there is one."""
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
