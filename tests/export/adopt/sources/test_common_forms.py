"""The operations by which Keras normalises layers are joined where they mean that, and left where they do not."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from capsule_edge.export.adopt.graph import Graph
from capsule_edge.export.adopt.sources.common_forms import join_layer_norms, straighten_gelus

EPSILON = 1e-3


def built(nodes: list[onnx.NodeProto], shape: tuple[int, ...], **constants: np.ndarray) -> onnx.ModelProto:
    tensors = [
        numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "part", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def keras_norm(shape: tuple[int, ...], pool: str, **attributes: object) -> onnx.ModelProto:
    """Keras 3's layer normalisation as tf2onnx writes it."""
    rng, ones = np.random.default_rng(0), (1,) * (len(shape) - 1)
    node = helper.make_node
    nodes = [
        node(pool, ["x"], ["mean"], **attributes),
        node("Neg", ["mean"], ["negative"]),
        node("Sub", ["x", "mean"], ["less"]),
        node("Mul", ["less", "less"], ["square"]),
        node(pool, ["square"], ["variance"], **attributes),
        node("Add", ["variance", "epsilon"], ["spread"]),
        node("Sqrt", ["spread"], ["root"]),
        node("Reciprocal", ["root"], ["inverse"]),
        node("Mul", ["inverse", "gamma"], ["scale"]),
        node("Mul", ["x", "scale"], ["scaled"]),
        node("Mul", ["negative", "scale"], ["mean_scaled"]),
        node("Add", ["mean_scaled", "beta"], ["shift"]),
        node("Add", ["scaled", "shift"], ["y"]),
    ]
    gamma, beta = rng.normal(1, 0.3, (2, *ones, shape[-1]))
    return built(nodes, shape, gamma=gamma, beta=beta, epsilon=np.array(EPSILON))


def answer(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(proto)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize(
    ("shape", "pool", "attributes", "joined"),
    [
        ((2, 5, 8), "GlobalAveragePool", {}, True),
        ((2, 5, 8), "ReduceMean", {"axes": [-1]}, True),
        ((2, 4, 4, 8), "ReduceMean", {"axes": [3]}, True),
        # These normalise over places, not over channels.
        ((2, 4, 4, 8), "GlobalAveragePool", {}, False),
        ((2, 5, 8), "ReduceMean", {"axes": [1]}, False),
    ],
)
def test_layer_norms_of_the_last_axis_are_joined(
    shape: tuple[int, ...], pool: str, attributes: dict[str, object], joined: bool
) -> None:
    proto = keras_norm(shape, pool, **attributes)
    x = np.random.default_rng(1).normal(2, 3, shape).astype(np.float32)
    before = answer(proto, x)
    graph = Graph(proto)
    assert join_layer_norms(graph) == joined
    graph.drop_unused()
    assert [node.op_type for node in graph.nodes if node.op_type == "LayerNormalization"] == [
        "LayerNormalization"
    ] * joined
    assert len(graph.nodes) == (1 if joined else 13)
    # Values of some 10, sums of 8 float32: a difference of some 1e-6.
    assert np.abs(answer(proto, x) - before).max() < 1e-5


def test_layer_norm_without_shift_is_joined() -> None:
    proto = keras_norm((2, 5, 8), "GlobalAveragePool")
    (end,) = [node for node in proto.graph.node if node.output[0] == "y"]
    end.input[1] = "mean_scaled"
    x = np.random.default_rng(1).normal(2, 3, (2, 5, 8)).astype(np.float32)
    before, graph = answer(proto, x), Graph(proto)
    assert join_layer_norms(graph) == 1
    graph.drop_unused()
    assert len(graph.nodes) == 1
    assert np.abs(answer(proto, x) - before).max() < 1e-5


def test_layer_norm_that_adds_another_value_is_left() -> None:
    proto = keras_norm((2, 5, 8), "GlobalAveragePool")
    (end,) = [node for node in proto.graph.node if node.output[0] == "y"]
    end.input[1] = "x"
    assert join_layer_norms(Graph(proto)) == 0


def test_layer_norm_whose_scale_is_computed_is_left() -> None:
    proto = keras_norm((2, 5, 8), "GlobalAveragePool")
    (scale,) = [node for node in proto.graph.node if node.output[0] == "scale"]
    scale.input[1] = "x"
    assert join_layer_norms(Graph(proto)) == 0


def test_gelu_by_the_other_tail_takes_the_usual_form() -> None:
    node = helper.make_node
    nodes = [
        node("Mul", ["half", "x"], ["halved"]),
        node("Neg", ["x"], ["negative"]),
        node("Mul", ["negative", "factor"], ["inner"]),
        node("Erf", ["inner"], ["erf"]),
        node("Sub", ["one", "erf"], ["tail"]),
        node("Mul", ["halved", "tail"], ["y"]),
    ]
    proto = built(nodes, (4, 8), half=np.array(0.5), factor=np.array(0.5**0.5), one=np.array(1.0))
    x = np.random.default_rng(1).normal(0, 2, (4, 8)).astype(np.float32)
    before, graph = answer(proto, x), Graph(proto)
    assert straighten_gelus(graph) == 1
    graph.drop_unused()
    assert sorted(node.op_type for node in graph.nodes) == ["Add", "Div", "Erf", "Mul", "Mul"]
    assert np.abs(answer(proto, x) - before).max() < 1e-6
