"""Weights rounded so that a layer's answers change least: patches, rounding, and the bounds that keep layers safe."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from capsule_edge.export.adopt.activation_ranges import choose_ranges, collect_histograms
from capsule_edge.export.adopt.float_body import make_body
from capsule_edge.export.adopt.graph import Graph
from capsule_edge.export.adopt.input_chain import follow_input
from capsule_edge.export.adopt.layer_ranking import rank_by_noise
from capsule_edge.export.adopt.layer_weights import LayerWeights
from capsule_edge.export.adopt.onnx_source import read_onnx
from capsule_edge.export.adopt.quantised_nodes import layers_of
from capsule_edge.export.adopt.quantiser import activations_of, quantise_body
from capsule_edge.export.adopt.scaling import parse_scaling
from capsule_edge.export.adopt.sessions import open_session
from capsule_edge.export.adopt.weight_rounding import _bounds, _patches, _round, round_weights

RNG = np.random.default_rng(4)
# Shape of the input, shape of the weights, and the node's attributes.
LAYERS = {
    "plain": ((2, 3, 9, 7), (5, 3, 3, 3), {}),
    "padded": ((2, 3, 9, 7), (5, 3, 3, 3), {"pads": [1, 0, 2, 1]}),
    "strided": ((2, 3, 9, 7), (5, 3, 3, 3), {"strides": [2, 3], "pads": [1, 1, 1, 1]}),
    "dilated": ((1, 3, 9, 9), (5, 3, 3, 2), {"dilations": [2, 3]}),
    "grouped": ((2, 4, 6, 6), (6, 2, 3, 3), {"group": 2}),
    "depthwise": ((2, 4, 6, 6), (4, 1, 3, 3), {"group": 4, "pads": [1, 1, 1, 1]}),
    "same upper": ((1, 3, 8, 7), (5, 3, 4, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "same lower": ((1, 3, 8, 7), (5, 3, 4, 3), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    "valid": ((1, 3, 8, 7), (5, 3, 4, 3), {"auto_pad": "VALID"}),
    "dense": ((6, 8), (8, 5), {}),
    "dense turned": ((6, 8), (5, 8), {"transB": 1}),
    "product": ((2, 3, 8), (8, 5), {}),
}


def one_layer(name: str) -> tuple[Graph, onnx.NodeProto, np.ndarray]:
    shape, kernel, attributes = LAYERS[name]
    kind = "Conv" if len(kernel) == 4 else "MatMul" if name == "product" else "Gemm"
    weights = numpy_helper.from_array(RNG.normal(size=kernel).astype(np.float32), "w")
    node = helper.make_node(kind, ["x", "w"], ["y"], name="layer", **attributes)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    graph = helper.make_graph([node], "one", values[:1], values[1:], [weights])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return Graph(proto), proto.graph.node[0], RNG.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("name", LAYERS)
def test_patches_times_weights_are_the_answers_of_a_layer(name: str) -> None:
    graph, layer, values = one_layer(name)
    (expected,) = open_session(graph.proto).run(["y"], {"x": values})
    weights = LayerWeights.of(graph, layer, False)
    rows = _patches(graph, layer, values)
    assert rows.shape[0] == weights.groups
    each = weights.flat.shape[1] // weights.groups
    answers = [
        rows[group] @ weights.flat[:, group * each : (group + 1) * each] for group in range(weights.groups)
    ]
    found = np.concatenate(answers, axis=1)
    if layer.op_type == "Conv":
        expected = expected.transpose(0, 2, 3, 1)
    np.testing.assert_allclose(found, expected.reshape(found.shape), rtol=0, atol=1e-5)
    integers = weights.shaped(np.clip(weights.nearest(), -127, 127).astype(np.int8))
    stored = graph.constant("w")
    assert np.abs(weights.dequantised(integers) - stored).max() <= weights.scales.max() / 2 + 1e-7


def test_inputs_that_go_together_take_back_each_others_errors() -> None:
    inputs = RNG.normal(size=(4000, 12)) @ RNG.normal(size=(12, 40)) + 0.1 * RNG.normal(size=(4000, 40))
    weights, scales = RNG.normal(size=(40, 6)).astype(np.float32), np.full(6, 0.05)
    bounds = np.full(weights.shape, 127.0)
    found = _round(weights, inputs.T @ inputs, scales, -bounds, bounds)
    nearest = np.rint(weights / scales)
    lost = [np.square(inputs @ (levels * scales - weights)).mean() for levels in (found, nearest)]
    assert lost[0] < lost[1] / 3
    assert np.abs(found - nearest).max() < 12


def test_inputs_that_have_nothing_in_common_leave_the_nearest_level() -> None:
    weights, scales = RNG.normal(size=(30, 5)).astype(np.float32), np.full(5, 0.03)
    bounds = np.full(weights.shape, 127.0)
    power = np.diag(RNG.uniform(0, 2, 30))
    np.testing.assert_array_equal(_round(weights, power, scales, -bounds, bounds), np.rint(weights / scales))


@pytest.mark.parametrize("pairs", ["any", "adjacent", "none"])
def test_no_weights_within_the_bounds_can_saturate(pairs: str) -> None:
    for _ in range(60):
        shape = int(RNG.integers(1, 20)), 8
        flat = RNG.normal(size=shape) * RNG.choice([0.2, 1.0, 5.0], size=shape)
        if pairs == "none":
            limit = np.abs(flat).max(axis=0)
        else:
            limit = np.maximum(largest_sum(flat, pairs), np.abs(flat).max(axis=0))
        nearest = np.rint(flat / limit * 127)
        low, high = _bounds(nearest, pairs)
        # Two halves of rounding may put one of them a step beyond its bound.
        assert (low - 1 <= nearest).all()
        assert (nearest <= high + 1).all()
        drawn = np.where(RNG.random(shape) < 0.7, np.where(RNG.random(shape) < 0.5, low, high), nearest)
        assert np.abs(drawn).max() <= 127
        if pairs != "none":
            # Two halves of rounding on top of 127; 255 * 128 fits into 16 bits.
            assert largest_sum(drawn, pairs).max() <= 128


def largest_sum(levels: np.ndarray, pairs: str) -> np.ndarray:
    """Return the largest magnitude of a sum of two weights that may meet, for each channel."""
    if len(levels) < 2:
        return np.zeros(levels.shape[1])
    if pairs == "adjacent":
        return np.abs(levels[1:] + levels[:-1]).max(axis=0)
    ordered = np.sort(levels, axis=0)
    return np.maximum(np.maximum(ordered[-2:], 0).sum(axis=0), np.maximum(-ordered[:2], 0).sum(axis=0))


@pytest.mark.parametrize("kind", ["residual", "mobile", "nhwc"])
def test_fitted_layers_lose_less_and_stay_safe(foreign, kind: str) -> None:
    source = read_onnx(foreign(kind))
    chain = follow_input(Graph(source.proto), source.input, source.layout)
    body = make_body(source, chain, parse_scaling("imagenet", None), "logits")
    smooth = RNG.integers(0, 256, (64, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)
    fitting, others = smooth[:48], smooth[48:]
    ranges = choose_ranges(body, collect_histograms(body, activations_of(body), fitting), "minmax", exact={})
    plain = quantise_body(body, ranges, saturation_safe=True)
    integers = round_weights(body, plain, fitting, saturation_safe=True)
    fitted = quantise_body(body, ranges, saturation_safe=True, weights=integers)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in fitted.graph.initializer}
    before, after = (dict(rank_by_noise(body, made, others)) for made in (plain, fitted))
    assert set(integers) == set(before) == set(after)
    gained = [after[name] - before[name] for name in after]
    # A depthwise layer has nine weights a channel, too few to take back much.
    assert np.mean(gained) > (0.1 if kind == "mobile" else 0.3)
    assert min(gained) > -0.1
    for layer in layers_of(Graph(body.proto)):
        if layer.name in integers:
            assert any(np.array_equal(each, integers[layer.name]) for each in stored.values())
            weights = LayerWeights.of(Graph(body.proto), layer, True)
            flat = np.moveaxis(integers[layer.name], weights.axis, -1).reshape(weights.flat.shape)
            if weights.pairs != "none":
                assert largest_sum(flat.astype(int), weights.pairs).max() <= 128


def test_a_layer_of_too_many_inputs_keeps_its_nearest_weights(
    foreign, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = read_onnx(foreign("residual"))
    chain = follow_input(Graph(source.proto), source.input, source.layout)
    body = make_body(source, chain, parse_scaling("imagenet", None), "logits")
    frames = RNG.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    ranges = choose_ranges(body, collect_histograms(body, activations_of(body), frames), "minmax", exact={})
    plain = quantise_body(body, ranges, saturation_safe=True)
    inputs = {
        layer.name: LayerWeights.of(Graph(body.proto), layer, True).flat.shape[0]
        for layer in layers_of(Graph(body.proto))
    }
    limit = sorted(inputs.values())[1]
    monkeypatch.setattr("capsule_edge.export.adopt.weight_rounding._MOST_INPUTS", limit)
    fitted = round_weights(body, plain, frames, saturation_safe=True)
    assert fitted
    assert all(inputs[name] <= limit for name in fitted)
    assert max(inputs.values()) > limit
