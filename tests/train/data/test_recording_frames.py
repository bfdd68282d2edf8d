"""Frames of recordings as training data: the bytes that reading feeds to the model, each frame once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import damage
import numpy as np
import pytest
from labelled_frames import write_frames
from labelled_videos import write_index, write_recording, write_table
from tiny_model import write_tiny_model
from video_samples import recording

from capsule_edge.evaluation.datasets import load_dataset, without_videos
from capsule_edge.evaluation.recordings import LabelledRecording, NormalStretch, load_recordings
from capsule_edge.evaluation.recordings.normal_stretches import write_stretches
from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.runtime.inference import InputSpec, open_model
from capsule_edge.runtime.pipeline import Plan, answer_frames
from capsule_edge.runtime.recording import scan
from capsule_edge.train.config import TrainConfig
from capsule_edge.train.data import (
    TrainingFrames,
    draw_weights,
    fold_of_real,
    load_frames,
    recording_frames,
    recording_labels,
    without_recorded,
)
from capsule_edge.train.gpu.batch_feed import answers_file
from capsule_edge.train.gpu.cross_validation import RecipeData

SIZE = 32
KEYS = ("normal", "polyp", "ulcer")


def one_recording(video: Path) -> LabelledRecording:
    """Read the recording ``video`` of a folder with an index, of any split."""
    found = load_recordings(video.parent, split="all").recordings
    return next(each for each in found if each.video == video)


def fed_to_the_model(video: Path, model: Path) -> np.ndarray:
    """Return the pixels that the model is given when a recording is read, uint8 (N, size, size, 3)."""

    class Listener:
        def __init__(self) -> None:
            self.backend, self.seen = open_model(model), []
            self.spec = self.backend.spec

        def run(self, pixels: Any) -> Any:
            self.seen.append(pixels.copy())
            return self.backend.run(pixels)

    listener, container = Listener(), scan(video)
    for _ in answer_frames(container, range(container.present), listener, Plan(workers=1, batch=5)):
        pass
    return np.concatenate(listener.seen)


@pytest.mark.parametrize("name", ["2fc3db471f9d44c0", "ad91cf7ca91440aa"])
def test_training_sees_the_bytes_that_reading_feeds(name: str, tmp_path: Path) -> None:
    video = recording(name)
    model = write_tiny_model(tmp_path / "m.onnx", size=160)
    truth = one_recording(video)
    frames = recording_frames([truth], load_recordings(video.parent).labels, InputSpec(160))
    fed = fed_to_the_model(video, model)
    assert len(frames) == len(truth.rows) == len(fed)
    np.testing.assert_array_equal(frames.pixels, fed)
    assert frames.pixels.std() > 10


def test_a_truth_may_label_a_part_of_the_recording(tmp_path: Path) -> None:
    """The field of view still comes from the first frames of the recording."""
    video = recording("2fc3db471f9d44c0")
    truth = one_recording(video)
    part = replace(truth, rows=truth.rows[90:97:2])
    labels = load_recordings(video.parent).labels
    whole = recording_frames([truth], labels, InputSpec(64))
    some = recording_frames([part], labels, InputSpec(64))
    np.testing.assert_array_equal(some.pixels, whole.pixels[90:97:2])
    assert some.recorded_at.tolist() == [90, 92, 94, 96]


def test_corrupt_frames_are_left_out_and_named(tmp_path: Path) -> None:
    whole = write_recording(tmp_path / "source", "a")
    video = write_recording(tmp_path / "damaged", "a")
    damage.blank(whole, video, 9)
    write_recording(tmp_path / "damaged", "b")
    found = load_recordings(tmp_path / "damaged").recordings
    frames = recording_frames(found, KEYS, InputSpec(SIZE))
    sound = recording_frames(load_recordings(tmp_path / "source").recordings, KEYS, InputSpec(SIZE))
    lost = 24 - len(frames)
    assert 0 < lost < 12
    assert len(frames.unreadable) == lost
    assert all("damaged" in name and "a.mp4 frame " in name for name in frames.unreadable)
    of_a = frames.take(np.flatnonzero(frames.videos == "a"))
    np.testing.assert_array_equal(of_a.pixels, sound.pixels[of_a.recorded_at])
    assert (frames.videos == "b").sum() == 12


def test_the_order_does_not_depend_on_the_length(tmp_path: Path) -> None:
    """The longest recording is decoded first."""
    write_recording(tmp_path, "a", ("Normal",) * 3)
    write_recording(tmp_path, "b", ("Ulcer",) * 20)
    frames = recording_frames(load_recordings(tmp_path).recordings, KEYS, InputSpec(SIZE))
    assert frames.videos.tolist() == ["a"] * 3 + ["b"] * 20
    np.testing.assert_array_equal(frames.pixels[:3], frames.pixels[3:6])  # both are encoded alike


FAULTS = {
    "more rows than frames": ([(i, i, "", "Normal") for i in range(13)], r"13 frames in all, a\.mp4 has 12 frames"),
    "unknown index": ([(40, 0, "", "Normal")], r"line 2 labels the frame with index 40 .* \(index 0 to 11\)"),
    "other times": ([(0, 0, 0.0, "Normal"), (1, 1, 90.0, "Normal")], r"line 3 puts frame 1 at 90\.0 s, .* at 0\.040 s"),
    "unknown label": ([(0, 0, "", "Worms")], r"line 2 has the label 'worms', allowed is one of normal, polyp, ulcer"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_truth_that_does_not_fit_is_refused_in_one_line(tmp_path: Path, fault: str) -> None:
    rows, said = FAULTS[fault]
    write_recording(tmp_path, "a")
    write_recording(tmp_path, "b")
    write_table(tmp_path / "a.truth.csv", rows)
    with pytest.raises(InputError, match=said) as caught:
        recording_frames(load_recordings(tmp_path).recordings, KEYS, InputSpec(SIZE))
    assert "\n" not in str(caught.value)


def test_a_recording_without_a_sound_frame_is_refused(tmp_path: Path) -> None:
    whole = write_recording(tmp_path / "source", "a", ("Normal",) * 2)
    video = write_recording(tmp_path / "damaged", "a", ("Normal",) * 2)
    damage.blank(whole, video, 0, behind=0.1)
    found = load_recordings(tmp_path / "damaged").recordings
    with pytest.raises(InputError, match="none of the 2 frames of the recordings can be read"):
        recording_frames(found, KEYS, InputSpec(SIZE))


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path]:
    """Images and recordings that share frames 2, 3 and 4 of video a; v is in the recordings' ``val``."""
    grey = [np.full((SIZE, SIZE, 3), 10 * i, np.uint8) for i in range(12)]
    rows = [(f"a{i}.png", "Ulcer", "a", i, "train") for i in range(5)]
    rows += [(f"p{i}.png", "Polyp", f"w{i}", 3, "train") for i in range(6)] + [
        ("z.png", "Normal", "z", 0, "val")
    ]
    images = write_frames(tmp_path / "images", "file,label,video_id,frame_number,split", rows, grey)
    root = tmp_path / "recordings"
    write_recording(root, "a", ("Ulcer",) * 3 + ("Normal",) * 3, first=2)
    write_recording(root, "b")
    write_recording(root, "v", ("Polyp",) * 5)
    return images, write_index(root, ["a.mp4,train", "b.mp4,train", "v.mp4,val"])


