"""The QAT model: folding, ranges, saturation bounds, and the models that are refused."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

tf_keras = pytest.importorskip("tf_keras", reason="needs the extra 'train'")

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
from quantised_models import calibrated, fp32_model, pixels_of  # noqa: E402
from small_networks import residual_model  # noqa: E402

from capsule_edge.export.int8 import (  # noqa: E402
    compute,
    read_integers,
)
from capsule_edge.export.int8.reference import compare_layers  # noqa: E402
from capsule_edge.export.run_folder import synthetic_frames  # noqa: E402
from capsule_edge.runtime.errors import InputError, ModelError, UsageError  # noqa: E402
from capsule_edge.train.models import architectures  # noqa: E402
from capsule_edge.train.qat import quantised_model as qat  # noqa: E402
from capsule_edge.train.qat import weight_limits  # noqa: E402
from capsule_edge.train.qat.quantizers import RangeObserver  # noqa: E402
from capsule_edge.train.qat.residual_scales import align_sums  # noqa: E402

layers = tf_keras.layers
SIZE = 64


# One architecture for each builder; the others differ in width and depth alone.
FAMILIES = ("efficientnet_lite0", "mobilenet_v2_035", "plain_cnn", "rep_cnn")


@pytest.fixture(scope="module")
def fp32() -> Any:
    """The plain CNN. Tests must not change it."""
    return fp32_model()


@cache
def model_of(kind: str) -> Any:
    """A plain CNN, or a network with depthwise layers and residual sums. Tests must not change it."""
    return fp32_model() if kind == "plain" else residual_model(SIZE)


@cache
def calibrated_of(kind: str, *, safe: bool) -> Any:
    """The calibrated QAT model of ``model_of``. Tests must not change it."""
    return calibrated(model_of(kind), saturation_safe=safe)


@pytest.fixture(scope="module")
def frames() -> Any:
    return pixels_of(synthetic_frames(SIZE, count=8, seed=5))


@pytest.mark.parametrize("architecture", FAMILIES)
def test_folding_and_quantising_keep_the_answers_of_every_family(architecture: str) -> None:
    model = fp32_model(architecture, 32)
    quantised = qat.quantize(model)
    assert not any(isinstance(layer, layers.BatchNormalization) for layer in quantised.layers)
    pixels = pixels_of(synthetic_frames(32, count=2, seed=5))
    wrappers = [layer for layer in quantised.layers[2:] if layer.quantize_config.kernel]
    points = [
        (model.get_layer(w.layer.name).input, model.get_layer(w.quantize_config.source).output)
        for w in wrappers
    ]
    values = tf_keras.Model(model.inputs, [tensor for pair in points for tensor in pair])(
        pixels, training=False
    )
    for index, wrapper in enumerate(wrappers):
        given, expected = values[2 * index].numpy(), values[2 * index + 1].numpy()
        folded = wrapper.layer.__class__.from_config(wrapper.layer.get_config())
        folded.build(given.shape)
        folded.set_weights(wrapper.get_weights()[:2])
        # The same products, added up after instead of before the scaling: float32's 1e-7 over some hundred of them.
        assert np.allclose(folded(given), expected, rtol=0, atol=2e-5 * np.abs(expected).max()), wrapper.name


def test_a_calibrated_model_stays_close_to_fp32(fp32: Any, frames: Any) -> None:
    expected = fp32(frames, training=False).numpy()
    answer = calibrated_of("plain", safe=False)(frames, training=False).numpy()
    # There are seven roundings of 1/255 of the range each (five maps, mean, logits), of both signs, and clipped ends.
    # Together they make some 3 % of the range, less than 7 * 0.5 / 255 * (gain 2), if all fell to one side.
    assert np.sqrt(np.mean((answer - expected) ** 2)) < 0.03 * np.ptp(expected)


def test_the_input_range_is_fixed_so_that_pixels_pass_unchanged() -> None:
    quantised = calibrated_of("plain", safe=False)
    first = quantised.layers[1]
    levels = ((np.arange(256, dtype=np.float32) - 128) / 128).reshape(1, 16, 16, 1)
    for training in (False, True):
        passed = first(np.repeat(levels, 3, axis=3), training=training).numpy()
        assert np.array_equal(passed[..., 0], levels[..., 0])
    pixels = read_integers(quantised).pixels
    assert (float(pixels.scale), pixels.zero_point) == (1 / 128, 0)


def test_uncalibrated_ranges_are_refused_by_name(fp32: Any) -> None:
    quantised = qat.quantize(fp32)
    with pytest.raises(ModelError, match=r"relu_1.*never calibrated"):
        qat.check_ranges(quantised)
    with pytest.raises(ModelError, match="never calibrated"):
        read_integers(quantised)
    with pytest.raises(InputError, match="no batch"):
        qat.calibrate(quantised, fp32, [])


@pytest.mark.parametrize(
    ("low", "high", "fault"),
    [(-6, 6, "never calibrated"), (-0.5, 4, "behind a ReLU"), (0, 7, "behind a ReLU"), (0, 0, "no range")],
)
def test_a_relu_range_that_is_not_0_to_its_ceiling_is_refused(
    fp32: Any, low: float, high: float, fault: str
) -> None:
    quantised = calibrated(fp32)
    qat.check_ranges(quantised)
    qat.set_ranges(quantised, qat.current_ranges(quantised) | {"relu_1": (low, high)})
    with pytest.raises(ModelError, match=rf"relu_1.*{fault}"):
        qat.check_ranges(quantised)


def test_training_moves_weights_and_ranges_and_freezing_holds_the_ranges(fp32: Any, frames: Any) -> None:
    quantised = calibrated(fp32)

    def ranges() -> list[float]:
        return [high for _, high in qat.current_ranges(quantised).values()]

    quantised.compile(tf_keras.optimizers.Adam(1e-3), loss="mse")
    target = fp32(frames, training=False).numpy() + 1
    before, kernel = ranges(), quantised.layers[2].weights[0].numpy()
    quantised.fit(frames, target, epochs=1, batch_size=4, verbose=0)
    after = ranges()
    assert before != after
    assert not np.array_equal(kernel, quantised.layers[2].weights[0].numpy())
    # A batch weighs a hundredth, so two batches cannot overturn the calibration (but the outermost logit can).
    assert np.allclose(before[:-2], after[:-2], rtol=0.05)
    qat.check_ranges(quantised)
    qat.freeze_observers(quantised)
    quantised.fit(frames, target, epochs=1, batch_size=4, verbose=0)
    assert ranges() == after


@pytest.mark.quick
def test_the_first_batch_sets_a_range_that_was_never_set() -> None:
    layer = layers.Layer()
    observer = RangeObserver()
    variables = observer.build(None, "output", layer)
    observer(np.array([-0.5, 2.0], np.float32), True, variables)
    assert (float(variables["min_var"]), float(variables["max_var"])) == (-0.5, 2.0)


def test_saved_weights_come_back(fp32: Any, frames: Any, tmp_path: Path) -> None:
    quantised = calibrated_of("plain", safe=True)
    qat.save_qat(tmp_path / "qat.npz", quantised)
    again = qat.load_qat(tmp_path / "qat.npz", fp32)
    assert qat.is_saturation_safe(again)
    assert np.array_equal(quantised(frames, training=False), again(frames, training=False))
    other = architectures.build("rep_cnn", size=SIZE, labels=5, keras=tf_keras)
    with pytest.raises(InputError, match="is not of rep_cnn"):
        qat.load_qat(tmp_path / "qat.npz", other)
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(InputError):
        qat.load_qat(tmp_path / "text.npz", fp32)


def _ends(x: Any) -> Any:
    return tf_keras.Model(x[0], layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(x[1])))


def _unsupported() -> dict[str, Any]:
    inputs = tf_keras.Input((32, 32, 3))
    conv = layers.Conv2D(4, 3, name="first")(inputs)
    inner = tf_keras.Model(inputs, conv, name="inner")
    return {
        "swish_layer": _ends((inputs, layers.Activation("swish", name="swish_layer")(conv))),
        "tanh_conv": _ends((inputs, layers.Conv2D(4, 3, activation="tanh", name="tanh_conv")(conv))),
        "dilated": _ends((inputs, layers.Conv2D(4, 3, dilation_rate=2, name="dilated")(conv))),
        "leaky": _ends((inputs, layers.ReLU(negative_slope=0.1, name="leaky")(conv))),
        "late_bn": _ends((inputs, layers.BatchNormalization(name="late_bn")(layers.ReLU()(conv)))),
        "second_relu": _ends((inputs, layers.ReLU(name="second_relu")(layers.ReLU()(conv)))),
        "inner": _ends((inputs, inner(inputs))),
    }


@pytest.mark.parametrize(
    "name", ["swish_layer", "tanh_conv", "dilated", "leaky", "late_bn", "second_relu", "inner"]
)
def test_a_layer_that_cannot_be_quantised_is_named(name: str) -> None:
    with pytest.raises(UsageError, match=rf"layer '{name}'") as caught:
        qat.quantize(_unsupported()[name])
    assert "\n" not in str(caught.value)


@pytest.mark.quick
def test_an_object_that_is_no_functional_tf_keras_model_is_refused() -> None:
    with pytest.raises(UsageError, match="needed is a functional tf_keras model"):
        qat.quantize(object())


def _worst_pair(integers: Any) -> int:
    """Return the largest sum of two integers of one sign that the bound covers, over all channels."""
    kernel = integers.weights.astype(int)
    flat = kernel.reshape(-1, kernel.shape[-1])
    if kernel.shape[:2] == (1, 1):
        return int(np.abs(flat[1:] + flat[:-1]).max())
    ordered = np.sort(flat, axis=0)
    return int(max((ordered[-1] + ordered[-2]).max(), -(ordered[0] + ordered[1]).min()))


@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_saturation_safe_integers_cannot_overflow_16_bits(kind: str) -> None:
    for safe in (False, True):
        nodes = read_integers(calibrated_of(kind, safe=safe)).nodes
        sums = [_worst_pair(node.kernel) for node in nodes if node.kernel and node.kind == "conv"]
        # 255 * 128 = 32640 is the last multiple that fits int16. Without the bound these kernels exceed it.
        assert (255 * max(sums) <= 32767) == safe
        if safe:
            assert max(sums) >= 120  # the range is widened no more than it takes


@pytest.mark.quick
def test_a_safe_range_is_the_sum_of_the_two_weights_that_meet() -> None:
    weights = np.array([[1.0, 0.5], [0.9, -0.9], [0.1, 0.8]], np.float32)
    assert np.allclose(weight_limits(weights, keras.ops), [1.0, 0.9])
    assert np.allclose(weight_limits(weights, keras.ops, pairs="adjacent"), [1.9, 0.9])
    assert np.allclose(weight_limits(weights, keras.ops, pairs="any"), [1.9, 1.3])


def test_a_dead_channel_gets_a_range_that_holds_its_bias() -> None:
    model = fp32_model()
    kernel = model.get_layer("conv_1").kernel
    values = kernel.numpy()
    values[..., 0] = 0
    kernel.assign(values)
    node = read_integers(calibrated(model)).nodes[0]
    assert node.kernel is not None
    assert node.kernel.scales[0] > 0
    assert not node.kernel.weights[..., 0].any()


@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_inference_equals_the_integers_to_the_bit(kind: str) -> None:
    quantised = calibrated_of(kind, safe=True)
    frames = synthetic_frames(SIZE, count=4, seed=6)
    integers = read_integers(quantised)
    found = compare_layers(integers, quantised, frames)
    assert set(found.values()) == {(0.0, 0)}
    answer = quantised(pixels_of(frames), training=False).numpy() / integers.logits.scale
    exact = (
        compute(integers, frames)[integers.logits.name][:, 0, 0].astype(float) - integers.logits.zero_point
    )
    # Whole steps of up to 255, in float32.
    assert np.abs(answer - exact).max() < 1e-4
    # A graph computes the same as eager execution.
    traced = tf.function(lambda x: quantised(x, training=False))(pixels_of(frames))
    assert np.array_equal(traced, quantised(pixels_of(frames), training=False))


def test_a_bias_between_two_integers_is_rounded_in_inference_only(fp32: Any, frames: Any) -> None:
    quantised = calibrated(fp32)
    qat.freeze_observers(quantised)
    node = read_integers(quantised).nodes[0]
    assert node.kernel is not None
    unit = node.inputs[0].scale * node.kernel.scales
    (bias,) = (v for v in quantised.get_layer("quant_conv_1").weights if "bias" in v.name)
    bias.assign(node.kernel.biases * unit)
    before = [quantised(frames, training=mode).numpy() for mode in (False, True)]
    bias.assign_add(0.4 * unit)
    after = [quantised(frames, training=mode).numpy() for mode in (False, True)]
    assert np.array_equal(before[0], after[0])
    assert not np.array_equal(before[1], after[1])


def _sums_of(quantised: Any) -> list[list[float]]:
    """Return for each Add the scales of its two inputs and of its output."""
    return [
        [float(tensor.scale) for tensor in (*node.inputs, node.output)]
        for node in read_integers(quantised).nodes
        if node.kind == "add"
    ]


def test_no_sum_comes_near_the_middle_between_two_steps() -> None:
    quantised = calibrated_of("residual", safe=False)
    found = _sums_of(quantised)
    assert len(found) == 2
    first, second = np.meshgrid(np.arange(-255, 256), np.arange(-255, 256))
    for a, b, out in found:
        steps = (first * a + second * b) / out
        # Half of 1/511, less the error of float32 scales: 1e-7 of up to 511 steps.
        assert np.abs(steps - np.floor(steps) - 0.5).min() > 0.5 / 511 - 2e-4
    align_sums(quantised)  # a second time changes nothing
    assert np.allclose(_sums_of(quantised), found, rtol=1e-6)


def test_aligned_ranges_are_hardly_wider() -> None:
    quantised = qat.quantize(model_of("residual"))
    points = qat.observed_ranges(quantised)
    ends = {
        point.layer: (0.0 if point.layer.endswith("relu") else -1.0 - 0.1 * i, 2.0 + 0.05 * i)
        for i, point in enumerate(points)
    }
    qat.set_ranges(quantised, ends)
    for tensor in (node.output for node in read_integers(quantised).nodes):
        low, high = ends[tensor.name]
        # A scale of a fifth of the largest is at most 1/100 of a unit off; zero points are whole.
        assert 0.998 < float(tensor.scale) * 255 / (high - low) < 1.01, tensor.name
