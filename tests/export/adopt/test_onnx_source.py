"""Files that cannot be adopted are refused in one line that names the layer, the input or the figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from capsule_edge.export.adopt.onnx_source import read_onnx
from capsule_edge.runtime.errors import CapsuleEdgeError, InputError, ModelError, UsageError


@pytest.fixture
def plain(foreign) -> onnx.ModelProto:
    return onnx.load(foreign("residual"))


def save(proto: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(proto, folder / "model.onnx")
    return folder / "model.onnx"


def refused(proto: onnx.ModelProto, folder: Path, **options) -> str:
    with pytest.raises(CapsuleEdgeError) as caught:
        read_onnx(save(proto, folder), **options)
    assert "\n" not in caught.value.message
    return str(caught.value)


def insert(proto: onnx.ModelProto, node: onnx.NodeProto) -> None:
    """Put a node before the last one, whose result nobody reads."""
    proto.graph.node.insert(len(proto.graph.node) - 1, node)


def test_a_sound_file_is_described(plain, tmp_path):
    source = read_onnx(save(plain, tmp_path))
    assert (source.size, source.layout, source.classes, source.opset) == (32, "nchw", 3, 17)
    assert source.producer == "pytorch"
    kinds = {node.op_type for node in source.proto.graph.node}
    assert "BatchNormalization" not in kinds


def test_control_flow_is_refused_by_name(plain, tmp_path):
    branch = helper.make_graph(
        [helper.make_node("Identity", ["input"], ["same"])], "branch", [],
        [helper.make_tensor_value_info("same", TensorProto.FLOAT, None)],
    )  # fmt: skip
    plain.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    insert(
        plain,
        helper.make_node("If", ["yes"], ["chosen"], name="/branch", then_branch=branch, else_branch=branch),
    )
    assert "'/branch' (If) is control flow" in refused(plain, tmp_path)


def test_custom_operators_are_refused_by_name(plain, tmp_path):
    insert(plain, helper.make_node("Swish", ["input"], ["odd"], name="/act", domain="my.ops"))
    assert "'/act' (Swish) is a custom operator of 'my.ops'" in refused(plain, tmp_path)


def test_a_local_function_is_inlined(plain, tmp_path):
    """PyTorch's newer exporter writes such functions."""
    body = [helper.make_node("Relu", ["x"], ["y"])]
    function = helper.make_function("pkg", "MyRelu", ["x"], ["y"], body, [helper.make_opsetid("", 17)])
    plain.functions.append(function)
    plain.opset_import.append(helper.make_opsetid("pkg", 1))
    for node in plain.graph.node:
        if node.op_type == "Relu":
            node.op_type, node.domain = "MyRelu", "pkg"
    source = read_onnx(save(plain, tmp_path))
    assert all(node.domain in ("", "ai.onnx") for node in source.proto.graph.node)


def test_several_inputs_are_refused_by_name(plain, tmp_path):
    plain.graph.input.append(helper.make_tensor_value_info("age", TensorProto.FLOAT, ["N", 1]))
    assert "2 inputs (input, age)" in refused(plain, tmp_path)


def test_several_outputs_are_refused_by_name(plain, tmp_path):
    plain.graph.output.append(
        helper.make_tensor_value_info(plain.graph.node[0].output[0], TensorProto.FLOAT, None)
    )
    assert "2 outputs" in refused(plain, tmp_path)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.UINT8])
def test_another_type_of_input_is_refused(plain, tmp_path, kind):
    plain.graph.input[0].type.tensor_type.elem_type = kind
    assert "allowed is float32" in refused(plain, tmp_path)


def test_half_precision_weights_are_refused_by_name(plain, tmp_path):
    tensor = plain.graph.initializer[0]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    assert f"{tensor.name!r} is float16" in refused(plain, tmp_path)


def test_weights_that_are_no_numbers_are_refused_by_name(plain, tmp_path):
    tensor = plain.graph.initializer[0]
    values = numpy_helper.to_array(tensor).copy()
    values.flat[3] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    assert f"{tensor.name!r} holds values that are not numbers" in refused(plain, tmp_path)


def test_external_data_are_refused_by_name(plain, tmp_path):
    tensor = plain.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, "weights.bin")
    tensor.ClearField("raw_data")
    path = tmp_path / "model.onnx"
    path.write_bytes(plain.SerializeToString())
    with pytest.raises(ModelError, match="external data") as caught:
        read_onnx(path)
    assert repr(tensor.name) in str(caught.value)


def test_a_quantised_model_is_refused_by_name(plain, tmp_path):
    scale = numpy_helper.from_array(np.float32(0.1), "s")
    zero = numpy_helper.from_array(np.uint8(0), "z")
    plain.graph.initializer.extend([scale, zero])
    insert(plain, helper.make_node("QuantizeLinear", ["input", "s", "z"], ["q"], name="/q"))
    assert "'/q' (QuantizeLinear) shows that the model is quantised already" in refused(plain, tmp_path)


