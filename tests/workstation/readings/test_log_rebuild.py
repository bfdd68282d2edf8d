"""The log: tables can be rebuilt from it, and a changed, missing, cut or rewritten line is found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="the extra [serve] is not installed")
pytest.importorskip("alembic", reason="the extra [serve] is not installed")

import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading_samples import FACTS, STUDY, add_sample_study, begin, sample_database, write

from capsule_edge.workstation.readings import (
    FIRST_HASH,
    LogFaultError,
    ReadingConflictError,
    ReadingNotFoundError,
    ReadingValueError,
    add_finding,
    add_seen,
    append_line,
    canonical_json,
    change_examination,
    decide,
    finish,
    hash_line,
    open_reading,
    read_lines,
    rebuild,
    remove_landmark,
    reopen,
    repair_tables,
    second_pass,
    set_landmark,
    switch_way,
    undo,
    verify_database,
    verify_file,
)
from capsule_edge.workstation.store import (
    Database,
    coverage,
    decisions,
    delete_study,
    landmarks,
    log,
    readings,
    studies,
)

_TABLES = (readings, decisions, landmarks, coverage, studies)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with sample_database(tmp_path) as opened:
        yield opened


def _all_rows(connection: sa.Connection) -> dict[str, list[Any]]:
    return {
        table.name: connection.execute(sa.select(table).order_by(*table.primary_key.columns)).mappings().all()
        for table in _TABLES
    }


_FRAME = st.integers(-1, 601)
_RANGES = st.lists(st.tuples(_FRAME, _FRAME), max_size=4)
_TARGETS = st.sampled_from(["suggestion:1", "suggestion:2", "suggestion:3", "finding:" + "1" * 32])
_NAMES = st.sampled_from(["stomach", "small-bowel", "colon", "end"])
_ACTIONS = st.one_of(
    st.tuples(
        st.just("decide"),
        _TARGETS,
        st.sampled_from(["confirmed", "rejected", "relabelled", "undecided", "added", "removed"]),
        st.sampled_from([None, "polyp", "other: x"]),
    ),
    st.tuples(st.just("add"), st.sampled_from(["1" * 32, "2" * 32]), _FRAME, _FRAME),
    st.tuples(st.just("undo")),
    st.tuples(st.just("landmark"), _NAMES, _FRAME),
    st.tuples(st.just("remove_landmark"), _NAMES),
    st.tuples(st.just("seen"), _RANGES, _RANGES, st.floats(0, 10)),
    st.tuples(st.just("examine"), st.sampled_from(["patient_name", "indication"]), st.text(max_size=5)),
    st.tuples(st.sampled_from(["finish", "reopen", "second_pass", "open"])),
    st.tuples(st.just("way"), st.sampled_from(["suggestions_first", "everything", "hidden_first"])),
)


def _act(connection: sa.Connection, ids: list[str], action: tuple[Any, ...]) -> None:
    name, *values = action
    reading = ids[-1]
    if name == "decide":
        target, verdict, label = values
        row = connection.execute(
            sa.select(decisions.c.version).where(
                decisions.c.reading_id == reading, decisions.c.target == target
            )
        ).scalar()
        decide(
            connection, FACTS, reading, target, verdict=verdict, label=label, version=row or 0, seconds=0.1
        )
    elif name == "add":
        finding, start, end = values
        add_finding(
            connection, FACTS, reading, label="polyp", start_index=start, end_index=end, finding_id=finding
        )
    elif name == "landmark":
        set_landmark(connection, FACTS, reading, values[0], index=values[1])
    elif name == "seen":
        add_seen(connection, FACTS, reading, seen=values[0], skimmed=values[1], seconds=values[2])
    elif name == "examine":
        version = connection.execute(sa.select(studies.c.examination_version)).scalar_one()
        change_examination(connection, STUDY, reader="A", version=version, fields={values[0]: values[1]})
    elif name == "open":
        ids.append(open_reading(connection, study_id=STUDY, reader="B", way="hidden_first"))
    elif name == "way":
        switch_way(connection, reading, way=values[0])
    else:
        simple = {
            "undo": undo,
            "remove_landmark": remove_landmark,
            "finish": finish,
            "reopen": reopen,
            "second_pass": second_pass,
        }
        simple[name](connection, reading, *values)


class _Undone(Exception):  # noqa: N818 - no error: it ends a transaction that is not to be kept
    pass


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    actions=st.lists(_ACTIONS, min_size=1, max_size=25), way=st.sampled_from(["everything", "hidden_first"])
)
def test_tables_are_rebuilt_from_the_log_alone(
    database: Database, actions: list[tuple[Any, ...]], way: str
) -> None:
    with suppress(_Undone), database.writing() as connection:
        ids = [open_reading(connection, study_id=STUDY, reader="A", way=way)]
        for action in actions:
            with suppress(ReadingConflictError, ReadingNotFoundError, ReadingValueError):
                _act(connection, ids, action)
        before = _all_rows(connection)
        verify_database(connection)
        # Nothing but the log remains, and then the log brings everything back.
        for table in (decisions, landmarks, coverage, readings):
            connection.execute(sa.delete(table))
        connection.execute(sa.update(studies).values(examination={}, examination_version=77))
        rebuild(connection, STUDY)
        assert _all_rows(connection) == before
        raise _Undone


def _fill(database: Database) -> str:
    """Make a log of six lines and return the id of the reading."""
    reading = begin(database)
    for number in (1, 2, 3):
        options = {"verdict": "confirmed", "version": 0, "comment": f"number {number}"}
        write(database, decide, FACTS, reading, f"suggestion:{number}", **options)
    write(database, add_seen, FACTS, reading, seen=[[0, 50]], seconds=2.0)
    write(database, set_landmark, FACTS, reading, "colon", index=300)
    return reading


def test_a_whole_log_is_valid_and_knows_its_earlier_heads(database: Database) -> None:
    _fill(database)
    with database.writing() as connection:
        append_line(connection, chain="store", reader="", target="model:x", action="use")
        (store,) = [found for found in verify_database(connection) if found.chain == "store"]
        (found,) = verify_database(connection, STUDY)
        assert (store.lines, found.lines, found.since) == (2, 6, None)
        hashes = [line.hash for line in read_lines(connection, STUDY)]
        assert found.head == hashes[-1]
        (as_last,) = verify_database(connection, head=hashes[-1])
        (as_third,) = verify_database(connection, head=hashes[2])
        assert (as_last.chain, as_last.since, as_third.since) == (STUDY, 0, 3)
        with pytest.raises(LogFaultError, match="stands in no line"):
            verify_database(connection, head="e" * 64)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE log SET comment = 'number 9' WHERE sequence = 3", "line 3 of 5+ was changed"),
        ("UPDATE log SET reader = 'x' WHERE sequence = 6", "line 6 of 5+ was changed"),
        ("UPDATE log SET hash = previous_hash WHERE sequence = 2", "line 2 of 5+ was changed"),
        ("DELETE FROM log WHERE sequence = 4", "line 4 of 5+ is missing"),
        ("DELETE FROM log WHERE sequence = 1", "line 1 of 5+ is missing"),
        ("DELETE FROM log WHERE sequence > 4", "tables of 5+ are not what its log says"),
        ("DELETE FROM log", "tables of 5+ are not what its log says"),
        ("UPDATE decisions SET verdict = 'rejected' WHERE target = 'suggestion:2'", "first is decisions"),
        ("UPDATE readings SET seconds = 9", "first is readings"),
        ("DELETE FROM landmarks", "first is landmarks .*/colon"),
        ("UPDATE coverage SET seen = '[[0,600]]'", "first is coverage"),
        ("UPDATE coverage SET seen = '{'", "first is coverage"),
        ("UPDATE studies SET examination = '{'", "first is studies"),
        ("UPDATE studies SET examination_version = 1", "first is studies"),
    ],
)
def test_a_fault_in_the_database_is_found(database: Database, statement: str, message: str) -> None:
    _fill(database)
    with database.writing() as connection:
        connection.exec_driver_sql(statement)
        with pytest.raises(LogFaultError, match=message):
            verify_database(connection, STUDY)


_DAMAGE = [
    ("UPDATE log SET after = '{' WHERE chain != 'store' AND sequence = 2", "line 2 of 5+ was changed"),
    ("UPDATE log SET after = '[NaN]' WHERE chain != 'store' AND sequence = 2", "line 2 of 5+ was changed"),
    ("UPDATE log SET before = '" + "[" * 5000 + "' WHERE chain != 'store' AND sequence = 2", "line 2 of 5+"),
    ("UPDATE log SET seconds = 'abc' WHERE chain != 'store' AND sequence = 3", "line 3 of 5+ was changed"),
    ("UPDATE log SET utc = x'ff00' WHERE chain != 'store' AND sequence = 4", "line 4 of 5+ was changed"),
    (
        "UPDATE log SET comment = CAST(x'ff00' AS TEXT) WHERE chain != 'store' AND sequence = 4",
        "line 4 of 5+ cannot be read",
    ),
    ("UPDATE log SET sequence = 'x' WHERE chain != 'store' AND sequence = 6", "line 6 of 5+ is missing"),
    ("UPDATE log SET after = '7' WHERE chain = 'store'", "line 1 of store was changed"),
    ("DROP TABLE log", "no such table: log"),
    ("DROP TABLE coverage", "no such table: coverage"),
    ("ALTER TABLE log DROP COLUMN comment", "no such column"),
    ("UPDATE decisions SET comment = CAST(x'ff' AS TEXT)", "a text is not UTF-8"),
]


@pytest.mark.parametrize(("statement", "message"), _DAMAGE, ids=[entry[0][:60] for entry in _DAMAGE])
def test_damage_of_the_database_is_reported_as_a_fault_of_the_log(
    database: Database, statement: str, message: str
) -> None:
    _fill(database)
    with database.writing() as connection:
        connection.exec_driver_sql(statement)
        with pytest.raises(LogFaultError, match=message) as caught:
            verify_database(connection)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DELETE FROM log", "study 5+ is in the database, but .* no line that it was added"),
        ("DELETE FROM log WHERE chain != 'store'", "tables of 5+ are not what its log says"),
        ("DELETE FROM log WHERE chain = 'store'", "study 5+ is in the database, but .* no line"),
        ("DELETE FROM studies", "study 5+ (is gone|has a log)"),
    ],
)
def test_a_log_that_is_missing_whole_is_found(database: Database, statement: str, message: str) -> None:
    _fill(database)
    with database.writing() as connection:
        for table in ("readings", "results") if "studies" in statement else ():
            connection.exec_driver_sql(f"DELETE FROM {table}")
        connection.exec_driver_sql(statement)
        with pytest.raises(LogFaultError, match=message):
            verify_database(connection)


def test_a_study_that_was_deleted_is_no_fault_and_one_that_came_back_is(database: Database) -> None:
    other = "8" * 32
    add_sample_study(database, study_id=other, result_id="9" * 32)
    with database.writing() as connection:
        rows = connection.execute(sa.select(studies).where(studies.c.id == other)).mappings().all()
        delete_study(connection, other)
        append_line(connection, chain="store", reader="", target=f"study:{other}", action="study_deleted")
        assert [found.chain for found in verify_database(connection)] == [STUDY, "store"]
        connection.execute(sa.insert(studies), [dict(row) for row in rows])
        with pytest.raises(LogFaultError, match="was deleted, says the log of the store"):
            verify_database(connection)


def _rewritten(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Number and hash the lines anew, as somebody would who knows how."""
    previous, made = FIRST_HASH, []
    for sequence, document in enumerate(documents, 1):
        changed = {**document, "sequence": sequence, "previous_hash": previous}
        changed["hash"] = previous = hash_line(changed)
        made.append(changed)
    return made