def test_a_frame_in_both_sources_counts_once(both: tuple[Path, Path]) -> None:
    images, root = both
    dataset, found = load_dataset(images, split="train"), load_recordings(root)
    left = without_recorded(dataset, found.recordings)
    assert [s.file.name for s in left.samples if s.video_id == "a"] == ["a0.png", "a1.png"]
    assert len(left.samples) == len(dataset.samples) - 3


def test_recipes_draw_images_and_recordings_but_never_val(both: tuple[Path, Path]) -> None:
    images, root = both
    config = TrainConfig(size=SIZE)
    data = RecipeData(images, recordings=root)
    frames = data.of(config)
    assert len(frames) == 8 + 6 + 12
    assert "v" not in frames.videos
    assert (frames.recorded_at[:8] == -1).all()
    np.testing.assert_array_equal(frames.recorded_at[8:], [*range(6), *range(12)])
    plain = RecipeData(images)
    assert (len(plain.of(config)), plain.recorded) == (11, "")
    assert data.recorded


def test_a_video_of_the_data_sets_val_is_never_drawn(both: tuple[Path, Path]) -> None:
    """The index, or a folder without one, may not know how the data set is split."""
    images, root = both
    write_recording(root, "z", ("Ulcer",) * 3)
    (root / "index.csv").unlink()
    frames = RecipeData(images, recordings=root).of(TrainConfig(size=SIZE))
    assert set(frames.videos[frames.recorded_at >= 0]) == {"a", "b", "v"}


