"""The plan of a twin: which layers have one, what is folded, and what is rounded. No framework runs here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capsule_edge.export.adopt.finetuning import plan_twin
from capsule_edge.export.adopt.finetuning.channel_scales import ChannelPair, even_channels, find_pairs
from capsule_edge.export.adopt.finetuning.rounding_points import find_rounding_points
from capsule_edge.export.adopt.finetuning.twin_plan import TWIN_KINDS
from capsule_edge.export.adopt.network_layers import NetworkLayer, read_layers, write_layers
from capsule_edge.runtime.errors import UsageError

SOURCE = Path("net.keras")
CONV = {"kernel_size": (3, 3), "strides": (1, 1), "padding": "same", "data_format": "channels_last"}
PICTURE = NetworkLayer("picture", "InputLayer")


def layer(name: str, kind: str, *inputs: str, weights: Any = None, **config: Any) -> NetworkLayer:
    arrays = {key: np.asarray(value, np.float32) for key, value in (weights or {}).items()}
    return NetworkLayer(name, kind, config, inputs, arrays)


def conv(name: str, given: str, channels: tuple[int, int] = (3, 4), **config: Any) -> NetworkLayer:
    kernel = np.arange(9 * channels[0] * channels[1]).reshape(3, 3, *channels) / 50 - 1
    return layer(name, "Conv2D", given, weights={"kernel": kernel}, **{**CONV, **config})


def norm(name: str, given: str, channels: int = 4) -> NetworkLayer:
    rng = np.random.default_rng(1)
    parts = ("gamma", "beta", "moving_mean", "moving_variance")
    return layer(
        name, "BatchNormalization", given, axis=-1, epsilon=1e-3,
        weights={part: rng.uniform(0.5, 2, channels) for part in parts},
    )  # fmt: skip


def head(given: str, channels: int = 4) -> list[NetworkLayer]:
    weights = {"kernel": np.ones((channels, 3)), "bias": np.zeros(3)}
    return [
        layer("pool", "GlobalAveragePooling2D", given, keepdims=False),
        layer("scores", "Dense", "pool", weights=weights, activation="softmax"),
    ]


def plan(*layers: NetworkLayer) -> tuple[NetworkLayer, ...]:
    return plan_twin(SOURCE, [PICTURE, *layers], (32, 32, 3))


def test_a_normalisation_is_folded_into_the_convolution_before_it() -> None:
    """The folded convolution computes at one position what both layers compute there, up to float32."""
    first, second = conv("c", "picture"), norm("n", "c")
    made = plan(first, second, *head("n"))
    assert [each.kind for each in made] == ["InputLayer", "Conv2D", "GlobalAveragePooling2D", "Dense"]
    patch = np.random.default_rng(2).normal(size=(3, 3, 3))
    stored = second.weights
    plain = np.tensordot(patch, first.weights["kernel"], 3)
    deviation = np.sqrt(stored["moving_variance"] + 1e-3)
    expected = stored["gamma"] * (plain - stored["moving_mean"]) / deviation + stored["beta"]
    folded = np.tensordot(patch, made[1].weights["kernel"], 3) + made[1].weights["bias"]
    np.testing.assert_allclose(folded, expected, rtol=1e-5)


def test_a_normalisation_stays_where_another_layer_reads_what_is_before_it() -> None:
    made = plan(conv("c", "picture"), norm("n", "c"), layer("sum", "Add", "c", "n"), *head("sum"))
    assert [each.kind for each in made][1:4] == ["Conv2D", "BatchNormalization", "Add"]
    assert made[3].inputs == ("c", "n")


def test_layers_that_do_nothing_in_use_are_left_out_and_activations_are_layers() -> None:
    made = plan(
        layer("flip", "RandomFlip", "picture"),
        layer("scale", "Rescaling", "flip", scale=1 / 255, offset=0.0),
        conv("c", "scale", activation="relu6"),
        layer("drop", "Dropout", "c", rate=0.5),
        layer("same", "Activation", "drop", activation="linear"),
        *head("same"),
    )
    assert [each.kind for each in made] == [
        "InputLayer", "Rescaling", "Conv2D", "ReLU", "GlobalAveragePooling2D", "Dense",
    ]  # fmt: skip
    assert made[3].config == {"max_value": 6.0}


def test_the_last_pooling_and_layer_stay_in_float_and_a_relu_is_rounded_once() -> None:
    made = plan(
        conv("a", "picture", activation="relu"),
        conv("b", "a", (4, 4)),
        layer("sum", "Add", "a", "b"),
        layer("join", "ReLU", "sum"),
        *head("join"),
    )
    points = find_rounding_points(made)
    assert points.kernels == {"a", "b"}
    assert points.outputs == {"a__relu", "b", "join"}


def test_evened_channels_compute_the_same_and_reach_equally_far() -> None:
    """A factor of at most 4 divides the reader's weights: float32 rounds each product once more, 1e-5 of the result."""
    rng = np.random.default_rng(3)
    first, second = rng.uniform(0.5, 1, (3, 6)), rng.normal(size=(6, 3))
    made = plan(
        layer("a", "Dense", "picture", weights={"kernel": first, "bias": np.zeros(6)}, activation="relu"),
        layer("b", "Dense", "a", weights={"kernel": second, "bias": np.zeros(3)}),
    )  # fmt: skip
    assert find_pairs(made) == [ChannelPair("a", "a__relu", "b")]

    def answer(layers: tuple[NetworkLayer, ...]) -> tuple[np.ndarray, np.ndarray]:
        _, a, _, b = (each.weights for each in layers)
        inner = np.maximum(rows @ a["kernel"] + a["bias"], 0)
        return inner, inner @ b["kernel"] + b["bias"]

    rows = rng.normal(size=(50, 3))
    before, expected = answer(made)
    after, answers = answer(even_channels(made, {"a__relu": before.max(axis=0)}))
    np.testing.assert_allclose(answers, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(after.max(axis=0), before.max(), rtol=1e-5)
    assert np.ptp(before.max(axis=0)) > 0.1


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (conv("x", "picture", activation="swish"), r"layer 'x' \(Conv2D: activation swish\)"),
        (layer("x", "LayerNormalization", "picture"), r"layer 'x' \(LayerNormalization\)"),
        (layer("gate", "Multiply", "picture", "picture"), r"layer 'gate' \(Multiply\)"),
        (layer("code", "Lambda", "picture"), r"layer 'code' \(Lambda\)"),
        (layer("own", "Halved", "picture"), r"layer 'own' \(Halved\)"),
        (layer("add", "keras.ops.Add", "picture"), r"layer 'add' \(keras.ops.Add\)"),
        (conv("x", "picture", dilation_rate=(2, 2)), "dilated"),
        (conv("x", "picture", groups=3), "3 groups"),
        (conv("x", "picture", data_format="channels_first"), "channels first"),
        (layer("leaky", "ReLU", "picture", negative_slope=0.1), "leaky"),
        (layer("b/inner", "Activation", "picture", activation="gelu"), "layer 'b/inner'"),
        (layer("mid", "Activation", "picture", activation="softmax"), "activation softmax"),
        (layer("second", "InputLayer"), "a second input"),
        (layer("cat", "Concatenate", "picture", "picture", axis=1), "over axis 1"),
    ],
)
def test_a_layer_without_a_twin_is_named_with_the_way_out(bad: NetworkLayer, words: str) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        plan(bad, conv("c", bad.name), *head("c"))
    assert "post-training quantisation" in str(refused.value.hint)
    assert "\n" not in refused.value.message


