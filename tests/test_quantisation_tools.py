"""Quantisation after training, and the table that names the layer that hurts."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tf_keras", reason="needs the extra 'train'")

from quantised_models import fp32_model, pixels_of

from capsule_edge.export.integers import IntegerModel, read_integers
from capsule_edge.export.layers import measure_layers
from capsule_edge.export.ptq import METHODS, _entropy, _percentile, quantize_after_training
from capsule_edge.export.run_folder import synthetic_frames
from capsule_edge.runtime.errors import InputError, UsageError


@pytest.fixture(scope="module")
def fp32() -> Any:
    return fp32_model()


@pytest.fixture(scope="module")
def batches() -> list[Any]:
    pixels = pixels_of(synthetic_frames(64, seed=2))
    return [pixels[:16], pixels[16:]]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_model_that_exports(fp32: Any, batches: list[Any], method: Any) -> None:
    quantised = quantize_after_training(fp32, batches, method=method)
    integers = read_integers(quantised)
    expected = fp32(batches[0], training=False).numpy()
    answer = quantised(batches[0], training=False).numpy()
    # As for QAT's calibration (test_qat), and what the cut ranges clip.
    assert np.sqrt(np.mean((answer - expected) ** 2)) < 0.05 * np.ptp(expected)
    # The logits' range is the outermost in all: 255 steps of it span what was seen.
    spread = max(0, max(b.max() for b in (fp32(x).numpy() for x in batches))) - min(
        0, min(b.min() for b in (fp32(x).numpy() for x in batches))
    )
    assert float(integers.logits.scale) * 255 == pytest.approx(spread, rel=1e-5)


def test_an_unknown_method_and_no_batch_are_refused(fp32: Any, batches: list[Any]) -> None:
    with pytest.raises(UsageError, match="'best' is not known, allowed is one of minmax"):
        quantize_after_training(fp32, batches, method="best")
    with pytest.raises(InputError, match="no batch"):
        quantize_after_training(fp32, [])


def _counts(values: Any, ends: tuple[float, float]) -> Any:
    return np.histogram(values, bins=2048, range=ends)[0].astype(float)


def test_an_outlier_is_cut_off_and_a_flat_spread_is_kept() -> None:
    rng = np.random.default_rng(0)
    body = np.abs(rng.normal(0, 1, 200_000))
    ends = (0.0, 100.0)
    counts = _counts(np.append(body, 100.0), ends)
    for choose in (_percentile, _entropy):
        low, high = choose(counts, ends)
        # Of 200,000 half-normal values the outermost lie near 4.5; a histogram's bin is 0.05 wide and the
        # smallest range of 256 levels ends at 12.5.
        assert low == 0
        assert 3 < high < 15
    flat = _counts(rng.uniform(-1, 1, 200_000), (-1.0, 1.0))
    low, high = _percentile(flat, (-1.0, 1.0))
    assert low == pytest.approx(-1, abs=0.01)
    assert high == pytest.approx(1, abs=0.01)


def test_the_layer_that_hurts_comes_first(fp32: Any, batches: list[Any]) -> None:
    quantised = quantize_after_training(fp32, batches)
    integers = read_integers(quantised)
    frames = synthetic_frames(64, count=4, seed=2)
    sound = measure_layers(integers, quantised, fp32, frames)
    # 8 bits over a ReLU's range hold some 40 dB, and what the layers before lost only adds to a layer's own
    # noise.
    assert min(noise.own_db for noise in sound) > 20
    assert np.mean([noise.own_db - noise.total_db for noise in sound]) > 0
    broken = measure_layers(_double_a_scale(integers, 2), quantised, fp32, frames)
    assert broken[0].layer == "conv_3"
    assert broken[0].own_db < 10


def _double_a_scale(model: IntegerModel, index: int) -> IntegerModel:
    node = model.nodes[index]
    assert node.kernel is not None
    kernel = dataclasses.replace(node.kernel, scales=node.kernel.scales * np.float32(2))
    nodes = list(model.nodes)
    nodes[index] = dataclasses.replace(node, kernel=kernel)
    return IntegerModel(model.pixels, tuple(nodes), model.saturation_safe)
