"""Read a quantised Keras model into plain integers. Both INT8 files are written from the result.

The Keras model is not converted directly, because the converters (TFLite's and tf2onnx) each read fake-quantised
weights in their own way and take half a minute for a small model. Weights half way between two integers are rounded
differently, a dense kernel with a scale for each channel is refused, and the wider range of a saturation-safe kernel
is undone where a float layer shares it. Two files written from one set of integers, biases and scales can only differ
in how their engines round.

The scheme is TFLite's (https://ai.google.dev/edge/litert/models/quantization_spec):

- activations: s8, one scale and one zero point for each tensor;
- weights: s8 in [-127, 127], zero point 0, a scale for each output channel;
- biases: s32, with the scale input scale x weight scale.
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

__all__ = ["FloatKernel", "IntegerModel", "IntegerNode", "IntegerTensor", "Kernel", "read_integers"]

_Kind = Literal["conv", "depthwise", "add", "mean", "max_pool", "average_pool"]
_Padding = Literal["same", "valid"]
_layers = tf_keras.layers


@dataclass(frozen=True)
class IntegerTensor:
    """An activation: ``float value = scale * (s8 - zero_point)``.

    Attributes:
        name: The name of the Keras layer that computes it.
        shape: (h, w, channels), without the batch.
        scale: The float value of one integer step.
        zero_point: The integer that stands for 0, in [-128, 127].
        unrounded: The activation stays float32 between two layers kept in float. Its scale is not used.
    """

    name: str
    shape: tuple[int, int, int]
    scale: np.float32
    zero_point: int
    unrounded: bool = False


@dataclass(frozen=True)
class Kernel:
    """The integer weights of a convolution.

    Attributes:
        weights: s8 (h, w, in, out); of a depthwise convolution (h, w, channels).
        scales: float32 (out,): the float value of one step of the weights.
        biases: s32 (out,). The float bias is ``bias * input scale * weight scale``.
    """

    weights: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]
    biases: npt.NDArray[np.int32]


@dataclass(frozen=True)
class FloatKernel:
    """The float weights of a convolution kept in float.

    Attributes:
        weights: float32, of the shape as in ``Kernel``.
        biases: float32 (out,).
        relu: Whether a ReLU follows.
        ceiling: The upper limit of that ReLU, None where it has none.
    """

    weights: npt.NDArray[np.float32]
    biases: npt.NDArray[np.float32]
    relu: bool
    ceiling: float | None


@dataclass(frozen=True)
class IntegerNode:
    """One operation of the model.

    A ReLU needs no node: the output's integer range runs from 0 to the ReLU's ceiling, so clipping to that range does
    its work.

    Attributes:
        kind: The operation.
        name: The name of the Keras layer.
        inputs: The activations that it reads.
        output: The activation that it computes.
        strides: Vertical and horizontal step of a convolution or pooling.
        window: Height and width of the kernel or of the pooled window.
        padding: TensorFlow's padding rule.
        kernel: The integer weights of a convolution.
        float_kernel: The float weights of a convolution kept in float.
    """

    kind: _Kind
    name: str
    inputs: tuple[IntegerTensor, ...]
    output: IntegerTensor
    strides: tuple[int, int] = (1, 1)
    window: tuple[int, int] = (1, 1)
    padding: _Padding = "valid"
    kernel: Kernel | None = None
    float_kernel: FloatKernel | None = None

    def pads(self) -> tuple[int, int, int, int]:
        """Return the padding by TensorFlow's rule: rows above, columns left, rows below, columns right."""
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
    """A quantised model as plain integers.

    Attributes:
        pixels: The input.
        nodes: The operations in the order in which they run. The last two are global average pooling and the
            dense layer, as a 1 x 1 convolution.
        saturation_safe: Whether the weights were quantised so that no sum of two products overflows 16 bits.
        maps: The activation that global average pooling reads: the last one with height and width.

    Raises:
        ModelError: The model ends in other operations.
    """

    pixels: IntegerTensor
    nodes: tuple[IntegerNode, ...]
    saturation_safe: bool
    maps: IntegerTensor = field(init=False)

    def __post_init__(self) -> None:
        kinds = [node.kind for node in self.nodes[-2:]]
        if kinds != ["mean", "conv"]:
            raise ModelError(
                f"the model ends in {' and '.join(kinds)}; it must end in global average pooling and a dense layer"
            )
        object.__setattr__(self, "maps", self.nodes[-2].inputs[0])

    @property
    def logits(self) -> IntegerTensor:
        """The output of the dense layer, (1, 1, labels)."""
        return self.nodes[-1].output

    @property
    def classifier(self) -> npt.NDArray[np.float32]:
        """The dense weights as float32 (channels, labels): the quantised values, dequantised."""
        dense = self.nodes[-1]
        if dense.float_kernel is not None:
            return np.asarray(dense.float_kernel.weights[0, 0], np.float32)
        if dense.kernel is None:
            raise ModelError("the model does not end in a dense layer")
        return np.asarray(dense.kernel.weights[0, 0] * dense.kernel.scales, np.float32)

    @property
    def bias(self) -> npt.NDArray[np.float32]:
        """The bias of the logits, float32 (labels,): the quantised values, dequantised."""
        dense = self.nodes[-1]
        if dense.float_kernel is not None:
            return dense.float_kernel.biases
        if dense.kernel is None:
            raise ModelError("the model does not end in a dense layer")
        return np.asarray(dense.kernel.biases * dense.inputs[0].scale * dense.kernel.scales, np.float32)

    @property
    def kept_float(self) -> tuple[str, ...]:
        """The names of the layers that are computed in float32."""
        return tuple(node.name for node in self.nodes if node.float_kernel is not None)


