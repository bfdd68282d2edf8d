"""Ask questions of the tables of an archive in SQL, with DuckDB.

The views ``frames``, ``events``, ``suggestions``, ``ledgers``, ``sources`` and ``models`` show the newest result of
each recording and model. ``recordings`` is the manifest: every recording with its site, state and key. An archive
behind an address is read through fsspec; DuckDB installs nothing.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import CapsuleEdgeError, InputError, UsageError

from ..manifest import READ_STATES, choose_segments
from ..packages import load_package
from ..sources import hide_tokens, is_address, open_store, public_address
from .schema import TABLES, table_schema

__all__ = ["QueryResult", "open_database", "readable_tables", "run_query"]

_NEEDED_FOR = "archive query"


@dataclass(frozen=True)
class QueryResult:
    """The answer to a query.

    Attributes:
        columns: names of the columns.
        rows: values of each row.
    """

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def run_query(archive: str, sql: str) -> QueryResult:
    """Return the answer to a query over an archive.

    Args:
        archive: its folder, or an address that fsspec opens.
        sql: one statement.

    Raises:
        InputError: the folder holds no archive.
        UsageError: DuckDB refuses the statement.
        PackageError: duckdb or fsspec is not installed.
    """
    duckdb = load_package("duckdb", needed_for=_NEEDED_FOR)
    with open_database(archive) as database:
        try:
            answer = database.execute(sql)
            columns = tuple(column[0] for column in answer.description or ())
            return QueryResult(columns, answer.fetchall())
        except duckdb.Error as error:
            hint = (
                f"the tables are recordings, {', '.join(TABLES)}; 'DESCRIBE frames' shows the columns of one"
            )
            raise UsageError(
                f"the query cannot be answered: {' '.join(str(error).split())}", hint=hint
            ) from error


def open_database(archive: str) -> Any:
    """Return a DuckDB connection in memory with the views of an archive. Close it.

    Args:
        archive: its folder, or an address that fsspec opens.

    Raises:
        InputError: the folder holds no archive, or a file of it cannot be read.
    """
    duckdb = load_package("duckdb", needed_for=_NEEDED_FOR)
    files = _ArchiveFiles(archive)
    segments = [
        files.path("manifest", each.name) for each in choose_segments(files.names("manifest", filled=True))
    ]
    if not segments:
        raise InputError(
            f"{public_address(archive)} holds no archive",
            hint="name the folder that 'archive read --out' wrote",
        )
    database = duckdb.connect(
        config={"autoinstall_known_extensions": False, "autoload_known_extensions": False}
    )
    if files.store is not None:
        database.register_filesystem(files.store)
    try:
        with readable_tables(archive):
            _create_tables(database, files, segments)
    except CapsuleEdgeError:
        database.close()
        raise
    return database


@contextmanager
def readable_tables(archive: str) -> Iterator[None]:
    """Raise ``InputError`` where DuckDB cannot read a file of an archive in the block."""
    duckdb = load_package("duckdb", needed_for=_NEEDED_FOR)
    try:
        yield
    except duckdb.Error as error:
        raise InputError(
            f"the archive {public_address(archive)} cannot be read: {hide_tokens(' '.join(str(error).split()))}",
            hint="restore the file from a copy; a damaged batch of tables can be removed, and 'archive read' "
            "writes it again",
        ) from error


def _create_tables(database: Any, files: _ArchiveFiles, segments: Sequence[str]) -> None:
    states = ", ".join(f"'{state}'" for state in READ_STATES)
    database.execute(
        f"""CREATE TABLE newest AS SELECT * EXCLUDE (filename, file_row_number)
        FROM read_parquet({_quoted(segments)}, filename = true, file_row_number = true, union_by_name = true)
        QUALIFY row_number() OVER (PARTITION BY recording ORDER BY filename DESC, file_row_number DESC) = 1
        AND state <> 'gone'"""
    )
    # Copies of one name share a result. A join would count it once for each of them, so one row alone has the key: that
    # of which the lists say most.
    known = " + ".join(f"({name} IS NULL)::INT" for name in ("site", "capsule_type", "patient", "date"))
    database.execute(
        f"""CREATE TABLE recordings AS
        SELECT * EXCLUDE (first) REPLACE (CASE WHEN first = recording THEN key END AS key),
            CASE WHEN first <> recording THEN first END AS copy_of
        FROM (SELECT *, CASE WHEN key IS NOT NULL THEN
            first_value(recording) OVER (PARTITION BY key ORDER BY {known}, recording) END AS first FROM newest)"""
    )
    database.execute("DROP TABLE newest")
    database.execute(f"CREATE TABLE current AS SELECT DISTINCT key FROM recordings WHERE state IN ({states})")
    batches = list(files.batches())
    paths = {table: [files.path(batch, f"{table}.parquet") for batch in batches] for table in TABLES}
    replaced = bool(batches) and _holds_replaced(database, paths["sources"])
    for table in TABLES:
        _create_view(database, table, paths[table], replaced=replaced)


def _holds_replaced(database: Any, sources: Sequence[str]) -> bool:
    """Return whether the tables hold results that newer ones replace."""
    found = database.execute(
        f"SELECT count(*) FROM {_parquet(sources)} WHERE key NOT IN (SELECT key FROM current WHERE key IS NOT NULL)"
    ).fetchone()
    return bool(found[0])


def _create_view(database: Any, table: str, paths: Sequence[str], *, replaced: bool) -> None:
    if not paths:
        database.register(f"no_{table}", table_schema(table).empty_table())
        database.execute(f"CREATE VIEW {table} AS SELECT *, NULL::VARCHAR AS model FROM no_{table}")
    elif table == "models":
        database.execute(f"CREATE VIEW models AS SELECT DISTINCT * FROM {_parquet(paths)}")
    else:
        # Comparing the keys of millions of frames takes time, so it is done only where it matters.
        newest = " WHERE key IN (SELECT key FROM current)" if replaced else ""
        database.execute(f"CREATE VIEW {table} AS SELECT * FROM {_parquet(paths)}{newest}")


def _parquet(paths: Sequence[str]) -> str:
    options = "union_by_name = true, hive_partitioning = true, hive_types_autocast = false"
    return f"read_parquet({_quoted(paths)}, {options})"


class _ArchiveFiles:
    """The files of an archive in a folder or behind an address."""

    def __init__(self, archive: str) -> None:
        self.store: Any = None
        self._root = archive
        if is_address(archive):
            self.store, inside = open_store(archive)
            self._inside = inside.rstrip("/")
            self._root = str(self.store.unstrip_protocol(self._inside)).rstrip("/")

    def path(self, *parts: str) -> str:
        """Return the path of a file as DuckDB takes it."""
        return posixpath.join(self._root, *parts) if self.store is not None else str(Path(self._root, *parts))

    def names(self, *parts: str, filled: bool = False) -> list[str]:
        """Return the names of the files in a folder; none where it is not there.

        Args:
            parts: the folder below the archive.
            filled: leave out files of 0 bytes.
        """
        try:
            if self.store is None:
                folder = Path(self._root, *parts)
                here = folder.iterdir() if folder.is_dir() else ()
                return sorted(path.name for path in here if not filled or _has_bytes(path))
            self.store.invalidate_cache()
            found = self.store.ls(posixpath.join(self._inside, *parts), detail=True)
        except FileNotFoundError:
            return []
        except Exception as error:
            raise InputError(
                f"{public_address(self._root)} cannot be reached: {hide_tokens(str(error))}",
                hint="check the address and the login",
            ) from error
        held = [each["name"] for each in found if not (filled and each.get("size") == 0)]
        return sorted(each.rstrip("/").rpartition("/")[2] for each in held)

    def batches(self) -> Iterator[str]:
        """Yield the path of each batch of tables below the archive."""
        for model in self.names("tables"):
            if model.startswith("model="):
                for batch in self.names("tables", model):
                    if batch.startswith("batch-"):
                        yield posixpath.join("tables", model, batch)


def _has_bytes(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:  # merged meanwhile
        return False


def _quoted(paths: Sequence[str]) -> str:
    return "[" + ", ".join("'" + path.replace("'", "''") + "'" for path in paths) + "]"
