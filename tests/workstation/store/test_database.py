"""The database: the schema that the tables describe, transactions, and files that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy", reason="the extra [serve] is not installed")
pytest.importorskip("alembic", reason="the extra [serve] is not installed")

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from capsule_edge.workstation.readings import append_line, hash_line
from capsule_edge.workstation.store import Database, StoreDamagedError, log, metadata


def test_migrations_make_the_tables_that_are_described(tmp_path: Path) -> None:
    with Database.open(tmp_path / "a % ü.sqlite") as database, database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_a_transaction_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    with Database.open(tmp_path / "store.sqlite") as database:

        def fail() -> None:
            with database.writing() as connection:
                append_line(connection, chain="store", reader="", target="x", action="y")
                raise RuntimeError("stop")

        with pytest.raises(RuntimeError):
            fail()
        with database.writing() as connection:
            append_line(connection, chain="store", reader="", target="x", action="y", seconds=3)
    with Database.open(tmp_path / "store.sqlite") as database, database.reading() as connection:
        rows = connection.execute(sa.select(log)).mappings().all()
        assert [row["sequence"] for row in rows] == [1]
        assert rows[0]["hash"] == hash_line(dict(rows[0]))


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    path.write_bytes(b"no database at all " * 400)
    with pytest.raises(StoreDamagedError, match="no database"):
        Database.open(path)
    assert path.read_bytes() == b"no database at all " * 400


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    with Database.open(path) as database, database.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreDamagedError, match="newer version"):
        Database.open(path)
