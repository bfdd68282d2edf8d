"""The sample tables of an MP4 give the same packets as demuxing the file; else the tables are not used."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import damage
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.recording import decode, packets, scan, scanned_stream
from capsule_edge.runtime.recording.coded_pictures import PacketRole
from capsule_edge.runtime.recording.ffmpeg import open_recording, picture_packets
from capsule_edge.runtime.recording.mp4_tables import read_tables
from capsule_edge.runtime.recording.packets import NO_STAMP, REORDER, PacketInfo, PacketTable, present

DATA = Path(os.environ.get("CAPSULE_EDGE_DATA") or "/nowhere") / "recordings"
PLAIN: dict[str, dict[str, Any]] = {
    "h264.mp4": {"options": {"bf": "3"}},
    "no_reordering.mp4": {"options": {"bf": "0"}},
    "front.mp4": {"options": {"bf": "3"}, "muxer": {"movflags": "faststart"}},
    "open_gop.mp4": {"options": {"bf": "3", "x264-params": "open-gop=1"}},
    "interlaced.mp4": {"options": {"bf": "2", "x264-params": "interlaced=1:tff=1"}},
    "hevc.mov": {"codec": "libx265", "options": {"x265-params": "log-level=none:pools=none"}},
    "uneven.mp4": {"options": {"bf": "2"}, "shown_at": [i + i * i // 9 for i in range(60)]},
}
OTHERS: dict[str, dict[str, Any]] = {
    "fragmented.mp4": {"muxer": {"movflags": "frag_keyframe+empty_moov"}},
    "late.mp4": {"shown_at": [40 + i for i in range(60)]},  # has an empty edit in front
    "mpeg4.mp4": {"codec": "mpeg4"},
    "mjpeg.mov": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "negative.mp4": {"options": {"bf": "3"}, "muxer": {"movflags": "negative_cts_offsets"}},
}


def read_from_tables(path: Path) -> PacketTable | None:
    with open_recording(path) as (_, stream):
        return read_tables(path, stream, path.stat().st_size)


def demux(path: Path) -> list[PacketInfo]:
    with open_recording(path) as (source, stream):
        return [
            PacketInfo(each.pts, each.dts, each.size, each.is_keyframe, each.is_corrupt, each.is_discard)
            for each in picture_packets(source, stream)
        ]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("made")

    def make(kind: str) -> Path:
        path = folder / kind
        if not path.exists():
            damage.encode(path, **(PLAIN | OTHERS)[kind])
        return path

    return make


@pytest.mark.parametrize("kind", PLAIN)
def test_plain_tables_give_the_packets_of_the_demuxer(kind: str, made) -> None:
    found = read_from_tables(made(kind))
    assert found is not None
    assert list(found) == demux(made(kind))


@pytest.mark.parametrize("kind", OTHERS)
def test_tables_that_are_not_plain_are_not_used(kind: str, made) -> None:
    found = read_from_tables(made(kind))
    assert found is None or list(found) == demux(made(kind))
    assert found is None or kind == "negative.mp4"


@pytest.mark.parametrize("name", ["64440803f87b4843", "5e59c7fdb16c4228", "bca26705313a4644"])
def test_the_tables_of_real_recordings_give_the_packets_of_the_demuxer(name: str) -> None:
    path = DATA / f"{name}.mp4"
    if not path.exists():
        pytest.skip("CAPSULE_EDGE_DATA does not name the shared data")
    found = read_from_tables(path)
    assert found is not None
    assert list(found) == demux(path)


def index_span(data: bytes) -> tuple[int, int]:
    """Return the offset and the length of the ``moov`` box in bytes."""
    at = 0
    while data[at + 4 : at + 8] != b"moov":
        at += int.from_bytes(data[at : at + 4])
    return at, int.from_bytes(data[at : at + 4])


@pytest.mark.parametrize("length", [0, 7, 1 << 20])
def test_a_box_with_an_impossible_length_is_left_to_the_demuxer(made, tmp_path: Path, length: int) -> None:
    """A length of 0 must not be read over and over."""
    sound = made("h264.mp4")
    spoilt = bytearray(sound.read_bytes())
    # FFmpeg writes a box of user data last in the index; nothing of the packets is in it.
    at = spoilt.rindex(b"udta") - 4
    spoilt[at : at + 4] = length.to_bytes(4)
    path = tmp_path / "spoilt.mp4"
    path.write_bytes(spoilt)
    with open_recording(sound) as (_, stream):
        assert read_tables(path, stream, path.stat().st_size) is None
    assert [frame.status for frame in decode(scan(path))] == ["ok"] * 60


def test_an_index_that_reaches_to_the_end_of_the_file_is_read(made, tmp_path: Path) -> None:
    """ISO/IEC 14496-12, 4.2: the last box of a file may state the length 0."""
    data = bytearray(made("h264.mp4").read_bytes())
    at, length = index_span(bytes(data))
    assert at + length == len(data)
    data[at : at + 4] = bytes(4)
    path = tmp_path / "open.mp4"
    path.write_bytes(data)
    found = read_from_tables(path)
    assert found is not None
    assert list(found) == demux(path)


@pytest.mark.parametrize(("field", "value"), [(0, 2), (1, 10), (1, 0), (2, 0), (3, 0x20000)])
def test_an_edit_list_that_leaves_out_frames_is_left_to_the_demuxer(
    made, tmp_path: Path, field: int, value: int
) -> None:
    """The fields are the number of edits, then the duration, start and rate of the first one."""
    spoilt = bytearray(made("h264.mp4").read_bytes())
    at = spoilt.index(b"elst") + 8 + 4 * field
    assert spoilt[at : at + 4] != value.to_bytes(4)
    spoilt[at : at + 4] = value.to_bytes(4)
    path = tmp_path / "spoilt.mp4"
    path.write_bytes(spoilt)
    with open_recording(made("h264.mp4")) as (_, stream):
        assert read_tables(path, stream, path.stat().st_size) is None


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.data())
def test_a_damaged_index_is_read_alike_from_tables_and_by_demuxing(
    made, tmp_path: Path, data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(sorted(PLAIN)))
    spoilt = bytearray(made(kind).read_bytes())
    at, length = index_span(bytes(spoilt))
    for _ in range(data.draw(st.integers(1, 3))):
        place = at + data.draw(st.integers(8, length - 1))
        if data.draw(st.booleans()):
            spoilt[place] ^= 1 << data.draw(st.integers(0, 7))
        else:
            spoilt[place] = data.draw(st.integers(0, 255))
    path = tmp_path / kind
    path.write_bytes(spoilt)
    found: list[Any] = []
    sound: list[set[int]] = []
    for read in (read_tables, lambda *_: None):
        with mock.patch.object(scanned_stream, "read_tables", side_effect=read):
            try:
                one = scan(path)
                sound.append({frame.index for frame in decode(one) if frame.status == "ok"})
            except InputError as error:
                found.append(str(error))
                continue
        values = {name: getattr(one, name) for name in one.__dataclass_fields__ if name != "packets"}
        # When demuxing, FFmpeg also looks into the packets for key frames. The decoder must confirm them in any case.
        found.append((values, [replace(packet, key=False) for packet in one.packets]))
    assert found[0] == found[1]
    assert not sound or sound[0] <= sound[1]


@pytest.mark.quick
def test_sorting_plain_time_stamps_gives_the_order_of_the_queue() -> None:
    draw = np.random.default_rng(3)
    sorted_alone = 0
    for width in (1, 3, 8, 15, 16, 40):
        for _ in range(20):
            pts = (np.arange(150) * 10 + draw.integers(0, 10 * width, 150)) // 7
            out = draw.random(150) < 0.1
            rows = [
                PacketInfo(int(at), place, 1, True, False, bool(gone))
                for place, (at, gone) in enumerate(zip(pts, out, strict=True))
            ]
            table = PacketTable.of(rows)
            found = present(table, None)
            with mock.patch.object(packets, "_present_plainly", return_value=None) as skipped:
                assert present(table, None) == found
            skipped.assert_called_once()
            moved = np.abs(np.argsort(pts, kind="stable") - np.arange(150)).max()
            sorted_alone += moved < REORDER // 2
    assert sorted_alone > 40


@pytest.mark.quick
def test_a_packet_table_returns_its_packets() -> None:
    rows = [
        PacketInfo(None, None, 1, True, False, False),
        PacketInfo(5, None, 2, False, True, False),
        PacketInfo(-3, -7, 1 << 40, False, False, True),
        PacketInfo(4, 4, 1, False, False, True, PacketRole.HEADERS),
    ]
    table = PacketTable.of(rows)
    assert list(table) == rows
    assert table[-1] == rows[-1]
    assert table[:2] == rows[:2]
    assert table.pts[0] == NO_STAMP
    assert len(PacketTable.of([])) == 0
    with pytest.raises(IndexError):
        table[4]
