"""Training without TensorFlow: the same functions as in Keras, in PyTorch on any processor."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

tf_keras = pytest.importorskip("tf_keras", reason="needs the extra 'train'")

from quantised_models import KEYS, fp32_model, pixels_of  # noqa: E402

from capsule_edge.export.run_folder import synthetic_frames  # noqa: E402
from capsule_edge.runtime.errors import UsageError  # noqa: E402
from capsule_edge.train import models, qat, reparam, weights  # noqa: E402

SIZE = 32
FRAMES = synthetic_frames(SIZE, seed=4)[:6]

# Keras 3 takes its backend once a process, and TensorFlow's is in use here.
ELSEWHERE = """
import sys
from pathlib import Path
import numpy as np, torch
from capsule_edge.train import weights
from capsule_edge.train.config import TrainConfig
from capsule_edge.train.gpu_fit import build_graph
from capsule_edge.train.gpu_qat import GridTrainer

folder, architecture, branched = Path(sys.argv[1]), sys.argv[2], bool(int(sys.argv[3]))
pixels = np.load(folder / "frames.npy")
graph = build_graph(architecture, size=pixels.shape[1], labels=5, branched=branched)
graph.assign(weights.load(folder / "weights.npz"))
x = (torch.from_numpy(pixels).float() - 128) / 128
np.save(folder / "logits.npy", graph.run(x).detach().numpy())
if not branched:
    trainer = GridTrainer(graph.folded(), TrainConfig(architecture=architecture, size=pixels.shape[1]))
    trainer.observe(x)
    found = trainer.arrays()
    ranges = {name: found.pop(name) for name in list(found) if name.startswith("range/")}
    weights.save(folder / "grid.npz", {**graph.unfolded(graph, found), **ranges})
    trainer.graph.assign(found)
    whole, rounded = trainer.predict(pixels)
    np.savez(folder / "answers.npz", whole=whole, rounded=rounded)
"""


def in_torch(folder: Path, architecture: str, arrays: weights.Arrays, *, branched: bool) -> None:
    pytest.importorskip("torch", reason="needs PyTorch, which no extra brings")
    folder.mkdir(exist_ok=True)
    np.save(folder / "frames.npy", FRAMES)
    weights.save(folder / "weights.npz", arrays)
    command = [sys.executable, "-c", ELSEWHERE, str(folder), architecture, str(int(branched))]
    done = subprocess.run(
        command, env={**os.environ, "KERAS_BACKEND": "torch"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def branched_model() -> Any:
    """The student in its training form, every normalisation with statistics of its own."""
    model = models.build("rep_cnn", size=SIZE, labels=len(KEYS), keras=tf_keras, branched=True)
    rng = np.random.default_rng(5)
    for layer in model.layers:
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            for variable in layer.weights:
                scale = "gamma" in variable.name or "variance" in variable.name
                drawn = rng.uniform(0.5, 1.5, variable.shape) if scale else rng.normal(0, 0.3, variable.shape)
                variable.assign(drawn)
    return model


def test_merged_branches_answer_as_the_branches_do() -> None:
    trained = branched_model()
    plain = models.build("rep_cnn", size=SIZE, labels=len(KEYS), keras=tf_keras)
    weights.assign(plain, reparam.merge(weights.collect(trained)))
    expected = np.asarray(trained(pixels_of(FRAMES), training=False))
    # Nine layers, each a sum of up to 1,728 float32 products: 1e-7 a layer, relative.
    assert np.allclose(plain(pixels_of(FRAMES), training=False), expected, atol=2e-5 * np.abs(expected).max())
    assert len(plain.layers) == 1 + 2 * 8 + 2
    assert len(trained.layers) > 50


def test_a_size_at_which_the_branches_would_not_meet_is_refused() -> None:
    with pytest.raises(UsageError, match="multiple of 32"):
        models.build("rep_cnn", size=48, labels=3, keras=tf_keras)


@pytest.mark.parametrize("architecture", ["mobilenet_v2_035", "rep_cnn"])
def test_torch_answers_as_keras_does(architecture: str, tmp_path: Path) -> None:
    model = branched_model() if architecture == "rep_cnn" else fp32_model(architecture, SIZE)
    in_torch(tmp_path, architecture, weights.collect(model), branched=True)
    expected = np.asarray(model(pixels_of(FRAMES), training=False))
    assert np.allclose(np.load(tmp_path / "logits.npy"), expected, atol=1e-4 * np.abs(expected).max())


def test_what_is_learnt_on_the_grid_is_what_qat_emulates(tmp_path: Path) -> None:
    # Without residual sums, whose scales QAT aligns: an untrained MobileNetV2 amplifies that to many steps.
    architecture = "plain_cnn"
    in_torch(tmp_path, architecture, weights.collect(fp32_model(architecture, SIZE)), branched=False)
    grid = weights.load(tmp_path / "grid.npz")
    model = models.build(architecture, size=SIZE, labels=len(KEYS), keras=tf_keras)
    weights.assign(model, grid)
    quantised = qat.quantize(model, saturation_safe=True)
    ranges = {k.removeprefix("range/"): v for k, v in grid.items() if k.startswith("range/")}
    assert set(ranges) == {point.layer for point in qat.observed_ranges(quantised)}
    qat.set_ranges(quantised, {layer: (float(low), float(high)) for layer, (low, high) in ranges.items()})
    for wrapper in quantised.layers:
        for kernel, quantizer, limits in getattr(wrapper, "_weight_vars", ()):
            rounded = np.asarray(quantizer(kernel, False, limits))
            # The weights lie on the integers already: rounding them again moves none by a tenth of a step.
            step = np.asarray(limits["max_var"]) / 127
            moved = np.abs(rounded - np.asarray(kernel)).reshape(-1, len(step)) / step
            assert moved.max() < 0.1, wrapper.name
    with np.load(tmp_path / "answers.npz") as answers:
        whole = np.asarray(model(pixels_of(FRAMES), training=False))
        assert np.allclose(whole, answers["whole"], atol=1e-4 * np.abs(whole).max())
        # Biases are rounded in one of the two: a value in a thousand moves by a step, and a logit by a few.
        low, high = ranges["logits"]
        found = np.asarray(quantised(pixels_of(FRAMES), training=False))
        assert np.abs(found - answers["rounded"]).max() < 3 * (high - low) / 255
