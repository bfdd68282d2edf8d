"""The tables and the plot of a fit carry its figures, and say that the data name videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from event_samples import SMALL_GRID, ULCERS, make_answers
from study_samples import SPEC

from capsule_edge.evaluation.recordings import event_search
from capsule_edge.evaluation.recordings.event_curve_report import render_fit, write_plot
from capsule_edge.evaluation.recordings.event_fit import fit_document
from capsule_edge.runtime.errors import UsageError


@pytest.fixture
def document(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(event_search, "GRID", SMALL_GRID)
    recordings = [make_answers(ULCERS, name="a"), make_answers(ULCERS[:1], name="b")]
    return fit_document(SPEC, recordings, [make_answers(ULCERS, name="c")], budgets=[1.0])


def test_the_tables_show_the_figures(document: dict[str, Any]) -> None:
    text = render_fit(document)
    lines = text.splitlines()
    assert any(line.startswith("left_out ") and "3 of 3 findings hit, 3 seen" in line for line in lines)
    curve = next(line for line in lines if line.startswith("| 1 |"))
    assert curve.startswith("| 1 | 3 of 3, 100 % (100 to 100 %) |")
    assert "| ulcer | 3 | 3 | 3 | 3 | 0 | 0 | 0 |" in lines
    held = lines.index("by class, held recordings, fitted within 5 false events in 1,000:")
    assert lines[held + 3] == "| ulcer | 2 | 2 | 2 | 2 | 0 | 0 | 0 |"
    assert "| c | 1000 | 2 | 2 | 2 | 2 | 0 | 0 |" in lines
    assert "not judged: blood_fresh" in text
    assert "not patients" in text
    assert "Nobody stated" in text


def test_the_tables_of_a_fit_without_a_curve_are_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_search, "GRID", SMALL_GRID)
    text = render_fit(fit_document(SPEC, [make_answers(ULCERS)], out_of_fold=True))
    assert "2 of 2 findings hit" in text
    assert "budget" not in text
    assert "As stated with --out-of-fold" in text


@pytest.mark.parametrize(("name", "start"), [("curve.png", b"\x89PNG"), ("curve.svg", b"<?xml")])
def test_the_plot_is_written(name: str, start: bytes, document: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write_plot(document, tmp_path / name)
    content = (tmp_path / name).read_bytes()
    assert content.startswith(start)
    if name.endswith(".svg"):
        assert b"not patients" in content
        assert b"findings seen" in content


def test_another_kind_of_plot_is_refused(document: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must end in \.png or \.svg"):
        write_plot(document, tmp_path / "curve.pdf")
