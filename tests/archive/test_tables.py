"""The tables of an archive: the rows of the result files, whole or not at all, and the questions of the documents."""

from __future__ import annotations

import csv
import json
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import damage
import pytest
from paths import ROOT
from run_samples import write_run

pytest.importorskip("pyarrow")
pytest.importorskip("duckdb")

import numpy as np
import pyarrow
import pyarrow.parquet
from archive_samples import ROW

from capsule_edge.archive.manifest import Manifest, Row
from capsule_edge.archive.tables import (
    TABLES,
    run_query,
    table_schema,
    tabulated_keys,
    update_tables,
    write_batch,
)
from capsule_edge.runtime.errors import InputError, UsageError

SITES = {"one": "Köln", "two": "Bonn", "three": None}


class _AtOnce:
    """An engine that does the work when it is asked for the results."""

    def __init__(self, out: Path) -> None:
        self._out, self._tasks, self.done = out, [], 0
        self.slots, self.refusals = 2, ()

    def submit(self, number, task) -> None:
        self._tasks.append((number, task))

    def wait(self, timeout_s: float):
        found = [(number, write_batch(self._out, task)) for number, task in self._tasks]
        self.done += len(found)
        self._tasks = []
        return found

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def archive(call_once, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three recordings of two sites, one of them damaged, read through the command line."""
    folder = tmp_path_factory.mktemp("tables")
    damage.encode(folder / "one.mp4", frames=40)
    damage.blank(damage.encode(folder / "two.mp4", frames=36), folder / "three.mp4", 14)
    rows = [f"{name}.mp4,{site or ''},PillCam,,2026-11" for name, site in SITES.items()]
    (folder / "list.csv").write_text(
        "path,site,capsule_type,patient,date\n" + "\n".join(rows) + "\n", "utf-8"
    )
    code = call_once(
        "archive", "read", folder / "list.csv", "--out", folder / "out", "--model", "small", "--workers", "1"
    )
    assert code == 3
    return folder / "out"


@pytest.fixture(scope="module")
def call_once():
    from capsule_edge.cli.main import main

    def call(*arguments: object) -> int:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return int(ended.value.code or 0)

    return call


def results(archive: Path) -> dict[str, Path]:
    return {path.parent.name: path.parent for path in (archive / "results").glob("*/*/study.json")}


def test_the_tables_hold_what_the_result_files_hold(archive: Path) -> None:
    for key, folder in results(archive).items():
        study = json.loads((folder / "study.json").read_text("utf-8"))
        with (folder / "frames.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        labels = [name for name in rows[0] if name.startswith("p_")]
        columns = ", ".join(["index", "pts", "time_s", "status", "detail", "label", *labels])
        found = run_query(
            str(archive), f"SELECT {columns} FROM frames WHERE key = '{key}' ORDER BY index"
        ).rows
        assert len(found) == len(rows) == study["ledger"]["container"]
        for values, row in zip(found, rows, strict=True):
            assert [str(values[0]), str(values[1]), values[3]] == [row["index"], row["pts"], row["status"]]
            assert values[2] == pytest.approx(float(row["time_s"]), abs=1e-9)
            assert [values[4] or "", values[5] or ""] == [row["detail"], row["label"]]
            # float32 holds six decimals of a value below 1 to 6e-8.
            expected = [float(row[name]) if row[name] else None for name in labels]
            assert list(values[6:]) == [None if p is None else pytest.approx(p, abs=6e-8) for p in expected]
        (ledger,) = run_query(
            str(archive), f"SELECT * EXCLUDE (key, model, set_aside) FROM ledgers WHERE key = '{key}'"
        ).rows
        assert list(ledger) == list(study["ledger"].values())
        (events,) = run_query(str(archive), f"SELECT count(*) FROM events WHERE key = '{key}'").rows
        assert events == (len(study["events"]),)
        (source,) = run_query(
            str(archive), f"SELECT name, sha256, codec FROM sources WHERE key = '{key}'"
        ).rows
        assert source == tuple(study["source"][name] for name in ("name", "sha256", "codec"))


def test_the_files_have_the_published_schema(archive: Path) -> None:
    (batch,) = (archive / "tables").glob("model=*/batch-*")
    assert sorted(path.stem for path in batch.iterdir()) == sorted(TABLES)
    (labels,) = run_query(str(archive), "SELECT labels FROM models").rows[0]
    for table in TABLES:
        found = pyarrow.parquet.ParquetFile(batch / f"{table}.parquet")
        assert found.schema_arrow.equals(table_schema(table, labels))
        assert found.schema_arrow.metadata[b"schema"] == b"capsule-edge/archive-tables/1"
        assert found.metadata.num_rows == 0 or found.metadata.row_group(0).column(0).compression == "ZSTD"


def documents_queries() -> list[str]:
    text = (ROOT / "docs" / "archive.md").read_text("utf-8")
    return re.findall(r"```sql\n(.*?)```", text, re.DOTALL)


def test_the_documents_have_five_questions() -> None:
    assert len(documents_queries()) >= 5


@pytest.mark.parametrize("sql", documents_queries(), ids=range(len(documents_queries())))
def test_a_question_of_the_documents_is_answered(archive: Path, sql: str) -> None:
    found = run_query(str(archive), sql)
    assert found.columns
    # The recordings of the test show no finding, but one of them is damaged.
    if "corrupt" in sql:
        assert found.rows


def test_recordings_without_a_site_are_there(archive: Path) -> None:
    found = run_query(str(archive), "SELECT site, state FROM recordings ORDER BY recording")
    assert found.rows == [("Köln", "read"), (None, "incomplete"), ("Bonn", "read")]


def test_the_command_prints_rows_and_json(archive: Path, call) -> None:
    shown = call(
        "archive",
        "query",
        archive,
        "SELECT status, count(*) AS n FROM frames GROUP BY status ORDER BY n DESC",
    )
    assert shown.code == 0
    assert "classified" in shown.out
    assert "2 rows" in shown.out
    document = call(
        "archive", "query", archive, "SELECT site FROM recordings ORDER BY recording", "--json"
    ).json
    assert document == {"columns": ["site"], "rows": [["Köln"], [None], ["Bonn"]]}
    wrong = call("archive", "query", archive, "SELECT nothing FROM frames")
    assert wrong.code == 2
    assert "nothing" in wrong.err
    assert len(wrong.err.splitlines()) == 1


def test_a_folder_that_is_no_archive_is_refused(tmp_path: Path, call) -> None:
    with pytest.raises(InputError, match="holds no archive"):
        run_query(str(tmp_path), "SELECT 1")
    assert call("archive", "status", tmp_path).code == 1


def test_duckdb_installs_nothing(archive: Path) -> None:
    for sql in ("SELECT * FROM 's3://bucket/x.parquet'", "SELECT * FROM 'https://example.invalid/x.parquet'"):
        with pytest.raises(UsageError):
            run_query(str(archive), sql)
    found = run_query(
        str(archive), "SELECT value FROM duckdb_settings() WHERE name LIKE 'auto%known_extensions'"
    )
    assert found.rows == [("false",), ("false",)]


def test_an_archive_behind_an_address(archive: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    for path in archive.rglob("*.parquet"):
        store.pipe(f"/archive/{path.relative_to(archive).as_posix()}", path.read_bytes())
    sql = "SELECT status, count(*) FROM frames JOIN recordings USING (key) GROUP BY status ORDER BY status"
    assert run_query("memory://archive", sql).rows == run_query(str(archive), sql).rows


def test_empty_and_damaged_files_are_no_raw_error(archive: Path, tmp_path: Path, call) -> None:
    fsspec = pytest.importorskip("fsspec")
    copy = shutil.copytree(archive, tmp_path / "copy")
    empty = copy / "manifest" / "00000099.parquet"
    empty.write_bytes(b"")
    sql = "SELECT count(*) FROM recordings"
    assert run_query(str(copy), sql).rows == [(3,)]
    store = fsspec.filesystem("memory")
    for path in copy.rglob("*.parquet"):
        store.pipe(f"/with-empty/{path.relative_to(copy).as_posix()}", path.read_bytes())
    assert run_query("memory://with-empty", sql).rows == [(3,)]
    assert call("archive", "status", copy).code == 0
    # A damaged file is named in one line, by a query and by the check for drift.
    for damaged in (empty, next(copy.glob("tables/model=*/batch-*/sources.parquet"))):
        kept = damaged.read_bytes()
        damaged.write_bytes(b"PAR1 and nothing else PAR1")
        for words in (("query", copy, sql), ("drift", copy, "--model", "small", "--no-inputs")):
            shown = call("archive", *words)
            assert (shown.code, len(shown.err.splitlines())) == (1, 1), shown.err
            assert "cannot be read" in shown.err
            assert damaged.name in shown.err
        damaged.write_bytes(kept)
    frames = next(copy.glob("tables/model=*/batch-*/frames.parquet"))
    half = frames.stat().st_size // 2  # the data; behind it is the footer
    frames.write_bytes(b"PAR1" + bytes(half) + frames.read_bytes()[half + 4 :])
    shown = call("archive", "drift", copy, "--model", "small", "--no-inputs")
    assert (shown.code, len(shown.err.splitlines())) == (1, 1), shown.err


def write_results(out: Path, count: int, *, first: int = 0) -> list[Row]:
    """Write results as ``run`` does, and their rows."""
    made = write_run(out / "sample")
    study = json.loads((made / "study.json").read_text("utf-8"))
    source = {
        **dict.fromkeys(("codec", "width", "height", "duration_s", "capture_fps", "field_of_view")),
        **{"name": "exam.mp4", "sha256": "9" * 64, "time_kind": "capture", "damage_detection": "full"},
    }
    ledger = {
        "container": 60,
        "container_source": "header",
        "truncated": False,
        "classified": 59,
        "missing": 1,
    }
    event = {**study["events"][0], "role": "finding", "peak_s": 12.5, "frames": 10}
    model = {"name": "m", "version": "1", "sha256": "5" * 64, "precision": "int8", "backend": "onnxruntime"}
    study |= {
        **{"source": source, "ledger": ledger, "warnings": [], "suggestions": [], "familiarity": None},
        **{"tool": {"version": "1"}, "model": model, "events": [event]},
    }
    (made / "study.json").write_text(json.dumps(study), "utf-8")
    rows = []
    for number in range(first, first + count):
        key = f"{number:064x}"
        folder = out / "results" / key[:2] / key
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(made, folder)
        rows.append(replace(ROW, recording=f"/{number}.mp4", key=key))
    shutil.rmtree(made)
    return rows


def test_only_new_results_are_added_and_replaced_ones_are_not_shown(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.begin()
    rows = write_results(tmp_path, 3)
    manifest.append(rows)
    assert update_tables(tmp_path, lambda: _AtOnce(tmp_path)) == []
    assert tabulated_keys(tmp_path) == {row.key for row in rows}
    assert update_tables(tmp_path, lambda: pytest.fail("nothing is due")) == []
    (new,) = write_results(tmp_path, 1, first=3)
    manifest.append([replace(rows[0], key=new.key)])
    assert update_tables(tmp_path, lambda: _AtOnce(tmp_path)) == []
    assert len(list((tmp_path / "tables").glob("model=*/batch-*"))) == 2
    found = run_query(str(tmp_path), "SELECT DISTINCT key FROM frames ORDER BY key").rows
    assert [key for (key,) in found] == [rows[1].key, rows[2].key, new.key]
    assert run_query(str(tmp_path), "SELECT count(*) FROM models").rows == [(1,)]


def test_copies_that_share_a_result_count_once(tmp_path: Path, call) -> None:
    """/1.mp4 and /copy/1.mp4 have the same bytes and name. The list says more of the copy."""
    manifest = Manifest(tmp_path)
    manifest.begin()
    rows = write_results(tmp_path, 2)
    copies = [
        replace(rows[1], recording="/copy/1.mp4", site="Köln", seconds=0.0),
        replace(rows[1], recording="/zz/1.mp4", seconds=0.0),
    ]
    failed = replace(
        ROW, recording="/f.mp4", state="failed", key=None, frames=None, suggestions=None, seconds=None
    )
    manifest.append([*rows, *copies, failed])
    assert update_tables(tmp_path, lambda: _AtOnce(tmp_path)) == []
    joined = "SELECT count(*) FROM frames JOIN recordings USING (key)"
    assert (
        run_query(str(tmp_path), joined).rows == run_query(str(tmp_path), "SELECT count(*) FROM frames").rows
    )
    found = run_query(str(tmp_path), "SELECT recording, key, copy_of FROM recordings ORDER BY recording").rows
    assert found == [
        ("/0.mp4", rows[0].key, None),
        ("/1.mp4", None, "/copy/1.mp4"),
        ("/copy/1.mp4", rows[1].key, None),
        ("/f.mp4", None, None),
        ("/zz/1.mp4", None, "/copy/1.mp4"),
    ]
    shown = call("archive", "status", tmp_path, "--json").json
    assert shown["states"] == {"failed": 1, "read": 4}
    assert [shown[name] for name in ("frames", "core_s", "suggestions")] == [120, 3.0, 4]


def test_a_result_that_cannot_be_read_is_named_and_the_others_are_added(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.begin()
    rows = write_results(tmp_path, 3)
    manifest.append(rows)
    broken = tmp_path / "results" / rows[1].key[:2] / rows[1].key / "frames.csv"
    broken.write_text("index,pts\nno number,1\n", "utf-8")
    (fault,) = update_tables(tmp_path, lambda: _AtOnce(tmp_path))
    assert rows[1].key in fault
    assert tabulated_keys(tmp_path) == {rows[0].key, rows[2].key}


def test_a_batch_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = Manifest(tmp_path)
    manifest.begin()
    manifest.append(write_results(tmp_path, 2))
    real, written = pyarrow.parquet.write_table, []

    def fail(table, *arguments, **options) -> None:
        written.append(table)
        if len(written) == 4:
            raise OSError(28, "No space left on device")
        real(table, *arguments, **options)

    monkeypatch.setattr(pyarrow.parquet, "write_table", fail)
    (fault,) = update_tables(tmp_path, lambda: _AtOnce(tmp_path))
    assert "no space left" in fault
    assert list((tmp_path / "tables").rglob("*.parquet")) == []
    # What a killed worker left is removed by the next driver.
    (tmp_path / "tables" / "model=555555555555" / ".batch-00000001.x.tmp").mkdir()
    assert update_tables(tmp_path, lambda: _AtOnce(tmp_path)) == []
    assert sorted(path.name for path in (tmp_path / "tables").glob("*/*")) == ["batch-00000001"]


@pytest.mark.latency
def test_a_query_over_two_hundred_examinations_takes_less_than_two_seconds(tmp_path: Path) -> None:
    """57,600 frames x 200 recordings in 23 batches, as ``update_tables`` would divide them."""
    manifest = Manifest(tmp_path)
    manifest.begin()
    rng = np.random.default_rng(1)
    labels = ("normal", "ulcer", "polyp")
    rows = []
    for batch in range(23):
        folder = tmp_path / "tables" / "model=555555555555" / f"batch-{batch + 1:08d}"
        folder.mkdir(parents=True)
        keys = [f"{number:064x}" for number in range(batch * 9, min(200, batch * 9 + 9))]
        count = 57_600 * len(keys)
        columns = {
            "key": pyarrow.array(np.repeat(keys, 57_600)),
            "index": pyarrow.array(np.tile(np.arange(57_600, dtype=np.int32), len(keys))),
            "label": pyarrow.array(np.array(labels)[rng.integers(0, 3, count)]),
            **{f"p_{label}": pyarrow.array(rng.random(count, np.float32)) for label in labels},
        }
        schema = table_schema("frames", labels)
        full = {field.name: columns.get(field.name, pyarrow.nulls(count, field.type)) for field in schema}
        pyarrow.parquet.write_table(
            pyarrow.table(full).cast(schema), folder / "frames.parquet", compression="zstd"
        )
        for table in TABLES[1:]:
            content = [{"key": key} for key in keys] if table == "sources" else []
            pyarrow.parquet.write_table(
                pyarrow.Table.from_pylist(content, table_schema(table)), folder / f"{table}.parquet"
            )
        rows += [
            Row(
                recording=f"/{key}.mp4",
                state="read",
                model_sha256="5" * 64,
                identity="",
                version="1",
                options="{}",
                key=key,
                recorded_at="",
            )
            for key in keys
        ]
    manifest.append(rows)
    begun_s = time.perf_counter()
    found = run_query(
        str(tmp_path),
        "SELECT label, count(*), avg(p_ulcer), max(p_polyp) FROM frames GROUP BY label ORDER BY label",
    )
    taken_s = time.perf_counter() - begun_s
    assert sum(row[1] for row in found.rows) == 57_600 * 200
    assert taken_s < 2.0, taken_s
