"""The certificates are measured on other frames than the choices, and the file says what the two share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from labelled_frames import write_frames

from capsule_edge.export.adopt import AdoptOptions, adopt
from capsule_edge.export.adopt.held_out_frames import HeldOutFrames, divide_frames
from capsule_edge.runtime.errors import UsageError
from capsule_edge.runtime.inference import InputSpec, open_model

KEYS = ("normal", "polyp")
SPEC = InputSpec(16, crop="none", mask="none", preprocessing=2)


def write(folder: Path, *parts: tuple[str, int, str]) -> Path:
    """Write a data set of parts (split, frames, the beginning of their videos' names; without videos if empty)."""
    rows = [
        (f"{split}{part}_{at}.png", KEYS[at % 2], f"{video}{at % 4}" if video else "", split)
        for part, (split, count, video) in enumerate(parts)
        for at in range(count)
    ]
    pictures = np.random.default_rng(0).integers(0, 256, (len(rows), 20, 20, 3), dtype=np.uint8)
    return write_frames(folder / "data", "file,label,video_id,split", rows, pictures)


def divide(data: Path, **options: str) -> HeldOutFrames:
    return divide_frames(data, AdoptOptions(**options), KEYS, SPEC)


def names(dataset) -> set[str]:
    return {dataset.name_of(sample) for sample in dataset.samples}


def test_frames_that_certify_are_no_frames_of_the_choices(tmp_path):
    """Without a split ``val``, the frames of the choices are all rows."""
    frames = divide(write(tmp_path, ("train", 12, "a"), ("test", 8, "b")), certify_split="test")
    assert names(frames.certifying) == {f"test1_{at}.png" for at in range(8)}
    assert names(frames.choosing) == {f"train0_{at}.png" for at in range(12)}
    assert (frames.divided_by, frames.left_out, frames.shared_videos) == ("split", 8, 0)


def test_videos_that_certify_are_left_out_of_the_choices(tmp_path):
    frames = divide(
        write(tmp_path, ("train", 12, "a"), ("train", 6, "b"), ("test", 8, "b")), certify_split="test"
    )
    assert names(frames.choosing) == {f"train0_{at}.png" for at in range(12)}
    assert (frames.divided_by, frames.left_out) == ("split", 14)


def test_frames_without_videos_are_divided_by_frame_alone(tmp_path):
    frames = divide(write(tmp_path, ("train", 12, ""), ("test", 8, "")), certify_split="test")
    assert names(frames.choosing) == {f"train0_{at}.png" for at in range(12)}
    assert (frames.divided_by, frames.shared_videos) == ("split", 0)


def test_named_splits_that_share_videos_are_recorded_as_such(tmp_path):
    data = write(tmp_path, ("train", 12, "a"), ("test", 8, "a"))
    frames = divide(data, split="train", certify_split="test")
    assert len(frames.choosing.samples) == 12
    assert (frames.divided_by, frames.shared_videos, frames.left_out) == ("frame", 4, 0)


@pytest.mark.parametrize(
    ("split", "certify", "message"),
    [
        ("train", "train", r"12 frames are in both --split train and --certify-split train"),
        ("all", "test", r"8 frames are in both --split all and --certify-split test"),
        ("test", "all", r"8 frames are in both"),
        (None, "all", r"--certify-split all leaves no frames for the choices"),
    ],
)
def test_a_frame_of_both_is_refused(tmp_path, split, certify, message):
    data = write(tmp_path, ("train", 12, "a"), ("test", 8, "b"))
    with pytest.raises(UsageError, match=message):
        divide(data, split=split, certify_split=certify)


def test_the_only_split_of_the_choices_cannot_certify(tmp_path):
    """A split ``val`` is that of the choices, if there is one."""
    data = write(tmp_path, ("train", 12, "a"), ("val", 8, "b"))
    with pytest.raises(UsageError, match=r"--certify-split val leaves no frames.*--split NAME"):
        divide(data, certify_split="val")


def test_the_file_and_the_notes_say_what_two_named_splits_share(foreign, colours, names, tmp_path):
    lines = (colours / "labels.csv").read_text().splitlines()
    rows = [
        # Each video has frames of both splits.
        f"{colours / line},{'train' if at // 12 % 2 else 'test'}"
        for at, line in enumerate(lines[1:])
    ]
    (tmp_path / "labels.csv").write_text("\n".join([lines[0] + ",split", *rows]) + "\n")
    report = adopt(
        foreign("residual"), names, tmp_path, tmp_path / "out",
        AdoptOptions(scaling="imagenet", split="train", certify_split="test", accept_weak=True),
    )  # fmt: skip
    assert report.divided_by == "frame"
    spec = open_model(tmp_path / "out" / "model.int8.onnx").spec
    assert spec.provenance["certified_on_other"] == "frame"
    count = sum(row.endswith("train") for row in rows)
    assert 0 < count < len(rows)
    assert any(
        note.startswith(f"{count} of the {len(rows)} frames are of the split train") for note in report.notes
    )
    assert any(note.startswith("12 videos are in the split of the choices") for note in report.notes)
