"""Send events to every open page: one stream of server-sent events for each.

Threads publish, the event loop sends. A page that does not keep up is dropped: it connects again and fetches anew.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

__all__ = ["EventHub"]

_WAITING = 256
PING_S = 15.0


class _Client:
    """One open page. All methods but ``offer`` run in its event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue(_WAITING)
        self.dropped = False

    def offer(self, event: bytes | None) -> None:
        """Add an event from any thread; None ends the stream."""
        with suppress(RuntimeError):  # the loop has ended
            self.loop.call_soon_threadsafe(self._put, event)

    def _put(self, event: bytes | None) -> None:
        if self.dropped:
            return
        if event is None or self.queue.full():
            self.dropped = True
            while not self.queue.empty():
                self.queue.get_nowait()
            event = None
        self.queue.put_nowait(event)


class EventHub:
    """All open event streams."""

    def __init__(self, *, ping_s: float = PING_S) -> None:
        """Args:
        ping_s: seconds without an event after which ``ping`` is sent.
        """
        self._clients: set[_Client] = set()
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._ping_s = ping_s
        self._closed = False

    @property
    def clients(self) -> int:
        """Number of open streams."""
        return len(self._clients)

    def publish(self, kind: str, document: Any) -> None:
        """Send an event to every open page, from any thread.

        Args:
            kind: ``study``, ``job``, ``partial``, ``reading`` or ``models``.
            document: JSON values.
        """
        with self._lock:
            clients = list(self._clients)
            number = next(self._numbers)
        if clients:
            event = _encode(kind, document, number)
            for client in clients:
                client.offer(event)

    def close(self) -> None:
        """End all streams, and every one that is opened later. The service stops."""
        with self._lock:
            self._closed = True
            clients = list(self._clients)
        for client in clients:
            client.offer(None)

    async def stream(self, seconds_left: Callable[[], float] = lambda: math.inf) -> AsyncIterator[bytes]:
        """Yield the text of a stream until the page or the service closes it, or its time is over.

        Args:
            seconds_left: returns the time until the page's access expires; asked before each event is sent.
        """
        client = _Client()
        with self._lock:
            self._clients.add(client)
            closed = self._closed
        try:
            yield b"retry: 1000\n\n" + _encode("ping", {}, 0)
            while not closed and (left := seconds_left()) > 0:
                try:
                    event = await asyncio.wait_for(client.queue.get(), min(self._ping_s, left))
                except TimeoutError:
                    event = _encode("ping", {}, 0)
                if event is None or seconds_left() <= 0:
                    return
                yield event
        finally:
            with self._lock:
                self._clients.discard(client)


def _encode(kind: str, document: Any, number: int) -> bytes:
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    identity = f"id: {number}\n" if number else ""
    return f"event: {kind}\n{identity}data: {text}\n\n".encode("utf-8", "replace")
