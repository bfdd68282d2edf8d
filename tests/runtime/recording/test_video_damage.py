"""Damaged and truncated recordings: damage is found, found again in every run, and never hidden."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path

import av
import av.logging
import damage
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live_servers import Clock, live, server
from video_samples import KINDS, damaged_packets, details, expected_details, read, recording

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.recording import Container, Frame, decode, decoder, ffmpeg, gop, scan
from capsule_edge.runtime.recording.decoder import decode_closed_gops
from capsule_edge.runtime.recording.packets import PacketTable
from capsule_edge.runtime.recording.truncation import avi_is_cut, matroska_is_cut, read_boxes


def test_bit_flips_in_a_real_recording_are_found_in_every_run(tmp_path: Path) -> None:
    source = recording("bca26705313a4644")
    picks = np.random.default_rng(20).choice(scan(source).present, 200, replace=False).tolist()
    container, frames = read(damage.flip(source, tmp_path / "flipped.mp4", picks, seed=21))
    damaged = damaged_packets(container, frames)
    # 7 % of single flips decode to another valid image, which no decoder can notice.
    assert len(damaged) > 150
    assert damaged <= set(picks)
    assert details(frames) == expected_details(container, damaged)
    # Two readers at once report the same frames as corrupt as one reader alone.
    with ThreadPoolExecutor(2) as pool:
        for other in pool.map(lambda _: details(list(decode(container))), range(2)):
            assert other == details(frames)


def reported_damage(path: Path) -> tuple[set[int], set[int]]:
    """Decode a file with FFmpeg alone; return the packets it logs an error for, and those it reports otherwise.

    Otherwise: FFmpeg refuses the packet, marks its image as corrupt, or returns no image for it.
    """
    logged, reported = set(), set()
    with ffmpeg.open_recording(path) as (source, stream):
        codec = ffmpeg.open_decoder(path, stream)
        packets = list(ffmpeg.picture_packets(source, stream))
        packet_at = {packet.pts: index for index, packet in enumerate(packets)}
        absent = set(packet_at.values())
        for index, packet in enumerate([*packets, None]):
            with av.logging.Capture() as lines:
                try:
                    images = codec.decode(packet)
                except av.error.FFmpegError:
                    images = []
                    reported.add(index)
            if any(level <= av.logging.ERROR for level, *_ in lines):
                logged.add(index)
            absent -= {packet_at[image.pts] for image in images}
            reported |= {packet_at[image.pts] for image in images if image.is_corrupt}
    return logged, reported | absent


def damaged_in_the_log_alone(kind: str, folder: Path) -> Iterator[tuple[Path, set[int], set[int]]]:
    """Yield damaged files with packets that only FFmpeg's log reports, and what ``reported_damage`` returns.

    One bit is flipped in the header of a slice. FFmpeg may leave out such a slice without a mark or an error.
    """
    options = {"bf": "3"} | ({"x264-params": "slices=3"} if kind == "slices.mp4" else {})
    source = damage.encode(folder / kind, options=options)
    assert reported_damage(source) == (set(), set())
    spans, whole = damage.packet_spans(source), source.read_bytes()
    rng = np.random.default_rng(4)
    path = folder / f"flipped_{kind}"
    for packet in rng.integers(1, 59, 60).tolist():
        data = bytearray(whole)
        # Behind a length of four bytes; the header of a slice takes some ten.
        data[spans[packet][0] + 4 + int(rng.integers(12))] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        logged, reported = reported_damage(path)
        if logged - reported:
            yield path, logged, reported


def frames_before_damaged_gop(container: Container) -> Iterator[Frame]:
    """Decode the closed GOPs independently, up to the damage in the first damaged one."""
    with decode_closed_gops(container) as gops:
        try:
            for _, frames in gops:
                yield from frames
        except gop.ClosedGopError:
            return
    raise AssertionError("no GOP was found damaged")


@pytest.mark.parametrize("kind", ["h264.mp4", "slices.mp4"])
def test_an_error_that_ffmpeg_only_logs_is_damage(kind: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(gop, "_SHORTEST", 1)
    files = 0
    for path, logged, reported in damaged_in_the_log_alone(kind, tmp_path):
        files += 1
        container, frames = read(path)
        damaged = damaged_packets(container, frames)
        assert damaged == logged | reported
        assert details(frames) == expected_details(container, damaged)
        assert len(gop.find_gops(container)) == 5
        sound = list(frames_before_damaged_gop(container))
        assert all(frame.status == frames[frame.index].status == "ok" for frame in sound)
        # The GOPs have 12 frames: those before the damaged one were decoded, and no later one.
        first_corrupt = min(frame.index for frame in frames if frame.detail)
        assert first_corrupt - 12 < len(sound) < first_corrupt + 12
    assert files >= 3


@pytest.mark.parametrize("kind", ["h264.mp4", "slices.mp4"])
def test_a_network_source_reports_errors_that_ffmpeg_only_logs(kind: str, tmp_path: Path) -> None:
    """A network source has no packet table, so damage reaches all frames shown after it, up to the next key frame."""
    log_alone = (path for path, _, reported in damaged_in_the_log_alone(kind, tmp_path) if not reported)
    files = 0
    for path in islice(log_alone, 2):
        files += 1
        container, frames = read(path)
        corrupt, broken = [], False
        for frame, packet in zip(frames, container.order, strict=True):
            broken = frame.detail == "damaged" or (broken and not container.packets[packet].key)
            corrupt.append(broken)
        assert any(corrupt)
        data = damage.remux(path, tmp_path / "first.mp4", movflags="faststart").read_bytes()
        with server(lambda _turn, data=data: ("video/mp4", data), length=True) as address:
            assert [frame is None for frame in live(address, Clock()).read()] == corrupt
    assert files


@pytest.mark.quick
def test_each_decoder_has_one_thread(made, monkeypatch) -> None:
    seen = []
    real = ffmpeg.open_decoder

    def spy(*args):
        codec = real(*args)
        seen.append((codec.thread_type.name, codec.thread_count, codec.is_open))
        return codec

    monkeypatch.setattr(ffmpeg, "open_decoder", spy)
    monkeypatch.setattr(gop, "open_decoder", spy)
    monkeypatch.setattr(gop, "_SHORTEST", 1)
    container = scan(made("h264.mp4"))
    assert len(list(decode(container))) == 60
    with decode_closed_gops(container) as gops:
        opened = [frames for _, frames in gops]
        # All GOPs are begun before one has ended, so each has its own decoder.
        assert [next(frames).index for frames in opened] == [0, 12, 24, 36, 48]
        assert sum(1 for frames in opened for _ in frames) == 55
    assert seen == [("NONE", 1, True)] * 6


@pytest.mark.parametrize("kind", ["h264.mp4", "open_gop.mp4", "hevc.mp4"])
@pytest.mark.parametrize("packet", [0, 1, 7, 20, 59])
def test_damage_reaches_all_frames_up_to_the_next_key_frame(
    kind: str, packet: int, made, tmp_path: Path
) -> None:
    source = made(kind)
    # FFmpeg's HEVC decoder reports damage in a packet's header alone.
    behind = 0.0 if kind == "hevc.mp4" else 0.25
    container, frames = read(damage.blank(source, tmp_path / kind, packet, behind=behind))
    damaged = damaged_packets(container, frames)
    assert packet in damaged
    assert details(frames) == expected_details(container, damaged)
    next_key = min((key for key in key_frames(container) if key > packet), default=len(container.packets))
    corrupt = {container.order[frame.index] for frame in frames if frame.status == "corrupt"}
    assert set(range(packet, next_key)) <= corrupt
    # No frame that is called sound differs from that of the undamaged recording.
    for ours, theirs in zip(frames, decode(scan(source)), strict=True):
        assert ours.status == "corrupt" or (ours.rgb() == theirs.rgb()).all()


def key_frames(container: Container) -> list[int]:
    """Return the packets that the container marks as key frames."""
    return [index for index, packet in enumerate(container.packets) if packet.key]


@pytest.mark.quick
def test_leading_frames_of_the_key_frame_after_damage_are_corrupt(made, tmp_path: Path) -> None:
    container = scan(made("open_gop.mp4"))
    _, key, following = key_frames(container)[:3]
    place = {packet: at for at, packet in enumerate(container.order)}
    leading = [packet for packet in range(key + 1, following) if place[packet] < place[key]]
    assert leading, "the encoder made no open GOP"
    _, frames = read(damage.blank(made("open_gop.mp4"), tmp_path / "open.mp4", key - 1))
    assert {frames[place[packet]].detail for packet in leading} == {"depends_on_damaged"}
    assert frames[place[key]].status == "ok"


def test_bits_left_over_behind_a_slice_are_damage(tmp_path: Path) -> None:
    source = damage.encode(tmp_path / "cavlc.mp4", options={"profile": "baseline", "qp": "30"})
    picks = list(range(1, 60, 2))
    damaged = damaged_packets(*read(damage.flip(source, tmp_path / "flipped.mp4", picks, seed=5)))
    assert damaged <= set(picks)
    # Without arithmetic coding a flip often decodes to another image of another length: 25 of these 30 flips are
    # found when left-over bits count as an error, 14 when not.
    assert len(damaged) >= 20


def test_damage_does_not_end_where_a_gradual_refresh_begins(tmp_path: Path) -> None:
    """An encoder that refreshes the image in strips marks key frames, but their images are not whole yet."""
    options = {"x264-params": "intra-refresh=1:bframes=0"}
    source = damage.encode(tmp_path / "strips.mp4", options=options)
    assert len(key_frames(scan(source))) > 1
    _, frames = read(damage.blank(source, tmp_path / "spoilt.mp4", 3))
    assert {frame.status for frame in frames[:3]} == {"ok"}
    assert {frame.status for frame in frames[3:]} == {"corrupt"}


@pytest.mark.quick
@pytest.mark.parametrize(
    ("change", "detail"),
    [({}, ""), ({"flagged": True}, "damaged"), ({"key": False}, "depends_on_damaged")],
)
def test_damage_ends_only_at_an_unflagged_packet_that_the_container_marks_as_key(
    change: dict[str, bool], detail: str, made
) -> None:
    container = scan(made("h264.mp4"))
    second = key_frames(container)[1]
    packets = list(container.packets)
    packets[second] = replace(packets[second], **change)
    marks = decoder._Marks(replace(container, packets=PacketTable.of(packets)))
    references = decoder._References(marks, gop.presentation_places(container))
    assert references.judge(0, False, True) == "damaged"
    for index in range(1, second):
        assert references.judge(index, True, False) == "depends_on_damaged"
    assert references.judge(second, True, True) == detail


def test_damage_in_motion_jpeg_stays_in_its_frame(made, tmp_path: Path) -> None:
    source = made("mjpeg.avi")
    data = bytearray(source.read_bytes())
    at, size = damage.packet_spans(source)[30]
    data[at + 8 + size // 2 : at + 8 + size // 2 + 60] = b"\xff\xd9" * 30
    path = tmp_path / "spoilt.avi"
    path.write_bytes(data)
    _, frames = read(path)
    assert [frame.index for frame in frames if frame.status == "corrupt"] == [30]
    assert frames[30].detail == "damaged"


def test_a_lost_transport_packet_is_damage(made, tmp_path: Path) -> None:
    data = made("h264.ts").read_bytes()
    third = len(data) // 188 // 3 * 188
    path = tmp_path / "lost.ts"
    path.write_bytes(data[:third] + data[third + 188 :])
    _, frames = read(path)
    assert "damaged" in details(frames)


def test_an_mpeg4_packet_that_repeats_the_last_image_is_sound(tmp_path: Path) -> None:
    source = damage.encode(tmp_path / "coded.avi", "mpeg4", frames=24, size=(352, 288))
    path = tmp_path / "repeated.avi"
    with av.open(str(source)) as container, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(container.streams.video[0])
        for index, packet in enumerate(p for p in container.demux(video=0) if p.size):
            if index == 5:
                # ISO/IEC 14496-2, 6.2.5: start code; P picture (01), no second passed (0), marker, 5 bits of
                # time for 25/s, marker, not coded (0), stuffing.
                head = f"{int.from_bytes(bytes(packet)[4:6], 'big'):016b}"
                assert head[:4] == "0101"
                bits = head[:10] + "0" + "01111"
                repeat = av.Packet(b"\x00\x00\x01\xb6" + int(bits, 2).to_bytes(2, "big"))
                repeat.pts, repeat.dts, repeat.time_base = packet.pts, packet.dts, packet.time_base
                packet = repeat
            packet.stream = stream
            out.mux(packet)
    _, frames = read(path)
    assert {frame.status for frame in frames} == {"ok"}
    assert (frames[5].rgb() == frames[4].rgb()).all()
    assert (frames[5].rgb() != frames[6].rgb()).any()


def test_an_image_of_another_size_is_damage(tmp_path: Path) -> None:
    first = damage.encode(tmp_path / "a.ts", "mpeg2video")
    second = damage.encode(tmp_path / "b.ts", "mpeg2video", size=(64, 48))
    path = tmp_path / "joined.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    container, frames = read(path)
    assert (container.width, container.height) == (96, 80)
    assert {frame.rgb().shape for frame in frames if frame.status == "ok"} == {(80, 96, 3)}
    assert {frame.detail for frame in frames[60:]} == {"damaged"}


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(
    "kind", ["h264.mp4", "h264.mkv", "h264.ts", "mpeg4.avi", "mjpeg.avi", "fragmented.mp4"]
)
def test_a_truncated_recording_is_read_as_far_as_it_goes(
    kind: str, share: float, made, tmp_path: Path
) -> None:
    source = made(kind)
    if kind == "h264.mp4":
        source = damage.remux(source, tmp_path / "fast.mp4", movflags="faststart")
    container, frames = read(damage.cut(source, tmp_path / f"cut_{kind}", share))
    assert 0 < container.present < 60
    assert container.truncated is (None if kind == "h264.ts" else True)
    if kind.endswith((".avi", "264.mp4")):
        assert (container.frames, container.container_source) == (60, "header")
        assert container.missing == 60 - container.present > 0
    else:
        assert container.container_source == ("packets" if kind == "h264.ts" else "unknown")
        assert container.missing == 0
    # Only the last packet may be incomplete, and no frame that is called sound differs from the original's.
    corrupt = {container.order[frame.index] for frame in frames if frame.status == "corrupt"}
    assert corrupt <= {container.present - 1}
    if kind == "h264.mp4":
        assert "damaged" in details(frames)
    whole = {frame.pts: frame for frame in decode(scan(source))}
    assert all(frame.pts in whole for frame in frames)
    assert all((frame.rgb() == whole[frame.pts].rgb()).all() for frame in frames if frame.status == "ok")


def test_a_truncated_real_recording_with_its_index_in_front(tmp_path: Path) -> None:
    fast = damage.remux(recording("bca26705313a4644"), tmp_path / "fast.mp4", movflags="faststart")
    container, frames = read(damage.cut(fast, tmp_path / "cut.mp4", 0.5))
    assert (container.frames, container.truncated) == (1417, True)
    assert 0 < container.present < 1417
    corrupt = [container.order[frame.index] for frame in frames if frame.status == "corrupt"]
    assert corrupt == [container.present - 1]


def test_truncation_behind_the_last_packet_is_reported(made, tmp_path: Path) -> None:
    container, frames = read(damage.cut(made("mpeg4.avi"), tmp_path / "cut.avi", 0.99))
    assert (container.present, container.truncated) == (60, True)
    assert {frame.status for frame in frames} == {"ok"}


@pytest.mark.quick
def test_truncation_of_a_live_matroska_is_unknown(made, tmp_path: Path) -> None:
    assert scan(damage.remux(made("h264.mp4"), tmp_path / "live.mkv", live="1")).truncated is None


def test_truncation_of_an_avi_without_its_size_is_unknown(made, tmp_path: Path) -> None:
    """A recorder that is switched off while it writes leaves the size at 0."""
    data = bytearray(made("mpeg4.avi").read_bytes())
    data[4:8] = bytes(4)
    (tmp_path / "off.avi").write_bytes(data)
    assert scan(tmp_path / "off.avi").truncated is None


def test_truncation_of_an_unknown_format_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(b"RIFF\x10\x00\x00\x00WAVE" + bytes(40))
    with path.open("rb") as file:
        assert avi_is_cut(file, 52) is None
        assert matroska_is_cut(file, 52) is None
        assert read_boxes(file, 52) is None


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_any_damage_is_read_or_refused_in_one_line(made, tmp_path: Path, data: st.DataObject) -> None:
    """``read`` asserts that each frame of the container has its status."""
    kind = data.draw(st.sampled_from([k for k in KINDS if not k.startswith(("vp8", "ffv1", "baseline"))]))
    spoilt = bytearray(made(kind).read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, max(0, len(spoilt) - 1)))
        match data.draw(st.sampled_from(["flip", "overwrite", "remove", "cut"])):
            case "flip":
                spoilt[at : at + 1] = (
                    bytes([spoilt[at] ^ (1 << data.draw(st.integers(0, 7)))]) if spoilt else b""
                )
            case "overwrite":
                patch = data.draw(st.binary(min_size=1, max_size=200))
                spoilt[at : at + len(patch)] = patch
            case "remove":
                del spoilt[at : at + data.draw(st.integers(1, 500))]
            case "cut" if at > len(spoilt) // 4:
                del spoilt[at:]
    path = tmp_path / kind
    path.write_bytes(spoilt)
    message = ""
    try:
        read(path)
    except InputError as error:
        message = str(error)
    assert "\n" not in message