def test_images_of_a_video_that_the_index_keeps_are_never_drawn(tmp_path: Path) -> None:
    """Images may have no split, or another one, while the index keeps their video for ``val``."""
    grey = [np.full((SIZE, SIZE, 3), 10 * i, np.uint8) for i in range(4)]
    rows = [
        ("a0.png", "Ulcer", "a", 90),
        ("v6.png", "Polyp", "v", 6),
        ("v7.png", "Ulcer", "v", 7),
        ("n.png", "Normal", "n", 0),
    ]
    images = write_frames(tmp_path / "images", "file,label,video_id,frame_number", rows, grey)
    root = tmp_path / "recordings"
    write_recording(root, "a", ("Ulcer",) * 3 + ("Polyp",) * 3)
    write_recording(root, "v", ("Polyp",) * 5)
    write_index(root, ["a.mp4,train", "v.mp4,val"])
    assert load_recordings(root).kept_videos == {"v"}
    assert load_recordings(root, split="all").kept_videos == frozenset()
    dataset = without_videos(load_dataset(images), load_recordings(root).kept_videos)
    assert [sample.file.name for sample in dataset.samples] == ["a0.png", "n.png"]


def test_a_video_of_both_sources_is_in_one_fold(both: tuple[Path, Path]) -> None:
    frames = RecipeData(both[0], recordings=both[1]).of(TrainConfig(size=SIZE))
    fold = fold_of_real(frames, 2)
    assert len(set(fold[frames.videos == "a"])) == 1
    assert set(fold) == {0, 1}


def test_recordings_with_a_label_that_the_data_set_lacks_are_refused_at_once(both: tuple[Path, Path]) -> None:
    images, root = both
    write_table(root / "b.truth.csv", [(0, 0, "", "Bleeding")])
    with pytest.raises(InputError, match=r"b\.truth\.csv line 2 has the label 'bleeding'"):
        RecipeData(images, recordings=root)


def test_a_recipe_of_other_recordings_has_other_folds(both: tuple[Path, Path], tmp_path: Path) -> None:
    images, root = both
    data, plain, kept = RecipeData(images, recordings=root), RecipeData(images), tmp_path / "teacher"
    kept.mkdir()
    plain.check_folds(kept)  # a folder of before there were recordings
    with pytest.raises(UsageError, match="the recipe teacher was trained with no recordings, this one has"):
        data.check_folds(kept)
    (kept / "recordings.sha256").write_text(load_recordings(root).sha256 + "\n", encoding="utf-8")
    data.check_folds(kept)
    with pytest.raises(UsageError, match="this one has no recordings: their folds differ"):
        plain.check_folds(kept)


def test_kept_answers_of_teachers_belong_to_the_recordings() -> None:
    config = TrainConfig(views=2)
    names = {answers_file(Path(), "all", ["t"], config, recorded) for recorded in ("", "one", "other")}
    assert len(names) == 3


def stretch(name: str, first: int, last: int, label: str = "ulcer") -> NormalStretch:
    return NormalStretch(name, label, first, last, None, None, 0.9, last - first + 1)


def test_stretches_mark_frames_that_do_not_carry_their_label(both: tuple[Path, Path]) -> None:
    """Recording a has ulcers up to frame 2. Stretches of ``val`` are passed over."""
    found = load_recordings(both[1]).recordings
    frames = recording_labels(
        found, KEYS, [stretch("a.mp4", 2, 4), stretch("b", 0, 0), stretch("v.mp4", 0, 4)]
    )
    marked = [(str(frames.videos[at]), int(frames.recorded_at[at])) for at in np.flatnonzero(frames.is_hard)]
    assert marked == [("a", 3), ("a", 4), ("b", 0)]


