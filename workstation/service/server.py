"""Listen on loopback and run the application until it is ended."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from capsule_edge.runtime.errors import OutputError, UsageError

from ..home_folder import remove_opening
from ..settings import Settings
from .app import create_app
from .security import AccessToken
from .workstation import Workstation

__all__ = ["LOOPBACK", "listen", "serve"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_ENDING_S = 3


class _Server(uvicorn.Server):
    """Ends the event streams first, which otherwise never end by themselves."""

    def __init__(self, config: uvicorn.Config, station: Workstation, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._station, self._on_start = station, started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._station.hub.close()
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on a loopback address.

    Args:
        host: one of ``LOOPBACK``.
        port: TCP port; 0 for a free one.

    Raises:
        UsageError: the address is not loopback.
        OutputError: the port is taken or may not be used.
    """
    if host not in LOOPBACK:
        raise UsageError(
            f"host is {host!r}, allowed is one of {', '.join(LOOPBACK)}",
            hint="the workstation serves this machine only",
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named, asyncio sets TCP_NODELAY on each connection. Without, the body of an answer waited up to
    # 40 ms for the acknowledgement of its head.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
            # On Windows, another program could otherwise take over a port in use.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        why = "it is in use" if error.errno == errno.EADDRINUSE else (error.strerror or str(error)).lower()
        raise OutputError(
            f"port {port} of {host} cannot be used: {why}",
            hint="choose another --port, or leave it out for a free one",
        ) from error
    return listening


def serve(
    settings: Settings, announce: Callable[[str], None], prepare: Callable[[Workstation], None]
) -> None:
    """Run the service until Ctrl-C or SIGTERM.

    Args:
        settings: with any port, also 0.
        announce: called with the address to open, which ends in the token, when the service answers.
        prepare: called with the opened workstation before that.

    Raises:
        UsageError: the host is not loopback.
        OutputError: the port or the home folder cannot be used.
        StoreError: the database cannot be used.
    """
    with _private_files(), closing(listen(settings.host, settings.port)) as listening:
        port: int = listening.getsockname()[1]
        settings = replace(settings, port=port)
        access, token = AccessToken.issue(settings.token_hours)
        shown = f"[{settings.host}]" if ":" in settings.host else settings.host
        # Opened here and not by the application, whose errors uvicorn would log and hide.
        with Workstation.open(settings) as station:
            app = create_app(settings, access, opened=station)

            def started() -> None:
                prepare(station)
                announce(f"http://{shown}:{port}/#token={token}")

            # Ctrl-C and SIGTERM are how a service ends: uvicorn ends it in order, and raises them again afterwards.
            with _without_opening(settings.home), suppress(KeyboardInterrupt):
                _Server(_configure(app), station, started).run(sockets=[listening])


@contextmanager
def _without_opening(home: Path) -> Iterator[None]:
    """Leave no page with a token in the home folder: none of an earlier service that was killed, and none of this."""
    remove_opening(home)
    try:
        yield
    finally:
        remove_opening(home)


@contextmanager
def _private_files() -> Iterator[None]:
    """Make new files readable for this user alone while the block runs, also those of the reading processes."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _configure(app: FastAPI) -> uvicorn.Config:
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="on",
        timeout_graceful_shutdown=_ENDING_S,
    )
