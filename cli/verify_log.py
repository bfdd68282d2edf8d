"""``capsule-edge verify-log``: check that the log of a reading is what was written."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ._options import HELP_OPTIONS, json_option
from ._printing import echo_json

if TYPE_CHECKING:
    from capsule_edge.workstation.readings import RepairedTables, VerifiedLog
    from capsule_edge.workstation.store import Database

_PACKAGES = ("sqlalchemy", "alembic")
_MOST_NAMED = 10


@click.command(
    context_settings=HELP_OPTIONS,
    epilog="\b\nExamples:\n  capsule-edge verify-log\n  capsule-edge verify-log log.jsonl --head 5f0c...\n"
    "  capsule-edge verify-log --rebuild",
)
@click.argument("log", metavar="[STUDY|FILE.jsonl]", required=False)
@click.option(
    "--home",
    type=click.Path(path_type=Path),
    help="Folder of the workstation.  [default: CAPSULE_EDGE_HOME, or the user's data folder]",
)
@click.option("--head", metavar="HASH", help="Hash from a report or an export; it must stand in the log.")
@click.option("--rebuild", is_flag=True, help="Make the tables anew from the log where they differ from it.")
@json_option
def command(log: str | None, home: Path | None, head: str | None, rebuild: bool, as_json: bool) -> None:
    """Check that no line of a log was changed, removed, cut off or rewritten.

    Checks an exported log (FILE.jsonl), the log of a STUDY in the workstation's database, or all logs of the
    database. In the database, the decisions and landmarks must also be what the log says. Lines that were cut off
    at the end, or rewritten with new hashes, are found with the hash that stands in a report.

    With --rebuild, the lines are checked first. Then the decisions, landmarks, frames seen and examination fields
    that are not what the log says are made anew from it. Nothing is changed where a log has a fault, or where the
    tables know more than the log does.

    Exit code 5: a log is not what was written. The message names the first line that is wrong.
    """
    from capsule_edge.evaluation._extras import require

    require(*_PACKAGES, extra="serve", what="the workstation")
    head = None if head is None else _read_hash(head)
    if rebuild:
        repaired = _rebuild(log, home, head)
        documents = [each.document() for each in repaired]
        sentences = [f"{_sentence(each.verified)}; {_rows_sentence(each.rows)}" for each in repaired]
    else:
        verified = _verify(log, home, head)
        documents = [found.document() for found in verified]
        sentences = [_sentence(found) for found in verified]
    if as_json:
        echo_json({"valid": True, "logs": documents})
        return
    for sentence in sentences:
        click.echo(sentence)


def _read_hash(text: str) -> str:
    from capsule_edge.runtime.errors import UsageError

    head = text.strip().lower()
    if len(head) != 64 or not set(head) <= set("0123456789abcdef"):
        raise UsageError(
            f"--head is {text[:80]!r}, allowed are 64 hexadecimal digits",
            hint="copy the hash from the report",
        )
    return head


def _verify(log: str | None, home: Path | None, head: str | None) -> list[VerifiedLog]:
    from capsule_edge.workstation.readings import verify_database, verify_file

    if log is not None and _is_file(log):
        return [verify_file(Path(log), head=head)]
    with closing(_open(home)) as database, database.reading() as connection:
        return verify_database(connection, log, head=head)


def _rebuild(log: str | None, home: Path | None, head: str | None) -> list[RepairedTables]:
    from capsule_edge.runtime.errors import UsageError
    from capsule_edge.workstation.readings import repair_tables

    if log is not None and _is_file(log):
        raise UsageError(
            f"--rebuild is given with the file {Path(log).name}, allowed is a study or none",
            hint="leave --rebuild out to check the file",
        )
    with closing(_open(home)) as database, database.writing() as connection:
        return repair_tables(connection, log, head=head)


def _is_file(log: str) -> bool:
    return log.endswith(".jsonl") or Path(log).is_file()


def _open(home: Path | None) -> Database:
    from capsule_edge.runtime.errors import InputError
    from capsule_edge.workstation import default_home
    from capsule_edge.workstation.store import Database

    path = (home or default_home()) / "workstation.sqlite"
    if not path.is_file():
        raise InputError(
            f"there is no workstation in {path.parent}",
            hint="name its folder with --home, or name a FILE.jsonl",
        )
    return Database.open(path)


def _rows_sentence(rows: list[str]) -> str:
    if not rows:
        return "its tables are what it says"
    listed = ", ".join(rows[:_MOST_NAMED])
    more = f" and {len(rows) - _MOST_NAMED:,} more" if len(rows) > _MOST_NAMED else ""
    return f"{len(rows):,} rows were made anew: {listed}{more}"


def _sentence(found: VerifiedLog) -> str:
    head = f"last hash {found.head}" if found.lines else "empty"
    sentence = f"{found.chain or 'log'}: {found.lines} lines, whole, {head}"
    if found.since is None:
        return sentence
    if not found.since:
        return f"{sentence}; the hash given is that of its last line"
    return f"{sentence}; {found.since} lines were added after the hash given"
