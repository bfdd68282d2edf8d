"""Cameras: stopped, interrupted, and read on after their server was restarted."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path

import pytest
from live_servers import Clock, camera, live
from red_model import write_red_model

from capsule_edge.cli._lines import _stopped_by_signals
from capsule_edge.runtime import FrameRecord, Reader
from capsule_edge.runtime.errors import Interrupted
from capsule_edge.runtime.streaming import Live, read_pipe
from capsule_edge.runtime.termination import TerminationSignal


@pytest.mark.parametrize(("number", "then_silent"), [(signal.SIGINT, None), (signal.SIGTERM, 45)])
def test_a_camera_that_is_stopped_has_ended(
    number: signal.Signals, then_silent: int | None, tmp_path: Path
) -> None:
    model = write_red_model(tmp_path / "red.onnx")
    code = "from capsule_edge.cli.main import main; main()"
    with camera(pause_s=0.005, then_silent=then_silent) as address:
        process = subprocess.Popen(
            [sys.executable, "-c", code, "run", address, "--model", str(model), "--jsonl"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # communicate() would not find what readline() had read ahead
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


def test_a_camera_that_is_stopped_before_anything_came_was_interrupted() -> None:
    asked = threading.Event()
    with camera(then_silent=0, asked=asked) as address:
        feed = live(address, Clock())

        def stop_once_connected() -> None:
            assert asked.wait(60)
            feed.stop()

        stopper = threading.Thread(target=stop_once_connected)
        stopper.start()
        with pytest.raises(Interrupted, match="before a frame came"):
            list(feed.read())
        stopper.join()


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_anything_came_gives_its_own_exit_code(
    number: signal.Signals, exit_code: int
) -> None:
    feed = Live("http://127.0.0.1:1/exam")

    def read() -> None:
        with _stopped_by_signals(feed):
            signal.raise_signal(number)
            list(feed.read())

    with pytest.raises(Interrupted, match="before a frame came") as caught:
        read()
    assert caught.value.exit_code == exit_code


def test_a_camera_whose_server_is_started_again_is_read_on(tmp_path: Path) -> None:
    """The port refuses connections while the server is away. At the end a callback stops the feed."""
    told: list[str] = []
    with (
        ExitStack() as second,
        Reader.open(write_red_model(tmp_path / "red.onnx")) as reader,
        ExitStack() as first,
    ):
        address = first.enter_context(camera(pause_s=0.005))
        feed = Live(address, patience_s=30)

        def follow(frame: FrameRecord) -> None:
            told.append(frame.status)
            if len(told) == 40:
                first.close()
                second.enter_context(
                    camera(pause_s=0.005, port=int(address.split(":")[-1].removesuffix("/exam")))
                )
            if "corrupt" in told and told[-10:] == ["classified"] * 10:
                feed.stop()

        ledger = read_pipe(reader, io.BytesIO(), feed, on_frame=follow, on_event=lambda _event: None)
    assert feed.connections == 2
    # The loss itself, and a picture that was cut off if one had arrived in part.
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
            with pytest.raises(TerminationSignal):
                signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGINT, earlier)
