"""Write each change of the model in use to the log of the store.

``models.json`` says which model reads new studies, and the log says when that changed. A crash can come between the
two, and the command line can change the file before there is a database. So the log is compared with the file when the
workstation starts and before each change, and is completed where it lacks a change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import sqlalchemy as sa

from ..models import ModelChange, ModelFolder
from ..readings import STORE_CHAIN, append_line
from ..store import log

if TYPE_CHECKING:
    from ..store import Database

__all__ = ["change_model", "complete_model_log"]

_TARGET = "model"


def change_model(database: Database, models: ModelFolder, change: Callable[[], ModelChange]) -> ModelChange:
    """Change the model in use and log it, in one transaction.

    Args:
        database: with the log.
        models: the folder that is changed.
        change: ``ModelFolder.use`` or ``roll_back`` of that folder.

    Raises:
        StoreError: the database cannot be written.
        ModelError, UsageError, OutputError: from ``change``.
    """
    with database.writing() as connection:
        _complete(connection, models)
        # After the database is known to be writable. If the end of the transaction fails, the next start logs it.
        done = change()
        _append(connection, done.before, done.after, f"model_{done.action}")
    return done


def complete_model_log(database: Database, models: ModelFolder) -> None:
    """Log a change of the model in use that is not in the log yet.

    Raises:
        StoreError: the database cannot be written.
        ModelError: ``models.json`` is damaged.
    """
    with database.writing() as connection:
        _complete(connection, models)


def _complete(connection: sa.Connection, models: ModelFolder) -> None:
    query = sa.select(log.c.after).where(log.c.chain == STORE_CHAIN, log.c.target == _TARGET)
    last = connection.execute(query.order_by(log.c.sequence.desc()).limit(1)).scalar()
    used = models.chosen
    # Without a line and a choice, the standard model is in use.
    known = last["sha256"] if last else ""
    if used and used != known:
        _append(connection, known, used, "model_use", comment="changed while the log was not open")


def _append(connection: sa.Connection, before: str, after: str, action: str, comment: str = "") -> None:
    append_line(
        connection,
        chain=STORE_CHAIN,
        reader="",
        target=_TARGET,
        action=action,
        before={"sha256": before},
        after={"sha256": after},
        comment=comment,
        model_sha256=after,
    )
