"""Damage, cuts and bit flips: found, the same on every run, and never hidden."""

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
from video_samples import KINDS, details, expected_details, read, recording

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.recording import Container, Frame, decode, decoder, ffmpeg, gop, scan
from capsule_edge.runtime.recording.decoder import decode_closed_gops
from capsule_edge.runtime.recording.packets import PacketTable
from capsule_edge.runtime.recording.truncation import avi_is_cut, matroska_is_cut, read_boxes


def test_bit_flips_in_a_real_recording_are_found_again_and_again(tmp_path: Path, capsys) -> None:
    source = recording("bca26705313a4644")
    whole = scan(source)
    picks = np.random.default_rng(20).choice(whole.present, 200, replace=False).tolist()
    container, pictures = read(damage.flip(source, tmp_path / "flipped.mp4", picks, seed=21))
    damaged = {container.order[p.index] for p in pictures if p.detail == "damaged"}
    with capsys.disabled():
        print(f"\n200 flipped pictures of {whole.present}: {len(damaged)} found damaged")
    # 7 % of single flips decode to another valid picture, which no decoder can tell.
    assert len(damaged) > 150
    assert damaged <= set(picks)
    assert details(pictures) == expected_details(container, damaged)
    # However the reader is run, alone again or beside another one, the same frames are corrupt.
    with ThreadPoolExecutor(2) as pool:
        for other in pool.map(lambda _: details(list(decode(container))), range(2)):
            assert other == details(pictures)


def heard(path: Path) -> tuple[set[int], set[int]]:
    """Packets that FFmpeg logs an error of, and those that it reports in another way, by a decoder of our own."""
    lines, reported = set(), set()
    with ffmpeg.open_recording(path) as (source, stream):
        decoder = ffmpeg.open_decoder(path, stream)
        packets = list(ffmpeg.picture_packets(source, stream))
        at = {packet.pts: index for index, packet in enumerate(packets)}
        absent = set(at.values())
        for index, packet in enumerate([*packets, None]):
            with av.logging.Capture() as said:
                try:
                    pictures = decoder.decode(packet)
                except av.error.FFmpegError:
                    pictures = []
                    reported.add(index)
            if any(level <= av.logging.ERROR for level, *_ in said):
                lines.add(index)
            absent -= {at[picture.pts] for picture in pictures}
            reported |= {at[picture.pts] for picture in pictures if picture.is_corrupt}
    return lines, reported | absent


def only_logged(kind: str, folder: Path) -> Iterator[tuple[Path, set[int], set[int]]]:
    """Files of which FFmpeg's log tells more than its flags and errors do, with what ``heard`` says of each.

    A bit is flipped in a slice's header, which FFmpeg may neither flag nor refuse, and leave the slice out.
    """
    options = {"bf": "3"} | ({"x264-params": "slices=3"} if kind == "slices.mp4" else {})
    source = damage.encode(folder / kind, options=options)
    assert heard(source) == (set(), set())
    where, whole = damage.places(source), source.read_bytes()
    rng = np.random.default_rng(4)
    path = folder / f"flipped_{kind}"
    for picture in rng.integers(1, 59, 60).tolist():
        data = bytearray(whole)
        # Behind a length of four bytes; the header of a slice takes some ten.
        data[where[picture][0] + 4 + int(rng.integers(12))] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        lines, reported = heard(path)
        if lines - reported:
            yield path, lines, reported


def until_it_shows(container: Container) -> Iterator[Frame]:
    """What groups give by themselves, up to where one is not whole."""
    with decode_closed_gops(container) as parts:
        try:
            for _, stretch in parts:
                yield from stretch
        except gop.ClosedGopError:
            return
    raise AssertionError("nothing was noticed")


