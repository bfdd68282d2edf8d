"""Network sources, from a server on this machine: frames as they come, losses told, connected again, ended in time."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import groupby
from pathlib import Path

import av
import cv2
import damage
import numpy as np
import pytest
from click.testing import CliRunner
from red_model import view, write_exam, write_red_model

from capsule_edge.cli._lines import _stopped_by_signals
from capsule_edge.cli.main import cli
from capsule_edge.runtime import FrameRecord, Reader
from capsule_edge.runtime.errors import InputError, Interrupted, UsageError
from capsule_edge.runtime.live import Live, live_address
from capsule_edge.runtime.pipes import read_pipe
from capsule_edge.runtime.video import decode, scan

Answer = Callable[[int], tuple[str, bytes] | None]


@contextmanager
def server(answer: Answer, *, length: bool = False, cuts: Mapping[int, int] | None = None) -> Iterator[str]:
    """Answers the n-th request with (content type, body), or with 404 where that is None.

    ``length``: says how long the body is. ``cuts``: of which request only so many bytes are sent.
    """
    asked: list[int] = []

    class Handler(BaseHTTPRequestHandler):
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

        def log_message(self, *_args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}/exam"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


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
    """Time that passes in sleeping alone."""

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


def test_motion_jpeg_is_read_and_connected_to_again() -> None:
    clock = Clock()

    def answer(turn: int) -> tuple[str, bytes] | None:
        return motion_jpeg([view(False, 10 * turn + i) for i in range(5)]) if turn in (0, 3) else None

    with server(answer) as address:
        feed = live(address, clock)
        frames = list(feed.read())
    assert [frame is None for frame in frames] == ([False] * 5 + [True]) * 2
    # JPEG at OpenCV's quality of 95 moves a grey level by a few.
    assert abs(frames[8].astype(int) - view(False, 32)).mean() < 4
    assert feed.connections == 2
    assert feed.truncated
    # Doubled from half a second while nothing answers, anew after each connection, to the end of patience.
    assert clock.slept == [0.5, 1.0, 2.0, 0.5, 1.0, 2.0, 1.5]


def test_h264_in_a_transport_stream(tmp_path: Path) -> None:
    data = transport_stream(tmp_path, range(20, 32))
    with server(lambda turn: ("video/mp2t", data) if turn == 0 else None) as address:
        frames = list(live(address, Clock()).read())
    assert len(frames) == 41
    assert frames.pop() is None
    assert {frame.shape for frame in frames} == {(128, 160, 3)}
    red = [index for index, frame in enumerate(frames) if frame[40, 60, 0] > 180]
    assert red == list(range(20, 32))


def test_damage_lasts_to_the_next_key_frame(tmp_path: Path) -> None:
    data = bytearray(transport_stream(tmp_path, range(0)))
    # A transport packet is lost; a group of pictures has 12.
    third = len(data) // 188 // 3 * 188
    del data[third : third + 188]
    with server(lambda turn: ("video/mp2t", bytes(data)) if turn == 0 else None) as address:
        frames = list(live(address, Clock()).read())[:-1]
    lost = [index for index, frame in enumerate(frames) if frame is None]
    assert len(frames) == 40
    assert 0 < lost[0] <= lost[-1] < 24
    assert lost == list(range(lost[0], lost[-1] + 1))
    assert (lost[-1] + 1) % 12 == 0


def test_a_source_that_never_answers_is_one_clear_line() -> None:
    clock = Clock()
    with (
        server(lambda _turn: None) as address,
        pytest.raises(InputError, match=r"127\.0\.0\.1.*cannot be read") as caught,
    ):
        list(live(address.replace("http://", "http://doctor:secret@"), clock).read())
    assert "secret" not in str(caught.value)
    assert clock.now == 5.0


def test_something_else_than_video_is_refused() -> None:
    with server(lambda _turn: ("text/html", b"<html>no</html>")) as address, pytest.raises(InputError):
        list(live(address, Clock()).read())


def test_a_play_list_names_no_other_file(tmp_path: Path) -> None:
    secret = write_exam(tmp_path / "secret.mp4")
    lists = f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nfile://{secret}\n#EXT-X-ENDLIST\n".encode()
    with server(lambda _turn: ("application/vnd.apple.mpegurl", lists)) as address, pytest.raises(InputError):
        list(live(address, Clock(), patience_s=1.0).read())


def test_the_answers_account_for_losses(tmp_path: Path) -> None:
    frames = [view(index in range(10, 20), index) for index in range(40)]
    told: list[str] = []
    with (
        Reader.open(write_red_model(tmp_path / "red.onnx")) as reader,
        server(lambda turn: motion_jpeg(frames) if turn < 2 else None) as address,
    ):
        ledger = read_pipe(
            reader,
            io.BytesIO(),
            live(address, Clock()),
            on_frame=lambda frame: told.append(frame.status),
            on_event=lambda _event: None,
        )
    assert told == (["classified"] * 40 + ["corrupt"]) * 2
    assert (ledger.container, ledger.classified, ledger.corrupt) == (82, 80, 2)
    assert ledger.truncated
    assert not ledger.whole


def test_the_command_line_reads_an_address(tmp_path: Path) -> None:
    frames = [view(index in range(10, 20), index) for index in range(40)]
    model = write_red_model(tmp_path / "red.onnx")
    with server(lambda turn: motion_jpeg(frames) if turn == 0 else None) as address:
        called = CliRunner().invoke(
            cli, ["run", address, "--model", str(model), "--jsonl", "--patience", "0"], catch_exceptions=False
        )
    lines = [json.loads(line) for line in called.stdout.splitlines()]
    assert called.exit_code == 3
    assert sum(line.get("status") == "classified" for line in lines) == 40


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("rtsp://host:554/a", "rtsp://host:554/a"),
        ("RTSP://host/a", "rtsp://host/a"),
        (Path("http://host/a?b=c"), "http://host/a?b=c"),
        ("file:///etc/passwd", None),
        ("concat:a.mp4", None),
        ("exam.mp4", None),
        ("C:/exam.mp4", None),
    ],
)
def test_what_is_an_address(text: str | Path, address: str | None) -> None:
    assert live_address(text) == address
    if address is None:
        with pytest.raises(UsageError, match="is no address"):
            Live(str(text))


@pytest.mark.parametrize("more", [[], ["--jsonl", "--resume"], ["--jsonl", "--out", "x"]])
def test_an_address_goes_with_lines_alone(more: list[str]) -> None:
    called = CliRunner().invoke(cli, ["run", "rtsp://127.0.0.1:1/exam", *more])
    assert called.exit_code != 0
    assert isinstance(called.exception, UsageError | SystemExit)


# Recordings over HTTP: their end is an end.


def muxed(folder: Path, kind: str) -> bytes:
    exam = write_exam(folder / "exam.mp4", frames=40, red=range(20, 32))
    if kind == "index first":
        exam = damage.remux(exam, folder / "first.mp4", movflags="faststart")
    elif kind != "mp4":
        exam = damage.remux(exam, folder / f"exam.{kind}")
    return exam.read_bytes()


# An MP4's own index says how many pictures there are, whatever the server says.
@pytest.mark.parametrize(
    ("kind", "length"),
    [*((kind, True) for kind in ("mp4", "index first", "mkv", "ts")), ("mp4", False), ("index first", False)],
)
def test_a_file_ends_when_it_ends(kind: str, length: bool, tmp_path: Path) -> None:
    asked, clock = [], Clock()

    def answer(turn: int) -> tuple[str, bytes]:
        asked.append(turn)
        return "video/mp4", muxed(tmp_path, kind)

    with server(answer, length=length) as address:
        feed = live(address, clock)
        frames = list(feed.read())
    assert len(frames) == 40
    assert [i for i, frame in enumerate(frames) if frame is not None and frame[40, 60, 0] > 180] == list(
        range(20, 32)
    )
    assert (feed.truncated, feed.connections, clock.slept) == (False, 1, [])
    assert len(asked) == 1


@pytest.mark.parametrize("kind", ["mp4", "index first", "mkv", "ts"])
@pytest.mark.parametrize("share", [0.35, 0.6, 0.95])
def test_a_file_goes_on_where_its_connection_was_lost(kind: str, share: float, tmp_path: Path) -> None:
    data = muxed(tmp_path, kind)
    with server(lambda turn: ("video/mp4", data), length=True) as address:
        whole = list(live(address, Clock()).read())
    cuts = {0: int(len(data) * share), 2: int(len(data) * (share + 0.03))}

    def answer(turn: int) -> tuple[str, bytes] | None:
        return None if turn == 1 else ("video/mp4", data)

    with server(answer, length=True, cuts=cuts) as address:
        feed = live(address, Clock())
        frames = list(feed.read())
    assert feed.truncated is False
    assert len(frames) == len(whole) == 40
    for one, other in zip(frames, whole, strict=True):
        assert one is not None
        assert other is not None
        np.testing.assert_array_equal(one, other)


def test_a_file_whose_server_stays_away_is_not_whole(tmp_path: Path) -> None:
    data = muxed(tmp_path, "index first")
    with server(
        lambda turn: ("video/mp4", data) if turn == 0 else None, length=True, cuts={0: len(data) // 2}
    ) as address:
        feed = live(address, Clock())
        frames = list(feed.read())
    assert frames.pop() is None
    assert 10 < len(frames) < 40
    assert all(frame is not None for frame in frames)
    assert feed.truncated is True


def test_a_file_that_is_cut_on_its_server_ends_as_such(tmp_path: Path) -> None:
    """Every connection would bring the same."""
    data = muxed(tmp_path, "index first")
    clock = Clock()
    with server(lambda turn: ("video/mp4", data[: len(data) // 2]), length=True) as address:
        feed = live(address, clock)
        frames = list(feed.read())
    assert frames[-1] is None
    assert feed.truncated is True
    assert clock.now <= 5.0


def test_another_file_in_its_place_is_a_loss_and_read_from_its_start(tmp_path: Path) -> None:
    data = muxed(tmp_path, "index first")
    (tmp_path / "b").mkdir()
    other = write_exam(tmp_path / "b" / "exam.mp4", frames=30).read_bytes()

    with server(
        lambda turn: ("video/mp4", other if turn else data), length=True, cuts={0: len(data) // 2}
    ) as address:
        feed = live(address, Clock())
        frames = list(feed.read())
    assert feed.truncated is True
    assert sum(frame is None for frame in frames) == 1
    assert frames[-31] is None


@contextmanager
def range_server(data: bytes, cuts: Mapping[int, int]) -> Iterator[tuple[str, list[str | None]]]:
    """As web servers have it: HTTP/1.1, connections that stay open, and the ranges that are asked for."""
    asked: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
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

        def log_message(self, *_args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.handle_error = lambda *_: None  # type: ignore[method-assign]  # whoever seeks reads no further
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}/exam", asked
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


@pytest.mark.parametrize("cuts", [{}, {0: 100_000}, {1: 0}, {2: 300_000}, {2: 300_000, 5: 400_000}], ids=str)
def test_an_index_at_the_end_is_fetched_first(cuts: dict[int, int], tmp_path: Path) -> None:
    """And the first picture is not lost on the way back, wherever a connection breaks."""
    exam, generator = tmp_path / "exam.mp4", np.random.default_rng(0)
    with av.open(str(exam), "w") as out:
        stream = out.add_stream(
            "libx264", rate=25, options={"threads": "1", "preset": "ultrafast", "qp": "10"}
        )
        stream.width, stream.height, stream.pix_fmt = 160, 128, "yuv420p"
        for _ in range(60):
            noise = generator.integers(0, 256, (128, 160, 3), np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        out.mux(stream.encode(None))
    data = exam.read_bytes()
    assert len(data) > 500_000  # more than FFmpeg reads ahead and would skip rather than seek
    assert data.index(b"moov") > data.index(b"mdat")
    with range_server(data, cuts) as (address, asked):
        feed = live(address, Clock())
        frames = list(feed.read())
    assert (len(frames), feed.truncated) == (60, False)
    for frame, picture in zip(frames, decode(scan(exam)), strict=True):
        assert frame is not None
        np.testing.assert_array_equal(frame, picture.rgb())
    assert len(set(asked)) > 1


# Stopped by whoever started it.


@contextmanager
def camera(*, pause_s: float = 0.02, then_silent: int | None = None, port: int = 0) -> Iterator[str]:
    """Motion JPEG without an end; after ``then_silent`` pictures the connection stays, and nothing comes."""
    closed = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace;boundary=exam")
            self.end_headers()
            index = 0
            while not closed.wait(pause_s):
                if then_silent is None or index < then_silent:
                    self.wfile.write(motion_jpeg([view(False, index)])[1])
                index += 1

        def log_message(self, *_args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    http.handle_error = lambda *_: None  # type: ignore[method-assign]  # whoever read has gone
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}/exam"
    finally:
        closed.set()
        http.shutdown()
        http.server_close()
        thread.join()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("then_silent", [None, 45])
def test_a_camera_that_is_stopped_has_ended(
    number: signal.Signals, then_silent: int | None, tmp_path: Path
) -> None:
    model = write_red_model(tmp_path / "red.onnx")
    code = "from capsule_edge.cli.main import main; main()"
    with camera(then_silent=then_silent) as address:
        process = subprocess.Popen(
            [sys.executable, "-c", code, "run", address, "--model", str(model), "--jsonl"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(41)]
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    lines += map(json.loads, out.splitlines())
    assert (process.returncode, err) == (0, b"")
    assert [lines[0]["type"], lines[-1]["type"]] == ["start", "end"]
    frames = [line for line in lines if line["type"] == "frame"]
    ledger = lines[-1]["ledger"]
    assert [frame["index"] for frame in frames] == list(range(ledger["container"]))
    assert ledger["classified"] == ledger["container"] >= 40
    assert ledger["truncated"] is None
    assert lines[-1]["exit_code"] == 0


def test_a_camera_that_is_stopped_before_anything_came_was_interrupted(tmp_path: Path) -> None:
    with camera(then_silent=0) as address:
        feed = live(address, Clock())
        threading.Timer(0.3, feed.stop).start()
        with pytest.raises(Interrupted, match="before a frame came"):
            list(feed.read())


def test_a_camera_whose_server_is_started_again_is_read_on(tmp_path: Path) -> None:
    """Its port refuses connections meanwhile. Then it is stopped by whoever reads, from a callback."""
    told: list[str] = []
    with (
        ExitStack() as second,
        Reader.open(write_red_model(tmp_path / "red.onnx")) as reader,
        ExitStack() as first,
    ):
        address = first.enter_context(camera())
        feed = Live(address, patience_s=30)

        def follow(frame: FrameRecord) -> None:
            told.append(frame.status)
            if len(told) == 40:
                first.close()
                second.enter_context(camera(port=int(address.split(":")[-1].removesuffix("/exam"))))
            if "corrupt" in told and told[-10:] == ["classified"] * 10:
                feed.stop()

        ledger = read_pipe(reader, io.BytesIO(), feed, on_frame=follow, on_event=lambda _event: None)
    assert feed.connections == 2
    # What came in part is a picture cut off, besides the loss itself.
    assert 1 <= ledger.corrupt == told.count("corrupt") <= 2
    assert [status for status, _ in groupby(told)] == ["classified", "corrupt", "classified"]
    assert ledger.container == len(told) == ledger.classified + ledger.corrupt
    assert ledger.truncated is True


def test_signals_that_are_ignored_stay_so_and_others_are_given_back() -> None:
    feed = Live("http://127.0.0.1:1/exam")
    earlier = signal.signal(signal.SIGINT, signal.SIG_IGN)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with _stopped_by_signals(feed):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            signal.raise_signal(signal.SIGTERM)
            assert feed.stopped
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGINT, earlier)
