"""Graphs that exporters write seldom: each is adopted with the answers it gives, or refused in one line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from capsule_edge.export.adopt.activation_ranges import choose_ranges, collect_histograms
from capsule_edge.export.adopt.bias_correction import bias_errors, correct_biases
from capsule_edge.export.adopt.float_body import FloatBody, make_body, mark_inside
from capsule_edge.export.adopt.graph import Graph
from capsule_edge.export.adopt.head import read_head
from capsule_edge.export.adopt.input_chain import follow_input
from capsule_edge.export.adopt.onnx_source import read_onnx
from capsule_edge.export.adopt.quantiser import activations_of, quantise_body
from capsule_edge.export.adopt.scaling import parse_scaling
from capsule_edge.export.adopt.weight_rounding import round_weights

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
