"""Run MLPerf's scenarios with the real loadgen, on a small model and 21 frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tiny_model import LABELS, write_tiny_model

from capsule_edge.benchmarks import mlperf
from capsule_edge.evaluation.classification import load_frames, predict
from capsule_edge.evaluation.datasets import load_dataset
from capsule_edge.runtime.errors import InputError, ModelError, OutputError, PackageError, UsageError
from capsule_edge.runtime.inference import open_model

loadgen = pytest.importorskip("mlperf_loadgen", reason="needs the extra 'mlperf'")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """21 frames of plain colours, one of which cannot be read."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    lines = ["file,label,source,video_id,frame_number,split"]
    for index in range(21):
        # Plain colours, so that the model's labels differ.
        pixels = np.full((40, 40, 3), rng.integers(0, 256, 3), np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), pixels)
        lines.append(f"{index}.png,{LABELS[index % 3]},made,video{index % 4},{index},val")
    (folder / "5.png").write_bytes(b"no picture")
    (folder / "labels.csv").write_text("\n".join(lines), "utf-8")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.onnx", gain=8)


def test_every_scenario_writes_logs_and_has_their_accuracy(
    data: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mlperf.main(
        [str(model), "--data", str(data), "--out", str(tmp_path), "--seconds", "0.2", "--threads", "2"]
    )
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [entry["scenario"] for entry in document["results"]] == list(mlperf.SCENARIOS)
    dataset = load_dataset(data)
    right = predict(open_model(model, threads=1), dataset)
    accuracy = float(np.mean(right.predicted == right.labels))
    assert 0 < accuracy < 1
    for entry in document["results"]:
        assert entry["frames"] == 20
        assert entry["accuracy"] == accuracy
        assert float(entry["summary"][mlperf.FIGURES[entry["scenario"]]]) > 0
        for mode in mlperf.MODES:
            assert (tmp_path / entry["scenario"] / mode / "mlperf_log_detail.txt").stat().st_size > 0
        logged = mlperf.read_accuracy(
            tmp_path / entry["scenario"] / "accuracy" / "mlperf_log_accuracy.json", 20, len(LABELS)
        )
        # Only the order of a batch's sums may differ.
        assert np.abs(logged - right.probabilities).max() < 1e-5


def test_macro_f1_is_that_of_evaluate(data: Path, model: Path) -> None:
    from capsule_edge.evaluation.classification import evaluate

    right = predict(open_model(model, threads=1), load_dataset(data))
    dataset, _ = load_frames(load_dataset(data), open_model(model).spec.input)
    found = mlperf.score(right.probabilities, dataset, right.keys)
    assert found["macro_f1"] == pytest.approx(evaluate(right, resamples=0)["macro_f1"], abs=1e-12)


@pytest.mark.parametrize("scenario", mlperf.SCENARIOS)
def test_an_error_of_the_model_reaches_the_caller(
    data: Path, model: Path, tmp_path: Path, scenario: str
) -> None:
    opened: Any = open_model(model, threads=1)
    _, frames = load_frames(load_dataset(data), opened.spec.input)
    answer, calls = opened.run, []

    def run(given: np.ndarray) -> Any:
        calls.append(len(given))
        if len(calls) > 3:
            raise ModelError("the model is tired")
        return answer(given)

    opened.run = run
    with pytest.raises(ModelError, match="is tired"):
        mlperf.run_scenario(opened, frames, tmp_path, scenario=scenario, mode="performance", seconds=0.2)


def test_bad_input_is_one_line(
    data: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [str(model), "--data", str(data), "--out", str(tmp_path / "out")]
    with pytest.raises(UsageError, match="allowed is one of SingleStream"):
        mlperf.main([*words, "--scenario", "Server"])
    for option, value in (("--threads", "0"), ("--seconds", "0"), ("--seconds", "nan"), ("--limit", "0")):
        with pytest.raises(UsageError, match="must be above 0"):
            mlperf.main([*words, option, value])
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(OutputError, match="cannot be made"):
        mlperf.main([*words[:-1], str(tmp_path / "file"), "--seconds", "0.1"])
    monkeypatch.setattr(mlperf, "find_spec", lambda _name: None)
    with pytest.raises(PackageError, match=r"capsule-edge\[mlperf\]"):
        mlperf.main(words)


@pytest.mark.quick
@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '[{"qsl_idx": 0}]',
        '[{"qsl_idx": 0, "data": "00"}]',
        '[{"qsl_idx": 1, "data": "0000803f"}]',
    ],
)
def test_a_file_that_is_no_log_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mlperf_log_accuracy.json"
    path.write_text(text, "utf-8")
    with pytest.raises(InputError, match=r"is no accuracy log|needed are 1"):
        mlperf.read_accuracy(path, 1, 1)
    with pytest.raises(InputError, match="cannot be read"):
        mlperf.read_summary(tmp_path / "absent.txt")
