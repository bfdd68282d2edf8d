"""Reading recordings: each container frame accounted for, damage not hidden, colours by the stream's tags."""

from __future__ import annotations

import csv
import os
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import av
import damage
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capsule_edge.runtime import ffmpeg, groups, video
from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.extents import avi_is_cut, matroska_is_cut, read_boxes
from capsule_edge.runtime.listing import Samples
from capsule_edge.runtime.video import Container, Picture, decode, scan, to_rgb

RECORDINGS = ("64440803f87b4843", "5e59c7fdb16c4228", "bca26705313a4644")
KINDS = {
    "h264.mp4": {"options": {"bf": "3"}},
    "open_gop.mp4": {"options": {"bf": "3", "x264-params": "open-gop=1"}},
    "h264.mkv": {"options": {"bf": "3"}},
    "h264.ts": {"options": {"bf": "2"}},
    # AVI holds no presentation times: FFmpeg makes up the decoding order for H.264.
    "h264.avi": {"options": {"bf": "3"}},
    "baseline.mp4": {"options": {"profile": "baseline"}},
    "fragmented.mp4": {"muxer": {"movflags": "frag_keyframe+empty_moov"}},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg4_b.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "mjpeg.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "mpeg2.ts": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none:pools=none"}},
    "vp8.webm": {"codec": "libvpx", "options": {"lag-in-frames": "8", "auto-alt-ref": "1", "cpu-used": "8"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"lag-in-frames": "12", "cpu-used": "8"}},
    "ffv1.mkv": {"codec": "ffv1"},
}


def recording(name: str) -> Path:
    root = os.environ.get("CAPSULE_EDGE_DATA")
    path = Path(root or "/nowhere") / "recordings" / f"{name}.mp4"
    if not path.exists():
        pytest.skip("CAPSULE_EDGE_DATA names no folder with the real recordings")
    return path


def read(path: Path) -> tuple[Container, list[Picture]]:
    """Scan and decode, holding what must be true of every file."""
    container = scan(path)
    pictures = list(decode(container))
    assert [picture.index for picture in pictures] == list(range(container.present))
    assert len(pictures) + container.missing == container.frames
    assert [picture.time_s for picture in pictures] == sorted(picture.time_s for picture in pictures)
    assert all((picture.frame is None) == (picture.status == "corrupt") for picture in pictures)
    assert all(bool(picture.detail) == (picture.status == "corrupt") for picture in pictures)
    return container, pictures


def details(pictures: list[Picture]) -> list[str]:
    return [picture.detail for picture in pictures]


def expected_details(container: Container, damaged: set[int]) -> list[str]:
    """The rule spelled out: ``damaged`` holds decoding indices; the answer is in presentation order."""
    rank = {index: place for place, index in enumerate(container.order)}
    found = [""] * len(container.samples)
    broken, limit = False, -1
    for index, sample in enumerate(container.samples):
        if index in damaged:
            found[index], broken = "damaged", True
        elif sample.key:
            limit, broken = (rank[index] if broken else limit), False
        elif broken or rank[index] < limit:
            found[index] = "depends_on_damaged"
    return [found[index] for index in container.order]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    """Encodes a kind once for all tests."""
    folder = tmp_path_factory.mktemp("made")

    def make(name: str) -> Path:
        path = folder / name
        if not path.exists():
            damage.encode(path, **KINDS[name])
        return path

    return make


# --- whole recordings


@pytest.mark.parametrize("name", RECORDINGS)
def test_real_recording_is_read_whole_at_the_true_times(name: str) -> None:
    path = recording(name)
    with path.with_suffix(".truth.csv").open(newline="") as file:
        truth = [float(row["time_s"]) for row in csv.DictReader(file)]
    container, pictures = read(path)
    assert {picture.status for picture in pictures} == {"ok"}
    assert (container.frames, container.missing, container.edited_out) == (len(truth), 0, 0)
    assert (container.container_source, container.truncated) == ("header", False)
    assert (container.codec, container.width, container.height) == ("h264", 224, 224)
    assert container.time_kind == "playback"
    # The table rounds to 4 decimals, and a tick of the file is 1/15360 s.
    assert [picture.time_s for picture in pictures] == pytest.approx(truth, abs=0.00005 + 1 / 15360)


