"""``train --recordings``: the cache, what a run records of its recordings, and requests that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import damage
import numpy as np
import pytest
from click.testing import CliRunner, Result
from labelled_videos import write_index, write_recording, write_table
from training_samples import DAMAGED, KEYS, SETTINGS, SIZE, setting_words

from capsule_edge.cli.train import command
from capsule_edge.evaluation.datasets import load_dataset, load_training, video_mark
from capsule_edge.evaluation.recordings import LabelledRecordings, NormalStretch, load_recordings
from capsule_edge.evaluation.recordings.normal_stretches import write_stretches
from capsule_edge.runtime.errors import CapsuleEdgeError, InputError, OutputError, UsageError
from capsule_edge.runtime.inference import InputSpec
from capsule_edge.train.config import TrainConfig
from capsule_edge.train.data import (
    cached_frames,
    images_beside,
    load_frames,
    made_frames,
    recording_frames,
    with_recorded,
    without_recorded,
)

QUICK = setting_words(*SETTINGS, "epochs=1", "qat_epochs=0")


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Recordings of the videos v0 and r1 of ``train`` and v1 of ``val``. v0's frames 0 and 12 are images too."""
    root = tmp_path / "recordings"
    write_recording(root, "v0", ("Bleeding", "Normal", "Normal"))
    write_table(
        root / "v0.truth.csv", [(0, 0, "", "Bleeding"), (1, 12, "", "Normal"), (2, 900, "", "Normal")]
    )
    write_recording(root, "r1", ("Normal",) * 10 + ("Polyp",) * 4)
    write_recording(root, "v1", ("Bleeding",) * 5)
    return write_index(root, ["v0.mp4,train", "r1.mp4,train", "v1.mp4,val"])


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """Seven recordings of two classes, without an index."""
    for number in range(7):
        write_recording(
            tmp_path / "alone", f"r{number}", ("Normal",) * 6 + ("Polyp",) * 4, first=100 * number
        )
    return tmp_path / "alone"


def train(out: Path, *more: object) -> Result:
    pytest.importorskip("tf_keras", reason="needs the extra 'train'")
    words = [str(word) for word in (*more, "--out", out, "--json")]
    return CliRunner().invoke(command, [*words, *QUICK], catch_exceptions=False)


def refused(out: Path, *more: object) -> CapsuleEdgeError:
    """Return the error of a request that is refused. It has one line and leaves no run."""
    with pytest.raises(CapsuleEdgeError) as caught:
        train(out, *more)
    assert "\n" not in str(caught.value)
    assert not out.exists()
    return caught.value


def test_the_cache_holds_images_recordings_and_made_frames(
    data: Path, recordings: Path, tmp_path: Path
) -> None:
    images, spec, config = (
        load_dataset(data).take(range(30)),
        InputSpec(SIZE),
        TrainConfig(size=SIZE, phantom=3),
    )
    damage.blank(recordings / "r1.mp4", recordings / "r1.mp4", 9)
    found = load_recordings(recordings)
    drawn = recording_frames(found.recordings, KEYS, spec)
    made = made_frames(images, KEYS, spec, config, None)
    assert made is not None
    wanted = load_frames(without_recorded(images, found.recordings), KEYS, spec).join(drawn).join(made)
    stretches = [NormalStretch("r1.mp4", "polyp", 2, 3, None, None, 0.9, 2)]
    for _ in range(2):
        got = cached_frames(
            images, KEYS, spec, tmp_path / "cache", config=config, recordings=found, stretches=stretches
        )
        np.testing.assert_array_equal(got.pixels, wanted.pixels)
        assert got.labels.tolist() == wanted.labels.tolist()
        assert got.videos.tolist() == wanted.videos.tolist()
        assert got.recorded_at.tolist() == wanted.recorded_at.tolist()
        assert got.unreadable == wanted.unreadable
    assert [Path(file).name for file in got.unreadable[:2]] == list(DAMAGED)
    assert 0 < len(got.unreadable) - 2 < 14  # frames of r1
    assert got.recorded_at[got.is_hard].tolist() == [2, 3]
    assert len(list((tmp_path / "cache").glob("*.frames"))) == 1
    assert not cached_frames(
        images, KEYS, spec, tmp_path / "cache", config=config, recordings=found
    ).is_hard.any()
    write_table(recordings / "v0.truth.csv", [(0, 0, "", "Normal")])
    cached_frames(images, KEYS, spec, tmp_path / "cache", recordings=load_recordings(recordings))
    assert len(list((tmp_path / "cache").glob("*.frames"))) == 2


def test_recordings_alone_are_cached(alone: Path, tmp_path: Path) -> None:
    found, spec = load_recordings(alone), InputSpec(SIZE)
    got = cached_frames(images_beside(found), found.labels, spec, tmp_path / "cache", recordings=found)
    np.testing.assert_array_equal(got.pixels, recording_frames(found.recordings, found.labels, spec).pixels)
    assert len(got) == 70


def test_every_frame_is_a_sample_once(data: Path, recordings: Path) -> None:
    images = load_training(data)
    whole = with_recorded(images, load_recordings(recordings))
    assert len(whole.samples) == len(images.samples) - 2 + 17
    of_v0 = [
        (s.file.name, s.frame_number)
        for s in whole.samples
        if s.video_id == "v0" and s.frame_number in (0, 12)
    ]
    assert of_v0 == [("v0.mp4", 0), ("v0.mp4", 12)]
    assert with_recorded(images, None) is images


