"""Requests that this workstation's page cannot have sent are refused, whatever route they name."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
pytest.importorskip("httpx2", reason="httpx2 is not installed")

from stations import PORT, Station, running

from capsule_edge.workstation.service import AccessToken
from capsule_edge.workstation.service.app import create_app
from capsule_edge.workstation.service.security import allowed_hosts

HOSTS = {
    f"127.0.0.1:{PORT}": True,
    f"localhost:{PORT}": True,
    "127.0.0.1": False,
    "localhost": False,
    f"127.0.0.1:{PORT + 1}": False,
    f"evil.example:{PORT}": False,
    f"127.0.0.1.evil.example:{PORT}": False,
    f"LOCALHOST:{PORT}.": False,
    f"[::1]:{PORT}": False,
    "": False,
}
# Allowed only together with the host of the same name.
ORIGINS = {
    None: True,
    "same": True,
    "null": False,
    f"http://localhost:{PORT + 1}": False,
    f"https://127.0.0.1:{PORT}": False,
    "http://evil.example": False,
    f"http://evil.example:{PORT}": False,
}
SITES = {None: True, "same-origin": True, "none": True, "same-site": False, "cross-site": False}
TOKENS = ("right", "none", "wrong", "basic", "twice")
PATHS = (
    "/v1/health",
    "/v1/session",
    "/v1/studies",
    "/v1/studies/upload",
    "/v1/events/x",
    "/v1/metrics",
    "/v1/openapi.json",
    "/v1/models",
    "/v1",
    "/v1/nothing",
    "/",
    "/page/nothing.js",
)
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE", "CONNECT", "BREW")


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    with running(tmp_path_factory.mktemp("home")) as opened:
        yield opened


def authorizations(kind: str, token: str) -> list[tuple[str, str]]:
    values = {
        "right": [f"Bearer {token}"],
        "none": [],
        "wrong": [f"Bearer {token[:-1]}~"],
        "basic": [f"Basic {token}"],
        "twice": [f"Bearer {token}", f"Bearer {token}"],
    }
    return [("Authorization", value) for value in values[kind]]


def expected(
    host: str, origin: str | None, site: str | None, token: str, method: str, path: str
) -> int | None:
    """Return the status of a request that must be refused; None for one that reaches a route."""
    if not HOSTS[host] or not ORIGINS[origin] or not SITES[site]:
        return 403
    if method not in METHODS[:5]:
        return 405
    if path.startswith("/v1") and path != "/v1/health" and token != "right":
        return 401
    return None


def check(
    station: Station, host: str, origin: str | None, site: str | None, token: str, method: str, path: str
) -> None:
    headers = [("Host", host), *authorizations(token, station.token)]
    if origin is not None:
        headers.append(("Origin", f"http://{host}" if origin == "same" else origin))
    if site is not None:
        headers.append(("Sec-Fetch-Site", site))
    answer = station.bare.request(method, path, headers=headers)
    refused = expected(host, origin, site, token, method, path)
    case = (host, origin, site, token, method, path, answer.status_code)
    if refused is None:
        assert answer.status_code not in (401, 403), case
        assert answer.status_code < 500, case
    else:
        assert answer.status_code == refused, case
        assert method == "HEAD" or answer.json()["error"]["code"] in ("host", "origin", "token", "method"), (
            case
        )
    assert answer.headers["content-security-policy"].startswith("default-src 'none'"), case
    assert answer.headers["x-content-type-options"] == "nosniff", case
    assert answer.headers["referrer-policy"] == "no-referrer", case
    assert not {"access-control-allow-origin", "set-cookie", "server"} & set(answer.headers), case


def test_every_pair_of_host_and_origin_is_refused_but_this_page(station: Station) -> None:
    for host, origin, path in itertools.product(HOSTS, ORIGINS, PATHS):
        check(station, host, origin, None, "right", "GET", path)


def test_every_method_and_token_on_every_path(station: Station) -> None:
    here = f"127.0.0.1:{PORT}"
    for token, method, path in itertools.product(TOKENS, METHODS, PATHS):
        check(station, here, "same", None, token, method, path)


def test_other_sites_are_refused_with_any_host_and_token(station: Station) -> None:
    for site, host, token in itertools.product(SITES, HOSTS, TOKENS):
        check(station, host, None, site, token, "GET", "/v1/studies")


def test_a_link_opens_the_page_and_nothing_else(station: Station) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert station.bare.get("/", headers=link).status_code == 200
    for path in ("/v1/health", "/v1/session", "/page/page.js"):
        assert station.client.get(path, headers=link).status_code == 403
    assert station.client.post("/", headers=link).status_code == 403
    for name, value in (("Sec-Fetch-Dest", "iframe"), ("Sec-Fetch-Mode", "no-cors")):
        assert station.bare.get("/", headers=link | {name: value}).status_code == 403
    assert station.bare.get("/", headers=link | {"Host": f"evil.example:{PORT}"}).status_code == 403


def test_a_localhost_page_may_not_call_the_other_name_of_this_host(station: Station) -> None:
    headers = {"Host": f"127.0.0.1:{PORT}", "Origin": f"http://localhost:{PORT}"}
    assert station.client.get("/v1/session", headers=headers).status_code == 403


def test_two_hosts_are_refused(station: Station) -> None:
    headers = [("Host", f"127.0.0.1:{PORT}"), ("Host", f"127.0.0.1:{PORT}")]
    assert station.bare.get("/v1/health", headers=headers).status_code == 403


def test_the_token_expires_on_a_clock_that_nobody_can_set() -> None:
    now = 1000.0
    access, token = AccessToken.issue(2.0, clock=lambda: now)
    header = f"Bearer {token}".encode()
    assert access.allows(header)
    assert token.encode() not in repr(access).encode()
    now += 2 * 3600 - 1
    assert access.allows(header)
    assert access.seconds_left == pytest.approx(1.0)
    now += 1
    assert not access.allows(header)
    assert access.seconds_left == 0


def test_the_default_port_may_be_left_out_of_the_host() -> None:
    assert b"127.0.0.1" in allowed_hosts("127.0.0.1", 80)
    assert allowed_hosts("::1", 8000) == {b"[::1]:8000", b"localhost:8000"}


def test_a_body_that_is_no_upload_is_bounded(station: Station) -> None:
    large = b" " * ((1 << 20) + 1)
    error = station.refuse(
        "POST", "studies", 413, content=large, headers={"content-type": "application/json"}
    )
    assert error["code"] == "too_large"
    unannounced = iter([b" " * 65536] * 17)
    station.refuse("POST", "studies", 413, content=unannounced, headers={"content-type": "application/json"})


def test_an_unexpected_error_says_nothing_of_itself(
    station: Station, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("/home/doe/Jane Doe.mp4")

    monkeypatch.setattr(station.workstation.folders, "list", fail)
    monkeypatch.setattr(station.workstation.folders, "folders", [object()])
    answer = station.client.get("/v1/folders")
    assert answer.status_code == 500
    assert answer.json() == {
        "error": {"code": "internal", "message": "the service has a fault", "hint": "see its log"}
    }
    assert answer.headers["cache-control"] == "no-store"
    assert "RuntimeError" in caplog.text
    assert "Doe" not in caplog.text


def test_answers_of_the_api_are_not_stored(station: Station) -> None:
    assert station.client.get("/v1/session").headers["cache-control"] == "no-store"


def test_every_route_but_health_asks_for_the_token(tmp_path: Path, station: Station) -> None:
    document = station.get("openapi.json")
    for path, methods in document["paths"].items():
        for method in methods:
            answer = station.bare.request(method.upper(), path.replace("{", "").replace("}", ""))
            assert answer.status_code == (200 if path == "/v1/health" else 401), (method, path)
    assert len(document["paths"]) > 15


def test_the_page_offers_only_the_files_that_lay_there(tmp_path: Path) -> None:
    page = tmp_path / "page"
    page.mkdir()
    (page / "index.html").write_text("<!doctype html>page")
    (page / "main.js").write_text("1")
    (page / "secret.txt").write_text("no")
    (tmp_path / "outside.js").write_text("no")
    (page / "link.js").symlink_to(tmp_path / "outside.js")
    from starlette.testclient import TestClient

    from capsule_edge.workstation import Settings

    access, _ = AccessToken.issue(1.0)
    app = create_app(Settings(home=tmp_path / "home", port=PORT), access, page=page)
    with TestClient(app, base_url=f"http://127.0.0.1:{PORT}") as client:
        assert client.get("/").text == "<!doctype html>page"
        assert client.get("/page/main.js").headers["content-type"].startswith("text/javascript")
        for name in (
            "secret.txt",
            "link.js",
            "../outside.js",
            "%2e%2e/outside.js",
            "..%2foutside.js",
            "nothing.js",
        ):
            assert client.get(f"/page/{name}").status_code == 404, name
