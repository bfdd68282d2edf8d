"""Readings: what each action changes, what it refuses, and two windows at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy", reason="the extra [serve] is not installed")
pytest.importorskip("alembic", reason="the extra [serve] is not installed")

import sqlalchemy as sa
from reading_samples import FACTS, FRAMES, STUDY, begin, sample_database, shown, write

from capsule_edge.workstation.readings import (
    ReadingConflictError,
    ReadingNotFoundError,
    ReadingValueError,
    add_finding,
    add_seen,
    change_examination,
    decide,
    finish,
    list_readings,
    open_reading,
    remove_landmark,
    reopen,
    second_pass,
    set_landmark,
    switch_way,
    undo,
)
from capsule_edge.workstation.store import Database, log, studies


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with sample_database(tmp_path) as opened:
        yield opened


def test_a_decision_is_a_row_and_a_line_of_the_log(database: Database) -> None:
    reading = begin(database)
    options = {"verdict": "relabelled", "label": "bleeding", "comment": "oozing", "seconds": 3}
    made = write(database, decide, FACTS, reading, "suggestion:1", version=0, **options)
    assert made["label"] == "bleeding"
    assert (made["start_index"], made["end_index"], made["key_index"]) == (40, 60, 50)
    assert shown(database, reading)["decisions"] == [made]
    with database.reading() as connection:
        line = connection.execute(
            sa.select(log).where(log.c.chain == STUDY).order_by(log.c.sequence.desc())
        ).first()
    assert line is not None
    assert (line.reader, line.study_sha256, line.model_sha256) == ("Dr. Reader", "a" * 64, "b" * 64)
    assert (line.target, line.action) == (f"reading:{reading}/suggestion:1", "decide")
    assert (line.before, line.after["verdict"], line.comment, line.seconds) == (
        None,
        "relabelled",
        "oozing",
        3.0,
    )


def test_of_two_windows_the_second_is_told_what_the_first_decided(database: Database) -> None:
    reading = begin(database)
    made, refused = [], []
    ready = threading.Barrier(2)

    def window(verdict: str) -> None:
        ready.wait(10)
        try:
            made.append(write(database, decide, FACTS, reading, "suggestion:2", verdict=verdict, version=0))
        except ReadingConflictError as error:
            refused.append(error)

    threads = [
        threading.Thread(target=window, args=(verdict,), daemon=True) for verdict in ("confirmed", "rejected")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (len(made), len(refused)) == (1, 1)
    assert refused[0].current == made[0]
    # With the version that the answer names, the second window can decide.
    version = made[0]["version"]
    again = write(database, decide, FACTS, reading, "suggestion:2", verdict="undecided", version=version)
    assert again["version"] > version


def test_a_decision_on_a_suggestion_of_another_result_is_refused(database: Database) -> None:
    reading = begin(database)
    with pytest.raises(ReadingConflictError, match="about the result 'eeee"):
        write(
            database,
            decide,
            FACTS,
            reading,
            "suggestion:1",
            verdict="confirmed",
            version=0,
            result_id="e" * 32,
        )
    assert shown(database, reading)["decisions"] == []
    own = shown(database, reading)["result_id"]
    made = write(
        database, decide, FACTS, reading, "suggestion:1", verdict="confirmed", version=0, result_id=own
    )
    assert made["verdict"] == "confirmed"


@pytest.mark.parametrize(
    "target", ["suggestion:4", "suggestion:01", "suggestion:", "finding:" + "0" * 32, "x"]
)
def test_an_unknown_target_is_not_found(database: Database, target: str) -> None:
    reading = begin(database)
    with pytest.raises(ReadingNotFoundError, match="has no"):
        write(database, decide, FACTS, reading, target, verdict="confirmed", version=0)
    with pytest.raises(ReadingNotFoundError):
        write(database, decide, FACTS, "7" * 32, "suggestion:1", verdict="confirmed", version=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"verdict": "added"}, "the verdict is 'added'"),
        ({"verdict": "relabelled"}, "the label is no text"),
        ({"verdict": "relabelled", "label": "polyp"}, "is 'polyp' already"),
        ({"verdict": "relabelled", "label": "other: "}, "allowed is one of angioectasia"),
        ({"verdict": "confirmed", "label": "bleeding"}, "with the verdict confirmed"),
        ({"verdict": "confirmed", "key_index": FRAMES}, "allowed is 0 to 599"),
        ({"verdict": "confirmed", "comment": "a\0b"}, "NUL"),
        ({"verdict": "confirmed", "comment": "\ud800"}, "half a surrogate pair"),
        ({"verdict": "confirmed", "comment": "x" * 4001}, "4,001 characters"),
        ({"verdict": "confirmed", "seconds": float("nan")}, "nan s"),
        ({"verdict": "confirmed", "seconds": -1}, "-1 s"),
    ],
)
def test_a_decision_that_is_not_allowed_changes_nothing(
    database: Database, options: dict[str, object], message: str
) -> None:
    reading = begin(database)
    before = shown(database, reading)
    with pytest.raises(ReadingValueError, match=message):
        write(database, decide, FACTS, reading, "suggestion:1", version=0, **options)
    assert shown(database, reading) == before


def test_names_of_any_script_are_kept_as_they_are(database: Database) -> None:
    name = "<script>alert(1)</script> \u202e\u05e9\u05dc\u05d5\u05dd \U0001f600 " + "ü" * 3950
    assert len(name) <= 4000
    reading = begin(database, reader=name)
    made = write(
        database, decide, FACTS, reading, "suggestion:1", verdict="rejected", version=0, comment=name
    )
    assert (shown(database, reading)["reader"], made["comment"]) == (name, name)


def test_a_finding_of_ones_own_is_changed_and_removed(database: Database) -> None:
    reading = begin(database)
    options = {"label": "other: a small pouch", "start_index": 10, "end_index": 14, "finding_id": "f" * 32}
    made = write(database, add_finding, FACTS, reading, **options)
    assert (made["key_index"], made["verdict"]) == (10, "added")
    # The answer was lost, and the page sends the same again.
    assert write(database, add_finding, FACTS, reading, **options) == made
    with pytest.raises(ReadingConflictError, match="another finding"):
        write(database, add_finding, FACTS, reading, **{**options, "label": "polyp"})
    target = made["target"]
    moved = write(
        database, decide, FACTS, reading, target, verdict="added", version=made["version"], end_index=20
    )
    assert (moved["label"], moved["start_index"], moved["end_index"]) == ("other: a small pouch", 10, 20)
    write(database, decide, FACTS, reading, target, verdict="removed", version=moved["version"])
    assert shown(database, reading)["decisions"] == []


@pytest.mark.parametrize(
    ("start", "end", "key"), [(5, 5, 5), (-1, 3, 0), (590, 601, 590), (5, 9, 9), (True, 3, 1)]
)
def test_a_finding_outside_the_recording_is_refused(
    database: Database, start: int, end: int, key: int
) -> None:
    reading = begin(database)
    with pytest.raises(ReadingValueError, match="allowed is"):
        write(
            database,
            add_finding,
            FACTS,
            reading,
            label="polyp",
            start_index=start,
            end_index=end,
            key_index=key,
        )


def test_undo_goes_back_step_by_step_and_each_step_is_logged(database: Database) -> None:
    reading = begin(database)
    first = write(
        database, decide, FACTS, reading, "suggestion:1", verdict="confirmed", version=0, comment="a"
    )
    write(database, decide, FACTS, reading, "suggestion:1", verdict="rejected", version=first["version"])
    added = write(database, add_finding, FACTS, reading, label="polyp", start_index=1, end_index=2)
    write(database, set_landmark, FACTS, reading, "colon", index=300)
    write(database, set_landmark, FACTS, reading, "colon", index=310)
    write(database, remove_landmark, reading, "colon")
    assert write(database, undo, reading)["state"] == {"index": 310, "time_s": 155.0}
    assert write(database, undo, reading)["state"] == {"index": 300, "time_s": 150.0}
    assert write(database, undo, reading)["state"] is None
    assert shown(database, reading)["landmarks"] == {}
    assert write(database, undo, reading)["target"] == added["target"]
    assert write(database, undo, reading)["state"]["verdict"] == "confirmed"
    (decision,) = shown(database, reading)["decisions"]
    assert (decision["comment"], decision["label"]) == ("a", "polyp")
    assert decision["version"] > first["version"]
    # A new decision is undone before the older ones.
    write(database, decide, FACTS, reading, "suggestion:1", verdict="rejected", version=decision["version"])
    assert write(database, undo, reading)["state"]["verdict"] == "confirmed"
    assert write(database, undo, reading)["state"]["verdict"] == "undecided"
    with pytest.raises(ReadingConflictError, match="nothing can be undone"):
        write(database, undo, reading)


def test_a_repeated_undo_undoes_no_second_action(database: Database) -> None:
    reading = begin(database)
    write(database, set_landmark, FACTS, reading, "stomach", index=3)
    write(database, set_landmark, FACTS, reading, "colon", index=9)
    last = shown(database, reading)["undoable"]
    assert write(database, undo, reading, sequence=last)["target"] == "landmark:colon"
    with pytest.raises(ReadingConflictError, match="not of line"):
        write(database, undo, reading, sequence=last)
    assert list(shown(database, reading)["landmarks"]) == ["stomach"]


def test_undo_leaves_other_readings_alone(database: Database) -> None:
    one, other = begin(database), begin(database, reader="Another")
    write(database, decide, FACTS, one, "suggestion:1", verdict="confirmed", version=0)
    write(database, decide, FACTS, other, "suggestion:1", verdict="rejected", version=0)
    write(database, undo, one)
    assert shown(database, other)["decisions"][0]["verdict"] == "rejected"


def test_landmarks_keep_the_order_of_the_passage_and_give_transit_times(database: Database) -> None:
    reading = begin(database)
    write(database, set_landmark, FACTS, reading, "small-bowel", index=100)
    write(database, set_landmark, FACTS, reading, "colon", index=400)
    with pytest.raises(ReadingValueError, match="stomach is at frame 101 and small-bowel at frame 100"):
        write(database, set_landmark, FACTS, reading, "stomach", index=101)
    with pytest.raises(ReadingValueError, match="colon is at frame 400 and end at frame 399"):
        write(database, set_landmark, FACTS, reading, "end", index=399)
    with pytest.raises(ReadingValueError, match="frame 595 is missing"):
        write(database, set_landmark, FACTS, reading, "end", index=595)
    with pytest.raises(ReadingValueError, match="'rectum', allowed is one of stomach"):
        write(database, set_landmark, FACTS, reading, "rectum", index=1)
    document = shown(database, reading)
    assert document["transit"] == {
        "gastric_s": 50.0,
        "gastric_from": "recording",
        "small_bowel_s": 150.0,
        "colon_s": None,
        "clock": "capture",
        "unknown_for_lack_of": None,
    }
    with pytest.raises(ReadingConflictError, match="colon was changed meanwhile") as refused:
        write(database, set_landmark, FACTS, reading, "colon", index=410, version=0)
    assert refused.value.current == {"target": "landmark:colon", **document["landmarks"]["colon"]}
    with pytest.raises(ReadingConflictError, match="changed meanwhile"):
        write(database, remove_landmark, reading, "colon", version=0)
    with pytest.raises(ReadingConflictError, match="changed meanwhile") as refused:
        write(database, set_landmark, FACTS, reading, "end", index=410, version=4)
    assert (refused.value.current["index"], refused.value.current["version"]) == (None, 0)
    with pytest.raises(ReadingNotFoundError, match="not set"):
        write(database, remove_landmark, reading, "end")


def test_seen_frames_are_counted_once_and_only_where_there_is_a_picture(database: Database) -> None:
    reading = begin(database)
    assert write(database, add_seen, FACTS, reading, skimmed=[[0, 300]])
    assert write(database, add_seen, FACTS, reading, seen=[[50, 150], [140, 160]], seconds=4.5, at_most_s=3)
    assert not write(database, add_seen, FACTS, reading, seen=[[60, 70]], skimmed=[[55, 56]])
    document = shown(database, reading)
    assert document["coverage"] == {"seen": [[50, 160]], "skimmed": [[0, 50], [160, 300]]}
    progress = document["progress"]
    # 20 of the 600 frames have no picture, 10 of them among those that were seen.
    assert progress["seen_share"] == 100 / 580
    assert progress["skimmed_share"] == 190 / 580
    assert (progress["seen_share_small_bowel"], progress["seconds"]) == (None, 3.0)
    write(database, set_landmark, FACTS, reading, "small-bowel", index=90)
    write(database, set_landmark, FACTS, reading, "colon", index=170)
    assert shown(database, reading)["progress"]["seen_share_small_bowel"] == 60 / 70


@pytest.mark.parametrize("ranges", [[[0, 601]], [[5, 5]], [[-1, 2]], [[1]], [[1, 2]] * 5001, [[1.0, 2]]])
def test_ranges_that_leave_the_recording_are_refused(database: Database, ranges: list[list[int]]) -> None:
    reading = begin(database)
    with pytest.raises(ReadingValueError, match="allowed"):
        write(database, add_seen, FACTS, reading, seen=ranges)


def test_hidden_suggestions_cannot_be_decided_until_the_second_pass(database: Database) -> None:
    reading = begin(database, way="hidden_first")
    document = shown(database, reading)
    assert (document["pass"], document["suggestions_hidden"]) == ("first", True)
    assert document["progress"]["suggestions"] is None
    with pytest.raises(ReadingConflictError, match="hidden until the first pass"):
        write(database, decide, FACTS, reading, "suggestion:1", verdict="confirmed", version=0)
    write(database, add_finding, FACTS, reading, label="polyp", start_index=1, end_index=2)
    write(database, second_pass, reading)
    document = shown(database, reading)
    assert (document["pass"], document["progress"]["suggestions"]) == ("second", 3)
    write(database, decide, FACTS, reading, "suggestion:1", verdict="confirmed", version=0)


def test_suggestions_that_were_visible_are_never_hidden_again(database: Database) -> None:
    reading = begin(database, way="hidden_first")
    write(database, switch_way, reading, way="everything")
    write(database, switch_way, reading, way="hidden_first")
    document = shown(database, reading)
    assert (document["way"], document["suggestions_hidden"]) == ("hidden_first", False)


def test_a_finished_reading_changes_only_when_it_is_reopened(database: Database) -> None:
    reading = begin(database)
    write(database, finish, reading)
    write(database, finish, reading)
    with pytest.raises(ReadingConflictError, match="finished"):
        write(database, decide, FACTS, reading, "suggestion:1", verdict="confirmed", version=0)
    with pytest.raises(ReadingConflictError, match="finished"):
        write(database, add_seen, FACTS, reading, seen=[[0, 1]])
    write(database, reopen, reading)
    write(database, decide, FACTS, reading, "suggestion:1", verdict="confirmed", version=0)
    with database.reading() as connection:
        (summary,) = list_readings(connection, STUDY)
    assert (summary["state"], summary["finished_at"], summary["decided"]) == ("open", None, 1)


def test_a_reading_that_was_finished_blind_is_reopened_in_the_second_pass(database: Database) -> None:
    reading = begin(database, way="hidden_first")
    write(database, finish, reading)
    write(database, reopen, reading)
    assert shown(database, reading)["pass"] == "second"
    with database.reading() as connection:
        actions = connection.scalars(sa.select(log.c.action).order_by(log.c.sequence.desc()).limit(3)).all()
    assert actions == ["second_pass", "reopen", "finish"]


def test_a_reading_needs_a_name_a_way_and_a_result(database: Database) -> None:
    good = {"study_id": STUDY, "reader": "A", "way": "everything"}
    for wrong, kind in (
        ({"reader": " \u3000"}, ReadingValueError),
        ({"way": "backwards"}, ReadingValueError),
        ({"study_id": "0" * 32}, ReadingNotFoundError),
        ({"result_id": "0" * 32}, ReadingNotFoundError),
    ):
        with pytest.raises(kind):
            write(database, open_reading, **{**good, **wrong})
    with database.writing() as connection:
        connection.execute(sa.text("DELETE FROM results"))
    with pytest.raises(ReadingConflictError, match="no model has read"):
        write(database, open_reading, **good)


def test_the_examination_is_changed_by_field_with_its_version(database: Database) -> None:
    first = write(
        database, change_examination, STUDY, reader="Dr. A", version=0, fields={"patient_name": "Ødegård"}
    )
    version = first["examination_version"]
    with pytest.raises(ReadingConflictError, match="changed meanwhile") as refused:
        write(database, change_examination, STUDY, reader="Dr. B", version=0, fields={"indication": "x"})
    assert refused.value.current == first
    second = write(
        database, change_examination, STUDY, reader="B", version=version, fields={"birth_date": "1950-02-28"}
    )
    assert second["examination"]["patient_name"] == "Ødegård"
    same = write(
        database,
        change_examination,
        STUDY,
        reader="B",
        version=second["examination_version"],
        fields={"birth_date": "1950-02-28"},
    )
    assert same == second
    with database.reading() as connection:
        row = connection.execute(sa.select(studies)).one()
        query = sa.select(log.c.before, log.c.after).where(log.c.chain == STUDY)
        lines = connection.execute(query.order_by(log.c.sequence)).all()
    assert row.examination == second["examination"]
    assert lines == [
        ({"patient_name": ""}, {"patient_name": "Ødegård"}),
        ({"birth_date": ""}, {"birth_date": "1950-02-28"}),
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"birth_date": "1950-02-30"},
        {"birth_date": "9999-01-01"},
        {"procedure_date": "2026-W01-1"},
        {"birth_date": "\u0662\u0660\u0662\u0666-01-01"},
        {"name": "x"},
        {"patient_name": "\udfff"},
    ],
)
def test_an_examination_field_that_is_not_allowed_is_refused(
    database: Database, fields: dict[str, str]
) -> None:
    with pytest.raises(ReadingValueError):
        write(database, change_examination, STUDY, reader="A", version=0, fields=fields)
