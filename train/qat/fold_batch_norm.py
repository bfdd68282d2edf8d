"""The layers of an FP32 model as quantisation needs them: batch normalisation folded into the convolutions.

Folding merges ``gamma * (x - mean) / sqrt(variance + epsilon) + beta`` into kernel and bias (Jacob et al.,
CVPR 2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tf_keras

from capsule_edge.runtime.errors import UsageError

__all__ = ["FoldedLayer", "fold_layers", "kernel_of", "short_name"]

_layers = tf_keras.layers
# Layers whose output has the range of their input. TFLite requires the same scale on both sides.
_SAME_RANGE = (_layers.MaxPooling2D, _layers.AveragePooling2D)


@dataclass
class FoldedLayer:
    """One layer of the QAT model.

    Attributes:
        layer: the FP32 layer.
        config: the configuration of the QAT layer.
        inputs: the FP32 tensors that it reads.
        output: the FP32 tensor that it reproduces.
        source: the FP32 layer that computes ``output``: this layer, or the normalisation behind it.
        weights: kernel and bias, with the normalisation folded in.
        quantized: whether its output is rounded to 8 bits.
        fused_relu: whether a ReLU follows, whose range counts instead.
    """

    layer: Any
    config: dict[str, Any]
    inputs: list[Any]
    output: Any
    source: str
    weights: dict[str, npt.NDArray[np.float32]]
    quantized: bool = True
    fused_relu: bool = False


def fold_layers(model: Any) -> list[FoldedLayer]:
    """Return the FP32 model's layers in order, with batch normalisation merged into convolutions.

    Args:
        model: a flat functional tf_keras model.

    Raises:
        UsageError: a layer cannot be quantised; the message names it.
    """
    readers: dict[int, list[Any]] = {}
    for layer in model.layers:
        for tensor in _inputs(layer):
            readers.setdefault(id(tensor), []).append(layer)
    steps: dict[int, FoldedLayer] = {}
    for layer in model.layers:
        if isinstance(layer, _layers.InputLayer):
            continue
        _check_flat(layer)
        if isinstance(layer, _layers.BatchNormalization):
            before = steps.pop(id(layer.input), None)
            if before is None or len(readers[id(layer.input)]) > 1 or not _foldable(before):
                raise UsageError(
                    f"layer {layer.name!r} cannot be folded: it does not follow a convolution that it alone reads",
                    hint="put BatchNormalization right behind Conv2D, DepthwiseConv2D or Dense",
                )
            _fold(before, layer)
            steps[id(layer.output)] = before
            continue
        _check_supported(layer)
        arrays = {short_name(w): np.asarray(w, np.float32) for w in layer.weights}
        quantized = not isinstance(layer, (_layers.Dropout, *_SAME_RANGE))
        steps[id(layer.output)] = FoldedLayer(
            layer, layer.get_config(), _inputs(layer), layer.output, layer.name, arrays, quantized
        )
    for step in steps.values():
        _fuse(step, steps, readers)
    return list(steps.values())


def _check_flat(layer: Any) -> None:
    """Raise ``UsageError`` for a nested model or a layer that is used more than once."""
    if isinstance(layer, tf_keras.Model) or len(layer._inbound_nodes) != 1:
        what = "a model inside the model" if isinstance(layer, tf_keras.Model) else "used more than once"
        raise UsageError(
            f"layer {layer.name!r} is {what}, which cannot be quantised", hint="flatten the model"
        )


def _fuse(step: FoldedLayer, steps: dict[int, FoldedLayer], readers: dict[int, list[Any]]) -> None:
    """Mark the layer before a ReLU: only the range behind the ReLU counts, and its lower end is 0."""
    if not isinstance(step.layer, _layers.ReLU):
        return
    before = steps.get(id(step.inputs[0]))
    fits = before is not None and (kernel_of(before.layer) or isinstance(before.layer, _layers.Add))
    if before is None or not fits or len(readers[id(before.output)]) > 1:
        raise UsageError(
            f"layer {step.layer.name!r} (ReLU) does not follow a convolution or Add that it alone reads",
            hint="in 8 bits a ReLU is the lower end of the range of the layer before it: put it right behind one",
        )
    before.fused_relu = True


def _inputs(layer: Any) -> list[Any]:
    return list(layer.input) if isinstance(layer.input, list | tuple) else [layer.input]


def short_name(variable: Any) -> str:
    """Return a variable's name without its layer and without ":0"."""
    return str(variable.name).split(":")[0].rsplit("/", 1)[-1]


def kernel_of(layer: Any) -> str | None:
    """Return the attribute that holds the layer's kernel, or None if it has no kernel."""
    if isinstance(layer, _layers.DepthwiseConv2D):
        return "depthwise_kernel"
    return "kernel" if type(layer) in (_layers.Conv2D, _layers.Dense) else None


def _check_supported(layer: Any) -> None:
    """Raise ``UsageError`` with the layer's name if there is no 8-bit kernel for it in both file formats."""
    plain = (_layers.ReLU, _layers.Add, _layers.GlobalAveragePooling2D, _layers.Dropout, *_SAME_RANGE)
    reason = ""
    if kernel_of(layer) is None and not isinstance(layer, plain):
        reason = "is of a kind that is not supported"
    elif kernel_of(layer) and layer.activation.__name__ not in ("linear", "relu", "relu6"):
        reason = f"has the activation {layer.activation.__name__!r}"
    elif kernel_of(layer) and not isinstance(layer, _layers.Dense) and not _is_plain_convolution(layer):
        reason = "is dilated, grouped, causal, channels first or multiplies its channels"
    elif isinstance(layer, _layers.ReLU) and (layer.negative_slope or layer.threshold):
        reason = "is a leaky or thresholded ReLU"
    if reason:
        allowed = "Conv2D, DepthwiseConv2D, Dense, BatchNormalization, ReLU, Add, pooling and Dropout"
        raise UsageError(
            f"layer {layer.name!r} ({type(layer).__name__}) {reason} and cannot be quantised",
            hint=f"allowed are {allowed}",
        )


def _is_plain_convolution(layer: Any) -> bool:
    """Return whether there is an 8-bit kernel for this kind of convolution."""
    return (
        tuple(layer.dilation_rate) == (1, 1)
        and layer.padding in ("same", "valid")
        and layer.data_format == "channels_last"
        and getattr(layer, "depth_multiplier", 1) == 1
        and layer.groups == 1
    )


def _foldable(step: FoldedLayer) -> bool:
    """Return whether a normalisation can be merged into this layer."""
    return bool(kernel_of(step.layer)) and step.layer.activation.__name__ == "linear"


def _fold(step: FoldedLayer, normalisation: Any) -> None:
    """Merge a normalisation into kernel and bias, in float64."""
    stored = {short_name(w): np.asarray(w, np.float64) for w in normalisation.weights}
    factor = stored.get("gamma", 1.0) / np.sqrt(stored["moving_variance"] + normalisation.epsilon)
    name = kernel_of(step.layer)
    assert name is not None
    kernel = step.weights[name].astype(np.float64)
    shaped = factor.reshape(kernel.shape[2:]) if name == "depthwise_kernel" else factor
    step.weights[name] = (kernel * shaped).astype(np.float32)
    bias = step.weights.get("bias", np.float32(0)) - stored["moving_mean"]
    step.weights["bias"] = (bias * factor + stored.get("beta", 0.0)).astype(np.float32)
    step.config = {**step.config, "use_bias": True}
    step.output, step.source = normalisation.output, normalisation.name
