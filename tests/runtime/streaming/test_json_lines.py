"""``run --jsonl``: a line for each frame and event, of recordings and of pipes, and a line for each fault."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import av
import cv2
import damage
import jsonschema
import numpy as np
import pytest
from red_model import HEIGHT, WIDTH, view, write_exam, write_red_model

from capsule_edge.cli.main import main
from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.runtime.reader import Reader
from capsule_edge.runtime.results.journal import JOURNAL
from capsule_edge.runtime.streaming import parse_feed
from capsule_edge.runtime.streaming.pipe_formats import Mjpeg, Raw, split_pictures

SCHEMA = json.loads(
    (resources.files("capsule_edge.runtime") / "schema" / "lines.schema.json").read_text("utf-8")
)
FRAMES = 90
RED = range(20, 32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_red_model(tmp_path_factory.mktemp("model") / "red.onnx")


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 frames, 2 a second; 20 to 31 are red."""
    return write_exam(tmp_path_factory.mktemp("exam") / "Köhler, 検査.mp4", frames=FRAMES)


def command(*arguments: object) -> list[str]:
    code = "from capsule_edge.cli.main import main; main()"
    return [sys.executable, "-c", code, "run", *map(str, arguments)]


def lines_of(out: bytes | str) -> list[dict[str, Any]]:
    """Parse the lines and check each against the schema."""
    lines = [json.loads(line) for line in out.splitlines()]
    validator = jsonschema.Draft202012Validator(SCHEMA)
    for line in lines:
        validator.validate(line)
    return lines


def run(*arguments: object, given: bytes = b"") -> tuple[int, list[dict[str, Any]]]:
    """Run the command in this process, with ``given`` on stdin; return its exit code and lines."""
    streams = {
        "stdin": io.TextIOWrapper(io.BytesIO(given), "utf-8"),
        "stdout": io.TextIOWrapper(io.BytesIO(), "utf-8"),
        "stderr": io.TextIOWrapper(io.BytesIO(), "utf-8"),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, stream in streams.items():
            patch.setattr(sys, name, stream)
        with pytest.raises(SystemExit) as ended:
            main(["run", *map(str, arguments), "--jsonl"])
    out, err = (written(streams[name]) for name in ("stdout", "stderr"))
    assert err == b""
    return int(ended.value.code or 0), lines_of(out)


def written(stream: io.TextIOWrapper) -> bytes:
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue()


def run_process(*arguments: object) -> tuple[int, list[dict[str, Any]]]:
    """Run the command in a fresh interpreter, as another program does."""
    done = subprocess.run(command(*arguments, "--jsonl"), capture_output=True, timeout=120)
    assert done.stderr == b""
    return done.returncode, lines_of(done.stdout)


def of(lines: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["type"] == kind]


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    kinds = [entry["properties"]["type"]["const"] for entry in SCHEMA["oneOf"]]
    assert kinds == ["start", "frame", "event", "end", "error"]


def test_the_lines_of_a_recording_say_what_its_files_say(exam: Path, model: Path, tmp_path: Path) -> None:
    code, lines = run_process(exam, "--model", model, "--out", tmp_path / "out")
    assert code == 0
    assert [lines[0]["type"], lines[-1]["type"]] == ["start", "end"]
    assert lines[0]["recording"] == str(exam)
    assert lines[-1]["suggestions"] == 1
    keys = [label["key"] for label in lines[0]["labels"]]
    study = json.loads((tmp_path / "out" / "study.json").read_text("utf-8"))
    rows = (tmp_path / "out" / "frames.csv").read_text("utf-8").splitlines()[1:]
    for frame, row in zip(of(lines, "frame"), rows, strict=True):
        values = [
            frame["index"],
            frame["pts"],
            f"{frame['time_s']:.6f}",
            frame["status"],
            "",
            frame["detail"],
        ]
        values += [frame["label"], *(f"{frame['probabilities'][key]:.6f}" for key in keys)]
        assert ",".join(map(str, values)) == row
        assert frame["probability"] == max(frame["probabilities"].values())
    (event,) = of(lines, "event")
    assert [{"type": "event", **{k: v for k, v in study["events"][0].items() if k != "id"}}] == [event]
    assert lines.index(event) < len(lines) - 2  # before the recording ends: it closed
    assert lines[-1]["ledger"] == study["ledger"]
    assert (lines[-1]["events"], lines[-1]["exit_code"]) == (1, 0)


def test_every_frame_has_a_line_whatever_its_status(exam: Path, model: Path, tmp_path: Path) -> None:
    front = damage.remux(exam, tmp_path / "front.mp4", movflags="faststart")
    flipped = damage.flip(front, tmp_path / "flipped.mp4", [30], seed=1, bits=8)
    cut = damage.cut(flipped, tmp_path / "cut.mp4", 0.9)
    code, lines = run(cut, "--model", model, "--out", tmp_path / "out", "--start", 2, "--every", 2)
    assert code == 3
    frames = of(lines, "frame")
    assert [frame["index"] for frame in frames] == list(range(FRAMES))
    found = {frame["status"] for frame in frames}
    assert found == {"classified", "corrupt", "missing", "skipped"}
    for frame in frames:
        assert (frame["label"] is not None) == (frame["status"] == "classified")
    for status, count in lines[-1]["ledger"].items():
        if status in found:
            assert count == sum(frame["status"] == status for frame in frames)


def test_several_recordings_follow_each_other_and_a_fault_is_a_line(
    exam: Path, model: Path, tmp_path: Path
) -> None:
    absent = tmp_path / "absent.mp4"
    code, lines = run(absent, exam, "--model", model, "--out", tmp_path / "all")
    assert code == 1
    assert [line["type"] for line in lines[:3]] == ["start", "error", "start"]
    assert (lines[1]["recording"], lines[1]["error"]["code"]) == (str(absent), "input")
    assert (lines[-1]["type"], lines[-1]["exit_code"]) == ("end", 0)


# Pipes.


def raw(count: int = FRAMES) -> bytes:
    return b"".join(view(index in RED, index).tobytes() for index in range(count))


def jpegs(count: int = FRAMES, *, width: int = WIDTH) -> list[bytes]:
    pictures = []
    for index in range(count):
        bgr = cv2.cvtColor(view(index in RED, index), cv2.COLOR_RGB2BGR)[:, :width]
        done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])
        assert done
        pictures.append(data.tobytes())
    return pictures


