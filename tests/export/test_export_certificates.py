"""Export with labelled frames: the table of the QAT model's predictions and the certificates of the INT8 files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("tf_keras", reason="needs the extra 'train'")

from jsonschema import Draft202012Validator
from labelled_frames import write_frames
from quantised_models import KEYS

from capsule_edge.cli.compare import command as compare
from capsule_edge.cli.info import command as info
from capsule_edge.evaluation.classification import load_predictions
from capsule_edge.evaluation.datasets import load_dataset
from capsule_edge.evaluation.parity.certificate import schema_path
from capsule_edge.export import bundle
from capsule_edge.export.bundle import FILES, export_run
from capsule_edge.export.certify import TABLE, KerasBackend
from capsule_edge.export.run_folder import load_run, synthetic_frames
from capsule_edge.runtime.errors import GateError
from capsule_edge.runtime.inference.tflite_metadata import read_spec
from capsule_edge.runtime.preprocessing import preprocess

INT8 = ("model.int8.onnx", "model.int8.tflite")


@pytest.fixture(scope="module")
def run_folder(make_run: Callable[..., Path]) -> Path:
    return make_run("plain_cnn")


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 colour fields of five videos, every label in each."""
    rows = [(f"{i}.png", KEYS[i % 5], f"v{i // 5 % 5}", "val") for i in range(60)]
    pictures = synthetic_frames(64, count=60, seed=8)
    return write_frames(tmp_path_factory.mktemp("labelled"), "file,label,video_id,split", rows, pictures)


@pytest.fixture(scope="module")
def out(run_folder: Path, frames: Path, exam: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certified") / "out"
    report = export_run(run_folder, folder, dataset=load_dataset(frames), recordings=[exam, exam])
    assert len(report.certificates) == 4
    return folder


def certificates(out: Path, kind: str) -> dict[str, Any]:
    return {file: json.loads((out / "certificates" / f"{file}.{kind}.json").read_text()) for file in INT8}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", ["conversion", "shipping"])
def test_a_certificate_names_the_files_and_hashes_in_the_folder(out: Path, kind: str) -> None:
    for file, document in certificates(out, kind).items():
        Draft202012Validator(json.loads(schema_path().read_text())).validate(document)
        a, b = document["models"]["a"], document["models"]["b"]
        assert (b["file"], b["sha256"]) == (file, sha256(out / file))
        assert a["sha256"] == sha256(out / a["file"])
        assert a["file"] == (TABLE if kind == "conversion" else file.replace("int8", "fp32"))
        assert {path.suffix for path in out.glob(f"certificates/{file}.{kind}.*")} == {
            ".json",
            ".md",
            ".html",
        }
        assert document["data"]["frames"] == 60


def test_the_files_give_the_labels_of_the_qat_model(out: Path) -> None:
    for document in certificates(out, "conversion").values():
        assert (document["verdict"], document["agreement"]) == ("pass", 1.0)
        # The files' softmax is float32, the table's float64.
        assert document["max_abs_dp"] < 1e-5


def test_the_shipping_certificates_compare_events_on_recordings(out: Path) -> None:
    events = [document["events"] for document in certificates(out, "shipping").values()]
    assert [found["recordings"] for found in events] == [2, 2]
    # Both INT8 files give the same labels, and so do their FP32 twins.
    assert events[0] == events[1]
    assert events[0]["a"] > 0
    assert all(document["events"] is None for document in certificates(out, "conversion").values())


def test_each_file_carries_its_summary_and_info_shows_it(out: Path) -> None:
    for file in INT8:
        spec = read_spec(out / file) if file.endswith("tflite") else None
        parity = (
            spec.parity
            if spec
            else json.loads(CliRunner().invoke(info, [str(out / file), "--json"]).stdout)["certificate"]
        )
        assert parity is not None
        assert parity["fp32_sha256"] == sha256(out / file.replace("int8", "fp32"))
        assert parity["conversion"]["against_sha256"] == sha256(out / TABLE)
        assert parity["conversion"]["verdict"] == "pass"
        assert parity["shipping"]["agreement"] == certificates(out, "shipping")[file]["agreement"]
    printed = CliRunner().invoke(info, [str(out / INT8[0])]).stdout
    assert "certificate (conversion): pass, agreement 1.0000" in printed
    assert "certificate (shipping): " in printed


def test_the_sums_are_those_of_the_finished_files(out: Path) -> None:
    for line in (out / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert sha256(out / name) == digest


def test_compare_repeats_the_conversion_certificate_without_tensorflow(out: Path, frames: Path) -> None:
    result = CliRunner().invoke(
        compare, [str(out / TABLE), str(out / INT8[0]), "--data", str(frames), "--json"]
    )
    assert result.exit_code == 0, result.output
    again, first = json.loads(result.stdout), certificates(out, "conversion")[INT8[0]]
    again["models"]["b"]["backend"] = first["models"]["b"]["backend"]
    assert again == first


def test_the_table_holds_the_predictions_of_the_qat_model(run_folder: Path, frames: Path, out: Path) -> None:
    run = load_run(run_folder)
    table = load_predictions(out / TABLE)
    assert len(table) == 60
    picture = cv2.cvtColor(cv2.imread(str(frames / table.files[7])), cv2.COLOR_BGR2RGB)
    answer = KerasBackend(run.qat, run.spec, out).run(preprocess(np.asarray(picture), run.spec.input)[None])
    assert np.allclose(answer.probabilities[0], table.probabilities[7], atol=1e-7)


def test_a_file_that_differs_from_keras_is_not_exported(
    run_folder: Path, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(KerasBackend):
        def run(self, given: Any) -> Any:
            answer = super().run(given)
            return type(answer)(answer.probabilities[:, ::-1].copy(), answer.logits, answer.features)

    monkeypatch.setattr(bundle, "KerasBackend", Other)
    with pytest.raises(
        GateError,
        match=r"ONNX INT8 gives the label of the Keras QAT model on .* of 60 frames, allowed is 99.9%",
    ):
        export_run(run_folder, tmp_path / "new" / "out", dataset=load_dataset(frames))
    assert list((tmp_path / "new").iterdir()) == []


def test_the_folder_holds_every_file_and_no_other(out: Path) -> None:
    assert {path.name for path in out.iterdir()} == {*FILES.values(), "SHA256SUMS", TABLE, "certificates"}
