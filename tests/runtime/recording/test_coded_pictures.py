"""A packet is not a picture: fields, hidden pictures, headers and placeholders are no frames of a recording."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import damage
import field_coded
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_decoder import ffmpeg, read_whole

from capsule_edge.runtime.recording import decode, fetch, scan
from capsule_edge.runtime.recording.coded_pictures import PacketRole, role_reader
from capsule_edge.runtime.recording.h264_headers import H264Fields
from capsule_edge.runtime.recording.packets import PacketInfo, PacketTable

SHOWS, HIDDEN, HEADERS = PacketRole.SHOWS, PacketRole.HIDDEN, PacketRole.HEADERS


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function from a suffix to a recording of 12 pictures, a field a packet, each 3 levels brighter."""
    folder = tmp_path_factory.mktemp("fields")
    whole = field_coded.write_packets(folder / "fields.ts", field_coded.field_packets(12), keys={0, 10, 20})

    def make(suffix: str) -> Path:
        path = folder / f"fields.{suffix}"
        return path if path.exists() else damage.remux(whole, path)

    return make


@pytest.mark.quick
@pytest.mark.parametrize("suffix", ["ts", "mkv", "mp4", "mov", "avi", "mpg"])
def test_two_fields_are_one_picture(fields, suffix: str) -> None:
    container, frames = read_whole(fields(suffix))
    assert (container.present, container.missing) == (12, 0)
    means = [float(frame.rgb().mean()) for frame in frames]
    assert np.diff(means).min() > 2
    # The picture of both fields is the one that is fetched, too.
    again = {frame.index: frame.rgb() for frame in fetch(container, [3, 7])}
    for index, image in again.items():
        np.testing.assert_array_equal(image, frames[index].rgb())


