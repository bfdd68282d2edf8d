"""The normal stretches on which a model raised events, and the table that training reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_samples import FRAMES, ULCER, write_run, write_truth

from capsule_edge.evaluation._module import run_module
from capsule_edge.evaluation.recordings import NormalStretch, false_events, read_stretches
from capsule_edge.evaluation.recordings.false_events import count_stretches, false_stretches
from capsule_edge.evaluation.recordings.normal_stretches import write_stretches
from capsule_edge.runtime.errors import InputError

HEADER = "recording,label,first_index,last_index,first_frame_number,last_frame_number,peak_p,frames"


def truth_of(folder: Path, labels: dict[int, str]) -> Path:
    """Write a truth in which ``labels`` replace the normal frames; frame i has the number i."""
    rows = [f"{i},{i},,{labels.get(i, 'Normal')}" for i in range(FRAMES)]
    path = folder / "truth.csv"
    path.write_text("\n".join(["index,frame_number,time_s,label", *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with one event, an ulcer on frames 20 to 29."""
    return write_run(tmp_path / "run")


def test_an_event_on_normal_frames_is_a_stretch(run: Path, tmp_path: Path) -> None:
    (found,) = false_stretches(run, truth_of(tmp_path, {}))
    assert found == NormalStretch("exam.mp4", "ulcer", 20, 29, 20, 29, 0.8, 10)


def test_a_right_event_has_no_stretch(run: Path, tmp_path: Path) -> None:
    assert false_stretches(run, write_truth(tmp_path / "truth.csv")) == []
    half = truth_of(tmp_path, dict.fromkeys(range(20, 25), "Ulcer"))
    assert false_stretches(run, half) == []


def test_frames_of_another_finding_split_a_stretch(run: Path, tmp_path: Path) -> None:
    found = false_stretches(run, truth_of(tmp_path, {23: "Polyp", 24: "Polyp", 29: "Ulcer"}))
    assert [(s.first_index, s.last_index, s.frames) for s in found] == [(20, 22, 3), (25, 28, 4)]
    polyps = truth_of(tmp_path, dict.fromkeys(ULCER, "Polyp"))
    assert false_stretches(run, polyps) == []


def test_the_table_is_read_back(tmp_path: Path) -> None:
    stretches = [
        NormalStretch("a.mp4", "ulcer", 3, 5, 103, 105, 0.75, 3),
        NormalStretch("b.mp4", "polyp", 0, 0, None, None, 0.5, 1),
    ]
    write_stretches(stretches, tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_text("utf-8").splitlines()[0] == HEADER
    assert read_stretches(tmp_path / "s.csv") == tuple(stretches)


def test_a_frame_in_two_stretches_counts_once() -> None:
    stretches = [NormalStretch("a", label, 3, 5, None, None, 0.9, 3) for label in ("ulcer", "polyp")]
    assert count_stretches(stretches) == {"stretches": 2, "frames": 3, "by_label": {"polyp": 1, "ulcer": 1}}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a.mp4,ulcer,5,3,,,0.9,3", "line 2 goes from index 5 to 3"),
        ("a.mp4,ulcer,-1,3,,,0.9,3", "line 2 goes from index -1 to 3"),
        ("a.mp4,ulcer,first,3,,,0.9,3", "line 2 has a cell that is not a number"),
        (",ulcer,1,3,,,0.9,3", "line 2 names no recording or no label"),
        ("", "lists no stretch"),
    ],
)
def test_a_faulty_table_is_refused_in_one_line(tmp_path: Path, row: str, said: str) -> None:
    path = tmp_path / "s.csv"
    path.write_text(f"{HEADER}\n{row}\n", encoding="utf-8")
    with pytest.raises(InputError, match=said) as caught:
        read_stretches(path)
    assert "\n" not in str(caught.value)


def test_the_command_writes_the_table_and_ends_in_json(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    truth, table = truth_of(tmp_path, {}), tmp_path / "s.csv"

    def call(*arguments: object) -> int:
        monkeypatch.setattr("sys.argv", ["false_events", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            run_module(false_events.main)
        return int(ended.value.code or 0)

    assert call(run, truth, "--out", table) == 0
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert document == {"recordings": 1, "stretches": 1, "frames": 10, "by_label": {"ulcer": 1}}
    assert [s.frames for s in read_stretches(table)] == [10]
    assert call(run, truth, run, "--out", table) == 2
    assert "3 paths were given" in capsys.readouterr().err
    truth.write_text("index,label\n0,Normal\n", encoding="utf-8")
    assert call(run, truth, "--out", table) == 1
    assert "are not the same recording" in capsys.readouterr().err