RAW = f"raw:{WIDTH}x{HEIGHT}"


@pytest.mark.parametrize("kind", [RAW, "mjpeg"])
def test_a_pipe_is_answered_as_a_stream_is(kind: str, model: Path) -> None:
    given = raw() if kind == RAW else b"".join(jpegs())
    code, lines = run("-", "--stdin", kind, "--model", model, "--capture-fps", 4, given=given)
    assert code == 0
    frames = of(lines, "frame")
    assert [frame["index"] for frame in frames] == list(range(FRAMES))
    assert [frame["time_s"] for frame in frames] == [index / 4 for index in range(FRAMES)]
    assert [frame["index"] for frame in frames if frame["label"] == "bleeding"] == list(RED)
    (event,) = of(lines, "event")
    assert event["start_index"] <= 20 < 31 <= event["end_index"] <= 35
    assert lines[-1]["ledger"]["container"] == lines[-1]["ledger"]["classified"] == FRAMES
    assert (lines[-1]["out"], lines[-1]["ledger"]["truncated"]) == (None, False)
    if kind == RAW:
        with Reader.open(model) as reader:
            for frame, prediction in zip(
                frames, reader.stream(view(index in RED, index) for index in range(FRAMES)), strict=True
            ):
                assert frame["probabilities"] == {
                    key: round(float(value), 6)
                    for key, value in zip(reader.spec.keys, prediction.probabilities, strict=True)
                }


