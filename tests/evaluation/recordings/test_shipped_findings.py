"""Findings of the shipped models by class: the counts, the rendered table, and the README's copy of it."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paths import ROOT

from capsule_edge.evaluation._documents import between
from capsule_edge.evaluation.classification import Predictions
from capsule_edge.evaluation.recordings.findings import FoundEvent, Reading, score_findings
from capsule_edge.evaluation.recordings.shipped_findings import (
    MARK,
    count_by_class,
    list_recordings,
    read_document,
    recognised_frames,
    render_table,
)
from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import INSTALLED, OperatingPoint, default_model, open_model

pytestmark = pytest.mark.quick

KEYS = ("normal", "polyp", "ulcer", "worms")
FIGURES = ROOT / "models" / "findings.json"


def reading(name: str, runs: list[tuple[str, int]], events: list[tuple[str, int, int]]) -> Reading:
    """A recording of (label, frames) runs, and events of (label, first row, last row)."""
    labels = [label for label, count in runs for _ in range(count)]
    found = [FoundEvent(label, first, last, first, 0.9) for label, first, last in events]
    return Reading(name, labels, np.full(len(labels), 0.5), found)


READINGS = [
    # Polyp in rows 10 to 19: one right event, and one false event that lies in normal frames.
    reading("a", [("normal", 10), ("polyp", 10), ("normal", 10)], [("polyp", 12, 17), ("polyp", 0, 3)]),
    # Polyp in rows 0 to 9 shown as an ulcer only; ulcer in rows 20 to 29 missed.
    reading("b", [("polyp", 10), ("normal", 10), ("ulcer", 10)], [("ulcer", 2, 8)]),
]


def test_findings_and_false_events_are_summed_by_class_over_the_recordings() -> None:
    counts = count_by_class(READINGS, KEYS)
    assert list(counts) == list(KEYS)
    assert counts["polyp"] == {"findings": 2, "hit": 1, "seen": 2, "events": 2, "false_events": 1}
    assert counts["ulcer"] == {"findings": 1, "hit": 0, "seen": 0, "events": 1, "false_events": 1}
    assert counts["worms"] == dict.fromkeys(("findings", "hit", "seen", "events", "false_events"), 0)


def test_the_sums_over_the_classes_equal_the_scores_of_the_recordings() -> None:
    counts, whole = count_by_class(READINGS, KEYS), score_findings(READINGS)
    for name in ("findings", "hit", "seen", "events", "false_events"):
        assert sum(row[name] for row in counts.values()) == whole[name]


def test_a_class_that_the_model_lacks_is_counted_too() -> None:
    counts = count_by_class([reading("c", [("normal", 5), ("diverticulum", 5)], [])], KEYS)
    assert counts["diverticulum"]["findings"] == 1


def test_frames_are_recognised_by_the_most_probable_label_and_at_the_operating_point() -> None:
    labels = np.array([0, 0, 1, 1, 1, 1], np.intp)
    polyp = np.array([0.1, 0.4, 0.9, 0.8, 0.3, 0.1], np.float32)
    predictions = Predictions(
        files=tuple("abcdef"),
        labels=labels,
        video_ids=("v", "v", "v", "v", "w", "w"),
        sources=(None,) * 6,
        probabilities=np.c_[1 - polyp, polyp, np.zeros(6)].astype(np.float32),
        keys=("normal", "polyp", "ulcer"),
    )
    points = {"polyp": OperatingPoint(0.25), "ulcer": OperatingPoint(0.5)}
    rows = recognised_frames(predictions, points)
    polyps = rows["polyp"]
    assert (polyps["frames"], polyps["videos"]) == (4, 2)
    assert (polyps["sensitivity"], polyps["precision"]) == (0.5, 1.0)
    # Three of four polyps lie at .25 or above, and so does one normal frame.
    assert polyps["operating_point"] == {"threshold": 0.25, "sensitivity": 0.75, "precision": 0.75}
    assert rows["normal"]["operating_point"] is None
    assert rows["ulcer"]["operating_point"] == {"threshold": 0.5, "sensitivity": None, "precision": None}
    json.dumps(rows, allow_nan=False)


def document() -> dict[str, Any]:
    """A measurement of two models with the same answers."""
    counts = count_by_class(READINGS, KEYS)
    frames = {"frames": 1200, "videos": 3, "sensitivity": 0.255, "precision": None, "operating_point": None}
    totals = {"findings": 3, "hit": 1, "seen": 2, "events": 3, "false_events": 2}
    model = {
        "totals": {**totals, "false_events_per_1000_frames": 33.3},
        "classes": {key: {**row, "val_frames": frames} for key, row in counts.items()},
    }
    return {
        "data": {"split": "val", "recordings": [{}, {}], "recorded_frames": 60},
        "models": {"standard": model, "small": model},
    }


def test_a_class_without_a_finding_says_so() -> None:
    lines = render_table(document()).splitlines()
    assert "findings in the 2 recordings" in lines[0]
    assert "| polyp | 2 | 1 / 1 | 2 / 2 | 1 / 1 | 1,200 (3) | 26 % / 26 % |" in lines
    assert "| worms | no finding | - | - | 0 / 0 | 1,200 (3) | 26 % / 26 % |" in lines
    assert not any(line.startswith("| normal") for line in lines)


def test_the_sentences_below_the_table_give_the_totals_and_fit_a_document() -> None:
    text = render_table(document()).split("\n\n")[1]
    assert max(map(len, text.splitlines())) <= 100
    joined = " ".join(text.split())
    assert "small 1 of 3 findings hit, 2 seen, 2 false events" in joined
    assert "*Hit*: an event of the class shows the finding." in joined


def test_recordings_of_a_split_are_listed_with_their_truth(tmp_path: Path) -> None:
    (tmp_path / "index.csv").write_text("file,split\na.mp4,val\nb.mp4,train\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.mp4 is not there"):
        list_recordings(tmp_path, "val")
    for name in ("a.mp4", "a.truth.csv"):
        (tmp_path / name).touch()
    assert list_recordings(tmp_path, "val") == [(tmp_path / "a.mp4", tmp_path / "a.truth.csv")]
    with pytest.raises(InputError, match="no recording of the split 'test'"):
        list_recordings(tmp_path, "test")


def test_another_file_is_not_taken_for_a_measurement(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"schema": "other/1"}', encoding="utf-8")
    with pytest.raises(InputError, match="other/1"):
        read_document(tmp_path / "other.json")
    with pytest.raises(InputError, match=r"none\.json cannot be read"):
        read_document(tmp_path / "none.json")


def test_the_committed_measurement_is_of_the_models_that_are_shipped() -> None:
    models = read_document(FIGURES)["models"]
    assert list(models) == list(INSTALLED)
    for name, model in models.items():
        with closing(open_model(default_model(name))) as shipped:
            assert model["sha256"] == shipped.sha256
            assert list(model["classes"]) == list(shipped.spec.keys)
        assert model["recordings_of_training_videos"] == []
        rows = model["classes"].values()
        for count in ("findings", "hit", "seen", "events", "false_events"):
            assert model["totals"][count] == sum(row[count] for row in rows)


def test_the_readme_shows_the_committed_measurement() -> None:
    assert between(ROOT / "README.md", MARK)[1] == render_table(read_document(FIGURES))
