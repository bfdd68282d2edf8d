"""``archive compare``: which results are compared, the figures, the truth, the gates, and bad input in one line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from paths import ROOT

pytest.importorskip("pyarrow")

from comparison_samples import (
    MODELS,
    NEW,
    OLD,
    MadeRecording,
    made_study,
    result_folder,
    write_archive,
    write_marks,
)

from capsule_edge.archive.compare import (
    ComparisonOptions,
    choose_models,
    compare_archives,
    render_comparison,
)
from capsule_edge.archive.compare.difference_counts import resample_sums
from capsule_edge.archive.manifest import Manifest
from capsule_edge.runtime.errors import InputError, UsageError

SCHEMA = json.loads((ROOT / "archive" / "schema" / "archive-comparison-1.schema.json").read_text("utf-8"))
ULCER, EROSION = ("ulcer", 20, 29, 0.9), ("erosion", 60, 69, 0.6)
ONE = MadeRecording("one.mp4", [ULCER, EROSION], site="Köln", capsule_type="round")
TWO = MadeRecording("two.mp4", [ULCER], site="Bonn", capsule_type="long")


def with_suggestions(recording: MadeRecording, *suggestions) -> MadeRecording:
    return replace(recording, suggestions=suggestions)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """The new model misses the erosion of the first recording and calls the ulcer of the second an erosion."""
    old = write_archive(tmp_path / "old", [ONE, TWO], OLD)
    changed = [with_suggestions(ONE, ULCER), with_suggestions(TWO, ("erosion", 20, 29, 0.8))]
    return old, write_archive(tmp_path / "new", changed, NEW)


def many(tmp_path: Path, count: int, lost: int = 0, added: int = 0) -> tuple[Path, Path]:
    """Recordings with 4 old suggestions each; the new model loses and adds some, one in a recording."""
    spots = [("ulcer", at, at + 9, 0.5) for at in (0, 40, 80, 120)]
    more = ("ulcer", 180, 189, 0.4)
    recordings = [MadeRecording(f"{number}.mp4", spots) for number in range(count)]
    changed = [
        with_suggestions(one, *spots[number < lost :], *([more] if number < added else []))
        for number, one in enumerate(recordings)
    ]
    return write_archive(tmp_path / "old", recordings, OLD), write_archive(tmp_path / "new", changed, NEW)


def gates(document: dict) -> dict[str, str]:
    return {gate["name"]: gate["verdict"] for gate in document["gates"]}


def test_the_differences_are_found_and_counted(pair: tuple[Path, Path]) -> None:
    document = compare_archives(*pair).document
    jsonschema.validate(document, SCHEMA, jsonschema.Draft202012Validator)
    assert [(one["recording"], one["kinds"]) for one in document["differences"]] == [
        ("/recordings/one.mp4", ["only_old"]),
        ("/recordings/two.mp4", ["label"]),
    ]
    lost, renamed = document["differences"]
    assert (lost["old"]["label"], lost["old"]["start_index"], lost["new"]) == ("erosion", 60, None)
    assert (renamed["old"]["label"], renamed["new"]["label"], renamed["overlap"]) == ("ulcer", "erosion", 1.0)
    overall = document["overall"]
    assert [overall[name] for name in ("recordings", "frames", "old", "new")] == [2, 400, 3, 2]
    assert [overall[name] for name in ("same_label", "only_old", "only_new", "relabelled")] == [1, 1, 0, 1]
    assert overall["change_per_1000_frames"]["value"] == pytest.approx(-2.5)
    assert overall["places_lost"]["value"] == pytest.approx(1 / 3)
    by_label = {row["label"]: (row["old"], row["new"], row["only_old"]) for row in document["by_label"]}
    assert by_label == {"erosion": (1, 1, 1), "ulcer": (2, 1, 0)}
    assert [(row["site"], row["old"]) for row in document["by_site"]] == [("Bonn", 1), ("Köln", 2)]
    assert [(row["capsule_type"], row["new"]) for row in document["by_capsule_type"]] == [
        ("long", 1),
        ("round", 1),
    ]
    # Two recordings have no interval, and too few suggestions to decide.
    assert overall["rise"]["interval"] is None
    assert document["verdict"] == "undecided"


def test_the_other_way_round_it_is_the_mirror_image(pair: tuple[Path, Path]) -> None:
    there, back = compare_archives(*pair).document, compare_archives(*reversed(pair)).document
    assert there["overall"]["only_old"] == back["overall"]["only_new"] == 1
    assert there["overall"]["change_per_1000_frames"]["value"] == pytest.approx(
        -back["overall"]["change_per_1000_frames"]["value"]
    )


def test_two_models_in_one_archive(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "both", [ONE, TWO], OLD, at="2026-01-01T00:00:00Z")
    changed = [with_suggestions(ONE, ULCER), TWO]
    write_archive(archive, changed, NEW, at="2026-02-01T00:00:00Z")
    # The manifest has the new rows alone, as after 'archive read' with another model.
    document = compare_archives(archive).document
    assert [document["models"][side]["sha256"] for side in ("old", "new")] == [OLD, NEW]
    assert document["recordings"]["compared"] == 2
    assert [one["kinds"] for one in document["differences"]] == [["only_old"]]
    turned = compare_archives(archive, models=choose_models((NEW[:8], OLD[:8]))).document
    assert [one["kinds"] for one in turned["differences"]] == [["only_new"]]


def test_equivalence_passes_where_nothing_is_lost_and_fails_where_much_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, NEW, MODELS[OLD])  # the same name and version: two forms of one model
    same = compare_archives(*many(tmp_path / "same", 30)).document
    assert same["kind"] == "equivalence"
    # Nothing differs, and yet the interval has a width: Wilson's for 0 of 120.
    assert same["overall"]["places_lost"]["interval"] == [0.0, pytest.approx(0.0310, abs=2e-4)]
    assert gates(same)["places_lost"] == gates(same)["places_lost.ulcer"] == "pass"
    # So has that of the rise: 1.96 suggestions of 120.
    assert same["overall"]["rise"]["interval"] == pytest.approx([-1.96 / 120, 1.96 / 120], rel=1e-4)
    assert gates(same)["suggestions_rise"] == same["verdict"] == "pass"
    worse = compare_archives(*many(tmp_path / "worse", 30, lost=20)).document
    assert gates(worse)["places_lost"] == worse["verdict"] == "fail"
    few = compare_archives(*many(tmp_path / "few", 5, lost=5)).document
    assert gates(few)["places_lost"] == few["verdict"] == "undecided"
    assert few["gates"][0]["reason"] == "20 suggestions in 5 recordings or patients, needed are 100 in 10"


def test_a_rise_of_the_number_of_suggestions_decides(tmp_path: Path) -> None:
    little = compare_archives(*many(tmp_path / "little", 40, added=10)).document
    assert little["kind"] == "replacement"
    assert little["overall"]["rise"]["value"] == pytest.approx(10 / 160)
    assert gates(little)["suggestions_rise"] == "pass"
    # Without truth nobody knows whether the model is better.
    assert gates(little)["findings_lost"] == little["verdict"] == "undecided"
    much = compare_archives(*many(tmp_path / "much", 40, added=39)).document
    assert gates(much)["suggestions_rise"] == "fail"
    # The option turns it into a comparison of forms, whose limit is lower.
    strict = compare_archives(
        *many(tmp_path / "strict", 40, added=10), options=ComparisonOptions(kind="equivalence")
    ).document
    assert gates(strict)["suggestions_rise"] == "undecided"


def test_recordings_of_one_patient_are_drawn_together(tmp_path: Path) -> None:
    spots = [("ulcer", at, at + 9, 0.5) for at in (0, 40, 80)]
    recordings = [MadeRecording(f"{number}.mp4", spots, patient=f"p{number // 10}") for number in range(60)]
    # All recordings of the first patient, and no other, lose their suggestions.
    changed = [with_suggestions(one) if one.patient == "p0" else one for one in recordings]
    old, new = write_archive(tmp_path / "old", recordings, OLD), write_archive(tmp_path / "new", changed, NEW)
    grouped = compare_archives(old, new).document["overall"]
    assert grouped["units"] == 6
    alone = [replace(one, patient=None) for one in recordings]
    shutil.rmtree(old), shutil.rmtree(new)
    write_archive(old, alone, OLD)
    write_archive(new, [replace(one, patient=None) for one in changed], NEW)
    apart = compare_archives(old, new).document["overall"]
    assert apart["units"] == 60
    widths = [entry["rise"]["interval"][1] - entry["rise"]["interval"][0] for entry in (grouped, apart)]
    assert widths[0] > 2 * widths[1]


def test_the_bootstrap_depends_on_its_seed_alone(tmp_path: Path) -> None:
    units = [f"recording {number}" for number in range(12)]
    columns = np.arange(24.0).reshape(12, 2)
    first, again, other = (resample_sums(units, columns, resamples=50, seed=seed) for seed in (1, 1, 2))
    assert first is not None
    assert first.shape == (50, 2)
    assert (first == again).all()
    assert (first != other).any()
    # In the mean of the resamples, each recording is there once: 276 and 144 within four standard errors.
    assert first.mean(axis=0) == pytest.approx(columns.sum(axis=0), rel=0.1)
    assert resample_sums(units[:4], columns[:4], resamples=50, seed=1) is None
    folders = many(tmp_path, 12, lost=4)
    none = compare_archives(*folders, options=ComparisonOptions(resamples=0)).document
    assert none["overall"]["rise"]["interval"] is None


def test_findings_hit_and_false_suggestions_by_the_truth(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    truth = tmp_path / "truth"
    write_marks(truth, ONE, [("Erosion", 60, 69), ("Ulcer", 100, 109)])
    write_marks(truth, TWO, [("Ulcer", 20, 29)])
    document = compare_archives(*pair, options=ComparisonOptions(truth=truth)).document
    jsonschema.validate(document, SCHEMA, jsonschema.Draft202012Validator)
    group = document["truth"]["unseen"]
    assert group == document["truth"]["all"]
    # The old model hits the erosion and the second ulcer; its first ulcer is false. The new one hits nothing, and its
    # erosion at the second ulcer shows that under another name.
    sides = [[group[side][name] for name in ("hit", "seen", "false_suggestions")] for side in ("old", "new")]
    assert (group["findings"], sides) == (3, [[2, 2, 1], [0, 1, 2]])
    assert group["mcnemar"] == {"only_old": 2, "only_new": 0, "p_value": 0.5}
    assert group["hits_lost"]["value"] == pytest.approx(2 / 3)
    right = [
        (one["old"] and one["old"]["right"], one["new"] and one["new"]["right"])
        for one in document["differences"]
    ]
    assert right == [(True, None), (True, False)]
    page = render_comparison(compare_archives(*pair, options=ComparisonOptions(truth=truth)))
    assert "2 of 3" in page
    assert "False by the truth" in page


class _Elsewhere(MadeRecording):
    """Another recording of the name of the first one, with other bytes."""

    sha256 = "d" * 64


def write_two_of_one_name(tmp_path: Path, *, in_new: bool = True) -> tuple[Path, Path]:
    """Write two archives with /recordings/one.mp4 and /elsewhere/one.mp4, which are different recordings."""
    folders = (
        write_archive(tmp_path / "old", [ONE, TWO], OLD),
        write_archive(tmp_path / "new", [ONE, TWO], NEW),
    )
    for folder, model in zip(folders[: 1 + in_new], (OLD, NEW), strict=False):
        (row,) = (row for row in Manifest(folder).rows() if row.recording.endswith("one.mp4"))
        key = model[0] * 64
        target = folder / "results" / key[:2] / key
        target.mkdir(parents=True)
        study = made_study(_Elsewhere(ONE.name, ONE.suggestions), model)
        (target / "study.json").write_text(json.dumps(study), "utf-8")
        shutil.copy(result_folder(folder, ONE, model) / "frames.csv", target)
        manifest = Manifest(folder)
        manifest.begin()
        manifest.append([replace(row, recording="/elsewhere/one.mp4", sha256=_Elsewhere.sha256, key=key)])
    return folders


@pytest.mark.parametrize("in_new", [True, False])
def test_a_truth_table_with_the_name_of_two_recordings_counts_for_none(tmp_path: Path, in_new: bool) -> None:
    truth = tmp_path / "truth"
    folders = write_two_of_one_name(tmp_path, in_new=in_new)
    write_marks(truth, ONE, [("Ulcer", 20, 29)])
    write_marks(truth, TWO, [("Ulcer", 20, 29)])
    found = compare_archives(*folders, options=ComparisonOptions(truth=truth)).document["truth"]
    assert found["recordings"] == 1
    left = {one["recording"]: one["message"] for one in found["left_out"]}
    assert set(left) == {"/recordings/one.mp4", *(["/elsewhere/one.mp4"] if in_new else [])}
    assert "one.truth.csv has the name of 2 recordings" in left["/recordings/one.mp4"]
    assert "/elsewhere/one.mp4" in left["/recordings/one.mp4"]


def test_copies_of_a_recording_are_one_for_its_truth_table(tmp_path: Path) -> None:
    truth, folders = tmp_path / "truth", [tmp_path / "old", tmp_path / "new"]
    for folder, model in zip(folders, (OLD, NEW), strict=True):
        write_archive(folder, [ONE], model)
        manifest = Manifest(folder)
        (row,) = manifest.rows()
        manifest.begin()
        manifest.append([replace(row, recording="/copies/one.mp4")])
    write_marks(truth, ONE, [("Ulcer", 20, 29)])
    found = compare_archives(*folders, options=ComparisonOptions(truth=truth)).document["truth"]
    assert (found["recordings"], found["left_out"]) == (1, [])


def test_a_folder_of_pictures_does_not_take_the_truth_of_a_shorter_name(tmp_path: Path) -> None:
    """The truth of exam.mp4 is not that of the folder exam.1, of 1.2.840 not that of 1.2.841."""
    truth = tmp_path / "truth"
    video, folder, other = (MadeRecording(name, [ULCER]) for name in ("exam.MP4", "exam.1", "1.2.841"))
    archives = [
        write_archive(tmp_path / name, [video, folder, other], model)
        for name, model in (("o", OLD), ("n", NEW))
    ]
    for name in ("exam.mp4", "1.2.mp4"):
        write_marks(truth, MadeRecording(name), [("Ulcer", 20, 29)])
    options = ComparisonOptions(truth=truth)
    found = compare_archives(*archives, options=options).document["truth"]
    assert {one["recording"] for one in found["findings"]} == {"/recordings/exam.MP4"}
    # The full name goes before the name without suffix.
    (truth / "exam.MP4.truth.csv").write_text("index,label\n0,Normal\n", "utf-8")
    (truth / "exam.1.truth.csv").write_text((truth / "exam.truth.csv").read_text("utf-8"), "utf-8")
    found = compare_archives(*archives, options=options).document["truth"]
    assert {one["recording"] for one in found["findings"]} == {"/recordings/exam.1"}
    assert [one["recording"] for one in found["left_out"]] == ["/recordings/exam.MP4"]


def test_recordings_of_the_training_do_not_decide(tmp_path: Path) -> None:
    truth = tmp_path / "truth"
    seen = replace(ONE, warnings=["seen_in_training"])
    old = write_archive(tmp_path / "old", [seen, TWO], OLD)
    new = write_archive(tmp_path / "new", [with_suggestions(ONE, ULCER), TWO], NEW)
    for recording in (ONE, TWO):
        write_marks(truth, recording, [("Ulcer", 20, 29), ("Erosion", 60, 69)])
    found = compare_archives(old, new, options=ComparisonOptions(truth=truth)).document["truth"]
    assert (found["trained_on"], found["unseen"]["recordings"], found["all"]["recordings"]) == (1, 1, 2)
    assert (found["unseen"]["old"]["hit"], found["all"]["old"]["hit"]) == (1, 3)


def test_truth_gates_decide_with_enough_findings(tmp_path: Path) -> None:
    truth = tmp_path / "truth"
    old, new = many(tmp_path, 40, lost=40)
    for number in range(40):
        findings = [("Ulcer", at, at + 9) for at in (0, 40, 80, 120)]
        write_marks(truth, MadeRecording(f"{number}.mp4"), findings)
    document = compare_archives(old, new, options=ComparisonOptions(truth=truth)).document
    assert gates(document)["findings_lost"] == document["verdict"] == "fail"
    better = compare_archives(new, old, options=ComparisonOptions(truth=truth)).document
    assert gates(better)["findings_lost"] == "pass"


@pytest.mark.parametrize(("count", "verdict"), [(10, "pass"), (9, "undecided")])
def test_equal_numbers_of_false_suggestions_decide_if_there_are_enough(
    tmp_path: Path, count: int, verdict: str
) -> None:
    """All suggestions are false but the first of each recording: 30 suffice for the limit of 10 %, 27 do not."""
    truth = tmp_path / "truth"
    old, new = many(tmp_path, count)
    for number in range(count):
        write_marks(truth, MadeRecording(f"{number}.mp4"), [("Ulcer", 0, 9)])
    options = ComparisonOptions(truth=truth, kind="replacement")
    document = compare_archives(old, new, options=options).document
    figure = document["truth"]["unseen"]["false_rise"]
    false = 3 * count
    assert (figure["value"], document["truth"]["unseen"]["old"]["false_suggestions"]) == (0, false)
    assert figure["interval"] == pytest.approx([-1.96 / false, 1.96 / false], rel=1e-4)
    assert gates(document)["false_suggestions_rise"] == verdict


def test_a_change_that_is_the_same_in_every_recording_has_an_interval(tmp_path: Path) -> None:
    """In all 12 recordings an ulcer becomes an erosion: no change over all labels, and one of -1 for ulcers."""
    recordings = [MadeRecording(f"{number}.mp4", [("ulcer", 0, 9, 0.5)]) for number in range(12)]
    changed = [with_suggestions(one, ("erosion", 0, 9, 0.5)) for one in recordings]
    old, new = write_archive(tmp_path / "old", recordings, OLD), write_archive(tmp_path / "new", changed, NEW)
    document = compare_archives(old, new).document
    assert document["overall"]["rise"]["interval"] == pytest.approx([-1.96 / 12, 1.96 / 12], rel=1e-4)
    (ulcer,) = [row for row in document["by_label"] if row["label"] == "ulcer"]
    low, high = ulcer["rise"]["interval"]
    assert (low, high) == (pytest.approx(-1 - 1.96 / 12, rel=1e-4), pytest.approx(-1 + 1.96 / 12, rel=1e-4))
    # One more in each of 40 recordings is a rise of 25 %, and not undecided.
    more = compare_archives(*many(tmp_path / "more", 40, added=40)).document
    assert gates(more)["suggestions_rise"] == "fail"


def test_recordings_without_a_pair_are_named_with_the_cause(tmp_path: Path) -> None:
    three, four, five = (MadeRecording(f"{name}.mp4", [ULCER]) for name in ("three", "four", "five"))
    old = write_archive(tmp_path / "old", [ONE, TWO, three, four], OLD)
    new = write_archive(tmp_path / "new", [ONE, with_suggestions(TWO), four, five], NEW)
    (result_folder(old, ONE, OLD) / "study.json").write_text("{", "utf-8")
    shutil.rmtree(result_folder(new, four, NEW))
    document = compare_archives(old, new).document
    assert document["recordings"]["compared"] == 1
    causes = {(Path(one["recording"]).stem, one["cause"]) for one in document["recordings"]["not_compared"]}
    assert causes == {("three", "only_old"), ("five", "only_new"), ("one", "result"), ("four", "result")}
    messages = " ".join(one["message"] for one in document["recordings"]["not_compared"])
    assert "is damaged" in messages
    assert "is gone" in messages
    # The page says the same.
    page = render_comparison(compare_archives(old, new))
    assert "Not compared: 4 recordings or results" in page


@pytest.mark.parametrize(
    "study",
    [
        {"events": "none"},
        {"suggestions": [{"id": 1, "label": "ulcer", "events": [7], "score": 0.5, "alternatives": []}]},
        {"suggestions": [{"id": 1, "label": "ulcer", "events": [], "score": 0.5, "alternatives": []}]},
        {"ledger": {}},
        {"model": None},
        {"source": []},
        {"rules": {"thresholds": 7}},
        {
            "events": [
                {"id": 1, "label": "u", "start_index": 9, "end_index": 3, "peak_index": 5, "start_s": 0}
            ]
        },
    ],
    ids=str,
)
def test_a_damaged_result_is_left_out(tmp_path: Path, study: dict) -> None:
    old = write_archive(tmp_path / "old", [ONE, TWO], OLD)
    new = write_archive(tmp_path / "new", [TWO], NEW)
    write_archive(new, [ONE], NEW, changes=study)
    document = compare_archives(old, new).document
    (left,) = document["recordings"]["not_compared"]
    assert (left["cause"], document["recordings"]["compared"]) == ("result", 1)
    assert "\n" not in left["message"]


def test_a_file_that_changed_between_the_readings_is_not_compared(tmp_path: Path) -> None:
    old = write_archive(tmp_path / "old", [ONE, TWO], OLD)
    new = write_archive(tmp_path / "new", [ONE], NEW)

    class Changed(MadeRecording):
        sha256 = "c" * 64

    write_archive(new, [Changed("two.mp4", [ULCER])], NEW)
    (left,) = compare_archives(old, new).document["recordings"]["not_compared"]
    assert (left["recording"], left["cause"]) == ("/recordings/two.mp4", "changed")


def test_a_result_of_another_recording_is_left_out(tmp_path: Path) -> None:
    old = write_archive(tmp_path / "old", [ONE, TWO], OLD)
    new = write_archive(tmp_path / "new", [ONE, TWO], NEW)
    shutil.copy(result_folder(new, TWO, NEW) / "study.json", result_folder(new, ONE, NEW) / "study.json")
    (left,) = compare_archives(old, new).document["recordings"]["not_compared"]
    assert (left["recording"], left["cause"]) == ("/recordings/one.mp4", "result")
    assert "another recording" in left["message"]


def test_copies_count_once(tmp_path: Path) -> None:
    class Copy(MadeRecording):
        sha256 = ONE.sha256

    copy = Copy("copy.mp4", ONE.suggestions)
    old = write_archive(tmp_path / "old", [ONE, copy], OLD)
    new = write_archive(tmp_path / "new", [ONE, copy], NEW)
    document = compare_archives(old, new).document
    assert (document["recordings"]["compared"], document["recordings"]["copies"]) == (1, 2)


def test_other_versions_and_engines_are_warned_of(tmp_path: Path) -> None:
    old = write_archive(tmp_path / "old", [ONE], OLD)
    new = write_archive(
        tmp_path / "new", [ONE], NEW, changes={"tool": {"version": "2", "options": {"every": 1}}}
    )
    (warning,) = compare_archives(old, new).document["warnings"]
    assert "version of capsule-edge differs: 1.0 and 2" in warning


def test_bad_input_is_one_line(tmp_path: Path, call, pair: tuple[Path, Path]) -> None:
    old, new = pair
    empty = tmp_path / "empty"
    empty.mkdir()
    nothing = tmp_path / "nothing"
    (nothing / "manifest").mkdir(parents=True)
    other = write_archive(tmp_path / "other", [MadeRecording("x.mp4")], NEW)
    sampled = {"tool": {"version": "1.0", "options": {"every": 5}}}
    sparse = write_archive(tmp_path / "sparse", [ONE, TWO], NEW, changes=sampled)
    mixed = write_archive(write_archive(tmp_path / "mixed", [ONE], OLD), [TWO], NEW)
    truth = tmp_path / "truth"
    write_marks(truth, MadeRecording("unknown.mp4"), [("Ulcer", 20, 29)])
    for arguments, code, words in (
        ((empty, new), 1, "holds no archive"),
        ((old, tmp_path / "absent"), 1, "holds no archive"),
        ((nothing, new), 1, "holds no result"),
        ((old, other), 1, "have no recording in common"),
        ((old, sparse), 1, "other options"),
        ((old, old), 2, "results of 1 models, two are needed"),
        ((old,), 2, "results of 1 models, two are needed"),
        ((old, shutil.copytree(old, tmp_path / "twin")), 2, "the same results"),
        ((mixed, new), 2, "results of 2 models"),
        ((old, new, "--models", "standard", "standard"), 2, "same model"),
        ((old, new, "--models", "standard", "nonsense"), 2, "is no model"),
        ((old, new, "--models", "standard", "small"), 1, "no result of the model standard"),
        ((old, new, "--truth", tmp_path / "absent"), 1, "is no folder"),
        ((old, new, "--truth", empty), 1, "holds no truth table"),
        ((old, new, "--truth", truth), 1, "none of the 1 truth tables"),
        (
            (old, new, "--out", old / "manifest" / next((old / "manifest").iterdir()).name),
            1,
            "cannot be a folder",
        ),
    ):
        shown = call("archive", "compare", *arguments)
        assert (shown.code, len(shown.err.splitlines())) == (code, 1), (arguments, shown.err)
        assert words in shown.err, (words, shown.err)


def test_a_truth_that_does_not_fit_its_recording_is_named(
    tmp_path: Path, pair: tuple[Path, Path], call
) -> None:
    truth = tmp_path / "truth"
    write_marks(truth, ONE, [("Ulcer", 20, 29)])
    write_marks(truth, TWO, [("Ulcer", 20, 29)])
    table = truth / "one.truth.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:50]) + "\n", "utf-8")
    document = compare_archives(*pair, options=ComparisonOptions(truth=truth)).document
    assert [one["recording"] for one in document["truth"]["left_out"]] == ["/recordings/one.mp4"]
    assert document["truth"]["recordings"] == 1
    (truth / "two.truth.csv").write_text("index,label\n0,Ulcer\n", "utf-8")
    shown = call("archive", "compare", *pair, "--truth", truth)
    assert shown.code == 1
    assert "no truth table fits" in shown.err


def test_the_command_prints_the_verdict_and_writes_whole(tmp_path: Path, call) -> None:
    old, new = many(tmp_path, 40, added=39)
    out = tmp_path / "out"
    shown = call("archive", "compare", old, new, "--out", out)
    assert shown.code == 4
    assert shown.out.splitlines()[-1] == "verdict: fail"
    document = json.loads((out / "comparison.json").read_text("utf-8"))
    assert document["verdict"] == "fail"
    assert "39 differences" in (out / "comparison.html").read_text("utf-8")
    assert sorted(path.name for path in out.iterdir()) == ["comparison.html", "comparison.json"]
    again = call("archive", "compare", old, new, "--out", out)
    assert (again.code, "already holds" in again.err) == (1, True)
    printed = call("archive", "compare", old, new, "--out", out, "--overwrite", "--no-pictures", "--json")
    assert (printed.code, printed.json) == (4, document)


def test_names_are_escaped_on_the_page(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    evil = MadeRecording(f"{hostile}.mp4", [(f"{hostile}", 20, 29, 0.9)], site=hostile, capsule_type=hostile)
    old = write_archive(tmp_path / "old", [evil, TWO], OLD)
    new = write_archive(tmp_path / "new", [with_suggestions(evil), TWO], NEW)
    page = render_comparison(compare_archives(old, new))
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_the_schema_refuses_what_it_does_not_describe(pair: tuple[Path, Path]) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    document = compare_archives(*pair).document
    for wrong in ({"verdict": "maybe"}, {"extra": 1}, {"overall": {}}, {"gates": [{}]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(document | wrong, SCHEMA, jsonschema.Draft202012Validator)


def test_errors_are_of_the_tree(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no archive"):
        compare_archives(tmp_path, tmp_path / "other")
    with pytest.raises(UsageError, match="same model"):
        choose_models(("abcdef01", "abcdef"))
