"""Grad-CAM and feature maps of Keras models, compared with closed forms."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from tiny_model import tiny_spec

from capsule_edge.cli.explain import command
from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.runtime.events import activation_map

tf_keras = pytest.importorskip("tf_keras")

from capsule_edge.train.grad_cam import feature_maps, grad_cam, map_layers, stage_layers  # noqa: E402
from capsule_edge.train.models import architectures, weights  # noqa: E402

SIZE = 64


def built(seed: int) -> object:
    tf_keras.utils.set_random_seed(seed)
    return architectures.build("plain_cnn", size=SIZE, labels=3, keras=tf_keras)


@pytest.fixture(scope="module")
def model() -> object:
    return built(0)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3)).astype(np.uint8)


def test_at_the_last_layer_grad_cam_is_the_class_activation_map(model: object, pixels: np.ndarray) -> None:
    """The logit is a mean of weighted features, so its gradient is the weights divided by the number of positions."""
    features = feature_maps(model, pixels, map_layers(model)[-1:])
    (last,) = features.values()
    kernel = model.get_layer("logits").get_weights()[0]
    for label in range(3):
        wanted = [activation_map(one) for one in last @ kernel[:, label]]
        found = grad_cam(model, pixels, labels=[label, label])
        # Both add 160 float32 products, in different orders: an error of some 160 * 6e-8 of the largest value, 1.
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_randomised_weights_change_the_map(model: object, pixels: np.ndarray) -> None:
    a, b = (grad_cam(one, pixels, "relu_3", labels=[1, 1]) for one in (model, built(1)))
    assert np.abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.5
    np.testing.assert_array_equal(a, grad_cam(model, pixels, "relu_3", labels=[1, 1]))


def test_layers_with_maps_are_listed(model: object, pixels: np.ndarray) -> None:
    names = map_layers(model)
    assert names[0] == "conv_1"
    assert names[-1] == "relu_5"
    assert "pool" not in names
    assert stage_layers(model) == ("relu_1", "relu_2", "relu_3", "relu_4", "relu_5")
    found = feature_maps(model, pixels, ("relu_1", "relu_5"))
    assert {name: maps.shape for name, maps in found.items()} == {
        "relu_1": (2, 32, 32, 16),
        "relu_5": (2, 2, 2, 160),
    }
    assert set(feature_maps(model, pixels)) == set(names)


def test_wrong_layers_and_pixels_are_refused(model: object, pixels: np.ndarray) -> None:
    with pytest.raises(UsageError, match="no layer 'conv_9'"):
        feature_maps(model, pixels, ("conv_9",))
    with pytest.raises(UsageError, match="no layer 'pool'"):
        grad_cam(model, pixels, "pool")
    with pytest.raises(InputError, match="float64"):
        grad_cam(model, pixels / 255.0)
    with pytest.raises(InputError, match="64, 64, 3"):
        grad_cam(model, pixels[:, :32])


def test_the_command_explains_a_run_layer_by_layer(model: object, tmp_path: Path) -> None:
    spec = tiny_spec(size=SIZE).to_dict()
    document = {"architecture": "plain_cnn", "size": SIZE, "labels": 3}
    spec.pop("precision")
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({**document, "spec": spec}))
    weights.save(run / "fp32.weights.npz", weights.collect(model))
    frame = np.random.default_rng(1).integers(30, 256, (80, 90, 3)).astype(np.uint8)
    cv2.imencode(".png", frame)[1].tofile(tmp_path / "x.png")

    def call(*arguments: object) -> object:
        return CliRunner().invoke(
            command, [str(a) for a in (run, tmp_path / "x.png", "--out", tmp_path / "s.png", *arguments)]
        )

    heights = {}
    for name, arguments in {"last": [], "stages": ["--layers"], "one": ["--layer", "conv_2"]}.items():
        result = call(*arguments, "--json")
        assert result.exit_code == 0, result.output
        heights[name] = cv2.imread(str(tmp_path / "s.png")).shape[0]
        found = json.loads(result.stdout)["images"][0]["layers"]
        assert found == {"last": ["relu_5"], "one": ["conv_2"]}.get(name, list(stage_layers(model)))
    assert heights["stages"] > 4 * heights["last"]
    assert isinstance(call("--layer", "nowhere").exception, UsageError)
    (run / "fp32.weights.npz").unlink()
    assert isinstance(call().exception, InputError)
