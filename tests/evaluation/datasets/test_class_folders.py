"""Class folders as disks and archives leave them: every picture is read, or its folder is refused or reported."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from capsule_edge.evaluation.audit import audit
from capsule_edge.evaluation.datasets import list_samples, load_dataset, read_frame
from capsule_edge.runtime.errors import InputError

pytestmark = pytest.mark.quick


def picture(path: Path, level: int = 120, encoding: str = ".jpg") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imencode(encoding, np.full((8, 8, 3), level, np.uint8))[1].tofile(path)
    return path


def test_a_class_folder_with_folders_of_pictures_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "polyp" / "a.jpg")
    (tmp_path / "polyp" / "empty").mkdir()
    picture(tmp_path / "ulcer" / "b.jpg")
    assert len(load_dataset(tmp_path).samples) == 2
    picture(tmp_path / "polyp" / "patient 7" / "deep" / "c.jpg")
    for read in (list_samples, load_dataset):
        with pytest.raises(InputError) as error:
            read(tmp_path)
        assert "'patient 7' with 1 pictures" in str(error.value)
        assert "labels.csv" in error.value.hint


@pytest.mark.parametrize("suffix", [".jfif", ".JPE", ".jpeg", ".pjpeg", ".jif"])
def test_every_suffix_of_jpeg_is_read(tmp_path: Path, suffix: str) -> None:
    picture(tmp_path / "polyp" / f"a{suffix}")
    picture(tmp_path / "ulcer" / "b.jpg")
    samples = load_dataset(tmp_path).samples
    assert [s.label for s in samples] == ["polyp", "ulcer"]
    assert read_frame(samples[0]).shape == (8, 8, 3)


def test_what_disks_and_systems_leave_is_no_data(tmp_path: Path) -> None:
    picture(tmp_path / "polyp" / "a.jpg")
    picture(tmp_path / "ulcer" / "b.jpg")
    picture(tmp_path / "polyp" / "@eaDir" / "a.jpg" / "SYNOFILE_THUMB_M.jpg")
    picture(tmp_path / "@eaDir" / "polyp" / "x.jpg")
    picture(tmp_path / "__MACOSX" / "polyp" / "._a.jpg")
    picture(tmp_path / "#recycle" / "old.jpg")
    (tmp_path / "polyp" / "._a.jpg").write_bytes(b"AppleDouble")
    (tmp_path / "polyp" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "polyp" / ".DS_Store").write_bytes(b"x")
    listing = list_samples(tmp_path)
    assert [s.file.name for s in listing.samples] == ["a.jpg", "b.jpg"]
    assert listing.remarks == ()


def test_files_that_are_not_read_are_counted(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "polyp" / "a.jpg")
    picture(tmp_path / "val" / "polyp" / "b.jpg")
    (tmp_path / "val" / "polyp" / "c.heic").write_bytes(b"x")
    picture(tmp_path / "more" / "polyp" / "d.jpg")
    picture(tmp_path / "e.jpg")
    found = {remark.check: remark for remark in list_samples(tmp_path).remarks}
    assert found["unread_files"].examples == ("1 .heic",)
    assert found["outside_classes"].examples == ("e.jpg", "more/polyp/d.jpg")
    document = audit(list_samples(tmp_path))
    assert {"unread_files", "outside_classes"} <= {each["check"] for each in document["findings"]}
    assert document["data"]["frames"] == len(load_dataset(tmp_path, split="all").samples) == 2


def test_splits_in_the_folder_of_an_archive_are_read(tmp_path: Path) -> None:
    picture(tmp_path / "archive" / "train" / "polyp" / "a.jpg")
    picture(tmp_path / "archive" / "Validation" / "polyp" / "b.jpg")
    assert [(s.split, s.label) for s in list_samples(tmp_path).samples] == [
        ("val", "polyp"),
        ("train", "polyp"),
    ]


@pytest.mark.parametrize("name", ["nan", "None", "null"])
def test_a_folder_named_as_a_missing_value_is_refused(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "polyp" / "a.jpg")
    picture(tmp_path / name / "b.jpg")
    with pytest.raises(InputError, match=f"{name}.*'{name}'"):
        load_dataset(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("place", [b"polyp/caf\xe9.jpg", b"caf\xe9/a.jpg"])
def test_a_name_that_is_not_utf8_is_refused_in_one_line(tmp_path: Path, place: bytes) -> None:
    picture(tmp_path / "polyp" / "a.jpg")
    file = picture(tmp_path / "b.jpg")
    target = os.fsencode(tmp_path) + b"/" + place
    os.makedirs(os.path.dirname(target), exist_ok=True)
    os.rename(os.fsencode(file), target)
    with pytest.raises(InputError) as error:
        load_dataset(tmp_path)
    str(error.value).encode()
    assert "caf\\xe9" in str(error.value)


def test_one_name_twice_below_a_published_set_is_refused_with_both(tmp_path: Path) -> None:
    name = "0123456789abcdef_7.jpg"
    row = f"{name};0123456789abcdef;7;Luminal;Polyp;;;;;;;\n"
    head = "filename;video_id;frame_number;finding_category;finding_class;x1;y1;x2;y2;x3;y3;x4;y4\n"
    (tmp_path / "metadata.csv").write_text(head + row)
    one, two = picture(tmp_path / "a" / name), picture(tmp_path / "b" / name)
    picture(tmp_path / "@eaDir" / name, 7)
    assert len(load_dataset(tmp_path).samples) == 1  # the same picture in two places
    picture(two, 40)
    with pytest.raises(InputError) as error:
        list_samples(tmp_path)
    assert str(one) in str(error.value)
    assert str(two) in str(error.value)


def test_a_file_in_two_splits_is_misleading(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", 50)
    (tmp_path / "labels.csv").write_text("file,label,split\na.jpg,Polyp,train\na.jpg,Polyp,val\n")
    document = audit(list_samples(tmp_path))
    assert "shared_files" in {f["check"] for f in document["findings"] if f["level"] == "misleading"}
