"""``capsule-edge serve`` as a process: the line with the address, the refusals, and its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")

from capsule_edge.workstation.service.server import listen
from capsule_edge.workstation.store import Database


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Any]:
    """Return a function that starts ``serve`` and returns the process and its first line."""
    processes: list[subprocess.Popen[str]] = []

    def start(*words: object) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "capsule_edge.cli", "serve", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        processes.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline()

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def ask(address: str, path: str, token: str | None = None) -> tuple[int, Any]:
    request = urllib.request.Request(address + path)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_it_opens_on_the_demo_and_ends_in_order(started: Any, tmp_path: Path) -> None:
    process, line = started("--home", tmp_path / "home")
    address, token = line.strip().split("/#token=")
    assert address.startswith("http://127.0.0.1:")
    assert len(token) == 43
    assert ask(address, "/v1/health") == (
        200,
        {"status": "ok", "version": ask(address, "/v1/health")[1]["version"]},
    )
    assert ask(address, "/v1/studies")[0] == 401
    status, listed = ask(address, "/v1/studies", token)
    assert (status, listed["total"], listed["studies"][0]["origin"]) == (200, 1, "demo")
    # Nothing in the home folder holds the token.
    for path in (tmp_path / "home").rglob("*"):
        assert not path.is_file() or token.encode() not in path.read_bytes()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")


def test_with_folders_no_demo_is_added_and_json_is_one_document(
    started: Any, tmp_path: Path, exam: Path
) -> None:
    process, first = started(exam.parent, "--home", tmp_path / "home", "--json")
    text = first
    while not text.rstrip().endswith("}"):
        text += process.stdout.readline()
    address, token = json.loads(text)["address"].split("/#token=")
    assert ask(address, "/v1/studies", token)[1]["total"] == 0
    second = subprocess.run(
        [sys.executable, "-m", "capsule_edge.cli", "serve", "--home", str(tmp_path / "home")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (second.returncode, second.stdout) == (1, "")
    assert "in use by another capsule-edge serve" in second.stderr
    assert second.stderr.count("\n") == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.org", "::"])
def test_other_addresses_than_loopback_are_refused(call: Any, tmp_path: Path, host: str) -> None:
    called = call("serve", "--home", tmp_path / "home", "--host", host)
    assert (called.code, called.out, called.err.count("\n")) == (2, "", 1)
    assert "allowed is one of 127.0.0.1" in called.err
    assert not (tmp_path / "home").exists()


def test_a_port_in_use_is_told_in_one_line(call: Any, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        called = call("serve", "--home", tmp_path / "home", "--port", port)
    assert (called.code, called.err.count("\n")) == (1, 1)
    assert f"port {port}" in called.err
    assert "in use" in called.err


def test_homes_that_cannot_be_used_are_told_in_one_line(call: Any, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with Database.open(home / "workstation.sqlite") as database, database.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    newer = call("serve", "--home", home)
    assert (newer.code, newer.err.count("\n")) == (1, 1)
    assert "newer version" in newer.err
    (home / "workstation.sqlite").write_bytes(b"no database" * 500)
    damaged = call("serve", "--home", home)
    assert (damaged.code, damaged.err.count("\n")) == (1, 1)
    (tmp_path / "file").write_text("no folder")
    for words in (("--home", tmp_path / "file" / "home"), (tmp_path / "file", "--home", tmp_path / "new")):
        refused = call("serve", *words)
        assert (refused.code, refused.err.count("\n")) == (1, 1), refused.err


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_sigterm_ends_it_with_an_open_event_stream(started: Any, tmp_path: Path, exam: Path) -> None:
    process, line = started(exam.parent, "--home", tmp_path / "home")
    address, token = line.strip().split("/#token=")
    request = urllib.request.Request(f"{address}/v1/events", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=60) as stream:
        assert b"retry" in stream.readline()
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert time.monotonic() - began < 30


def test_the_body_of_an_answer_does_not_wait_for_the_acknowledgement_of_its_head() -> None:
    found: list[int] = []

    class Watching(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted = transport.get_extra_info("socket")
            found.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            transport.close()

    async def connect() -> None:
        listening = listen("127.0.0.1", 0)
        server = await asyncio.get_running_loop().create_server(Watching, sock=listening)
        async with server:
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            await reader.read()
            writer.close()

    # In a thread of its own: a browser that other tests drive has an event loop in this one.
    with ThreadPoolExecutor(1) as executor:
        executor.submit(asyncio.run, connect()).result(timeout=30)
    assert found
    assert all(found)


def test_the_page_that_a_killed_service_left_is_removed(started: Any, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "open.html").write_text("http://127.0.0.1:1/#token=old", encoding="utf-8")
    process, line = started("--home", home)
    assert "#token=" in line
    assert not (home / "open.html").exists()
    (home / "open.html").write_text("as --open writes it", encoding="utf-8")
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    assert not (home / "open.html").exists()


@pytest.mark.parametrize("amount", ["inf", "1e8", "nan"])
@pytest.mark.parametrize("option", ["--token-hours", "--upload-limit", "--job-memory", "--job-hours"])
def test_an_amount_that_nothing_can_hold_is_refused(tmp_path: Path, option: str, amount: str) -> None:
    from click.testing import CliRunner

    from capsule_edge.cli.serve import command

    # The host would be refused too, later: a test that fails must not start a service.
    words = ["--home", str(tmp_path), "--host", "192.0.2.1", option, amount]
    answer = CliRunner().invoke(command, words)
    assert answer.exit_code == 2
    assert option in answer.output
    assert amount in answer.output or "100000000.0" in answer.output


def test_a_token_may_last_for_a_year(tmp_path: Path) -> None:
    pytest.importorskip("httpx2", reason="httpx2 is not installed")
    from stations import served

    with served(tmp_path / "home", token_hours=8760) as (host, port, token, _):
        status, session = ask(f"http://{host}:{port}", "/v1/session", token)
    assert status == 200
    assert 8759 < session["expires_in_s"] / 3600 <= 8760
