"""Slow frames hold up neither the service nor each other: abandoned work ends, and old requests give way."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
pytest.importorskip("httpx2", reason="httpx2 is not installed")

from stations import served

from capsule_edge.workstation.frames import DecodingStoppedError, FrameSource, giving_up
from capsule_edge.workstation.frames.frame_reading import VideoReading
from capsule_edge.workstation.service.frame_work import _OF_A_STUDY, _UNFINISHED, _urgency_of
from capsule_edge.workstation.service.workstation import StudyOrder


class EndlessDecoder:
    """Stands in for a decoder that needs ages for a frame; it ends when it may."""

    def __init__(self) -> None:
        self.real = VideoReading.read
        self.begun, self.ended = threading.Semaphore(0), threading.Semaphore(0)
        self.tick = threading.Event()

    def read(self, reading: Any, index: int, keep: Any, pause: Callable[[], bool]) -> None:
        self.begun.release()
        while not pause():
            self.tick.wait(0.01)
        self.ended.release()


class Client:
    def __init__(self, host: str, port: int, token: str) -> None:
        self.place = host, port
        self.headers = f"Host: {host}:{port}\r\nAuthorization: Bearer {token}\r\n\r\n"
        self.token = token

    def ask(self, path: str, method: str = "GET", body: Any = None) -> tuple[int, bytes]:
        connection = HTTPConnection(*self.place, timeout=60)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        connection.request(method, f"/v1/{path}", body and json.dumps(body), headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content

    def begin(self, path: str, priority: str = "u=3") -> socket.socket:
        """Send a request and return its connection, without waiting for the answer."""
        connection = socket.create_connection(self.place, timeout=60)
        head = f"GET /v1/{path} HTTP/1.1\r\nPriority: {priority}\r\n{self.headers}"
        connection.sendall(head.encode())
        return connection


@pytest.fixture
def slow(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Client, str, EndlessDecoder, pytest.MonkeyPatch]]:
    """A served study whose frames take for ever, until the patch is undone."""
    with served(tmp_path / "home", recordings) as (host, port, token, station):
        client = Client(host, port, token)
        study_id = station.add(
            StudyOrder(
                title="exam", path=str(recordings / "exam.mp4"), origin="folder", size=1, model="small"
            )
        )
        decoder = EndlessDecoder()
        with monkeypatch.context() as patched:
            patched.setattr(VideoReading, "read", lambda *words: decoder.read(*words))
            yield client, study_id, decoder, patched


def test_abandoned_frames_hold_up_nothing_and_their_decoding_ends(slow: Any) -> None:
    client, study_id, decoder, patched = slow
    # More than the threads that the other routes share.
    pending = [client.begin(f"studies/{study_id}/frames/{index % 60}") for index in range(60)]
    assert decoder.begun.acquire(timeout=60)
    assert client.ask("health")[0] == 200
    assert client.ask("session")[0] == 200
    assert client.ask("studies")[0] == 200
    for connection in pending:
        connection.close()
    assert decoder.ended.acquire(timeout=60)
    patched.undo()
    # The first frame that is asked for afterwards waits for none of the abandoned ones.
    status, content = client.ask(f"studies/{study_id}/frames/7")
    assert (status, content[:2]) == (200, b"\xff\xd8")


def test_the_oldest_request_gives_way_where_there_are_too_many(slow: Any) -> None:
    client, study_id, decoder, _ = slow
    urgent = client.begin(f"studies/{study_id}/frames/59", "u=1")
    assert decoder.begun.acquire(timeout=60)
    oldest = client.begin(f"studies/{study_id}/frames/0")
    pending = [client.begin(f"studies/{study_id}/frames/{index}") for index in range(1, _UNFINISHED)]
    answer = HTTPResponse(oldest)
    answer.begin()
    assert (answer.status, json.loads(answer.read())["error"]["code"]) == (503, "superseded")
    # The first one of all is more urgent, and goes on.
    urgent.setblocking(False)
    with pytest.raises(BlockingIOError):
        urgent.recv(1)
    for connection in (urgent, oldest, *pending):
        connection.close()
    assert _OF_A_STUDY < _UNFINISHED


def test_the_picture_that_a_person_waits_for_waits_behind_no_other(slow: Any) -> None:
    client, study_id, decoder, patched = slow
    endless, real = VideoReading.read, decoder.real

    def read(self: VideoReading, index: int, keep: Any, pause: Any) -> Any:
        return (real if index == 7 else endless)(self, index, keep, pause)

    patched.setattr(VideoReading, "read", read)
    ahead = [client.begin(f"studies/{study_id}/frames/{index}", "u=6") for index in range(20, 30)]
    assert len(ahead) > _OF_A_STUDY
    assert decoder.begun.acquire(timeout=60)
    answer = HTTPResponse(client.begin(f"studies/{study_id}/frames/7", "u=1"))
    answer.begin()
    assert (answer.status, answer.getheader("X-Frame-Index")) == (200, "7")
    for connection in ahead:
        connection.close()


@pytest.mark.parametrize(
    ("header", "urgency"),
    [("", 3), ("u=1", 1), ("i, u=0", 0), ("u=6;x, i", 6), ("u=8", 3), ("au=1", 3), ("u=12", 3)],
)
def test_the_urgency_of_a_request_is_that_of_its_header(header: str, urgency: int) -> None:
    assert _urgency_of(header) == urgency


def test_a_frame_that_nobody_wants_is_given_up_and_can_be_asked_for_again(recordings: Path) -> None:
    with FrameSource.open(recordings / "exam.mp4") as source:
        asked = []

        def given_up() -> bool:
            asked.append(None)
            return len(asked) > 1

        # Frame 50 is no key frame: others are decoded before it.
        with giving_up(given_up), pytest.raises(DecodingStoppedError, match="frame 50"):
            source.frame(50)
        assert source.frame(50).index == 50
        # A thread that waits for another one to decode gives up as well.
        with source._decoding, giving_up(lambda: True), pytest.raises(DecodingStoppedError, match="frame 5 "):
            source.frame(5)
