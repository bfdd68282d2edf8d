"""Lesions set into other frames and taken out of theirs: where, of what, and never of a video that is held out."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from capsule_edge.evaluation.datasets import Dataset, load_dataset
from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import InputSpec
from capsule_edge.train.config import TrainConfig
from capsule_edge.train.data import Frames, draw_weights, is_real, made_of
from capsule_edge.train.data.transplants import Box, read_boxes, transplant_frames

SIZE, KEYS = 96, ("normal", "ulcer")
SPEC = InputSpec(SIZE)
MUCOSA, WALL, LESION = (150, 100, 80), (120, 90, 60), (255, 255, 220)
HEADER = "filename;video_id;frame_number;finding_category;finding_class;x1;y1;x2;y2;x3;y3;x4;y4"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two ulcers of one video, each a bright disc in the middle, and normal frames of two others."""
    rows, boxes = ["file,label,source,video_id,frame_number,split"], [HEADER]
    for i in range(8):
        ulcer = i < 2
        frame = np.full((336, 336, 3), MUCOSA if ulcer else WALL, np.uint8)
        if ulcer:
            cv2.circle(frame, (168, 168), 20, LESION, -1)
            boxes.append(f"{i}.png;sick;{i};Luminal;Ulcer;148;148;188;148;188;188;148;188")
        cv2.imwrite(str(tmp_path / f"{i}.png"), frame[:, :, ::-1])
        video = "sick" if ulcer else f"well{i % 2}"
        rows.append(f"{i}.png,{'ulcer' if ulcer else 'normal'},X,{video},{i},train")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (tmp_path / "metadata.csv").write_text("\n".join(boxes) + "\n", encoding="utf-8")
    return tmp_path


def made(data: Path, count: int = 40) -> tuple[Dataset, Frames]:
    dataset = load_dataset(data, split="train")
    boxes = read_boxes(data / "metadata.csv")
    return dataset, transplant_frames(dataset, boxes, count, KEYS, SPEC, 1)


def test_boxes_are_read_in_parts_of_the_frame(data: Path) -> None:
    (box,) = read_boxes(data / "metadata.csv")["sick", 0]
    assert box == Box(*[pytest.approx(v) for v in (0.5, 0.5, 20 / 336, 20 / 336)])


def test_a_lesion_comes_with_its_label_and_what_is_taken_out_is_normal(data: Path) -> None:
    _, frames = made(data)
    bright = (frames.pixels.min(axis=3) > 130).sum(axis=(1, 2))
    ulcer = frames.labels == KEYS.index("ulcer")
    assert 0 < ulcer.sum() < len(frames)
    # A disc of 20 of 336 pixels has 103 at 96, scaled by .7 to 1.4 in each direction; its rim is soft.
    assert ((bright[ulcer] > 25) & (bright[ulcer] < 260)).all()
    assert (bright[~ulcer] == 0).all()


def test_around_the_piece_the_host_is_as_it_was_and_no_edge_shows(data: Path) -> None:
    _, frames = made(data)
    ulcer = frames.pixels[frames.labels == KEYS.index("ulcer")]
    middle = ulcer[:, 46:50, 2:6]  # no lesion is set in so far out
    assert (np.abs(middle.astype(int) - WALL) <= 1).all()
    plain = np.abs(ulcer.astype(int) - WALL).max(axis=3)
    at = np.arange(SIZE) + 0.5 - SIZE / 2
    inside = at[:, None] ** 2 + at[None, :] ** 2 < (SIZE / 2 - 2) ** 2
    # Beside the bright disc nothing of the donor's own colour is seen: its ring took on the host's.
    assert np.median(plain[:, inside]) <= 1


def test_the_same_seed_makes_the_same_frames(data: Path) -> None:
    first, second = made(data, 6)[1], made(data, 6)[1]
    assert np.array_equal(first.pixels, second.pixels)
    assert list(first.videos) == list(second.videos)


def test_frames_made_of_a_held_out_video_are_left_out_too(data: Path) -> None:
    _, frames = made(data)
    assert not is_real(frames.videos).any()
    assert made_of(frames.videos, {"sick"}).all()
    # Only a held-out video's own frames are held out: another of the same name but for its ending is not.
    assert not made_of(frames.videos, {"well"}).any()
    of_one = made_of(frames.videos, {"well0"})
    assert 0 < of_one.sum() < len(frames)
    assert not made_of(np.array(["sick", "well0"]), {"sick"}).any()


def test_a_frame_of_no_named_video_stands_for_itself(data: Path) -> None:
    table = data / "labels.csv"
    table.write_text(table.read_text("utf-8").replace("well0", "").replace("well1", "a/b"), encoding="utf-8")
    _, frames = made(data)
    assert made_of(frames.videos, {"2"}).any()  # the stem of 2.png, as folds and held-out videos know it
    assert made_of(frames.videos, {"a/b"}).any()
    assert not made_of(frames.videos, {"None", "a", "b"}).any()