def read_integers(qat_model: Any) -> IntegerModel:
    """Read the integers that a quantised Keras model emulates.

    Args:
        qat_model: A model made by ``train.qat.quantize``, with calibrated ranges.

    Raises:
        ModelError: Ranges were never calibrated, a bias needs more than 32 bits, or the model does not end in
            global average pooling and one dense layer.
    """
    check_ranges(qat_model)
    tensors: dict[int, IntegerTensor] = {}
    # Layers followed by a ReLU that carries the range: output id to (layer, inputs).
    before_relu: dict[int, tuple[Any, Any]] = {}
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
            operation, given = before_relu.pop(id(given[0]))
        elif isinstance(layer, _Wrapper) and layer.quantize_config.output is None:
            before_relu[id(layer.output)] = (layer, given)
            continue
        node = _node(operation, layer, tuple(tensors[id(tensor)] for tensor in given))
        nodes.append(node)
        tensors[id(layer.output)] = node.output
    if pixels is None:
        raise ModelError("the QAT model has no layers")
    return IntegerModel(pixels, tuple(nodes), is_saturation_safe(qat_model))


def _tensor(name: str, output: Any, low: float, high: float) -> IntegerTensor:
    """Compute scale and zero point in float32, rounded as TensorFlow's fake quantisation rounds them."""
    shape = tuple(int(side) for side in output.shape[1:])
    shape = shape if len(shape) == 3 else (1, 1, shape[-1])
    scale = np.float32((np.float32(high) - np.float32(low)) / np.float32(255))
    zero = np.clip(np.floor(-np.float32(low) / scale + np.float32(0.5)), 0, 255)
    return IntegerTensor(name, (shape[0], shape[1], shape[2]), scale, int(zero) - 128)


def _output_tensor(operation: Any, last: Any, given: IntegerTensor) -> IntegerTensor:
    """Return the output of ``operation``, with the range of ``last``: the same layer, or the ReLU behind it."""
    if isinstance(last, _Wrapper):
        ranges = last._output_quantizer_vars
        output = _tensor(last.layer.name, last.output, float(ranges["min_var"]), float(ranges["max_var"]))
        return replace(output, unrounded=last.unrounded)
    # A pooling layer without a range of its own keeps the scale of its input.
    name = operation.layer.name if isinstance(operation, _Wrapper) else operation.name
    shape = tuple(int(side) for side in last.output.shape[1:])
    return IntegerTensor(name, (shape[0], shape[1], shape[2]), given.scale, given.zero_point)


def _node(operation: Any, last: Any, inputs: tuple[IntegerTensor, ...]) -> IntegerNode:
    """Make the node of ``operation``, whose output is quantised in ``last`` (itself, or the ReLU behind it)."""
    inner = operation.layer if isinstance(operation, _Wrapper) else operation
    output = _output_tensor(operation, last, inputs[0])
    if isinstance(inner, _layers.Add):
        return IntegerNode("add", inner.name, inputs, output)
    if isinstance(inner, _layers.GlobalAveragePooling2D):
        return IntegerNode("mean", inner.name, inputs, output)
    if isinstance(inner, _layers.MaxPooling2D | _layers.AveragePooling2D):
        kind: _Kind = "max_pool" if isinstance(inner, _layers.MaxPooling2D) else "average_pool"
        return IntegerNode(
            kind, inner.name, inputs, output, tuple(inner.strides), tuple(inner.pool_size), inner.padding
        )
    if operation.kept:
        return _float_convolution(operation, last, inputs, output)
    return _integer_convolution(operation, inputs, output)


