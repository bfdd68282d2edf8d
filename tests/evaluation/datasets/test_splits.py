"""Splits keep videos whole, official splits come with or without their faults, a leaking split needs an option."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from capsule_edge.cli.split import command
from capsule_edge.evaluation.audit import audit
from capsule_edge.evaluation.datasets import (
    Dataset,
    Listing,
    Sample,
    conflicting,
    folds,
    list_samples,
    load_dataset,
)
from capsule_edge.evaluation.datasets.splits import (
    fold_of,
    official,
    split_by_video,
    split_leaking,
    write_labels,
)
from capsule_edge.runtime.errors import CapsuleEdgeError, InputError, OutputError, UsageError

HEADER = "file,label,source,video_id,frame_number,split"


def one_line(error: pytest.ExceptionInfo[CapsuleEdgeError], *words: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text


@pytest.mark.quick
def test_no_video_is_on_both_sides_of_a_fold() -> None:
    samples = tuple(Sample(Path(f"{i}.png"), "ab"[i % 2], None, f"v{i // 10}", i, None) for i in range(100))
    data = Dataset(samples, ("a", "b"))
    pairs = folds(data, 5, 3)
    assert len(pairs) == 5
    held_out = sorted(i for _, out in pairs for i in out.tolist())
    assert held_out == list(range(100))
    for kept, out in pairs:
        assert not {samples[i].video_id for i in kept} & {samples[i].video_id for i in out}
    again = folds(data, 5, 3)
    assert all((x[1] == y[1]).all() for x, y in zip(pairs, again, strict=True))


def test_folds_that_cannot_be_made_are_refused() -> None:
    samples = tuple(Sample(Path(f"{i}.png"), "a", None, "v", i, None) for i in range(4))
    with pytest.raises(InputError) as error:
        folds(Dataset(samples, ("a",)), 2, 0)
    one_line(error, "1 videos", "2 folds")
    assert "--" not in str(error.value)
    with pytest.raises(InputError) as error:
        folds(Dataset((Sample(Path("x.png"), "a"), *samples), ("a",)), 2, 0)
    one_line(error, "1 of 5", "video_id")
    with pytest.raises(UsageError):
        folds(Dataset(samples, ("a",)), 1, 0)


def frames(count: int = 60, videos: int = 12) -> list[Sample]:
    return [
        Sample(Path(f"{i}.png"), "ab"[i % 2], "S", f"v{i * videos // count}", i, "train")
        for i in range(count)
    ]


def test_a_class_with_fewer_frames_than_folds_gives_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    labels = np.array(["a"] * 20 + ["b"])
    videos = np.array([f"v{i // 3}" for i in range(21)])
    assert set(fold_of(labels, videos, 5)) == set(range(5))
    assert [str(warning.message) for warning in recwarn] == []


def test_folds_are_stratified_by_label() -> None:
    labels = np.array(["a"] * 80 + ["b"] * 20)
    videos = np.array([f"a{i // 8}" for i in range(80)] + [f"b{i // 2}" for i in range(20)])
    fold = fold_of(labels, videos, 5)
    # Ten videos of each class, all alike: every fold has two of each.
    for number in range(5):
        assert ((labels == "a") & (fold == number)).sum() == 16
        assert ((labels == "b") & (fold == number)).sum() == 4


def test_one_fold_is_held_out() -> None:
    assigned = split_by_video(frames(), 4, held_out=1)
    fold = split_by_video(frames(), 4)
    assert {s.split for s in fold} == {"fold0", "fold1", "fold2", "fold3"}
    assert [s.split == "val" for s in assigned] == [s.split == "fold1" for s in fold]
    assert {s.split for s in assigned} == {"train", "val"}
    with pytest.raises(UsageError, match="is 4, allowed is 0 to 3"):
        split_by_video(frames(), 4, held_out=4)


def test_a_random_split_puts_a_video_on_both_sides() -> None:
    assigned = split_leaking(frames(), 3)
    sides = {
        s.video_id: {other.split for other in assigned if other.video_id == s.video_id} for s in assigned
    }
    assert any(len(found) > 1 for found in sides.values())
    assert [sum(s.split == f"fold{i}" for s in assigned) for i in range(3)] == [20, 20, 20]
    with pytest.raises(UsageError):
        split_leaking(frames(2), 3)


def kvasir(root: Path) -> Path:
    """Write two official splits that share a video (three frames in split_0, one in split_1); a file has two labels."""
    one, two, three = "1" * 16, "2" * 16, "3" * 16
    rows = [(one, i, "Polyp") for i in range(3)] + [(one, 3, "Ulcer"), (two, 1, "Polyp"), (three, 1, "Ulcer")]
    head = "filename;video_id;frame_number;finding_category;finding_class;x1;y1;x2;y2;x3;y3;x4;y4"
    lines = [f"{v}_{n}.jpg;{v};{n};Luminal;{c};;;;;;;;" for v, n, c in [*rows, (three, 1, "Polyp")]]
    root.mkdir(parents=True, exist_ok=True)
    (root / "metadata.csv").write_text("\n".join([head, *lines]) + "\n")
    first = [f"{v}_{n}.jpg,{c}" for v, n, c in rows[:3]]
    second = [f"{v}_{n}.jpg,{c}" for v, n, c in [*rows[3:], (three, 1, "Polyp")]]
    (root / "split_0.csv").write_text("\n".join(["filename,label", *first]) + "\n")
    (root / "split_1.csv").write_text("\n".join(["filename,label", *second]) + "\n")
    return root


@pytest.mark.quick
def test_official_splits_with_their_faults_and_without(tmp_path: Path) -> None:
    listing = list_samples(kvasir(tmp_path))
    published = official(listing, "published")
    assert [(s.file.name[0], s.label, s.split) for s in published] == [
        *[("1", "polyp", "split_0")] * 3,
        ("1", "ulcer", "split_1"),
        ("2", "polyp", "split_1"),
        ("3", "ulcer", "split_1"),
        ("3", "polyp", "split_1"),
    ]
    cleaned = official(listing, "cleaned")
    # The shared video goes whole to the side of its three frames, the file of two labels is left out.
    assert [(s.file.name[0], s.label, s.split) for s in cleaned] == [
        *[("1", "polyp", "split_0")] * 3,
        ("1", "ulcer", "split_0"),
        ("2", "polyp", "split_1"),
    ]


def test_data_without_official_splits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(f"{HEADER}\nx.png,a,S,v,1,train\n")
    with pytest.raises(InputError) as error:
        official(list_samples(tmp_path), "cleaned")
    one_line(error, "split_0.csv")


def test_the_published_splits_are_cleaned(published_listing: Listing) -> None:
    published = official(published_listing, "published")
    assert len(published) == 23_061 + 24_100  # the rows of the two files
    assert len(conflicting(published)) == 8
    cleaned = official(published_listing, "cleaned")
    # Nine files under two labels: 8 of them twice in split_1, the ninth once.
    assert len(cleaned) == len(published) - 8 * 2 - 1
    sides: dict[str | None, set[str | None]] = {}
    for sample in cleaned:
        sides.setdefault(sample.video_id, set()).add(sample.split)
    assert all(len(found) == 1 for found in sides.values())
    assert not conflicting(cleaned)


def test_written_labels_are_read_again_as_a_data_set(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    samples = []
    for sample in frames(12, 6):
        file = tmp_path / "frames" / sample.file
        file.write_bytes(b"")
        samples.append(Sample(file, sample.label, sample.source, sample.video_id, sample.frame_number, "val"))
    write_labels(samples, tmp_path / "elsewhere" / "labels.csv")
    again = load_dataset(tmp_path / "elsewhere")
    assert [(s.file.resolve(), s.label, s.video_id) for s in again.samples] == [
        (s.file.resolve(), s.label, s.video_id) for s in samples
    ]
    with pytest.raises(OutputError, match="--overwrite"):
        write_labels(samples, tmp_path / "elsewhere" / "labels.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_labels(samples, tmp_path / "file" / "labels.csv")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments])


def refused(kind: type[CapsuleEdgeError], *arguments: object) -> str:
    error = call(*arguments).exception
    assert isinstance(error, kind), repr(error)
    assert "\n" not in str(error)
    return str(error)


def listed(root: Path, samples: Sequence[Sample]) -> Path:
    root.mkdir()
    rows = [f"{s.file},{s.label},S,{s.video_id or ''},{s.frame_number},{s.split}" for s in samples]
    (root / "labels.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    return root


def test_the_command_splits_by_video_and_the_audit_finds_no_shared_video(tmp_path: Path) -> None:
    data = listed(tmp_path / "data", frames())
    result = call(data, "--folds", 4, "--hold-out", 0, "--out", tmp_path / "new" / "labels.csv", "--json")
    assert result.exit_code == 0
    assert "60 of 60 files are not there" in result.stderr
    document = json.loads(result.stdout)
    assert document["by"] == "video"
    assert sum(side["frames"] for side in document["splits"].values()) == 60
    assert sum(side["videos"] for side in document["splits"].values()) == 12
    found = audit(list_samples(tmp_path / "new"))
    assert found["evaluated"] == ["val"]
    assert "shared_videos" not in {finding["check"] for finding in found["findings"]}


def test_a_random_split_needs_its_own_option(tmp_path: Path) -> None:
    nameless = [
        Sample(s.file, s.label, None, None, s.frame_number, s.split) if i == 3 else s
        for i, s in enumerate(frames())
    ]
    data = listed(tmp_path / "data", nameless)
    out = tmp_path / "new" / "labels.csv"
    assert "--random-frames-leak" in refused(InputError, data, "--folds", 4, "--out", out)
    assert not out.exists()
    result = call(data, "--folds", 4, "--hold-out", 0, "--out", out, "--random-frames-leak")
    assert result.exit_code == 0
    assert "leak" in result.stderr
    found = audit(list_samples(out.parent))
    assert found["verdict"] == "misleading"


def test_among_restricts_the_split_and_conflicting_files_are_left_out(tmp_path: Path) -> None:
    rows = [
        *frames(),
        Sample(Path("0.png"), "b", "S", "v0", 0, "train"),
        Sample(Path("x.png"), "a", "S", "w", 1, "val"),
    ]
    data = listed(tmp_path / "data", rows)
    document = json.loads(
        call(data, "--folds", 3, "--among", "train", "--out", tmp_path / "o.csv", "--json").stdout
    )
    assert sum(side["frames"] for side in document["splits"].values()) == 59
    assert "no split 'test', it has train, val" in refused(
        UsageError, data, "--folds", 3, "--among", "test", "--out", tmp_path / "p.csv"
    )


def test_options_that_contradict_each_other_or_the_data_are_refused(tmp_path: Path) -> None:
    data, out = listed(tmp_path / "data", frames()), tmp_path / "o.csv"
    assert "--folds" in refused(UsageError, data, "--out", out)
    assert "--official" in refused(UsageError, data, "--official", "cleaned", "--hold-out", 1, "--out", out)
    assert "12 videos" in refused(InputError, data, "--folds", 13, "--out", out)
    assert "official" in refused(InputError, data, "--official", "cleaned", "--out", out)
    assert "absent" in refused(InputError, tmp_path / "absent", "--folds", 3, "--out", out)
    assert call(data, "--folds", 1, "--out", out).exit_code == 2
    assert not out.exists()
