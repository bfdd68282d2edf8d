"""Class names become distinct keys or are refused before any work; a label map says what they are."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from red_model import write_exam
from tiny_model import write_tiny_model

from capsule_edge.cli.audit import command as audit
from capsule_edge.cli.evaluate import command as evaluate
from capsule_edge.cli.run import command as run
from capsule_edge.cli.split import command as split
from capsule_edge.evaluation.datasets import (
    check_roles,
    list_samples,
    load_dataset,
    load_training,
    unclear_classes,
)
from capsule_edge.evaluation.datasets.label_keys import label_key
from capsule_edge.runtime.errors import CapsuleEdgeError, InputError, PackageError, UsageError

pytestmark = pytest.mark.quick


def data(root: Path, labels: Sequence[str]) -> Path:
    """A data set with four frames of each label, each of a video of its own."""
    root.mkdir(exist_ok=True)
    rows = ["file,label,video_id"]
    for number, label in enumerate([label for label in labels for _ in range(4)]):
        cv2.imencode(".png", np.full((8, 8, 3), 40 + number, np.uint8))[1].tofile(root / f"{number}.png")
        rows.append(f'{number}.png,"{label}",v{number}')
    (root / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


def label_map(root: Path, text: str) -> Path:
    pytest.importorskip("yaml", reason="label maps need PyYAML")
    root.mkdir(exist_ok=True)
    (root / "map.yaml").write_text(text, encoding="utf-8")
    return root / "map.yaml"


def refused(error: pytest.ExceptionInfo[CapsuleEdgeError], *words: str) -> None:
    text = f"{error.value.message} ({error.value.hint})"
    assert "\n" not in text
    for word in words:
        assert word in text


def call(command: Any, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments])


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("HP+", "hp_plus"),
        ("HP-", "hp_minus"),
        ("<5 mm", "lt_5_mm"),
        (">5 mm", "gt_5_mm"),
        ("Полип", "полип"),
        ("息肉", "息肉"),
        ("ulcère", "ulcère"),
        (unicodedata.normalize("NFD", "ulcère"), "ulcère"),
        ("पॉलिप", "पॉलिप"),
        ("Blood - fresh", "bleeding"),
        ("dyed-lifted-polyps", "dyed_lifted_polyps"),
        ("Grade 3/4 (old)", "grade_3_4_old"),
        ("???", ""),
    ],
)
def test_keys_keep_every_script_and_spell_signs(name: str, key: str) -> None:
    assert label_key(name) == unicodedata.normalize("NFC", key)


@pytest.mark.parametrize("names", [("HP+", "HP-"), ("<5 mm", ">5 mm"), ("Полип", "Язва"), ("息肉", "溃疡")])
def test_names_that_differ_in_signs_or_script_stay_distinct(tmp_path: Path, names: tuple[str, str]) -> None:
    assert len(load_dataset(data(tmp_path, names)).labels) == 2


@pytest.mark.parametrize(
    "names",
    [
        ("Polyp", "polyp"),
        ("Polyp", "Polyps"),
        ("A/B", "A B"),
        ("Polyp?", "Polyp"),
        ("ulcère", unicodedata.normalize("NFD", "ulcère")),
        ("Polyp\u200b", "Polyp"),
    ],
)
def test_names_that_would_become_one_key_are_refused_with_both(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    data(tmp_path, names)
    for read in (list_samples, load_dataset, load_training):
        with pytest.raises(InputError) as error:
            read(tmp_path)
        refused(error, "line 2", "line 6", "--labels map.yaml", repr(label_key(names[0])))
    assert repr(names[0]) in str(error.value) or ascii(names[0]) in str(error.value)


def test_class_folders_that_would_become_one_key_are_refused_with_both(tmp_path: Path) -> None:
    for name in ("A-B", "A_B"):
        (tmp_path / name).mkdir()
        cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tofile(tmp_path / name / "x.png")
    with pytest.raises(InputError) as error:
        load_dataset(tmp_path)
    refused(error, "'A-B'", "'A_B'", "a_b")


def test_a_name_without_a_letter_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        load_dataset(data(tmp_path, ["Polyp", "???"]))
    refused(error, "line 6", "'???'", "--labels")


def test_a_class_that_may_mean_health_is_asked_for_its_role(tmp_path: Path) -> None:
    dataset = load_training(data(tmp_path, ["healthy", "polyp"]))
    with pytest.raises(UsageError) as error:
        check_roles(dataset.classes, dataset.stated_roles)
    refused(error, "healthy", "--labels map.yaml", "'healthy: {role: normal}'")
    with_normal = load_training(data(tmp_path, ["Normal", "polyp"]))
    check_roles(with_normal.classes)
    both = load_training(data(tmp_path, ["Normal", "Healthy mucosa"]))
    assert unclear_classes(both.classes) == ("healthy_mucosa",)
    none = load_training(data(tmp_path, ["ulcer", "polyp"]))
    with pytest.raises(UsageError) as error:
        check_roles(none.classes)
    refused(error, "polyp, ulcer", "--labels")


def test_commands_that_need_no_role_go_on(tmp_path: Path) -> None:
    root = data(tmp_path / "d", ["healthy", "polyp"])
    document = json.loads(call(audit, root, "--json").stdout)
    assert "unclear_roles" in {finding["check"] for finding in document["findings"]}
    assert call(split, root, "--folds", "2", "--out", tmp_path / "labels.csv").exit_code == 0


def test_split_names_the_classes_that_a_part_lacks(tmp_path: Path) -> None:
    root = data(tmp_path / "d", ["Normal", "Polyp"])
    with (root / "labels.csv").open("a") as table:
        table.write("0.png,Worms,w\n".replace("0.png", "w.png"))
    cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tofile(root / "w.png")
    result = call(split, root, "--folds", "2", "--out", tmp_path / "labels.csv", "--json")
    (part,) = (
        name for name, lacking in json.loads(result.stdout)["absent_classes"].items() if lacking == ["worms"]
    )
    assert f"{part} has no frame of worms" in result.stderr


@pytest.mark.parametrize("text", ["healthy:\n  role: normal\n", "healthy: {role: normal}\n"])
def test_a_map_states_a_role(tmp_path: Path, text: str) -> None:
    root = data(tmp_path / "d", ["healthy", "polyp"])
    said = label_map(tmp_path, text)
    dataset = load_training(root, label_map=said)
    check_roles(dataset.classes, dataset.stated_roles)
    assert [(c.key, c.name, c.role) for c in dataset.classes] == [
        ("healthy", "Healthy", "normal"),
        ("polyp", "Polyp", "finding"),
    ]


def test_a_map_merges_renames_and_excludes(tmp_path: Path) -> None:
    root = data(tmp_path / "d", ["Polyp small", "Polyp large", "HP+", "blurred", "no", "1.0"])
    said = label_map(
        tmp_path,
        "Polyp small: polyp\nPolyp large: {key: polyp, name: Polyps}\n'HP+': {key: hp}\n"
        "blurred: {exclude: true}\nno: {key: normal, role: normal}\n1.0: grade_1\nnot there: x\n",
    )
    dataset = load_dataset(root, label_map=said)
    assert dataset.labels == ("grade_1", "hp", "normal", "polyp")
    assert {c.key: c.name for c in dataset.classes}["polyp"] == "Polyps"
    assert sum(s.label == "polyp" for s in dataset.samples) == 8
    assert {r.check: r.count for r in dataset.remarks} == {"excluded_frames": 4, "unused_names": 1}


def test_a_table_that_split_wrote_is_read_with_the_same_map(tmp_path: Path) -> None:
    root = data(tmp_path / "d", ["healthy", "HP+", "HP minus"])
    said = label_map(tmp_path, "healthy: {key: ok, role: normal}\n'HP+': hp\nHP minus: {exclude: true}\n")
    out = tmp_path / "d" / "sub"
    out.mkdir()
    done = call(split, root, "--folds", "2", "--hold-out", "0", "--out", out / "labels.csv", "--labels", said)
    assert done.exit_code == 0, done.output
    again = load_dataset(out, split="all", label_map=said)
    assert (again.labels, len(again.samples)) == (("hp", "ok"), 8)
    assert {c.key: c.role for c in again.classes}["ok"] == "normal"


def test_a_map_finds_a_name_in_the_other_unicode_form(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "ulcère")
    said = label_map(tmp_path, "ulcère: ulcer\n")
    assert load_dataset(data(tmp_path / "one", ["a", decomposed]), label_map=said).labels == ("a", "ulcer")
    with pytest.raises(InputError, match="both become the key 'ulcer'"):
        load_dataset(data(tmp_path / "both", ["ulcère", decomposed]), label_map=said)


def test_a_map_makes_a_missing_word_a_class(tmp_path: Path) -> None:
    root = data(tmp_path / "d", ["None", "Polyp"])
    said = label_map(tmp_path, "None: {key: normal, role: normal}\n")
    assert load_dataset(root, label_map=said).labels == ("normal", "polyp")


def test_a_class_beside_a_merged_one_of_its_key_is_refused(tmp_path: Path) -> None:
    root = data(tmp_path / "d", ["Polyp small", "Polyp"])
    with pytest.raises(InputError) as error:
        load_dataset(root, label_map=label_map(tmp_path, "Polyp small: polyp\n"))
    refused(error, "'Polyp small'", "'Polyp'")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["lists no class"]),
        ("- a\n", ["line 1"]),
        ("a: {key: x\n", ["line 2", "YAML"]),
        ("a: x\nb: y\na: z\n", ["line 3", "'a' a second time"]),
        ("a:\n  role: healthy\n", ["line 1", "'healthy'", "normal, finding"]),
        ("a:\n  colour: red\n", ["line 2", "'colour'"]),
        ("a:\n  key: x\n  key: y\n", ["line 3", "twice"]),
        ("a: 'Small polyp'\n", ["line 1", "'Small polyp'", "small_polyp"]),
        ("a: nan\n", ["line 1", "'nan'"]),
        ("a: _x\n", ["line 1", "'_x'"]),
        ("None: {role: normal}\n", ["line 1", "'None'", "field key"]),
        ("a: {exclude: maybe}\n", ["'maybe'"]),
        ("a: {exclude: true, key: x}\n", ["excluded"]),
        ("a: {key: x, role: normal}\nb: {key: x, role: finding}\n", ["x", "'normal'", "'finding'"]),
        ("a: {key: x, name: Same}\nb: {key: y, name: same}\n", ["x and y", "same name"]),
        ("zzz: x\n", ["names none of the labels", "'a'", "'b'"]),
        ("a: [x]\n", ["line 1"]),
        ("? {a: b}\n: x\n", ["line 1"]),
        ("a: &x {key: *x}\n", ["line 1"]),
    ],
)
def test_a_faulty_map_is_refused_in_one_line(tmp_path: Path, text: str, words: list[str]) -> None:
    root = data(tmp_path / "d", ["a", "b"])
    with pytest.raises(InputError) as error:
        load_dataset(root, label_map=label_map(tmp_path, text))
    refused(error, *words)


def test_a_map_without_its_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capsule_edge.evaluation._extras.find_spec", lambda name: None)
    (tmp_path / "map.yaml").write_text("a: b\n")
    with pytest.raises(PackageError) as error:
        load_dataset(data(tmp_path / "d", ["a", "b"]), label_map=tmp_path / "map.yaml")
    refused(error, "yaml", "capsule-edge[eval]")


def test_train_asks_before_any_work(tmp_path: Path) -> None:
    if find_spec("tensorflow") is None:
        pytest.skip("training needs TensorFlow")
    from capsule_edge.cli.train import command as train

    root = data(tmp_path / "d", ["healthy", "polyp"])
    result = call(train, "--data", root, "--out", tmp_path / "run")
    assert isinstance(result.exception, UsageError)
    assert "--labels map.yaml" in result.exception.hint
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore:Glyph")  # the font of plots has no Chinese letters
def test_keys_of_every_script_pass_through_a_model_and_its_results(tmp_path: Path) -> None:
    names = ("Normal", "Полип", "息肉")
    model = write_tiny_model(tmp_path / "model.onnx", labels=("normal", "полип", "息肉"))
    root = data(tmp_path / "d", names)
    done = call(evaluate, model, "--data", root, "--out", tmp_path / "report", "--json")
    assert set(json.loads(done.stdout)["per_class"]) == {"normal", "полип", "息肉"}
    exam = write_exam(tmp_path / "exam.mp4")
    result = CliRunner().invoke(run, ["--model", str(model), "--out", str(tmp_path / "out"), str(exam)])
    assert result.exit_code == 0, result.output
    head = (tmp_path / "out" / "frames.csv").read_text("utf-8").splitlines()[0]
    assert head.endswith("p_normal,p_полип,p_息肉")
