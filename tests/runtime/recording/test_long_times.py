"""Times beyond 49.7 days (2^32 ms) hold from the container to the result files, the lines and the report."""

from __future__ import annotations

import base64
import csv
import json
import re
from array import array
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from cli_calls import check_files
from red_model import write_red_model
from study_samples import make_study

from capsule_edge.runtime.errors import UsageError
from capsule_edge.runtime.events import check_landmarks
from capsule_edge.runtime.recording import scan
from capsule_edge.runtime.recording.packets import list_times
from capsule_edge.runtime.recording.timecode import clock, parse_clock, plain_seconds
from capsule_edge.runtime.report import render_report

DAY_MS = 86_400_000
# Twenty frames each at 0, 20, ... 400 days: no step between two frames is longer than an MP4 can say.
STAMPS_MS = [day * DAY_MS + 500 * i for day in range(0, 401, 20) for i in range(20)]
# The frames at 60 days are red.
RED = range(60, 80)


def write_stamped(
    path: Path, stamps_ms: Sequence[int], *, red: range = range(0), codec: str = "mjpeg", **options: str
) -> Path:
    """Write frames at these times, milliseconds; each is a picture by itself."""
    with av.open(str(path), "w", options=options) as out:
        stream = out.add_stream(codec, rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        packets = []
        for colour in ((90, 90, 90), (200, 20, 20)):
            picture = np.full((64, 64, 3), colour, np.uint8)
            encoder = av.CodecContext.create(codec, "w")
            encoder.width = encoder.height = 64
            encoder.pix_fmt, encoder.time_base = stream.pix_fmt, Fraction(1, 25)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=stream.pix_fmt)
            packets.append(b"".join(map(bytes, [*encoder.encode(frame), *encoder.encode(None)])))
        for index, stamp in enumerate(stamps_ms):
            packet = av.Packet(packets[index in red])
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 1000), True
            packet.pts = packet.dts = stamp
            out.mux(packet)
    return path


@pytest.mark.quick
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("far.mkv", {}),
        ("far.mov", {"video_track_timescale": "1000"}),
        (
            "fragments.mov",
            {"video_track_timescale": "1000", "movflags": "frag_keyframe+empty_moov"},
        ),
    ],
)
def test_a_container_keeps_times_of_more_than_a_year(
    name: str, options: dict[str, str], tmp_path: Path
) -> None:
    container = scan(write_stamped(tmp_path / name, STAMPS_MS, **options))
    assert list(container.times_s) == [stamp / 1000 for stamp in STAMPS_MS]
    assert container.duration_s == (STAMPS_MS[-1] + 500) / 1000
    assert (container.frame_distance_s, container.time_kind) == (0.5, "capture")


@pytest.mark.parametrize(("name", "codec"), [("wrap.flv", "flv"), ("wrap.asf", "mjpeg")])
def test_stamps_of_32_bits_that_start_anew_go_on(name: str, codec: str, tmp_path: Path) -> None:
    """FLV and ASF count milliseconds in 32 bits: after 49.7 days they begin at 0 again."""
    hourly = [3_600_000 * hour for hour in range(24 * 110)]
    container = scan(write_stamped(tmp_path / name, hourly, codec=codec))
    assert list(container.times_s) == [stamp / 1000 for stamp in hourly]


@pytest.mark.quick
@pytest.mark.filterwarnings("error")
def test_every_result_has_the_times(call: Any, tmp_path: Path) -> None:
    recording = write_stamped(tmp_path / "far.mkv", STAMPS_MS, red=RED)
    model = write_red_model(tmp_path / "red.onnx")
    called = call("run", recording, "--model", model, "--out", "out", "--landmark", "small-bowel=1440:00:02")
    assert (called.code, called.err) == (0, "")
    assert "1440:00:00" in called.out
    study = check_files(Path("out"))
    (event,) = study["events"]
    assert (event["start_s"], event["end_s"]) == (60 * 86_400, 60 * 86_400 + 10)
    assert study["source"]["duration_s"] == (STAMPS_MS[-1] + 500) / 1000
    assert study["landmarks"]["marks"][0]["time_s"] == 60 * 86_400 + 2
    with Path("out/frames.csv").open(newline="") as file:
        times = [row["time_s"] for row in csv.DictReader(file)]
    assert times == [f"{stamp / 1000:.6f}" for stamp in STAMPS_MS]
    assert report_times(Path("out/report.html").read_text("utf-8")) == STAMPS_MS
    lines = [
        json.loads(line) for line in call("run", recording, "--model", model, "--jsonl").out.splitlines()
    ]
    assert [line["time_s"] for line in lines if line["type"] == "frame"] == [
        each / 1000 for each in STAMPS_MS
    ]
    part = ("--start", "1440:00:05", "--end", "1440:00:10")
    assert call("run", recording, "--model", model, "--out", "part", *part).code == 0
    assert check_files(Path("part"))["ledger"]["classified"] == 10
    refused = call("run", recording, "--model", model, "--out", "no", "--start", "9999:00:00")
    assert "no frame lies from 35996400 s to the end" in refused.err
    assert "frames from 0 to 34560009.5 s" in refused.err


@pytest.mark.quick
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("last_ms", [(1 << 32) - 1, 1 << 32])
def test_the_report_takes_more_bytes_for_times_only_where_it_must(last_ms: int) -> None:
    study = make_study(3, [], step_s=last_ms / 2000)
    page = render_report(study, tool_version="0")
    assert ('data-wide="1"' in page) == (last_ms >> 32 > 0)
    assert report_times(page) == [0, round(last_ms / 2), last_ms]


@pytest.mark.quick
def test_long_times_as_text() -> None:
    assert (clock(5184009.5), clock(5184009.5, tenths=True)) == ("1440:00:09", "1440:00:09.5")
    assert parse_clock("1440:00:09.5", name="time") == 5184009.5
    assert [plain_seconds(each) for each in (0, 0.5, 100, 5184009.5, 1e-6, 34560009.123456)] == [
        *("0", "0.5", "100", "5184009.5", "0.000001", "34560009.123456")
    ]
    with pytest.raises(UsageError, match="allowed is HH:MM:SS"):
        parse_clock("9" * 400 + ":00:00", name="time")
    with pytest.raises(UsageError, match=r"is at 5184009\.5 s, allowed is 0 to 5184000 s"):
        check_landmarks({"colon": 5184009.5}, last_s=5184000.0)


@pytest.mark.quick
def test_ticks_too_far_apart_for_64_bits_keep_their_order() -> None:
    times_s, median = list_times(array("q", [-(1 << 62) - 500, -(1 << 62), 1 << 62]), Fraction(1, 1000))
    assert list(times_s) == [0.0, 0.5, ((1 << 63) + 500) / 1000]
    assert median == 500


def report_times(page: str) -> list[int]:
    """Return the milliseconds that the script of a report reads."""
    found = re.search(r'data-times="([^"]*)"( data-wide="1")?', page)
    assert found is not None
    values = np.frombuffer(base64.b64decode(found[1]), "<f8" if found[2] else "<u4")
    return [int(value) for value in values]
