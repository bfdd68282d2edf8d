"""Tables as spreadsheets, pandas and other systems write them: read rightly, or refused with the line's number."""

from __future__ import annotations

import codecs
import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from tiny_model import LABELS, write_tiny_model

from capsule_edge.cli.audit import command as audit
from capsule_edge.cli.compare import command as compare
from capsule_edge.cli.evaluate import command as evaluate
from capsule_edge.cli.split import command as split
from capsule_edge.evaluation.datasets import list_samples, load_dataset, load_training
from capsule_edge.evaluation.datasets.table_rows import read_rows
from capsule_edge.runtime.errors import InputError

pytestmark = pytest.mark.quick

TEXT = "file,label,video_id,frame_number,split\na.png,Polyp,v,12,val\nb.png,Normal,w,,train\n"
NFC, NFD = unicodedata.normalize("NFC", "é.png"), unicodedata.normalize("NFD", "é.png")


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imencode(".png", np.full((8, 8, 3), 120, np.uint8))[1].tofile(path)
    return path


def folder(root: Path, table: bytes | str, *files: str) -> Path:
    (root / "labels.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    for file in files or ("a.png", "b.png"):
        picture(root / file)
    return root


def refused(root: Path, table: bytes | str, *words: str) -> None:
    folder(root, table)
    with pytest.raises(InputError) as error:
        list_samples(root)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


SAME = {
    "utf-8": TEXT.encode(),
    "utf-8 with a mark": codecs.BOM_UTF8 + TEXT.encode(),
    "utf-16 little": codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
    "utf-16 big": codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
    "utf-16 with tabs, as Excel's Unicode text": TEXT.replace(",", "\t").encode("utf-16"),
    "utf-32": codecs.BOM_UTF32_LE + TEXT.encode("utf-32-le"),
    "tabs": TEXT.replace(",", "\t").encode(),
    "semicolons": TEXT.replace(",", ";").encode(),
    "bars": TEXT.replace(",", "|").encode(),
    "sep=;": b"sep=;\n" + TEXT.replace(",", ";").encode(),
    "sep= in quotation marks, CRLF": b'"sep=;"\r\n' + TEXT.replace(",", ";").replace("\n", "\r\n").encode(),
    "sep=,": b"sep=,\n" + TEXT.encode(),
    "sep= tab": b"sep=\t\n" + TEXT.replace(",", "\t").encode(),
    "CRLF": TEXT.replace("\n", "\r\n").encode(),
    "CR": TEXT.replace("\n", "\r").encode(),
    "no last line end": TEXT.rstrip().encode(),
    "blank rows": TEXT.replace("\nb", "\n\n,,,,\n  \nb").encode() + b"\n\n,,,,\n",
    "blank rows first": b"\n\n" + TEXT.encode(),
    "12.0": TEXT.replace(",12,", ",12.0,").encode(),
    "12,0 in quotation marks": TEXT.replace(",12,", ',"12,0",').encode(),
    "names in capitals, with spaces": TEXT.replace("file,label", "File, LABEL ").encode(),
    "empty cells at the end": TEXT.replace("\n", ",,\n").encode(),
    "row numbers of pandas": TEXT.replace("file", ",file").replace("\na", "\n0,a").replace("\nb", "\n1,b").encode(),
    "nan for what is not known": TEXT.replace(",w,,", ",w,NaN,").encode(),
}  # fmt: skip


@pytest.mark.parametrize("form", SAME)
def test_every_form_of_a_table_gives_the_same_frames(tmp_path: Path, form: str) -> None:
    listing = list_samples(folder(tmp_path, SAME[form]))
    got = [(s.file.name, s.label, s.video_id, s.frame_number, s.split) for s in listing.samples]
    assert got == [("a.png", "polyp", "v", 12, "val"), ("b.png", "normal", "w", None, "train")]
    assert listing.remarks == ()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("file,label,video_id\na.png,Polyp,v\nb.png,Polyp, small,w\n", ["line 3", "4 cells", "header 3"]),
        ("file,label,video_id\na.png,Polyp,v\n\nb.png,Polyp\n", ["line 4", "2 cells", "header 3"]),
        ("sep=;\nfile;label\na.png;Polyp\nb.png\n", ["line 4", "1 cells"]),
        ('file,label\na.png,"Polyp\nb.png,Normal\n', ["line 2", "quotation mark"]),
        ("file,label,label\na.png,Polyp,Polyp\n", ["line 1", "'label' twice"]),
        (TEXT.encode("utf-16-le"), ["UTF-16 without a byte-order mark"]),
        ("file,label\na.png,Polyp\né.png,Polyp\n".encode("latin-1"), ["line 3", "UTF-8"]),
        (codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le")[:-1], ["UTF-16"]),
        ("file,label,frame_number\na.png,Polyp,12.5\n", ["line 2", "12.5"]),
        ("file,label,frame_number\na.png,Polyp,-1\n", ["line 2", "-1"]),
        (f"file,label,frame_number\na.png,Polyp,{'9' * 5000}\n", ["line 2"]),
        ("file,label\na.png,Polyp\n,Polyp\n", ["line 3", "no file"]),
    ],
)
def test_what_cannot_be_read_rightly_is_refused_with_its_line(
    tmp_path: Path, table: bytes | str, words: list[str]
) -> None:
    refused(tmp_path, table, *words)


