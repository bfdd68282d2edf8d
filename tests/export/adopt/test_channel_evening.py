"""Channels evened between the layers of a float network: equal answers, the ceiling of a ReLU6, the layers left out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from foreign_models import Net
from onnx import numpy_helper

from capsule_edge.export.adopt.activation_ranges import choose_ranges, collect_histograms
from capsule_edge.export.adopt.channel_evening import even_channels, find_pairs
from capsule_edge.export.adopt.channel_factors import MARGIN, even_factors
from capsule_edge.export.adopt.float_body import PIXELS, FloatBody, make_body, mark_inside
from capsule_edge.export.adopt.graph import Graph
from capsule_edge.export.adopt.input_chain import follow_input
from capsule_edge.export.adopt.layer_ranking import rank_by_noise
from capsule_edge.export.adopt.layer_weights import LayerWeights
from capsule_edge.export.adopt.onnx_source import read_onnx
from capsule_edge.export.adopt.quantised_nodes import layers_of
from capsule_edge.export.adopt.quantiser import activations_of, quantise_body
from capsule_edge.export.adopt.scaling import parse_scaling
from capsule_edge.export.adopt.weight_rounding import round_weights

SIDE, CHANNELS = 32, 12
RNG = np.random.default_rng(11)
FRAMES = RNG.integers(0, 256, (40, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)
# A factor divides the weights of the reader: float32 rounds each product once more than in the network as it was.
ROUNDING = 1e-5


def activate(net: Net, kind: str, x: str) -> str:
    if kind == "swish":
        return net.swish(x)
    if kind == "clip":
        return net.node("Clip", x, net.constant(0.0), net.constant(6.0))
    if kind == "clip from -1":
        return net.node("Clip", x, net.constant(-1.0), net.constant(6.0))
    return net.node(kind, x)


def chain(kind: str, *, spread: float = 30.0) -> onnx.ModelProto:
    """A convolution, a depthwise and a pointwise one with activations between, and a head.

    The channels of the first differ by a factor of up to ``spread``.
    """
    net = Net(SIDE)
    x = net.conv("input", (3, CHANNELS), stride=2)
    uneven(net, -2, spread)
    x = net.conv(activate(net, kind, x), (CHANNELS, CHANNELS), group=CHANNELS)
    x = net.conv(activate(net, kind, x), (CHANNELS, 16), 1)
    pooled = net.pool(activate(net, kind, x))
    weights = net.constant(net.rng.normal(0, 1, (16, 3)))
    logits = net.node("Add", net.node("MatMul", pooled, weights), net.constant(net.rng.normal(0, 0.1, 3)))
    return net.model(logits)


def uneven(net: Net, at: int, spread: float) -> None:
    """Give the output channels of weights and bias factors of 1 to 1 / ``spread``."""
    factors = np.geomspace(1, 1 / spread, CHANNELS)
    for place in (at, at + 1):
        tensor = net.constants[place]
        values = numpy_helper.to_array(tensor)
        scaled = values * factors.reshape(-1, *[1] * (values.ndim - 1))
        tensor.CopyFrom(numpy_helper.from_array(scaled.astype(np.float32), tensor.name))


def body_of(proto: onnx.ModelProto, folder: Path) -> FloatBody:
    onnx.save(proto, folder / "net.onnx")
    source = read_onnx(folder / "net.onnx")
    entry = follow_input(Graph(source.proto), source.input, source.layout)
    return mark_inside(make_body(source, entry, parse_scaling("imagenet", None), "logits"))


def check_same(body: FloatBody, other: FloatBody, frames: np.ndarray = FRAMES) -> None:
    expected, found = body.values(frames), other.values(frames)
    np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDING * np.abs(expected).max())


@pytest.mark.parametrize("kind", ["Relu", "LeakyRelu", "clip"])
def test_answers_stay_and_small_channels_reach_further(kind: str, tmp_path: Path) -> None:
    body = body_of(chain(kind), tmp_path)
    evening = even_channels(body, FRAMES)
    assert len(evening.factors) == 3
    assert not evening.skipped
    check_same(body, evening.body)
    onnx.checker.check_model(evening.body.proto, full_check=True)
    pair = find_pairs(body)[0][0]
    before, after = (
        np.abs(each.values(FRAMES, pair.value)).max(axis=(0, 2, 3)) for each in (body, evening.body)
    )
    assert after.min() / after.max() > 3 * before.min() / before.max()


def test_activation_maps_follow_the_channels_of_the_last_layer(tmp_path: Path) -> None:
    """Mean of maps times classifier is the logits less the bias, which is the same for all frames."""
    body = body_of(chain("Relu"), tmp_path)
    other = even_channels(body, FRAMES).body
    rests = []
    for each in (body, other):
        assert each.pooled is not None
        means = each.values(FRAMES, each.pooled.maps).mean(axis=(2, 3))
        rests.append(each.values(FRAMES) - means @ each.pooled.weights)
    np.testing.assert_allclose(rests[1], rests[0], rtol=0, atol=ROUNDING * np.abs(body.values(FRAMES)).max())
    assert not np.allclose(body.pooled.weights, other.pooled.weights)


def test_no_channel_comes_near_the_ceiling_of_a_relu6(tmp_path: Path) -> None:
    """Values may exceed those of the frames by a quarter before the ceiling cuts a scaled channel."""
    body = body_of(chain("clip", spread=3.0), tmp_path)
    evening = even_channels(body, FRAMES)
    pair = find_pairs(body)[0][0]
    assert pair.ceiling == 6
    before, after = (each.values(FRAMES, pair.value).max(axis=(0, 2, 3)) for each in (body, evening.body))
    scaled = after > before * 1.001
    assert scaled.any()
    assert before.max() == 6
    assert after[scaled].max() <= 6 / MARGIN * 1.001
    # With all weights of the first layer and its bias a little larger, each channel exceeds its reach.
    grown = [larger(each, 1.2) for each in (body, evening.body)]
    check_same(*grown)


def larger(body: FloatBody, factor: float) -> FloatBody:
    """Multiply the outputs of the first layer."""
    proto = onnx.ModelProto()
    proto.CopyFrom(body.proto)
    graph = Graph(proto)
    first = layers_of(graph)[0]
    for at in (1, 2):
        graph.set_constant(first.input[at], graph.constant(first.input[at]) * np.float32(factor))
    return dataclasses.replace(body, proto=proto)


@pytest.mark.parametrize(
    ("kind", "operators"),
    [
        ("swish", ["Sigmoid", "Mul"]),
        ("HardSwish", ["HardSigmoid", "Mul"]),
        ("clip from -1", ["Clip"]),
        ("Tanh", ["Tanh"]),
    ],
)
def test_layers_behind_another_activation_are_left_and_named(
    kind: str, operators: list[str], tmp_path: Path
) -> None:
    body = body_of(chain(kind), tmp_path)
    evening = even_channels(body, FRAMES)
    assert evening.body is body
    assert not evening.factors
    convolutions = [node.name for node in body.proto.graph.node if node.op_type == "Conv"]
    assert list(evening.skipped) == convolutions
    for reason in evening.skipped.values():
        assert all(f"({operator})" in reason for operator in operators)


def test_channels_that_a_sum_reads_are_left(tmp_path: Path) -> None:
    net = Net(SIDE)
    x = net.node("Relu", net.conv("input", (3, 8), stride=2))
    y = net.node("Relu", net.conv(x, (8, 8)))
    x = net.node("Relu", net.conv(net.node("Add", x, net.conv(y, (8, 8))), (8, 8)))
    logits = net.node("Gemm", net.pool(x), net.constant(net.rng.normal(size=(8, 3))))
    body = body_of(net.model(logits), tmp_path)
    evening = even_channels(body, FRAMES)
    assert len(evening.factors) == len(evening.skipped) == 2
    assert all("(Add)" in reason for reason in evening.skipped.values())
    check_same(body, evening.body)


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
@pytest.mark.parametrize("between", ["MaxPool", "AveragePool", "Pad", "nothing"])
def test_each_kind_of_reader_takes_the_factors_back(groups: int, between: str, tmp_path: Path) -> None:
    net = Net(SIDE)
    x = net.node("Relu", net.conv("input", (3, 8), stride=2))
    if between == "Pad":
        x = net.node("Pad", x, net.constant([0, 0, 1, 2, 0, 0, 2, 1], np.int64))
    elif between != "nothing":
        x = net.node(between, x, kernel_shape=[2, 2], strides=[2, 2])
    x = net.node("Relu", net.conv(x, (8, 16), group=groups))
    x = net.node("Relu", net.node("Gemm", net.pool(x), net.constant(net.rng.normal(size=(8, 16))), transB=1))
    logits = net.node("Gemm", x, net.constant(net.rng.normal(size=(8, 3))))
    body = body_of(net.model(logits), tmp_path)
    evening = even_channels(body, FRAMES)
    assert len(evening.factors) >= 2
    check_same(body, evening.body)


def test_a_pad_with_another_value_keeps_channels_as_they_are(tmp_path: Path) -> None:
    net = Net(SIDE)
    x = net.node("Relu", net.conv("input", (3, 8), stride=2))
    x = net.node("Pad", x, net.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64), net.constant(0.5))
    x = net.node("Relu", net.conv(x, (8, 8)))
    logits = net.node("Gemm", net.pool(x), net.constant(net.rng.normal(size=(8, 3))))
    evening = even_channels(body_of(net.model(logits), tmp_path), FRAMES)
    assert [reason.rpartition("(")[2] for reason in evening.skipped.values()] == ["Pad)"]


def test_layers_that_share_weights_keep_their_own(tmp_path: Path) -> None:
    net = Net(SIDE)
    x = net.node("Relu", net.conv("input", (3, 8), stride=2))
    x = net.node("Relu", net.conv(x, (8, 8)))
    shared = list(net.nodes[-2].input[1:])
    for _ in range(2):
        x = net.node("Relu", net.node("Conv", x, *shared, pads=[1] * 4))
    logits = net.node("Gemm", net.pool(x), net.constant(net.rng.normal(size=(8, 3))))
    body = body_of(net.model(logits), tmp_path)
    evening = even_channels(body, FRAMES)
    assert len(evening.factors) == 4
    check_same(body, evening.body)


def test_a_channel_goes_its_way_to_the_widest_and_one_that_is_always_0_goes_none() -> None:
    reach = [0.0, 1.0, 4.0, 16.0]
    np.testing.assert_allclose(even_factors(reach, ceiling=None, most=8), [1, 8, 4, 1])
    np.testing.assert_allclose(even_factors(reach, ceiling=None, most=8, way=0.5), [1, 4, 2, 1])
    np.testing.assert_allclose(even_factors(reach, ceiling=5.0, most=8, way=0.5), [1, 2, 1, 1])


def test_uneven_channels_lose_less_in_8_bits_and_weights_stay_safe(tmp_path: Path) -> None:
    """Saturation-safe scales are those of the evened weights: two of them may not exceed 127 by more than rounding."""
    body = body_of(chain("Relu"), tmp_path)
    evened = even_channels(body, FRAMES).body
    lost = []
    for each in (body, evened):
        histograms = collect_histograms(each, activations_of(each), FRAMES)
        ranges = choose_ranges(each, histograms, "minmax", exact={PIXELS: each.entry.ends})
        plain = quantise_body(each, ranges, saturation_safe=True)
        fitted = round_weights(each, plain, FRAMES, saturation_safe=True)
        made = quantise_body(each, ranges, saturation_safe=True, weights=fitted)
        answers = dataclasses.replace(each, proto=made).values(FRAMES)
        lost.append(float(np.square(answers - body.values(FRAMES)).mean()))
        assert all(ratio > 0 for _, ratio in rank_by_noise(each, made, FRAMES[:8]))
        for layer in layers_of(Graph(each.proto)):
            weights = LayerWeights.of(Graph(each.proto), layer, True)
            if layer.name in fitted and weights.pairs != "none":
                flat = (
                    np.moveaxis(fitted[layer.name], weights.axis, -1).reshape(weights.flat.shape).astype(int)
                )
                two = (
                    flat[1:] + flat[:-1]
                    if weights.pairs == "adjacent"
                    else np.sort(flat, axis=0)[-2:].sum(axis=0)
                )
                assert np.abs(two).max() <= 128
    assert lost[1] < 0.7 * lost[0]
