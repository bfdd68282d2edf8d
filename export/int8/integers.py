"""A quantised model as plain integers, read once from the QAT model: what both INT8 files are written from.

The TFLite converter and tf2onnx each read fake-quantised weights in their own way (a kernel's ties are
rounded anew, a per-channel dense kernel is refused, the widened range of a saturation-safe kernel is undone
where a float layer shares it), and take half a minute for a small model. Written from one set of integers,
biases and scales, the two files can only differ in how their engines round.

Scheme: TFLite's (https://ai.google.dev/edge/litert/models/quantization_spec): activations s8, one scale and
zero point a tensor; weights s8 in [-127, 127], zero point 0, a scale for each output channel; biases s32 at
input scale x weight scale.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tf_keras

from capsule_edge.runtime.errors import ModelError
from capsule_edge.train.qat import INPUT_RANGE, check_ranges, is_saturation_safe, kernel_of, short_name
from capsule_edge.train.qat import IntegerWrapper as _Wrapper

__all__ = ["IntegerModel", "IntegerNode", "IntegerTensor", "Kernel", "RealKernel", "read_integers"]

Kind = Literal["conv", "depthwise", "add", "mean", "max_pool", "average_pool"]
_layers = tf_keras.layers


@dataclass(frozen=True)
class IntegerTensor:
    """An activation: ``real = scale * (s8 - zero_point)``, shape (h, w, channels) without the batch.

    One that is ``unrounded`` stays float32 between two layers kept in float, and its scale is not used.
    """

    name: str
    shape: tuple[int, int, int]
    scale: np.float32
    zero_point: int
    unrounded: bool = False


@dataclass(frozen=True)
class Kernel:
    """Weights s8 (h, w, in, out), of a depthwise node (h, w, channels); scales and s32 biases (out,).

    The real bias is ``bias * input scale * weight scale``.
    """

    weights: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]
    biases: npt.NDArray[np.int32]


@dataclass(frozen=True)
class RealKernel:
    """Of a convolution kept in float: weights float32 of the form as in ``Kernel``, biases float32 (out,).

    ``relu`` clips the result at 0, and at ``ceiling`` where there is one.
    """

    weights: npt.NDArray[np.float32]
    biases: npt.NDArray[np.float32]
    relu: bool
    ceiling: float | None


@dataclass(frozen=True)
class IntegerNode:
    """One operation; ``kernel`` is that of a convolution, ``real`` of one kept in float.

    A ReLU needs no mark: the output's range ends at 0 and at the ReLU's ceiling, where saturation clips it.
    """

    kind: Kind
    name: str
    inputs: tuple[IntegerTensor, ...]
    output: IntegerTensor
    strides: tuple[int, int] = (1, 1)
    window: tuple[int, int] = (1, 1)
    padding: Literal["same", "valid"] = "valid"
    kernel: Kernel | None = None
    real: RealKernel | None = None

    def pads(self) -> tuple[int, int, int, int]:
        """Rows above, columns left, rows below, columns right, by TensorFlow's rule for "same"."""
        if self.padding == "valid":
            return (0, 0, 0, 0)
        before, after = [], []
        for axis in (0, 1):
            size, stride, window = self.inputs[0].shape[axis], self.strides[axis], self.window[axis]
            total = max((-(-size // stride) - 1) * stride + window - size, 0)
            before.append(total // 2)
            after.append(total - total // 2)
        return (before[0], before[1], after[0], after[1])


@dataclass(frozen=True)
class IntegerModel:
    """The nodes in order. The last is the dense layer as a 1x1 convolution over the mean of ``maps``."""

    pixels: IntegerTensor
    nodes: tuple[IntegerNode, ...]
    saturation_safe: bool
    maps: IntegerTensor = field(init=False)

    def __post_init__(self) -> None:
        kinds = [node.kind for node in self.nodes[-2:]]
        if kinds != ["mean", "conv"]:
            raise ModelError(
                f"the model ends in {' and '.join(kinds)}, needed is global average pooling and a dense layer"
            )
        object.__setattr__(self, "maps", self.nodes[-2].inputs[0])

    @property
    def logits(self) -> IntegerTensor:
        return self.nodes[-1].output

    @property
    def classifier(self) -> npt.NDArray[np.float32]:
        """The dense weights as the integers mean them, float32 (channels, labels)."""
        dense, real = self.nodes[-1].kernel, self.nodes[-1].real
        if real is not None:
            return np.asarray(real.weights[0, 0], np.float32)
        if dense is None:
            raise ModelError("the model does not end in a dense layer")
        return np.asarray(dense.weights[0, 0] * dense.scales, np.float32)

    @property
    def bias(self) -> npt.NDArray[np.float32]:
        """The bias of the logits, float32 (labels,)."""
        dense = self.nodes[-1]
        if dense.real is not None:
            return dense.real.biases
        if dense.kernel is None:
            raise ModelError("the model does not end in a dense layer")
        return np.asarray(dense.kernel.biases * dense.inputs[0].scale * dense.kernel.scales, np.float32)

    @property
    def kept_float(self) -> tuple[str, ...]:
        """The names of the layers that are computed in float32."""
        return tuple(node.name for node in self.nodes if node.real is not None)


def read_integers(qat_model: Any) -> IntegerModel:
    """The integers that the QAT model emulates.

    Raises ``ModelError`` for ranges that were never calibrated, a bias that needs more than 32 bits, and a
    model that does not end in global average pooling and one dense layer.
    """
    check_ranges(qat_model)
    tensors: dict[int, IntegerTensor] = {}
    pending: dict[int, tuple[Any, Any]] = {}
    nodes: list[IntegerNode] = []
    pixels: IntegerTensor | None = None
    for layer in qat_model.layers:
        inner = layer.layer if isinstance(layer, _Wrapper) else layer
        if isinstance(inner, _layers.InputLayer):
            continue
        if pixels is None:
            pixels = _tensor("frames", layer.output, *INPUT_RANGE)
            tensors[id(layer.output)] = pixels
            continue
        given = layer.input if isinstance(layer.input, list | tuple) else [layer.input]
        if isinstance(inner, _layers.Dropout):
            tensors[id(layer.output)] = tensors[id(given[0])]
            continue
        operation = layer
        if isinstance(inner, _layers.ReLU):
            operation, given = pending.pop(id(given[0]))
        elif isinstance(layer, _Wrapper) and layer.quantize_config.output is None:
            pending[id(layer.output)] = (layer, given)
            continue
        inputs = tuple(tensors[id(tensor)] for tensor in given)
        node = _node(operation, layer, inputs)
        nodes.append(node)
        tensors[id(layer.output)] = node.output
    if pixels is None:
        raise ModelError("the QAT model has no layers")
    return IntegerModel(pixels, tuple(nodes), is_saturation_safe(qat_model))


def _tensor(name: str, output: Any, low: float, high: float) -> IntegerTensor:
    """Scale and zero point as TensorFlow's fake quantisation nudges them, in float32 as there."""
    shape = tuple(int(side) for side in output.shape[1:])
    shape = shape if len(shape) == 3 else (1, 1, shape[-1])
    scale = np.float32((np.float32(high) - np.float32(low)) / np.float32(255))
    zero = np.clip(np.floor(-np.float32(low) / scale + np.float32(0.5)), 0, 255)
    return IntegerTensor(name, (shape[0], shape[1], shape[2]), scale, int(zero) - 128)


def _node(operation: Any, last: Any, inputs: tuple[IntegerTensor, ...]) -> IntegerNode:
    """The node of ``operation``, whose output is quantised in ``last`` (itself, or the ReLU behind it)."""
    inner = operation.layer if isinstance(operation, _Wrapper) else operation
    if isinstance(last, _Wrapper):
        ranges = last._output_quantizer_vars
        output = _tensor(last.layer.name, last.output, float(ranges["min_var"]), float(ranges["max_var"]))
        output = replace(output, unrounded=last.unrounded)
    else:  # a pooling that keeps its input's scale
        shape = tuple(int(side) for side in last.output.shape[1:])
        output = IntegerTensor(
            inner.name, (shape[0], shape[1], shape[2]), inputs[0].scale, inputs[0].zero_point
        )
    if isinstance(inner, _layers.Add):
        return IntegerNode("add", inner.name, inputs, output)
    if isinstance(inner, _layers.GlobalAveragePooling2D):
        return IntegerNode("mean", inner.name, inputs, output)
    if isinstance(inner, _layers.MaxPooling2D | _layers.AveragePooling2D):
        kind: Kind = "max_pool" if isinstance(inner, _layers.MaxPooling2D) else "average_pool"
        return IntegerNode(
            kind, inner.name, inputs, output, tuple(inner.strides), tuple(inner.pool_size), inner.padding
        )
    if operation.kept:
        return _real_convolution(operation, last, inputs, output)
    return _convolution(operation, inputs, output)


def _real_convolution(
    wrapper: Any, last: Any, inputs: tuple[IntegerTensor, ...], output: IntegerTensor
) -> IntegerNode:
    config = last.quantize_config
    ((kernel, _, _),) = wrapper._weight_vars
    weights = np.asarray(kernel, np.float32)
    biases = np.zeros(output.shape[2], np.float32)
    for variable in wrapper.weights:
        if short_name(variable) == "bias":
            biases = np.asarray(variable, np.float32)
    real = RealKernel(_shaped(wrapper, weights), biases, config.output.nonnegative, config.ceiling)
    strides, padding = _steps(wrapper, inputs[0])
    return IntegerNode(
        _kind(wrapper), wrapper.layer.name, inputs, output, strides, _window(real.weights), padding, real=real
    )


def _kind(wrapper: Any) -> Kind:
    return "depthwise" if kernel_of(wrapper.layer) == "depthwise_kernel" else "conv"


def _window(weights: npt.NDArray[Any]) -> tuple[int, int]:
    return (weights.shape[0], weights.shape[1])


def _shaped(wrapper: Any, weights: Any) -> Any:
    """Keras's kernel in the form of ``Kernel``: no multiplier of a depthwise one, a dense one as 1 x 1."""
    if _kind(wrapper) == "depthwise":
        return weights[..., 0]
    return weights[None, None] if isinstance(wrapper.layer, _layers.Dense) else weights


def _steps(wrapper: Any, given: IntegerTensor) -> tuple[tuple[int, int], Literal["same", "valid"]]:
    """Strides and padding. Raises ``ModelError`` for a dense layer that reads a map."""
    inner = wrapper.layer
    if not isinstance(inner, _layers.Dense):
        return tuple(inner.strides), inner.padding
    if given.shape[:2] != (1, 1):
        raise ModelError(f"layer {inner.name!r} (Dense) does not follow global average pooling")
    return (1, 1), "valid"


def _convolution(wrapper: Any, inputs: tuple[IntegerTensor, ...], output: IntegerTensor) -> IntegerNode:
    name = wrapper.layer.name
    ((kernel, quantizer, ranges),) = wrapper._weight_vars
    scales = np.asarray(ranges["max_var"], np.float32) / np.float32(127)
    emulated = _shaped(wrapper, np.asarray(quantizer(kernel, False, ranges), np.float32))
    integers = np.rint(emulated / scales)
    if np.abs(integers).max() > 127:
        raise ModelError(f"the weights of layer {name!r} exceed their range", hint="call refresh_weights()")
    products = inputs[0].scale.astype(np.float64) * scales.astype(np.float64)
    bias = np.zeros(len(scales))
    for variable in wrapper.weights:
        if short_name(variable) == "bias":
            bias = np.asarray(variable, np.float64)
    biases = np.rint(bias / products)
    if np.abs(biases).max() >= 2**31:
        worst = int(np.abs(biases).argmax())
        raise ModelError(f"the bias of channel {worst} of layer {name!r} does not fit 32 bits at its scale")
    strides, padding = _steps(wrapper, inputs[0])
    made = Kernel(integers.astype(np.int8), scales, biases.astype(np.int32))
    return IntegerNode(_kind(wrapper), name, inputs, output, strides, _window(integers), padding, made)
