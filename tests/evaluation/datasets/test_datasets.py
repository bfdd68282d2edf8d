"""Reading labelled data sets: both layouts, pictures of every kind, and every fault in one line."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from capsule_edge.evaluation.datasets import (
    Listing,
    Sample,
    VideoIds,
    conflicting,
    hash_dataset,
    load_dataset,
    read_frame,
)
from capsule_edge.evaluation.datasets.dataset import label_key
from capsule_edge.runtime.errors import CapsuleEdgeError, InputError, UsageError

HEADER = "file,label,source,video_id,frame_number,split"


def picture(path: Path, rgb: tuple[int, int, int] = (200, 120, 80), size: int = 16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size, size, 3), rgb[::-1], np.uint8)
    cv2.imencode(path.suffix, pixels)[1].tofile(path)
    return path


def table(root: Path, *rows: str, header: str = HEADER, encoding: str = "utf-8") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "labels.csv").write_text("\n".join([header, *rows]) + "\n", encoding=encoding)
    for row in rows:
        picture(root / row.split(";" if ";" in header else ",")[0])
    return root


def one_line(error: pytest.ExceptionInfo[CapsuleEdgeError], *words: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text


@pytest.mark.quick
def test_every_column_of_a_table_is_read(tmp_path: Path) -> None:
    root = table(tmp_path / "d", "a/x.png,Foreign Body,KVASIR,v1,17,val", "b/y.png,Normal,,,,train")
    data = load_dataset(root, split="all")
    assert data.samples[0] == Sample(root / "a/x.png", "foreign_body", "KVASIR", "v1", 17, "val")
    assert data.samples[1] == Sample(root / "b/y.png", "normal", None, None, None, "train")
    assert data.labels == ("foreign_body", "normal")
    assert data.name_of(data.samples[0]) == "a/x.png"


def test_val_is_the_default_split_and_all_rows_where_there_is_none(tmp_path: Path) -> None:
    both = table(tmp_path / "both", "x.png,Polyp,,v,1,val", "y.png,Ulcer,,w,2,train")
    assert [s.label for s in load_dataset(both).samples] == ["polyp"]
    assert load_dataset(both).split == "val"
    assert load_dataset(both).labels == ("polyp", "ulcer")  # one order for every split
    assert [s.label for s in load_dataset(both, split="train").samples] == ["ulcer"]
    without_value = table(tmp_path / "none", "x.png,Polyp,,v,1,train", "y.png,Ulcer,,w,2,test")
    assert len(load_dataset(without_value).samples) == 2
    without_column = table(tmp_path / "plain", "x.png,Polyp", "y.png,Ulcer", header="file,label")
    assert len(load_dataset(without_column).samples) == 2
    assert load_dataset(without_column).split is None


def test_semicolons_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    root = table(tmp_path, "x.png;Polyp;v", header="file;label;video_id", encoding="utf-8-sig")
    assert load_dataset(root).samples[0].video_id == "v"


@pytest.mark.quick
def test_class_folders(tmp_path: Path) -> None:
    picture(tmp_path / "Foreign Bodies" / "é ü.png")
    picture(tmp_path / "polyps" / "b.jpg")
    (tmp_path / ".cache").mkdir()
    data = load_dataset(tmp_path)
    assert [(s.file.name, s.label) for s in data.samples] == [("é ü.png", "foreign_body"), ("b.jpg", "polyp")]
    assert read_frame(data.samples[0]).shape == (16, 16, 3)


def test_class_folders_below_splits(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "ulcer" / "a.png")
    picture(tmp_path / "val" / "ulcer" / "b.png")
    assert [s.file.name for s in load_dataset(tmp_path).samples] == ["b.png"]
    assert [s.file.name for s in load_dataset(tmp_path, split="train").samples] == ["a.png"]


@pytest.mark.parametrize(
    ("published", "key"),
    [
        ("Foreign Body", "foreign_body"),
        ("Foreign Bodies", "foreign_body"),
        ("Blood - fresh", "bleeding"),
        ("Blood - hematin", "blood_hematin"),
        ("Normal clean mucosa", "normal"),
        ("Erythematous", "erythema"),
        ("Ileo-cecal valve", "ileocecal_valve"),
        ("dyed-lifted-polyps", "dyed_lifted_polyps"),
    ],
)
def test_published_names_become_keys(published: str, key: str) -> None:
    assert label_key(published) == key


def test_faulty_data_sets_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        load_dataset(tmp_path / "absent")
    one_line(error, "absent", "--data")
    (tmp_path / "file.csv").write_text("x")
    with pytest.raises(InputError) as error:
        load_dataset(tmp_path / "file.csv")
    one_line(error, "is a file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as error:
        load_dataset(tmp_path / "empty")
    one_line(error, "labels.csv", "class folders")
    picture(tmp_path / "folders" / "polyp" / "a.png")
    (tmp_path / "folders" / "ulcer").mkdir()
    with pytest.raises(InputError) as error:
        load_dataset(tmp_path / "folders")
    one_line(error, "ulcer", "no image")


@pytest.mark.parametrize(
    ("header", "rows", "words"),
    [
        ("file,class", ["x.png,Polyp"], ["'label'", "class"]),
        ("name,label", ["x.png,Polyp"], ["'file'"]),
        ("file,label", [], ["no rows"]),
        ("file,label", ["x.png,Polyp", "y.png,"], ["line 3", "no label"]),
        ("file,label,frame_number", ["x.png,Polyp,1.5"], ["line 2", "frame_number", "1.5"]),
    ],
)
def test_faulty_tables_are_refused_in_one_line(
    tmp_path: Path, header: str, rows: list[str], words: list[str]
) -> None:
    table(tmp_path, *rows, header=header)
    with pytest.raises(InputError) as error:
        load_dataset(tmp_path)
    one_line(error, "labels.csv", *words)


def test_rows_without_their_file_are_counted_and_the_first_named(tmp_path: Path) -> None:
    table(tmp_path, "a.png,Polyp", "b.png,Polyp", "c.png,Polyp", header="file,label")
    (tmp_path / "b.png").unlink()
    (tmp_path / "c.png").unlink()
    with pytest.raises(InputError) as error:
        load_dataset(tmp_path)
    one_line(error, "2 of 3", "b.png")


def test_a_table_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes("file,label\né.png,Polyp\n".encode("latin-1"))
    with pytest.raises(InputError) as error:
        load_dataset(tmp_path)
    one_line(error, "UTF-8")


def test_an_unknown_split_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    table(tmp_path, "x.png,Polyp,,v,1,val", "y.png,Ulcer,,w,2,train")
    with pytest.raises(UsageError) as error:
        load_dataset(tmp_path, split="test")
    one_line(error, "'test'", "train, val", "all")


def test_pictures_of_every_kind_become_rgb(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    rgb = np.array([[[250, 10, 20], [10, 240, 30]]], np.uint8)
    image.fromarray(rgb).save(tmp_path / "rgb.png")
    assert read_frame(tmp_path / "rgb.png").tolist() == rgb.tolist()
    image.fromarray(np.dstack([rgb, np.zeros((1, 2), np.uint8)])).save(tmp_path / "rgba.png")
    assert read_frame(tmp_path / "rgba.png").tolist() == rgb.tolist()
    image.fromarray(np.array([[7, 200]], np.uint8)).save(tmp_path / "grey.png")
    assert read_frame(tmp_path / "grey.png").tolist() == [[[7] * 3, [200] * 3]]
    cv2.imencode(".png", np.full((1, 1, 3), 0x80FF, np.uint16))[1].tofile(tmp_path / "deep.png")
    assert read_frame(tmp_path / "deep.png").tolist() == [[[0x80] * 3]]
    image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg")
    red = read_frame(tmp_path / "cmyk.jpg")[8, 8]
    assert red[0] > 150
    assert red[1:].max() < 100


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, 16:] = 255  # right half white
    exif = image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise: the right half becomes the lower one
    image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    frame = read_frame(tmp_path / "turned.jpg")
    assert frame.shape == (32, 16, 3)
    assert frame[:12].mean() < 10
    assert frame[20:].mean() > 245


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_truncated_picture_is_refused(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    data = cv2.imencode(suffix, noise)[1].tobytes()
    path = tmp_path / f"cut{suffix}"
    for share in (0.1, 0.5, 0.9, 0.99):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(InputError) as error:
            read_frame(path)
        one_line(error, path.name)
    path.write_bytes(data + b"trailing bytes")
    assert read_frame(path).shape == (64, 64, 3)


def test_the_end_marker_of_a_thumbnail_does_not_hide_a_truncation(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    data = cv2.imencode(".jpg", noise)[1].tobytes()
    small = cv2.imencode(".jpg", noise[:8, :8])[1].tobytes()
    block = b"\xff\xe1" + (len(small) + 2).to_bytes(2, "big") + small  # an APP1 block, where EXIF keeps it
    whole = data[:2] + block + data[2:]
    (tmp_path / "x.jpg").write_bytes(whole)
    assert read_frame(tmp_path / "x.jpg").shape == (64, 64, 3)
    (tmp_path / "x.jpg").write_bytes(whole[: len(whole) // 2 + len(small)])
    with pytest.raises(InputError, match="cut off"):
        read_frame(tmp_path / "x.jpg")


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\xff\xd8\xff\xd9"])
def test_a_file_that_is_not_a_picture_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.jpg").write_bytes(content)
    with pytest.raises(InputError) as error:
        read_frame(tmp_path / "broken.jpg")
    one_line(error, "broken.jpg")
    with pytest.raises(InputError) as error:
        read_frame(tmp_path)
    one_line(error, "cannot be read")


def test_the_hash_depends_on_the_content_and_not_on_order_or_folder(tmp_path: Path) -> None:
    rows = ["a.png,Polyp", "b.png,Ulcer"]
    first = load_dataset(table(tmp_path / "one", *rows, header="file,label"))
    second = load_dataset(table(tmp_path / "two", *rows[::-1], header="file,label"))
    assert hash_dataset(first) == hash_dataset(second)
    picture(tmp_path / "two" / "b.png", (1, 2, 3))
    assert hash_dataset(first) != hash_dataset(second)


def kvasir_capsule(root: Path) -> Path:
    """Write a small Kvasir-Capsule as published: one frame has two boxes, one is listed under two classes."""
    video, other = "0123456789abcdef", "fedcba9876543210"
    rows = [
        (f"{video}_7.jpg", video, 7, "Luminal", "Blood - fresh", "1;2;3;4;5;6;7;8"),
        (f"{video}_7.jpg", video, 7, "Luminal", "Blood - fresh", "9;9;9;9;9;9;9;9"),
        (f"{video}_8.jpg", video, 8, "Anatomy", "Pylorus", ";;;;;;;"),
        (f"{video}_8.jpg", video, 8, "Luminal", "Erosion", "1;2;3;4;5;6;7;8"),
        (f"{other}_9.jpg", other, 9, "Luminal", "Polyp", ";;;;;;;"),
    ]
    head = "filename;video_id;frame_number;finding_category;finding_class;x1;y1;x2;y2;x3;y3;x4;y4"
    lines = [head, *(";".join(map(str, row)) for row in rows)]
    root.mkdir(parents=True, exist_ok=True)
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    (root / "split_0.csv").write_text(f"filename,label\n{video}_7.jpg,Blood\n")
    for row in rows:
        picture(root / "labelled_images" / row[4] / row[0])
    return root


@pytest.mark.quick
def test_kvasir_capsule_is_read_as_published(tmp_path: Path) -> None:
    data = load_dataset(kvasir_capsule(tmp_path))
    assert [(s.label, s.video_id, s.frame_number, s.split) for s in data.samples] == [
        ("bleeding", "0123456789abcdef", 7, "split_0"),
        ("polyp", "fedcba9876543210", 9, None),
    ]
    assert [file.name for file in data.doubtful] == ["0123456789abcdef_8.jpg"]
    assert len(load_dataset(tmp_path, split="split_0").samples) == 1
    with pytest.raises(UsageError, match="split_0"):
        load_dataset(tmp_path, split="split_1")


def test_a_metadata_row_without_its_file_is_named(tmp_path: Path) -> None:
    (kvasir_capsule(tmp_path) / "labelled_images" / "Polyp" / "fedcba9876543210_9.jpg").unlink()
    with pytest.raises(InputError) as error:
        load_dataset(tmp_path)
    one_line(error, "metadata.csv", "1 of 4", "fedcba9876543210_9.jpg")


def test_the_published_metadata_has_its_known_faults(published_listing: Listing) -> None:
    samples = published_listing.samples
    assert len(conflicting(samples)) == 9
    assert len({sample.label for sample in samples}) == 14


def test_class_folders_of_published_names_have_their_videos(tmp_path: Path) -> None:
    picture(tmp_path / "Polyp" / "0123456789abcdef_7.jpg")
    picture(tmp_path / "Ulcer" / "fedcba9876543210_12.jpg")
    assert [(s.video_id, s.frame_number) for s in load_dataset(tmp_path).samples] == [
        ("0123456789abcdef", 7),
        ("fedcba9876543210", 12),
    ]
    picture(tmp_path / "Ulcer" / "another.jpg")
    data = load_dataset(tmp_path)
    assert [s.video_id for s in data.samples] == ["0123456789abcdef", None, "fedcba9876543210"]
    assert data.video_ids == VideoIds("inferred", given=0, inferred=2, unknown=1)
    assert [(r.check, r.count) for r in data.remarks] == [("inferred_videos", 2)]


def test_kvasir_v2_is_read_as_it_unpacks(tmp_path: Path) -> None:
    picture(tmp_path / "kvasir-dataset-v2" / "normal-z-line" / "a.jpg")
    picture(tmp_path / "kvasir-dataset-v2" / "polyps" / "b.jpg")
    assert load_dataset(tmp_path).labels == ("normal_z_line", "polyp")


@pytest.mark.quick
def test_a_file_under_two_labels_is_left_out_and_named(tmp_path: Path) -> None:
    table(tmp_path, "a.png,Polyp", "b.png,Ulcer", "b.png,Erosion", header="file,label")
    data = load_dataset(tmp_path)
    assert [s.label for s in data.samples] == ["polyp"]
    assert [file.name for file in data.doubtful] == ["b.png"]
