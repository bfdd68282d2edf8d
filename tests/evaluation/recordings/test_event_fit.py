"""The search for event parameters hits the findings, keeps to its budget and reads as the runtime does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from event_samples import SMALL_GRID, ULCERS, make_answers
from run_samples import write_run, write_truth
from study_samples import SPEC
from tiny_model import write_tiny_model

from capsule_edge.evaluation.recordings import event_fit, event_search
from capsule_edge.evaluation.recordings.event_fit import fit_document, fitted_spec, put_into_run
from capsule_edge.evaluation.recordings.event_search import EventFit, fit_events, read_with
from capsule_edge.evaluation.recordings.findings import score_findings
from capsule_edge.evaluation.recordings.recording_scores import RecordingAnswers, read_answers
from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.events import find_events
from capsule_edge.runtime.study import FrameRecord


@pytest.fixture(autouse=True)
def small_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Search a small grid. The full one takes a minute on real recordings."""
    monkeypatch.setattr(event_search, "GRID", SMALL_GRID)


def test_a_threshold_is_lowered_to_hit_the_findings() -> None:
    fit = fit_events(SPEC, [make_answers(ULCERS)])
    assert 0.05 < fit.thresholds["ulcer"] <= 0.3
    scores = score_findings([read_with(SPEC, make_answers(ULCERS), fit)])
    assert (scores["hit"], scores["false_events"]) == (2, 0)
    as_it_was = score_findings([read_with(SPEC, make_answers(ULCERS), EventFit.of(SPEC))])
    assert as_it_was["hit"] == 0


def test_hits_on_a_plateau_are_worth_more_than_lucky_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two ulcers are hit at a threshold of .6 alone: higher ones miss them, and with lower ones the event begins
    # in normal frames before them, which are more than half of it. A third one is hit up to .5, a fourth up to .9.
    lucky = [
        stretch
        for start in (100, 300)
        for stretch in (
            (start, start + 60, "normal", "ulcer", 0.57),
            (start + 60, start + 90, "ulcer", "ulcer", 0.62),
        )
    ]
    plain = [(600, 630, "ulcer", "ulcer", 0.52), (800, 830, "ulcer", "ulcer", 0.9)]
    recording = make_answers([*lucky, *plain])
    scores = score_findings([read_with(SPEC, recording, fit_events(SPEC, [recording]))])
    assert (scores["hit"], scores["false_events"]) == (2, 2)
    monkeypatch.setattr(event_search, "_mean_of_neighbours", lambda values, axis: values)
    scores = score_findings([read_with(SPEC, recording, fit_events(SPEC, [recording]))])
    assert (scores["hit"], scores["false_events"]) == (3, 0)


def test_among_equal_hits_the_fit_has_fewer_events() -> None:
    # One ulcer flickers: a wide smoothing makes one event of it, a narrow one several.
    flicker = [(100 + 4 * i, 102 + 4 * i, "ulcer", "ulcer", 0.9) for i in range(10)]
    recording = make_answers([(100, 140, "ulcer", None, 0.0), *flicker])
    reading = read_with(SPEC, recording, fit_events(SPEC, [recording]))
    assert len(reading.events) == 1


def test_a_label_without_a_finding_keeps_its_threshold() -> None:
    fit = fit_events(SPEC, [make_answers(ULCERS)])
    assert fit.thresholds["blood_fresh"] == SPEC.operating_points["blood_fresh"].threshold


def test_the_most_findings_are_hit_within_the_budget() -> None:
    # Nine stretches of normal mucosa look more like an ulcer than the faint one does.
    noise = [(10 + 90 * i, 25 + 90 * i, "normal", "ulcer", 0.6) for i in range(9)]
    recording = make_answers([*noise, (900, 920, "ulcer", "ulcer", 0.9), (950, 970, "ulcer", "ulcer", 0.5)])

    def scores(budget: float) -> dict[str, float]:
        return score_findings([read_with(SPEC, recording, fit_events(SPEC, [recording], budget=budget))])

    strict, loose = scores(5.0), scores(9.0)
    assert (strict["hit"], strict["false_events"]) == (1, 0)
    assert (loose["hit"], loose["false_events"]) == (2, 9)


def test_a_label_without_a_finding_is_raised_only_to_keep_the_budget() -> None:
    noise = [(100 * i, 100 * i + 10, "normal", "blood_fresh", 0.7) for i in range(1, 8)]
    recording = make_answers([*noise, (850, 870, "ulcer", "ulcer", 0.9)])
    assert fit_events(SPEC, [recording], budget=7.0).thresholds["blood_fresh"] == 0.6
    assert fit_events(SPEC, [recording], budget=6.0).thresholds["blood_fresh"] == 0.75


def test_frame_by_frame_makes_events_of_neighbouring_marked_frames() -> None:
    recording = make_answers([(100, 101, "ulcer", "ulcer", 0.9), (102, 103, "ulcer", "ulcer", 0.9)])
    fit = fit_events(SPEC, [recording], frame_by_frame=True)
    assert [(e.first, e.last) for e in read_with(SPEC, recording, fit).events] == [(100, 100), (102, 102)]


def test_recordings_without_a_finding_are_refused() -> None:
    with pytest.raises(InputError, match="have no finding"):
        fit_events(SPEC, [make_answers([])])


