"""Decode and encode pictures for requests without holding up the rest of the service.

One frame of a recording with rare key frames can take many seconds, and a page may ask for many frames and leave. So
this work has threads of its own, a few for each study. It ends when the client has gone, and when a study has too many
unfinished requests, the oldest one is given up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, Protocol, TypeVar

from anyio import CancelScope, CapacityLimiter, to_thread
from fastapi import Depends, Request

from ..frames import DecodingStoppedError, giving_up
from .problems import RequestError

__all__ = ["FrameThread", "FrameWork"]

# Threads for all studies, which also bounds the full-size pictures in memory, and for each study.
_THREADS, _OF_A_STUDY = 8, 3
# A browser has at most 6 connections to a service; this is room for a few windows.
_UNFINISHED = 24
# Ask this often whether the client is still there. Most pictures are ready before that.
_ASK_S = 0.2

T = TypeVar("T")


class _Ticket:
    """One unfinished request."""

    def __init__(self) -> None:
        self.scope = CancelScope()
        self.reason: RequestError | None = None

    def give_up(self, reason: RequestError) -> None:
        """End the request: at once if it waits for a thread, else before its thread decodes the next frame."""
        self.reason = reason
        self.scope.cancel()

    def is_given_up(self) -> bool:
        """Return whether nobody waits for the answer. Any thread may ask."""
        return self.reason is not None


class _StudyWork:
    """The unfinished requests of one study, the oldest first."""

    def __init__(self) -> None:
        self.limiter = CapacityLimiter(_OF_A_STUDY)
        self.tickets: list[_Ticket] = []


class FrameWork:
    """The frame work of one workstation. Its methods run in the event loop."""

    def __init__(self) -> None:
        self._limiter = CapacityLimiter(_THREADS)
        self._studies: dict[str, _StudyWork] = {}

    async def run(self, request: Request, key: str, work: Callable[..., T], *arguments: Any) -> T:
        """Return what ``work`` returns, called in a thread.

        Args:
            request: that waits for it, without a body.
            key: id of the study or reading that the work is for.
            work: decodes frames of a ``FrameSource``.
            arguments: of ``work``.

        Raises:
            RequestError: 503, newer requests took the place of this one; 400, the client went away.
        """
        study = self._studies.setdefault(key, _StudyWork())
        _give_up_oldest(study.tickets)
        ticket = _Ticket()
        study.tickets.append(ticket)
        watching = asyncio.create_task(_watch(request, ticket))
        try:
            with ticket.scope:
                async with study.limiter:
                    return await to_thread.run_sync(_call, ticket, work, arguments, limiter=self._limiter)
        except DecodingStoppedError:
            if ticket.reason is None:
                raise
        finally:
            watching.cancel()
            study.tickets.remove(ticket)
            if not study.tickets:
                self._studies.pop(key, None)
        raise ticket.reason or RequestError(503, "stopped", "the work was stopped")


def _give_up_oldest(tickets: list[_Ticket]) -> None:
    unfinished = [ticket for ticket in tickets if not ticket.is_given_up()]
    if len(unfinished) >= _UNFINISHED:
        unfinished[0].give_up(
            RequestError(503, "superseded", "newer requests took the place of this one", hint="ask again")
        )


async def _watch(request: Request, ticket: _Ticket) -> None:
    while not ticket.is_given_up():
        await asyncio.sleep(_ASK_S)
        if await request.is_disconnected():
            ticket.give_up(RequestError(400, "disconnected", "the client went away"))


def _call(ticket: _Ticket, work: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    with giving_up(ticket.is_given_up):
        return work(*arguments)


class _Run(Protocol):
    """Calls a function in a thread for the request; the first argument is the id of the study."""

    async def __call__(self, key: str, work: Callable[..., T], *arguments: Any) -> T: ...


async def _frame_thread(request: Request) -> _Run:
    frame_work: FrameWork = request.app.state.workstation.frame_work

    async def run(key: str, work: Callable[..., T], *arguments: Any) -> T:
        return await frame_work.run(request, key, work, *arguments)

    return run


FrameThread = Annotated[_Run, Depends(_frame_thread)]