@pytest.mark.parametrize("word", ["nan", "NaN", "None", "NULL", "n/a", "#N/A", "<NA>", " "])
def test_a_label_that_means_no_value_is_refused_by_name_and_line(tmp_path: Path, word: str) -> None:
    refused(tmp_path, f"file,label\na.png,Polyp\nb.png,{word}\n", "line 3", word.strip() or "no label")


def test_a_video_that_means_no_value_is_none(tmp_path: Path) -> None:
    data = load_dataset(folder(tmp_path, "file,label,video_id,source\na.png,A,nan,None\nb.png,B,v,S\n"))
    assert [(s.video_id, s.source) for s in data.samples] == [(None, None), ("v", "S")]
    assert (data.video_ids.kind, data.video_ids.given, data.video_ids.unknown) == ("given", 1, 1)


def test_repeated_rows_count_once_for_every_command(tmp_path: Path) -> None:
    folder(tmp_path, TEXT + "a.png,Polyp,v,12,val\n./a.png,polyp,v,12.0,val\n".replace("polyp", "Polyp"))
    listing = list_samples(tmp_path)
    assert len(listing.samples) == 2
    (remark,) = listing.remarks
    assert (remark.check, remark.count) == ("repeated_rows", 2)
    assert remark.examples[0] == "line 4 repeats line 2"
    assert len(load_dataset(tmp_path, split="all").samples) == 2
    assert load_dataset(tmp_path, split="all").remarks == listing.remarks


def test_repeated_rows_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, TEXT + "a.png,Polyp,x,12,val\n", "lines 2 and 4", "video_id", "'v'", "'x'")


def test_windows_paths_are_read(tmp_path: Path) -> None:
    root = folder(tmp_path, "file,label\nx\\y\\A.PNG,Polyp\n", "x/y/a.png")
    (sample,) = load_dataset(root).samples
    assert sample.file == root / "x/y/a.png"


@pytest.mark.skipif(os.sep != "/", reason="Windows has no backslash in a name")
def test_a_file_with_a_backslash_in_its_name_is_that_file(tmp_path: Path) -> None:
    (sample,) = load_dataset(folder(tmp_path, "file,label\nx\\y.png,Polyp\n", "x\\y.png")).samples
    assert sample.file.name == "x\\y.png"


@pytest.mark.parametrize(("listed", "there"), [(NFC, NFD), (NFD, NFC)])
def test_a_name_in_the_other_unicode_form_finds_its_file(tmp_path: Path, listed: str, there: str) -> None:
    data = load_dataset(folder(tmp_path, f"file,label\né/{listed},Polyp\n", f"é/{there}"))
    assert data.samples[0].file.is_file()


def test_a_name_that_fits_two_files_is_refused_with_both(tmp_path: Path) -> None:
    folder(tmp_path, "file,label\nX.PNG,Polyp\n", "x.png", "X.png")
    if len(list(tmp_path.glob("*.png"))) < 2:
        pytest.skip("the disk does not tell capitals from small letters")
    with pytest.raises(InputError) as error:
        load_dataset(tmp_path)
    for word in ("line 2", "x.png", "X.png"):
        assert word in str(error.value)


def test_the_first_missing_file_is_named_with_its_line(tmp_path: Path) -> None:
    folder(tmp_path, TEXT)
    (tmp_path / "b.png").unlink()
    with pytest.raises(InputError, match=r"1 of 2 .*b\.png \(line 3\)"):
        load_dataset(tmp_path)


def test_cells_that_a_published_table_lacks_at_the_end_are_empty(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a;b;c\n1;2\n")
    assert list(read_rows(tmp_path / "t.csv", ("a",), short_rows=True)) == [
        (2, {"a": "1", "b": "2", "c": ""})
    ]
    with pytest.raises(InputError, match="line 2"):
        list(read_rows(tmp_path / "t.csv", ("a",)))


def test_a_name_that_no_disk_can_hold_is_refused_with_its_line(tmp_path: Path) -> None:
    refused(tmp_path, f"file,label\na.png,Polyp\n{'x' * 5000}.png,Polyp\n", "line 3", "cannot be looked up")


def test_every_command_counts_the_same_frames(tmp_path: Path) -> None:
    rows = [f"{i}.png,{LABELS[i % 3]},v{i}" for i in range(12)]
    twice = [f"0.png,{LABELS[1]},v0", f"0.png,{LABELS[2]},v0"]
    text = "\n".join(["sep=,", "file,label,video_id", *rows, "", rows[3], ",,", *twice])
    (tmp_path / "d").mkdir()
    folder(tmp_path / "d", text, *(f"{i}.png" for i in range(12)))
    model = write_tiny_model(tmp_path / "a.onnx")

    def document(command: Any, *arguments: object) -> Any:
        result = CliRunner().invoke(command, [*map(str, arguments), "--json"])
        assert "1 row of labels.csv repeats" in result.output or "repeated_rows" in result.output
        return json.loads(result.stdout)

    audited = document(audit, tmp_path / "d")["data"]
    assert audited["frames"] - audited["two_labels"] == 11
    options = ("--data", tmp_path / "d", "--resamples", 0)
    answers = tmp_path / "answers.csv"
    assert document(evaluate, model, *options, "--save-predictions", answers)["frames"] == 11
    divided = document(split, tmp_path / "d", "--folds", 2, "--out", tmp_path / "labels.csv")["splits"]
    assert sum(part["frames"] for part in divided.values()) == 11
    assert document(compare, answers, model, *options)["data"]["frames"] == 11
    assert len(load_training(tmp_path / "d").samples) == 11
