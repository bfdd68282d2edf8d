"""Folders of labelled recordings: which recordings a split holds, and faulty folders in one line each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from labelled_videos import write_index, write_recording, write_table
from video_samples import recording

from capsule_edge.evaluation.recordings import check_several_videos, load_recordings
from capsule_edge.runtime.errors import InputError, UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three recordings: a and b of ``train``, c of ``val``."""
    root = tmp_path / "recordings"
    write_recording(root, "a")
    write_recording(root, "b", ("Normal", "Foreign Bodies"))
    write_recording(root, "c", ("Normal", "Polyp"))
    return write_index(root, ["a.mp4,train", "b.mp4,train", "c.mp4,Validation"])


def names(folder: Path, **options: str) -> list[str]:
    return [recording.video.name for recording in load_recordings(folder, **options).recordings]


def test_an_index_decides_what_is_drawn(folder: Path) -> None:
    assert names(folder) == ["a.mp4", "b.mp4"]
    assert names(folder, split="val") == ["c.mp4"]
    assert names(folder, split="all") == ["a.mp4", "b.mp4", "c.mp4"]
    with pytest.raises(UsageError, match=r"no recording of the split 'test', it has train, val"):
        load_recordings(folder, split="test")


def test_all_splits_share_the_labels_in_one_order(folder: Path) -> None:
    found = load_recordings(folder)
    assert found.labels == ("foreign_body", "normal", "polyp", "ulcer")
    assert (found.frames, found.videos) == (14, ("a", "b"))
    assert [row.label for row in found.recordings[1].rows] == ["normal", "foreign_body"]


def test_a_folder_without_an_index_is_read_whole(folder: Path) -> None:
    (folder / "index.csv").unlink()
    (folder / "notes.txt").write_text("", encoding="utf-8")
    write_recording(folder, "unlabelled").with_suffix(".truth.csv").unlink()
    found = load_recordings(folder)
    assert ([r.video.name for r in found.recordings], found.split) == (["a.mp4", "b.mp4", "c.mp4"], None)


def test_an_index_without_splits_is_read_whole(folder: Path) -> None:
    write_index(folder, ["c.mp4", "a.mp4"], columns="file")
    assert names(folder) == ["c.mp4", "a.mp4"]


def test_recordings_of_one_video_stay_together(folder: Path) -> None:
    columns = "file,split,video_id"
    write_index(folder, ["a.mp4,train,v", "b.mp4,train,v", "c.mp4,val,w"], columns)
    assert load_recordings(folder).videos == ("v",)
    write_index(folder, ["a.mp4,train,v", "b.mp4,val,v"], columns)
    with pytest.raises(
        InputError, match=r"the video 'v' into the splits 'train' \(a\.mp4\) and 'val' \(b\.mp4\)"
    ):
        load_recordings(folder)


def test_recordings_of_one_video_cannot_be_held_out(folder: Path) -> None:
    found = load_recordings(folder)
    check_several_videos(found.recordings, folder)
    with pytest.raises(
        InputError, match=r"\(1\) are all of the video 'a', so no other video can be held out"
    ):
        check_several_videos(found.recordings[:1], folder)