def test_a_log_that_was_rewritten_with_new_hashes_is_found_by_a_head(database: Database) -> None:
    _fill(database)
    with database.writing() as connection:
        lines = [line.document() for line in read_lines(connection, STUDY)]
        head = lines[-1]["hash"]
        for line in lines:
            line["comment"] = line["comment"].replace("number", "nr.")
            if line["action"] == "decide":
                line["after"]["comment"] = line["comment"]
        connection.execute(sa.delete(log).where(log.c.chain == STUDY))
        connection.execute(sa.insert(log), _rewritten(lines))
        rebuild(connection, STUDY)
        # Everything fits together again; only a hash that left the machine tells.
        verify_database(connection)
        with pytest.raises(LogFaultError, match="stands in no line"):
            verify_database(connection, STUDY, head=head)


def _export(database: Database, path: Path) -> list[str]:
    with database.reading() as connection:
        lines = [canonical_json(line.document()) for line in read_lines(connection, STUDY)]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    return lines


def test_an_exported_log_is_verified_without_the_database(database: Database, tmp_path: Path) -> None:
    _fill(database)
    path = tmp_path / "log.jsonl"
    lines = _export(database, path)
    head = json.loads(lines[-1])["hash"]
    assert verify_file(path).document() == {"chain": STUDY, "valid": True, "lines": 6, "head": head}
    assert verify_file(path, head=json.loads(lines[0])["hash"]).since == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda lines: [*lines[:2], lines[2].replace("number 2", "number 9"), *lines[3:]],
            "line 3 .* changed",
        ),
        (lambda lines: [*lines[:1], *lines[2:]], "line 2 .* missing, line 3 stands"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], "line 1 .* missing"),
        (lambda lines: [*lines, lines[-1]], "line 7 .* missing, line 6 stands"),
        (lambda lines: [*lines[:3], lines[3][:-20], *lines[4:]], "line 4 is no JSON"),
        (lambda lines: [*lines[:3], "", *lines[3:]], "line 4 is no JSON"),
        (
            lambda lines: [lines[0].replace('{"action"', '{"action":"x","action"'), *lines[1:]],
            "line 1 is not as",
        ),
        (
            lambda lines: [lines[0].replace('"seconds":null', '"seconds":NaN'), *lines[1:]],
            "line 1 is no JSON",
        ),
        (lambda lines: ["[]", *lines], "line 1 is not as"),
        (lambda lines: ["[" * 100_000, *lines], "line 1 is no JSON"),
    ],
)
def test_a_fault_in_an_exported_log_is_found(
    database: Database, tmp_path: Path, change: Any, message: str
) -> None:
    _fill(database)
    path = tmp_path / "log.jsonl"
    lines = _export(database, path)
    path.write_text("\n".join(change(lines)) + "\n", encoding="utf-8", newline="\n")
    with pytest.raises(LogFaultError, match=message):
        verify_file(path)


