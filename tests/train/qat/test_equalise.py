"""Equalised channels: the same function with less noise in 8 bits, and weights that lie on the integer grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

tf_keras = pytest.importorskip("tf_keras", reason="needs the extra 'train'")

from quantised_models import fp32_model, pixels_of  # noqa: E402

from capsule_edge.export.run_folder import synthetic_frames  # noqa: E402
from capsule_edge.train.models import weights  # noqa: E402
from capsule_edge.train.qat import equalise, group_channels, kernel_of, snap  # noqa: E402
from capsule_edge.train.qat import quantised_model as qat  # noqa: E402
from capsule_edge.train.qat.fold_batch_norm import fold_layers  # noqa: E402

SIZE = 32
SEEN = pixels_of(synthetic_frames(SIZE, seed=6))


def uneven(model: Any) -> Any:
    """Scale channels down by up to 7, and the weights that read them up: the same below a ceiling, with more noise."""
    rng = np.random.default_rng(8)
    steps = fold_layers(model)
    group = group_channels(
        (id(step.output), [id(tensor) for tensor in step.inputs], kernel_of(step.layer) is not None)
        for step in steps
    )
    fixed = {group[id(tensor)] for tensor in (model.inputs[0], model.outputs[0])}
    factors: dict[int, Any] = {}
    for step in steps:
        name = kernel_of(step.layer)
        if name is None:
            continue
        kernel, given = getattr(step.layer, name), factors.get(group[id(step.inputs[0])])
        if given is not None:
            # The channels that a kernel reads are the last axis but one, of 2 or of 4.
            kernel.assign(kernel / given[:, None])
        key = group[id(step.output)]
        if key not in fixed:
            out = factors.setdefault(
                key, np.exp(rng.uniform(-2, 0, step.output.shape[-1])).astype(np.float32)
            )
            normalisation = model.get_layer(step.source)
            for weight in (normalisation.gamma, normalisation.beta):
                weight.assign(weight * out)
    return model


def noise(model: Any) -> float:
    """Return the rms change of the logits by 8 bits, in units of their standard deviation."""
    quantised = qat.quantize(model)
    qat.calibrate(quantised, model, [SEEN])
    exact, rounded = (np.asarray(m(SEEN, training=False)) for m in (model, quantised))
    return float(np.sqrt(np.mean((exact - rounded) ** 2)) / exact.std())


@pytest.mark.parametrize("architecture", ["plain_cnn", "mobilenet_v2_035"])
def test_equalised_channels_compute_the_same_with_less_noise(architecture: str) -> None:
    model = uneven(fp32_model(architecture, SIZE))
    before, noise_before = np.asarray(model(SEEN, training=False)), noise(model)
    weights.assign(model, equalise(model, [SEEN]))
    after = np.asarray(model(SEEN, training=False))
    # Channels are scaled up in one layer and down in the next: only float32's rounding differs, over up to 50 layers.
    assert np.allclose(before, after, atol=1e-4 * np.abs(before).max())
    assert noise(model) < 0.8 * noise_before


def test_snapped_weights_lie_on_the_integers_of_the_int8_file() -> None:
    model = uneven(fp32_model("plain_cnn", SIZE))
    weights.assign(model, snap(model, saturation_safe=True))
    quantised = qat.quantize(model, saturation_safe=True)
    qat.calibrate(quantised, model, [SEEN])
    kernels = 0
    for wrapper in quantised.layers:
        for kernel, quantizer, limits in getattr(wrapper, "_weight_vars", ()):
            step = np.asarray(limits["max_var"]) / 127
            moved = np.abs(np.asarray(quantizer(kernel, False, limits)) - np.asarray(kernel))
            assert (moved.reshape(-1, len(step)) / step).max() < 1e-2, wrapper.name
            kernels += 1
    assert kernels == 6
