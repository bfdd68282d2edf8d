"""A Keras model is rebuilt, trained with rounding, judged beside post-training quantisation, and used if better."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from framework_models import frames

pytest.importorskip("tensorflow_model_optimization", reason="needs the extra 'train'")

from capsule_edge.export.adopt import (
    AdoptionReport,
    AdoptOptions,
    adopt,
    adoption,
    int8_search,
    quantised_network,
)
from capsule_edge.export.adopt.channel_evening import Evening
from capsule_edge.export.adopt.finetuning import TunedBody, plan_twin
from capsule_edge.export.adopt.finetuning.twin_process import TwinProcess
from capsule_edge.export.adopt.int8_search import Int8Candidate
from capsule_edge.export.adopt.network_layers import NetworkLayer, read_layers
from capsule_edge.export.adopt.quantised_network import is_better
from capsule_edge.export.adopt.sources import FrameworkProcess
from capsule_edge.runtime.errors import UsageError
from capsule_edge.runtime.inference import open_model

EPOCHS = 8


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def listed(tunable: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Any]]:
    """Return a function from the name of a model of Keras 3 to its layers. One process of Keras serves all."""
    process = FrameworkProcess("keras")
    folder = tmp_path_factory.mktemp("listed")

    def layers_of(name: str) -> tuple[NetworkLayer, ...]:
        request = {"path": str(tunable("keras") / f"{name}.keras"), "size": None}
        process.ask({"do": "convert", "out": str(folder / "net.onnx"), **request})
        process.ask({"do": "layers", "out": str(folder), **request})
        return read_layers(folder)

    yield layers_of
    process.close()


def test_a_nested_network_of_keras_3_is_rebuilt_with_equal_answers(listed: Any, tunable: Any) -> None:
    """The same float32 sums in another order, in a network of seven layers with weights: 1e-5 of a probability."""
    path = tunable("keras") / "nested.keras"
    plan = plan_twin(path, listed("nested"), (32, 32, 3))
    kinds = [layer.kind for layer in plan]
    assert kinds.count("Rescaling") == 2
    assert kinds.count("DepthwiseConv2D") == 1
    # The one behind a convolution is folded, the other stays.
    assert kinds.count("BatchNormalization") == 1
    assert any(layer.name.startswith("outer__inner__") for layer in plan)
    twin = TwinProcess(path, plan, 0)
    answers = softmax(twin.answer(frames()))
    twin.close()
    expected = np.load(path.with_name("nested.npy"))
    assert expected.std(axis=0).max() > 1e-3  # the frames are answered differently
    np.testing.assert_allclose(answers, expected, atol=1e-5)


def test_a_layer_that_is_used_twice_is_named(listed: Any) -> None:
    with pytest.raises(UsageError, match=r"layer 'shared' \(Conv2D\) is used more than once") as refused:
        listed("twice")
    assert "post-training quantisation" in str(refused.value.hint)


def test_a_swish_in_a_nested_model_is_refused_before_any_frame_is_read(
    tunable: Any, names: Path, training: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    options = AdoptOptions(channels="rgb", finetune=True, finetune_data=training)
    path = tunable("keras") / "swish_inside.keras"
    words = r"layer 'backbone/smooth' \(Conv2D: activation (swish|silu)\) has no twin"
    with pytest.raises(UsageError, match=words) as refused:
        adopt(path, names, training, tmp_path / "out", options, progress=told.append)
    assert "post-training quantisation" in str(refused.value.hint)
    assert told == [f"reading {path}"]
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def tuned(
    tunable: Any, names: Path, colours: Path, training: Path, tmp_path_factory: pytest.TempPathFactory
) -> AdoptionReport:
    """A network with uneven channels, fine-tuned.

    Evened channels alone would make up for nearly all that it loses (the test of this), so quantisation after training
    does without them here.
    """
    options = AdoptOptions(
        channels="rgb", scaling="0..255", accept_weak=True, finetune=True, finetune_data=training, epochs=EPOCHS,
        keep_float=(),
    )  # fmt: skip
    out = tmp_path_factory.mktemp("tuned") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8_search, "even_channels", lambda body, _: Evening(body, {}, {}))
        return adopt(tunable("tf_keras") / "uneven.h5", names, colours, out, options)


def test_evened_channels_alone_help_a_network_with_uneven_ones(
    tunable: Any, names: Path, colours: Path, tmp_path: Path
) -> None:
    options = AdoptOptions(channels="rgb", scaling="0..255", accept_weak=True, keep_float=())
    report = adopt(tunable("tf_keras") / "uneven.h5", names, colours, tmp_path / "out", options)
    chosen, tried = report.int8["chosen"], report.int8["tried"]
    assert chosen["evened"]
    assert {candidate["evened"] for candidate in tried} == {False, True}
    assert chosen["mean_abs_dp"] < 0.7 * min(each["mean_abs_dp"] for each in tried if not each["evened"])
    assert len(report.int8["evening"]["layers"]) == 3
    provenance = open_model(report.folder / "model.int8.onnx").spec.provenance
    assert provenance["evened_channels"] is True
    json.dumps(report.to_dict())


def test_fine_tuning_lowers_the_mean_difference_where_channels_are_uneven(tuned: AdoptionReport) -> None:
    record = tuned.finetuned
    assert record is not None
    # The source is a network of tf_keras with a nested model: its twin answered alike before it was trained.
    assert record["twin_max_abs_dp"] < 1e-5
    assert record["kept"]
    assert len(record["with"]["failing"]) <= len(record["without"]["failing"])
    assert record["with"]["mean_abs_dp"] < 0.8 * record["without"]["mean_abs_dp"]
    chosen = tuned.int8["chosen"]
    assert chosen == record["with"]
    assert chosen["finetuned"]
    # Both networks were tried in the same ways.
    tried = tuned.int8["tried"]
    assert {candidate["finetuned"] for candidate in tried} == {False, True}
    assert {candidate["finetuned"] for candidate in tried if candidate["method"] == "training"} == {True}


def test_what_was_trained_on_is_written_into_the_int8_file_alone(
    tuned: AdoptionReport, training: Path
) -> None:
    fp32, int8 = (open_model(tuned.folder / f"model.{p}.onnx").spec for p in ("fp32", "int8"))
    assert "finetuned" not in fp32.provenance
    record = int8.provenance["finetuned"]
    assert (record["epochs"], record["frames"], record["left_out"]) == (EPOCHS, 240, 0)
    assert record["data"]["name"] == training.name
    assert len(record["data"]["sha256"]) == 64
    assert len(record["training_videos"]) == 12
    schema = json.loads((files("capsule_edge.runtime") / "schema" / "model.schema.json").read_text("utf-8"))
    jsonschema.validate(int8.to_dict(), schema)
    json.dumps(tuned.to_dict())


def test_the_weights_of_int8_are_others_and_those_of_fp32_the_sources(
    tuned: AdoptionReport, tunable: Any, colours: Path
) -> None:
    expected = np.load(tunable("tf_keras") / "uneven.npy")
    answer = open_model(tuned.folder / "model.fp32.onnx").run(frames().astype(np.uint8))
    np.testing.assert_allclose(softmax(answer.logits), expected, atol=1e-4)
    proto = onnx.load(tuned.folder / "model.int8.onnx")
    kernels = [onnx.numpy_helper.to_array(t) for t in proto.graph.initializer]
    assert sum(values.dtype == np.int8 and values.ndim == 4 for values in kernels) == 3
    assert tuned.not_fused == 0


def test_fine_tuning_that_gains_nothing_is_said_and_not_used(
    adopted: Any, foreign: Any, names: Path, colours: Path, training: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A network with noise on its weights stands in for the trained one, and an ONNX file for the Keras model."""

    def spoil(*given: Any, **_: Any) -> TunedBody:
        body = given[3]
        proto = onnx.ModelProto()
        proto.CopyFrom(body.proto)
        for tensor in proto.graph.initializer:
            values = onnx.numpy_helper.to_array(tensor)
            if values.ndim == 4:
                noise = np.random.default_rng(0).normal(0, 0.3 * values.std(), values.shape)
                tensor.CopyFrom(
                    onnx.numpy_helper.from_array((values + noise).astype(np.float32), tensor.name)
                )
        return TunedBody(dataclasses.replace(body, proto=proto), {}, {"epochs": 1})

    monkeypatch.setattr(quantised_network, "tune_body", spoil)
    monkeypatch.setattr(adoption, "check_requirements", lambda *_: None)
    monkeypatch.setattr(adoption, "_plan", lambda *_: ())
    options = AdoptOptions(scaling="imagenet", finetune=True, finetune_data=training)
    spoilt, plain = adopt(foreign("residual"), names, colours, tmp_path / "out", options), adopted("residual")
    assert spoilt.finetuned is not None
    assert not spoilt.finetuned["kept"]
    assert spoilt.finetuned["with"]["mean_abs_dp"] > spoilt.finetuned["without"]["mean_abs_dp"]
    assert spoilt.int8["chosen"] == plain.int8["chosen"]
    # The INT8 file is that of an adoption without fine-tuning.
    assert spoilt.files["model.int8.onnx"] == plain.files["model.int8.onnx"]
    assert len(spoilt.int8["tried"]) > len(plain.int8["tried"])


@pytest.mark.parametrize(
    ("missed", "kept", "dp", "better"),
    [
        ((1, 2), (0, 0), (0.02, 0.01), True),
        ((2, 1), (0, 0), (0.01, 0.02), False),
        ((0, 0), (1, 3), (0.02, 0.01), True),
        ((0, 0), (3, 1), (0.01, 0.02), False),
        ((1, 1), (3, 1), (0.01, 0.02), True),
        ((0, 0), (2, 2), (0.02, 0.02), False),
    ],
)
def test_missed_limits_decide_first(missed: Any, kept: Any, dp: Any, better: bool) -> None:
    first, second = (
        Int8Candidate("mse", True, ("layer",) * kept[at], False, 1.0, dp[at], ("gate",) * missed[at])
        for at in (0, 1)
    )
    assert is_better(first, second) is better