def test_a_label_map_renames_and_leaves_out(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("yaml", reason="needs the extra 'eval'")
    table = tmp_path / "map.yaml"
    table.write_text("Ulcer: {exclude: true}\nNormal: {key: clean, role: normal}\n", encoding="utf-8")
    found = load_recordings(folder, label_map=table)
    assert found.labels == ("clean", "foreign_body", "polyp")
    assert (len(found.recordings[0].rows), found.stated_roles) == (8, {"clean"})


def test_a_label_map_may_name_classes_that_no_recording_has(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("yaml", reason="needs the extra 'eval'")
    table = tmp_path / "map.yaml"
    table.write_text("Worms: parasite\n", encoding="utf-8")
    assert load_recordings(folder, label_map=table).labels == ("foreign_body", "normal", "polyp", "ulcer")


def test_videos_that_are_kept_for_another_split_are_left_out(folder: Path) -> None:
    found = load_recordings(folder)
    assert found.without({"a", "z"}).videos == ("b",)
    with pytest.raises(InputError, match=r"every recording of .* is of a video that the data set keeps"):
        found.without({"a", "b"})


def test_the_digest_depends_on_labels_and_pictures(folder: Path) -> None:
    before = load_recordings(folder).sha256
    assert load_recordings(folder).sha256 == before
    truth = folder / "b.truth.csv"
    text = truth.read_text("utf-8")
    truth.write_text(text.replace("Foreign Bodies", "Ulcer"), encoding="utf-8")
    assert load_recordings(folder).sha256 != before
    truth.write_text(text, encoding="utf-8")
    with (folder / "a.mp4").open("ab") as file:
        file.write(b"\0")
    assert load_recordings(folder).sha256 != before


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "same index twice": (
        lambda root: write_table(root / "a.truth.csv", [(0, 0, "", "N"), (1, 1, "", "U"), (1, "", "", "U")]),
        r"a\.truth\.csv lines 3 and 4 overlap: both label the frame with the index 1",
    ),
    "same number twice": (
        lambda root: write_table(root / "a.truth.csv", [(0, 7, "", "Normal"), (1, 7, "", "Ulcer")]),
        r"lines 2 and 3 overlap: both label the frame with the frame_number 7",
    ),
    "index below 0": (
        lambda root: write_table(root / "a.truth.csv", [(-1, 7, "", "Normal")]),
        r"line 2: the index is '-1', it must be a whole number",
    ),
    "half a number": (
        lambda root: write_table(root / "a.truth.csv", [(0, "7.5", "", "Normal")]),
        r"line 2: the frame_number is '7\.5', it must be a whole number",
    ),
    "no rows": (lambda root: write_table(root / "a.truth.csv", []), r"a\.truth\.csv labels no frame"),
    "no truth": (lambda root: (root / "a.truth.csv").unlink(), r"a\.mp4 has no truth table a\.truth\.csv beside it"),
    "no video": (lambda root: (root / "a.mp4").unlink(), r"index\.csv line 2 lists the recording .*a\.mp4, which is"),
    "absent class": (
        lambda root: write_index(root, ["a.mp4,train,Ulcer; Polyp"], "file,split,labels"),
        r"index\.csv line 2 lists the class 'Polyp', which no frame of a\.truth\.csv has: it has normal, ulcer",
    ),
    "listed twice": (
        lambda root: write_index(root, ["a.mp4,train", "a.mp4,val"]),
        r"index\.csv lines 2 and 3 list the same recording a\.mp4",
    ),
    "empty index": (lambda root: write_index(root, []), r"index\.csv lists no recording"),
    "no column": (lambda root: write_index(root, ["a.mp4"], "video"), r"index\.csv lacks the column 'file'"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_folder_is_refused_in_one_line(folder: Path, fault: str) -> None:
    change, said = FAULTS[fault]
    change(folder)
    with pytest.raises(InputError, match=said) as caught:
        load_recordings(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no recording with a truth table"):
        load_recordings(tmp_path)
    write_table(tmp_path / "lost.truth.csv", [(0, 0, "", "Normal")])
    with pytest.raises(InputError, match=r"lost\.truth\.csv has no recording beside it"):
        load_recordings(tmp_path)
    with pytest.raises(InputError, match="are not there, a folder is needed"):
        load_recordings(tmp_path / "elsewhere")
    for name in ("lost.mp4", "lost.avi"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=r"may be the truth of lost\.avi and of lost\.mp4"):
        load_recordings(tmp_path)


def test_the_real_recordings_are_split_by_their_index() -> None:
    root = recording("ad91cf7ca91440aa").parent
    train, val = load_recordings(root), load_recordings(root, split="val")
    assert (len(train.recordings), train.frames) == (25, 25_578)
    assert (len(val.recordings), val.frames) == (8, 6_386)
    assert not set(train.videos) & set(val.videos)
