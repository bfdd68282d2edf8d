"""Graphs that exporters write seldom: each is adopted with the answers it gives, or refused in one line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from capsule_edge.export.adopt import AdoptOptions, adopt
from capsule_edge.export.adopt.activation_ranges import choose_ranges, collect_histograms
from capsule_edge.export.adopt.bias_correction import bias_errors, correct_biases
from capsule_edge.export.adopt.float_body import FloatBody, make_body, mark_inside
from capsule_edge.export.adopt.graph import Graph
from capsule_edge.export.adopt.head import read_head
from capsule_edge.export.adopt.input_chain import follow_input
from capsule_edge.export.adopt.judgement import source_logits
from capsule_edge.export.adopt.onnx_source import read_onnx
from capsule_edge.export.adopt.quantiser import activations_of, quantise_body
from capsule_edge.export.adopt.scaling import parse_scaling
from capsule_edge.export.adopt.weight_rounding import round_weights
from capsule_edge.runtime.errors import ModelError, UsageError

# Smooth pictures: noise would be averaged away by the first convolutions.
FRAMES = np.random.default_rng(3).integers(0, 256, (24, 4, 4, 3)).repeat(8, 1).repeat(8, 2).astype(np.uint8)


@pytest.fixture
def plain(foreign) -> onnx.ModelProto:
    return onnx.load(foreign("residual"))


def constant(proto: onnx.ModelProto, name: str, values: np.ndarray) -> str:
    """Add a constant, or replace the one of that name."""
    for tensor in [tensor for tensor in proto.graph.initializer if tensor.name == name]:
        proto.graph.initializer.remove(tensor)
    proto.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
    return name


def value(proto: onnx.ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(each for each in proto.graph.initializer if each.name == name)).copy()


def layers(proto: onnx.ModelProto, kind: str) -> list[onnx.NodeProto]:
    return [node for node in proto.graph.node if node.op_type == kind]


def body_of(proto: onnx.ModelProto, folder: Path, scaling: str = "imagenet") -> FloatBody:
    onnx.save(proto, folder / "model.onnx")
    source = read_onnx(folder / "model.onnx")
    graph = Graph(source.proto)
    meaning = read_head(graph, source.output).meaning
    chain = follow_input(graph, source.input, source.layout)
    return make_body(source, chain, parse_scaling(scaling, "rgb"), meaning)


def check_small(body: FloatBody) -> onnx.ModelProto:
    """Quantise with fitted weights and corrected biases, and compare the answers. Return the network in 8 bits."""
    levels = mark_inside(body)
    expected = body.values(FRAMES)
    np.testing.assert_allclose(levels.values(FRAMES), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    ranges = choose_ranges(
        levels, collect_histograms(levels, activations_of(levels), FRAMES), "minmax", exact={}
    )
    first = quantise_body(levels, ranges, saturation_safe=True)
    integers = round_weights(levels, first, FRAMES, saturation_safe=True)
    corrected = correct_biases(levels, bias_errors(levels, first, FRAMES))
    made = quantise_body(corrected, ranges, saturation_safe=True, weights=integers)
    for network in (first, made):
        onnx.checker.check_model(network, full_check=True)
        small = dataclasses.replace(levels, proto=network).values(FRAMES)
        # Weights of 7 bits and activations of 8 lose some percent in a network of a few layers.
        assert np.abs(small - expected).mean() < 0.05 * np.ptp(expected)
    return first


@pytest.mark.parametrize(
    ("mode", "padding", "levels"),
    [
        ("constant", None, True),
        ("constant", 0.0, True),
        ("constant", -1.7, False),
        ("edge", None, True),
        ("reflect", None, True),
    ],
)
def test_a_pad_before_the_first_convolution_keeps_its_values(plain, tmp_path, mode, padding, levels):
    """A constant other than 0 is one of scaled pixels: then these stay the input."""
    first = layers(plain, "Conv")[0]
    next(each for each in first.attribute if each.name == "pads").ints[:] = [0] * 4
    given = ["input", constant(plain, "sides", np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))]
    if padding is not None:
        given.append(constant(plain, "padding", np.float32(padding)))
    plain.graph.node.insert(0, helper.make_node("Pad", given, ["padded"], name="/pad", mode=mode))
    first.input[0] = "padded"
    body = body_of(plain, tmp_path)
    assert mark_inside(body).entry.marked is levels
    check_small(body)


@pytest.mark.parametrize("shared", [(1,), (2,), (1, 2)])
def test_layers_that_share_weights_are_quantised_each_for_itself(plain, tmp_path, shared):
    """The same kernel or bias in two convolutions, as in a tower that is used twice."""
    _, first, last = layers(plain, "Conv")
    norm = next(node for node in plain.graph.node if first.output[0] in node.input)
    second = helper.make_node("Conv", ["middle", *first.input[1:]], ["again"], name="/again")
    second.attribute.extend(first.attribute)
    for at in {1, 2} - set(shared):
        own = value(plain, first.input[at]) * np.float32(0.5)
        second.input[at] = constant(plain, f"own{at}", own)
    norm.input[0] = "end"
    # Batch normalisation would be folded into one of the two.
    middle = helper.make_node("Relu", [first.output[0]], ["middle"], name="/middle")
    end = helper.make_node("Relu", ["again"], ["end"], name="/end")
    at = list(plain.graph.node).index(first) + 1
    for node in (end, second, middle):
        plain.graph.node.insert(at, node)
    body = body_of(plain, tmp_path)
    readers = Graph(body.proto).readers
    assert any(len(readers[name]) > 1 for node in layers(body.proto, "Conv") for name in node.input[1:])
    made = check_small(body)
    weights = [node for node in layers(made, "Conv") if node.name in (first.name, "/again")]
    assert weights[0].input[1] != weights[1].input[1]
    assert last.name in {node.name for node in layers(made, "Conv")}


@pytest.mark.parametrize("prefix", ["net/", "net/net/", "capsule_edge/", "own/"])
def test_names_of_values_may_begin_as_ours_do(plain, tmp_path, prefix):
    expected = body_of(plain, tmp_path).values(FRAMES)
    onnx.compose.add_prefix(plain, prefix, inplace=True)
    body = body_of(plain, tmp_path)
    np.testing.assert_allclose(body.values(FRAMES), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    check_small(body)


def add_hidden(proto: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    """Put nodes from the value ``before`` to the value ``hidden`` between pooling and the last layer."""
    head = layers(proto, "Gemm")[0]
    given, head.input[0] = head.input[0], "hidden"
    at = list(proto.graph.node).index(head)
    rest = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(
        [*rest[:at], helper.make_node("Identity", [given], ["before"], name="/before"), *nodes, *rest[at:]]
    )


@pytest.mark.parametrize("shape", [(16,), (1, 16), (1, 1), (1,)])
@pytest.mark.parametrize("kind", ["Gemm", "MatMul"])
def test_a_hidden_layer_may_have_a_bias_of_any_shape(plain, tmp_path, kind, shape):
    rng = np.random.default_rng(1)
    constant(plain, "w", rng.normal(0, 0.3, (16, 16)).astype(np.float32))
    constant(plain, "b", rng.normal(0.5, 0.1, shape).astype(np.float32))
    made = (
        [helper.make_node("Gemm", ["before", "w", "b"], ["sum"], name="/dense")]
        if kind == "Gemm"
        else [
            helper.make_node("MatMul", ["before", "w"], ["product"], name="/dense"),
            helper.make_node("Add", ["product", "b"], ["sum"], name="/bias"),
        ]
    )
    add_hidden(plain, [*made, helper.make_node("Relu", ["sum"], ["hidden"], name="/relu")])
    small = check_small(body_of(plain, tmp_path))
    assert sum(tensor.data_type == TensorProto.INT8 for tensor in small.graph.initializer) >= 4


def test_a_convolution_may_state_that_it_has_no_bias(plain, tmp_path):
    last = layers(plain, "Conv")[-1]
    last.input[2] = ""
    # Batch normalisation would give it one.
    norm = next(node for node in plain.graph.node if last.output[0] in node.input)
    plain.graph.node.insert(
        list(plain.graph.node).index(norm), helper.make_node("Relu", [last.output[0]], ["open"], name="/open")
    )
    norm.input[0] = "open"
    check_small(body_of(plain, tmp_path))


def test_a_product_of_double_precision_stays_as_it_is(plain, tmp_path):
    constant(plain, "w", np.eye(16) * 1.5)
    add_hidden(
        plain,
        [
            helper.make_node("Cast", ["before"], ["double"], name="/double", to=TensorProto.DOUBLE),
            helper.make_node("MatMul", ["double", "w"], ["product"], name="/product"),
            helper.make_node("Cast", ["product"], ["hidden"], name="/float", to=TensorProto.FLOAT),
        ],
    )
    small = check_small(body_of(plain, tmp_path))
    assert next(node for node in small.graph.node if node.name == "/product").input[1] == "net/w"


def test_an_output_of_double_precision_is_refused(plain, tmp_path):
    made = plain.graph.node[-1].output[0]
    plain.graph.node.append(helper.make_node("Cast", [made], ["wide"], name="/wide", to=TensorProto.DOUBLE))
    plain.graph.output[0].CopyFrom(helper.make_tensor_value_info("wide", TensorProto.DOUBLE, ["N", 3]))
    with pytest.raises(ModelError, match="the output is float64, allowed is float32"):
        body_of(plain, tmp_path)


@pytest.mark.parametrize("factors", [(1.0, 0.0, 1.0), (0.0, 0.0, 0.0)])
def test_a_channel_that_is_multiplied_by_0_keeps_its_answers(plain, tmp_path, factors):
    constant(plain, "f", np.array(factors, np.float32).reshape(1, 3, 1, 1))
    plain.graph.node.insert(0, helper.make_node("Mul", ["input", "f"], ["masked"], name="/mask"))
    layers(plain, "Conv")[0].input[0] = "masked"
    body = body_of(plain, tmp_path)
    source = read_onnx(tmp_path / "model.onnx")
    expected = source.runner()(parse_scaling("imagenet", "rgb").apply(FRAMES, "nchw"))
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(body.values(FRAMES), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("open_side", [-1, 0])
def test_sides_below_1_are_open(plain, tmp_path, open_side):
    sides = plain.graph.input[0].type.tensor_type.shape.dim
    sides[0].dim_value = open_side
    onnx.save(plain, tmp_path / "model.onnx")
    assert read_onnx(tmp_path / "model.onnx").size == 32
    for at in (2, 3):
        sides[at].dim_value = open_side
    onnx.save(plain, tmp_path / "model.onnx")
    with pytest.raises(UsageError, match="leaves the size open"):
        read_onnx(tmp_path / "model.onnx")
    assert read_onnx(tmp_path / "model.onnx", size=48).size == 48


@pytest.mark.parametrize(
    "error", [ValueError("two\nlines"), np.linalg.LinAlgError("singular"), RuntimeError()]
)
def test_an_error_of_a_library_is_one_line_that_names_the_model(
    foreign, colours, names, tmp_path, monkeypatch, error
):
    from capsule_edge.export.adopt import quantised_network

    def fail(*_args, **_options):
        raise error

    monkeypatch.setattr(quantised_network, "choose_int8", fail)
    words = r"residual\.onnx cannot be adopted: (two lines|singular|RuntimeError) \("
    with pytest.raises(ModelError, match=words) as caught:
        adopt(foreign("residual"), names, colours, tmp_path / "out", AdoptOptions(scaling="imagenet"))
    assert caught.value.__cause__ is error
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "added",
    [(40.0, 40.0, 40.0), (13.0, 13.0, 13.0), (40.0, 40.0, 0.0), (13.0, 40.0, 13.0), (-60.0, -60.0, -60.0)],
)
def test_several_labels_may_be_sure(foreign, colours, names, tmp_path, added):
    """Float32 rounds a sigmoid of 17 to 1, leaves one of 13 two digits; logits tell labels apart."""
    proto = onnx.load(foreign("residual", "Sigmoid"))
    head = layers(proto, "Gemm")[0]
    constant(proto, head.input[2], value(proto, head.input[2]) + np.array(added, np.float32))
    onnx.save(proto, tmp_path / "model.onnx")
    options = AdoptOptions(scaling="imagenet", accept_weak=len(set(added)) > 1)
    report = adopt(tmp_path / "model.onnx", names, colours, tmp_path / "out", options)
    assert report.source["outputs"] == "sigmoid"
    assert report.conversion["max_abs_dp"] < 1e-3
    assert report.conversion["agreement"] == 1
    conversion = next(each for each in report.certificates if each["kind"] == "conversion")
    assert conversion["agreement"] == 1


def test_sigmoids_that_differ_are_told_apart():
    """Only equal sigmoids near 1 stand for each other; any other difference stays one of logits."""
    answers = np.array([[1.0, 0.9999, 0.5, 0.9995]], np.float32)
    ours = np.array([[30.0, 12.0, 0.1, np.log(0.9995 / 0.0005)]])
    expected = [[30.0, np.log(0.9999 / 0.0001), 0.0, np.log(0.9995 / 0.0005)]]
    # A step of float32 below 1 is 6e-8 of the 1e-4 that 0.9999 leaves.
    np.testing.assert_allclose(source_logits(answers, "sigmoid", ours), expected, atol=1e-3)
    # A single output is the second of two labels; the logit of the first is 0.
    assert source_logits(np.array([[1.0]], np.float32), "sigmoid", np.array([[0.0, 5.0]]))[0, 1] > 16
    assert source_logits(np.array([[1e-7]], np.float32), "sigmoid", np.array([[0.0, -5.0]]))[0, 1] < -16
