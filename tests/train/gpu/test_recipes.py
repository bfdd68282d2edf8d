"""Recipes: the file is checked whole before any data is read, and the command trains what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from capsule_edge.cli.main import main
from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.train.gpu import check_recipes, read_recipes

ROOT = Path(__file__).parents[3]
TEACHER = {"architecture": "plain_cnn", "size": 32, "epochs": 1, "batch": 8, "keep": True}
INT8 = [{"name": "grid", "epochs": 1}, {"name": "near", "start": "grid", "even": True, "own_answers": True}]


def written(folder: Path, recipes: Any) -> Path:
    path = folder / "recipes.json"
    path.write_text(json.dumps(recipes))
    return path


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return what the command line says where it ends with an error."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code not in (0, None)
    return capsys.readouterr().err


@pytest.mark.quick
def test_the_recipes_of_the_shipped_models_can_be_trained_in_their_order(tmp_path: Path) -> None:
    recipes = read_recipes(ROOT / "models" / "training" / "recipes.json")
    checked = check_recipes(recipes, tmp_path, 3)
    assert [recipe.name for recipe in checked] == ["tb", "tc", "std", "small"]
    assert checked[2].teachers == ("tb", "tc")
    assert checked[2].start == "tb"
    assert [each.name for each in checked[2].int8] == ["grid", "grid2", "grid3"]
    assert checked[2].parts(3) == ("all", "fold0", "fold1", "fold2")
    assert checked[3].int8[1].own_answers
    assert checked[3].int8[1].closeness == 300


@pytest.mark.quick
@pytest.mark.parametrize(
    ("recipes", "message"),
    [
        ([], "it has no names of recipes"),
        ({"a": 3}, "a: it has no names and values"),
        ({"a/b": TEACHER}, "'a/b' is no name for a recipe"),
        ({"a": {"epoch": 3}}, "a: the field 'epoch' is not known"),
        ({"a": {"epochs": "3"}}, "a: epochs is '3'"),
        ({"a": {"keep": 1}}, "a: keep is 1, allowed is true or false"),
        ({"a": {"folds": ["all"]}}, "a: folds is .*, allowed is a list of whole numbers"),
        ({"a": {"teachers": "b"}}, "a: teachers is 'b', allowed is a list of names"),
        ({"a": {"int8": INT8}}, "a: it has passes for 8 bits and is not kept"),
        (
            {"a": {**TEACHER, "int8": INT8[1:]}},
            "a: the pass near starts from 'grid', which is no pass before it",
        ),
        ({"a": {**TEACHER, "int8": INT8[:1] * 2}}, "a: two passes have the name grid"),
        ({"a": {**TEACHER, "int8": [{"rate": 1}]}}, "a: the field 'rate' of a pass is not known"),
        ({"a": {**TEACHER, "int8": [{"distillation": 2}]}}, "a: distillation is 2, allowed is 0 to 1"),
    ],
)
def test_a_file_that_states_no_recipes_is_refused_by_name(recipes: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_recipes(written(tmp_path, recipes))


@pytest.mark.quick
@pytest.mark.parametrize(
    ("recipes", "only", "message"),
    [
        ({"a": {**TEACHER, "folds": [3]}}, (), "a: there is no fold 3 of 3, they are -1 to 2"),
        ({"a": {"architecture": "vgg"}}, (), "a: the architecture is 'vgg', allowed is one of "),
        ({"a": {"patience": 3}}, (), "a: patience is 3, allowed is 0"),
        ({"a": {"teachers": ["b"]}, "b": TEACHER}, (), "a: it needs the weights b/fold0.npz"),
        (
            {"b": {**TEACHER, "folds": [0]}, "a": {"teachers": ["b"], "folds": [1]}},
            (),
            "needs the weights b/fold1",
        ),
        (
            {"b": {**TEACHER, "keep": False}, "a": {"start": "b", "folds": [0]}},
            (),
            "a: it needs the weights b/fold0",
        ),
        ({"a": {**TEACHER, "folds": [0], "int8": INT8}}, (), "the pass grid needs the part all"),
        ({"a": {**TEACHER, "int8": INT8}}, (-1,), "the pass grid needs a fold, whose answers calibrate"),
    ],
)
def test_what_a_later_recipe_needs_is_checked_before_the_first_one(
    recipes: Any, only: tuple[int, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        check_recipes(read_recipes(written(tmp_path, recipes)), tmp_path, 3, only=only)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--folds", "3"), "--folds is for --recipes, which is not given"),
        (("--fold", "0"), "--fold is for --recipes, which is not given"),
        (("--recipes", "r.json", "--split", "val"), "--split is not for --recipes"),
        (("--recipes", "r.json", "--epochs", "3"), "--epochs is not for --recipes"),
        (("--recipes", "r.json", "--license", "MIT"), "--license is not for --recipes"),
    ],
)
def test_options_of_one_way_to_train_are_refused_in_the_other(
    options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(["train", "--out", "runs", *options], capsys)


@pytest.mark.quick
def test_without_pytorch_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("capsule_edge.cli._recipes.find_spec", lambda name: None)
    told = refused(["train", "--recipes", "r.json", "--data", "d", "--out", str(tmp_path / "o")], capsys)
    assert "--recipes needs torch, which is not installed" in told
    assert not (tmp_path / "o").exists()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a data set of two classes and six videos, of 8 frames each."""
    rng, folder = np.random.default_rng(0), tmp_path / "images"
    lines = ["file,label,video_id"]
    for video in range(6):
        for frame in range(8):
            label = ("normal", "polyp")[frame % 2]
            name = f"{video}_{frame}.png"
            folder.mkdir(exist_ok=True)
            picture = rng.integers(0, 60, (48, 48, 3), dtype=np.uint8) + 90 * (label == "polyp")
            cv2.imwrite(str(folder / name), picture.astype(np.uint8))
            lines.append(f"{name},{label},v{video}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs ``capsule-edge train`` in a process of its own: Keras 3 has one backend for each."""
    if find_spec("torch") is None:
        pytest.skip("needs PyTorch, which no extra brings")

    def run(*options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "capsule_edge.cli", "train", *map(str, options)],
            capture_output=True, text=True,
        )  # fmt: skip

    return run