def test_a_run_records_its_recordings(data: Path, recordings: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    table = tmp_path / "stretches.csv"
    write_stretches([NormalStretch("r1.mp4", "polyp", 0, 4, None, None, 0.9, 5)], table)
    words = ("--data", data, "--recordings", recordings, "--weigh", table, "--set", "hard_weight=3")
    result = train(out, *words)
    assert result.exit_code in (0, 6), result.stderr
    given = json.loads((out / "given.json").read_text("utf-8"))
    found = load_recordings(recordings)
    assert given["recordings"] == {
        "folder": "recordings", "sha256": found.sha256, "split": "train", "recordings": 2, "frames": 17,
    }  # fmt: skip
    assert given["weigh"]["file"] == "stretches.csv"
    provenance = json.loads((out / "run.json").read_text("utf-8"))["spec"]["provenance"]
    assert provenance["recordings"] == given["recordings"]
    # The index keeps a video for ``val``, so its images are not drawn either.
    kept = [sample for sample in load_training(data).samples if sample.video_id in found.kept_videos]
    assert kept
    assert provenance["frames"] == 192 - 2 - len(DAMAGED) + 17 - len(kept)
    assert provenance["videos"] == 13 - len(found.kept_videos)
    assert video_mark("r1") in provenance["training_videos"]
    assert provenance["training"]["hard_weight"] == 3
    held = json.loads((out / "held_out.json").read_text("utf-8"))
    assert 0 < len(held["calibration"]) < provenance["videos"]
    _check_resuming(out, recordings, words)


def _check_resuming(out: Path, recordings: Path, words: tuple[object, ...]) -> None:
    """A finished run stays; one of other recordings is refused."""
    before = (out / "run.json").read_bytes()
    assert train(out, *words).exit_code in (0, 6)
    write_table(recordings / "r1.truth.csv", [(index, index, "", "Normal") for index in range(14)])
    with pytest.raises(OutputError, match=r"started with other weights, .* recordings, stretches"):
        train(out, *words)
    assert (out / "run.json").read_bytes() == before


def test_recordings_alone_are_held_out_by_video(alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = train(out, "--recordings", alone)
    assert result.exit_code in (0, 6), result.stderr
    run = json.loads((out / "run.json").read_text("utf-8"))
    assert (run["labels"], run["spec"]["held_out"]["by"]) == (2, "video")
    assert run["spec"]["provenance"]["data_sha256"] == load_recordings(alone).sha256
    held = json.loads((out / "held_out.json").read_text("utf-8"))["calibration"]
    assert held
    assert set(held) < {f"r{number}" for number in range(7)}
    assert json.loads(result.stdout)["skipped"] == []


def test_recordings_of_one_video_are_refused(alone: Path, tmp_path: Path) -> None:
    write_index(alone, [f"r{number}.mp4,one" for number in range(7)], "file,video_id")
    error = refused(tmp_path / "run", "--recordings", alone)
    assert isinstance(error, InputError)
    assert "(7) are all of the video 'one', so no other video can be held out" in error.message


def test_a_video_of_another_split_is_warned_of(tmp_path: Path, alone: Path) -> None:
    """The option parser is enough here: nothing is trained."""
    from capsule_edge.cli.train import TrainOptions, _load

    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"")
    rows = ["file,label,video_id,frame_number,split", "a.png,Normal,a,1,train", "a.png,Normal,r2,1,val"]
    (tmp_path / "images" / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    nothing = dict.fromkeys(TrainOptions.__dataclass_fields__)
    options = TrainOptions(**{**nothing, "data": tmp_path / "images", "recordings": alone})  # type: ignore[arg-type]
    _, found = _load(options)
    assert isinstance(found, LabelledRecordings)
    assert found.videos == ("r0", "r1", "r3", "r4", "r5", "r6")


def test_requests_that_do_not_fit_are_refused(data: Path, recordings: Path, tmp_path: Path) -> None:
    out, table = tmp_path / "run", tmp_path / "stretches.csv"
    write_stretches([NormalStretch("r1.mp4", "polyp", 0, 4, None, None, 0.9, 5)], table)
    both = ("--data", data, "--recordings", recordings)
    assert "there is nothing to train on" in refused(out).message
    assert (
        "--split is train, and there is no --data"
        in refused(out, "--recordings", recordings, "--split", "train").message
    )
    error = refused(out, *both, "--weigh", table)
    assert isinstance(error, UsageError)
    assert "have no effect, because hard_weight is 1" in error.message
    assert "come without recordings" in refused(out, "--data", data, "--weigh", table).message
    assert "no table lists the frames" in refused(out, *both, "--set", "hard_weight=3").message
    write_table(recordings / "r1.truth.csv", [(0, 0, "", "Worms")])
    assert (
        "line 2 has the label 'worms', allowed is one of bleeding, normal, polyp"
        in refused(out, *both).message
    )
    write_table(recordings / "r1.truth.csv", [(80, 0, "", "Normal")])
    assert "they are not the same recording" in refused(out, *both).message
