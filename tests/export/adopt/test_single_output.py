"""A classifier with one output answers for two labels: 1 - p and p, or the logits 0 and z."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from foreign_models import Net, run_model, scaled_frames, write_colours, write_names

from capsule_edge.evaluation.classification import load_predictions
from capsule_edge.export.adopt import AdoptOptions, adopt
from capsule_edge.export.adopt.judgement import source_logits, to_logits, to_probabilities
from capsule_edge.runtime.errors import ModelError, UsageError
from capsule_edge.runtime.inference import open_model

LABELS = ("normal", "polyp")
# Float32 sums in another order, in a network of three layers.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 frames of 12 videos and two labels."""
    return write_colours(tmp_path_factory.mktemp("two") / "frames", frames=120, videos=6, labels=LABELS)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_names(tmp_path_factory.mktemp("pair") / "labels.yaml", LABELS)


def single(root: Path, end: str) -> onnx.ModelProto:
    """A network whose only output is large for a polyp. ``end``: logit, sigmoid, or rounded: a sigmoid and a Clip."""
    net = Net(32)
    x = net.node("Relu", net.conv("input", (3, 12), stride=2))
    pooled = net.pool(net.node("Relu", net.conv(x, (12, 16), stride=2)))
    pictures, labels = scaled_frames(root, 32, "imagenet")
    features = run_model(net.model(pooled, shape=("N", 16)), pictures)
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-3
    rows = np.c_[(features - mean) / deviation, np.ones(len(features))]
    fitted = np.linalg.solve(rows.T @ rows + np.eye(17), rows.T @ (4.0 * (labels == labels.max()) - 2))
    weights = fitted[:16, None] / deviation[:, None]
    output = net.node("Gemm", pooled, net.constant(weights), net.constant(fitted[16:] - mean @ weights))
    if end != "logit":
        output = net.node("Sigmoid", output)
    if end == "rounded":
        output = net.node("Clip", output, net.constant(0.0), net.constant(1.0))
    return net.model(output, shape=("N", 1))


def save(proto: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(proto, folder / "single.onnx")
    return folder / "single.onnx"


@pytest.mark.parametrize(
    ("end", "outputs", "stated"),
    [("logit", None, "logits"), ("sigmoid", None, "sigmoid"), ("sigmoid", "sigmoid", "sigmoid"),
     ("rounded", "sigmoid", "sigmoid")],
)  # fmt: skip
def test_one_output_becomes_two_probabilities(
    end: str, outputs: Any, stated: str, two: Path, pair: Path, tmp_path: Path
) -> None:
    proto = single(two, end)
    options = AdoptOptions(scaling="imagenet", outputs=outputs)
    report = adopt(save(proto, tmp_path), pair, two, tmp_path / "out", options)
    assert report.labels == LABELS
    assert (report.source["outputs"], report.source["single_output"]) == (stated, True)
    assert report.conversion["max_abs_dp"] < TOLERANCE
    assert report.has_maps is (end != "rounded")
    pictures, _ = scaled_frames(two, 32, "imagenet")
    answers = run_model(proto, pictures)[:, 0]
    p = 1 / (1 + np.exp(-answers)) if end == "logit" else answers
    table = load_predictions(tmp_path / "out" / "source.csv")
    for precision, tolerance in (("fp32", TOLERANCE), ("int8", 0.1)):
        model = open_model(tmp_path / "out" / f"model.{precision}.onnx")
        given = model.run(frames_of(two))
        # Without the temperature, the second label has the probability that the source gives.
        assert np.abs(to_probabilities(given.logits)[:, 1] - p).max() < tolerance
        calibrated = to_probabilities(given.logits / model.spec.temperature)
        assert np.abs(given.probabilities - calibrated).max() < TOLERANCE
        if end != "rounded":
            assert not given.features[..., 0].any()
        model.close()
    assert table.probabilities.shape[1] == 2
    assert report.certificates[0]["agreement"] == 1


def frames_of(root: Path) -> np.ndarray:
    from capsule_edge.evaluation.classification import load_frames
    from capsule_edge.evaluation.datasets import load_dataset
    from capsule_edge.runtime.inference import InputSpec

    spec = InputSpec(32, crop="none", mask="none", preprocessing=2)
    return load_frames(load_dataset(root), spec)[1]


def test_labels_the_wrong_way_round_are_noticed(two: Path, tmp_path: Path) -> None:
    turned = write_names(tmp_path / "turned.yaml", LABELS[::-1])
    with pytest.raises(ModelError, match="balanced accuracy") as refused:
        adopt(
            save(single(two, "sigmoid"), tmp_path),
            turned,
            two,
            tmp_path / "out",
            AdoptOptions(scaling="imagenet"),
        )
    assert "the order of --labels" in str(refused.value.hint)


def test_three_labels_do_not_fit_one_output(two: Path, names: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"has 3 labels, but .* has one output, which tells two labels apart"
    ):
        adopt(save(single(two, "logit"), tmp_path), names, two, tmp_path / "out")


def test_one_output_alone_is_no_distribution(two: Path, pair: Path, tmp_path: Path) -> None:
    options = AdoptOptions(scaling="imagenet", outputs="probabilities")
    with pytest.raises(UsageError, match="has one output; alone, it cannot be one of several"):
        adopt(save(single(two, "rounded"), tmp_path), pair, two, tmp_path / "out", options)


def test_scalings_are_compared_by_the_side_of_a_half(two: Path, pair: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"balanced accuracy on \d+ of the frames is .*imagenet, rgb: 0\.7"):
        adopt(save(single(two, "sigmoid"), tmp_path), pair, two, tmp_path / "out")


def test_a_sigmoid_that_rounds_to_1_takes_the_logit_of_the_network() -> None:
    ours = np.array([[0.0, 30.0], [0.0, -2.0]])
    answers = np.array([[1.0], [1 / (1 + np.exp(2.0))]], np.float32)
    logits = source_logits(answers, "sigmoid", ours)
    np.testing.assert_allclose(logits, ours, atol=1e-6)
    assert to_logits(answers, "sigmoid")[0, 1] < 20