def test_a_scaling_inside_the_network_has_no_twin() -> None:
    with pytest.raises(UsageError, match=r"'late'.*inside the network"):
        plan(conv("c", "picture"), layer("late", "Rescaling", "c", scale=2.0), *head("late"))


def test_layers_survive_the_way_to_another_process(tmp_path: Path) -> None:
    made = plan(conv("c", "picture"), norm("n", "c"), *head("n"))
    write_layers(tmp_path, made)
    again = read_layers(tmp_path)
    assert [(each.name, each.kind, each.inputs) for each in again] == [
        (each.name, each.kind, each.inputs) for each in made
    ]
    for before, after in zip(made, again, strict=True):
        assert before.weights.keys() == after.weights.keys()
        for name, values in before.weights.items():
            np.testing.assert_array_equal(values, after.weights[name])


def test_tfmot_quantises_every_kind_of_layer_of_a_twin() -> None:
    """The names are compared: TFMOT itself would load TensorFlow into this process."""
    from importlib.util import find_spec

    found = find_spec("tensorflow_model_optimization")
    if found is None or not found.submodule_search_locations:
        pytest.skip("tensorflow_model_optimization is not installed")
    parts = ("python", "core", "quantization", "keras", "default_8bit", "default_8bit_quantize_registry.py")
    text = Path(found.submodule_search_locations[0], *parts).read_text("utf-8")
    lines = [line.strip() for line in text.splitlines() if not line.strip().startswith("#")]
    # TFMOT handles normalisation in its transforms; pixels are scaled in float, before the first quantised layer.
    others = {"BatchNormalization", "InputLayer", "Rescaling"}
    absent = [
        kind
        for kind in TWIN_KINDS
        if kind not in others
        and not any(
            f"layers.{kind}," in line or f"layers.{kind})" in line or f"layers.{kind}]" in line
            for line in lines
        )
    ]
    assert absent == []
