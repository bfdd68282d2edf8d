"""Training: repeatable draws, augmentation, what a run leaves and refuses, and errors that name their cause."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from training_samples import COLOURS, DAMAGED, KEYS, MORE_SETTINGS, SETTINGS, SIZE, WholeRun, setting_words

from capsule_edge.cli.train import command
from capsule_edge.evaluation.datasets import load_dataset
from capsule_edge.runtime.errors import CapsuleEdgeError, InputError, OutputError, UsageError
from capsule_edge.runtime.inference import InputSpec
from capsule_edge.train.config import TrainConfig
from capsule_edge.train.data import (
    TrainingFrames,
    augment,
    class_prior,
    draw_epoch,
    draw_weights,
    fold_of,
    held_out,
    load_frames,
    mask_unseen,
)
from capsule_edge.train.models import architectures, weights
from capsule_edge.train.run_inputs import RunInputs, claim_folder


@pytest.fixture(scope="module")
def tf_keras():
    return pytest.importorskip("tf_keras")


@pytest.fixture
def frames() -> TrainingFrames:
    """Three colours, eight videos."""
    rng = np.random.default_rng(0)
    labels = np.arange(96) % 3
    colours = COLOURS[labels]
    pixels = np.clip(colours[:, None, None, :] + rng.normal(0, 25, (96, SIZE, SIZE, 3)), 0, 255).astype(
        np.uint8
    )
    return TrainingFrames(
        pixels, labels, np.array([f"v{i % 8}" for i in range(96)]), ("normal", "bleeding", "polyp")
    )


@pytest.mark.quick
def test_a_draw_depends_on_seed_and_epoch_alone(frames: TrainingFrames) -> None:
    config = TrainConfig(size=SIZE, batch=16)
    chances = draw_weights(frames, config)
    first, again = (draw_epoch(chances, SIZE, config, 3, 5) for _ in range(2))
    other = draw_epoch(chances, SIZE, config, 4, 5)
    assert np.array_equal(first.rows, again.rows)
    assert all(np.array_equal(a, b) for a, b in zip(first.variation, again.variation, strict=True))
    assert not np.array_equal(first.rows, other.rows)


@pytest.mark.quick
def test_sampling_evens_out_classes_and_videos() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    videos = np.array(["a"] * 80 + ["b"] * 10 + ["c"] * 10)
    frames = TrainingFrames(np.zeros((100, 8, 8, 3), np.uint8), labels, videos, ("normal", "polyp"))
    as_it_comes = draw_weights(frames, TrainConfig(sampling=0, video_sampling=0))
    assert as_it_comes == pytest.approx(np.full(100, 0.01))
    even = draw_weights(frames, TrainConfig(sampling=1, video_sampling=1))
    assert even[labels == 1].sum() == pytest.approx(0.5)
    assert even[videos == "a"].sum() == pytest.approx(even[videos == "b"].sum())
    held_out = draw_weights(frames, TrainConfig(), videos != "a")
    assert held_out[videos == "a"].sum() == 0
    assert held_out.sum() == pytest.approx(1)


def test_a_class_without_frames_gets_no_logit_adjustment() -> None:
    frames = TrainingFrames(
        np.zeros((4, 8, 8, 3), np.uint8), np.zeros(4, int), np.array(list("abcd")), ("normal", "worms")
    )
    assert class_prior(frames, draw_weights(frames, TrainConfig())).tolist() == [1, 1]


@pytest.mark.quick
def test_folds_share_no_video_and_unseen_classes_do_not_count(frames: TrainingFrames) -> None:
    fold = fold_of(frames, 4)
    for video in np.unique(frames.videos):
        assert len(set(fold[frames.videos == video])) == 1
    seen = np.array([[True, True, False], [True, True, True], [True, True, False]])
    logits, known = mask_unseen(np.ones((3, 3), np.float32), np.array([0, 2, 2]), seen)
    assert known.tolist() == [True, True, False]
    assert logits[~seen].max() < -20
    assert logits[seen].min() == 1


@pytest.mark.quick
def test_the_error_for_too_few_videos_says_what_to_do(frames: TrainingFrames) -> None:
    few = frames.take(np.flatnonzero(frames.videos == frames.videos[0]))
    for stop, has_hint in ((False, True), (True, False)):
        with pytest.raises(InputError, match="cannot be split into 6 folds") as error:
            held_out.choose(few, calibrate=True, stop=stop)
        assert ("--calibrate-on" in str(error.value)) == has_hint


def test_frames_are_moved_as_opencv_moves_them(tf_keras: object) -> None:
    from capsule_edge.train.loop.training_loop import move

    rng = np.random.default_rng(1)
    frame = cv2.GaussianBlur(rng.integers(0, 256, (SIZE, SIZE, 3)).astype(np.float32), (0, 0), 3)
    variation = augment.draw(rng, 6, SIZE)
    moved = move(np.repeat(frame[None], 6, axis=0), variation.move).numpy()
    for got, how in zip(moved, variation.move, strict=True):
        wanted = cv2.warpAffine(
            frame, how[:6].reshape(2, 3), (SIZE, SIZE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        )
        # OpenCV places samples on a grid of 1/32 pixel. The error is up to 1/64 of the slope, here 15 levels a pixel.
        assert np.abs(got - wanted)[2:-2, 2:-2].mean() < 0.25


def test_augmentation_of_strength_0_only_turns(tf_keras: object) -> None:
    keras = pytest.importorskip("keras")
    from capsule_edge.train.loop.training_loop import move

    at = np.arange(SIZE) + 0.5 - SIZE / 2
    inside = at[:, None] ** 2 + at[None, :] ** 2 <= (SIZE / 2) ** 2
    frame = np.where(inside[:, :, None], np.array([180, 120, 60]), 0).astype(np.uint8)
    variation = augment.draw(np.random.default_rng(2), 4, SIZE, strength=0.0)
    out = augment.apply(np.repeat(frame[None], 4, axis=0), variation, keras.ops, move).numpy()
    assert out.min() == -1
    middle = out[:, SIZE // 4 : -SIZE // 4, SIZE // 4 : -SIZE // 4]
    assert middle == pytest.approx(
        np.broadcast_to((np.array([180, 120, 60]) - 128) / 128, middle.shape), abs=1e-4
    )


def test_a_run_leaves_its_files_and_says_where(whole_run: WholeRun) -> None:
    assert json.loads(whole_run.result.stdout)["run"] == str(whole_run.out)
    document = json.loads((whole_run.out / "run.json").read_text("utf-8"))
    assert document["spec"]["provenance"]["training"]["epochs"] == 3
    assert {"fp32.weights.npz", "qat.weights.npz", "replay.npz", "curve.csv"} <= {
        path.name for path in whole_run.out.iterdir()
    }
    assert (whole_run.out / "curve.csv").read_text().count("fp32,") == 3
    measured = {point["measured_on"] for point in document["spec"]["operating_points"].values()}
    assert measured
    assert not any("None" in text for text in measured)


def test_a_finished_run_stays_as_it_is_and_refuses_other_inputs(
    data: Path, whole_run: WholeRun, start_weights: Path, tmp_path: Path
) -> None:
    out, other = tmp_path / "run", tmp_path / "other.npz"
    shutil.copytree(whole_run.out, out)
    weights.save(other, {"a/b": np.zeros(1, np.float32)})
    document = json.loads((out / "run.json").read_text("utf-8"))
    document["spec"]["events"]["min_frames"] = 7  # as the fit of event parameters writes it
    (out / "run.json").write_text(json.dumps(document), encoding="utf-8")
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}

    def train(*more: str, settings: tuple[str, ...] = MORE_SETTINGS) -> None:
        own = ["--data", str(data), "--out", str(out), *setting_words(*SETTINGS, *settings)]
        CliRunner().invoke(command, [*own, *more], catch_exceptions=False)

    given = ("--weights", str(start_weights), "--teacher", str(start_weights))
    train(*given)
    for more in (
        ["--weights", str(other), "--teacher", str(start_weights)],
        ["--weights", str(start_weights), "--teacher", str(other)],
        ["--weights", str(start_weights)],
        [*given, "--calibrate-on", str(other)],
        [*given, "--fp32", str(other), "--calibrate-on", str(other)],
        [*given, "--name", "other"],
        [*given, "--license", "MIT"],
    ):
        with pytest.raises(OutputError, match=r"holds a run of another name or licence, or .*given\.json"):
            train(*more)
    with pytest.raises(OutputError, match="another configuration"):
        train(*given, settings=("epochs=2",))
    with pytest.raises(InputError, match=r"none\.npz cannot be read"):
        train("--weights", str(tmp_path / "none.npz"))
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_fp32_weights_without_calibration_are_refused_before_the_folder_is_claimed(
    tf_keras: object, data: Path, start_weights: Path, tmp_path: Path
) -> None:
    words = ["--data", str(data), "--out", str(tmp_path / "run"), *setting_words(*SETTINGS)]
    with pytest.raises(UsageError, match="without the answers to calibrate them on") as error:
        CliRunner().invoke(command, [*words, "--fp32", str(start_weights)], catch_exceptions=False)
    assert "--calibrate-on" in str(error.value.hint)
    assert not (tmp_path / "run").exists()


def test_a_run_on_other_data_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for label in ("normal", "polyp"):
            (tmp_path / name / label).mkdir(parents=True)
            frame = np.full((48, 48, 3), 120 + (name == "b"), np.uint8)
            cv2.imwrite(str(tmp_path / name / label / "0.png"), frame)
    out, inputs = tmp_path / "run", RunInputs()
    out.mkdir()
    for _ in range(2):  # the second finds the folder claimed by the same run
        claim_folder(out, TrainConfig(), load_dataset(tmp_path / "a"), inputs)
    with pytest.raises(OutputError, match="other data"):
        claim_folder(out, TrainConfig(), load_dataset(tmp_path / "b"), inputs)


def test_the_mean_of_the_teachers_is_learnt(tf_keras: object, frames: TrainingFrames, tmp_path: Path) -> None:
    from tiny_model import write_tiny_model

    from capsule_edge.runtime.inference import open_model
    from capsule_edge.train.loop import teacher_probabilities

    config = TrainConfig(architecture="plain_cnn", size=SIZE)
    model = architectures.build("plain_cnn", size=SIZE, labels=3, keras=tf_keras)
    weights.save(tmp_path / "a.npz", weights.collect(model))
    file = write_tiny_model(tmp_path / "b.onnx", labels=frames.keys, size=SIZE)
    rendered = TrainingFrames(frames.pixels[:2], frames.labels[:2], np.full(2, "phantom"), frames.keys)
    answers = teacher_probabilities([tmp_path / "a.npz", file], frames.join(rendered), config)
    logits = model((frames.pixels[:1].astype(np.float32) - 128) / 128).numpy()[0].astype(float)
    own = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    theirs = open_model(file).run(frames.pixels[:1]).probabilities[0]
    assert answers[0] == pytest.approx((own + theirs) / 2, abs=1e-4)
    assert answers[-2:].tolist() == np.eye(3)[frames.labels[:2]].tolist()
    with pytest.raises(InputError, match="has the labels"):
        teacher_probabilities([write_tiny_model(tmp_path / "c.onnx", size=48)], frames, config)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"sampling": 2}, "sampling is 2"),
        ({"no_such": 1}, "no training configuration"),
    ],
)
def test_impossible_settings_in_a_file_are_named(
    tmp_path: Path, data: Path, fields: dict, message: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    words = ["--data", str(data), "--out", str(tmp_path / "o"), "--config", str(tmp_path / "config.json")]
    with pytest.raises(CapsuleEdgeError, match=message):
        CliRunner().invoke(command, words, catch_exceptions=False)
    assert not (tmp_path / "o").exists()


def test_a_label_that_the_model_lacks_is_named(data: Path) -> None:
    with pytest.raises(InputError, match="polyp"):
        load_frames(load_dataset(data), ("normal", "bleeding"), InputSpec(SIZE))


def test_images_that_cannot_be_read_are_left_out_and_named(data: Path) -> None:
    loaded = load_frames(load_dataset(data), KEYS, InputSpec(SIZE))
    assert len(loaded) == 190
    assert [Path(file).name for file in loaded.unreadable] == list(DAMAGED)


@pytest.mark.parametrize(
    ("keys", "words_of_error"),
    [
        (("bleeding", "polyp"), "no class is known as normal.*bleeding, polyp.*--labels"),
        (("normal", "pylorus"), "the labels are normal, pylorus, .*--set phantom=0"),
    ],
)
def test_labels_that_no_phantom_shows_are_named(
    tf_keras: object, tmp_path: Path, keys: tuple[str, str], words_of_error: str
) -> None:
    """The error comes before anything is written: the same folder takes the settings that the message names."""
    rows = ["file,label,source,video_id,frame_number"]
    for number, key in enumerate(keys):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((SIZE, SIZE, 3), 90 * number, np.uint8))
        rows.append(f"{number}.png,{key},X,v{number},{number}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    words = ["--data", str(tmp_path), "--out", str(tmp_path / "o"), *setting_words(*SETTINGS, "phantom=4")]
    with pytest.raises(UsageError, match=words_of_error):
        CliRunner().invoke(command, words, catch_exceptions=False)
    assert not (tmp_path / "o").exists()
