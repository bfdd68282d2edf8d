"""``capsule-edge serve``: start the reading workstation on this machine."""

from __future__ import annotations

import logging
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._options import HELP_OPTIONS, json_option
from ._printing import echo_json

if TYPE_CHECKING:
    from capsule_edge.workstation.service import Workstation

_PACKAGES = ("fastapi", "starlette", "uvicorn", "sqlalchemy", "alembic", "prometheus_client")

# No service or job runs for longer than a year, and no disk of a workstation holds a petabyte.
_MOST_HOURS = 8760
_MOST_GIGABYTES = 1_000_000


class _Amount(click.FloatRange):
    """A number within its range. "nan" is in every range of click, and no number."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is no number.", param, ctx)
        return number


@click.command(
    context_settings=HELP_OPTIONS,
    epilog="\b\nExamples:\n  capsule-edge serve\n  capsule-edge serve /data/recordings --open",
)
@click.argument("folders", metavar="[FOLDER]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--home",
    type=click.Path(path_type=Path),
    help="Folder of the database, uploads, results and models.  [default: CAPSULE_EDGE_HOME, or the user's data "
    "folder]",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Loopback address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="TCP port; 0 takes a free one.",
)
@click.option(
    "--token-hours",
    type=_Amount(0, _MOST_HOURS, min_open=True),
    default=12.0,
    show_default=True,
    help="Hours until the access token expires.",
)
@click.option(
    "--upload-limit",
    type=_Amount(0, _MOST_GIGABYTES, min_open=True),
    default=8.0,
    show_default=True,
    metavar="GB",
    help="Size of the largest upload, in gigabytes.",
)
@click.option(
    "--job-memory",
    type=_Amount(0.25, _MOST_GIGABYTES),
    default=4.0,
    show_default=True,
    metavar="GB",
    help="Memory that a process that reads a recording may use, in gigabytes.",
)
@click.option(
    "--job-hours",
    type=_Amount(0, _MOST_HOURS, min_open=True),
    default=4.0,
    show_default=True,
    help="Time that such a process may take, in hours.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 16),
    default=1,
    show_default=True,
    help="Number of recordings that are read at the same time.",
)
@click.option("--open", "open_page", is_flag=True, help="Open the page in the browser.")
@json_option
def command(
    folders: tuple[Path, ...],
    home: Path | None,
    host: str,
    port: int,
    token_hours: float,
    upload_limit: float,
    job_memory: float,
    job_hours: float,
    workers: int,
    open_page: bool,
    as_json: bool,
) -> None:
    """Start the reading workstation and print the address of its page. Ctrl-C ends it.

    Recordings in the FOLDERs can be opened on the page; others can be uploaded there. Without a FOLDER, and as
    long as there is no study, a rendered demo recording is read. The service answers this machine only, and only
    with the token in the printed address.

    For research, not a medical device.
    """
    from capsule_edge.evaluation._extras import require

    require(*_PACKAGES, extra="serve", what="the workstation")
    from capsule_edge.workstation import Settings, default_home, write_opening
    from capsule_edge.workstation.service import serve

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    gigabyte = 1 << 30
    settings = Settings(
        home=(home or default_home()).absolute(),
        folders=folders,
        host=host,
        port=port,
        token_hours=token_hours,
        upload_bytes=int(upload_limit * gigabyte),
        job_memory_bytes=int(job_memory * gigabyte),
        job_seconds=job_hours * 3600,
        workers=workers,
    )

    def announce(address: str) -> None:
        if as_json:
            echo_json({"address": address, "home": str(settings.home)})
        else:
            click.echo(address)
        sys.stdout.flush()
        if open_page:
            click.launch(str(write_opening(settings.home, address)))

    def prepare(station: Workstation) -> None:
        if not folders:
            station.add_demo_if_empty()

    serve(settings, announce, prepare)