def test_a_fold_is_kept_from_its_frames_and_from_what_is_made_of_them(data: Path) -> None:
    from capsule_edge.train.data import PHANTOM, load_frames
    from capsule_edge.train.gpu.cross_validation import folds_of, kept_from

    dataset, frames = made(data)
    rendered = Frames(frames.pixels[:2], frames.labels[:2], np.full(2, PHANTOM), KEYS)
    everything = load_frames(dataset, KEYS, SPEC).join(rendered).join(frames)
    fold = folds_of(everything, 2)
    assert (fold[:8] >= 0).all()
    assert (fold[8:] == -1).all()
    for number in (0, 1):
        kept = kept_from(everything, fold, number)
        held_out = set(everything.videos[fold == number])
        assert kept[fold == number].all()
        for row in range(8, len(everything)):
            assert kept[row] == bool(held_out & set(everything.videos[row].split("\t")[1:]))
    assert not kept_from(everything, fold, 0)[8:10].any()  # what is rendered is of nobody


def test_training_holds_out_what_is_made_of_the_videos_that_calibrate(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tf_keras", reason="needs the extra 'train'")
    from capsule_edge.train import run
    from capsule_edge.train.data import held_out
    from capsule_edge.train.fit import fp32

    held = held_out.HeldOut(calibration=("well0",), stopping=())
    monkeypatch.setattr(held_out, "choose", lambda *_, **__: held)
    seen = {}

    class SeenError(Exception):
        pass

    def spy(_model: object, frames: Frames, _config: TrainConfig, *, among: np.ndarray, **_: object) -> None:
        seen.update(videos=frames.videos, among=among)
        raise SeenError

    monkeypatch.setattr(fp32, "fit_fp32", spy)
    config = TrainConfig(architecture="plain_cnn", size=SIZE, epochs=1, batch=4, phantom=0, transplants=20)
    with pytest.raises(SeenError):
        run.train_run(
            load_dataset(data, split="train"), tmp_path / "run", config, name="x", boxes=data / "metadata.csv"
        )
    shown = [video for video, among in zip(seen["videos"], seen["among"], strict=True) if among]
    assert any(video.endswith("well1") for video in shown)
    assert not any("well0" in video for video in shown)


def test_a_picture_that_cannot_be_read_is_passed_over(data: Path) -> None:
    (data / "3.png").write_bytes(b"no picture")
    assert len(made(data)[1]) == 40
    for name in ("2", "4", "5", "6", "7"):
        (data / f"{name}.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="can be read"):
        made(data, 1)


def test_made_frames_are_drawn_as_one_video(data: Path) -> None:
    from capsule_edge.train.data import load_frames

    dataset, frames = made(data)
    chances = draw_weights(load_frames(dataset, KEYS, SPEC).join(frames), TrainConfig(video_sampling=1.0))
    ulcers = np.r_[dataset_labels(dataset), frames.labels] == KEYS.index("ulcer")
    real = np.arange(len(ulcers)) < len(dataset.samples)
    # Videos alike often: the one real video of ulcers, and all that are made together.
    assert chances[ulcers & real].sum() == pytest.approx(chances[ulcers & ~real].sum())


def dataset_labels(dataset: Dataset) -> np.ndarray:
    return np.array([KEYS.index(sample.label) for sample in dataset.samples])


@pytest.mark.parametrize(
    ("row", "box"),
    [
        ("0.png;sick;0;L;U;0;148;40;148;40;188;0;188", "beyond the inscribed circle"),
        ("0.png;sick;0;L;U;60;60;280;60;280;280;60;280", "a view and not a lesion"),
    ],
)
def test_boxes_that_show_no_whole_lesion_are_not_used(data: Path, row: str, box: str) -> None:
    (data / "metadata.csv").write_text(f"{HEADER}\n{row}\n", encoding="utf-8")
    with pytest.raises(InputError, match="nothing can be transplanted"):
        made(data)


def test_a_corner_that_is_no_number_is_named(data: Path) -> None:
    (data / "metadata.csv").write_text(f"{HEADER}\n0.png;sick;0;L;U;x;1;2;1;2;2;1;2\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 2 has a corner"):
        read_boxes(data / "metadata.csv")


def test_training_asks_for_the_boxes(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tf_keras", reason="needs the extra 'train'")
    from capsule_edge.cli.train import command

    words = [
        "--data",
        str(data),
        "--out",
        str(tmp_path / "run"),
        "--set",
        "transplants=5",
        "--set",
        "phantom=0",
    ]
    result = CliRunner().invoke(command, words)
    assert result.exit_code != 0
    assert "--boxes" in str(result.exception.hint if result.exception else result.output)
    assert not (tmp_path / "run").exists()
