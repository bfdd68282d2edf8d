"""The record ``reference``: histograms over the readings of recordings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from cool_rule import cool_rule
from red_model import LABELS, write_exam, write_red_model

from capsule_edge.evaluation import _run_records as run_records
from capsule_edge.evaluation.familiarity import reference_fit
from capsule_edge.runtime import Reader
from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import open_model
from capsule_edge.runtime.results import prepare_folder, write_study

FRAMES, RED = 60, 12


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A model, a recording with one event, and the result of its reading."""
    folder = tmp_path_factory.mktemp("reference")
    model = write_red_model(folder / "red.onnx", familiarity=cool_rule())
    video = write_exam(folder / "exam.mp4")
    with Reader.open(model) as reader:
        write_study(reader.read(video), prepare_folder(folder / "out", overwrite=False), timing={})
    return model, video, folder / "out"


def test_the_command_counts_a_reading_and_writes_it_into_a_run(
    read: tuple[Path, Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, video, result = read
    spec = json.loads(open_model(model).spec.to_json())
    (tmp_path / "run.json").write_text(json.dumps({"spec": spec}), encoding="utf-8")
    out = tmp_path / "reference.json"
    words = [model, "--reading", video, result, "--reading", video, result, "--out", out, "--into", tmp_path]
    monkeypatch.setattr("sys.argv", ["reference_fit", *map(str, words)])
    reference_fit.main()
    document = json.loads(out.read_text("utf-8"))
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == document
    reference = document["reference"]
    counts = {name: one["n"] for name, one in reference.items()}
    frames = 2 * FRAMES
    assert counts == {
        "colour": frames,
        "sharpness": frames,
        "field_of_view": 2,
        "label_shares": frames,
        "scores": 2,
        "familiarity": frames,
    }
    assert all(sum(one["histogram"]) == one["n"] for one in reference.values())
    assert reference["label_shares"]["edges"] is None
    assert reference["label_shares"]["histogram"] == [frames - 2 * RED, 2 * RED, 0]
    # Grey tissue of some 110 levels has a share of 110 / (3 * 110 + 15) of red. The peak of the event is near 1.
    grey = np.searchsorted(reference["colour"]["edges"], 100 * 110 / 345) - 1
    assert reference["colour"]["histogram"][grey] >= frames - 2 * RED - 2
    # Each reading has one suggestion, of the score that its study says.
    study = json.loads((result / "study.json").read_text("utf-8"))
    (score,) = (one["score"] for one in study["suggestions"])
    place = np.searchsorted(reference["scores"]["edges"], score, side="right") - 1
    assert reference["scores"]["histogram"][place] == 2
    assert reference["familiarity"]["edges"][-1] == 2 * cool_rule().threshold
    _, fitted = run_records.read_run_spec(tmp_path)
    assert fitted.reference is not None
    assert fitted.reference["label_shares"].n == frames
    assert len(LABELS) == len(fitted.reference["label_shares"].histogram)


def test_a_reading_without_an_event_or_a_rule_has_no_such_histogram() -> None:
    statistics = np.ones((3, 19))
    reading = reference_fit.ReferenceReading(statistics, None, ["normal"], [])
    counted = reference_fit.count_reference([reading], LABELS, None)
    assert [name for name, one in counted.items() if one is None] == [
        "field_of_view",
        "scores",
        "familiarity",
    ]
    # 1 lies below the lowest edge of the colour, and counts in the first bin.
    assert counted["colour"].histogram[0] == 3


def test_scores_are_made_by_the_rules_of_the_model_and_not_taken_from_the_result(
    read: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    """The model of another fold, which wrote the result, has other rules and weights."""
    model, video, result = read
    shutil.copytree(result, tmp_path / "out")
    study = json.loads((result / "study.json").read_text("utf-8"))
    (own,) = (one["score"] for one in study["suggestions"])
    study["suggestions"] = [{"score": 0.25}, {"score": 0.5}]
    (tmp_path / "out" / "study.json").write_text(json.dumps(study), encoding="utf-8")
    spec = open_model(model).spec
    assert reference_fit.read_reading(video, tmp_path / "out", spec).scores == [own]
    strict = spec.with_rules({"bleeding": 1.0})
    assert reference_fit.read_reading(video, tmp_path / "out", strict).scores == []


def test_the_result_of_another_recording_or_model_is_refused(
    read: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    model, video, result = read
    spec = open_model(model).spec
    other = write_exam(tmp_path / "other.mp4", frames=10)
    with pytest.raises(InputError, match="names another file's SHA-256"):
        reference_fit.read_reading(other, result, spec)
    with pytest.raises(InputError, match=r"has no readable study\.json"):
        reference_fit.read_reading(video, tmp_path, spec)
    shutil.copytree(result, tmp_path / "out")
    table = tmp_path / "out" / "frames.csv"
    table.write_text(table.read_text("utf-8").replace(",bleeding,", ",varices,"), encoding="utf-8")
    with pytest.raises(InputError, match=r"has the labels \['varices'\], the model knows"):
        reference_fit.read_reading(video, tmp_path / "out", spec)
    table.unlink()
    with pytest.raises(InputError, match="is no table of frames"):
        reference_fit.read_reading(video, tmp_path / "out", spec)
