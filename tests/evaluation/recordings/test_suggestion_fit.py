"""The fit of the score: it ranks right events first, is judged on other recordings, and goes into a training."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from run_samples import write_run, write_truth
from study_samples import SPEC
from tiny_model import write_tiny_model
from video_samples import recording

from capsule_edge.evaluation.recordings import suggestion_fit
from capsule_edge.evaluation.recordings.recording_scores import RecordingAnswers
from capsule_edge.evaluation.recordings.suggestion_fit import (
    fit_suggestions,
    fitted_scores,
    put_scores_into_run,
    read_source,
)
from capsule_edge.evaluation.recordings.suggestion_scores import (
    ScoredRecording,
    choose_grouping,
    count_cards,
    fit_weights,
    judge_events,
    log_loss,
    precision_table,
    rank_rows,
    read_recording,
    score_out_of_fold,
    scored_with,
)
from capsule_edge.runtime import Reader
from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.inference import ModelSpec, SuggestionGrouping, default_model, open_model
from capsule_edge.runtime.results import write_study

APART = SuggestionGrouping(within_s=0.0)
# First frame, end frame, true label, label of the model, its probability.
Stretch = tuple[int, int, str, str, float]


def answers(stretches: list[Stretch], name: str = "r", count: int = 1000) -> RecordingAnswers:
    truth = np.full(count, "normal", dtype="<U20")
    values = np.full((count, len(SPEC.labels)), 0.02)
    for first, after, marked, answered, probability in stretches:
        truth[first:after] = marked
        values[first:after, SPEC.keys.index(answered)] = probability
    values[:, 0] = 1 - values[:, 1:].sum(axis=1)
    return RecordingAnswers(name, truth, np.arange(count) * 0.5, values)


def made_up(recordings: int = 12, seed: int = 4) -> list[ScoredRecording]:
    """Recordings whose events are right the more often the more probable they are."""
    generator = np.random.default_rng(seed)
    found = []
    for number in range(recordings):
        stretches: list[Stretch] = []
        for at in range(50, 950, 90):
            p = float(generator.uniform(0.65, 0.97))
            right = generator.random() < (p - 0.6) * 2.5
            stretches.append((at, at + 20, "ulcer" if right else "normal", "ulcer", p))
        found.append(judge_events(answers(stretches, f"video{number}"), SPEC))
    return found


@pytest.mark.quick
def test_events_are_right_as_findings_defines_it() -> None:
    one = judge_events(answers([(100, 120, "ulcer", "ulcer", 0.9), (300, 320, "normal", "ulcer", 0.8)]), SPEC)
    assert one.right.tolist() == [True, False]
    assert len(one.findings) == 1
    assert (one.hit_by([0]), one.hit_by([1])) == (set(one.findings), set())


@pytest.mark.quick
def test_more_evidence_never_lowers_a_score() -> None:
    weights = fit_weights(made_up(), SPEC, ridge=0.1)
    assert {name for name, weight in weights.measures.items() if weight < 0} <= {"frames"}
    assert weights.measures["mean"] + weights.measures["peak"] + weights.measures["margin"] > 0
    assert set(weights.labels) == {"ulcer", "blood_fresh"}


@pytest.mark.quick
def test_a_large_penalty_leaves_the_share_of_right_events() -> None:
    recordings = made_up()
    weights = fit_weights(recordings, SPEC, ridge=1e7)
    share = np.concatenate([one.right for one in recordings]).mean()
    for one in recordings:
        np.testing.assert_allclose(scored_with(one, weights).scores, share, atol=1e-3)


@pytest.mark.quick
def test_a_score_out_of_fold_does_not_know_its_own_recording() -> None:
    recordings = made_up()
    before = score_out_of_fold(recordings, SPEC, ridge=1.0)
    poisoned = replace(recordings[3], right=~recordings[3].right)
    after = score_out_of_fold([*recordings[:3], poisoned, *recordings[4:]], SPEC, ridge=1.0)
    np.testing.assert_array_equal(before[3].scores, after[3].scores)
    assert any((a.scores != b.scores).any() for a, b in zip(before, after, strict=True))
    share = np.concatenate([one.right for one in recordings]).mean()
    constant = [replace(one, scores=np.full(len(one.scores), share)) for one in recordings]
    assert log_loss(before) < log_loss(constant)


@pytest.mark.quick
def test_a_score_out_of_fold_does_not_know_another_recording_of_its_video() -> None:
    recordings = made_up()
    recordings[4] = replace(recordings[4], video_id="video3")
    before = score_out_of_fold(recordings, SPEC, ridge=1.0)
    poisoned = replace(recordings[4], right=~recordings[4].right)
    after = score_out_of_fold([*recordings[:4], poisoned, *recordings[5:]], SPEC, ridge=1.0)
    np.testing.assert_array_equal(before[3].scores, after[3].scores)
    assert (before[5].scores != after[5].scores).any()


def test_the_events_of_a_recording_are_found_with_its_own_rules(tmp_path: Path) -> None:
    row = {"recording": "a", "events": asdict(SPEC.events) | {"min_frames": 7}, "thresholds": {"ulcer": 0.9}}
    path = tmp_path / "events.json"
    path.write_text(json.dumps({"left_out_rules": [row]}), encoding="utf-8")
    rules = suggestion_fit._read_rules(path, SPEC)
    own = suggestion_fit._spec_for(tmp_path / "a" / "frames.csv", rules, SPEC)
    assert own.events.min_frames == 7
    assert own.operating_points["ulcer"].threshold == 0.9
    assert own.operating_points["blood_fresh"] == SPEC.operating_points["blood_fresh"]
    assert suggestion_fit._spec_for(tmp_path / "b", None, SPEC) is SPEC
    with pytest.raises(InputError, match="the rules have no recording 'b', they have 1 others"):
        suggestion_fit._spec_for(tmp_path / "b" / "frames.csv", rules, SPEC)
    measured_on = fit_suggestions(SPEC, made_up(), left_out_rules=True)["suggestions"]["measured_on"]
    assert "each found and scored with rules fitted on the others" in measured_on


@pytest.mark.parametrize(
    "text", ["", "{}", '{"left_out_rules": null}', '{"left_out_rules": [{"recording": "a"}]}']
)
def test_a_file_without_left_out_rules_is_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "events.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="has no rules of left-out videos") as caught:
        suggestion_fit._read_rules(path, SPEC)
    assert "\n" not in str(caught.value)


@pytest.mark.quick
def test_precision_rises_with_the_score_and_covers_every_suggestion() -> None:
    scored = score_out_of_fold(made_up(), SPEC, ridge=1.0)
    table = precision_table(scored, APART)
    assert len(table) > 1
    assert table[0].score == 0
    assert sum(row.n for row in table) == sum(len(one.events) for one in scored) == 120
    for rows in ([row.score for row in table], [row.estimate for row in table]):
        assert rows == sorted(set(rows))
    assert all(0 <= row.low < row.estimate < row.high <= 1 for row in table)
    assert table == precision_table(scored, APART)
    right = sum(row.estimate * row.n for row in table)
    assert right == pytest.approx(sum(int(one.right.sum()) for one in scored), abs=1e-3)


@pytest.mark.quick
def test_equal_scores_stay_in_one_bin_and_a_sure_bin_has_an_interval() -> None:
    (one,) = made_up(1)
    same = [
        replace(one, recording=str(number), scores=np.full(10, 0.5), right=np.ones(10, bool))
        for number in range(10)
    ]
    (row,) = precision_table(same, APART)
    # Wilson: 1 / (1 + 1.96^2 / 100)
    assert (row.estimate, row.high, row.n) == (1.0, 1.0, 100)
    assert row.low == pytest.approx(1 / (1 + 1.959964**2 / 100), abs=1e-6)


@pytest.mark.quick
def test_grouping_counts_cards_and_the_findings_that_a_false_leader_hides() -> None:
    # An ulcer and blood over the same frames: blood is the truth.
    values = answers([(100, 120, "blood_fresh", "blood_fresh", 0.62), (400, 420, "ulcer", "ulcer", 0.9)])
    values.probabilities[100:120, SPEC.keys.index("ulcer")] = 0.36
    low = {key: replace(point, threshold=0.3) for key, point in SPEC.operating_points.items()}
    one = judge_events(values, replace(SPEC, operating_points=low))
    assert [e.event.label for e in one.events] == ["blood_fresh", "ulcer", "ulcer"]
    good = replace(one, scores=np.array([0.6, 0.3, 0.9]))
    assert count_cards([good], None) == {
        "events": 3,
        "suggestions": 2,
        "fewer": pytest.approx(1 / 3),
        "hit_by_events": 2,
        "hit_by_suggestions": 2,
        "lost": 0,
        "lost_in": [],
    }
    bad = replace(one, scores=np.array([0.2, 0.3, 0.9]))
    assert (count_cards([bad], None)["lost"], count_cards([bad], None)["lost_in"]) == (1, ["r"])
    assert choose_grouping([good]) == SuggestionGrouping()


@pytest.mark.quick
def test_the_grouping_that_loses_no_finding_is_chosen() -> None:
    # A false bleeding of a higher score begins within the last frames of an ulcer: one card would name the ulcer only
    # as an alternative.
    stretches = [(100, 120, "ulcer", "ulcer", 0.45), (112, 140, "normal", "blood_fresh", 0.4)]
    one = judge_events(answers(stretches), SPEC.with_rules({"ulcer": 0.3, "blood_fresh": 0.3}))
    one = replace(one, scores=np.array([0.8 if e.event.label == "ulcer" else 0.9 for e in one.events]))
    assert (count_cards([one], None)["suggestions"], count_cards([one], None)["lost"]) == (1, 1)
    rule = choose_grouping([one], fewer=0)
    assert count_cards([one], rule)["lost"] == 0
    assert rule.overlap > 0.25
    # To save cards, it may lose one; a share that no grouping saves asks for nothing.
    assert count_cards([one], choose_grouping([one], fewer=0.3))["suggestions"] == 1
    assert choose_grouping([one], fewer=0.9) == rule


@pytest.mark.quick
def test_a_similar_place_of_the_same_label_is_on_the_card() -> None:
    one = judge_events(answers([(100, 120, "ulcer", "ulcer", 0.9), (260, 280, "ulcer", "ulcer", 0.9)]), SPEC)
    counts = count_cards([replace(one, scores=np.array([0.9, 0.8]))], None)
    assert (counts["suggestions"], counts["hit_by_suggestions"], counts["lost"]) == (1, 2, 0)


@pytest.mark.quick
def test_ranks_count_recordings_with_a_right_one_among_the_first() -> None:
    first = judge_events(
        answers(
            [(at, at + 20, "ulcer" if at == 700 else "normal", "ulcer", 0.9) for at in (100, 300, 500, 700)]
        ),
        SPEC,
    )
    healthy = judge_events(answers([(100, 120, "normal", "ulcer", 0.9)]), SPEC)
    scored = [
        replace(first, scores=np.array([0.1, 0.9, 0.2, 0.8])),
        replace(healthy, scores=np.array([0.9])),
    ]
    table = rank_rows(scored, APART)
    assert table["suggestions"] == table["events_by_score"] == {"1": 0, "3": 1, "5": 1, "10": 1}
    assert table["events_by_peak"] == {"1": 0, "3": 0, "5": 1, "10": 1}
    assert table["recordings"] == {"1": 1, "3": 1, "5": 1, "10": 1}


@pytest.mark.quick
def test_the_document_fits_the_model_file_and_names_videos() -> None:
    recordings = made_up()
    document = fit_suggestions(SPEC, recordings[:10], recordings[10:])
    json.dumps(document, allow_nan=False)
    spec = fitted_scores(SPEC, document | {"fitted_recordings": ["ab" * 32]})
    assert spec.suggestions.weights.measures == document["suggestions"]["weights"]["measures"]
    assert spec.provenance["fitted_recordings"] == ["ab" * 32]
    assert "videos, not patients" in spec.suggestions.measured_on
    again = fitted_scores(spec, document | {"fitted_recordings": ["cd" * 32]})
    assert again.provenance["fitted_recordings"] == ["ab" * 32, "cd" * 32]
    assert document["measured"]["held"]["recordings"] == 2
    assert fit_suggestions(SPEC, recordings[:10])["measured"]["held"] is None


@pytest.mark.quick
@pytest.mark.parametrize(
    ("recordings", "message"),
    [
        ([], "0 recordings were given, leaving one out needs 2 or more"),
        (made_up(1), "1 recordings were given"),
        (
            [judge_events(answers([], name), SPEC) for name in "rs"],
            "of the 0 events in 1 recordings 0 are right",
        ),
        (made_up(1) * 2, "2 recordings of one video, 'video0', were given"),
    ],
)
def test_too_little_to_fit_on_is_said_in_one_line(recordings: list[ScoredRecording], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_suggestions(SPEC, recordings)


def test_the_fit_is_written_into_a_training(tmp_path: Path) -> None:
    document = fit_suggestions(SPEC, made_up()) | {"fitted_recordings": []}
    spec = {key: value for key, value in SPEC.to_dict().items() if key != "precision"}
    (tmp_path / "run.json").write_text(json.dumps({"size": 96, "spec": spec}), encoding="utf-8")
    put_scores_into_run(tmp_path, document)
    run = json.loads((tmp_path / "run.json").read_text("utf-8"))
    assert run["size"] == 96
    assert "precision" not in run["spec"]
    read = ModelSpec.from_json(json.dumps({**run["spec"], "precision": "int8"}))
    assert read.suggestions.n == document["suggestions"]["n"]
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="no spec of a training"):
        put_scores_into_run(tmp_path, document)


def test_the_command_writes_the_fit_of_a_folder_and_warns_of_training_videos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ("normal", "ulcer")
    model = write_tiny_model(tmp_path / "m.onnx", labels=labels)
    rows = ["file,split,frames,findings,labels"]
    (tmp_path / "data").mkdir()
    (tmp_path / "runs").mkdir()
    for name in ("a", "b", "c", "d", "e"):
        folder = write_run(tmp_path / "runs" / name, labels)
        truth = write_truth(tmp_path / "data" / f"{name}.truth.csv")
        if name in "ac":  # the same answers are false here
            truth.write_text(truth.read_text("utf-8").replace("Ulcer", "Normal"), encoding="utf-8")
        (tmp_path / "data" / f"{name}.mp4").write_bytes(b"")
        split, classes = "val" if name == "d" else "train", "" if name in "ac" else "Ulcer"
        rows.append(f"{name}.mp4,{split},60,1,{classes}")
        study = json.loads((folder / "study.json").read_text("utf-8"))
        study["source"]["sha256"] = name * 64
        study["warnings"] = [{"code": "seen_in_training", "message": "m"}] if name == "b" else []
        (folder / "study.json").write_text(json.dumps(study), encoding="utf-8")
    (tmp_path / "data" / "index.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    out = tmp_path / "scores.json"
    runs, data = tmp_path / "runs", tmp_path / "data"
    words = [
        "suggestion_fit",
        model,
        "--folder",
        runs,
        "--recordings",
        data,
        "--hold-folder",
        runs,
        "--out",
        out,
    ]
    # With b left out, e has the right event. Given twice, a recording is left out twice.
    words += ["--fit", runs / "b", data / "b.truth.csv"]
    monkeypatch.setattr("sys.argv", [str(word) for word in words])
    suggestion_fit.main()
    printed = capsys.readouterr()
    assert "was trained on this video" in printed.err
    assert "videos, not patients" in printed.out
    last = json.loads(printed.out.splitlines()[-1])
    assert last == json.loads(out.read_text("utf-8"))
    assert last["recordings"] == {
        "fitted": ["b", "a", "b", "c", "e"],
        "held": ["d"],
        "unit": "videos, not patients",
    }
    assert last["fitted_recordings"] == ["a" * 64, "b" * 64, "c" * 64, "e" * 64]
    assert last["seen_in_training"] == ["b", "b"]
    assert last["measured"]["held"]["cards"]["events"] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["m.onnx", "--out", "o"], "nothing to fit on"),
        (["m.onnx", "--folder", "runs", "--out", "o"], "need --recordings DIR"),
        (["m.onnx", "--fit", "a", "b", "--fewer", "2", "--out", "o"], "cards to save is 2"),
        (["m.onnx", "--fit", "a", "b", "--capture-fps", "nan", "--out", "o"], "capture rate is nan"),
    ],
)
def test_impossible_options_are_refused(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["suggestion_fit", *words])
    with pytest.raises(SystemExit) as stopped:
        suggestion_fit.main()
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_broken_study_is_one_line(tmp_path: Path) -> None:
    assert read_source(tmp_path).sha256 is None
    for text in ("", "[]", "{}", '{"source": {"sha256": "a"}, "warnings": 3}'):
        (tmp_path / "study.json").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=r"not a readable study\.json"):
            read_source(tmp_path)


def test_the_events_of_a_real_result_are_measured_as_the_runtime_measures_them(tmp_path: Path) -> None:
    video = recording("eb0203196e284797")
    path = default_model("small")
    spec = open_model(path).spec
    with Reader.open(path) as reader:
        study = reader.read(video)
    write_study(study, tmp_path, timing={})
    one = read_recording(tmp_path, video.with_suffix(".truth.csv"), spec)
    assert [e.event.label for e in one.events] == [event.label for event in study.events]
    assert [e.event.start_index for e in one.events] == [event.start_index for event in study.events]
    assert spec.suggestions is not None
    scored = scored_with(one, spec.suggestions.weights)
    groups = [
        (event.label, score)
        for event, score in zip(study.events, scored.scores, strict=True)
        if event.id in {suggestion.events[0] for suggestion in study.suggestions}
    ]
    assert sorted(groups) == sorted((one.label, one.score) for one in study.suggestions)
