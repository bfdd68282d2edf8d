"""Tables on narrow terminals: columns that do not fit are printed below, and no cell is cut."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console
from tiny_model import write_tiny_model

from capsule_edge.cli import audit, info
from capsule_edge.cli._printing import table

CLASSES = ("ampulla_of_vater", "reduced_mucosal_view")


def lines(width: int, count: int, *, numbers: bool = True, cell: str = "12,345") -> list[str]:
    made = table("class", *(f"column {i}" for i in range(count)), numbers=numbers)
    for name in CLASSES:
        made.add_row(name, *(f"{cell} {i}" for i in range(count)))
    target = io.StringIO()
    Console(file=target, width=width).print(made)
    return target.getvalue().splitlines()


@pytest.mark.quick
def test_a_table_that_fits_is_one() -> None:
    text = lines(200, 8)
    assert len(text) == 6
    assert all(f"12,345 {i}" in text[3] for i in range(8))


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_columns_that_do_not_fit_are_printed_below_with_the_row_names(width: int) -> None:
    text = lines(width, 8)
    assert max(map(len, text)) <= width
    assert "…" not in "".join(text)
    for name in CLASSES:
        rows = [line.removeprefix(f" {name} ") for line in text if line.startswith(f" {name} ")]
        assert "  ".join(rows).split() == [word for i in range(8) for word in ("12,345", str(i))]
        assert len(rows) > 1


def test_texts_are_folded_rather_than_cut() -> None:
    word = "b23edd0ae449ba5b34fde15c4f7d0ec79efdd09540f2ef3edd9ec786cf8c6b1b"
    text = lines(50, 2, numbers=False, cell=word)
    assert max(map(len, text)) <= 50
    joined = "".join("".join(line[len(CLASSES[1]) + 1 :].split()) for line in text)
    assert joined.count(word) == 4


def test_the_class_table_of_an_audit_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ["file,label,video_id,split"]
    for split in ("train", "val", "a split of a long name"):
        rows += [f"{split}{i}.jpg,{CLASSES[i % 2]},{split[0]}{i % 7},{split}" for i in range(1234)]
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    monkeypatch.setenv("COLUMNS", "80")
    text = CliRunner().invoke(audit.command, [str(tmp_path)]).stdout
    document = json.loads(CliRunner().invoke(audit.command, [str(tmp_path), "--json"]).stdout)
    drawn = text[: text.index("[")].splitlines()
    assert "…" not in text
    for name in CLASSES:
        cells = " ".join(line.removeprefix(f" {name}") for line in drawn if line.startswith(f" {name} "))
        expected = [f"{entry[what]:,}" for entry in document["classes"][name].values() for what in entry]
        assert cells.split() == expected


def test_info_cuts_no_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_tiny_model(tmp_path / "m.onnx", labels=("normal", *CLASSES))
    monkeypatch.setenv("COLUMNS", "80")
    text = CliRunner().invoke(info.command, [str(model)]).stdout
    document = json.loads(CliRunner().invoke(info.command, [str(model), "--json"]).stdout)
    assert "…" not in text
    assert document["sha256"] in "".join(text.split())
    assert "threshold" in text
