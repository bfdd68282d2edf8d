"""The frames of fine-tuning are others than those of choices and certificates, and every fault is one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="needs the extra 'train'")

from capsule_edge.evaluation import _extras
from capsule_edge.evaluation.datasets import load_dataset
from capsule_edge.export.adopt import AdoptOptions, adopt
from capsule_edge.export.adopt.finetuning import (
    check_requirements,
    divide_off,
    find_training_frames,
    training_frames,
)
from capsule_edge.export.adopt.held_out_frames import HeldOutFrames, divide_frames
from capsule_edge.runtime.errors import CapsuleEdgeError, InputError, UsageError

KEYS = ("normal", "bleeding", "polyp")


def held(colours: Path) -> HeldOutFrames:
    options = AdoptOptions()
    return divide_frames(colours, options, KEYS, options.input_spec(32))


def table(folder: Path, rows: list[str]) -> Path:
    folder.mkdir()
    (folder / "labels.csv").write_text("file,label,video_id,split\n" + "\n".join(rows) + "\n")
    return folder


def test_frames_of_held_out_videos_are_left_out_and_counted(
    colours: Path, training: Path, tmp_path: Path
) -> None:
    new, old = load_dataset(training).samples, load_dataset(colours).samples
    rows = [f"{sample.file},{sample.label},{sample.video_id},train" for sample in (*new[:30], *old[:5])]
    found = find_training_frames(table(tmp_path / "mixed", rows), AdoptOptions())
    kept = divide_off(found, held(colours))
    assert (kept.found, kept.held_out, kept.nameless) == (35, 5, 0)
    assert {sample.file for sample in kept.dataset.samples} == {sample.file for sample in new[:30]}
    assert kept.describe()["left_out"] == 5


def test_a_copy_of_a_held_out_picture_is_left_out_whatever_it_is_called(
    colours: Path, training: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    shutil.copy(load_dataset(colours).samples[3].file, folder / "harmless.png")
    for sample in load_dataset(training).samples[:4]:
        shutil.copy(sample.file, folder)
    found = find_training_frames(colours, AdoptOptions(finetune_data=folder))
    kept = divide_off(found, held(colours))
    assert (kept.held_out, len(kept.dataset.samples), kept.nameless) == (1, 4, 4)
    assert "harmless.png" not in {sample.file.name for sample in kept.dataset.samples}
    assert kept.describe()["training_frames_without_video"] == 4


def test_frames_that_are_all_held_out_are_refused(colours: Path) -> None:
    with pytest.raises(
        UsageError, match=r"all 120 frames of .* to fine-tune on are of videos or pictures of"
    ) as refused:
        divide_off(load_dataset(colours), held(colours))
    assert "--finetune-data" in str(refused.value.hint)


def test_more_frames_than_are_used_are_taken_evenly(
    colours: Path, training: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_frames, "_MOST_FRAMES", 20)
    kept = divide_off(load_dataset(training), held(colours))
    assert len(kept.dataset.samples) == 20
    assert {sample.label for sample in kept.dataset.samples} == set(KEYS)


def test_a_data_set_without_a_split_train_needs_other_frames(colours: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="has no split 'train' to fine-tune on, it names no splits"
    ) as refused:
        find_training_frames(colours, AdoptOptions())
    assert "--finetune-data" in str(refused.value.hint)
    with pytest.raises(InputError, match="is not there"):
        find_training_frames(colours, AdoptOptions(finetune_data=tmp_path / "nowhere"))


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Files that look like other formats; none is opened."""
    (tmp_path / "net.onnx").write_bytes(b"onnx")
    (tmp_path / "net.tflite").write_bytes(b"\x1c\x00\x00\x00TFL3")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("net.onnx", {"finetune": True}, "net.onnx is an ONNX file"),
        ("net.tflite", {"finetune": True}, "net.tflite is a TFLite file"),
        ("saved", {"finetune": True}, "saved is a SavedModel"),
        ("net.onnx", {"finetune": True, "epochs": 0}, "--epochs is 0, allowed is 1 to 100"),
        ("net.onnx", {"finetune": True, "epochs": 101}, "--epochs is 101"),
        ("net.onnx", {"epochs": 2}, "--epochs goes with --finetune only"),
        ("net.onnx", {"finetune_data": Path("frames")}, "--finetune-data goes with --finetune only"),
        (
            "net.onnx",
            {"finetune": True, "keep_float": ("conv",)},
            "--keep-float conv does not go with --finetune",
        ),
    ],
)
def test_what_cannot_be_fine_tuned_is_refused_first(
    name: str, options: dict, words: str, sources: Path, names: Path, colours: Path
) -> None:
    with pytest.raises(UsageError) as refused:
        adopt(sources / name, names, colours, sources / "out", AdoptOptions(**options))
    assert words in refused.value.message
    assert "\n" not in refused.value.message
    assert not (sources / "out").exists()


def test_a_missing_tensorflow_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from capsule_edge.export.adopt.finetuning import requirements

    monkeypatch.setattr(_extras, "find_spec", lambda _: None)
    monkeypatch.setattr(requirements, "recognise", lambda _: "keras")
    with pytest.raises(
        CapsuleEdgeError, match="adopt --finetune needs tensorflow, which is not installed"
    ) as refused:
        check_requirements(tmp_path / "net.keras", AdoptOptions(finetune=True))
    assert "[train]" in str(refused.value.hint)
