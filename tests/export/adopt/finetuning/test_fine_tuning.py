"""A Keras model is rebuilt, trained with rounding, judged beside post-training quantisation, and used if better."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from framework_models import frames

pytest.importorskip("tensorflow_model_optimization", reason="needs the extra 'train'")

from capsule_edge.export.adopt import AdoptionReport, AdoptOptions, adopt, quantised_network
from capsule_edge.export.adopt.finetuning import TunedBody, plan_twin
from capsule_edge.export.adopt.finetuning.twin_process import TwinProcess
from capsule_edge.export.adopt.int8_search import Int8Candidate
from capsule_edge.export.adopt.quantised_network import is_better
from capsule_edge.export.adopt.sources import to_onnx
from capsule_edge.runtime.errors import UsageError
from capsule_edge.runtime.inference import open_model

EPOCHS = 12


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("framework", "suffix"), [("keras", ".keras"), ("tf_keras", ".h5")])
def test_a_nested_network_is_rebuilt_with_equal_answers(
    framework: str, suffix: str, tunable: Any, tmp_path: Path
) -> None:
    """The same float32 sums in another order, in a network of seven layers with weights: 1e-5 of a probability."""
    path = tunable(framework) / f"nested{suffix}"
    facts = to_onnx(path, tmp_path / "net.onnx")
    plan = plan_twin(path, facts.layers(), (32, 32, 3))
    facts.run.close()
    kinds = [layer.kind for layer in plan]
    assert kinds.count("Rescaling") == 2
    assert kinds.count("DepthwiseConv2D") == 1
    # The one behind a convolution is folded, the other stays.
    assert kinds.count("BatchNormalization") == 1
    assert any(layer.name.startswith("outer__") or layer.name.startswith("inner__") for layer in plan)
    twin = TwinProcess(path, plan, 0)
    answers = softmax(twin.answer(frames()))
    twin.close()
    expected = np.load(path.with_name("nested.npy"))
    assert expected.std(axis=0).max() > 1e-3  # the frames are answered differently
    np.testing.assert_allclose(answers, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("swish_inside", r"layer 'backbone/smooth' \(Conv2D: activation (swish|silu)\) has no twin"),
        ("twice", r"layer 'shared' \(Conv2D\) is used more than once"),
    ],
)
def test_a_network_without_a_twin_is_refused_before_anything_is_read(
    name: str, words: str, tunable: Any, names: Path, training: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    options = AdoptOptions(channels="rgb", finetune=True, finetune_data=training)
    with pytest.raises(UsageError, match=words) as refused:
        adopt(tunable("keras") / f"{name}.keras", names, training, tmp_path / "out", options, progress=told.append)
    assert "post-training quantisation" in str(refused.value.hint)
    assert len(told) == 1  # "reading ...", and no frame was read
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def tuned(
    tunable: Any, names: Path, colours: Path, training: Path, tmp_path_factory: pytest.TempPathFactory
) -> AdoptionReport:
    """A network with uneven channels, fine-tuned."""
    options = AdoptOptions(
        channels="rgb", scaling="0..255", accept_weak=True, finetune=True, finetune_data=training, epochs=EPOCHS
    )
    out = tmp_path_factory.mktemp("tuned") / "out"
    return adopt(tunable("tf_keras") / "uneven.h5", names, colours, out, options)


def test_fine_tuning_lowers_the_mean_difference_where_channels_are_uneven(tuned: AdoptionReport) -> None:
    record = tuned.finetuned
    assert record is not None
    assert record["kept"]
    assert len(record["with"]["failing"]) <= len(record["without"]["failing"])
    assert record["with"]["mean_abs_dp"] < 0.8 * record["without"]["mean_abs_dp"]
    assert record["last_loss"] < record["first_loss"]
    chosen = tuned.int8["chosen"]
    assert chosen == record["with"]
    assert chosen["finetuned"]
    # Both networks were tried in the same ways.
    assert {candidate["finetuned"] for candidate in tuned.int8["tried"]} == {False, True}


def test_what_was_trained_on_is_written_into_the_int8_file_alone(tuned: AdoptionReport, training: Path) -> None:
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
    tunable: Any, names: Path, colours: Path, training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trained network is replaced by one with noise on its weights; the INT8 file is then that of no training."""

    def spoil(*given: Any, **_: Any) -> TunedBody:
        body = given[3]
        proto = onnx.ModelProto()
        proto.CopyFrom(body.proto)
        for tensor in proto.graph.initializer:
            values = onnx.numpy_helper.to_array(tensor)
            if values.ndim == 4:
                noise = np.random.default_rng(0).normal(0, 0.3 * values.std(), values.shape)
                tensor.CopyFrom(onnx.numpy_helper.from_array((values + noise).astype(np.float32), tensor.name))
        return TunedBody(dataclasses.replace(body, proto=proto), {"epochs": 1})

    monkeypatch.setattr(quantised_network, "tune_body", spoil)
    path = tunable("tf_keras") / "uneven.h5"
    options = AdoptOptions(channels="rgb", scaling="0..255", accept_weak=True)
    plain = adopt(path, names, colours, tmp_path / "plain", options)
    tried = dataclasses.replace(options, finetune=True, finetune_data=training)
    spoilt = adopt(path, names, colours, tmp_path / "spoilt", tried)
    assert spoilt.finetuned is not None
    assert not spoilt.finetuned["kept"]
    assert spoilt.finetuned["with"]["mean_abs_dp"] > spoilt.finetuned["without"]["mean_abs_dp"]
    assert spoilt.int8["chosen"] == plain.int8["chosen"]
    first, second = (
        hashlib.sha256((report.folder / "model.int8.onnx").read_bytes()).hexdigest() for report in (plain, spoilt)
    )
    assert first == second


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
        Int8Candidate("mse", True, ("layer",) * kept[at], False, 1.0, dp[at], ("gate",) * missed[at]) for at in (0, 1)
    )
    assert is_better(first, second) is better
