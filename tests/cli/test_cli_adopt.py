"""``capsule-edge adopt``: one command from a foreign file to model files; every fault is one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx")
pytest.importorskip("sklearn")

import onnx
from foreign_models import make_net, write_colours, write_names
from paths import ROOT


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("given")
    write_colours(folder / "frames")
    onnx.save(make_net("residual", folder / "frames"), folder / "net.onnx")
    write_names(folder / "labels.yaml")
    return folder


def arguments(given: Path, *more: object) -> list[object]:
    return ["adopt", given / "net.onnx", "--labels", given / "labels.yaml", "--data", given / "frames", *more]


def test_a_foreign_file_becomes_model_files(call, given, tmp_path):
    out = tmp_path / "out"
    done = call(*arguments(given, "--scaling", "imagenet", "--out", out, "--held-out", "patient", "--json"))
    assert done.code == 0, done.err
    report = done.json
    assert sorted(path.name for path in out.iterdir()) == [
        "SHA256SUMS", "certificates", "model.fp32.onnx", "model.int8.onnx", "source.csv",
    ]  # fmt: skip
    assert len(list((out / "certificates").glob("*.json"))) == 2
    assert report["conversion"]["max_abs_dp"] <= 1e-3
    assert report["tflite"]["file"] is None
    assert "ONNX" in report["tflite"]["reason"]
    shown = call("info", out / "model.int8.onnx", "--json")
    assert shown.code == 0
    spec = shown.json.get("model", shown.json)
    assert "patient" in str(spec)
    again = call(
        "compare", out / "model.fp32.onnx", out / "model.int8.onnx", "--data", given / "frames", "--json"
    )
    assert again.code in (0, 4)


def test_the_result_is_told_in_lines(call, given, tmp_path):
    done = call(*arguments(given, "--scaling", "imagenet", "--out", tmp_path / "out", "--keep-float", "none"))
    assert done.code == 0, done.err
    assert "FP32 against the source" in done.out
    assert "0 of 4 layers in float" in done.out
    assert "shipping of model.int8.onnx against model.fp32.onnx" in done.out


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        ([], 2, "does not state the scaling of its input; balanced accuracy"),
        (["--scaling", "torch"], 2, "allowed is one of 0..255"),
        (["--scaling", "imagenet", "--size", "64"], 2, "takes 32 pixels"),
        (["--scaling", "imagenet", "--split", "nowhere"], 2, "no split 'nowhere'"),
        (
            ["--scaling", "imagenet", "--keep-float", "none", "--keep-float", "x"],
            2,
            "goes with no other layer",
        ),
        (
            ["--scaling", "imagenet", "--keep-float", "auto", "--keep-float", "/conv_0"],
            2,
            "--keep-float auto goes with no other layer",
        ),
        (["--scaling", "imagenet", "--keep-float", "x"], 2, "no layer 'x'"),
        (["--scaling", "imagenet", "--license", " "], 2, "empty text"),
        (["--finetune"], 2, "--finetune needs the layers of a Keras model"),
        (["--finetune", "--epochs", "0"], 2, "--epochs is 0, allowed is 1 to 100"),
        (["--finetune-data", "."], 2, "--finetune-data goes with --finetune only"),
        (["--scaling", "imagenet", "--outputs", "sigmoid"], 2, "--outputs is sigmoid"),
    ],
)
def test_a_wrong_option_is_one_line_and_leaves_nothing(call, given, tmp_path, more, code, words):
    done = call(*arguments(given, "--out", tmp_path / "out", *more))
    assert done.code == code
    line = done.err.strip().splitlines()[-1]
    assert line.startswith("error: ")
    assert words in line
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


def test_labels_that_do_not_fit_the_outputs_are_refused(call, given, tmp_path):
    labels = write_names(tmp_path / "labels.yaml", ["normal", "bleeding", "polyp", "ulcer"])
    done = call(
        "adopt", given / "net.onnx", "--labels", labels, "--data", given / "frames", "--scaling", "imagenet",
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.code == 2
    assert "has 4 labels, but" in done.err
    assert "has 3 outputs" in done.err


def test_a_folder_that_holds_something_is_refused_first(call, given, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    done = call(*arguments(given, "--scaling", "imagenet", "--out", tmp_path / "out"))
    assert done.code == 1
    assert "is not empty" in done.err
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_a_label_of_the_frames_that_the_model_lacks_is_named(call, given, tmp_path):
    labels = write_names(tmp_path / "labels.yaml", ["normal", "bleeding", "ulcer"])
    done = call(
        "adopt", given / "net.onnx", "--labels", labels, "--data", given / "frames", "--scaling", "imagenet",
        "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    assert done.code == 1
    assert "polyp" in done.json["error"]["message"]


@pytest.fixture(scope="module")
def keras_given(tmp_path_factory) -> Path:
    """The demo data, a small Keras model that was fitted to their split ``train``, and its labels."""
    pytest.importorskip("tensorflow_model_optimization", reason="needs the extra 'train'")
    from click.testing import CliRunner

    from capsule_edge.cli.demo_data import command

    folder = tmp_path_factory.mktemp("keras_given")
    assert CliRunner().invoke(command, [str(folder / "frames")]).exit_code == 0
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TF_CPP_MIN_LOG_LEVEL": "3"}
    program = ROOT / "tests" / "tunable_models.py"
    subprocess.run(
        [sys.executable, program, "demo", folder / "frames", folder],
        check=True, capture_output=True, timeout=500, env=environment,
    )  # fmt: skip
    return folder


def test_a_keras_model_is_fine_tuned_on_the_split_train_and_leaves_a_tflite_file(
    call, keras_given, exam, tmp_path
):
    out = tmp_path / "out"
    done = call(
        "adopt", keras_given / "net.keras", "--labels", keras_given / "labels.yaml", "--data", keras_given / "frames",
        "--channels", "rgb", "--finetune", "--epochs", "1", "--accept-weak", "--out", out,
    )  # fmt: skip
    assert done.code == 0, done.err
    (line,) = [line for line in done.out.splitlines() if line.startswith("fine-tuning (1 epoch, ")]
    assert "frames of frames): " in line
    assert line.count("mean difference of a probability") == 2
    kept = "): kept; with it" in line
    shown = call("info", out / "model.int8.onnx", "--json").json
    assert ("finetuned" in str(shown)) is kept
    assert "fine-tuning: epoch 1 of 1, 324 frames" in done.err
    assert "TFLite FP32 against ONNX FP32: largest difference of a logit" in done.out
    assert "conversion of model.fp32.tflite against source.csv: pass" in done.out
    file = out / "model.fp32.tflite"
    shown = call("info", file, "--backend", "litert", "--json")
    assert shown.code == 0, shown.err
    assert "'precision': 'fp32'" in str(shown.json)
    read = call("run", exam, "--model", file, "--backend", "litert", "--out", tmp_path / "read")
    assert read.code == 0, read.err
