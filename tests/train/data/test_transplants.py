"""Transplants set lesions in and take them out at the right places; none stems from a held-out video."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from capsule_edge.evaluation.datasets import Dataset, load_dataset
from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import InputSpec
from capsule_edge.train.config import TrainConfig
from capsule_edge.train.data import TrainingFrames, draw_weights, is_real, made_of
from capsule_edge.train.data.transplants import LesionBox, read_boxes, transplant_frames

SIZE, KEYS = 96, ("normal", "ulcer")
SPEC = InputSpec(SIZE)
MUCOSA, WALL, LESION = (150, 100, 80), (120, 90, 60), (255, 255, 220)
HEADER = "filename;video_id;frame_number;finding_category;finding_class;x1;y1;x2;y2;x3;y3;x4;y4"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ulcers of one video, each a bright disc in the middle, and normal frames of two other videos."""
    tmp_path = tmp_path_factory.mktemp("shared")
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


@pytest.fixture
def data(shared: Path, tmp_path: Path) -> Path:
    """A copy of the data set that a test may change."""
    return Path(shutil.copytree(shared, tmp_path / "data"))


@pytest.fixture(scope="module")
def forty(shared: Path) -> tuple[Dataset, TrainingFrames]:
    """The data set and forty transplants."""
    return made(shared)


def made(data: Path, count: int = 40) -> tuple[Dataset, TrainingFrames]:
    dataset = load_dataset(data, split="train")
    boxes = read_boxes(data / "metadata.csv")
    return dataset, transplant_frames(dataset, boxes, count, KEYS, SPEC, 1)


@pytest.mark.quick
def test_boxes_are_read_as_shares_of_the_frame(shared: Path) -> None:
    (box,) = read_boxes(shared / "metadata.csv")["sick", 0]
    assert box == LesionBox(*[pytest.approx(v) for v in (0.5, 0.5, 20 / 336, 20 / 336)])


def test_a_lesion_keeps_its_label_and_its_frame_becomes_normal(
    forty: tuple[Dataset, TrainingFrames],
) -> None:
    _, frames = forty
    bright = (frames.pixels.min(axis=3) > 130).sum(axis=(1, 2))
    ulcer = frames.labels == KEYS.index("ulcer")
    assert 0 < ulcer.sum() < len(frames)
    # A disc with a radius of 20 of 336 pixels covers 103 pixels at size 96. It is scaled by .7 to 1.4 in each
    # direction, and its rim is soft.
    assert ((bright[ulcer] > 25) & (bright[ulcer] < 260)).all()
    assert (bright[~ulcer] == 0).all()


def test_the_host_is_unchanged_around_the_piece_and_no_edge_shows(
    forty: tuple[Dataset, TrainingFrames],
) -> None:
    _, frames = forty
    ulcer = frames.pixels[frames.labels == KEYS.index("ulcer")]
    border = ulcer[:, 46:50, 2:6]  # no lesion is set in so far out
    assert (np.abs(border.astype(int) - WALL) <= 1).all()
    plain = np.abs(ulcer.astype(int) - WALL).max(axis=3)
    at = np.arange(SIZE) + 0.5 - SIZE / 2
    inside = at[:, None] ** 2 + at[None, :] ** 2 < (SIZE / 2 - 2) ** 2
    # Beside the bright disc the donor's colour does not show: its ring took on the host's colour.
    assert np.median(plain[:, inside]) <= 1


def test_the_same_seed_makes_the_same_frames(data: Path) -> None:
    first, second = made(data, 6)[1], made(data, 6)[1]
    assert np.array_equal(first.pixels, second.pixels)
    assert list(first.videos) == list(second.videos)


def test_transplants_from_a_held_out_video_are_found(forty: tuple[Dataset, TrainingFrames]) -> None:
    _, frames = forty
    assert not is_real(frames.videos).any()
    assert made_of(frames.videos, {"sick"}).all()
    # Names are compared whole: "well" is the beginning of other names.
    assert not made_of(frames.videos, {"well"}).any()
    of_one = made_of(frames.videos, {"well0"})
    assert 0 < of_one.sum() < len(frames)
    assert not made_of(np.array(["sick", "well0"]), {"sick"}).any()