def test_recipes_leave_the_weights_and_answers_that_a_run_takes(
    command: Callable[..., subprocess.CompletedProcess[str]], images: Path, tmp_path: Path
) -> None:
    recipes = {
        "teacher": TEACHER,
        "student": {**TEACHER, "start": "teacher", "teachers": ["teacher"], "views": 1, "epochs": 2, "int8": [
            {"name": "grid", "epochs": 2, "closeness": 20, "parts": ["all", "fold0"]},
            {"name": "near", "start": "grid", "epochs": 1, "even": True, "own_answers": True},
        ]},
    }  # fmt: skip
    out = tmp_path / "folds"
    done = command(
        "--data", images, "--recipes", written(tmp_path, recipes), "--folds", 2, "--out", out, "--json"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["recipes"]
    assert [line["name"] for line in found] == ["teacher", "student"]
    assert found[1]["parts"] == ["all", "fold0", "fold1"]
    assert 0 <= found[1]["macro_f1"] <= 1
    student = {path.name for path in (out / "student").iterdir()}
    assert {"all.npz", "fold0.npz", "fold1.npz", "out_of_fold.npz", "all.grid.npz", "fold0.grid.npz",
            "all.near.npz", "near.out_of_fold.npz", "grid.out_of_fold.npz"} <= student  # fmt: skip
    assert len((out / "folds.jsonl").read_text().splitlines()) == 2
    passes = [json.loads(line) for line in (out / "int8.jsonl").read_text().splitlines()]
    assert [(line["recipe"], line["pass"]["name"], line["part"]) for line in passes] == [
        ("student", "grid", "all"),
        ("student", "grid", "fold0"),
        ("student", "near", "all"),
    ]
    with np.load(out / "student" / "near.out_of_fold.npz") as answers:
        assert len(answers["logits"]) == 48
    run = command(
        "--data", images, "--config", out / "student" / "config.json", "--set", "qat_epochs=0",
        "--fp32", out / "student" / "all.near.npz", "--calibrate-on", out / "student" / "near.out_of_fold.npz",
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert run.returncode in (0, 6), run.stderr
    assert (tmp_path / "run" / "fp32.weights.npz").is_file()