@pytest.mark.parametrize("kind", KINDS)
def test_undamaged_kinds_have_no_corrupt_frame_and_the_true_order(kind: str, made) -> None:
    container, pictures = read(made(kind))
    assert {picture.status for picture in pictures} == {"ok"}
    assert container.frames == 60
    assert container.missing == 0
    assert not container.truncated
    # Matroska rounds to milliseconds.
    assert [picture.time_s for picture in pictures] == pytest.approx([i / 25 for i in range(60)], abs=0.0011)
    assert container.duration_s == pytest.approx(60 / 25, abs=0.0022)
    # Neighbours differ by 3 grey levels; at this bit rate an encoder moves the mean of a picture by less than
    # half of that.
    means = np.array([picture.rgb().mean() for picture in pictures])
    assert (np.diff(means) > 0).all()


@pytest.mark.parametrize(
    ("kind", "source", "truncated"),
    [
        ("h264.mp4", "header", False),
        ("mpeg4.avi", "header", False),
        ("h264.mkv", "packets", False),
        ("h264.ts", "packets", None),
        ("fragmented.mp4", "packets", False),
    ],
)
def test_what_a_container_says_about_its_length(kind: str, source: str, truncated: bool | None, made) -> None:
    container = scan(made(kind))
    assert (container.container_source, container.truncated) == (source, truncated)
    assert (container.announced is None) == (source == "packets")


def test_two_frames_a_second_are_capture_time(tmp_path: Path) -> None:
    container = scan(damage.encode(tmp_path / "slow.mp4", frames=8, rate=2))
    assert (container.time_kind, container.frame_distance_s) == ("capture", 0.5)
    assert list(container.times_s) == [i / 2 for i in range(8)]


def test_irregular_times_are_kept(tmp_path: Path) -> None:
    shown_at = [0, 1, 2, 50, 51, 700, 701, 702]
    container, pictures = read(damage.encode(tmp_path / "gaps.mp4", frames=8, shown_at=shown_at))
    assert [picture.time_s for picture in pictures] == [at / 25 for at in shown_at]
    assert container.missing == 0


def test_empty_places_of_an_avi_are_not_missing_pictures(tmp_path: Path) -> None:
    shown_at = [0, 1, 2, 10, 11, 30, 31]
    path = damage.encode(tmp_path / "gaps.avi", "mpeg4", frames=7, shown_at=shown_at)
    container, pictures = read(path)
    assert (container.frames, container.missing) == (7, 0)
    assert [picture.time_s for picture in pictures] == [at / 25 for at in shown_at]


def test_recordings_joined_end_to_end_go_on_in_time(made, tmp_path: Path) -> None:
    path = tmp_path / "joined.ts"
    path.write_bytes(made("mpeg2.ts").read_bytes() * 2)
    container, _ = read(path)
    assert container.present == 120
    assert container.duration_s == pytest.approx(2 * 60 / 25, abs=0.01)
    assert max(np.diff(container.times_s)) < 0.1


def test_paths_with_spaces_and_other_scripts(made, tmp_path: Path) -> None:
    folder = tmp_path / "Gerät 7 内視鏡"
    folder.mkdir()
    path = folder / "записи № 1: 50 %.mp4"
    path.write_bytes(made("h264.mp4").read_bytes())
    assert scan(path).frames == 60
    assert len(list(decode(scan(str(path))))) == 60


