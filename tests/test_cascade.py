"""What a cascade could save is counted over frames, and certified over videos."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from tiny_model import write_tiny_model

from capsule_edge.evaluation._module import run_module
from capsule_edge.evaluation.cascade import (
    Frames,
    Times,
    assess,
    certify_threshold,
    main,
    pair_out_of_fold,
    render,
    video_losses,
)
from capsule_edge.runtime.errors import InputError

KEYS = ("normal", "polyp", "ulcer")


def draw(rng: np.random.Generator, videos: int, frames: int = 30) -> Frames:
    """Videos that differ in how sure the small model is of normal where a finding is."""
    margin, marked, abnormal, names = [], [], [], []
    for video in range(videos):
        shown = rng.random(frames) < 0.5
        sure = rng.normal(rng.normal(-2, 2), 1, frames)
        margin.append(np.where(shown, sure, rng.normal(3, 2, frames)))
        marked.append(np.where(shown, rng.random(frames) < 0.8, rng.random(frames) < 0.1))
        abnormal.append(shown)
        names += [f"v{video:02d}"] * frames
    return Frames(np.concatenate(margin), np.concatenate(marked), np.concatenate(abnormal), np.array(names))


@pytest.mark.parametrize("risk", [0.05, 0.1, 0.25, 0.5, 0.9])
def test_the_threshold_is_the_lowest_that_certifies(risk: float) -> None:
    frames = draw(np.random.default_rng(3), 12)
    found = certify_threshold(frames, risk)
    if risk < 1 / 13:
        assert found == math.inf  # no number of frames makes up for videos
        return

    def bound(threshold: float) -> float:
        losses = video_losses(frames, threshold)
        return float((losses.sum() + 1) / (len(losses) + 1))

    assert bound(found) <= risk
    lower = frames.margin[frames.at_stake & (frames.margin < found)]
    assert bound(float(lower.max())) > risk


def test_what_is_certified_holds_on_further_videos() -> None:
    """In the mean over draws; 400 losses in 0..1 with a deviation of .5 at most have a standard error of .025."""
    rng = np.random.default_rng(5)
    losses = []
    for _ in range(400):
        frames = draw(rng, 11, frames=20)
        last = frames.videos == "v10"
        parts = [
            Frames(frames.margin[at], frames.marked[at], frames.abnormal[at], frames.videos[at])
            for at in (~last, last)
        ]
        losses.append(float(video_losses(parts[1], certify_threshold(parts[0], 0.2)).mean()))
    assert 0.1 < np.mean(losses) <= 0.2 + 2 * 0.025


def test_figures_of_a_case_counted_by_hand() -> None:
    """Two videos; a threshold of 2 would pass three of four normal frames and one of the four at stake."""
    frames = Frames(
        margin=np.array([3.0, 2.5, 1.0, 2.0, -1.0, -2.0, 5.0, -3.0, 2.2]),
        marked=np.array([False, True, False, True, True, True, False, True, False]),
        abnormal=np.array([False, False, False, True, True, True, False, True, True]),
        videos=np.array(["a", "a", "a", "a", "a", "b", "b", "b", "b"]),
    )
    found = assess(frames, risks=(0.5, 0.6))
    assert (found["n"], found["least_risk"], found["at_stake"], found["normal"]) == (2, 0.3333, 4, 4)
    assert found["standard_sensitivity"] == 0.8
    least, half, more = found["thresholds"]
    # Nothing at stake may pass: from just above 2.
    assert (least["passed_normal"], least["lost"], least["passed_abnormal"]) == (0.75, 0.0, 0.2)
    assert least["probability"] == pytest.approx(1 / (1 + math.exp(-2)), abs=1e-6)
    assert least["false_marks_spared"] == 1.0
    # One of video a's two: (.5 + 0 + 1) / 3 = .5.
    assert (half["lost"], half["lost_by_video"], half["passed_normal"]) == (0.25, 0.25, 1.0)
    assert more["lost"] == half["lost"]
    assert [line["risk"] for line in found["thresholds"]] == [0.3333, 0.5, 0.6]
    times = Times(reading=1.0, small=0.5, standard=2.0)
    assert times.least_share == 0.25
    assert times.saving(0.25) == 1.0
    assert times.saving(1.0) == 0.5
    assert "| 0.333 | 0.880797 | 75.0% | 0.0% |" in render("by hand", found, [times])


def test_too_few_videos_certify_nothing() -> None:
    with pytest.raises(InputError, match="1 videos have a finding"):
        assess(draw(np.random.default_rng(0), 1))


def keep(path: Path, folds: list[int], **changed: np.ndarray) -> Path:
    rng = np.random.default_rng(1)
    all_frames = {
        "logits": rng.normal(size=(60, 3)).astype(np.float32),
        "labels": np.arange(60) % 3,
        "videos": np.array([f"v{i // 10}" for i in range(60)]),
        "fold": np.arange(60) // 20,
    }
    part = np.isin(all_frames["fold"], folds)
    np.savez(path, **{name: values[part] for name, values in all_frames.items()} | changed)
    return path


def test_out_of_fold_answers_are_paired_in_their_common_folds(tmp_path: Path) -> None:
    one, other = keep(tmp_path / "a.npz", [0, 1]), keep(tmp_path / "b.npz", [1, 2])
    frames = pair_out_of_fold(one, other, column=0)
    assert sorted(set(frames.videos)) == ["v2", "v3"]
    logits = np.load(one)["logits"][20:].astype(np.float64)
    odds = np.exp(logits[:, 0]) / np.exp(logits[:, 1:]).sum(axis=1)
    np.testing.assert_allclose(np.exp(frames.margin), odds)
    assert (frames.abnormal == (np.arange(20, 40) % 3 != 0)).all()


def test_a_label_that_a_fold_never_saw_marks_nothing(tmp_path: Path) -> None:
    logits = np.tile(np.float32([1.0, 0.0, 5.0]), (20, 1))
    one = keep(tmp_path / "a.npz", [0])
    seen = np.ones((20, 3), bool)
    marked = [
        pair_out_of_fold(
            one, keep(tmp_path / "b.npz", [0], logits=logits, seen=seen & which), column=0
        ).marked
        for which in ([True, True, True], [True, True, False])
    ]
    assert marked[0].all()
    assert not marked[1].any()


@pytest.mark.parametrize("fault", ["folds", "videos", "lacks", "text"])
def test_answers_that_do_not_belong_together_are_refused(fault: str, tmp_path: Path) -> None:
    one, other = keep(tmp_path / "a.npz", [0]), tmp_path / "b.npz"
    if fault == "folds":
        keep(other, [1])
    elif fault == "videos":
        keep(other, [0], videos=np.array(["x"] * 20))
    elif fault == "lacks":
        np.savez(other, logits=np.zeros((2, 3)))
    else:
        other.write_text("no archive")
    with pytest.raises(InputError, match=r"same frames|no out_of_fold\.npz"):
        pair_out_of_fold(one, other, column=0)


def test_the_command_ends_in_one_line_of_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import cv2

    rng = np.random.default_rng(2)
    rows = ["file,label,source,video_id,frame_number,split"]
    for number in range(60):
        picture = rng.integers(0, 255, (48, 48, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
        rows.append(f"{number}.png,{KEYS[number % 3]},s,v{number % 6},{number},val")
    (tmp_path / "labels.csv").write_text("\n".join(rows), "utf-8")
    small = write_tiny_model(tmp_path / "small.onnx", labels=KEYS)
    standard = write_tiny_model(tmp_path / "standard.onnx", labels=KEYS, seed=5)
    main([str(small), str(standard), "--data", str(tmp_path), "--reading-ms", "1"])
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    found = document["split val"]
    assert (found["frames"], found["normal"], found["videos"]) == (60, 20, 6)
    assert found["thresholds"]


@pytest.mark.parametrize(
    ("arguments", "code"), [([], 2), (["none.onnx", "--data", "nowhere"], 1), (["--data", "nowhere"], 1)]
)
def test_bad_input_is_one_line(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_module(lambda: main(arguments))
    assert ended.value.code == code
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