@pytest.mark.parametrize("kind", ["h264.mp4", "slices.mp4"])
def test_a_slice_that_only_the_log_tells_of_is_damage(kind: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(gop, "_SHORTEST", 1)
    told = 0
    for path, lines, reported in only_logged(kind, tmp_path):
        told += 1
        container, pictures = read(path)
        damaged = {container.order[each.index] for each in pictures if each.detail == "damaged"}
        assert damaged == lines | reported
        assert details(pictures) == expected_details(container, damaged)
        sound = list(until_it_shows(container))
        assert all(picture.status == pictures[picture.index].status == "ok" for picture in sound)
        assert len(sound) < min(picture.index for picture in pictures if picture.detail) + 12
    assert told >= 3


@pytest.mark.parametrize("kind", ["h264.mp4", "slices.mp4"])
def test_a_network_source_is_listened_to_as_a_file_is(kind: str, tmp_path: Path) -> None:
    """It goes by the order in which pictures are shown, so what is shown behind damage falls with it."""
    silent = (path for path, _, reported in only_logged(kind, tmp_path) if not reported)
    told = 0
    for path in islice(silent, 2):
        told += 1
        container, pictures = read(path)
        lacking, broken = [], False
        for picture, index in zip(pictures, container.order, strict=True):
            broken = picture.detail == "damaged" or (broken and not container.packets[index].key)
            lacking.append(broken)
        data = damage.remux(path, tmp_path / "first.mp4", movflags="faststart").read_bytes()
        with server(lambda _turn, data=data: ("video/mp4", data), length=True) as address:
            assert [frame is None for frame in live(address, Clock()).read()] == lacking
        assert any(lacking)  # else there was nothing to hear
    assert told


def test_each_decoder_has_one_thread(made, monkeypatch) -> None:
    seen = []
    real = ffmpeg.open_decoder

    def spy(*args):
        decoder = real(*args)
        seen.append((decoder.thread_type.name, decoder.thread_count, decoder.is_open))
        return decoder

    monkeypatch.setattr(ffmpeg, "open_decoder", spy)
    monkeypatch.setattr(gop, "open_decoder", spy)
    monkeypatch.setattr(gop, "_SHORTEST", 1)
    container = scan(made("h264.mp4"))
    assert len(list(decode(container))) == 60
    with decode_closed_gops(container) as parts:
        stretches = [stretch for _, stretch in parts]
        # All begun before one has ended, so each has a decoder.
        assert [next(stretch).index for stretch in stretches] == [0, 12, 24, 36, 48]
        assert sum(1 for stretch in stretches for _ in stretch) == 55
    assert seen == [("NONE", 1, True)] * 6


@pytest.mark.parametrize("kind", ["h264.mp4", "open_gop.mp4", "hevc.mp4"])
@pytest.mark.parametrize("picture", [0, 1, 7, 20, 59])
def test_one_damaged_picture_spoils_all_up_to_the_next_key_frame(
    kind: str, picture: int, made, tmp_path: Path
) -> None:
    source = made(kind)
    # FFmpeg's HEVC decoder reports damage in a picture's header alone.
    behind = 0.0 if kind == "hevc.mp4" else 0.25
    container, pictures = read(damage.blank(source, tmp_path / kind, picture, behind=behind))
    damaged = {container.order[p.index] for p in pictures if p.detail == "damaged"}
    assert picture in damaged
    assert details(pictures) == expected_details(container, damaged)
    keys = [i for i, sample in enumerate(container.packets) if sample.key]
    spoilt_until = min((key for key in keys if key > picture), default=len(container.packets))
    corrupt = {container.order[p.index] for p in pictures if p.status == "corrupt"}
    assert set(range(picture, spoilt_until)) <= corrupt
    # And no picture that is called sound differs from the undamaged recording's.
    for ours, theirs in zip(pictures, decode(scan(source)), strict=True):
        assert ours.status == "corrupt" or (ours.rgb() == theirs.rgb()).all()


def test_leading_pictures_behind_a_damaged_stretch_are_corrupt(made, tmp_path: Path) -> None:
    container = scan(made("open_gop.mp4"))
    keys = [i for i, sample in enumerate(container.packets) if sample.key]
    rank = {index: place for place, index in enumerate(container.order)}
    leading = [i for i in range(keys[1] + 1, keys[2]) if rank[i] < rank[keys[1]]]
    assert leading, "the encoder made no open group of pictures"
    _, pictures = read(damage.blank(made("open_gop.mp4"), tmp_path / "open.mp4", keys[1] - 1))
    assert {pictures[rank[i]].detail for i in leading} == {"depends_on_damaged"}
    assert pictures[rank[keys[1]]].status == "ok"


def test_bits_left_over_behind_a_slice_are_damage(tmp_path: Path) -> None:
    source = damage.encode(tmp_path / "cavlc.mp4", options={"profile": "baseline", "qp": "30"})
    picks = list(range(1, 60, 2))
    container, pictures = read(damage.flip(source, tmp_path / "flipped.mp4", picks, seed=5))
    damaged = {container.order[p.index] for p in pictures if p.detail == "damaged"}
    assert damaged <= set(picks)
    # Without arithmetic coding a flip often decodes to another picture of another length: 25 of these 30 are
    # found when left-over bits count as an error, 14 when not.
    assert len(damaged) >= 20


def test_a_picture_refreshed_in_strips_is_no_new_start(tmp_path: Path) -> None:
    options = {"x264-params": "intra-refresh=1:bframes=0"}
    source = damage.encode(tmp_path / "strips.mp4", options=options)
    assert sum(sample.key for sample in scan(source).packets) > 1
    _, pictures = read(damage.blank(source, tmp_path / "spoilt.mp4", 3))
    assert {p.status for p in pictures[:3]} == {"ok"}
    assert {p.status for p in pictures[3:]} == {"corrupt"}


@pytest.mark.parametrize(
    ("change", "detail"),
    [({}, ""), ({"flagged": True}, "damaged"), ({"key": False}, "depends_on_damaged")],
)
def test_a_start_needs_a_whole_packet_that_the_container_calls_a_key(
    change: dict[str, bool], detail: str, made
) -> None:
    container = scan(made("h264.mp4"))
    second = next(i for i, sample in enumerate(container.packets) if sample.key and i)
    samples = list(container.packets)
    samples[second] = replace(samples[second], **change)
    chain = decoder._Chain(
        decoder._Marks(replace(container, samples=PacketTable.of(samples))),
        [container.order.index(at) for at in range(len(samples))],
    )
    assert chain.judge(0, False, True) == "damaged"
    for index in range(1, second):
        assert chain.judge(index, True, False) == "depends_on_damaged"
    assert chain.judge(second, True, True) == detail


def test_damage_in_a_motion_jpeg_stays_in_its_picture(made, tmp_path: Path) -> None:
    source = made("mjpeg.avi")
    data = bytearray(source.read_bytes())
    at, size = damage.places(source)[30]
    data[at + 8 + size // 2 : at + 8 + size // 2 + 60] = b"\xff\xd9" * 30
    path = tmp_path / "spoilt.avi"
    path.write_bytes(data)
    _, pictures = read(path)
    assert [p.index for p in pictures if p.status == "corrupt"] == [30]
    assert pictures[30].detail == "damaged"


def test_a_lost_transport_packet_is_damage(made, tmp_path: Path) -> None:
    data = made("h264.ts").read_bytes()
    third = len(data) // 188 // 3 * 188
    path = tmp_path / "lost.ts"
    path.write_bytes(data[:third] + data[third + 188 :])
    _, pictures = read(path)
    assert "damaged" in details(pictures)


def test_a_repeated_mpeg4_picture_is_sound_and_shows_the_last_one(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(damage, "SIZE", (352, 288))
    source = damage.encode(tmp_path / "coded.avi", "mpeg4", frames=24)
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
    _, pictures = read(path)
    assert {picture.status for picture in pictures} == {"ok"}
    assert (pictures[5].rgb() == pictures[4].rgb()).all()
    assert (pictures[5].rgb() != pictures[6].rgb()).any()


def test_a_picture_of_another_size_is_not_passed_on(tmp_path: Path, monkeypatch) -> None:
    first = damage.encode(tmp_path / "a.ts", "mpeg2video")
    monkeypatch.setattr(damage, "SIZE", (64, 48))
    second = damage.encode(tmp_path / "b.ts", "mpeg2video")
    path = tmp_path / "joined.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    container, pictures = read(path)
    assert (container.width, container.height) == (96, 80)
    assert {p.rgb().shape for p in pictures if p.status == "ok"} == {(80, 96, 3)}
    assert {p.detail for p in pictures[60:]} == {"damaged"}


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(
    "kind", ["h264.mp4", "h264.mkv", "h264.ts", "mpeg4.avi", "mjpeg.avi", "fragmented.mp4"]
)
def test_a_cut_recording_is_read_as_far_as_it_goes(kind: str, share: float, made, tmp_path: Path) -> None:
    source = made(kind)
    if kind == "h264.mp4":
        source = damage.remux(source, tmp_path / "fast.mp4", movflags="faststart")
    container, pictures = read(damage.cut(source, tmp_path / f"cut_{kind}", share))
    assert 0 < container.present < 60
    assert container.truncated is (None if kind == "h264.ts" else True)
    if kind.endswith((".avi", "264.mp4")):
        assert (container.frames, container.container_source) == (60, "header")
        assert container.missing == 60 - container.present > 0
    else:
        assert container.container_source == ("packets" if kind == "h264.ts" else "unknown")
        assert container.missing == 0
    # Only the last picture stored can be a part of one; nothing called sound differs from the original.
    assert {container.order[p.index] for p in pictures if p.status == "corrupt"} <= {container.present - 1}
    if kind == "h264.mp4":
        assert "damaged" in details(pictures)
    original = {sample.pts: index for index, sample in enumerate(scan(source).packets)}
    whole = {p.pts: p for p in decode(scan(source))}
    assert all(p.pts in original for p in pictures)
    assert all((p.rgb() == whole[p.pts].rgb()).all() for p in pictures if p.status == "ok")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_cut_real_recording_with_its_index_in_front(share: float, tmp_path: Path) -> None:
    fast = damage.remux(recording("bca26705313a4644"), tmp_path / "fast.mp4", movflags="faststart")
    container, pictures = read(damage.cut(fast, tmp_path / "cut.mp4", share))
    assert (container.frames, container.truncated) == (1417, True)
    assert 0 < container.present < 1417
    assert [container.order[p.index] for p in pictures if p.status == "corrupt"] == [container.present - 1]


def test_a_cut_behind_the_last_picture_is_seen(made, tmp_path: Path) -> None:
    container, pictures = read(damage.cut(made("mpeg4.avi"), tmp_path / "cut.avi", 0.99))
    assert (container.present, container.truncated) == (60, True)
    assert {picture.status for picture in pictures} == {"ok"}


def test_a_live_matroska_does_not_say_how_long_it_is(made, tmp_path: Path) -> None:
    assert scan(damage.remux(made("h264.mp4"), tmp_path / "live.mkv", live="1")).truncated is None


def test_an_avi_whose_recorder_was_switched_off_does_not_say_either(made, tmp_path: Path) -> None:
    data = bytearray(made("mpeg4.avi").read_bytes())
    data[4:8] = bytes(4)
    (tmp_path / "off.avi").write_bytes(data)
    assert scan(tmp_path / "off.avi").truncated is None


def test_extents_of_something_else(tmp_path: Path) -> None:
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
def test_any_damage_keeps_the_account(made, tmp_path: Path, data: st.DataObject) -> None:
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
    said = ""
    try:
        read(path)
    except InputError as error:
        said = str(error)
    assert "\n" not in said
