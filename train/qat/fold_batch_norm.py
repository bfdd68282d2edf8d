"""What quantisation makes of an FP32 model: its layers in order, batch normalisation folded into the
convolutions.

Folding is ``gamma * (x - mean) / sqrt(variance + epsilon) + beta`` merged into kernel and bias (Jacob et
al., CVPR 2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tf_keras

from capsule_edge.runtime.errors import UsageError

__all__ = ["Step", "kernel_of", "plan", "short_name"]

_layers = tf_keras.layers
# Layers whose output has the range of their input: TFLite asks for the same scale on both sides.
_SAME_RANGE = (_layers.MaxPooling2D, _layers.AveragePooling2D)


@dataclass
class Step:
    """One layer of the QAT model: ``output`` is the FP32 tensor that it reproduces, from layer ``source``."""

    layer: Any
    config: dict[str, Any]
    inputs: list[Any]
    output: Any
    source: str
    weights: dict[str, npt.NDArray[np.float32]]
    quantized: bool = True
    fused_relu: bool = False


def plan(model: Any) -> list[Step]:
    """The FP32 model's layers in order, each batch normalisation merged into the convolution before it."""
    readers: dict[int, list[Any]] = {}
    for layer in model.layers:
        for tensor in _inputs(layer):
            readers.setdefault(id(tensor), []).append(layer)
    steps: dict[int, Step] = {}
    for layer in model.layers:
        if isinstance(layer, _layers.InputLayer):
            continue
        if isinstance(layer, tf_keras.Model) or len(layer._inbound_nodes) != 1:
            what = "a model inside the model" if isinstance(layer, tf_keras.Model) else "used more than once"
            raise UsageError(
                f"layer {layer.name!r} is {what}, which cannot be quantised", hint="flatten the model"
            )
        if isinstance(layer, _layers.BatchNormalization):
            before = steps.pop(id(layer.input), None)
            if before is None or len(readers[id(layer.input)]) > 1 or not _foldable(before):
                raise UsageError(
                    f"layer {layer.name!r} does not normalise a convolution alone, so it cannot be folded",
                    hint="put BatchNormalization right behind Conv2D, DepthwiseConv2D or Dense",
                )
            _fold(before, layer)
            steps[id(layer.output)] = before
            continue
        _check_supported(layer)
        arrays = {short_name(w): np.asarray(w, np.float32) for w in layer.weights}
        quantized = not isinstance(layer, (_layers.Dropout, *_SAME_RANGE))
        steps[id(layer.output)] = Step(
            layer, layer.get_config(), _inputs(layer), layer.output, layer.name, arrays, quantized
        )
    for step in steps.values():
        _fuse(step, steps, readers)
    return list(steps.values())


def _fuse(step: Step, steps: dict[int, Step], readers: dict[int, list[Any]]) -> None:
    """Mark what a ReLU follows: only the range behind the ReLU counts, its lower end is 0."""
    if not isinstance(step.layer, _layers.ReLU):
        return
    before = steps.get(id(step.inputs[0]))
    fits = before is not None and (kernel_of(before.layer) or isinstance(before.layer, _layers.Add))
    if before is None or not fits or len(readers[id(before.output)]) > 1:
        raise UsageError(
            f"layer {step.layer.name!r} (ReLU) does not follow a convolution or Add that it alone reads",
            hint="an 8-bit ReLU is the lower end of the range before it",
        )
    before.fused_relu = True


def _inputs(layer: Any) -> list[Any]:
    return list(layer.input) if isinstance(layer.input, list | tuple) else [layer.input]


def short_name(variable: Any) -> str:
    return str(variable.name).split(":")[0].rsplit("/", 1)[-1]


def kernel_of(layer: Any) -> str | None:
    """The attribute that holds the layer's kernel, None where it has none."""
    if isinstance(layer, _layers.DepthwiseConv2D):
        return "depthwise_kernel"
    return "kernel" if type(layer) in (_layers.Conv2D, _layers.Dense) else None


def _check_supported(layer: Any) -> None:
    """``UsageError`` with the layer's name where there is no 8-bit kernel for it in both formats."""
    plain = (_layers.ReLU, _layers.Add, _layers.GlobalAveragePooling2D, _layers.Dropout, *_SAME_RANGE)
    reason = ""
    if kernel_of(layer) is None and not isinstance(layer, plain):
        reason = "is of a kind that is not known here"
    elif kernel_of(layer) and layer.activation.__name__ not in ("linear", "relu", "relu6"):
        reason = f"has the activation {layer.activation.__name__!r}"
    elif kernel_of(layer) and not isinstance(layer, _layers.Dense) and not _is_plain_convolution(layer):
        reason = "is dilated, grouped, causal, channels first or multiplies its channels"
    elif isinstance(layer, _layers.ReLU) and (layer.negative_slope or layer.threshold):
        reason = "is a leaky or thresholded ReLU"
    if reason:
        allowed = "Conv2D, DepthwiseConv2D, Dense, BatchNormalization, ReLU, Add, pooling and Dropout"
        raise UsageError(
            f"layer {layer.name!r} ({type(layer).__name__}) {reason}", hint=f"quantised are {allowed}"
        )


def _is_plain_convolution(layer: Any) -> bool:
    return (
        tuple(layer.dilation_rate) == (1, 1)
        and layer.padding in ("same", "valid")
        and layer.data_format == "channels_last"
        and getattr(layer, "depth_multiplier", 1) == 1
        and layer.groups == 1
    )


def _foldable(step: Step) -> bool:
    return bool(kernel_of(step.layer)) and step.layer.activation.__name__ == "linear"


def _fold(step: Step, normalisation: Any) -> None:
    """Merge ``gamma * (x - mean) / sqrt(variance + epsilon) + beta`` into kernel and bias, in float64."""
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
