"""Quantised variants of one RUN: PTQ and QAT files, their scores, and the table that the document shows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tf_keras", reason="needs the extra 'train'")
pytest.importorskip("ai_edge_litert", reason="needs the extra 'litert'")

from labelled_frames import write_frames
from quantised_models import KEYS

from capsule_edge.benchmarks.documents import update_document
from capsule_edge.benchmarks.quantization import find_variants, to_markdown
from capsule_edge.benchmarks.quantization import main as tabulate
from capsule_edge.evaluation.classification import Score, score_files
from capsule_edge.evaluation.datasets import load_dataset
from capsule_edge.export.held_out import split_held_out
from capsule_edge.export.run_folder import load_run, synthetic_frames
from capsule_edge.export.tools.variants import main, representative
from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import open_model

FILES = {"fp32.onnx", "fp32.tflite", "fp16.tflite", "dynamic.tflite"} | {
    f"{name}{suffix}"
    for name in ("qat", "ptq-minmax", "ptq-percentile", "ptq-entropy", "ptq-mse")
    for suffix in (".onnx", ".tflite")
}


@pytest.fixture(scope="module")
def run_folder(make_run: Callable[..., Path]) -> Path:
    return make_run("plain_cnn")


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 colour fields of 12 videos, all ``train``."""
    rows = [(f"{i}.png", KEYS[i % 5], f"v{i // 5}", "train") for i in range(60)]
    pictures = synthetic_frames(64, count=60, seed=8)
    return write_frames(tmp_path_factory.mktemp("frames"), "file,label,video_id,split", rows, pictures)


@pytest.fixture(scope="module")
def variants(run_folder: Path, frames: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("variants") / "out"
    main([str(run_folder), "--data", str(frames), "--out", str(out), "--frames", "20"])
    return out


def test_every_variant_is_written_and_names_itself(variants: Path) -> None:
    assert {path.name for path in variants.iterdir()} == FILES
    sizes = {name: (variants / name).stat().st_size for name in FILES}
    # Half and a quarter of the weights, and a share for all else in the file.
    assert sizes["fp16.tflite"] < 0.6 * sizes["fp32.tflite"]
    assert sizes["dynamic.tflite"] < 0.4 * sizes["fp32.tflite"]
    for name in ("fp16.tflite", "ptq-entropy.tflite"):
        assert open_model(variants / name, backend="litert").spec.provenance["variant"] == name.split(".")[0]


def test_ptq_differs_by_method_and_stays_near_fp32(variants: Path, frames: Path) -> None:
    files = find_variants(variants)
    assert files[0].name == "fp32.onnx"
    opened = [open_model(p, backend="litert" if p.suffix == ".tflite" else "onnxruntime") for p in files]
    scores = {score.file: score for score in score_files(opened, load_dataset(frames, split="train"))}
    assert scores["fp32.onnx"].agreement == scores["fp32.tflite"].agreement == 1.0
    assert scores["fp32.onnx"].rms_dp == 0
    for name in ("qat", "ptq-minmax", "ptq-percentile", "ptq-entropy", "ptq-mse"):
        # Both formats hold the same integers.
        assert scores[f"{name}.onnx"].rms_dp == pytest.approx(scores[f"{name}.tflite"].rms_dp, abs=1e-6)
        assert 0 < scores[f"{name}.onnx"].rms_dp < 0.2
    assert (
        len({scores[f"ptq-{name}.onnx"].rms_dp for name in ("minmax", "percentile", "entropy", "mse")}) == 4
    )
    assert scores["fp16.tflite"].rms_dp < scores["ptq-minmax.tflite"].rms_dp


def test_representative_frames_are_of_other_videos_than_those_measured_on(
    run_folder: Path, frames: Path
) -> None:
    run = load_run(run_folder)
    calibrating, measuring = split_held_out(run_folder, load_dataset(frames, split="train"))
    assert not {s.video_id for s in calibrating.samples} & {s.video_id for s in measuring.samples}
    batches = representative(calibrating, run, 35)
    assert sum(map(len, batches)) == 35
    pixels = np.concatenate(batches)
    assert (pixels.min() >= -1, pixels.max() <= 127 / 128, pixels.dtype) == (True, True, np.float32)


def test_the_table_replaces_the_text_between_its_markers(
    variants: Path, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "quantization.md"
    document.write_text("before\n<!-- table -->\nold\n<!-- /table -->\nafter\n", "utf-8")
    arguments = ["--data", str(frames), "--split", "train", "--rounds", "2", "--threads", "1"]
    tabulate([str(variants), *arguments, "--update", str(document)])
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["frames"] == 60
    timed = {(row["file"], row["backend"]) for row in last["latency"]}
    assert timed >= {("qat.onnx", "onnxruntime"), ("qat.tflite", "litert")}
    text = document.read_text("utf-8")
    assert text.startswith("before\n<!-- table -->\n| variant |")
    assert text.endswith("<!-- /table -->\nafter\n")
    assert "old" not in text
    assert sum(line.startswith("| ") for line in text.splitlines()) == 2 + len(FILES)
    assert "60 frames of 12 videos" in text


def _score(file: str) -> Score:
    return Score(file, "x", 10**6, None, 0.5, 1.0, 0.0)


def test_the_table_shows_a_missing_figure_as_empty_and_not_as_0() -> None:
    rows = {("fp32.onnx", "onnxruntime", 1): {"p50_ms": 3.0, "ratio": 1.0}}
    lines = to_markdown([_score("fp32.onnx"), _score("mine.tflite")], rows, "note").splitlines()
    assert lines[2] == "| FP32 | ONNX | 1.00 | - | 0.500 | 100.0% | 3.00 (1.00) |"
    assert lines[3] == "| mine | TFLite | 1.00 | - | 0.500 | 100.0% |  |"


def test_unreadable_files_and_unknown_labels_are_named(variants: Path, frames: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no fp32.onnx"):
        find_variants(tmp_path)
    (tmp_path / "bare.md").write_text("nothing", "utf-8")
    with pytest.raises(InputError, match="no place for the table"):
        update_document(tmp_path / "bare.md", "table")
    with pytest.raises(InputError, match=r"absent.md cannot be read"):
        update_document(tmp_path / "absent.md", "table")
    opened = open_model(variants / "fp32.onnx")
    dataset = load_dataset(frames, split="train")
    dataset.samples[0].file.with_name("broken.png").write_bytes(b"")
    broken = dataclasses.replace(dataset.samples[0], file=dataset.samples[0].file.with_name("broken.png"))
    with pytest.raises(InputError, match=r"broken.png"):
        score_files([opened], dataclasses.replace(dataset, samples=(broken,)))
    strange = dataclasses.replace(dataset.samples[0], label="strange")
    with pytest.raises(InputError, match="labelled strange"):
        score_files([opened], dataclasses.replace(dataset, samples=(strange,)))