def test_relative_path_that_looks_like_a_protocol(made, tmp_path: Path, monkeypatch) -> None:
    if sys.platform == "win32":
        pytest.skip("Windows forbids a colon in a file name")
    (tmp_path / "concat:a.mp4").write_bytes(made("h264.mp4").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert scan("concat:a.mp4").frames == 60


# --- edit lists


def edit(source: Path, path: Path, skip: int) -> Path:
    """Moves the start of the only edit by ``skip`` frames; the muxer counts 512 ticks a frame at 25/s."""
    data = bytearray(source.read_bytes())
    at = data.index(b"elst") + 16
    (start,) = struct.unpack(">i", data[at : at + 4])
    data[at : at + 4] = struct.pack(">i", start + 512 * skip)
    path.write_bytes(data)
    return path


def test_edited_out_frames_are_no_container_frames(made, tmp_path: Path) -> None:
    source = made("h264.mp4")
    container, pictures = read(edit(source, tmp_path / "edited.mp4", 17))
    assert (container.announced, container.edited_out, container.frames) == (60, 17, 43)
    assert container.missing == 0
    assert {picture.status for picture in pictures} == {"ok"}
    _, whole = read(source)
    assert all((a.rgb() == b.rgb()).all() for a, b in zip(pictures, whole[17:], strict=True))


def test_damage_in_an_edited_out_frame_reaches_the_shown_ones(made, tmp_path: Path) -> None:
    path = edit(made("h264.mp4"), tmp_path / "edited.mp4", 17)
    container = scan(path)
    first_key = next(i for i, sample in enumerate(container.samples) if sample.key)
    assert container.samples[first_key].edited_out
    _, pictures = read(damage.blank(path, tmp_path / "spoilt.mp4", first_key))
    second_key = container.order.index(
        next(i for i, s in enumerate(container.samples) if s.key and i > first_key)
    )
    assert set(details(pictures)[:second_key]) == {"depends_on_damaged"}
    assert set(details(pictures)[second_key:]) == {""}


# --- damage


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


@pytest.mark.parametrize("lanes", [1, 3])
def test_each_decoder_has_one_thread(made, monkeypatch, lanes: int) -> None:
    seen = []
    real = ffmpeg.open_decoder

    def spy(*args):
        decoder = real(*args)
        seen.append((decoder.thread_type.name, decoder.thread_count, decoder.is_open))
        return decoder

    monkeypatch.setattr(ffmpeg, "open_decoder", spy)
    monkeypatch.setattr(groups, "open_decoder", spy)
    monkeypatch.setattr(groups, "_SHORTEST", 1)
    assert len(list(decode(scan(made("h264.mp4")), lanes=lanes))) == 60
    assert 1 <= len(seen) <= lanes
    assert set(seen) == {("NONE", 1, True)}


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
    keys = [i for i, sample in enumerate(container.samples) if sample.key]
    spoilt_until = min((key for key in keys if key > picture), default=len(container.samples))
    corrupt = {container.order[p.index] for p in pictures if p.status == "corrupt"}
    assert set(range(picture, spoilt_until)) <= corrupt
    # And no picture that is called sound differs from the undamaged recording's.
    for ours, theirs in zip(pictures, decode(scan(source)), strict=True):
        assert ours.status == "corrupt" or (ours.rgb() == theirs.rgb()).all()


def test_leading_pictures_behind_a_damaged_stretch_are_corrupt(made, tmp_path: Path) -> None:
    container = scan(made("open_gop.mp4"))
    keys = [i for i, sample in enumerate(container.samples) if sample.key]
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
    assert sum(sample.key for sample in scan(source).samples) > 1
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
    second = next(i for i, sample in enumerate(container.samples) if sample.key and i)
    samples = list(container.samples)
    samples[second] = replace(samples[second], **change)
    chain = video._Chain(
        replace(container, samples=Samples.of(samples)),
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


# --- cut files


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
    original = {sample.pts: index for index, sample in enumerate(scan(source).samples)}
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


# --- what cannot be read


def spoil(name: str, made, folder: Path) -> Path:
    path = folder / name
    match name:
        case "folder.mp4":
            path.mkdir()
        case "text.mp4":
            path.write_text("This is no recording.\n" * 50)
        case "note.mp4":
            path.write_text("no\n")
        case "empty.mp4":
            path.touch()
        case "random.mp4":
            path.write_bytes(np.random.default_rng(3).bytes(100_000))
        case "tail_cut.mp4":
            damage.cut(made("h264.mp4"), path, 0.5)
        case "index_cut.mp4":
            fast = damage.remux(made("h264.mp4"), folder / "fast.mp4", movflags="faststart").read_bytes()
            path.write_bytes(fast[: fast.index(b"moov") + 400])
        case "no_picture.mp4":
            fast = damage.remux(made("h264.mp4"), folder / "fast.mp4", movflags="faststart").read_bytes()
            path.write_bytes(fast[: fast.index(b"mdat") + 4])
        case "sound.mp4":
            with av.open(str(path), "w") as out:
                stream = out.add_stream("aac", rate=8000)
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
                silence.sample_rate = 8000
                out.mux(stream.encode(silence))
                out.mux(stream.encode(None))
        case "playlist.m3u8":
            (folder / "part.ts").write_bytes(made("h264.ts").read_bytes())
            path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\npart.ts\n#EXT-X-ENDLIST\n")
        case "script.ffconcat":
            (folder / "part.ts").write_bytes(made("h264.ts").read_bytes())
            path.write_text("ffconcat version 1.0\nfile part.ts\n")
    return path


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("absent.mp4", "no such file"),
        ("folder.mp4", "is a folder"),
        ("text.mp4", "cannot be read as a recording"),
        ("note.mp4", "cannot be read as a recording"),
        ("empty.mp4", "0 bytes"),
        ("random.mp4", "cannot be read as a recording"),
        ("tail_cut.mp4", "index of '.*' is missing because the file was cut before its end .*repair tool"),
        ("index_cut.mp4", "index of '.*' is incomplete because the file was cut"),
        ("no_picture.mp4", "holds no picture of the 60 it announces"),
        ("sound.mp4", "holds no video, only audio"),
        ("playlist.m3u8", "cannot be read as a recording"),
        ("script.ffconcat", "cannot be read as a recording"),
        ("line\nbreak.mp4", "no such file"),
    ],
)
def test_one_line_says_what_is_wrong(name: str, says: str, made, tmp_path: Path, capfd) -> None:
    with pytest.raises(InputError, match=says) as caught:
        scan(spoil(name, made, tmp_path))
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    assert caught.value.exit_code == 1
    assert capfd.readouterr() == ("", "")


