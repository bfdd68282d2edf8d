"""Faults that an integrator or a user once met, each held by the smallest case that shows it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper
from study_samples import make_study
from tiny_model import tiny_spec, write_tiny_model

from capsule_edge.cli.run import command
from capsule_edge.evaluation.datasets import load_dataset
from capsule_edge.runtime import (
    BackendError,
    CapsuleEdgeError,
    FieldOfView,
    InputError,
    ModelError,
    ModelSpec,
    Reader,
    UsageError,
)
from capsule_edge.runtime.inference import OperatingPoint, open_model
from capsule_edge.runtime.results import files as outputs_module

FRAME = np.full((48, 48, 3), 120, np.uint8)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "tiny.onnx")


@pytest.mark.parametrize("options", [[], ["--overwrite", "--every", "0"]])
def test_a_demo_never_costs_a_recording_of_that_name(tmp_path: Path, model: Path, options: list[str]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "phantom.mp4").write_bytes(b"precious")
    with pytest.raises(CapsuleEdgeError):
        CliRunner().invoke(
            command, ["--demo", "--model", str(model), "--out", str(out), *options], catch_exceptions=False
        )
    assert [(p.name, p.read_bytes()) for p in out.iterdir()] == [("phantom.mp4", b"precious")]


@pytest.mark.parametrize("bad", [None, [[1, 2, 3]], FRAME.astype(np.float32), FRAME[:, :, 0]])
def test_a_stream_refuses_what_is_no_frame(model: Path, bad: object) -> None:
    with Reader.open(model) as reader, pytest.raises(InputError, match="frame 1 is"):
        list(reader.stream([FRAME, bad, FRAME], field_of_view=FieldOfView(0, 0, 48, 48), batch=3))


@pytest.mark.parametrize("box", [(1000, 1000, 10, 10), (-1, 0, 10, 10), (40, 40, 20, 20), (0, 0, 0, 5)])
def test_a_field_of_view_outside_the_frame_is_refused(model: Path, box: tuple[int, int, int, int]) -> None:
    with Reader.open(model) as reader, pytest.raises(InputError, match="does not lie in a frame of 48 x 48"):
        list(reader.stream([FRAME], field_of_view=FieldOfView(*box)))


def test_answers_that_are_no_numbers_are_an_error(model: Path, tmp_path: Path) -> None:
    graph = onnx.load(model)
    for weight in graph.graph.initializer:
        array = numpy_helper.to_array(weight)
        if array.dtype == np.float32 and array.ndim > 1:
            weight.CopyFrom(numpy_helper.from_array(np.full_like(array, np.nan), weight.name))
    onnx.save(graph, tmp_path / "nan.onnx")
    with Reader.open(tmp_path / "nan.onnx") as reader, pytest.raises(ModelError, match="NaN or infinite"):
        list(reader.stream([FRAME]))


def test_closing_twice_is_fine_and_use_after_it_is_named(model: Path) -> None:
    with Reader.open(model) as reader:
        reader.close()
    with pytest.raises(BackendError, match="closed"):
        list(reader.stream([FRAME]))


def test_threads_below_zero_are_refused(model: Path) -> None:
    with pytest.raises(UsageError, match="threads is -3"):
        open_model(model, threads=-3)


def test_an_interrupted_write_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(outputs_module.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        outputs_module.write_study(make_study(), tmp_path, timing={})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"operating_points": {"polyp": OperatingPoint("0.5")}}, "operating point of 'polyp' is '0.5'"),
        ({"parity": 5}, "parity is 5"),
        ({"provenance": [1]}, r"provenance is \[1\]"),
    ],
)
def test_a_spec_of_wrong_types_is_a_model_error(change: dict, said: str) -> None:
    text = replace(tiny_spec(), **change).to_json()
    assert json.loads(text)
    with pytest.raises(ModelError, match=said):
        ModelSpec.from_json(text)


@pytest.mark.parametrize("name", ["validation", "Val", "VALID"])
def test_every_spelling_of_val_is_val(tmp_path: Path, name: str) -> None:
    for split, number in (("Training", 3), (name, 2)):
        folder = tmp_path / split / "polyp"
        folder.mkdir(parents=True)
        for index in range(number):
            cv2.imwrite(str(folder / f"{index}.png"), FRAME)
    assert len(load_dataset(tmp_path).samples) == 2
    assert len(load_dataset(tmp_path, split="train").samples) == 3