def test_the_search_finds_the_same_events_as_the_runtime() -> None:
    generator = np.random.default_rng(5)
    walk = np.clip(0.4 + np.cumsum(generator.normal(0, 0.3, (600, 2)), axis=0), 0, 1) / 2
    values = np.column_stack([1 - walk.sum(axis=1), walk])
    values[50:60] = np.nan  # frames without an answer
    recording = RecordingAnswers("r", np.full(600, "normal"), np.arange(600) * 0.5, values)
    fit = EventFit(replace(SPEC.events, merge_s=7.0), {"ulcer": 0.3, "blood_fresh": 0.35})
    spec = fitted_spec(
        SPEC,
        {
            "events": vars(fit.events),
            "operating_points": {key: {"threshold": threshold} for key, threshold in fit.thresholds.items()},
        },
    )
    records = [
        FrameRecord(
            i,
            "corrupt" if np.isnan(row).any() else "classified",
            i,
            i * 0.5,
            probabilities=None if np.isnan(row).any() else row.astype(np.float32),
        )
        for i, row in enumerate(values)
    ]
    found = find_events(records, spec, median_distance_s=0.5, time_kind="capture")
    assert len(found) > 4
    assert [(e.label, e.first, e.last) for e in read_with(spec, recording, fit).events] == [
        (e.label, e.start_index, e.end_index) for e in found
    ]


def test_the_fit_is_a_valid_part_of_a_model_spec() -> None:
    document = fit_document(
        SPEC,
        [make_answers(ULCERS, name="a"), make_answers(ULCERS[:1], name="b")],
        [make_answers(ULCERS[1:], name="c")],
    )
    spec = fitted_spec(SPEC, document)
    assert spec.events.provisional is False
    assert (
        spec.operating_points["ulcer"].threshold == document["operating_points"]["ulcer"]["threshold"] <= 0.3
    )
    assert spec.operating_points["ulcer"].sensitivity == 1.0
    assert document["not_judged"] == ["blood_fresh"]
    assert "not patients" in document["unit"]
    assert "a and b" in (spec.operating_points["ulcer"].measured_on or "")
    assert spec.operating_points["blood_fresh"] == SPEC.operating_points["blood_fresh"]
    measured = document["measured"]
    assert [measured[name]["hit"] for name in ("fitted", "left_out", "held", "all", "as_it_was")] == [
        3,
        3,
        1,
        4,
        0,
    ]
    assert measured["frame_by_frame"]["all"]["findings"] == 4
    assert measured["left_out"]["hit"] == next(
        point["hit"] for point in document["curve"]["events"] if point["budget"] == document["budget"]
    )
    json.dumps(document, allow_nan=False)


def test_many_recordings_are_counted_in_the_operating_points() -> None:
    recordings = [make_answers(ULCERS, name=f"r{at}") for at in range(4)]
    document = fit_document(SPEC, recordings, budgets=[], out_of_fold=True)
    assert document["operating_points"]["ulcer"]["measured_on"] == (
        "single frames of 4 recordings, each read by a model that had not seen its video, "
        "where the events were fitted"
    )
    assert len(document["curve"]["events"]) == 1


def test_the_fit_is_written_into_a_training(tmp_path: Path) -> None:
    document = fit_document(SPEC, [make_answers(ULCERS)])
    spec = {key: value for key, value in SPEC.to_dict().items() if key != "precision"}
    (tmp_path / "run.json").write_text(json.dumps({"size": 96, "spec": spec}), encoding="utf-8")
    put_into_run(tmp_path, document)
    run = json.loads((tmp_path / "run.json").read_text("utf-8"))
    assert run["size"] == 96
    assert "precision" not in run["spec"]
    assert run["spec"]["events"] == document["events"]
    assert run["spec"]["operating_points"]["ulcer"] == document["operating_points"]["ulcer"]
    assert run["spec"]["labels"] == spec["labels"]
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    for text in ("", "{}", '{"spec": 3}', "[]"):
        (tmp_path / "run.json").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match="no spec of a training"):
            put_into_run(tmp_path, document)
        assert (tmp_path / "run.json").read_text("utf-8") == text
    with pytest.raises(InputError, match="no spec of a training"):
        put_into_run(tmp_path / "none", document)


def test_the_command_writes_and_prints_the_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ("normal", "ulcer")
    model = write_tiny_model(tmp_path / "m.onnx", labels=labels)
    folder, truth = write_run(tmp_path / "run", labels), write_truth(tmp_path / "truth.csv")
    out = tmp_path / "events.json"
    words = ["event_fit", model, "--fit", folder / "frames.csv", truth, "--out", out]
    monkeypatch.setattr("sys.argv", [str(word) for word in words])
    event_fit.main()
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last == json.loads(out.read_text("utf-8"))
    assert last["measured"]["fitted"]["hit"] == 1
    assert last["measured"]["left_out"] is None
    assert last["events"]["provisional"] is False


def test_a_truth_or_run_of_another_model_or_recording_is_refused(tmp_path: Path) -> None:
    folder, truth = write_run(tmp_path / "run"), write_truth(tmp_path / "truth.csv")
    spec = replace(SPEC, labels=SPEC.labels[:2], operating_points={"ulcer": SPEC.operating_points["ulcer"]})
    assert len(read_answers(folder, truth, spec).labels) == 60
    with pytest.raises(InputError, match=r"lacks the columns \['p_blood_fresh'\]"):
        read_answers(folder, truth, SPEC)
    truth.write_text(truth.read_text("utf-8").replace("Ulcer", "Varices"), encoding="utf-8")
    with pytest.raises(InputError, match=r"has the labels \['varices'\], the model knows"):
        read_answers(folder, truth, spec)
    with pytest.raises(InputError, match="cannot be read"):
        read_answers(tmp_path / "none.csv", truth, spec)
    truth.write_text("index,frame_number,time_s,label\n0,0,0,Normal\n", encoding="utf-8")
    with pytest.raises(InputError, match="not the same recording"):
        read_answers(folder, truth, spec)
