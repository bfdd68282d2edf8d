"""The FP32 ONNX file, through tf2onnx: the twin that the INT8 file is compared with."""

from __future__ import annotations

import onnx
import tf2onnx
from onnx import TensorProto, helper

from capsule_edge.runtime.inference import METADATA_KEY, ModelSpec

from .serving import OUTPUTS, ServingModel

__all__ = ["build_fp32_onnx"]

_OPSET = 17


def build_fp32_onnx(serving: ServingModel, spec: ModelSpec) -> onnx.ModelProto:
    """The file: input ``frames`` uint8 (N, s, s, 3), outputs by the contract, ``spec`` in the metadata."""
    proto, _ = tf2onnx.convert.from_function(
        serving.serve, input_signature=serving.serve.input_signature, opset=_OPSET
    )
    # tf2onnx names the batch of each value differently and sorts the outputs; the contract has an order.
    outputs = {value.name: value for value in proto.graph.output}
    del proto.graph.output[:]
    for name in OUTPUTS:
        sides = [side.dim_value for side in outputs[name].type.tensor_type.shape.dim][1:]
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *sides])
        proto.graph.output.append(value)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    # Shapes that tf2onnx noted on the way bear its own names of the batch.
    del proto.graph.value_info[:]
    proto.graph.name = spec.name
    proto.producer_name = "capsule-edge"
    helper.set_model_props(proto, {METADATA_KEY: spec.to_json()})
    onnx.checker.check_model(proto)
    return proto
