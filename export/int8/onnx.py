"""Write the INT8 ONNX file: a QDQ graph that onnxruntime turns into integer operations throughout.

That needs the following, each measured on onnxruntime 1.32:

- U8 activations, and S8 weights with a scale for each channel. One frame then takes 3.2 ms, against 5.4 ms with
  S8 activations and 7.9 ms with U8 weights.
- A bias scale of exactly input scale x weight scale. Otherwise onnxruntime does not fuse the convolution into an
  integer operation, and says nothing.
- No Clip, Pad or Transpose between a DequantizeLinear and the next QuantizeLinear.
- A Transpose of the input while it is still uint8, before its DequantizeLinear.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from capsule_edge.runtime.inference import METADATA_KEY, ModelSpec

from .integers import FloatKernel, IntegerModel, IntegerNode, IntegerTensor, Kernel

__all__ = ["OPSET", "build_int8_onnx"]

# The first opset that has every operator used here in its final 8-bit form and that OpenVINO and onnxruntime-node
# read too.
OPSET = 17


def build_int8_onnx(model: IntegerModel, spec: ModelSpec) -> onnx.ModelProto:
    """Build the INT8 ONNX model.

    Args:
        model: The integers.
        spec: The ModelSpec to write into the file's metadata. Its temperature calibrates the probabilities.

    Returns:
        The model. Input: ``frames``, uint8 (N, size, size, 3). Outputs, float32: ``probabilities`` and ``logits``
        (N, labels), ``features`` (N, h, w, labels).
    """
    graph = _Graph()
    graph.node("Transpose", ["frames"], "frames/nchw", perm=[0, 3, 1, 2])
    graph.parameters(model.pixels)
    graph.dequantize("frames/nchw", model.pixels)
    for node in model.nodes:
        graph.add(node)
    _add_head(graph, model, spec.temperature)
    size, labels = model.pixels.shape[0], model.logits.shape[2]
    height, width, _ = model.maps.shape
    float_output = helper.make_tensor_value_info
    made = helper.make_graph(
        graph.nodes,
        spec.name,
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", size, size, 3])],
        [
            float_output("probabilities", TensorProto.FLOAT, ["N", labels]),
            float_output("logits", TensorProto.FLOAT, ["N", labels]),
            float_output("features", TensorProto.FLOAT, ["N", height, width, labels]),
        ],
        graph.constants,
    )
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    proto.producer_name = "capsule-edge"
    helper.set_model_props(proto, {METADATA_KEY: spec.to_json()})
    onnx.checker.check_model(proto)
    return proto


def _add_head(graph: _Graph, model: IntegerModel, temperature: float) -> None:
    """Add the three float outputs behind the integer part."""
    graph.node("Flatten", [_dequantized(model.logits)], "logits", axis=1)
    # The features: the dense weights at each position of the last map, as a float 1 x 1 convolution.
    graph.constant("head/classifier", model.classifier.T[:, :, None, None])
    graph.node(
        "Conv", [_dequantized(model.maps), "head/classifier"], "head/features_nchw", kernel_shape=[1, 1]
    )
    graph.node("Transpose", ["head/features_nchw"], "features", perm=[0, 2, 3, 1])
    graph.constant("head/inverse_temperature", np.asarray(1 / temperature, np.float32))
    graph.node("Mul", ["logits", "head/inverse_temperature"], "head/calibrated_logits")
    graph.node("Softmax", ["head/calibrated_logits"], "probabilities", axis=1)


def _dequantized(tensor: IntegerTensor) -> str:
    """Return the name of the activation in float."""
    return f"{tensor.name}/real"


class _Graph:
    """A graph under construction. Each activation is dequantised once, right behind its QuantizeLinear."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        # The uint8 value of each activation, by the activation's name.
        self.sources: dict[str, str] = {}

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))

    def constant(self, name: str, values: npt.NDArray[Any]) -> None:
        # np.ascontiguousarray would turn a scalar into a vector of one, and onnxruntime then leaves Add in float.
        self.constants.append(numpy_helper.from_array(np.array(values, order="C"), name))

    def parameters(self, tensor: IntegerTensor) -> None:
        """Add the scale and zero point of an activation, for U8."""
        self.constant(f"{tensor.name}/scale", np.asarray(tensor.scale, np.float32))
        self.constant(f"{tensor.name}/zero", np.asarray(tensor.zero_point + 128, np.uint8))

    def dequantize(self, source: str, tensor: IntegerTensor) -> None:
        """Add the DequantizeLinear of an activation, whose uint8 value is named ``source``."""
        self.sources[tensor.name] = source
        given = [source, f"{tensor.name}/scale", f"{tensor.name}/zero"]
        self.node("DequantizeLinear", given, _dequantized(tensor))

    def add(self, node: IntegerNode) -> None:
        """Add an operation on dequantised inputs, then quantise and dequantise its output."""
        inputs = [_dequantized(tensor) for tensor in node.inputs]
        result = f"{node.output.name}/float"
        if node.float_kernel is not None:
            self._convolve_float(node, node.float_kernel, self._dequantized_plainly(node.inputs[0]), result)
        elif node.kernel is not None:
            self._convolve(node, node.kernel, inputs[0], result)
        elif node.kind == "add":
            self.node("Add", inputs, result)
        elif node.kind == "mean":
            self.node("GlobalAveragePool", inputs, result)
        else:
            kind = "MaxPool" if node.kind == "max_pool" else "AveragePool"
            shape = {"kernel_shape": node.window, "strides": node.strides, "pads": node.pads()}
            self.node(kind, inputs, result, **shape)
        if node.output.unrounded:
            self.nodes[-1].output[0] = _dequantized(node.output)
            return
        self.parameters(node.output)
        given = [result, f"{node.output.name}/scale", f"{node.output.name}/zero"]
        self.node("QuantizeLinear", given, f"{node.output.name}/u8")
        self.dequantize(f"{node.output.name}/u8", node.output)

    def _convolve(self, node: IntegerNode, kernel: Kernel, source: str, result: str) -> None:
        """Add a convolution with integer weights and biases, dequantised."""
        depthwise = node.kind == "depthwise"
        weights = kernel.weights[:, :, None] if depthwise else kernel.weights
        zeros = np.zeros(len(kernel.scales), np.int8)
        self.constant(f"{node.name}/weights", weights.transpose(3, 2, 0, 1))
        self.constant(f"{node.name}/weights/scale", kernel.scales)
        self.constant(f"{node.name}/weights/zero", zeros)
        self.constant(f"{node.name}/bias", kernel.biases)
        self.constant(f"{node.name}/bias/scale", node.inputs[0].scale * kernel.scales)
        self.constant(f"{node.name}/bias/zero", zeros.astype(np.int32))
        for part in ("weights", "bias"):
            given = [f"{node.name}/{part}{suffix}" for suffix in ("", "/scale", "/zero")]
            self.node("DequantizeLinear", given, f"{node.name}/{part}/real", axis=0)
        self._conv(node, source, result)

    def _dequantized_plainly(self, tensor: IntegerTensor) -> str:
        """Dequantise an activation with Cast, Sub and Mul, and return the name of the result.

        Behind a DequantizeLinear, onnxruntime would quantise the float weights of a layer kept in float, and say
        nothing (its WeightBiasQuantization, seen in 1.32): 12 to 17 % of such a layer's values were off.
        """
        name = f"{tensor.name}/plain"
        if tensor.unrounded:
            return _dequantized(tensor)
        if not any(node.name == name for node in self.nodes):
            self.node("Cast", [self.sources[tensor.name]], f"{name}/u8", to=TensorProto.FLOAT)
            self.constant(f"{name}/zero", np.asarray(tensor.zero_point + 128, np.float32))
            self.node("Sub", [f"{name}/u8", f"{name}/zero"], f"{name}/steps")
            self.node("Mul", [f"{name}/steps", f"{tensor.name}/scale"], name)
        return name

    def _convolve_float(self, node: IntegerNode, kernel: FloatKernel, source: str, result: str) -> None:
        """Add a convolution kept in float, and its ReLU."""
        weights = kernel.weights[:, :, None] if node.kind == "depthwise" else kernel.weights
        self.constant(f"{node.name}/weights/real", weights.transpose(3, 2, 0, 1))
        self.constant(f"{node.name}/bias/real", kernel.biases)
        sums = f"{node.name}/sums" if kernel.relu else result
        self._conv(node, source, sums)
        if kernel.relu and kernel.ceiling is None:
            self.node("Relu", [sums], result)
        elif kernel.relu:
            ends = [f"{node.name}/floor", f"{node.name}/ceiling"]
            for name, end in zip(ends, (0, kernel.ceiling), strict=True):
                self.constant(name, np.asarray(end, np.float32))
            self.node("Clip", [sums, *ends], result)

    def _conv(self, node: IntegerNode, source: str, result: str) -> None:
        self.node(
            "Conv",
            [source, f"{node.name}/weights/real", f"{node.name}/bias/real"],
            result,
            kernel_shape=node.window,
            strides=node.strides,
            pads=node.pads(),
            group=node.output.shape[2] if node.kind == "depthwise" else 1,
        )
