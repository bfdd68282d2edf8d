"""``capsule-edge demo-data``: its frames, the same bytes twice, its refusals, and the commands that read it."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest
from cli_calls import check_refused

from capsule_edge.evaluation.datasets import load_dataset, load_training, read_frame, splits
from capsule_edge.runtime import Reader
from capsule_edge.runtime.inference import INSTALLED, open_model
from capsule_edge.runtime.phantom import LESION_LABELS, NORMAL, count_frames, data_set
from capsule_edge.runtime.phantom.recording import DATA_SET_SEEDS, RECORDING_SEEDS, TRAINING_SEEDS

CLASSES = {NORMAL, *LESION_LABELS}


@pytest.fixture(scope="module")
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set as the command writes it. No test changes it."""
    from click.testing import CliRunner

    from capsule_edge.cli.demo_data import command

    folder = tmp_path_factory.mktemp("demo-data") / "frames"
    result = CliRunner().invoke(command, [str(folder)], catch_exceptions=False)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "The frames are rendered" in result.stdout
    return folder


@pytest.fixture
def two_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command render the first 2 videos instead of all 16."""
    monkeypatch.setattr(data_set, "SPLITS", ("train", "val"))


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_labels_csv_names_every_file_and_says_that_it_is_rendered(demo_data: Path) -> None:
    with (demo_data / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "label", "source", "video_id", "frame_number", "split"]
    assert len(rows) == count_frames() == 432
    assert {row["file"] for row in rows} == set(contents(demo_data)) - {"labels.csv"}
    assert {row["source"] for row in rows} == {"rendered phantom"}
    assert all(row["file"].startswith(f"{row['label']}/{row['video_id']}_") for row in rows)


def test_every_class_is_in_both_splits_and_no_video_is(demo_data: Path) -> None:
    training, measured = load_training(demo_data), load_dataset(demo_data)
    assert (training.split, measured.split) == ("train", "val")
    videos = [{sample.video_id for sample in dataset.samples} for dataset in (training, measured)]
    assert [len(names) for names in videos] == [12, 4]
    assert videos[0] & videos[1] == set()
    for dataset, frames, normal in ((training, 36, 144), (measured, 12, 48)):
        counts = Counter(sample.label for sample in dataset.samples)
        assert counts == {NORMAL: normal, **dict.fromkeys(LESION_LABELS, frames)}


def test_a_frame_shows_what_its_label_says(demo_data: Path) -> None:
    """The standard model was trained on phantoms of other scenes, so it labels nearly all of these frames right."""
    samples = load_dataset(demo_data).samples[::4]
    frames = [read_frame(sample) for sample in samples]
    assert {frame.shape for frame in frames} == {(224, 224, 3)}
    with Reader.open() as reader:
        found = [next(reader.stream([frame])).label for frame in frames]
    right = sum(label == sample.label for label, sample in zip(found, samples, strict=True))
    assert right >= 0.9 * len(samples)


@pytest.mark.parametrize("name", INSTALLED)
def test_its_labels_are_labels_of_the_installed_models(name: str) -> None:
    model = open_model(name)
    assert set(model.spec.keys) >= CLASSES
    model.close()


def test_one_seed_gives_the_same_files_and_another_gives_other_scenes(
    call, two_videos: None, demo_data: Path
) -> None:
    again = call("demo-data", "again", "--json")
    assert (again.code, again.err) == (0, "")
    written, whole = contents(Path("again")), contents(demo_data)
    images = set(written) - {"labels.csv"}
    assert len(images) == 54
    assert {name: written[name] for name in images} == {name: whole[name] for name in images}
    assert again.json["splits"]["val"]["classes"] == {NORMAL: 12, **dict.fromkeys(LESION_LABELS, 3)}
    assert "rendered" in again.json["note"]
    assert call("demo-data", "twice").code == 0
    assert contents(Path("twice")) == written
    assert call("demo-data", "other", "--seed", 1).code == 0
    assert set(contents(Path("other")).values()) & set(written.values()) == set()


def test_its_scenes_are_neither_a_demos_nor_a_training_phantoms() -> None:
    assert RECORDING_SEEDS.stop <= DATA_SET_SEEDS.start
    assert DATA_SET_SEEDS.stop <= TRAINING_SEEDS.start


def test_a_folder_that_is_not_empty_is_refused(call, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    refused = call("demo-data", folder)
    check_refused(refused, 1, f"{folder} is not empty (choose a new folder, or empty this one)")
    assert contents(folder) == {"notes.txt": b"mine"}
    as_json = call("demo-data", folder, "--json")
    assert (as_json.code, as_json.json["error"]["code"]) == (1, "output")
    check_refused(call("demo-data", folder / "notes.txt"), 1, "a file lies in its place")
    check_refused(call("demo-data", tmp_path / "new", "--seed", 10**6), 2, "allowed is 0 to 62436")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("there", [False, True])
def test_a_fault_while_writing_leaves_nothing(
    call, two_videos: None, there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a" / "b"
    if there:
        folder.mkdir(parents=True)

    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    # labels.csv is written last, when all images are.
    monkeypatch.setattr(splits, "write_labels", full)
    check_refused(call("demo-data", folder), 1, f"{folder} cannot be written: no space left on device")
    assert (tmp_path / "a").exists() == there
    assert not there or list(folder.iterdir()) == []


def test_audit_and_split_read_it(call, demo_data: Path) -> None:
    audit = call("audit", demo_data, "--json")
    assert (audit.code, audit.json["verdict"], audit.json["findings"]) == (0, "sound", [])
    split = call("split", demo_data, "--folds", 4, "--hold-out", 0, "--out", "divided/labels.csv", "--json")
    assert split.code == 0
    assert {name: entry["videos"] for name, entry in split.json["splits"].items()} == {"train": 12, "val": 4}


def test_evaluate_and_compare_read_it(call, demo_data: Path) -> None:
    pytest.importorskip("sklearn")
    options = ("--data", demo_data, "--resamples", 0, "--json")
    measured = call("evaluate", "small", *options)
    assert (measured.code, measured.json["frames"], measured.json["data"]["split"]) == (0, 108, "val")
    assert list(measured.json["per_source"]) == ["rendered phantom"]
    certificate = call("compare", "small", "small", *options)
    assert (certificate.code, certificate.json["agreement"]) == (0, 1.0)
