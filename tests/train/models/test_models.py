"""Architectures, weights files, and the merging of branches."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

tf_keras = pytest.importorskip("tf_keras", reason="needs the extra 'train'")

from quantised_models import KEYS, pixels_of  # noqa: E402
from small_networks import branched_model  # noqa: E402

from capsule_edge.export.run_folder import synthetic_frames  # noqa: E402
from capsule_edge.runtime.errors import InputError, OutputError, UsageError  # noqa: E402
from capsule_edge.train.models import architectures, reparameterise, weights  # noqa: E402

SIZE = 32
FRAMES = synthetic_frames(SIZE, seed=4)[:6]


@cache
def built(architecture: str) -> Any:
    return architectures.build(architecture, size=SIZE, labels=1000, keras=tf_keras)


@pytest.mark.quick
def test_merged_branches_answer_as_the_branches_do() -> None:
    trained = branched_model()
    plain = architectures.build("rep_cnn", size=SIZE, labels=len(KEYS), keras=tf_keras)
    weights.assign(plain, reparameterise.merge(weights.collect(trained)))
    expected = np.asarray(trained(pixels_of(FRAMES), training=False))
    # Nine layers, each a sum of up to 1,728 float32 products: 1e-7 a layer, relative.
    assert np.allclose(plain(pixels_of(FRAMES), training=False), expected, atol=2e-5 * np.abs(expected).max())
    assert len(plain.layers) == 1 + 2 * 8 + 2
    assert len(trained.layers) > 50


@pytest.mark.quick
def test_a_size_at_which_the_branches_would_not_meet_is_refused() -> None:
    with pytest.raises(UsageError, match="multiple of 32"):
        architectures.build("rep_cnn", size=48, labels=3, keras=tf_keras)


# One architecture for each builder, with the depth and the width that scale it.
@pytest.mark.parametrize("architecture", ["efficientnet_lite2", "mobilenet_v2_035", "plain_cnn", "rep_cnn"])
def test_keras_3_builds_the_same_weights_by_name(architecture: str) -> None:
    keras = pytest.importorskip("keras")
    here, there = (
        {name: tuple(weight.shape) for name, weight in weights.tensors(model).items()}
        for model in (
            architectures.build(architecture, size=SIZE, labels=5, keras=k) for k in (tf_keras, keras)
        )
    )
    assert here == there


@pytest.mark.parametrize(
    ("architecture", "parameters"), [("efficientnet_lite0", 4_652_008), ("efficientnet_lite2", 6_092_072)]
)
def test_efficientnet_lite_is_the_published_one(architecture: str, parameters: int) -> None:
    """The number of parameters is the one that its authors give, with 1,000 classes."""
    model = built(architecture)
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == parameters


def test_efficientnet_lite0_has_the_names_of_keras_applications() -> None:
    model = built("efficientnet_lite0")
    known = {layer.name for layer in tf_keras.applications.EfficientNetB0(weights=None).layers}
    assert {layer.name for layer in model.layers if layer.weights} - known == {"logits"}


@pytest.mark.quick
def test_an_unknown_architecture_size_and_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'vgg' is not known"):
        architectures.build("vgg", size=64, labels=3, keras=tf_keras)
    with pytest.raises(UsageError, match="multiple of 16"):
        architectures.build("plain_cnn", size=70, labels=3, keras=tf_keras)
    (tmp_path / "w.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="holds no weights"):
        weights.load(tmp_path / "w.npz")
    model = architectures.build("plain_cnn", size=64, labels=3, keras=tf_keras)
    with pytest.raises(InputError, match="lack"):
        weights.assign(model, {"conv_1/kernel": np.zeros((3, 3, 3, 16), np.float32)}, fresh=("logits",))


@pytest.mark.quick
def test_a_full_disk_leaves_the_earlier_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.npz"
    weights.save(path, {"a/b": np.ones(3, np.float32)})

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OutputError, match="no space"):
        weights.save(path, {"a/b": np.zeros(3, np.float32)})
    assert weights.load(path)["a/b"].tolist() == [1, 1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["w.npz"]
