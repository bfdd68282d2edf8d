"""The recipe of fourteen classes: its frames, its recording, and landmarks that the trained model sets by itself."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from paths import ROOT

from capsule_edge.runtime.recording import scan

SCRIPT = ROOT / "examples" / "kvasir14.py"
SETTINGS = ROOT / "examples" / "kvasir14.yaml"
HEADER = "filename;video_id;frame_number;finding_category;finding_class;x1;y1;x2;y2;x3;y3;x4;y4"
ROWS = [
    ("a_1.jpg", "a", 1, "Anatomy", "Pylorus"),
    ("a_2.jpg", "a", 2, "Luminal", "Erosion"),
    ("a_2.jpg", "a", 2, "Anatomy", "Pylorus"),
    ("a_3.jpg", "a", 3, "Luminal", "Polyp"),
    ("b_9.jpg", "b", 9, "Luminal", "Normal clean mucosa"),
    *((f"b_{number}.jpg", "b", number, "Anatomy", "Ileocecal valve") for number in range(20, 60)),
]


def recipe(*words: object, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, words)],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def command(*words: object, folder: Path, allowed: tuple[int, ...] = (0,)) -> str:
    call = [sys.executable, "-m", "capsule_edge.cli", *map(str, words)]
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode in allowed, done.stderr[-2000:]
    return done.stdout


def test_images_are_copied_and_stand_ins_rendered_in_their_place(tmp_path: Path) -> None:
    lines = [";".join(map(str, (*row, *[""] * 8))) for row in ROWS]
    (tmp_path / "metadata.csv").write_text("\n".join([HEADER, *lines]), "utf-8")
    image = tmp_path / "images" / "Pylorus" / "a_1.jpg"
    image.parent.mkdir(parents=True)
    cv2.imwrite(str(image), np.full((336, 336, 3), 90, np.uint8))
    said = recipe("frames", "metadata.csv", "out", "--images", "images", "--most", "5", folder=tmp_path)
    assert said == "8 frames: 1 images, 7 rendered stand-ins\n"
    rows = list(csv.DictReader((tmp_path / "out" / "labels.csv").open(encoding="utf-8")))
    assert {(row["file"], row["label"]) for row in rows if row["video_id"] == "a"} == {
        ("frames/a_1.jpg", "Pylorus"), ("frames/a_3.jpg", "Polyp"),
    }  # fmt: skip
    valves = [int(row["frame_number"]) for row in rows if row["label"] == "Ileocecal valve"]
    assert valves == [20, 29, 39, 49, 59]
    assert (tmp_path / "out" / "frames" / "a_1.jpg").read_bytes() == image.read_bytes()
    sources = {row["file"]: row["source"] for row in rows}
    assert sources.pop("frames/a_1.jpg") == "Kvasir-Capsule"
    assert set(sources.values()) == {"rendered"}
    for row in rows[1:]:
        assert cv2.imread(str(tmp_path / "out" / row["file"])).shape[2] == 3


def test_the_recording_has_the_frames_of_its_length(tmp_path: Path) -> None:
    recipe("recording", "exam.mp4", folder=tmp_path)
    container = scan(tmp_path / "exam.mp4")
    assert (container.frames, container.present, container.width) == (720, 720, 224)


@pytest.mark.recipe
def test_the_trained_model_sets_the_landmarks_by_itself(tmp_path: Path) -> None:
    metadata = Path(os.environ.get("CAPSULE_EDGE_DATA", "")) / "kvasir-capsule" / "metadata.csv"
    if not metadata.is_file():
        pytest.skip("needs CAPSULE_EDGE_DATA with kvasir-capsule/metadata.csv")
    recipe("frames", metadata, "frames", folder=tmp_path)
    command(
        "train", "--data", "frames", "--config", SETTINGS, "--out", "run", folder=tmp_path, allowed=(0, 6)
    )
    command("export", "run", "--out", "files", "--accept-weak", folder=tmp_path)
    recipe("recording", "exam.mp4", folder=tmp_path)
    command("run", "exam.mp4", "--model", "files/model.int8.onnx", "--out", "result", folder=tmp_path)
    study = json.loads((tmp_path / "result" / "study.json").read_text("utf-8"))
    found = study["landmarks"]
    assert found["assessed"]
    marks = {mark["name"]: mark for mark in found["marks"]}
    assert {mark["source"] for mark in marks.values()} == {"model"}
    assert marks["small-bowel"]["time_s"] == pytest.approx(84, abs=3)
    assert marks["colon"]["time_s"] == pytest.approx(262, abs=3)
