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
from capsule_edge.export.adopt.sources.tflite_conversion import describe_refusal
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
    check_tflite(report, kind, fp32)
    if recordings := sorted((REAL / "recordings").glob("*.mp4"), key=lambda file: file.stat().st_size):
        with Reader.open(int8) as reader:
            study = reader.read(recordings[0])
        assert sum(frame.status == "classified" for frame in study.frames) > 0
        assert study.model.provenance["adopted_from"]["kind"] == kind


def check_tflite(report: Any, kind: str, fp32: Path) -> None:
    """Check the TFLite file: it answers as the ONNX file does, and has a certificate of its own."""
    path = report.folder / "model.fp32.tflite"
    model, twin = open_model(path, backend="litert"), open_model(fp32)
    pictures = frames().astype(np.uint8)
    for count in (len(pictures), 1, 3):
        ours, theirs = model.run(pictures[:count]), twin.run(pictures[:count])
        # Float32 sums in another order, in a network of a few layers.
        assert np.abs(ours.logits - theirs.logits).max() < 1e-4
        assert np.abs(ours.probabilities - theirs.probabilities).max() < 1e-5
        assert np.abs(ours.features - theirs.features).max() < 1e-4
        assert ours.features.shape == (count, 8, 8, 3)
    assert (report.tflite["file"], report.tflite["reason"]) == (path.name, None)
    assert report.tflite["edge"]["holds"]
    assert report.tflite["frames"] == 60
    assert model.spec.keys == twin.spec.keys
    assert model.spec.temperature == twin.spec.temperature
    assert "onnx" not in str(model.spec.provenance)
    assert ("tensorflow" in model.spec.provenance["exported_with"]) is (kind != "tflite")
    (made,) = (c for c in report.certificates if c["models"]["b"]["file"] == path.name)
    assert (made["kind"], made["verdict"]) == ("conversion", "pass")
    assert made["models"]["a"]["file"] == "source.csv"
    assert made["models"]["b"]["sha256"] == report.files[path.name]["sha256"] == model.sha256
    assert model.spec.certificates["conversion"]["verdict"] == "pass"
    assert f"{model.sha256}  {path.name}" in (report.folder / "SHA256SUMS").read_text()
    assert (report.folder / "certificates" / f"{path.name}.conversion.html").exists()


def test_what_tflite_cannot_compute_is_named_and_the_onnx_files_stand(
    written: Any, names: Path, colours: Path, tmp_path: Path
) -> None:
    path = written("tf_keras") / "erf_saved"
    options = AdoptOptions(channels="rgb", scaling="0..255", accept_weak=True)
    report = adopt(path, names, colours, tmp_path / "out", options)
    reason = f"{path} computes Erf, which TFLite's own operators do not compute"
    assert report.to_dict()["tflite"]["reason"] == reason
    assert f"no TFLite file was written: {reason}" in report.notes
    assert sorted(report.files) == ["model.fp32.onnx", "model.int8.onnx"]
    assert sorted(report.folder.glob("*.tflite")) == []


def test_a_refusal_of_the_converter_is_one_line() -> None:
    path = Path("net.keras")
    message = "Some ops are not supported\nTF Select ops: Erf, Lgamma\nDetails:\n\tCustom ops: Mine\n"
    assert describe_refusal(path, message).startswith("net.keras computes Erf, Lgamma, Mine, which TFLite's")
    assert describe_refusal(path, "a\n b ") == "TensorFlow cannot convert net.keras to TFLite: a b"


def test_a_single_output_of_keras_answers_for_two_labels(written: Any, tmp_path: Path) -> None:
    path, labels = written("keras") / "single.keras", ("normal", "polyp")
    data, listed = (
        write_colours(tmp_path / "frames", labels=labels),
        write_names(tmp_path / "labels.yaml", labels),
    )
    options = AdoptOptions(channels="rgb", accept_weak=True, tflite=False)
    report = adopt(path, listed, data, tmp_path / "out", options)
    assert (report.source["outputs"], report.source["single_output"]) == ("sigmoid", True)
    assert report.tflite["reason"] == "it was not wanted: --no-tflite"
    assert not (report.folder / "model.fp32.tflite").exists()
    expected = np.load(path.with_name("single.npy"))
    logits = open_model(report.folder / "model.fp32.onnx").run(frames().astype(np.uint8)).logits
    assert np.abs(softmax(logits) - np.c_[1 - expected, expected]).max() < 1e-4
