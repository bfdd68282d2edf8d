"""The tables of the workstation, in SQLAlchemy Core.

Only types and constraints that SQLite and PostgreSQL share. Times are UTC as ISO 8601 text with microseconds and "Z",
so that they sort as text. A change here needs a migration in ``migrations/versions``; a test compares the two.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

__all__ = [
    "coverage",
    "decisions",
    "jobs",
    "landmarks",
    "later_than_all",
    "log",
    "metadata",
    "new_id",
    "readings",
    "results",
    "studies",
    "utc_now",
]

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

_JSON = sa.JSON(none_as_null=True)


def new_id() -> str:
    """Return a new random identifier, 32 hexadecimal digits."""
    return uuid.uuid4().hex


def utc_now() -> str:
    """Return the time in UTC, ISO 8601 with microseconds and "Z"."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def later_than_all(connection: sa.Connection, column: sa.Column[str]) -> str:
    """Return the time in UTC, or a microsecond after the latest one in a column, where the clock was set back.

    The order of jobs and results is that of their times, and must not change when somebody sets the clock.

    Args:
        connection: of the transaction that will add the time.
        column: of a table, times as ``utc_now`` returns them.
    """
    now = utc_now()
    latest: str | None = connection.execute(sa.select(sa.func.max(column))).scalar()
    if latest is None or now > latest:
        return now
    after = datetime.fromisoformat(latest) + timedelta(microseconds=1)
    return after.isoformat(timespec="microseconds").replace("+00:00", "Z")


studies = sa.Table(
    "studies",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("origin", sa.String(16), nullable=False),
    sa.Column("added_at", sa.String(27), nullable=False, index=True),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String(64)),
    sa.Column("capture_fps", sa.Float),
    sa.Column("frames", sa.Integer),
    sa.Column("recording", _JSON),
    sa.Column("preview", _JSON),
    sa.Column("error", _JSON),
    sa.Column("examination", _JSON, nullable=False),
    sa.Column("examination_version", sa.Integer, nullable=False),
)

results = sa.Table(
    "results",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("study_id", sa.ForeignKey("studies.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("model_sha256", sa.String(64), nullable=False),
    sa.Column("model_name", sa.Text, nullable=False),
    sa.Column("model_version", sa.Text, nullable=False),
    sa.Column("precision", sa.String(8), nullable=False),
    sa.Column("tool_version", sa.Text, nullable=False),
    sa.Column("folder", sa.Text, nullable=False),
    sa.Column("document_sha256", sa.String(64), nullable=False),
    sa.Column("created_at", sa.String(27), nullable=False),
)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("study_id", sa.ForeignKey("studies.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("model_sha256", sa.String(64), nullable=False),
    sa.Column("options", _JSON, nullable=False),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("frames_done", sa.Integer, nullable=False),
    sa.Column("frames_total", sa.Integer),
    sa.Column("error", _JSON),
    sa.Column("created_at", sa.String(27), nullable=False, index=True),
    sa.Column("started_at", sa.String(27)),
    sa.Column("finished_at", sa.String(27)),
    sa.Column("result_id", sa.String(32)),
)

readings = sa.Table(
    "readings",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("study_id", sa.ForeignKey("studies.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("result_id", sa.ForeignKey("results.id"), nullable=False),
    sa.Column("reader", sa.Text, nullable=False),
    sa.Column("way", sa.String(24), nullable=False),
    sa.Column("pass", sa.String(8), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("opened_at", sa.String(27), nullable=False),
    sa.Column("finished_at", sa.String(27)),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
)

decisions = sa.Table(
    "decisions",
    metadata,
    sa.Column("reading_id", sa.ForeignKey("readings.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("target", sa.String(48), primary_key=True),
    sa.Column("verdict", sa.String(16), nullable=False),
    sa.Column("label", sa.Text),
    sa.Column("start_index", sa.Integer),
    sa.Column("end_index", sa.Integer),
    sa.Column("key_index", sa.Integer),
    sa.Column("comment", sa.Text, nullable=False),
    sa.Column("seconds", sa.Float),
    sa.Column("decided_at", sa.String(27), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
)

landmarks = sa.Table(
    "landmarks",
    metadata,
    sa.Column("reading_id", sa.ForeignKey("readings.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("frame_index", sa.Integer, nullable=False),
    sa.Column("time_s", sa.Float, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
)

# Half-open ranges of frame indices, [[start, end], ...], in order and apart.
coverage = sa.Table(
    "coverage",
    metadata,
    sa.Column("reading_id", sa.ForeignKey("readings.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("seen", _JSON, nullable=False),
    sa.Column("skimmed", _JSON, nullable=False),
)

# A chain is the id of a study, or "store". There is no foreign key: the line that a study was deleted must outlive it.
log = sa.Table(
    "log",
    metadata,
    sa.Column("chain", sa.String(32), primary_key=True),
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("previous_hash", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.Column("utc", sa.String(27), nullable=False),
    sa.Column("reader", sa.Text, nullable=False),
    sa.Column("study_sha256", sa.String(64), nullable=False),
    sa.Column("model_sha256", sa.String(64), nullable=False),
    sa.Column("tool_version", sa.Text, nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("action", sa.String(32), nullable=False),
    sa.Column("before", _JSON),
    sa.Column("after", _JSON),
    sa.Column("comment", sa.Text, nullable=False),
    sa.Column("seconds", sa.Float),
)