@pytest.mark.parametrize("suffix", ["ts", "mkv"])
def test_damage_in_a_second_field_is_damage_of_its_picture(fields, tmp_path: Path, suffix: str) -> None:
    container = scan(fields(suffix))
    packets = field_coded.field_packets(12)
    # The second field of picture 6 ends early.
    packets[13] = packets[13][: len(packets[13]) // 2]
    path = field_coded.write_packets(tmp_path / f"spoilt.{suffix}", packets, keys={0, 10, 20})
    found = list(decode(scan(path)))
    assert len(found) == container.present
    assert found[6].detail == "damaged"
    assert {frame.detail for frame in found[7:10]} <= {"damaged", "depends_on_damaged"}
    assert [frame.detail for frame in found[:6] + found[10:]] == [""] * 8


@settings(max_examples=40, deadline=None)
@given(lost=st.sets(st.integers(1, 23), max_size=4))
def test_every_field_is_accounted_for(lost: set[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    packets = [data for index, data in enumerate(field_coded.field_packets(12)) if index not in lost]
    path = tmp_path_factory.mktemp("lost") / "lost.mkv"
    container = scan(field_coded.write_packets(path, packets, keys={0}))
    frames = list(decode(container))
    assert [frame.index for frame in frames] == list(range(container.frames))
    # A picture is there when one of its fields is; at worst two that are left pair up wrongly.
    there = sum(not {2 * place, 2 * place + 1} <= lost for place in range(12))
    assert there - len(lost) <= container.frames <= there
    if not lost:
        assert [frame.detail for frame in frames] == [""] * 12


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libvpx", ["-lag-in-frames", 25, "-auto-alt-ref", 1, "-arnr-maxframes", 7]),
        ("libvpx-vp9", ["-lag-in-frames", 25, "-auto-alt-ref", 1, "-bsf:v", "vp9_superframe_split"]),
        ("libvpx-vp9", ["-lag-in-frames", 25, "-auto-alt-ref", 1]),
        ("libaom-av1", ["-cpu-used", 8, "-lag-in-frames", 19, "-bsf:v", "av1_frame_split"]),
        ("libaom-av1", ["-cpu-used", 8, "-lag-in-frames", 19]),
    ],
)
@pytest.mark.parametrize("suffix", ["webm", "mkv"])
def test_pictures_that_are_never_shown_are_no_frames(
    tmp_path: Path, codec: str, options: list[object], suffix: str
) -> None:
    path = tmp_path / f"hidden.{suffix}"
    source = ["-f", "lavfi", "-i", "testsrc2=size=176x144:rate=25:duration=2"]
    ffmpeg(*source, "-c:v", codec, "-b:v", "200k", *options, path)
    container, _ = read_whole(path)
    assert (container.frames, container.times) == (50, "container")


def test_hidden_pictures_of_vp8_are_told_by_their_header(tmp_path: Path) -> None:
    path = tmp_path / "vp8.webm"
    source = [
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=176x144:rate=25:duration=3",
        "-c:v",
        "libvpx",
        "-b:v",
        "200k",
    ]
    source += ["-g", 60, "-lag-in-frames", 25, "-auto-alt-ref", 1, "-arnr-maxframes", 7]
    log = ["-passlogfile", tmp_path / "log"]
    ffmpeg(*source, *log, "-pass", 1, "-f", "null", "-")
    ffmpeg(*source, *log, "-pass", 2, path)
    container, _ = read_whole(path)
    assert container.frames == 75
    assert container.packets.without_picture >= 1
    # A hidden picture that is damaged reaches the frames behind it.
    hidden = int(np.flatnonzero(container.packets.roles == HIDDEN)[0])
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as file:
        packet = bytes([*file.demux(video=0)][hidden])
    at = data.index(packet)
    del packet
    data[at + 10 : at + 30] = bytes(20)
    spoilt = tmp_path / "spoilt.webm"
    spoilt.write_bytes(data)
    assert scan(spoilt).frames == 75


def test_the_headers_of_chained_ogg_are_no_frames(tmp_path: Path) -> None:
    parts = []
    for quality in (6, 6, 3):
        path = tmp_path / f"{len(parts)}.ogg"
        source = ["-f", "lavfi", "-i", "testsrc2=size=176x144:rate=25:duration=1"]
        ffmpeg(*source, "-c:v", "libtheora", "-q:v", quality, path)
        parts.append(path.read_bytes())
    path = tmp_path / "chained.ogg"
    path.write_bytes(b"".join(parts))
    container, _ = read_whole(path)
    assert container.frames == 75
    assert [warning.code for warning in container.warnings] == ["clock_restarts"]


def pack(path: Path, source: Path) -> Path:
    """Write MPEG-4 with B-pictures as a packed AVI: each P-picture with the first B-picture behind it."""
    with av.open(str(source)) as read:
        stream = read.streams.video[0]
        bits = (stream.codec_context.framerate.numerator - 1).bit_length()
        packets = [bytes(packet) for packet in read.demux(stream) if packet.size]
        with av.open(str(path), "w") as out:
            copy = out.add_stream_from_template(stream)
            for index, data in enumerate(packed(packets, bits)):
                packet = av.Packet(data)
                packet.stream, packet.time_base = copy, Fraction(1, 25)
                packet.pts = packet.dts = index
                packet.is_keyframe = index == 0
                out.mux(packet)
    return path


def packed(packets: list[bytes], time_bits: int) -> list[bytes]:
    """Return the packets with each anchor and the B-picture behind it in one, and a placeholder for the second."""
    placeholder = f"01{'0'}1{'0' * time_bits}10"
    placeholder += "0" + "1" * (-(len(placeholder) + 1) % 8)
    empty = b"\0\0\1\xb6" + int(placeholder, 2).to_bytes(len(placeholder) // 8)
    # The encoder's mark of such a stream, without which FFmpeg's decoder drops the second picture of a packet.
    packets = [packets[0].replace(b"\0\0\1\xb6", b"\0\0\1\xb2DivX503b1393p\0\0\1\xb6", 1), *packets[1:]]
    kinds = [data[data.index(b"\0\0\1\xb6") + 4] >> 6 for data in packets]
    found, at = [], 0
    while at < len(packets):
        if kinds[at] != 2 and at + 1 < len(packets) and kinds[at + 1] == 2:
            found.append(packets[at] + packets[at + 1])
            at += 2
            while at < len(packets) and kinds[at] == 2:
                found.append(packets[at])
                at += 1
            found.append(empty)
        else:
            found.append(packets[at])
            at += 1
    return found


@pytest.mark.parametrize("b_pictures", [1, 2])
def test_a_packed_stream_is_shown_in_the_order_of_its_decoder(tmp_path: Path, b_pictures: int) -> None:
    source = damage.encode(tmp_path / "m.mp4", "mpeg4", frames=40, gop=40, options={"bf": str(b_pictures)})
    path = pack(tmp_path / "packed.avi", source)
    container, frames = read_whole(path)
    assert (container.frames, container.times) == (40, "inferred")
    assert [warning.code for warning in container.warnings] == ["times_inferred"]
    assert (np.diff([frame.rgb().mean() for frame in frames]) > 0).all()


@pytest.mark.quick
@pytest.mark.parametrize(
    ("codec", "packet", "role"),
    [
        ("vp8", b"\x10\0\0", SHOWS),
        ("vp8", b"\x00\0\0", HIDDEN),
        ("vp9", b"\x82\x49", SHOWS),
        ("vp9", b"\x80\x49", HIDDEN),
        ("vp9", b"\x88", SHOWS),  # shows an existing picture
        ("vp9", b"\x80\0\x82\0\xc1\x02\x02\xc1", SHOWS),  # a superframe of a hidden picture and a shown one
        ("vp9", b"\x80\0\x80\0\xc1\x02\x02\xc1", HIDDEN),
        ("av1", b"\x12\0\x32\x02\x10\0", SHOWS),
        ("av1", b"\x12\0\x32\x02\x00\0", HIDDEN),
        ("av1", b"\x12\0\x1a\x01\x90", SHOWS),
        ("av1", b"\x12\0\x0a\x02\0\0", HIDDEN),  # a sequence header alone
        ("theora", b"\x80theora", HEADERS),
        ("theora", b"\x30", SHOWS),
        ("mpeg2video", b"\0\0\1\xb3\0\0\1\xb5", HEADERS),
        ("mpeg2video", b"\0\0\1\xb3\0\0\1\0\0", SHOWS),
        ("mpeg4", b"\0\0\1\xb0\x01\0\0\1\x20\0", HEADERS),
        ("mpeg4", b"\0\0\1\xb2\x01\0", SHOWS),  # a picture with one flipped bit
        ("mpeg4", b"\0\0\1\xb7\x01\0", SHOWS),
        ("mpeg4", b"\x7f", SHOWS),
        ("h264", b"\0\0\0\1\x67\x42\0\x0a\0\0\1\x68\xce", HEADERS),
        ("h264", b"\0\0\0\1\x67\x42\0\x0a\0\0\1\x65\x88", SHOWS),
        ("h264", b"\0\0\0\1\x09\xf0\0\0\1\x06\1\0", HEADERS),
        ("h264", b"\0\0\0\1\x67\x88\x84\x33", SHOWS),  # slices with one flipped bit
        ("h264", b"\0\0\0\1\x49\x88\x84\x33", SHOWS),
        ("hevc", b"\0\0\0\1\x40\x01\x0c\0\0\1\x42\x01", HEADERS),
        ("hevc", b"\0\0\0\1\x26\x01\xaf", SHOWS),
        ("hevc", b"\0\0\0\1\x42\x01\xaf", SHOWS),
    ],
)
def test_the_role_of_a_packet_is_read_from_its_bytes(codec: str, packet: bytes, role: PacketRole) -> None:
    read = role_reader(codec, b"")
    assert read is not None
    assert read(memoryview(packet)) is role


@pytest.mark.quick
@pytest.mark.parametrize("length_bytes", [1, 2, 4])
@pytest.mark.parametrize(
    ("codec", "record", "units"),
    [
        ("h264", b"\1" + bytes(3) + b"\xfc\xe0\0", [b"\x67\x42\0\x0a", b"\x68\xce"]),
        ("hevc", b"\1" + bytes(20) + b"\xfc\0", [b"\x40\x01\x0c", b"\x42\x01\x01"]),
    ],
    ids=["h264", "hevc"],
)
def test_units_are_parted_by_lengths_as_the_record_says(
    codec: str, record: bytes, units: list[bytes], length_bytes: int
) -> None:
    """MP4 stores the size of a length, less one, in the last bits of the byte 0xFC (ISO/IEC 14496-15)."""
    read = role_reader(codec, record.replace(b"\xfc", bytes([0xFC | length_bytes - 1])))
    assert read is not None
    packet = b"".join(len(unit).to_bytes(length_bytes) + unit for unit in units)
    assert read(memoryview(packet)) is HEADERS


@pytest.mark.quick
@settings(max_examples=200, deadline=None)
@given(
    codec=st.sampled_from(["h264", "hevc", "mpeg4", "vp8", "vp9", "av1", "theora", "mpeg2video"]),
    data=st.data(),
)
def test_damaged_headers_are_no_fault_of_the_reader(codec: str, data: st.DataObject) -> None:
    read = role_reader(codec, data.draw(st.binary(max_size=60)))
    assert read is not None
    for packet in data.draw(st.lists(st.binary(min_size=1, max_size=60), max_size=5)):
        assert read(memoryview(packet)) in PacketRole


@pytest.mark.quick
def test_a_picture_with_a_time_of_its_own_is_not_hidden() -> None:
    rows = [
        (0, SHOWS),
        (40, HIDDEN),
        (40, SHOWS),
        (80, HIDDEN),
        (120, SHOWS),
        (159, HIDDEN),
        (160, SHOWS),
        (200, HIDDEN),
    ]
    table = PacketTable.of(PacketInfo(at, at, 9, False, False, False, role) for at, role in rows)
    confirmed = table.confirm_hidden().roles == HIDDEN
    assert confirmed.tolist() == [False, True, False, False, False, True, False, False]


@pytest.mark.quick
def test_a_stream_may_hide_most_of_its_pictures(tmp_path: Path) -> None:
    """Two hidden pictures stand before each shown one, so that most packets have the time of the packet before."""
    source = damage.encode(tmp_path / "keys.webm", "libvpx", frames=10, gop=1)
    path = tmp_path / "hidden.webm"
    with av.open(str(source)) as read_from, av.open(str(path), "w") as out:
        stream = read_from.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in read_from.demux(stream):
            data = bytes(packet)
            # The bit of a VP8 picture that shows it (RFC 6386, 9.1).
            hidden = bytes([data[0] & ~16]) + data[1:] if data else b""
            for each in (hidden, hidden, data) if data else ():
                written = av.Packet(each)
                written.stream, written.time_base, written.is_keyframe = copy, packet.time_base, True
                written.pts, written.dts = packet.pts, packet.pts
                out.mux(written)
    container, frames = read_whole(path)
    assert (container.frames, container.packets.without_picture) == (10, 20)
    assert [frame.detail for frame in frames] == [""] * 10


@pytest.mark.quick
def test_fields_pair_by_parity_and_frame_number() -> None:
    reader = H264Fields(field_coded.headers())

    def completes(number: int, *, bottom: bool, idr: bool = False) -> bool:
        data = field_coded.field(number, bottom=bottom, level=50, idr=idr)
        return reader.completes_picture(memoryview(data))

    assert not reader.frames_only
    assert not completes(0, bottom=False, idr=True)
    assert completes(0, bottom=True)
    assert not completes(1, bottom=True)  # a bottom field may come first
    assert completes(1, bottom=False)
    assert not completes(2, bottom=False)
    assert not completes(2, bottom=False)  # twice the same parity: the first field stays alone
    assert completes(2, bottom=True)
    assert not completes(3, bottom=False)
    assert not completes(4, bottom=True)  # another frame number
    assert not completes(4, bottom=False, idr=True)  # a reset begins a picture
    assert H264Fields(field_coded.headers(frames_only=True)).frames_only