@pytest.mark.parametrize(
    ("stretches", "said"),
    [
        (
            [stretch("v.mp4", 0, 4)],
            r"none of the 1 stretches is of a recording that is drawn, such as v\.mp4",
        ),
        ([stretch("a.mp4", 0, 2)], r"the stretch 0 to 2 of a\.mp4 \(ulcer\) holds no frame of another label"),
        (
            [stretch("a.mp4", 90, 91)],
            r"the stretch 90 to 91 of a\.mp4 \(ulcer\) holds no frame of another label",
        ),
    ],
)
def test_stretches_that_do_not_fit_are_refused(
    both: tuple[Path, Path], stretches: list[NormalStretch], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        recording_labels(load_recordings(both[1]).recordings, KEYS, stretches)


def test_recipes_weigh_stretches_only_if_they_are_listed(both: tuple[Path, Path], tmp_path: Path) -> None:
    images, root = both
    table = tmp_path / "stretches.csv"
    write_stretches([stretch("b.mp4", 1, 2)], table)
    weighing = TrainConfig(size=SIZE, hard_weight=2)
    frames = RecipeData(images, recordings=root, weigh=table).of(weighing)
    assert frames.videos[frames.is_hard].tolist() == ["b", "b"]
    assert (
        RecipeData(images, recordings=root, weigh=table).recorded
        != RecipeData(images, recordings=root).recorded
    )
    with pytest.raises(UsageError, match="hard_weight is 2, and no table lists the frames"):
        RecipeData(images, recordings=root).of(weighing)
    with pytest.raises(UsageError, match=r"the stretches .*stretches\.csv come without recordings"):
        RecipeData(images, weigh=table)


def labelled(hard: list[int]) -> TrainingFrames:
    """Return four normal frames of one video, two of another, and two polyps."""
    videos = np.array(["a"] * 4 + ["b"] * 2 + ["c"] * 2)
    marked = np.isin(np.arange(8), hard)
    return TrainingFrames(
        np.zeros((8, 4, 4, 3), np.uint8),
        np.array([0] * 6 + [1] * 2),
        videos,
        ("normal", "polyp"),
        hard=marked,
    )


def test_hard_frames_are_drawn_more_often_within_their_class() -> None:
    frames = labelled([0, 5])
    plain = draw_weights(frames, TrainConfig())
    np.testing.assert_allclose(plain, draw_weights(labelled([]), TrainConfig()))
    weighed = draw_weights(frames, TrainConfig(hard_weight=3.0))
    assert weighed.sum() == pytest.approx(1)
    assert weighed[0] / weighed[1] == pytest.approx(3)
    assert weighed[5] / weighed[4] == pytest.approx(3)
    assert weighed[:6].sum() == pytest.approx(plain[:6].sum())  # the share of the class stays
    among = np.arange(8) != 1
    assert draw_weights(frames, TrainConfig(hard_weight=3.0), among)[[0, 1]].tolist()[1] == 0


def test_joined_and_taken_frames_keep_what_is_known_of_them() -> None:
    frames = labelled([1])
    joined = frames.join(replace(labelled([2]), places=np.arange(8)))
    assert np.flatnonzero(joined.is_hard).tolist() == [1, 10]
    assert joined.recorded_at.tolist() == [-1] * 8 + list(range(8))
    taken = joined.take(np.array([1, 10]))
    assert (taken.is_hard.all(), taken.recorded_at.tolist()) == (True, [-1, 2])
    assert joined.first(8).recorded_at.tolist() == [-1] * 8
    assert joined.without_pixels().pixels.shape == (16, 0, 0, 3)


def test_labels_are_known_without_opening_a_video(tmp_path: Path) -> None:
    video = write_recording(tmp_path, "a")
    video.write_bytes(b"no video")
    known = recording_labels(load_recordings(tmp_path).recordings, KEYS)
    assert known.labels.tolist() == [0] * 8 + [2] * 4
    assert known.pixels.shape == (12, 0, 0, 3)


def test_images_alone_have_no_place_in_a_recording(both: tuple[Path, Path]) -> None:
    frames = load_frames(load_dataset(both[0], split="train"), KEYS, InputSpec(SIZE))
    assert frames.places is None
    assert frames.recorded_at.tolist() == [-1] * 11
