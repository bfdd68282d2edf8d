"""Decode and encode pictures for requests without holding up the rest of the service.

One frame of a recording with rare key frames can take many seconds, and a page may ask for many frames and leave. So
this work has threads of its own, a few for each study. It ends when the client has gone, and when a study has too many
unfinished requests, the oldest one of the least urgent is given up.

A request says how urgent it is (``Priority``, RFC 9218). One for the picture that a person waits for has threads of its
own, so it never waits behind the neighbours and small pictures that the page fetches meanwhile.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Annotated, Any, Protocol, TypeVar

from anyio import CancelScope, CapacityLimiter, to_thread
from fastapi import Depends, Request

from ..frames import USUAL_URGENCY, DecodingStoppedError, at_urgency, giving_up
from .problems import RequestError

__all__ = ["FrameThread", "FrameWork"]

# Threads for all studies, which also bounds the full-size pictures in memory, and for each study.
_THREADS, _OF_A_STUDY = 8, 3
# The same for urgent requests: two panes, and one that was left and is about to end.
_URGENT_THREADS, _URGENT_OF_A_STUDY = 6, 3
# A browser has at most 6 connections to a service; this is room for a few windows.
_UNFINISHED = 24
_URGENCY = re.compile(r"(?:^|,)\s*u=([0-7])\s*(?:$|[,;])")

T = TypeVar("T")


class _Ticket:
    """One unfinished request.

    Args:
        urgency: 0 to 7, 0 the most urgent.
    """

    def __init__(self, urgency: int) -> None:
        self.urgency = urgency
        self.scope = CancelScope()
        self.reason: RequestError | None = None

    def give_up(self, reason: RequestError) -> None:
        """End the request: at once if it waits for a thread, else before its thread decodes the next frame."""
        self.reason = reason
        self.scope.cancel()

    @property
    def is_urgent(self) -> bool:
        """Return whether a person waits for the answer."""
        return self.urgency < USUAL_URGENCY

    def is_given_up(self) -> bool:
        """Return whether nobody waits for the answer. Any thread may ask."""
        return self.reason is not None


class _StudyWork:
    """The unfinished requests of one study, the oldest first."""

    def __init__(self) -> None:
        self.limiter, self.urgent = CapacityLimiter(_OF_A_STUDY), CapacityLimiter(_URGENT_OF_A_STUDY)
        self.tickets: list[_Ticket] = []


class FrameWork:
    """The frame work of one workstation. Its methods run in the event loop."""

    def __init__(self) -> None:
        self._limiter, self._urgent = CapacityLimiter(_THREADS), CapacityLimiter(_URGENT_THREADS)
        self._studies: dict[str, _StudyWork] = {}

    async def run(self, request: Request, key: str, work: Callable[..., T], *arguments: Any) -> T:
        """Return what ``work`` returns, called in a thread.

        Args:
            request: that waits for it, without a body. Its header ``Priority`` says how urgent it is.
            key: id of the study or reading that the work is for.
            work: decodes frames of a ``FrameSource``.
            arguments: of ``work``.

        Raises:
            RequestError: 503, newer requests took the place of this one; 400, the client went away.
        """
        study = self._studies.setdefault(key, _StudyWork())
        _give_up_one(study.tickets)
        ticket = _Ticket(_urgency_of(request.headers.get("priority", "")))
        own, shared = (study.urgent, self._urgent) if ticket.is_urgent else (study.limiter, self._limiter)
        study.tickets.append(ticket)
        watching = asyncio.create_task(_watch(request, ticket))
        try:
            with ticket.scope:
                async with own:
                    return await to_thread.run_sync(_call, ticket, work, arguments, limiter=shared)
        except DecodingStoppedError:
            if ticket.reason is None:
                raise
        finally:
            watching.cancel()
            study.tickets.remove(ticket)
            if not study.tickets:
                self._studies.pop(key, None)
        raise ticket.reason or RequestError(503, "stopped", "the work was stopped")


def _give_up_one(tickets: list[_Ticket]) -> None:
    """Give up the oldest of the least urgent requests where there are too many."""
    unfinished = [ticket for ticket in tickets if not ticket.is_given_up()]
    if len(unfinished) >= _UNFINISHED:
        max(unfinished, key=lambda ticket: ticket.urgency).give_up(
            RequestError(503, "superseded", "newer requests took the place of this one", hint="ask again")
        )


def _urgency_of(priority: str) -> int:
    """Return the urgency that a header ``Priority`` names (RFC 9218, 4.1), the usual one where it names none."""
    found = _URGENCY.search(priority)
    return int(found[1]) if found else USUAL_URGENCY


async def _watch(request: Request, ticket: _Ticket) -> None:
    """Give a request up as soon as its client has gone: what it waits for holds up the next picture."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    ticket.give_up(RequestError(400, "disconnected", "the client went away"))


def _call(ticket: _Ticket, work: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    with giving_up(ticket.is_given_up), at_urgency(ticket.urgency):
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
