"""A small service for tests of the page: its real files under the real content policy, and answers that tests choose.

Frames carry their index as a pattern of 4 x 4 squares, so that a test can read from the pixels which frame is shown.
What the real service would never do is what these tests need: late, wrong and failing answers, at will.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import cv2
import numpy as np
from paths import ROOT

ASSETS = ROOT / "workstation" / "page" / "assets"
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob:; connect-src 'self'; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
TOKEN = "a" * 43
STUDY = "0" * 32
READING = "1" * 32
RESULT = "2" * 32
NEWER_RESULT = "3" * 32
CELLS = 4


def write_index(index: int, side: int) -> Any:
    """Return a picture, uint8 BGR, whose 4 x 4 squares are the bits of ``index``, the lowest first."""
    bits = np.array([(index >> bit) & 1 for bit in range(CELLS * CELLS)], np.uint8).reshape(CELLS, CELLS)
    plane = np.kron(bits, np.full((side // CELLS, side // CELLS), 215, np.uint8)) + 20
    return np.repeat(plane[:, :, None], 3, axis=2)


@dataclass
class FakeService:
    """The answers of the service.

    Attributes:
        frames: number of frames.
        lost: status and detail of frames without a picture, by index.
        delay_s: time before a frame is answered, by index.
        wrong: index that is answered in place of another.
        posted: bodies of POST requests to ``readings/.../seen``.
        requests: paths of all requests.
        recording: facts of the recording that differ from the usual ones.
        origin: of the examination.
        folders: allowed folders.
        not_new: why the recording is not new to the model.
        newest: suggestions of a newer result, answered where no result is named; None where there is none.
        current_result: id of the newest result, in the document of the examination.
        refuse: status and error of paths that begin with a text.
    """

    frames: int = 600
    fps: float = 30.0
    suggestions: list[dict[str, Any]] = field(default_factory=list)
    reading: dict[str, Any] | None = None
    lost: dict[int, tuple[str, str]] = field(default_factory=dict)
    delay_s: dict[int, float] = field(default_factory=dict)
    wrong: dict[int, int] = field(default_factory=dict)
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)
    posted: list[dict[str, Any]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    post_arrived: threading.Event = field(default_factory=threading.Event)
    closing: threading.Event = field(default_factory=threading.Event)
    recording: dict[str, Any] = field(default_factory=dict)
    origin: str = "folder"
    folders: list[dict[str, Any]] = field(default_factory=list)
    newest: list[dict[str, Any]] | None = None
    current_result: str | None = None
    not_new: list[str] = field(default_factory=list)
    outgoing: queue.SimpleQueue[bytes | None] = field(default_factory=queue.SimpleQueue)
    side: int = 336
    address: str = ""

    @property
    def start(self) -> str:
        return f"{self.address}/#token={TOKEN}"

    @property
    def study(self) -> dict[str, Any]:
        return {
            "id": STUDY, "title": "Demo", "origin": self.origin, "added_at": "2026-11-30T10:00:00.000000Z",
            "recording": {
                "name": "demo.mp4", "bytes": 1, "sha256": None, "frames": self.frames,
                "duration_s": self.frames / self.fps, "width": self.side, "height": self.side,
                "time_kind": "playback", "frame_distance_s": 1 / self.fps, "capture_fps": 2.0,
                "capture_scale": self.fps / 2.0,
            } | self.recording,
            "examination": {}, "examination_version": 1, "state": "read", "job": None, "results": [],
            "current_result": self.current_result, "readings": [], "error": None,
        }  # fmt: skip

    def tell(self, name: str, data: object) -> None:
        """Send an event to the open page."""
        self.outgoing.put(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode())

    def suggestions_of(self, result: str | None) -> dict[str, Any]:
        if result is None and self.newest is not None:
            return {"partial": False, "result_id": NEWER_RESULT, "suggestions": self.newest}
        return {"partial": False, "result_id": RESULT, "suggestions": self.suggestions}

    def timeline(self, bins: int) -> dict[str, Any]:
        bins = min(bins, self.frames)
        edges = (np.arange(bins + 1) * self.frames) // bins
        lost = {"corrupt": [0] * bins, "missing": [0] * bins, "classified": np.diff(edges).tolist()}
        for index, (status, _) in self.lost.items():
            lost[status][int(np.searchsorted(edges, index, "right")) - 1] += 1
        wave = (90 + 60 * np.sin(edges[:-1] / 40)).astype(int).tolist()
        return {
            "frames": self.frames, "duration_s": self.frames / self.fps, "bins": bins,
            "colours": [[value, value // 2, 40] for value in wave], "status": lost, "unfamiliar": [0] * bins,
            "labels": {"bleeding": [], "polyp": [], "ulcer": []}, "start_index": edges[:-1].tolist(),
            "start_time_s": (edges[:-1] / self.fps).tolist(),
        }  # fmt: skip

    def rows(self, start: int, count: int) -> list[dict[str, Any]]:
        return [
            {
                "index": index,
                "time_s": index / self.fps,
                "status": self.lost.get(index, ("classified", ""))[0],
                "label": "polyp",
            }
            for index in range(start, min(start + count, self.frames))
        ]

    def answer(self, path: str, query: dict[str, str]) -> dict[str, Any] | None:
        """Return the JSON of a GET request, None for one that there is not."""
        study = f"studies/{STUDY}"
        if path == f"{study}/timeline":
            return self.timeline(int(query["bins"]))
        known: dict[str, Any] = {
            "session": {
                "expires_at": "2027-01-01T00:00:00.000000Z",
                "folders": self.folders,
                "tool_version": "0",
            },
            "studies": {"studies": [self.study], "total": 1},
            study: self.study,
            f"{study}/suggestions": self.suggestions_of(query.get("result")),
            f"{study}/limits": {"result_id": query.get("result"), "not_new": self.not_new, "blind_spots": []},
            f"readings/{READING}": self.reading,
        }
        if path.startswith(f"{study}/frames/") and path.endswith("/map"):
            box = {"left": 0, "top": 0, "width": self.side, "height": self.side}
            return {"contours": [[[0.4, 0.4], [0.6, 0.4], [0.5, 0.6]]], "box": box, "label": query["label"]}
        if path == f"{study}/frames":
            return {"total": self.frames, "rows": self.rows(int(query["start"]), int(query["count"]))}
        return known.get(path)


def make_suggestion(
    number: int,
    label: str,
    start: int,
    end: int,
    *,
    score: float = 0.9,
    more: tuple[tuple[int, int], ...] = (),
) -> dict[str, Any]:
    """Return a suggestion with an event of the frames [start, end), and one for each further range."""
    events = [
        {
            "id": 100 * number + place, "label": label, "role": "finding", "start_index": begin,
            "end_index": stop - 1,  # the last frame, as in study.json
            "start_s": begin / 30, "end_s": stop / 30, "peak_index": (begin + stop) // 2, "peak_s": (begin + stop) / 60,
            "peak_p": score, "frames": stop - begin,
        }
        for place, (begin, stop) in enumerate(((start, end), *more))
    ]  # fmt: skip
    name = label.capitalize()
    return {
        "id": number, "label": label, "name": name, "role": "finding", "events": events, "score": score,
        "precision": None, "alternatives": [], "similar": [],
    }  # fmt: skip


def make_reading(**changes: Any) -> dict[str, Any]:
    """Return a reading that was just opened."""
    return {
        "id": READING, "study_id": STUDY, "result_id": RESULT, "reader": "Dr. Test", "way": "suggestions_first",
        "pass": "second", "state": "open", "version": 1, "decisions": [], "landmarks": {}, "transit": None,
        "coverage": {"seen": [], "skimmed": []}, "progress": {}, "head_hash": "0" * 64,
    } | changes  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service: FakeService

    def log_message(self, *_: object) -> None:
        """Keep the test output free of requests."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.service.requests.append(self.path)
        if not parts.path.startswith("/v1/"):
            return self._file(parts.path)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._error(401, "token_expired", "the access token is unknown or expired")
        path = parts.path.removeprefix("/v1/")
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        for prefix, (status, code) in self.service.refuse.items():
            if path.startswith(prefix):
                return self._error(status, code, f"refused with {status}")
        if path == "events":
            return self._events()
        if path == f"studies/{STUDY}/strip":
            return self._strip(int(query["start"]), int(query["end"]), int(query["size"]))
        if (answer := self.service.answer(path, query)) is not None:
            return self._json(answer)
        if path.startswith(f"studies/{STUDY}/frames/"):
            return self._frame(int(path.rpartition("/")[2]), int(query.get("size", self.service.side)))
        return self._error(404, "not_found", "there is no such thing")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        self.service.requests.append(self.path)
        self.service.posted.append(body)
        self.service.post_arrived.set()
        self._json(
            {"suggestions": 0, "decided": 0, "seen_share": 0.0, "seen_share_small_bowel": None, "seconds": 0}
        )

    def _frame(self, index: int, side: int) -> None:
        service = self.service
        if service.closing.wait(service.delay_s.get(index, 0.0)):
            return None
        if index in service.lost:
            status, detail = service.lost[index]
            return self._error(404, f"frame_{status}", "the frame has no picture", detail=detail)
        index = service.wrong.get(index, index)
        jpeg = cv2.imencode(".jpg", write_index(index, side), [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
        times = {
            "X-Frame-Index": str(index),
            "X-Frame-Time": f"{index / service.fps:.6f}",
            "X-Frame-Pts": str(index),
        }
        return self._send(200, "image/jpeg", jpeg, times)

    def _strip(self, start: int, end: int, size: int) -> None:
        lost = [index for index in range(start, end) if index in self.service.lost]
        tiles = [
            np.zeros((size, size, 3), np.uint8) if i in lost else write_index(i, size)
            for i in range(start, end)
        ]
        jpeg = cv2.imencode(".jpg", np.hstack(tiles))[1].tobytes()
        headers = {
            "X-Strip-Indices": ",".join(map(str, range(start, end))),
            "X-Strip-Unavailable": ",".join(map(str, lost)),
        }
        self._send(200, "image/jpeg", jpeg, headers)

    def _events(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        self.wfile.write(b"event: ping\ndata: {}\n\n")
        self.wfile.flush()
        while (event := self.service.outgoing.get()) is not None:
            self.wfile.write(event)
            self.wfile.flush()

    def _file(self, path: str) -> None:
        file = ASSETS / ("index.html" if path == "/" else path.removeprefix("/page/"))
        if file.parent != ASSETS or not file.is_file():
            return self._error(404, "not_found", "there is no such file")
        return self._send(200, TYPES[file.suffix], file.read_bytes())

    def _json(self, value: object) -> None:
        self._send(200, "application/json", json.dumps(value).encode())

    def _error(self, status: int, code: str, message: str, **current: object) -> None:
        error = {"error": {"code": code, "message": message, "hint": ""}, "current": current}
        self._send(status, "application/json", json.dumps(error).encode())

    def _send(self, status: int, kind: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        fixed = {
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        }
        size = {"Content-Type": kind, "Content-Length": str(len(body))}
        for name, value in {**fixed, **size, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            # The page gave up the request: it wants another frame by now.
            self.close_connection = True


@contextmanager
def serve_fake(service: FakeService, port: int = 0) -> Iterator[FakeService]:
    """Run a service on loopback; yields it with its address."""
    handler = type("Handler", (_Handler,), {"service": service})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    service.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.closing.set()
        service.outgoing.put(None)
        server.shutdown()
        server.server_close()
        thread.join()
