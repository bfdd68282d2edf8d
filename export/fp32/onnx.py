"""Write the FP32 ONNX file through tf2onnx. The INT8 ONNX file is compared with it."""

from __future__ import annotations

import onnx
import tf2onnx
from onnx import TensorProto, helper

from capsule_edge.runtime.inference import METADATA_KEY, ModelSpec

from ..contract import OUTPUTS
from .serving import ServingModel

__all__ = ["build_fp32_onnx"]

_OPSET = 17


def build_fp32_onnx(serving: ServingModel, spec: ModelSpec) -> onnx.ModelProto:
    """Build the FP32 ONNX model.

    Args:
        serving: The FP32 model with the outputs of the contract.
        spec: The ModelSpec to write into the file's metadata.

    Returns:
        The model. Input: ``frames``, uint8 (N, size, size, 3). Outputs, float32 and in the order of
        ``contract.OUTPUTS``: ``probabilities`` and ``logits`` (N, labels), ``features`` (N, h, w, labels).
    """
    proto, _ = tf2onnx.convert.from_function(
        serving.serve, input_signature=serving.serve.input_signature, opset=_OPSET
    )
    # tf2onnx sorts the outputs by name and gives the batch of each a name of its own. The contract fixes both.
    outputs = {value.name: value for value in proto.graph.output}
    del proto.graph.output[:]
    for name in OUTPUTS:
        sides = [side.dim_value for side in outputs[name].type.tensor_type.shape.dim][1:]
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *sides])
        proto.graph.output.append(value)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    # The shapes that tf2onnx recorded for inner values use its own names of the batch.
    del proto.graph.value_info[:]
    proto.graph.name = spec.name
    proto.producer_name = "capsule-edge"
    helper.set_model_props(proto, {METADATA_KEY: spec.to_json()})
    onnx.checker.check_model(proto)
    return proto
