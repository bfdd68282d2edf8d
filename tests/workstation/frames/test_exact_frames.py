"""Every frame under its own index, with the fate and the pixels that a reading of the whole recording gives it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import damage
import numpy as np
import pytest
from numbered_video import read_number, write_numbered
from orientation_samples import state_orientation
from video_samples import KINDS, recording

from capsule_edge.runtime.recording import Frame, FrameDecoder, SeekError, decode, find_entries, scan
from capsule_edge.workstation.frames import Caches, FrameSource, FrameUnavailable, encode_jpeg

X265 = "log-level=none:pools=none"
# Recordings of 180 frames with irregular times and B pictures, in the ways in which files are found.
NUMBERED = {
    "plain.mp4": {"options": {"bf": "3"}},
    "open.mp4": {"options": {"bf": "3", "x264-params": "open-gop=1"}},
    "pyramid.mp4": {"options": {"bf": "8", "x264-params": "b-pyramid=normal:ref=4"}},
    "fragments.mp4": {"options": {"bf": "3"}, "muxer": {"movflags": "frag_keyframe+empty_moov"}},
    "edited.mp4": {"options": {"bf": "2"}, "shift": 60, "muxer": {"avoid_negative_ts": "disabled"}},
    "plain.mkv": {"options": {"bf": "3"}},
    "open.mkv": {"options": {"bf": "3", "x264-params": "open-gop=1"}},
    "plain.ts": {"options": {"bf": "2"}},
    "plain.avi": {"options": {"bf": "2"}, "irregular": False},
    "intra_refresh.mp4": {"options": {"x264-params": "intra-refresh=1:keyint=48"}},
    # Its container marks the first strip of each refresh as a key frame, at which decoding does not begin anew.
    "intra_refresh.mkv": {"options": {"bf": "0", "x264-params": "intra-refresh=1:keyint=40"}},
    # No packet has a time stamp of its own.
    "plain.mpg": {"options": {"bf": "0"}, "irregular": False},
    "open_hevc.mp4": {"codec": "libx265", "options": {"x265-params": f"{X265}:open-gop=1:keyint=48"}},
    "mpeg2.ts": {"codec": "mpeg2video", "options": {"bf": "2", "b": "8M"}, "irregular": False},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"lag-in-frames": "12", "cpu-used": "8", "b": "8M"}},
}
# Recordings that can be decoded from their start alone, or nearly so.
NO_ENTRIES = ("intra_refresh.mp4", "intra_refresh.mkv", "edited.mp4", "plain.mpg")
# Room for a handful of frames: nearly every access decodes.
SMALL = 1 << 17


def digest(frame: Frame) -> tuple[str, str]:
    return frame.detail, "" if frame.image is None else hashlib.sha256(frame.rgb()).hexdigest()


def show(
    source: FrameSource, index: int, read: Callable[[int], bytes | np.ndarray] | None = None
) -> tuple[str, str]:
    try:
        return "", hashlib.sha256((read or source.picture)(index)).hexdigest()
    except FrameUnavailable as error:
        return error.detail, ""


@contextmanager
def small_source(path: Path, *, sound: bool = False) -> Iterator[FrameSource]:
    caches = Caches.of_size(SMALL, SMALL)
    with FrameSource.open(path, caches=caches, sound=sound) as source:
        yield source
    caches.ahead.close()


@pytest.mark.parametrize("sound", [False, True], ids=["unknown", "sound"])
@pytest.mark.parametrize("name", NUMBERED)
def test_a_random_frame_is_the_one_of_its_index(tmp_path: Path, name: str, sound: bool) -> None:
    path = write_numbered(tmp_path / name, **NUMBERED[name])
    whole = list(decode(scan(path)))
    numbers = [read_number(frame.rgb()) for frame in whole if frame.image is not None]
    assert len(numbers) == len(whole)
    # An edit list leaves pictures out at the start, an encoder none.
    assert numbers == list(range(numbers[0], 180))
    assert (numbers[0] > 0) == (name == "edited.mp4")
    asked = np.random.default_rng(5).integers(0, len(whole), 40).tolist()
    with small_source(path, sound=sound) as source:
        for index in asked:
            assert read_number(source.picture(index)) == numbers[index]
            assert show(source, index) == digest(whole[index])


@pytest.mark.parametrize("name", [name for name in NUMBERED if "codec" not in NUMBERED[name]])
def test_a_jump_in_a_sound_recording_leaves_pictures_out_and_shows_the_same(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_numbered(tmp_path / name, **NUMBERED[name])
    whole = list(decode(scan(path)))
    asked = np.random.default_rng(8).integers(0, len(whole), 60).tolist()
    reached: list[bool] = []
    original = FrameDecoder.jump
    monkeypatch.setattr(
        FrameDecoder,
        "jump",
        lambda self, *given: (frame := original(self, *given), reached.append(frame is not None))[0],
    )
    with small_source(path, sound=True) as source:
        for index in asked:
            assert source.jpeg(index) == encode_jpeg(whole[index].rgb())
    assert (all(reached) and len(reached) > 15) or name in NO_ENTRIES


@pytest.mark.parametrize("name", ["turned.mp4", "turned.mkv", "turned.ts"])
@pytest.mark.parametrize(
    "turns",
    [
        {48: (180, False)},
        {0: (180, False), 48: (0, True)},
        {51: (180, False)},
        {50: (0, True), 70: (180, False)},
    ],
    ids=["second group", "two groups", "behind a key frame", "twice in a group"],
)
def test_a_jump_turns_a_frame_as_a_whole_reading_does(
    tmp_path: Path, name: str, turns: dict[int, tuple[float, bool]]
) -> None:
    plain = write_numbered(tmp_path / "plain.mp4", **NUMBERED["plain.mp4"])
    path = state_orientation(plain, tmp_path / name, turns)
    whole = [frame.rgb() for frame in decode(scan(path))]
    stored = [frame.rgb() for frame in decode(scan(plain))]
    assert any(not np.array_equal(one, other) for one, other in zip(whole, stored, strict=True))
    for index in (94, 60, 75, 140, 47):
        # A new source has no decoder nearby to go on with, so it jumps.
        with small_source(path, sound=True) as source:
            assert source.jpeg(index) == encode_jpeg(whole[index]), index


def test_a_jump_sees_an_orientation_in_a_picture_that_it_leaves_out(tmp_path: Path) -> None:
    plain = write_numbered(tmp_path / "plain.mp4", **NUMBERED["plain.mp4"])
    container = scan(plain)
    keys = np.flatnonzero(container.packets.keys)
    for packet in range(keys[1] + 1, keys[1] + 12):
        path = state_orientation(plain, tmp_path / "turned.mp4", {packet: (180, False)})
        whole = [frame.rgb() for frame in decode(scan(path))]
        with small_source(path, sound=True) as source:
            for index in (90, 70, 60):
                assert source.jpeg(index) == encode_jpeg(whole[index]), (packet, index)


def test_a_jump_that_fails_falls_back_on_decoding_every_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_numbered(tmp_path / "plain.mp4", **NUMBERED["plain.mp4"])
    tried: list[int] = []
    monkeypatch.setattr(FrameDecoder, "jump", lambda self, packet, index, stopped: tried.append(index))
    whole = list(decode(scan(path)))
    with small_source(path, sound=True) as source:
        for index in np.random.default_rng(9).permutation(180)[:60].tolist():
            assert source.jpeg(index) == encode_jpeg(whole[index].rgb())
    assert len(tried) == 4


@pytest.mark.parametrize("seed", [1, 2])
def test_no_picture_is_left_out_where_damage_may_be(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = write_numbered(tmp_path / "plain.mp4", **NUMBERED["plain.mp4"])
    path = damage.flip(sound, tmp_path / "flipped.mp4", [40, 90, 130], seed, bits=3)
    expected = [frame.detail for frame in decode(scan(path))]
    monkeypatch.delattr(FrameDecoder, "jump")
    with small_source(path) as source:
        for index in np.random.default_rng(seed).permutation(180)[:40].tolist():
            assert show(source, index, source.jpeg)[0] == expected[index]


@pytest.mark.parametrize("name", ["plain.mkv", "plain.ts", "fragments.mp4", "plain.avi"])
def test_a_cut_recording_keeps_its_indices(tmp_path: Path, name: str) -> None:
    whole = write_numbered(tmp_path / name, **NUMBERED[name])
    path = damage.cut(whole, tmp_path / f"cut_{name}", 0.6)
    container = scan(path)
    expected = [digest(frame) for frame in decode(container)]
    assert 50 < container.present < 180
    with small_source(path) as source:
        for index in np.random.default_rng(6).permutation(container.present)[:40].tolist():
            assert show(source, index) == expected[index]
        for index in range(container.present, container.frames):
            with pytest.raises(FrameUnavailable) as caught:
                source.picture(index)
            assert caught.value.status == "missing"


@pytest.mark.parametrize(
    "kind", ["h264.mp4", "open_gop.mp4", "mpeg4_b.avi", "mpeg2.ts", "mjpeg.avi", "hevc.mp4"]
)
@pytest.mark.parametrize("seed", [1, 2])
def test_damage_reaches_the_same_frames_as_in_a_whole_reading(tmp_path: Path, kind: str, seed: int) -> None:
    sound = damage.encode(tmp_path / kind, frames=120, **KINDS[kind])
    packets = np.random.default_rng(seed).choice(110, 5, replace=False).tolist()
    path = damage.flip(sound, tmp_path / f"flipped_{kind}", packets, seed, bits=3)
    container = scan(path)
    expected = [frame.detail for frame in decode(container)]
    with small_source(path) as source:
        for index in np.random.default_rng(seed).permutation(container.present)[:70].tolist():
            assert show(source, index)[0] == expected[index], index


def test_damage_in_a_leading_picture_is_not_lost_by_beginning_at_its_key_frame(tmp_path: Path) -> None:
    sound = damage.encode(tmp_path / "open.avi", frames=120, **KINDS["mpeg4_b.avi"])
    entries = find_entries(scan(sound))
    number = 5
    assert entries.open[number]
    # The packet behind the key frame is shown before it.
    leading = int(entries.packets[number]) + 1
    path = damage.blank(sound, tmp_path / "damaged.avi", leading)
    container = scan(path)
    expected = [frame.detail for frame in decode(container)]
    begun = int(entries.frames[number])
    assert expected[begun] == ""
    assert "depends_on_damaged" in expected[begun : begun + 12]
    with small_source(path) as source:
        assert [show(source, index)[0] for index in range(begun, begun + 12)] == expected[begun : begun + 12]


def test_a_decoder_that_met_damage_leaves_no_trace_in_sound_frames(tmp_path: Path) -> None:
    sound = damage.encode(tmp_path / "baseline.mp4", frames=120, **KINDS["baseline.mp4"])
    path = damage.flip(sound, tmp_path / "flipped.mp4", [5, 30, 61, 77], 3, bits=3)
    expected = [digest(frame) for frame in decode(scan(sound))]
    frames = np.random.default_rng(1).integers(0, 120, 150).tolist()
    with small_source(path) as source:
        shown = {index: show(source, index) for index in frames}
    assert sum(bool(detail) for detail, _ in shown.values()) > 5
    assert all(found == expected[index] for index, found in shown.items() if not found[0])


def test_stepping_back_shows_the_frames_before(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "plain.mp4", **NUMBERED["plain.mp4"])
    with small_source(path) as source:
        assert [read_number(source.picture(index)) for index in range(150, 90, -1)] == list(
            range(150, 90, -1)
        )


def test_playing_forward_goes_on_with_the_open_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_numbered(tmp_path / "one.mp4", gop=1000, options={"bf": "2", "x264-params": "scenecut=0"})
    begun = []
    original = FrameDecoder.frames_from
    monkeypatch.setattr(
        FrameDecoder, "frames_from", lambda self, packet: begun.append(packet) or original(self, packet)
    )
    with small_source(path) as source:
        assert [read_number(source.picture(index)) for index in range(0, 180, 3)] == list(range(0, 180, 3))
    assert begun == [0]


def test_a_demuxer_that_lands_elsewhere_gives_no_wrong_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_numbered(tmp_path / "plain.mp4", **NUMBERED["plain.mp4"])

    def lose(self: FrameDecoder, source: object, stream: object, first: int) -> object:
        raise SeekError(first)

    monkeypatch.setattr(FrameDecoder, "_seek", lose)
    with small_source(path) as source:
        for index in (170, 100, 169, 50, 150, 20):
            assert read_number(source.picture(index)) == index
        access = source.access()
    assert access.most_frames == 180


@pytest.mark.parametrize("size", [(96, 80), (1280, 720)])
def test_a_recording_with_rare_key_frames_says_so(tmp_path: Path, size: tuple[int, int]) -> None:
    path = damage.encode(
        tmp_path / "exam.mp4", frames=60, gop=1000, size=size, options={"x264-params": "scenecut=0"}
    )
    with small_source(path) as source:
        access = source.access()
    assert (access.usual_frames, access.most_frames) == (57, 60)
    if size == (96, 80):
        assert (access.speed, access.reason) == ("fast", "")
    else:
        assert access.speed == "slow"
        assert access.reason == "Frames take longer to show, because the file has no key frame but its first."


def test_a_packet_that_is_not_the_listed_one_is_refused(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "plain.mp4", **NUMBERED["plain.mp4"])
    container = scan(path)
    entries = find_entries(container)
    container.packets.sizes[int(entries.packets[2]) + 1] += 1
    decoder = FrameDecoder(container)
    with pytest.raises(SeekError):
        list(decoder.frames_from(int(entries.packets[2])))
    decoder.close()


def test_a_real_recording_shows_the_frames_of_a_plain_decoder() -> None:
    path = recording("64440803f87b4843")
    whole = [digest(frame) for frame in decode(scan(path))]
    with small_source(path) as source:
        for index in np.random.default_rng(3).integers(0, len(whole), 12).tolist():
            assert show(source, index) == whole[index]
