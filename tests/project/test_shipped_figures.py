"""The figures shipped with the models: a run scored against its truth, and the model card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from study_samples import make_study
from tiny_model import write_tiny_model

from capsule_edge.evaluation.classification.model_card import CardNotes, render_card
from capsule_edge.evaluation.datasets import load_dataset
from capsule_edge.evaluation.recordings.recording_scores import compare_with_truth, summarise
from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import NOT_STATED, HeldOutBy, open_model
from capsule_edge.runtime.results import write_study


def truth(path: Path, labels: list[str], *, late_s: float = 0.0) -> Path:
    rows = [f"{i},{i},{i * 0.5 + late_s},{label}" for i, label in enumerate(labels)]
    path.write_text("\n".join(["index,frame_number,time_s,label", *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    write_study(make_study(), folder, timing={})
    return folder


def test_a_run_is_joined_to_its_truth(run: Path, tmp_path: Path) -> None:
    # The sample has an ulcer at frames 20 to 39 and blood at 60 to 89.
    labels = ["Normal"] * 20 + ["Ulcer"] * 20 + ["Normal"] * 20 + ["Polyp"] * 30 + ["Normal"] * 30
    document = compare_with_truth(run, truth(tmp_path / "t.csv", labels, late_s=0.0004))
    assert document["frame_accuracy"] == pytest.approx(90 / 120)
    assert document["always_normal"] == pytest.approx(70 / 120)
    assert document["largest_time_difference_s"] == pytest.approx(0.0004)
    events = summarise([document])
    assert (events["findings"], events["hit"], events["touched"], events["matched"]["hits"]) == (2, 1, 1, 1)
    assert events["seen"] == 2  # an event of blood shows the polyp
    assert events["false_events_per_1000_frames"] == pytest.approx(1000 / 120)


def test_the_truth_of_another_recording_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not the same recording"):
        compare_with_truth(run, truth(tmp_path / "t.csv", ["Normal"] * 119))
    with pytest.raises(InputError, match="cannot be read"):
        compare_with_truth(run, tmp_path / "none.csv")


def test_the_model_card_shows_the_measured_figures(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = ["file,label,source,video_id,frame_number,split"]
    for i in range(24):
        cv2.imwrite(str(folder / f"{i}.png"), rng.integers(0, 255, (40, 40, 3), dtype=np.uint8))
        rows.append(
            f"{i}.png,{('normal', 'worms', 'polyp')[i % 3]},S{i % 2},{'one' if i % 3 == 1 else f'v{i % 4}'},{i},val"
        )
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    labels = ("normal", "worms", "polyp")
    fp32 = open_model(write_tiny_model(tmp_path / "a.onnx", labels=labels))
    int8 = open_model(write_tiny_model(tmp_path / "b.onnx", labels=labels, noise=0.05, precision="int8"))
    dataset = load_dataset(folder)
    card = render_card(fp32, int8, dataset)
    assert "24 frames of 5 videos" in card
    assert card.count("| **INT8** |") == 2
    assert "| S0 | 12 | 3 |" in card
    assert "always normal" in card
    without = card.split("### Without Worms")[1].split("###")[0]
    assert "0.500" in without.split("always normal")[1]
    assert "0.333" in card.split("always normal")[1].splitlines()[0]
    assert render_card(fp32, int8, replace(dataset)) == card


def test_the_card_of_another_model_claims_nothing_that_its_owner_did_not_state(tmp_path: Path) -> None:
    """Class folders: no patient is known, no licence is stated, and no words of the shipped models' data appear."""
    rng = np.random.default_rng(0)
    for i in range(12):
        path = tmp_path / "data" / ("normal", "polyp", "worms")[i % 3] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 255, (40, 40, 3), dtype=np.uint8))
    said: dict[str, Any] = {
        "labels": ("normal", "polyp", "worms"),
        "license": NOT_STATED,
        "held_out": HeldOutBy("frame"),
        "provenance": {"training_frames_without_video": 12, "data_license": "secret terms of a clinic"},
    }
    fp32 = open_model(write_tiny_model(tmp_path / "a.onnx", **said))
    int8 = open_model(write_tiny_model(tmp_path / "b.onnx", **said, precision="int8"))
    card = render_card(fp32, int8, load_dataset(tmp_path / "data"))
    assert "12 frames that name no video (patients unknown)" in card
    assert "Patients unknown: frames were held out one by one" in card
    assert "| model | not stated |" in card
    assert "| training data | secret terms of a clinic |" in card
    for words in ("Kvasir", "CC BY", "Apache", "SEE-AI", "AIIMS", "had not seen", "none of them in training"):
        assert words not in card
    notes = CardNotes.read(Path(__file__).parents[2] / "models" / "training" / "card.json")
    ours = render_card(fp32, int8, load_dataset(tmp_path / "data"), notes)
    assert "CC BY 4.0; its README asks written permission" in ours
    assert "five plain epochs of fine-tuning" in ours
