"""Test readings in a fresh process, their growth, and cut and resized inputs. No time is asserted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from red_model import write_exam, write_red_model
from tiny_model import write_tiny_model

from capsule_edge.benchmarks import machine, reading, scaling
from capsule_edge.benchmarks.all import resize_input
from capsule_edge.benchmarks.plots import plot_scaling
from capsule_edge.benchmarks.reference_exam import cut_recording
from capsule_edge.runtime.errors import BackendError, InputError, ModelError, OutputError, UsageError
from capsule_edge.runtime.inference import default_model, open_model
from capsule_edge.runtime.recording import decode, scan


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_exam(tmp_path_factory.mktemp("exam") / "exam.mp4", frames=300)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_red_model(tmp_path_factory.mktemp("model") / "red.onnx")


# Whole recordings


def test_recordings_are_read_in_a_fresh_process(exam: Path, model: Path) -> None:
    found = reading.read_afresh([exam, exam], model=model, cores=1)
    assert (found["recordings"], found["cores"], found["frames"]) == (2, 1, 600)
    assert found["seconds"] > 0
    assert found["core_s"] > 0
    # The fresh process alone: an interpreter and onnxruntime take some 60 MB.
    assert found["peak_mb"] is None or 10 < found["peak_mb"] < 400


def test_a_fresh_process_that_fails_is_one_line(exam: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"cannot read: error: .*absent") as caught:
        reading.read_afresh([tmp_path / "absent.mp4"], model=model, cores=1)
    assert "\n" not in str(caught.value)
    with pytest.raises(BackendError, match="cores is 99, allowed are 1 to"):
        reading.read_afresh([exam], model=model, cores=99)
    with pytest.raises(UsageError, match="cores is 0"):
        machine.limit_cores(0)


# Growth


def fake(paths: list[Path], *, model: Any, cores: int, written: bool = False) -> dict[str, Any]:
    """A machine that takes 1 ms per frame on one core, and 50 MB and 1 kB per frame of memory."""
    frames = sum(scan(path).present for path in paths)
    return {
        "recordings": len(paths),
        "cores": cores,
        "frames": frames,
        "seconds": frames / 1000 / cores,
        "core_s": frames / 1000,
        "frames_per_s": 1000.0 * cores,
        "peak_mb": 50 + frames / 1000,
    }


def test_every_row_reads_what_it_names(exam: Path, model: Path, tmp_path: Path) -> None:
    found = scaling.measure_scaling(
        exam, tmp_path / "work", model=model, sizes=(64, 128), frames=20, rounds=2, read=fake
    )
    assert [row["times"] for row in found["length"]] == list(scaling.LENGTHS)
    frames = [row["frames"] for row in found["length"]]
    assert frames == sorted(frames)
    assert frames[-1] == 300
    assert [row["side"] for row in found["size"]] == [64, 128]
    assert scan(tmp_path / "work" / "size-64-20.mp4").width == 64
    assert [row["cores"] for row in found["cores"]] == [1, 2]
    assert [row["recordings"] for row in found["at_once"]] == list(scaling.AT_ONCE)
    assert found["growth"] == {"time_exponent": 1.0, "bytes_per_frame": 1000.0, "cores": 2.0, "at_once": 1.0}
    json.dumps(found, allow_nan=False)
    assert plot_scaling(found).startswith(b"\x89PNG")


@pytest.mark.quick
def test_growth_that_is_not_linear_is_found() -> None:
    rows = [
        {"frames": n, "core_s": (n / 1000) ** 1.5, "peak_mb": None, "frames_per_s": 10.0}
        for n in (100, 200, 400)
    ]
    found = scaling.judge_growth({"length": rows, "cores": rows, "at_once": rows})
    assert found["time_exponent"] == pytest.approx(1.5)
    assert found["bytes_per_frame"] is None


def test_it_ends_in_one_line_of_json(
    exam: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [str(exam), "--work", str(tmp_path / "work"), "--model", str(model), "--frames", "20"]
    words += ["--sizes", "64", "--rounds", "1", "--plot", str(tmp_path / "scaling.png")]
    scaling.main(words, read=fake)
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert document["benchmark"] == "scaling"
    assert document["growth"]["time_exponent"] == 1
    assert (tmp_path / "scaling.png").exists()


def test_an_examination_that_is_too_short(model: Path, tmp_path: Path) -> None:
    short = write_exam(tmp_path / "short.mp4", frames=40)
    with pytest.raises(UsageError, match="the examination has 40 frames"):
        scaling.measure_scaling(short, tmp_path, model=model, read=fake)
    with pytest.raises(InputError):
        scaling.measure_scaling(tmp_path / "absent.mp4", tmp_path, model=model, read=fake)


def test_a_cut_recording_has_the_first_pictures(exam: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mp4"
    copied = cut_recording(exam, 120, cut)
    assert 120 <= copied < 300
    assert scan(cut).present == copied
    whole = [picture.rgb() for picture, _ in zip(decode(scan(exam)), range(copied), strict=False)]
    part = [picture.rgb() for picture in decode(scan(cut))]
    assert all(np.array_equal(a, b) for a, b in zip(whole, part, strict=True))
    assert cut_recording(exam, 10_000, cut) == 300


# Other sizes


def test_a_network_takes_frames_of_another_size(tmp_path: Path) -> None:
    source = default_model()
    out = resize_input(source, 64, tmp_path / "resized.onnx")
    before, after = open_model(source, threads=1), open_model(out, threads=1)
    assert after.spec.input.size == 64
    assert after.spec.name == f"{before.spec.name}-64"
    assert after.spec.keys == before.spec.keys
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    found = after.run(frames)
    assert found.features.shape[:3] == (3, 2, 2)
    assert found.probabilities.sum(axis=1) == pytest.approx(1)
    # At its own size it answers as before.
    size = before.spec.input.size
    same = open_model(resize_input(source, size, tmp_path / "same.onnx"), threads=1)
    frames = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    assert np.array_equal(same.run(frames).logits, before.run(frames).logits)


def test_a_model_that_cannot_be_resized_is_one_line(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "tiny.onnx")
    with pytest.raises(UsageError, match="size is 31"):
        resize_input(model, 31, tmp_path / "out.onnx")
    with pytest.raises(ModelError):
        resize_input(tmp_path / "absent.onnx", 64, tmp_path / "out.onnx")
    with pytest.raises(ModelError, match="is no ONNX file"):
        resize_input(tmp_path / "a.tflite", 64, tmp_path / "out.onnx")
    with pytest.raises(OutputError, match="cannot be written"):
        resize_input(model, 64, tmp_path / "absent" / "out.onnx")
