"""Whole training runs: killed and continued, full disks, damaged images, several workers, wrong settings."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from training_samples import DAMAGED, KEYS, SETTINGS, SIZE, WholeRun, setting_words

pytest.importorskip("tf_keras", reason="needs the extra 'train'")

from capsule_edge.cli.train import command
from capsule_edge.evaluation.datasets import Sample, training_provenance
from capsule_edge.runtime.errors import InputError, OutputError, UsageError
from capsule_edge.train.config import TrainConfig
from capsule_edge.train.data import TrainingFrames, cached_frames
from capsule_edge.train.models import weights

MADE = TrainConfig(phantom=3)


def arguments(data: Path, out: Path, *settings: str) -> list[str]:
    return ["--data", str(data), "--out", str(out), *setting_words(*SETTINGS, *settings)]


def started(words: list[str], **kwargs: Any) -> subprocess.Popen[str]:
    code = "import sys; from capsule_edge.cli.main import main; main(sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", code, "train", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs,
    )  # fmt: skip


def curve(out: Path) -> list[dict[str, str]]:
    """Return the rows of curve.csv without the column of seconds."""
    with (out / "curve.csv").open(encoding="utf-8", newline="") as stream:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(stream)]


def kill_at(words: list[str], part: str, step: int) -> None:
    """Start training in a process of its own, and kill it once it has saved ``step`` steps of ``part``."""
    process = started([*words, "--checkpoint-every", "0"])
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(f"part {part}  checkpoint ") and int(line.split()[-1]) >= step:
            process.kill()
            break
    process.communicate(timeout=60)
    assert process.returncode, "the run ended before it was killed"


def test_a_killed_run_ends_as_an_uninterrupted_one(data: Path, whole_run: WholeRun, tmp_path: Path) -> None:
    """Kill a run within an epoch of FP32, then of QAT: it ends in the same bytes as the whole run."""
    out, whole = tmp_path / "killed", whole_run.out
    words = ["--data", str(data), "--out", str(out), *whole_run.words]
    for part, step in (("fp32", 11), ("qat", 5)):
        kill_at(words, part, step)
        assert not (out / "run.json").exists()
    CliRunner().invoke(command, words, catch_exceptions=False)
    for name in (
        *("fp32.weights.npz", "calibration.npz", "qat.weights.npz", "replay.npz"),
        *("run.json", "config.json", "held_out.json"),
    ):
        assert (whole / name).read_bytes() == (out / name).read_bytes(), name
    assert curve(whole) == curve(out)
    assert [row["epoch"] for row in curve(out) if row["part"] == "fp32"][:2] == ["0", "1"]
    assert not (out / "cache").exists()


def test_a_run_records_the_videos_that_it_held_out(whole_run: WholeRun) -> None:
    held = json.loads((whole_run.out / "held_out.json").read_text("utf-8"))
    assert held["calibration"]
    assert held["stopping"]
    assert not set(held["calibration"]) & set(held["stopping"])
    with np.load(whole_run.out / "calibration.npz") as answers:
        damaged = sum(f"v{int(Path(name).stem) % 12}" in held["calibration"] for name in DAMAGED)
        assert len(answers["labels"]) == 16 * len(held["calibration"]) - damaged


def test_a_full_disk_costs_no_checkpoint(data: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the system refuses the rest of the write."""
    resource = pytest.importorskip("resource")
    earlier = {"a/b": np.ones(1000, np.float32)}
    weights.save(tmp_path / "w.npz", earlier)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
        with pytest.raises(OutputError, match=r"w\.npz cannot be written: file too large"):
            weights.save(tmp_path / "w.npz", {"a/b": np.zeros(100_000, np.float32)})
        with pytest.raises(OutputError, match=r"cannot be written.*file too large"):
            cached_frames(load(data), KEYS, spec(), tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert weights.load(tmp_path / "w.npz")["a/b"].tolist() == [1] * 1000
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["cache", "w.npz"]


def test_a_run_says_in_one_line_that_the_disk_is_full(data: Path, tmp_path: Path, call: Any) -> None:
    """A limit on the size of files stands for the full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
        called = call("train", *arguments(data, tmp_path / "run"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert called.code == 1
    last = called.err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "fp32.checkpoint.npz cannot be written: file too large" in last
    assert "Traceback" not in called.err
    assert not list((tmp_path / "run").glob(".*.tmp*"))


def load(data: Path) -> Any:
    from capsule_edge.evaluation.datasets import load_dataset

    return load_dataset(data)


def spec() -> Any:
    from capsule_edge.runtime.inference import InputSpec

    return InputSpec(SIZE)


def test_the_cache_equals_loading_and_is_rebuilt_when_damaged(data: Path, tmp_path: Path) -> None:
    from capsule_edge.train.data import load_frames
    from capsule_edge.train.data.frames import phantom_frames
    from capsule_edge.train.data.transplants import MADE_SEED

    dataset = load(data).take(range(20))
    wanted = load_frames(dataset, KEYS, spec()).join(phantom_frames(3, KEYS, spec(), MADE_SEED))
    for _ in range(2):
        got = cached_frames(dataset, KEYS, spec(), tmp_path, config=MADE)
        assert isinstance(got.pixels, np.memmap)
        assert np.array_equal(got.pixels, wanted.pixels)
        assert np.array_equal(got.labels, wanted.labels)
        assert np.array_equal(got.videos, wanted.videos)
    (file,) = tmp_path.glob("*.frames")
    made = file.stat().st_mtime_ns
    cached_frames(dataset, KEYS, spec(), tmp_path, config=MADE)
    assert file.stat().st_mtime_ns == made
    with file.open("r+b") as stream:
        stream.truncate(100)
    again = cached_frames(dataset, KEYS, spec(), tmp_path, config=MADE)
    assert np.array_equal(again.pixels, wanted.pixels)
    cached_frames(dataset.take(range(19)), KEYS, spec(), tmp_path, config=MADE)
    assert len(list(tmp_path.glob("*.frames"))) == 2
    with pytest.raises(InputError, match="has label"):
        cached_frames(dataset, ("normal",), spec(), tmp_path)


def test_batches_start_at_any_step_and_are_split_among_workers() -> None:
    from capsule_edge.train.data import batches, draw_epoch, draw_mixing, unpack

    rng = np.random.default_rng(0)
    frames = TrainingFrames(
        rng.integers(0, 256, (30, 32, 32, 3), np.uint8), np.arange(30) % 3, np.full(30, "v"), KEYS
    )
    config = TrainConfig(size=32, batch=8, mixup=0.3, debris=1)
    drawn, share = draw_epoch(np.full(30, 1 / 30), 32, config, 2, 5), draw_mixing(config, 2, 5)
    assert 0 < share.max() <= 0.5
    whole = [unpack(item) for item in batches(frames, drawn, share)]
    assert len(whole) == 5
    for step, (pixels, rows, mixed, variation) in enumerate(whole):
        assert np.array_equal(pixels, frames.pixels[drawn.rows[step]])
        assert np.array_equal(rows, drawn.rows[step])
        assert np.array_equal(mixed, share[step])
        assert np.array_equal(variation.spots, drawn.variation.spots[step])
    later = [unpack(item) for item in batches(frames, drawn, share, first=3)]
    assert [np.array_equal(a[0], b[0]) for a, b in zip(whole[3:], later, strict=True)] == [True, True]
    halves = [[unpack(i) for i in batches(frames, drawn, share, part=(n, n + 1, 2))] for n in (0, 1)]
    for step, (one, other) in enumerate(zip(*halves, strict=True)):
        assert np.array_equal(np.concatenate([one[0], other[0]]), whole[step][0])


def test_damaged_images_are_named_skipped_and_counted(whole_run: WholeRun) -> None:
    result = whole_run.result
    assert [Path(file).name for file in json.loads(result.stdout)["skipped"]] == list(DAMAGED)
    assert "warning: 2 images could not be read and left out" in result.stderr
    provenance = json.loads((whole_run.out / "run.json").read_text("utf-8"))["spec"]["provenance"]
    assert (provenance["frames"], provenance["unreadable"]) == (190, 2)
    samples = [Sample(Path("x"), "polyp", video_id=f"v{i}") for i in range(12)]
    assert provenance["training_videos"] == training_provenance(samples)["training_videos"]


def test_tensorboard_shows_the_curve(tmp_path: Path) -> None:
    import tensorflow as tf

    from capsule_edge.train.loop import TrainingLog

    lines: list[dict[str, Any]] = []
    write = TrainingLog(tmp_path, lines.append).of("fp32")
    for epoch, loss in ((0, 1.5), (1, 1.25), (1, 1.25)):
        write({"step": 1, "of": 2, "loss": loss})
        write({"epoch": epoch, "loss": loss, "seconds": 1.0, "rate": 0.1})
    assert len(lines) == 6
    assert [(row["epoch"], row["loss"]) for row in curve(tmp_path)] == [("0", "1.5"), ("1", "1.25")]
    found = {}
    for file in sorted((tmp_path / "tensorboard" / "fp32").iterdir()):
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                assert value.metadata.plugin_data.plugin_name == "scalars"
                found[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
    assert found[("loss", 0)] == 1.5
    assert found[("loss", 1)] == 1.25
    (tmp_path / "curve.csv").unlink()
    (tmp_path / "curve.csv").mkdir()
    with pytest.raises(OutputError, match=r"curve\.csv cannot be written"):
        write({"epoch": 2, "loss": 1.0, "seconds": 1.0})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "epochs"], "'epochs' sets nothing, allowed is FIELD=VALUE"),
        (["--set", "no_such=1"], "'no_such' is not known, allowed are architecture"),
        (["--set", "epochs=many"], "epochs is 'many', allowed is a whole number"),
        (["--set", "epochs=2.5"], "epochs is 2.5, allowed is a whole number"),
        (["--set", "saturation_safe=1"], "saturation_safe is 1, allowed is true or false"),
        (["--set", "focal=-1"], "focal is -1, allowed is 0 or more"),
        (["--set", "learning_rate=NaN"], "learning_rate is nan, allowed is a number above 0"),
        (["--set", "debris=2"], "debris is 2, allowed is 0 to 1"),
        (["--batch", "0"], "batch is 0, allowed is a number above 0"),
    ],
)
def test_wrong_overrides_are_named(data: Path, tmp_path: Path, words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        CliRunner().invoke(
            command, ["--data", str(data), "--out", str(tmp_path / "o"), *words], catch_exceptions=False
        )
    assert message in str(caught.value)
    assert not (tmp_path / "o").exists()


def test_options_override_the_file_and_set_overrides_both(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"batch": 8, "seed": 3, "architecture": "plain_cnn"}', encoding="utf-8")
    config = TrainConfig.of(TrainConfig.read(tmp_path / "c.json").to_dict() | {"batch": 16})
    config = config.override(
        ["batch=32", "ema=.5", "architecture=efficientnet_lite0", "saturation_safe=false"]
    )
    assert (config.batch, config.seed, config.ema) == (32, 3, 0.5)
    assert (config.architecture, config.saturation_safe) == ("efficientnet_lite0", False)
    (tmp_path / "list.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(InputError, match="holds no training configuration"):
        TrainConfig.read(tmp_path / "list.json")


def _ports(count: int) -> list[int]:
    """Return ports that are free at this moment."""
    taken = [socket.socket() for _ in range(count)]
    try:
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in taken]
    finally:
        for one in taken:
            one.close()


@pytest.mark.workers
def test_two_workers_give_the_curve_of_one(data: Path, tmp_path: Path) -> None:
    settings = ("epochs=6", "ema=0.9")
    hosts = [f"127.0.0.1:{port}" for port in _ports(2)]

    def run(out: Path, index: int | None, *more: str) -> subprocess.Popen[str]:
        cluster = {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}
        environment = os.environ | ({} if index is None else {"TF_CONFIG": json.dumps(cluster)})
        return started(arguments(data, out, *settings, *more), env=environment)

    pairs = {"one": [None], "two": [0, 1]}
    for name, workers in pairs.items():
        processes = [run(tmp_path / name, index) for index in workers]
        printed = [process.communicate(timeout=400) for process in processes]
        assert [process.returncode for process in processes] == [0] * len(workers), printed
    one, two = (
        np.array([float(row["loss"]) for row in curve(tmp_path / name) if row["part"] == "fp32"])
        for name in pairs
    )
    assert one[-1] < 0.7 * one[0]
    # Two workers add gradients and statistics in another order than one. If a single worker reverses its batches, which
    # changes the order too, its curve moves by up to 2e-4 (rounding, and Adam's equal steps for small gradients). Five
    # times that is allowed. With separate statistics for each worker's half the curve moves by .09.
    assert np.abs(one - two).max() < 1e-3
    assert {p.name for p in (tmp_path / "one").iterdir()} == {p.name for p in (tmp_path / "two").iterdir()}
