"""Network sources, from a server on this machine: frames as they arrive, losses, reconnection, and the end."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from live_servers import Clock, live, motion_jpeg, server, transport_stream
from red_model import view, write_exam, write_red_model

from capsule_edge.cli.main import cli
from capsule_edge.runtime import Reader
from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.runtime.streaming import Live, live_address, read_pipe


@pytest.mark.quick
def test_motion_jpeg_is_read_and_connected_to_again() -> None:
    clock = Clock()

    def answer(turn: int) -> tuple[str, bytes] | None:
        return motion_jpeg([view(False, 10 * turn + i) for i in range(5)]) if turn in (0, 3) else None

    with server(answer) as address:
        feed = live(address, clock)
        frames = list(feed.read())
    assert [frame is None for frame in frames] == ([False] * 5 + [True]) * 2
    # JPEG at OpenCV's quality of 95 changes a grey level by a few steps.
    assert abs(frames[8].astype(int) - view(False, 32)).mean() < 4
    assert feed.connections == 2
    assert feed.truncated
    # Waits double from half a second, start anew after each connection, and end with the patience.
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
    # One transport packet is lost; a closed GOP has 12 pictures.
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


@pytest.mark.quick
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
def test_an_address_needs_jsonl_and_takes_no_option_of_recordings(more: list[str]) -> None:
    called = CliRunner().invoke(cli, ["run", "rtsp://127.0.0.1:1/exam", *more])
    assert isinstance(called.exception, UsageError), called.output
