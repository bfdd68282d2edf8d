"""Each kind of source is adopted whole: the FP32 file answers as its framework does, the INT8 file reads recordings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_models import write_colours, write_names
from framework_models import frames

from capsule_edge.export.adopt import AdoptOptions, adopt
from capsule_edge.runtime import Reader
from capsule_edge.runtime.inference import open_model

pytest.importorskip("tf_keras", reason="needs the extra 'train'")
REAL = Path(os.environ.get("CAPSULE_EDGE_DATA", "/nowhere"))


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("framework", "name", "kind", "scaling"),
    [
        ("keras", "cnn.keras", "keras", None),
        ("tf_keras", "cnn.h5", "tf_keras", None),
        ("tf_keras", "cnn_saved", "savedmodel", "0..255"),
        ("tf_keras", "cnn.tflite", "tflite", "0..255"),
    ],
)
def test_a_source_of_each_kind_is_adopted(
    framework: str,
    name: str,
    kind: str,
    scaling: str | None,
    written: Any,
    names: Path,
    colours: Path,
    tmp_path: Path,
) -> None:
    path = written(framework) / name
    # Nobody trained these networks, so they guess.
    options = AdoptOptions(channels="rgb", scaling=scaling, accept_weak=True)
    report = adopt(path, names, colours, tmp_path / "adopted", options)
    assert report.source["kind"] == kind
    assert (report.source["producer"], report.source["opset"]) == (None, None)
    assert report.source["converted"]["producer"].startswith("tf2onnx")
    assert report.source["converted"]["opset"] == 17
    assert report.source["stated_by"]["scaling"] == ("option" if scaling else "file")
    assert report.conversion["max_abs_dp"] < 1e-4
    expected = np.load(path.with_name("cnn.npy"))
    probabilities = expected if framework == "keras" else softmax(expected)
    fp32, int8 = (report.folder / f"model.{precision}.onnx" for precision in ("fp32", "int8"))
    logits = open_model(fp32).run(frames().astype(np.uint8)).logits
    assert np.abs(softmax(logits) - probabilities).max() < 1e-4
    if recordings := sorted((REAL / "recordings").glob("*.mp4"), key=lambda file: file.stat().st_size):
        with Reader.open(int8) as reader:
            study = reader.read(recordings[0])
        assert sum(frame.status == "classified" for frame in study.frames) > 0
        assert study.model.provenance["adopted_from"]["kind"] == kind


def test_a_single_output_of_keras_answers_for_two_labels(written: Any, tmp_path: Path) -> None:
    path, labels = written("keras") / "single.keras", ("normal", "polyp")
    data, listed = (
        write_colours(tmp_path / "frames", labels=labels),
        write_names(tmp_path / "labels.yaml", labels),
    )
    report = adopt(path, listed, data, tmp_path / "out", AdoptOptions(channels="rgb", accept_weak=True))
    assert (report.source["outputs"], report.source["single_output"]) == ("sigmoid", True)
    expected = np.load(path.with_name("single.npy"))
    logits = open_model(report.folder / "model.fp32.onnx").run(frames().astype(np.uint8)).logits
    assert np.abs(softmax(logits) - np.c_[1 - expected, expected]).max() < 1e-4
