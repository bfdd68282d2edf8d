"""The report on recordings is complete, self-contained and reproducible, and the module writes it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from red_model import write_exam, write_red_model

from capsule_edge.evaluation.recordings import Span
from capsule_edge.evaluation.recordings.findings import FoundEvent, Reading
from capsule_edge.evaluation.recordings.recording_scores import summarise
from capsule_edge.evaluation.recordings.recordings_report import plots, to_html, write_recordings
from capsule_edge.runtime.errors import OutputError


def document(name: str, *, abnormal: bool = True) -> dict[str, Any]:
    labels = ["normal"] * 60 + ["polyp" if abnormal else "normal"] * 20 + ["normal"] * 20
    scores = np.linspace(0, 1, 100)
    scores[5] = np.nan
    return {
        "recording": name,
        "frames": 100,
        "answered": 99,
        "frame_accuracy": 0.5,
        "always_normal": 0.8,
        "seen_in_training": None,
        "sensitivity_by_share_read": [{"share": 0.1, "sensitivity": 0.25 if abnormal else None}],
        "reading": Reading(name, labels, scores, [FoundEvent("polyp", 61, 78, 70, 0.9)]),
        "spans": {
            "true": [Span(name, "polyp", 30.0, 40.0)] if abnormal else [],
            "found": [Span(name, "polyp", 30.5, 39.5, 0.9)],
        },
    }


@pytest.fixture(scope="module")
def documents() -> list[dict[str, Any]]:
    return [document("<b>a&b</b>.mp4"), document("clean.mp4", abnormal=False)]


def test_the_report_has_all_its_files(documents: list[dict[str, Any]], tmp_path: Path) -> None:
    summary = summarise(documents)
    paths = write_recordings(documents, summary, tmp_path / "new" / "out")
    assert sorted(path.name for path in paths) == [
        "events.png",
        "reading.png",
        "recordings.html",
        "recordings.json",
    ]
    written = json.loads((tmp_path / "new" / "out" / "recordings.json").read_text("utf-8"))
    assert written["events"] == summary
    assert [entry["recording"] for entry in written["recordings"]] == ["<b>a&b</b>.mp4", "clean.mp4"]
    for name in ("events.png", "reading.png"):
        drawn = cv2.imread(str(tmp_path / "new" / "out" / name))
        assert drawn.std() > 5  # a drawing, not a blank sheet
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match="taken"):
        write_recordings(documents, summary, tmp_path / "taken")


def test_the_page_is_self_contained_and_escapes_names(documents: list[dict[str, Any]]) -> None:
    summary = summarise(documents)
    page = to_html(documents, summary, plots(documents))
    assert page == to_html(documents, summary, plots(documents)), "the page differs from one call to the next"
    assert page.count("<svg") == 2
    assert "<b>a" not in page
    assert "temporal mAP at IoU 0.5" in page
    assert page.count("may have been in the training of the model") == 2
    # One of two recordings has a finding, which is hit; the event of the other is false.
    assert "<td>of them hit</td><td>1</td>" in page
    assert "<td>event precision at IoU 0.5</td><td>0.500</td>" in page
    for outside in ("<script", "src=", 'href="http', "@import"):
        assert outside not in page


def test_recordings_without_a_finding_have_a_report(tmp_path: Path) -> None:
    clean = [document("clean.mp4", abnormal=False)]
    paths = write_recordings(clean, summarise(clean), tmp_path)
    assert all(path.is_file() for path in paths)


def test_the_module_prints_the_scores_and_writes_the_report(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from capsule_edge.cli.run import command

    model = write_red_model(tmp_path / "red.onnx")
    exam = write_exam(tmp_path / "exam.mp4", frames=40, red=range(10, 20))
    run = CliRunner().invoke(command, [str(exam), "--model", str(model), "--out", str(tmp_path / "run")])
    assert run.exit_code == 0, run.output
    rows = [f"{i},{i},{i / 2},{'Bleeding' if 10 <= i < 20 else 'Normal'}" for i in range(40)]
    (tmp_path / "truth.csv").write_text("\n".join(["index,frame_number,time_s,label", *rows]) + "\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "capsule_edge.evaluation.recordings"),
            *(str(tmp_path / "run"), str(tmp_path / "truth.csv"), "--out", str(tmp_path / "report")),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    printed = json.loads(done.stdout.splitlines()[-1])
    assert json.loads((tmp_path / "report" / "recordings.json").read_text("utf-8")) == printed
    assert printed["events"]["hit"] == 1
    assert "wrote" in done.stderr
