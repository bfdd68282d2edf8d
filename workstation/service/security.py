"""Refuse every request that the page of this workstation cannot have sent.

The service listens on loopback only. Still, any web page in the user's browser and any program on the machine can send
requests to it. A request must name this host and port exactly (``Host``), come from this origin or from no page
(``Origin``, ``Sec-Fetch-Site``), and carry the token (``Authorization``), of which only the SHA-256 is kept. The check
of hosts in Starlette ignores the port.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any, Self

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .problems import problem_bytes

__all__ = ["AccessToken", "Security", "allowed_hosts"]

_LOG = logging.getLogger("capsule_edge.workstation")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
# Bodies that are no upload are JSON documents of a few kilobytes.
_MOST_BODY = 1 << 20
_UPLOADS = (("POST", "/v1/studies/upload"), ("POST", "/v1/models"))
_OPEN = "/v1/health"

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob:; connect-src 'self'; frame-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)


@dataclass(frozen=True)
class AccessToken:
    """The right to use the service until a time.

    Attributes:
        digest: SHA-256 of the token.
        ends_at: time on the clock that cannot be set (``clock``), seconds.
        clock: returns that time.
    """

    digest: bytes
    ends_at: float
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def issue(cls, hours: float, *, clock: Callable[[], float] = time.monotonic) -> tuple[Self, str]:
        """Return a new access and its token, 43 random characters. The token is kept nowhere.

        Args:
            hours: time until it expires.
            clock: returns a time in seconds that only grows.
        """
        token = secrets.token_urlsafe(32)
        return cls(_digest(token.encode()), clock() + hours * 3600, clock), token

    @property
    def seconds_left(self) -> float:
        """Seconds until the token expires; 0 after that."""
        return max(0.0, self.ends_at - self.clock())

    def allows(self, authorization: bytes) -> bool:
        """Return whether a value of the header ``Authorization`` holds the token, and it has not expired."""
        kind, _, token = authorization.partition(b" ")
        same = compare_digest(_digest(token.strip()), self.digest)
        return same and kind.lower() == b"bearer" and self.seconds_left > 0


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def allowed_hosts(host: str, port: int) -> frozenset[bytes]:
    """Return the values of ``Host`` that name this service.

    Args:
        host: the loopback address that it listens on.
        port: its port.
    """
    names = {"127.0.0.1", "localhost"} if ":" not in host else {f"[{host}]", "localhost"}
    hosts = {f"{name}:{port}" for name in names}
    # Browsers leave the default port out.
    return frozenset(name.encode() for name in (hosts | names if port == 80 else hosts))


class _RefusedError(Exception):
    """A request that is refused before it reaches a route."""

    def __init__(self, status: int, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.status, self.body = status, problem_bytes(code, message, hint)


class Security:
    """ASGI middleware that checks every request and adds the headers of every answer.

    Args:
        app: the application.
        access: the token that is asked for.
        hosts: from ``allowed_hosts``.
        observe: called after each answer with the method, the template of the route, the status and the seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        access: AccessToken,
        hosts: frozenset[bytes],
        observe: Callable[[str, str, int, float], None],
    ) -> None:
        self._app, self._access, self._hosts, self._observe = app, access, hosts, observe
        self._origins = frozenset(b"http://" + host for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            # There are no web sockets here; their handshake has no check of the origin.
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        status = 0

        async def secured(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": _with_headers(scope["path"], message.get("headers", ()))}
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, _bounded(scope, receive), secured)
        except _RefusedError as refusal:
            await _send_problem(secured, refusal.status, refusal.body)
        except Exception as error:
            # The text of an unexpected error may hold names, so only its kind is logged and nothing is answered.
            _LOG.error("unexpected %s in %s %s", type(error).__name__, scope["method"], _template(scope))
            _LOG.debug("details", exc_info=error)
            if not status:
                body = problem_bytes("internal", "the service has a fault", "see its log")
                await _send_problem(secured, 500, body)
        finally:
            self._observe(scope["method"], _template(scope), status, time.perf_counter() - started)

    def _check(self, scope: Scope) -> None:
        """Raise ``_RefusedError`` for a request that this service's page cannot have sent."""
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        hosts, origins = _values(headers, b"host"), _values(headers, b"origin")
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            raise _RefusedError(
                403,
                "host",
                "the request names another host",
                "open the address that 'capsule-edge serve' printed",
            )
        if any(origin not in self._origins or origin != b"http://" + hosts[0] for origin in origins):
            raise _RefusedError(403, "origin", "the request comes from another page")
        foreign = any(site not in (b"same-origin", b"none") for site in _values(headers, b"sec-fetch-site"))
        if foreign and not _opens_page(scope, headers):
            raise _RefusedError(403, "origin", "the request comes from another site")
        if scope["method"] not in METHODS:
            raise _RefusedError(405, "method", f"allowed methods are {', '.join(METHODS)}")
        path: str = scope["path"]
        if (path == "/v1" or path.startswith("/v1/")) and path != _OPEN:
            given = _values(headers, b"authorization")
            if len(given) != 1 or not self._access.allows(given[0]):
                raise _RefusedError(
                    401,
                    "token",
                    "the access token is missing, wrong or expired",
                    "open the address that 'capsule-edge serve' printed, or start it again",
                )
        length = _values(headers, b"content-length")
        if not _is_upload(scope) and length and length[0].isdigit() and int(length[0]) > _MOST_BODY:
            raise _RefusedError(
                413, "too_large", f"the body has more than the {_MOST_BODY:,} bytes that are allowed"
            )


def _values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key == name]


def _opens_page(scope: Scope, headers: list[tuple[bytes, bytes]]) -> bool:
    """Return whether a browser shows the page in a tab of its own, as it does when the user follows a link to it.

    ``serve --open`` opens the page through such a link in a local file. The page itself holds no data: without the
    token it shows nothing, and other pages can neither read it nor frame it.
    """
    mode, target = _values(headers, b"sec-fetch-mode"), _values(headers, b"sec-fetch-dest")
    return (scope["method"], scope["path"]) == ("GET", "/") and (mode, target) == (
        [b"navigate"],
        [b"document"],
    )


def _is_upload(scope: Scope) -> bool:
    return (scope["method"], scope["path"]) in _UPLOADS


def _bounded(scope: Scope, receive: Receive) -> Receive:
    """Return ``receive`` with a bound on the body, for bodies whose length was not announced."""
    if _is_upload(scope):
        return receive
    taken = 0

    async def bounded() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > _MOST_BODY:
            raise HTTPException(413, f"the body has more than the {_MOST_BODY:,} bytes that are allowed")
        return message

    return bounded


def _with_headers(path: str, given: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    headers = [*given, *_HEADERS]
    names = {name.lower() for name, _ in headers}
    if b"content-security-policy" not in names:
        headers.append((b"content-security-policy", _POLICY.encode()))
    if b"cache-control" not in names:
        headers.append((b"cache-control", b"no-store" if path.startswith("/v1") else b"no-cache"))
    return headers


def _template(scope: Scope) -> str:
    """Return the route's path with the names of its parameters, never their values."""
    route: Any = scope.get("route")
    return getattr(route, "path", "") or "(none)"


async def _send_problem(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    # The body of a refused request is not read: the connection cannot carry another one.
    headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
