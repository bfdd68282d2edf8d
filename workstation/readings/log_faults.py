"""Report damage of a log, and of the database that holds it, as a fault of the log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DatabaseError

from capsule_edge.runtime.errors import AuditError

__all__ = ["LogFaultError", "damage_reported", "is_damage", "line_fault"]


class LogFaultError(AuditError):
    """A log is not what was written.

    Attributes:
        chain: id of the study, or ``store``.
        sequence: number of the first line that is wrong; None where the whole log is concerned.
    """

    code = "log_fault"

    def __init__(self, message: str, *, hint: str, chain: str = "", sequence: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.chain = chain
        self.sequence = sequence


def line_fault(message: str, chain: str | None, number: int) -> LogFaultError:
    """Return the error for a line that is not what was written.

    Args:
        message: names the line.
        chain: id of the study, or ``store``; None where it is not known.
        number: of the line, from 1.
    """
    hint = "the log is not what was written; compare it with an earlier export or a backup"
    return LogFaultError(message, hint=hint, chain=chain or "", sequence=number)


def is_damage(error: DatabaseError) -> bool:
    """Return whether an error tells of changed content: a missing table or column, or a text that is not UTF-8.

    The errors of a full disk, a lock or a damaged file have names of their own, and ``Database`` reports them.
    """
    return getattr(error.orig, "sqlite_errorname", None) in (None, "SQLITE_ERROR")


@contextmanager
def damage_reported() -> Iterator[None]:
    """Raise ``LogFaultError`` where a table is missing or holds what cannot be read."""
    try:
        yield
    except DatabaseError as error:
        if not is_damage(error):
            raise
        missing = getattr(error.orig, "sqlite_errorname", None) is not None
        cause = str(error.orig) if missing else "a text is not UTF-8"
        raise LogFaultError(
            f"the tables of the workstation are not what was written: {cause}",
            hint="restore a backup of the home folder",
        ) from error