def _float_convolution(
    wrapper: Any, last: Any, inputs: tuple[IntegerTensor, ...], output: IntegerTensor
) -> IntegerNode:
    config = last.quantize_config
    ((kernel, _, _),) = wrapper._weight_vars
    weights = np.asarray(kernel, np.float32)
    biases = np.zeros(output.shape[2], np.float32)
    for variable in wrapper.weights:
        if short_name(variable) == "bias":
            biases = np.asarray(variable, np.float32)
    made = FloatKernel(_kernel_shaped(wrapper, weights), biases, config.output.nonnegative, config.ceiling)
    return IntegerNode(
        _kind(wrapper), wrapper.layer.name, inputs, output, _strides(wrapper, inputs[0]), _window(made.weights),
        _padding(wrapper), float_kernel=made,
    )  # fmt: skip


def _kind(wrapper: Any) -> _Kind:
    return "depthwise" if kernel_of(wrapper.layer) == "depthwise_kernel" else "conv"


def _window(weights: npt.NDArray[Any]) -> tuple[int, int]:
    return (weights.shape[0], weights.shape[1])


def _kernel_shaped(wrapper: Any, weights: Any) -> Any:
    """Reshape Keras's kernel as in ``Kernel``: drop a depthwise multiplier, make a dense kernel 1 x 1."""
    if _kind(wrapper) == "depthwise":
        return weights[..., 0]
    return weights[None, None] if isinstance(wrapper.layer, _layers.Dense) else weights


def _strides(wrapper: Any, given: IntegerTensor) -> tuple[int, int]:
    """Return the strides. Raise ``ModelError`` for a dense layer that reads a map of more than 1 x 1."""
    inner = wrapper.layer
    if not isinstance(inner, _layers.Dense):
        return tuple(inner.strides)
    if given.shape[:2] != (1, 1):
        raise ModelError(f"layer {inner.name!r} (Dense) does not follow global average pooling")
    return (1, 1)


def _padding(wrapper: Any) -> _Padding:
    return "valid" if isinstance(wrapper.layer, _layers.Dense) else wrapper.layer.padding


def _integer_convolution(
    wrapper: Any, inputs: tuple[IntegerTensor, ...], output: IntegerTensor
) -> IntegerNode:
    name = wrapper.layer.name
    ((kernel, quantizer, ranges),) = wrapper._weight_vars
    scales = np.asarray(ranges["max_var"], np.float32) / np.float32(127)
    emulated = _kernel_shaped(wrapper, np.asarray(quantizer(kernel, False, ranges), np.float32))
    integers = np.rint(emulated / scales)
    if np.abs(integers).max() > 127:
        raise ModelError(f"the weights of layer {name!r} exceed their range", hint="call refresh_weights()")
    biases = _integer_biases(wrapper, inputs[0].scale, scales)
    return IntegerNode(
        _kind(wrapper), name, inputs, output, _strides(wrapper, inputs[0]), _window(integers), _padding(wrapper),
        Kernel(integers.astype(np.int8), scales, biases),
    )  # fmt: skip


def _integer_biases(
    wrapper: Any, input_scale: np.float32, scales: npt.NDArray[np.float32]
) -> npt.NDArray[np.int32]:
    """Return the biases, s32 (out,). Raise ``ModelError`` for one that does not fit."""
    bias = np.zeros(len(scales))
    for variable in wrapper.weights:
        if short_name(variable) == "bias":
            bias = np.asarray(variable, np.float64)
    biases = np.rint(bias / (input_scale.astype(np.float64) * scales.astype(np.float64)))
    if np.abs(biases).max() >= 2**31:
        worst = int(np.abs(biases).argmax())
        raise ModelError(
            f"the bias of channel {worst} of layer {wrapper.layer.name!r} does not fit 32 bits at its scale"
        )
    return np.asarray(biases.astype(np.int32))
