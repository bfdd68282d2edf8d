"""Landmarks set by hand (``--landmark``) and found by a model."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from cli_calls import check_files


def test_landmarks_by_hand_reach_the_study_and_the_report(call, red_model: Path, exam: Path) -> None:
    found = call(
        "run",
        exam,
        "--model",
        red_model,
        "--landmark",
        "small-bowel=00:00:05",
        "--landmark",
        "colon=0:25",
        "--json",
    )
    assert found.code == 0
    study = check_files(Path("exam.capsule-edge"))
    landmarks = study["landmarks"]
    assert landmarks["assessed"] is False  # the model has no landmark labels
    assert [(mark["name"], mark["time_s"], mark["source"]) for mark in landmarks["marks"]] == [
        ("small-bowel", 5.0, "hand"),
        ("colon", 25.0, "hand"),
    ]
    assert landmarks["transit"]["small_bowel_s"] == 20.0
    (event,) = study["events"]
    share = round((event["peak_s"] - 5) / 20, 6)
    assert landmarks["positions"] == [{"event": 1, "segment": "small-bowel", "share": share}]
    assert study["tool"]["options"]["landmarks"] == {"small-bowel": 5.0, "colon": 25.0}


def test_a_model_with_landmark_and_quality_labels_fills_both_sections(
    call, red_model: Path, exam: Path, tmp_path: Path
) -> None:
    """The red model with its labels renamed: red frames show the pylorus, and its third label is bubbles."""
    model = onnx.load(str(red_model))
    (metadata,) = model.metadata_props
    spec = json.loads(metadata.value)
    spec["labels"][1] |= {"key": "pylorus", "name": "Pylorus", "role": "landmark"}
    spec["labels"][2] |= {"key": "bubbles", "name": "Bubbles", "role": "quality"}
    spec["operating_points"] = {
        new: spec["operating_points"][old] for old, new in (("bleeding", "pylorus"), ("polyp", "bubbles"))
    }
    metadata.value = json.dumps(spec)
    onnx.save(model, str(tmp_path / "guide.onnx"))
    assert call("run", exam, "--model", tmp_path / "guide.onnx").code == 0
    study = check_files(Path("exam.capsule-edge"))
    assert study["events"] == []  # none of the model's labels is a finding
    (mark,) = study["landmarks"]["marks"]
    assert (mark["name"], mark["source"], mark["label"]) == ("small-bowel", "model", "pylorus")
    # Frames 20 to 31 of 2 a second are red, to 16 s; smoothing over 2 s can shift the end by a frame or two.
    assert mark["time_s"] == pytest.approx(16.0, abs=1.0)
    transit = study["landmarks"]["transit"]
    assert (transit["gastric_s"], transit["gastric_from"]) == (mark["time_s"], "recording")
    assert transit["small_bowel_s"] is None
    assert study["quality"] | {"labels": None} == {
        "assessed": True,
        "labels": None,
        "reduced_frames": 0,
        "reduced_share": 0.0,
    }
    page = Path("exam.capsule-edge/report.html").read_text("utf-8")
    assert "suggested by the model (Pylorus)" in page
    assert "reduced on 0 of 60 frames" in page


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--landmark", "ileum=1"), "allowed is NAME=TIME with a NAME of stomach, small-bowel, colon, end"),
        (("--landmark", "colon=01:00:00"), "colon is at 3600 s, allowed is 0 to 30 s"),
        (("--landmark", "colon=1", "--landmark", "small-bowel=2"), "allowed is small-bowel before colon"),
    ],
)
def test_an_impossible_landmark_is_refused_and_leaves_nothing(
    call, red_model: Path, exam: Path, options, words: str
) -> None:
    found = call("run", exam, "--model", red_model, *options)
    assert found.code == 2
    assert words in found.err
    assert len(found.err.strip().splitlines()) == 1
    assert list(Path().iterdir()) == []