def test_a_cut_export_is_found_by_the_head_of_a_report(database: Database, tmp_path: Path) -> None:
    _fill(database)
    path = tmp_path / "log.jsonl"
    lines = _export(database, path)
    head = json.loads(lines[-1])["hash"]
    path.write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8", newline="\n")
    assert verify_file(path).lines == 5
    with pytest.raises(LogFaultError, match="stands in no line"):
        verify_file(path, head=head)


def test_lines_of_another_study_do_not_fit_in(database: Database, tmp_path: Path) -> None:
    _fill(database)
    add_sample_study(database, study_id="8" * 32, result_id="9" * 32)
    write(database, open_reading, study_id="8" * 32, reader="A", way="everything")
    with database.reading() as connection:
        documents = [line.document() for chain in (STUDY, "8" * 32) for line in read_lines(connection, chain)]
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(map(canonical_json, _rewritten(documents))), encoding="utf-8")
    with pytest.raises(LogFaultError, match=r"line 7 .* belongs to another log"):
        verify_file(path)


@pytest.mark.parametrize(
    ("statement", "row"),
    [
        ("UPDATE decisions SET verdict = 'rejected' WHERE target = 'suggestion:2'", "suggestion:2"),
        ("DELETE FROM landmarks", "colon"),
        ("UPDATE coverage SET seen = '{'", "coverage "),
        ("UPDATE studies SET examination = '{', examination_version = 5", "studies "),
        ("DELETE FROM coverage", "coverage "),
    ],
)
def test_tables_that_differ_are_made_anew_from_their_log(
    database: Database, statement: str, row: str
) -> None:
    _fill(database)
    with database.writing() as connection:
        before = _all_rows(connection)
        assert [each.rows for each in repair_tables(connection)] == [[], []]
        connection.exec_driver_sql(statement)
        repaired = next(each for each in repair_tables(connection) if each.verified.chain == STUDY)
        assert len(repaired.rows) == 1
        assert row in repaired.rows[0]
        assert _all_rows(connection) == before
        verify_database(connection)