def test_a_frame_without_a_video_is_a_group_of_its_own(data: Path) -> None:
    table = data / "labels.csv"
    table.write_text(table.read_text("utf-8").replace("well0", "").replace("well1", "a/b"), encoding="utf-8")
    _, frames = made(data, 12)
    assert made_of(
        frames.videos, {"2"}
    ).any()  # the stem of 2.png, which also names it in folds and held-out videos
    assert made_of(frames.videos, {"a/b"}).any()
    assert not made_of(frames.videos, {"None", "a", "b"}).any()


def test_a_fold_is_withheld_with_the_transplants_from_its_videos(
    forty: tuple[Dataset, TrainingFrames],
) -> None:
    from capsule_edge.train.data import PHANTOM, fold_of_real, load_frames, withheld_from_fold

    dataset, frames = forty
    rendered = TrainingFrames(frames.pixels[:2], frames.labels[:2], np.full(2, PHANTOM), KEYS)
    everything = load_frames(dataset, KEYS, SPEC).join(rendered).join(frames)
    fold = fold_of_real(everything, 2)
    assert (fold[:8] >= 0).all()
    assert (fold[8:] == -1).all()
    for number in (0, 1):
        kept = withheld_from_fold(everything, fold, number)
        held_out = set(everything.videos[fold == number])
        assert kept[fold == number].all()
        for row in range(8, len(everything)):
            assert kept[row] == bool(held_out & set(everything.videos[row].split("\t")[1:]))
    assert not withheld_from_fold(everything, fold, 0)[8:10].any()  # rendered frames stem from no video


def test_training_does_not_see_transplants_from_calibration_videos(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tf_keras", reason="needs the extra 'train'")
    from capsule_edge.train import run
    from capsule_edge.train.data import held_out
    from capsule_edge.train.loop import keras_training

    held = held_out.HeldOut(calibration=("well0",), stopping=())
    monkeypatch.setattr(held_out, "choose", lambda *_, **__: held)
    seen = {}

    class SeenError(Exception):
        pass

    def spy(
        _model: object, frames: TrainingFrames, _config: TrainConfig, *, among: np.ndarray, **_: object
    ) -> None:
        seen.update(videos=frames.videos, among=among)
        raise SeenError

    monkeypatch.setattr(keras_training, "fit_fp32", spy)
    config = TrainConfig(architecture="plain_cnn", size=SIZE, epochs=1, batch=4, phantom=0, transplants=20)
    with pytest.raises(SeenError):
        run.train_run(
            load_dataset(data, split="train"), tmp_path / "run", config, boxes=data / "metadata.csv"
        )
    shown = [video for video, among in zip(seen["videos"], seen["among"], strict=True) if among]
    assert any(video.endswith("well1") for video in shown)
    assert not any("well0" in video for video in shown)


def test_an_image_that_cannot_be_read_is_skipped(data: Path) -> None:
    (data / "3.png").write_bytes(b"no picture")
    assert len(made(data, 10)[1]) == 10
    for name in ("2", "4", "5", "6", "7"):
        (data / f"{name}.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="cannot be read"):
        made(data, 1)


def test_all_transplants_are_drawn_as_one_video(forty: tuple[Dataset, TrainingFrames]) -> None:
    from capsule_edge.train.data import load_frames

    dataset, frames = forty
    chances = draw_weights(load_frames(dataset, KEYS, SPEC).join(frames), TrainConfig(video_sampling=1.0))
    ulcers = np.r_[dataset_labels(dataset), frames.labels] == KEYS.index("ulcer")
    real = np.arange(len(ulcers)) < len(dataset.samples)
    # With video_sampling 1 the one real video of ulcers is drawn as often as all transplants together.
    assert chances[ulcers & real].sum() == pytest.approx(chances[ulcers & ~real].sum())


def dataset_labels(dataset: Dataset) -> np.ndarray:
    return np.array([KEYS.index(sample.label) for sample in dataset.samples])


@pytest.mark.parametrize(
    ("row", "box"),
    [
        ("0.png;sick;0;L;U;0;148;40;148;40;188;0;188", "beyond the inscribed circle"),
        ("0.png;sick;0;L;U;60;60;280;60;280;280;60;280", "outlines a view, not a lesion"),
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


def test_transplants_without_boxes_are_refused(data: Path, tmp_path: Path) -> None:
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
