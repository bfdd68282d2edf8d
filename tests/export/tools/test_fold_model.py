"""Write the file of a fold's model: its answers, the factor and shift, and the videos that it was trained on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("tf_keras", reason="needs the extra 'train'")

from quantised_models import KEYS
from tiny_model import tiny_spec

from capsule_edge.evaluation.datasets import video_mark
from capsule_edge.export.run_folder import load_fp32, synthetic_frames
from capsule_edge.export.tools.fold_model import factor_and_shift, main, without_held_out, write_fold_model
from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.runtime.inference import ModelSpec, open_model
from capsule_edge.train.config import TrainConfig
from capsule_edge.train.models import weights

SIZE = 32
FACTOR, SHIFT = 1.5, np.array([0.5, -1.0, 0.0, 2.0, -0.25])


@pytest.fixture(scope="module")
def run(make_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RUN trained on the videos a, b and c, and on two frames that name no video."""
    folder = tmp_path_factory.mktemp("fold") / "run"
    shutil.copytree(make_run("plain_cnn", SIZE), folder)
    document = json.loads((folder / "run.json").read_text("utf-8"))
    document["spec"]["provenance"] = provenance()
    (folder / "run.json").write_text(json.dumps(document), "utf-8")
    return folder


@pytest.fixture
def fold(run: Path, tmp_path: Path) -> Path:
    """Weights that differ from the RUN's, beside the configuration that they were trained with."""
    model, _ = load_fp32(run)
    kernel, _ = model.get_layer("logits").weights
    kernel.assign(kernel[::-1])
    (tmp_path / "config.json").write_text(
        json.dumps(TrainConfig(architecture="plain_cnn", size=SIZE).to_dict()), "utf-8"
    )
    weights.save(tmp_path / "fold0.npz", weights.collect(model))
    return tmp_path / "fold0.npz"


def provenance() -> dict[str, Any]:
    return {
        "training_videos": sorted(video_mark(video) for video in "abc"),
        "training_frames_without_video": 2,
        "split": "train",
    }


def write_logits(path: Path, logits: npt.NDArray[Any]) -> Path:
    np.savez(path, logits=logits.astype(np.float32))
    return path


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Out-of-fold answers of the first step and of the second."""
    logits = np.random.default_rng(0).normal(0, 3, (50, len(KEYS)))
    before = write_logits(tmp_path / "before.npz", logits)
    return before, write_logits(tmp_path / "after.npz", FACTOR * logits + SHIFT)


@pytest.mark.quick
def test_factor_and_shift_between_two_answers(pair: tuple[Path, Path]) -> None:
    factor, shift = factor_and_shift(*pair)
    assert factor == pytest.approx(FACTOR, abs=1e-5)
    assert shift == pytest.approx(SHIFT, abs=1e-5)


@pytest.mark.quick
def test_answers_that_do_not_fit_each_other(pair: tuple[Path, Path], tmp_path: Path) -> None:
    before, after = pair
    logits = np.load(after)["logits"]
    with pytest.raises(InputError, match="of other frames"):
        factor_and_shift(before, write_logits(tmp_path / "fewer.npz", logits[1:]))
    logits[3, 1] += 0.1
    with pytest.raises(InputError, match="with a factor and a shift"):
        factor_and_shift(before, write_logits(tmp_path / "moved.npz", logits))


@pytest.mark.quick
def test_a_file_without_answers_is_named(pair: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.npz holds no out-of-fold answers"):
        factor_and_shift(pair[0], tmp_path / "none.npz")


def test_the_file_applies_the_factor_and_shift_to_the_logits(
    run: Path, fold: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    before, after = pair
    write_fold_model(run, fold, tmp_path / "plain.onnx")
    write_fold_model(run, fold, tmp_path / "carried.onnx", before=before, after=after)
    frames = synthetic_frames(SIZE, seed=4)[:8]
    plain, moved = (
        open_model(tmp_path / name, threads=1).run(frames).logits for name in ("plain.onnx", "carried.onnx")
    )
    assert np.ptp(plain) > 1
    np.testing.assert_allclose(moved, FACTOR * plain + SHIFT, atol=1e-3)


def test_one_answers_file_without_the_other_is_refused(
    run: Path, fold: Path, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.onnx"
    for option, path in zip(("--before", "--after"), pair, strict=True):
        monkeypatch.setattr("sys.argv", ["fold_model", *map(str, (run, fold, out)), option, str(path)])
        with pytest.raises(UsageError, match="go together"):
            main()
    assert not out.exists()


def test_the_file_names_the_videos_that_its_fold_was_trained_on(
    run: Path, fold: Path, tmp_path: Path
) -> None:
    np.savez(fold.with_name("fold0.answers.npz"), videos=np.array(["b", "b", "frame_7"]))
    out = tmp_path / "out.onnx"
    write_fold_model(run, fold, out)
    assert open_model(out, threads=1).spec.provenance == {
        "training_videos": sorted(video_mark(video) for video in "ac"),
        "split": "train",
    }


def test_the_file_names_no_videos_where_they_are_unknown(fold: Path) -> None:
    spec: ModelSpec = tiny_spec(provenance=provenance())
    assert without_held_out(spec, fold).provenance == {"split": "train"}
    np.savez(fold.with_name("fold0.answers.npz"), videos=np.array(["b"]))
    # Weights of the second step belong to the same fold.
    grid = without_held_out(spec, fold.with_name("fold0.grid.npz")).provenance
    assert grid["training_videos"] == sorted(video_mark(video) for video in "ac")
    assert without_held_out(tiny_spec(provenance={}), fold).provenance == {}
    assert without_held_out(spec, fold.with_name("all.grid.npz")) == spec