def test_what_ffmpeg_writes_is_read(model: Path) -> None:
    """The same muxer and encoder as ``ffmpeg -f mjpeg -``; 4:2:0, which JPEG calls yuvj420p."""
    file = io.BytesIO()
    with av.open(file, "w", format="mjpeg") as out:
        stream = out.add_stream("mjpeg", rate=25, options={"qscale": "2", "flags": "+qscale"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        for index in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(view(index in RED, index), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    code, lines = run("-", "--stdin", "mjpeg", "--model", model, given=file.getvalue())
    assert code == 0
    assert [frame["index"] for frame in of(lines, "frame") if frame["label"] == "bleeding"] == list(RED)


def test_a_pipe_that_ends_in_a_frame_loses_none_before_it(model: Path) -> None:
    for kind, given in ((RAW, raw()[:-100]), ("mjpeg", b"".join(jpegs())[:-100])):
        code, lines = run("-", "--stdin", kind, "--model", model, given=given)
        assert code == 3
        statuses = [frame["status"] for frame in of(lines, "frame")]
        assert statuses == ["classified"] * (FRAMES - 1) + ["corrupt"]
        assert lines[-1]["ledger"]["truncated"] is True


@pytest.mark.quick
def test_damage_in_a_pipe_is_counted_and_what_follows_is_answered(model: Path) -> None:
    pictures = jpegs()
    pictures[3] = pictures[3][: len(pictures[3]) // 2]  # the next begins in its middle
    pictures[9] = b"--boundary\r\n"
    pictures[12] = jpegs(1, width=WIDTH - 16)[0]  # of another size
    pictures[40] = pictures[40][:-2] + b"\x00\xff\xd9"  # surplus data at the end of a picture is not damage
    code, lines = run("-", "--stdin", "mjpeg", "--model", model, given=b"".join(pictures))
    assert code == 3
    corrupt = [frame["index"] for frame in of(lines, "frame") if frame["status"] == "corrupt"]
    assert corrupt == [3, 9, 12]
    assert len(of(lines, "frame")) == FRAMES
    assert of(lines, "frame")[3]["detail"] == "damaged"
    assert lines[-1]["ledger"]["truncated"] is False


@pytest.mark.parametrize(
    ("arguments", "given", "code", "says"),
    [
        (("--stdin", "mjpeg"), b"", 1, "no frame came"),
        (("--stdin", RAW), b"", 1, "no frame came"),
        (("--stdin", "mjpeg"), b"GIF89a...", 1, "stdin begins with 47 49"),
        (("--stdin", "mjpeg", "--capture-fps", "nan"), b"", 2, "capture_fps is nan"),
        (("--stdin", "png"), b"", 2, "frames are 'png', allowed are mjpeg and raw:WIDTHxHEIGHT"),
        (("--stdin", "raw:0x5"), b"", 2, "frames are 'raw:0x5'"),
        (("--stdin", "raw:99999x99999"), b"", 2, "of at most 67108864 pixels"),
        ((), b"", 2, "needs --stdin"),
        (("--stdin", "mjpeg", "--out", "x"), b"", 2, "--out is for recordings"),
        (("--stdin", "mjpeg", "--every", "2"), b"", 2, "--every is for recordings"),
        (("--stdin", "mjpeg", "--resume"), b"", 2, "--resume is for recordings"),
        (("other.mp4", "--stdin", "mjpeg"), b"", 2, "is read alone"),
    ],
)
def test_what_is_wrong_with_a_pipe_is_one_line(
    arguments: tuple[str, ...], given: bytes, code: int, says: str, model: Path
) -> None:
    found, lines = run("-", *arguments, "--model", model, given=given)
    assert found == code
    assert lines[-1]["type"] == "error"
    assert says in lines[-1]["error"]["message"]
    assert lines[-1]["exit_code"] == code
    assert not of(lines, "end")


def test_options_that_do_not_go_together(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, says in (
        (("-", "--stdin", "mjpeg"), "gives JSON lines, not result files"),
        (("a.mp4", "--stdin", "mjpeg"), "no VIDEO is -"),
        (("a.mp4", "--jsonl", "--json"), "give one of them"),
        (("--demo", "--jsonl"), "--demo cannot be combined with"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["run", *arguments])
        assert ended.value.code == 2
        printed = capsys.readouterr()
        assert says in printed.out + printed.err
        assert (printed.out + printed.err).count("\n") == 1


@pytest.mark.skipif(os.name != "posix", reason="needs a pipe of a known size")
def test_a_listener_that_goes_away_costs_nothing_that_was_answered(
    exam: Path, model: Path, tmp_path: Path
) -> None:
    """90 lines do not fit into a pipe of one page, so the run is still writing when its listener goes."""
    import fcntl

    out = tmp_path / "out"
    ours, theirs = os.pipe()
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
    process = subprocess.Popen(
        command(exam, "--model", model, "--out", out, "--jsonl"), stdout=theirs, stderr=subprocess.PIPE
    )
    os.close(theirs)
    with os.fdopen(ours, "rb") as lines_:
        assert b'"frame"' in [lines_.readline(), lines_.readline()][1]
    assert process.stderr is not None
    err = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(60) == 1
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        assert err == "error: nobody reads the lines any more (the same command with --resume goes on)\n"
        assert [path.name for path in out.iterdir()] == [JOURNAL]
    code, lines = run(exam, "--model", model, "--out", out, "--resume")
    assert (code, len(of(lines, "frame"))) == (0, FRAMES)


@pytest.mark.skipif(os.name != "posix", reason="needs a signal")
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_pipe_is_interrupted(number: signal.Signals, exit_code: int, model: Path) -> None:
    process = subprocess.Popen(
        command("-", "--stdin", RAW, "--model", model, "--jsonl"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(raw(40))
    process.stdin.flush()
    for _ in range(10):
        process.stdout.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (exit_code, b"")
    last = json.loads(out.splitlines()[-1])
    assert (last["error"]["code"], last["exit_code"]) == ("interrupted", exit_code)


def test_frames_are_answered_as_they_come(model: Path) -> None:
    """After the first 32 frames, in which the field of view is found, each is answered before the next is sent."""
    process = subprocess.Popen(
        command("-", "--stdin", RAW, "--model", model, "--jsonl"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(raw(32))
    process.stdin.flush()
    indices = [json.loads(process.stdout.readline()).get("index") for _ in range(33)]
    assert indices == [None, *range(32)]
    for index in (32, 33):
        process.stdin.write(view(False, index).tobytes())
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["index"] == index
    process.stdin.close()
    assert [line["type"] for line in lines_of(process.stdout.read())][-1] == "end"
    process.stdout.close()
    assert process.wait(60) == 0


# What splits a pipe.


class Dripping(io.BytesIO):
    """Return at most seven bytes at a time, as a pipe may."""

    def read1(self, size: int | None = -1, /) -> bytes:
        return super().read1(7)

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(7, size) if size and size > 0 else 7)


def with_thumbnail(picture: bytes) -> bytes:
    """Put a complete picture into the header of another, as cameras do."""
    inner = picture[:60000]
    return picture[:2] + b"\xff\xe1" + (len(inner) + 2).to_bytes(2, "big") + inner + picture[2:]


@pytest.mark.quick
def test_pictures_are_split_by_their_markers_however_they_come() -> None:
    pictures = jpegs(4)
    pictures[1] = with_thumbnail(pictures[1])
    pictures[2] = pictures[2][:-2] + b"\xff\xff\xff\xd9"  # fill before a marker
    for file in (io.BytesIO(b"".join(pictures)), Dripping(b"".join(pictures))):
        assert list(split_pictures(file)) == [(picture, True) for picture in pictures]


def test_every_byte_of_a_pipe_is_accounted_for() -> None:
    pictures = jpegs(6)
    rng = np.random.default_rng(0)
    for _ in range(200):
        data = bytearray(b"".join(pictures))
        start = len(pictures[0])
        for place in rng.integers(start, len(data), 3):
            data[place] = rng.integers(256)
        end = int(rng.integers(start, len(data) + 1))
        found = list(split_pictures(io.BytesIO(bytes(data[:end]))))
        assert b"".join(part for part, _ in found) == data[:end]
        assert found[0] == (pictures[0], True)
        assert all(part for part, _ in found)


def test_a_damaged_pipe_gives_a_frame_or_none_for_each_and_never_fails() -> None:
    pictures = jpegs(6)
    rng = np.random.default_rng(1)
    for _ in range(60):
        data = bytearray(b"".join(pictures))
        for place in rng.integers(len(pictures[0]), len(data), 5):
            data[place] ^= 1 << rng.integers(8)
        frames = list(Mjpeg().read(io.BytesIO(bytes(data))))
        assert frames[0] is not None
        assert {frame.shape for frame in frames if frame is not None} == {(HEIGHT, WIDTH, 3)}


@pytest.mark.quick
def test_raw_frames_come_whole_however_they_arrive() -> None:
    feed = parse_feed(RAW)
    assert isinstance(feed, Raw)
    frames = list(feed.read(Dripping(raw(3))))
    for index, frame in enumerate(frames):
        np.testing.assert_array_equal(frame, view(False, index))
    assert not feed.truncated


@pytest.mark.quick
def test_feeds_refuse_what_they_cannot_read() -> None:
    with pytest.raises(UsageError, match="raw:WIDTHxHEIGHT"):
        parse_feed("raw:336")
    with pytest.raises(InputError, match="a JPEG picture begins with ff d8"):
        list(Mjpeg().read(io.BytesIO(b"\xff")))
