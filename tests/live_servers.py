"""Servers on this machine for tests of network sources, and a clock that advances only in ``sleep``."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import cv2
import numpy as np
from red_model import view, write_exam

from capsule_edge.runtime.streaming import Live

Answer = Callable[[int], tuple[str, bytes] | None]


class Quiet(BaseHTTPRequestHandler):
    def log_message(self, *_args: object) -> None:
        pass


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, *_args: object) -> None:
        """Print nothing: a reader that stops closes its connection while the server still writes."""


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], *, port: int = 0) -> Iterator[str]:
    """Yield the address at which ``handler`` answers while the block lasts."""
    http = QuietServer(("127.0.0.1", port), handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}/exam"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


@contextmanager
def server(answer: Answer, *, length: bool = False, cuts: Mapping[int, int] | None = None) -> Iterator[str]:
    """Yield the address of a server that answers request n with ``answer(n)``.

    Args:
        answer: returns (content type, body), or None for a 404.
        length: whether to send the length of the body.
        cuts: number of bytes to send, by request; a request that is not in it gets the whole body.
    """
    asked: list[int] = []

    class Handler(Quiet):
        def do_GET(self) -> None:
            asked.append(1)
            turn = len(asked) - 1
            found = answer(turn)
            if found is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", found[0])
            if length:
                self.send_header("Content-Length", str(len(found[1])))
            self.end_headers()
            self.wfile.write(found[1][: (cuts or {}).get(turn)])

    with serving(Handler) as address:
        yield address


def motion_jpeg(frames: list[np.ndarray]) -> tuple[str, bytes]:
    parts = []
    for frame in frames:
        jpeg = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))[1].tobytes()
        head = f"--exam\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode()
        parts.append(head + jpeg + b"\r\n")
    return "multipart/x-mixed-replace;boundary=exam", b"".join(parts)


def transport_stream(path: Path, red: range) -> bytes:
    exam = write_exam(path / "exam.mp4", frames=40, red=red)
    buffer = io.BytesIO()
    with av.open(str(exam)) as source, av.open(buffer, "w", format="mpegts") as out:
        copy = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
    return buffer.getvalue()


class Clock:
    """A clock that advances only in ``sleep``."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def __call__(self) -> float:
        return self.now


def live(address: str, clock: Clock, patience_s: float = 5.0) -> Live:
    return Live(address, patience_s=patience_s, sleep=clock.sleep, clock=clock)


@contextmanager
def range_server(data: bytes, cuts: Mapping[int, int]) -> Iterator[tuple[str, list[str | None]]]:
    """Yield the address of an HTTP/1.1 server that keeps connections open, and the ranges it was asked for.

    ``cuts`` as in ``server``; the connection of such a request is closed.
    """
    asked: list[str | None] = []

    class Handler(Quiet):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            turn, wanted = len(asked), self.headers.get("Range")
            asked.append(wanted)
            begin = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
            self.send_response(206 if wanted else 200)
            if wanted:
                self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(data) - begin))
            self.end_headers()
            if turn in cuts:
                self.close_connection = True
            self.wfile.write(data[begin:][: cuts.get(turn)])

    with serving(Handler) as address:
        yield address, asked


@contextmanager
def camera(
    *,
    pause_s: float = 0.02,
    then_silent: int | None = None,
    port: int = 0,
    asked: threading.Event | None = None,
) -> Iterator[str]:
    """Yield the address of a camera: motion JPEG without an end.

    Args:
        pause_s: time between two pictures, s.
        then_silent: number of pictures after which the connection stays open and sends nothing.
        port: port to listen on; 0 for any free one.
        asked: set when a client has asked for the pictures.
    """
    closed = threading.Event()

    class Handler(Quiet):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace;boundary=exam")
            self.end_headers()
            if asked is not None:
                asked.set()
            index = 0
            while not closed.wait(pause_s):
                if then_silent is None or index < then_silent:
                    self.wfile.write(motion_jpeg([view(False, index)])[1])
                index += 1

    with serving(Handler, port=port) as address:
        try:
            yield address
        finally:
            closed.set()