def test_no_right_to_read(made, monkeypatch) -> None:
    # The tests may run as a user to whom nothing is forbidden.
    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    path = made("h264.mp4")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match="cannot be opened: permission denied"):
        scan(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(InputError, match="no regular file"):
        scan(tmp_path / "pipe.mp4")


def test_damaged_recordings_print_nothing(made, tmp_path: Path, capfd) -> None:
    path = damage.flip(made("h264.mp4"), tmp_path / "flipped.mp4", list(range(60)), seed=1, bits=5)
    assert "damaged" in details(read(path)[1])
    assert capfd.readouterr() == ("", "")


def test_pictures_too_large_for_a_capsule_are_refused(made, monkeypatch) -> None:
    monkeypatch.setattr("capsule_edge.runtime.containers.MOST_PIXELS", 96 * 80 - 1)
    with pytest.raises(InputError, match="96 x 80"):
        scan(made("h264.mp4"))


def test_a_jpeg_that_claims_gigapixels_is_corrupt(made, tmp_path: Path) -> None:
    data = made("mjpeg.avi").read_bytes()
    size = b"\xff\xc0\x00\x11\x08" + struct.pack(">HH", 80, 96)
    assert data.count(size) == 60
    path = tmp_path / "huge.avi"
    path.write_bytes(data.replace(size, size[:5] + struct.pack(">HH", 65000, 65000)))
    container, pictures = read(path)
    assert container.frames == 60
    assert set(details(pictures)) == {"damaged"}


def test_an_absurd_count_in_a_header_is_not_believed(made, tmp_path: Path) -> None:
    data = bytearray(made("mpeg4.avi").read_bytes())
    at = data.index(b"strh") + 8 + 32
    assert data[at : at + 4] == struct.pack("<I", 60)
    data[at : at + 4] = struct.pack("<I", 0x7FFFFFF0)
    (tmp_path / "many.avi").write_bytes(data)
    container, _ = read(tmp_path / "many.avi")
    assert (container.frames, container.container_source) == (60, "packets")


def test_a_file_that_changes_between_the_passes_is_refused(made, tmp_path: Path) -> None:
    path = damage.remux(made("h264.mp4"), tmp_path / "fast.mp4", movflags="faststart")
    container = scan(path)
    damage.cut(path, path, 0.5)
    with pytest.raises(InputError, match="changed while it was read"):
        list(decode(container))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files cannot be listed here")
def test_the_file_is_closed_however_reading_ends(made, tmp_path: Path) -> None:
    path = made("h264.mp4")

    def is_open() -> bool:
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return any(os.path.realpath(link) == os.path.realpath(path) for link in links)

    container = scan(path)
    assert not is_open()
    pictures = decode(container)
    next(pictures)
    assert is_open()
    pictures.close()
    assert not is_open()
    list(decode(container))
    assert not is_open()


# --- colours

# Y, U, V of 8 bits, limited range: black, white, mid grey, mucosa, blood, a blue dye, a bright highlight.
PATCHES = [
    (16, 128, 128),
    (235, 128, 128),
    (126, 128, 128),
    (120, 105, 165),
    (70, 110, 180),
    (80, 170, 110),
    (225, 120, 140),
]
BT601, BT709 = (0.299, 0.114), (0.2126, 0.0722)


def formula(y: float, u: float, v: float, weights: tuple[float, float], full: bool) -> list[float]:
    """ITU-R BT.601-7 and BT.709-6: R, G, B of 0..255 from 8-bit Y, Cb, Cr."""
    red, blue = weights
    luma = y / 255 if full else (y - 16) / 219
    cb, cr = ((c - 128) / (255 if full else 224) for c in (u, v))
    r, b = luma + 2 * (1 - red) * cr, luma + 2 * (1 - blue) * cb
    g = (luma - red * r - blue * b) / (1 - red - blue)
    return [float(np.clip(255 * c, 0, 255)) for c in (r, g, b)]


def patches(pixels: str = "yuv420p", depth: int = 8) -> av.VideoFrame:
    """16-pixel squares of ``PATCHES``, side by side."""
    frame = av.VideoFrame(16 * len(PATCHES), 16, pixels)
    for channel, plane in enumerate(frame.planes):
        row = np.repeat([patch[channel] << (depth - 8) for patch in PATCHES], plane.width // len(PATCHES))
        kind = np.uint8 if depth == 8 else np.uint16
        data = np.zeros((plane.height, plane.line_size // np.dtype(kind).itemsize), kind)
        data[:, : plane.width] = row
        plane.update(data.tobytes())
    return frame


def centres(picture: np.ndarray) -> np.ndarray:
    assert picture.dtype == np.uint8
    assert picture.shape == (16, 16 * len(PATCHES), 3)
    return picture[8, 8::16].astype(int)


@pytest.mark.parametrize(
    ("tags", "weights", "full"),
    [
        ("", BT601, False),
        ("colormatrix=smpte170m", BT601, False),
        ("colormatrix=bt709", BT709, False),
        ("colormatrix=bt709:fullrange=on", BT709, True),
        ("fullrange=on", BT601, True),
    ],
)
def test_matrix_and_range_of_the_stream_are_honoured(
    tags: str, weights: tuple[float, float], full: bool, tmp_path: Path
) -> None:
    path = tmp_path / "patches.mp4"
    with av.open(str(path), "w") as out:
        # Lossless, so the decoder returns these very values.
        options = {"qp": "0", "x264-params": tags}
        stream = out.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 16 * len(PATCHES), 16, "yuv420p"
        out.mux(stream.encode(patches()))
        out.mux(stream.encode(None))
    container, (picture,) = read(path)
    expected = [formula(*patch, weights, full) for patch in PATCHES]
    assert np.abs(centres(picture.rgb()) - expected).max() <= 2
    assert (container.color_range == 2) == full
    assert (container.colorspace == 1) == ("bt709" in tags)


@pytest.mark.parametrize(
    ("pixels", "depth"),
    [("yuv420p", 8), ("yuv422p", 8), ("yuv444p", 8), ("yuv420p10le", 10), ("yuv422p10le", 10)],
)
@pytest.mark.parametrize("full", [False, True])
def test_layouts_and_depths(pixels: str, depth: int, full: bool) -> None:
    frame = patches(pixels, depth)
    frame.color_range = 2 if full else 0
    # Rounding is all that is left of an error where the neighbourhood is flat.
    expected = [formula(*patch, BT601, full) for patch in PATCHES]
    assert np.abs(centres(to_rgb(frame)) - expected).max() <= 1


@pytest.mark.parametrize(("pixels", "depth"), [("gray", 8), ("gray10le", 10)])
@pytest.mark.parametrize("full", [False, True])
def test_grey_pictures(pixels: str, depth: int, full: bool) -> None:
    frame = patches(pixels, depth)
    frame.color_range = 2 if full else 1
    expected = [formula(y, 128, 128, BT601, full) for y, _, _ in PATCHES]
    # Ten bits are first cut to eight (an error up to 1), then stretched by 255/219 and rounded.
    assert np.abs(centres(to_rgb(frame)) - expected).max() <= 255 / 219 + 0.5


def test_rgb_pictures_pass_unchanged() -> None:
    values = np.random.default_rng(2).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for layout in ("rgb24", "gbrp", "bgr0"):
        frame = av.VideoFrame.from_ndarray(values, "rgb24").reformat(format=layout)
        assert (to_rgb(frame) == values).all()


def test_an_unknown_matrix_is_refused() -> None:
    frame = patches()
    frame.colorspace = 8  # YCgCo
    with pytest.raises(InputError, match="colour matrix 8"):
        to_rgb(frame)


def test_a_corrupt_picture_has_no_pixels(made, tmp_path: Path) -> None:
    _, pictures = read(damage.blank(made("h264.mp4"), tmp_path / "spoilt.mp4", 0))
    assert pictures[0].status == "corrupt"
    with pytest.raises(InputError, match="frame 0 is corrupt"):
        pictures[0].rgb()


def test_the_module_offers_what_it_says() -> None:
    assert all(hasattr(video, name) for name in video.__all__)