def test_a_model_in_training_mode_is_refused(plain, tmp_path):
    node = next(node for node in plain.graph.node if node.op_type == "BatchNormalization")
    node.attribute.append(helper.make_attribute("training_mode", 1))
    assert "belongs to training" in refused(plain, tmp_path)


def test_an_open_size_is_asked_for(plain, tmp_path):
    for at in (2, 3):
        plain.graph.input[0].type.tensor_type.shape.dim[at].dim_param = f"side{at}"
    message = refused(plain, tmp_path)
    assert "leaves the size open" in message
    assert "--size PIXELS" in message
    assert read_onnx(tmp_path / "model.onnx", size=48).size == 48
    with pytest.raises(ModelError, match="8 to 1024"):
        read_onnx(tmp_path / "model.onnx", size=5000)


def test_another_size_than_the_files_is_refused(plain, tmp_path):
    with pytest.raises(UsageError, match=r"--size is 64, but .* takes 32"):
        read_onnx(save(plain, tmp_path), size=64)


@pytest.mark.parametrize("sides", [(3, 32, 40), (1, 32, 32), (4, 4, 4)])
def test_inputs_that_are_no_square_colour_pictures_are_refused(plain, tmp_path, sides):
    for at, side in enumerate(sides, 1):
        plain.graph.input[0].type.tensor_type.shape.dim[at].dim_value = side
    assert "'input'" in refused(plain, tmp_path)


def test_old_operators_are_refused(plain, tmp_path):
    plain.opset_import[0].version = 12
    assert "opset 12, allowed is 13 or more" in refused(plain, tmp_path)


def test_too_many_classes_are_refused(plain, tmp_path):
    head = plain.graph.node[-1]
    constants = {tensor.name: tensor for tensor in plain.graph.initializer}
    weights = numpy_helper.to_array(constants[head.input[1]])
    constants[head.input[1]].CopyFrom(numpy_helper.from_array(np.tile(weights, (1000, 1)), head.input[1]))
    bias = numpy_helper.to_array(constants[head.input[2]])
    constants[head.input[2]].CopyFrom(numpy_helper.from_array(np.tile(bias, 1000), head.input[2]))
    assert "3,000 outputs, allowed are 1,000 labels" in refused(plain, tmp_path)


def test_a_detector_is_refused(plain, tmp_path):
    plain.graph.output[0].CopyFrom(
        helper.make_tensor_value_info(plain.graph.node[5].output[0], TensorProto.FLOAT, None)
    )
    assert "a classifier is needed" in refused(plain, tmp_path)


def test_a_fixed_batch_is_freed(plain, tmp_path):
    """PyTorch writes a reshape with the batch of its example in it."""
    flatten = next(node for node in plain.graph.node if node.op_type == "Flatten")
    plain.graph.initializer.append(numpy_helper.from_array(np.array([1, 16], np.int64), "shape"))
    reshape = helper.make_node("Reshape", [flatten.input[0], "shape"], [flatten.output[0]], name="/view")
    flatten.CopyFrom(reshape)
    for value in (plain.graph.input[0], plain.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    source = read_onnx(save(plain, tmp_path))
    answers = source.runner()(np.zeros((5, 3, 32, 32), np.float32))
    assert answers.shape == (5, 3)


def test_an_answer_that_depends_on_the_batch_is_refused(plain, tmp_path):
    made = plain.graph.node[-1].output[0]
    plain.graph.node.append(
        helper.make_node("ReduceMean", [made], ["mean"], name="/mean", axes=[0], keepdims=1)
    )
    plain.graph.node.append(helper.make_node("Sub", [made, "mean"], ["relative"], name="/sub"))
    plain.graph.output[0].CopyFrom(helper.make_tensor_value_info("relative", TensorProto.FLOAT, ["N", 3]))
    assert "other answers alone than in a batch" in refused(plain, tmp_path)


def test_a_file_of_ours_is_refused(tmp_path):
    from foreign_models import SMALL

    with pytest.raises(ModelError, match="already is a model file of capsule-edge"):
        read_onnx(SMALL)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 zip", b"\x08\x07" * 40])
def test_a_file_that_is_no_model_is_refused(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="no ONNX model"):
        read_onnx(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_onnx(tmp_path / "absent.onnx")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
def test_a_cut_file_is_refused(foreign, tmp_path, share):
    content = foreign("residual").read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelError):
        read_onnx(path)


def test_metadata_of_the_onnx_standard_are_read(plain, tmp_path):
    helper.set_model_props(
        plain, {"Image.NominalPixelRange": "Normalized_0_1", "Image.BitmapPixelFormat": "Bgr8"}
    )
    source = read_onnx(save(plain, tmp_path))
    assert (source.scaling, source.channels) == ("0..1", "bgr")
