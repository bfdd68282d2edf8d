"""Ranges of activations: by three methods, cut where what follows no longer answers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from capsule_edge.export.adopt.activation_ranges import choose_ranges, collect_histograms
from capsule_edge.export.adopt.float_body import PIXELS, make_body, mark_inside
from capsule_edge.export.adopt.graph import Graph
from capsule_edge.export.adopt.input_chain import follow_input
from capsule_edge.export.adopt.onnx_source import read_onnx
from capsule_edge.export.adopt.quantiser import activations_of
from capsule_edge.export.adopt.scaling import parse_scaling

FRAMES = np.random.default_rng(3).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def body(foreign):
    source = read_onnx(foreign("mobile"))
    chain = follow_input(Graph(source.proto), source.input, source.layout)
    return make_body(source, chain, parse_scaling("imagenet", None), "logits")


def test_histograms_hold_every_value_in_its_range(body):
    names = activations_of(body)
    histograms = collect_histograms(body, names, FRAMES)
    assert set(histograms) == set(names)
    for name, (counts, (low, high)) in histograms.items():
        values = body.values(FRAMES, name) if name != PIXELS else body.entry.apply(FRAMES)
        assert counts.sum() == values.size
        assert low <= values.min() <= values.max() <= high


def test_a_range_ends_where_a_swish_is_flat(body):
    graph = Graph(body.proto)
    inputs = [node.input[0] for node in graph.nodes if node.op_type == "Sigmoid"]
    swish = [name for name in inputs if len(graph.readers[name]) == 2]
    gates = [name for name in inputs if len(graph.readers[name]) == 1]
    others = [node.output[0] for node in graph.nodes if node.op_type == "GlobalAveragePool"]
    assert len(swish) == 4
    assert len(gates) == len(others) - 1 == 1
    made = {name: (np.ones(2048), (-40.0, 30.0)) for name in (*swish, *gates, *others)}
    ranges = choose_ranges(body, made, "minmax", exact={})
    assert {ranges[name] for name in swish} == {(-6.0, 30.0)}
    assert {ranges[name] for name in gates} == {(-8.0, 8.0)}
    assert {ranges[name] for name in others} == {(-40.0, 30.0)}


def test_a_fourth_channel_carries_the_mean_past_padding(body):
    """The levels become the input, and the answers stay: sums of float32 in another order."""
    marked = mark_inside(body)
    assert body.entry.zero_point is None
    assert marked.entry.zero_point == 128
    assert marked.entry.apply(FRAMES).shape == (20, 4, 32, 32)
    expected = body.values(FRAMES)
    np.testing.assert_allclose(marked.values(FRAMES), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    first = next(node for node in marked.proto.graph.node if node.op_type == "Conv")
    weights = next(t for t in marked.proto.graph.initializer if t.name == first.input[1])
    assert onnx.numpy_helper.to_array(weights).shape[1] == 4