def test_tables_that_are_newer_than_their_log_are_kept(database: Database) -> None:
    _fill(database)
    with database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM log WHERE chain != 'store' AND sequence > 4")
        before = _all_rows(connection)
        with pytest.raises(LogFaultError, match="hold line 6, its log ends with line 4: lines were cut"):
            repair_tables(connection)
        assert _all_rows(connection) == before
        # Whoever accepts the loss says so with the hash of the last line that is left.
        last = list(read_lines(connection, STUDY))[-1].hash
        (repaired,) = repair_tables(connection, STUDY, head=last)
        assert any("colon" in row for row in repaired.rows)
        verify_database(connection)


def test_nothing_is_made_anew_from_a_log_with_a_fault(database: Database) -> None:
    _fill(database)
    with database.writing() as connection:
        connection.exec_driver_sql("UPDATE decisions SET verdict = 'rejected'")
        connection.exec_driver_sql("UPDATE log SET comment = 'x' WHERE chain != 'store' AND sequence = 2")
        before = _all_rows(connection)
        with pytest.raises(LogFaultError, match="line 2 of"):
            repair_tables(connection)
        assert _all_rows(connection) == before


def test_a_result_that_is_gone_cannot_be_made_anew(database: Database) -> None:
    _fill(database)
    with database.writing() as connection:
        for table in ("coverage", "landmarks", "decisions", "readings", "results"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
        with pytest.raises(LogFaultError, match="names a result that is not in the database"):
            repair_tables(connection)
