"""Open the database, bring it to the current version, and run transactions.

database = Database.open(home / "workstation.sqlite")
with database.writing() as connection:
    connection.execute(...)     # on disk when the block has ended; all of it or nothing
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DatabaseError

from .store_errors import StoreBusyError, StoreDamagedError, StoreError, StoreFullError

__all__ = ["Database"]

# Wait this long for another process that holds the database, such as a backup.
_WAIT_MS = 5000
_WRITER = "capsule_edge_writer"

_FAULTS: dict[str, tuple[type[StoreError], str, str]] = {
    "SQLITE_BUSY": (StoreBusyError, "another program holds the database", "close it and try again"),
    "SQLITE_LOCKED": (StoreBusyError, "another program holds the database", "close it and try again"),
    "SQLITE_FULL": (StoreFullError, "the disk is full, nothing was changed", "free some space and try again"),
    "SQLITE_READONLY": (StoreError, "the database cannot be written", "ask for write access to its folder"),
    "SQLITE_CANTOPEN": (StoreError, "the database cannot be opened", "check the rights to its folder"),
    "SQLITE_IOERR": (StoreError, "the disk reported an error", "check the disk, then restore a backup"),
    "SQLITE_CORRUPT": (StoreDamagedError, "the database is damaged", "restore a backup of the home folder"),
    "SQLITE_NOTADB": (StoreDamagedError, "the file is no database", "restore a backup of the home folder"),
}


class Database:
    """The database of one workstation. Any number of threads may use it."""

    def __init__(self, path: Path, engine: sa.Engine) -> None:
        """Most callers use ``open``."""
        self.path = path
        self._engine = engine
        self._writer = engine.execution_options(**{_WRITER: True})
        self._writing = threading.Lock()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the database, make it where there is none, and migrate an older one.

        Raises:
            StoreDamagedError: the file is damaged or of a newer version.
            StoreError: it cannot be opened, read or written.
        """
        engine = sa.create_engine(
            # Not as text: a "?" in the path would begin options.
            sa.URL.create("sqlite", database=str(path)),
            # The text of an error holds the parameters otherwise: names of patients.
            hide_parameters=True,
            connect_args={"timeout": _WAIT_MS / 1000},
        )
        sa.event.listen(engine, "connect", _set_pragmas)
        sa.event.listen(engine, "begin", _begin)
        database = cls(path, engine)
        try:
            with database._guarded():
                database._migrate()
        except BaseException:
            engine.dispose()
            raise
        return database

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Run a transaction that only reads: it sees one state, whatever is written meanwhile.

        Raises:
            StoreError: the database cannot be read.
        """
        with self._guarded(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Run a transaction that writes, one at a time. It is on disk when the block has ended.

        Raises:
            StoreError: the database cannot be written; nothing was changed.
        """
        with self._guarded(), self._writing, self._writer.begin() as connection:
            yield connection

    def erase_deleted(self) -> bool:
        """Empty the write-ahead log, which still holds what was deleted. Call it after data of a patient was deleted.

        Returns:
            False if a reader still needs the log. It is emptied at a later call, or when the database is closed.

        Raises:
            StoreError: the database cannot be written.
        """
        with self._guarded(), self._writing:
            connection = self._engine.raw_connection()
            try:
                cursor = connection.cursor()
                busy, _, _ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                cursor.close()
            finally:
                connection.close()
        return not busy

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Raise the driver's errors as errors of this package, with the way out."""
        try:
            yield
        except (DatabaseError, sqlite3.DatabaseError) as error:
            cause = error.orig if isinstance(error, DatabaseError) else error
            name = getattr(cause, "sqlite_errorname", "") or ""
            for known, (kind, message, hint) in _FAULTS.items():
                if name.startswith(known):
                    raise kind(f"{message} ({self.path.name})", hint=hint) from error
            if isinstance(cause, sqlite3.OperationalError):
                raise StoreError(
                    f"the database reported {name or 'an error'} ({self.path.name})",
                    hint="try again; if it stays, restart the workstation",
                ) from error
            raise

    def _migrate(self) -> None:
        """Bring the schema to the current version, in one transaction.

        Raises:
            StoreDamagedError: the database is of a newer version.
        """
        config = Config()
        config.set_main_option(
            "script_location", str(Path(__file__).parent / "migrations").replace("%", "%%")
        )
        scripts = ScriptDirectory.from_config(config)
        with self._writer.begin() as connection:
            revision = MigrationContext.configure(connection).get_current_revision()
            known = {script.revision for script in scripts.walk_revisions()}
            if revision is not None and revision not in known:
                raise StoreDamagedError(
                    f"{self.path.name} was written by a newer version of capsule-edge (schema {revision})",
                    hint="install that version, or choose another --home",
                )
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def _set_pragmas(connection: Any, _: object) -> None:
    # Transactions are begun by ``_begin``, not by the driver.
    connection.isolation_level = None
    cursor = connection.cursor()
    pragmas = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON")
    for pragma in (*pragmas, f"busy_timeout={_WAIT_MS}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    # A transaction that reads first and writes later could fail in its midst: a writer takes the lock at its start.
    writer = connection.get_execution_options().get(_WRITER)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")
