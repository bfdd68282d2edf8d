"""Training: draws that repeat, variations that are what they say, runs that resume, faults that are named."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from capsule_edge.cli.train import command
from capsule_edge.runtime.errors import CapsuleEdgeError, InputError, OutputError, UsageError
from capsule_edge.train.config import TrainConfig
from capsule_edge.train.data import (
    Frames,
    augment,
    class_prior,
    draw_epoch,
    draw_weights,
    held_out,
    load_frames,
)
from capsule_edge.train.gpu import fold_of, mask_unseen
from capsule_edge.train.models import architectures, weights

SIZE = 64


@pytest.fixture(scope="module")
def tf_keras():
    return pytest.importorskip("tf_keras")


@pytest.fixture
def frames() -> Frames:
    """Three colours that a few steps can tell apart, eight videos."""
    rng = np.random.default_rng(0)
    labels = np.arange(96) % 3
    colours = np.array([[200, 90, 60], [90, 40, 30], [180, 180, 60]])[labels]
    pixels = np.clip(colours[:, None, None, :] + rng.normal(0, 25, (96, SIZE, SIZE, 3)), 0, 255).astype(
        np.uint8
    )
    return Frames(pixels, labels, np.array([f"v{i % 8}" for i in range(96)]), ("normal", "bleeding", "polyp"))


@pytest.fixture
def data(tmp_path: Path, frames: Frames) -> Path:
    folder = tmp_path / "data"
    rows = ["file,label,source,video_id,frame_number,split"]
    folder.mkdir()
    for i, (frame, label) in enumerate(zip(frames.pixels, frames.labels, strict=True)):
        cv2.imwrite(str(folder / f"{i}.png"), frame[:, :, ::-1])
        rows.append(f"{i}.png,{frames.keys[label]},X,{frames.videos[i]},{i},train")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def settings(tmp_path: Path, **fields: object) -> Path:
    small = {
        "architecture": "plain_cnn",
        "size": SIZE,
        "epochs": 2,
        "batch": 16,
        "phantom": 0,
        "qat_batch": 8,
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(small | fields), encoding="utf-8")
    return path


def test_a_draw_depends_on_seed_and_epoch_alone(frames: Frames) -> None:
    config = TrainConfig(size=SIZE, batch=16)
    chances = draw_weights(frames, config)
    first, again = (draw_epoch(chances, SIZE, config, 3, 5) for _ in range(2))
    other = draw_epoch(chances, SIZE, config, 4, 5)
    assert np.array_equal(first.rows, again.rows)
    assert all(np.array_equal(a, b) for a, b in zip(first.variation, again.variation, strict=True))
    assert not np.array_equal(first.rows, other.rows)


def test_sampling_evens_out_classes_and_videos() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    videos = np.array(["a"] * 80 + ["b"] * 10 + ["c"] * 10)
    frames = Frames(np.zeros((100, 8, 8, 3), np.uint8), labels, videos, ("normal", "polyp"))
    as_it_comes = draw_weights(frames, TrainConfig(sampling=0, video_sampling=0))
    assert as_it_comes == pytest.approx(np.full(100, 0.01))
    even = draw_weights(frames, TrainConfig(sampling=1, video_sampling=1))
    assert even[labels == 1].sum() == pytest.approx(0.5)
    assert even[videos == "a"].sum() == pytest.approx(even[videos == "b"].sum())
    held_out = draw_weights(frames, TrainConfig(), videos != "a")
    assert held_out[videos == "a"].sum() == 0
    assert held_out.sum() == pytest.approx(1)


def test_a_class_without_frames_is_not_adjusted_for() -> None:
    frames = Frames(
        np.zeros((4, 8, 8, 3), np.uint8), np.zeros(4, int), np.array(list("abcd")), ("normal", "worms")
    )
    assert class_prior(frames, draw_weights(frames, TrainConfig())).tolist() == [1, 1]


def test_folds_share_no_video_and_unseen_classes_do_not_count(frames: Frames) -> None:
    fold = fold_of(frames, 4)
    for video in np.unique(frames.videos):
        assert len(set(fold[frames.videos == video])) == 1
    seen = np.array([[True, True, False], [True, True, True], [True, True, False]])
    logits, known = mask_unseen(np.ones((3, 3), np.float32), np.array([0, 2, 2]), seen)
    assert known.tolist() == [True, True, False]
    assert logits[~seen].max() < -20
    assert logits[seen].min() == 1


def test_too_few_videos_to_hold_any_out_are_told_the_way_out(frames: Frames) -> None:
    few = frames.take(np.flatnonzero(frames.videos == frames.videos[0]))
    for stop, way_out in ((False, True), (True, False)):
        with pytest.raises(InputError, match="cannot be split into 6 folds") as error:
            held_out.choose(few, calibrate=True, stop=stop)
        assert ("--calibrate-on" in str(error.value)) == way_out


def test_frames_are_moved_as_opencv_moves_them(tf_keras: object) -> None:
    from capsule_edge.train.fit.loop import move

    rng = np.random.default_rng(1)
    frame = cv2.GaussianBlur(rng.integers(0, 256, (SIZE, SIZE, 3)).astype(np.float32), (0, 0), 3)
    variation = augment.draw(rng, 6, SIZE)
    moved = move(np.repeat(frame[None], 6, axis=0), variation.move).numpy()
    for got, how in zip(moved, variation.move, strict=True):
        wanted = cv2.warpAffine(
            frame, how[:6].reshape(2, 3), (SIZE, SIZE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        )
        # OpenCV places samples on a grid of 1/32 pixel: 1/64 of the steepest slope, about 15 levels a pixel.
        assert np.abs(got - wanted)[2:-2, 2:-2].mean() < 0.25


def test_a_variation_of_no_strength_only_turns(tf_keras: object) -> None:
    keras = pytest.importorskip("keras")
    from capsule_edge.train.fit.loop import move

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


def test_train_leaves_a_run_that_goes_on_and_refuses_another(
    tf_keras: object, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    config = settings(tmp_path)
    arguments = ["--data", str(data), "--out", str(out), "--config", str(config), "--json"]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert json.loads(result.stdout)["run"] == str(out)
    document = json.loads((out / "run.json").read_text("utf-8"))
    assert document["spec"]["provenance"]["training"]["epochs"] == 2
    assert {"fp32.weights.npz", "qat.weights.npz", "replay.npz", "curve.csv"} <= {
        p.name for p in out.iterdir()
    }
    assert (out / "curve.csv").read_text().count("fp32,") == 2
    before = (out / "fp32.weights.npz").read_bytes()
    CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert (out / "fp32.weights.npz").read_bytes() == before
    with pytest.raises(OutputError, match="another configuration"):
        CliRunner().invoke(
            command, [*arguments[:-2], str(settings(tmp_path, epochs=3))], catch_exceptions=False
        )


def test_a_finished_run_keeps_what_was_fitted_and_refuses_other_inputs(
    tf_keras: object, data: Path, tmp_path: Path
) -> None:
    table = data / "labels.csv"
    table.write_text(table.read_text("utf-8").replace(",split\n", "\n").replace(",train\n", "\n"), "utf-8")
    out, first, other = tmp_path / "run", tmp_path / "a" / "w.npz", tmp_path / "b" / "w.npz"
    for path in (first, other):
        path.parent.mkdir()
        model = architectures.build("plain_cnn", size=SIZE, labels=3, keras=tf_keras)
        weights.save(path, weights.collect(model))
    own = ["--data", str(data), "--out", str(out), "--config", str(settings(tmp_path, epochs=1))]

    def train(*more: str) -> None:
        CliRunner().invoke(command, [*own, *more], catch_exceptions=False)

    train("--weights", str(first), "--teacher", str(first))
    document = json.loads((out / "run.json").read_text("utf-8"))
    measured = {point["measured_on"] for point in document["spec"]["operating_points"].values()}
    assert measured
    assert not any("None" in text for text in measured)
    document["spec"]["events"]["min_frames"] = 7
    (out / "run.json").write_text(json.dumps(document), encoding="utf-8")
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    train("--weights", str(first), "--teacher", str(first))
    for more in (
        ["--weights", str(other), "--teacher", str(first)],
        ["--weights", str(first), "--teacher", str(other)],
        ["--weights", str(first)],
        ["--weights", str(first), "--teacher", str(first), "--calibrate-on", str(other)],
        ["--weights", str(first), "--teacher", str(first), "--fp32", str(other)],
        ["--weights", str(first), "--teacher", str(first), "--name", "other"],
    ):
        with pytest.raises(OutputError, match=r"holds a run of another name, or .*given\.json"):
            train(*more)
    with pytest.raises(InputError, match=r"none\.npz cannot be read"):
        train("--weights", str(tmp_path / "none.npz"))
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_teachers_are_learnt_from(tf_keras: object, frames: Frames, tmp_path: Path) -> None:
    from tiny_model import write_tiny_model

    from capsule_edge.runtime.inference import open_model
    from capsule_edge.train.fit import ask

    config = TrainConfig(architecture="plain_cnn", size=SIZE)
    model = architectures.build("plain_cnn", size=SIZE, labels=3, keras=tf_keras)
    weights.save(tmp_path / "a.npz", weights.collect(model))
    file = write_tiny_model(tmp_path / "b.onnx", labels=frames.keys, size=SIZE)
    rendered = Frames(frames.pixels[:2], frames.labels[:2], np.full(2, "phantom"), frames.keys)
    answers = ask([tmp_path / "a.npz", file], frames.join(rendered), config)
    logits = model((frames.pixels[:1].astype(np.float32) - 128) / 128).numpy()[0].astype(float)
    own = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    theirs = open_model(file).run(frames.pixels[:1]).probabilities[0]
    assert answers[0] == pytest.approx((own + theirs) / 2, abs=1e-4)
    assert answers[-2:].tolist() == np.eye(3)[frames.labels[:2]].tolist()
    with pytest.raises(InputError, match="other labels"):
        ask([write_tiny_model(tmp_path / "c.onnx", size=32)], frames, config)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"sampling": 2}, "sampling is 2"),
        ({"no_such": 1}, "no training configuration"),
    ],
)
def test_impossible_settings_are_named(tmp_path: Path, data: Path, fields: dict, said: str) -> None:
    with pytest.raises(CapsuleEdgeError, match=said):
        CliRunner().invoke(
            command,
            [
                "--data",
                str(data),
                "--out",
                str(tmp_path / "o"),
                "--config",
                str(settings(tmp_path, **fields)),
            ],
            catch_exceptions=False,
        )
    assert not (tmp_path / "o").exists()


def test_unknown_architecture_size_and_weights_are_named(tf_keras: object, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'vgg' is not known"):
        architectures.build("vgg", size=64, labels=3, keras=tf_keras)
    with pytest.raises(UsageError, match="multiple of 16"):
        architectures.build("plain_cnn", size=70, labels=3, keras=tf_keras)
    (tmp_path / "w.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="holds no weights"):
        weights.load(tmp_path / "w.npz")
    model = architectures.build("plain_cnn", size=64, labels=3, keras=tf_keras)
    with pytest.raises(InputError, match="lack"):
        weights.assign(model, {"conv_1/kernel": np.zeros((3, 3, 3, 16), np.float32)}, fresh=("logits",))


def test_a_label_that_the_model_lacks_and_a_broken_image_are_named(data: Path, frames: Frames) -> None:
    from capsule_edge.evaluation.datasets import load_dataset
    from capsule_edge.runtime.inference import InputSpec

    dataset = load_dataset(data, split="train")
    with pytest.raises(InputError, match="polyp"):
        load_frames(dataset, ("normal", "bleeding"), InputSpec(SIZE))
    (data / "7.png").write_bytes(b"no image")
    loaded = load_frames(dataset, frames.keys, InputSpec(SIZE))
    assert len(loaded) == 95
    assert [Path(file).name for file in loaded.unreadable] == ["7.png"]


@pytest.mark.parametrize("keys", [("bleeding", "polyp"), ("normal", "pylorus")])
def test_labels_that_no_phantom_shows_are_named(
    tf_keras: object, data: Path, tmp_path: Path, keys: tuple[str, str]
) -> None:
    """Before anything is written: the same folder takes the settings that the message names."""
    table = (data / "labels.csv").read_text("utf-8").splitlines()
    rows = [line.replace("bleeding", keys[0]).replace("polyp", keys[1]) for line in table]
    kept = [row for row in rows if row == table[0] or row.split(",")[1] in keys]
    (data / "labels.csv").write_text("\n".join(kept) + "\n", encoding="utf-8")
    words = [
        "--data",
        str(data),
        "--out",
        str(tmp_path / "o"),
        "--config",
        str(settings(tmp_path, phantom=4)),
    ]
    with pytest.raises(UsageError, match=rf"the labels are {keys[0]}, {keys[1]}, .*--set phantom=0"):
        CliRunner().invoke(command, words, catch_exceptions=False)
    assert not (tmp_path / "o").exists()


def test_a_full_disk_leaves_the_earlier_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.npz"
    weights.save(path, {"a/b": np.ones(3, np.float32)})

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OutputError, match="No space"):
        weights.save(path, {"a/b": np.zeros(3, np.float32)})
    assert weights.load(path)["a/b"].tolist() == [1, 1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["w.npz"]
