"""The unread parts of a file beside its pictures are counted and reported, in every container."""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from plain_decoder import ffmpeg

from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.runtime.recording import Container, decode, scan
from capsule_edge.runtime.recording.leftovers import fits, warn_of_shape
from capsule_edge.runtime.recording.streams import StreamCount, _choose

CENC = {
    "encryption_scheme": "cenc-aes-ctr",
    "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
    "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
}
CODECS = {".flv": "flv1", ".asf": "msmpeg4", ".webm": "libvpx", ".mpg": "mpeg2video"}


def write(
    path: Path,
    *counts: int,
    codec: str = "",
    size: tuple[int, int] = (64, 48),
    ratio: Fraction | None = None,
    **muxer: str,
) -> Path:
    """Write a file with a video stream of so many pictures for each of ``counts``."""
    with av.open(str(path), "w", options=muxer) as file:
        streams = []
        for place in range(len(counts)):
            stream = file.add_stream(codec or CODECS.get(path.suffix, "mpeg4"), rate=25)
            stream.width, stream.height = size[0] + 16 * place, size[1]
            stream.pix_fmt = "yuv420p"
            stream.codec_context.gop_size = 5
            if ratio is not None:
                stream.codec_context.sample_aspect_ratio = ratio
            streams.append(stream)
        for index in range(max(counts)):
            for stream, count in zip(streams, counts, strict=True):
                if index < count:
                    pixels = np.full((stream.height, stream.width, 3), index * 4 % 200, np.uint8)
                    pixels[index % 40 :, index % 40 :] = 250
                    file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        for stream in streams:
            file.mux(stream.encode(None))
    return path


def join(path: Path, *parts: Path | bytes) -> Path:
    path.write_bytes(b"".join(part if isinstance(part, bytes) else part.read_bytes() for part in parts))
    return path


def words(container: Container) -> dict[str, str]:
    found = {warning.code: warning.message for warning in container.warnings}
    assert len(found) == len(container.warnings)
    return found


def read_whole(container: Container) -> int:
    frames = list(decode(container))
    assert Counter(frame.status for frame in frames) == {"ok": container.present}
    return len(frames)


@pytest.mark.parametrize(
    "name", ["two.mp4", "two.mov", "two.mkv", "two.avi", "two.ts", "two.mpg", "two.webm"]
)
def test_the_longest_stream_is_read_and_the_other_one_told(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, 4, 20)
    container = scan(path)
    assert (container.stream, container.width, read_whole(container)) == (1, 80, 20)
    assert list(words(container)) == ["other_stream"]
    assert words(container)["other_stream"].startswith("4 pictures of another video stream (number 0, ")
    assert words(container)["other_stream"].endswith("64 x 48) were not read; --stream 0 reads it.")
    other = scan(path, stream=0)
    assert (other.stream, other.width, read_whole(other)) == (0, 64, 4)
    assert words(other)["other_stream"].startswith("20 pictures of another video stream (number 1, ")


def test_a_stream_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    two, one = write(tmp_path / "two.mkv", 4, 20), write(tmp_path / "one.mp4", 3)
    with pytest.raises(UsageError, match=r"0 \(mpeg4, 64 x 48, 4 pictures\), 1 \(mpeg4, 80 x 48, 20 pict"):
        scan(two, stream=2)
    with pytest.raises(UsageError, match=r"stream is 1, the video streams of .* are 0 \(mpeg4\)"):
        scan(one, stream=1)
    assert scan(one, stream=0).warnings == ()


@pytest.mark.quick
@pytest.mark.parametrize(
    ("streams", "chosen"),
    [
        ([(50, 0, False), (50, 0, False)], 0),
        ([(50, 0, False), (46, 0, True)], 1),  # as long, and the default
        ([(50, 0, False), (44, 0, True)], 0),
        ([(46, 0, True), (50, 0, True)], 1),
        ([(90, 90, True), (5, 0, False)], 1),  # an encrypted stream cannot be read
        ([(90, 60, False), (31, 0, False)], 1),
    ],
)
def test_the_default_flag_decides_between_streams_of_one_length(streams: list[Any], chosen: int) -> None:
    from capsule_edge.runtime.recording.ffmpeg import StreamPlace

    counts = [
        StreamCount(number, StreamPlace(), "h264", 64, 48, pictures, encrypted, default)
        for number, (pictures, encrypted, default) in enumerate(streams)
    ]
    assert _choose(Path("exam"), counts, None).number == chosen


def test_a_cover_picture_is_no_stream(tmp_path: Path) -> None:
    plain, path = write(tmp_path / "plain.mp4", 6), tmp_path / "cover.mp4"
    with av.open(str(plain)) as source, av.open(str(path), "w") as file:
        video, cover = file.add_stream_from_template(source.streams.video[0]), file.add_stream("mjpeg")
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = video
                file.mux(packet)
        file.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "rgb24")))
    assert (scan(path).present, scan(path).warnings) == (6, ())


NULL_PACKET = b"\x47\x1f\xff\x10" + bytes(184)


def pid_change(folder: Path, *, gap: int) -> Path:
    """Write 20 pictures, 30 on another PID, and 5 of the first again, with ``gap`` empty packets between."""
    parts = [
        write(folder / f"{at}.ts", count, mpegts_start_pid=pid)
        for at, (count, pid) in enumerate([(20, "256"), (30, "512"), (5, "256")])
    ]
    empty = NULL_PACKET * gap
    return join(folder / "joined.ts", parts[0], empty, parts[1], empty, parts[2])


@pytest.mark.parametrize("gap", [0, 40_000])
def test_a_second_pid_is_counted_also_where_ffmpeg_does_not_see_it(tmp_path: Path, gap: int) -> None:
    path = pid_change(tmp_path, gap=gap)
    with av.open(str(path)) as source:
        assert len(source.streams.video) == (1 if gap else 2), "the gap hides the second PID from FFmpeg"
    longer = scan(path)
    assert (longer.stream, read_whole(longer)) == (1, 30)
    assert words(longer) == {
        "other_stream": "25 pictures of another video stream (number 0, mpeg4, 64 x 48) were not read; "
        "--stream 0 reads it."
    }
    shorter = scan(path, stream=0)
    assert (shorter.stream, sum(1 for _ in decode(shorter))) == (0, 25)
    assert words(shorter)["other_stream"].startswith("30 pictures of another video stream (number 1, mpeg4")


@pytest.mark.parametrize("pictures", [30, 200])
def test_a_stream_of_a_program_stream_that_begins_late_is_counted(tmp_path: Path, pictures: int) -> None:
    first, second = write(tmp_path / "a.mpg", pictures), write(tmp_path / "b.mpg", 20, size=(96, 64))
    data = bytearray(second.read_bytes())
    for at in range(len(data) - 4):
        if data[at : at + 4] == b"\0\0\1\xe0":
            data[at + 3] = 0xE1
    padding = (b"\0\0\1\xbe\x07\xfa" + b"\xff" * 2042) * 4000
    path = join(tmp_path / "joined.mpg", first, padding, bytes(data), padding, first)
    with av.open(str(path)) as source:
        assert len(source.streams.video) == (1 if pictures == 200 else 2), (
            "FFmpeg stops looking after some seconds"
        )
    container = scan(path)
    assert (container.stream, container.width, container.present) == (0, 64, 2 * pictures)
    assert sorted(words(container)) == ["clock_restarts", "other_stream"]
    assert words(container)["other_stream"] == (
        "20 pictures of another video stream (number 1, mpeg2video, 96 x 64) were not read; --stream 1 reads it."
    )
    assert read_whole(scan(path, stream=1)) == 20


APPENDED = {
    "mp4": ("a.mp4", "b.mp4", {}),
    "fragmented": ("a.mp4", "b.mp4", {"movflags": "frag_keyframe+empty_moov"}),
    "fragmented, base moof": (
        "a.mp4",
        "b.mp4",
        {"movflags": "frag_keyframe+empty_moov+default_base_moof+skip_trailer"},
    ),
    "mov": ("a.mov", "b.mov", {}),
    "flv": ("a.flv", "b.flv", {}),
    "asf": ("a.asf", "b.asf", {}),
    "mp4 then avi": ("a.mp4", "b.avi", {}),
    "avi then mp4": ("a.avi", "b.mp4", {}),
    "mkv then webm": ("a.mkv", "b.webm", {}),
    "mkv then flv": ("a.mkv", "b.flv", {}),
}


@pytest.mark.parametrize("kind", APPENDED)
def test_recordings_behind_the_first_are_counted(tmp_path: Path, kind: str) -> None:
    one, other, muxer = APPENDED[kind]
    first = write(tmp_path / one, 12, **muxer)
    second, third = (
        write(tmp_path / other, 7, **muxer),
        write(tmp_path / f"c{Path(other).suffix}", 4, **muxer),
    )
    alone = scan(first)
    assert alone.warnings == ()
    path = join(tmp_path / f"joined{first.suffix}", first, second, third)
    container = scan(path)
    assert (container.present, container.truncated) == (12, alone.truncated)
    assert read_whole(container) == 12
    places = f"{first.stat().st_size:,}, {first.stat().st_size + second.stat().st_size:,}"
    assert words(container) == {
        "appended_recording": "11 pictures of 2 further recordings behind the first in the same file were not "
        f"read. Split the file at bytes {places} and read each part."
    }


@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".ts", ".mpg"])
def test_joined_recordings_that_one_decoder_reads_are_read_whole(tmp_path: Path, suffix: str) -> None:
    first, second = write(tmp_path / f"a{suffix}", 12), write(tmp_path / f"b{suffix}", 7)
    container = scan(join(tmp_path / f"joined{suffix}", first, second))
    assert container.present == 19
    # The clock of an AVI is its number of frames.
    assert list(words(container)) == ([] if suffix == ".avi" else ["clock_restarts"])


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_joined_recordings_of_two_sizes_are_not_mixed(tmp_path: Path, suffix: str) -> None:
    first, second = write(tmp_path / f"a{suffix}", 12), write(tmp_path / f"b{suffix}", 7, size=(96, 64))
    container = scan(join(tmp_path / f"joined{suffix}", first, second))
    assert (read_whole(container), container.truncated) == (12, False)
    assert words(container)["appended_recording"].startswith("7 pictures of 1 further recording behind")


def test_joined_ogg_recordings_of_two_sizes_are_not_mixed(tmp_path: Path) -> None:
    """The sound is a stream of its own, which begins right behind the beginning of the video."""
    parts = [tmp_path / "a.ogg", tmp_path / "b.ogg"]
    for path, size in zip(parts, ("176x144", "96x64"), strict=True):
        source = ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate=25:duration=1"]
        sound = ["-f", "lavfi", "-i", "sine=duration=1"]
        ffmpeg(*source, *sound, "-c:v", "libtheora", "-c:a", "libopus", path)
    assert scan(parts[0]).warnings == ()
    container = scan(join(tmp_path / "joined.ogg", *parts))
    assert (container.width, read_whole(container)) == (176, 25)
    assert words(container)["appended_recording"].startswith("25 pictures of 1 further recording behind")


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_joined_recordings_with_two_video_streams_are_read_whole(tmp_path: Path, suffix: str) -> None:
    first, second = write(tmp_path / f"a{suffix}", 4, 20), write(tmp_path / f"b{suffix}", 3, 12)
    container = scan(join(tmp_path / f"joined{suffix}", first, second))
    assert (container.stream, read_whole(container)) == (1, 32)
    assert words(container)["other_stream"].startswith("7 pictures of another video stream")
    assert "appended_recording" not in words(container)


def test_a_second_recording_that_cannot_be_opened_is_said(tmp_path: Path) -> None:
    first = write(tmp_path / "a.mp4", 12)
    container = scan(join(tmp_path / "joined.mp4", first, first.read_bytes()[:-500]))
    assert read_whole(container) == 12
    assert words(container)["appended_recording"].startswith(
        "1 further recording behind the first in the same file could not be opened. Split"
    )
    container = scan(join(tmp_path / "three.mp4", first, first, first.read_bytes()[:-500]))
    assert read_whole(container) == 12
    assert words(container)["appended_recording"].startswith(
        "12 pictures of 2 further recordings behind the first in the same file were not read; 1 of them could not"
    )


@pytest.mark.parametrize("behind", [bytes(5000), b"text that is no recording " * 50, b"\0\0\0\x18ftypisom"])
@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv", ".ts"])
def test_other_bytes_behind_a_recording_hold_no_picture(tmp_path: Path, suffix: str, behind: bytes) -> None:
    path = join(tmp_path / f"b{suffix}", write(tmp_path / f"a{suffix}", 12), behind)
    container = scan(path)
    assert read_whole(container) == 12
    assert "pictures of" not in words(container).get("appended_recording", "")


@pytest.mark.parametrize(
    ("name", "muxer"),
    [
        ("a.ts", {}),
        ("a.mkv", {"live": "1"}),
        ("a.flv", {}),
        ("a.mp4", {"movflags": "frag_keyframe+empty_moov+skip_trailer"}),
    ],
)
def test_a_recording_that_grows_is_read_as_it_was_scanned(tmp_path: Path, name: str, muxer: Any) -> None:
    whole = write(tmp_path / name, 60, **muxer).read_bytes()
    path = tmp_path / f"growing{Path(name).suffix}"
    path.write_bytes(whole[: len(whole) // 2])
    container = scan(path)
    assert container.growth() == ()
    frames = decode(container)
    indices = [next(frames).index]
    path.write_bytes(whole)
    indices += [frame.index for frame in frames]
    assert indices == list(range(container.present))
    assert 10 < container.present < 60
    # Opened again, as illustrations and the groups of pictures are.
    assert sum(1 for _ in decode(container)) == container.present
    assert container.digest() == hashlib.sha256(whole[: len(whole) // 2]).hexdigest()
    (warning,) = container.growth()
    assert warning.code == "grew"
    assert warning.message.startswith(f"{len(whole) - len(whole) // 2:,} bytes were added to ")
    assert scan(path).present == 60


def test_a_recording_that_shrinks_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ts", 60)
    container, whole = scan(path), path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="changed while it was read"):
        list(decode(container))
    with pytest.raises(InputError, match="became shorter"):
        container.digest()


def test_encrypted_mp4_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is encrypted: none of its 9 pictures can be read"):
        scan(write(tmp_path / "a.mp4", 9, codec="libx264", **CENC))
    with pytest.raises(InputError, match="is encrypted: none of its 12 pictures can be read"):
        scan(write(tmp_path / "b.mp4", 9, 3, codec="libx264", **CENC))


def test_a_protected_sample_entry_without_details_is_encrypted(tmp_path: Path) -> None:
    data = write(tmp_path / "a.mp4", 9, codec="libx264").read_bytes()
    assert data.count(b"avc1") >= 1
    at = data.index(b"avc1", data.index(b"stsd"))
    path = join(tmp_path / "drm.mp4", data[:at] + b"drmi" + data[at + 4 :])
    with pytest.raises(InputError, match="is encrypted: none of its pictures can be read"):
        scan(path)


def sealed_matroska(folder: Path) -> Path:
    """Write a Matroska file whose first video track announces encryption, in place of its id and language."""
    data = write(folder / "plain.mkv", 9, 5).read_bytes()
    at = data.index(b"\x73\xc5\x88", data.index(b"\x16\x54\xae\x6b", 0x80))
    end = data.index(b"\x22\xb5\x9c\x83und", at) + 7
    seal = bytes.fromhex("6d808f62408c5033810150358547e1820005")
    room = end - at - len(seal)
    assert room in (3, *range(5, 64))
    return join(folder / "sealed.mkv", data[:at] + data[at + 11 : end - 7] + seal + data[end:])


def test_an_encrypted_track_beside_another_is_told(tmp_path: Path) -> None:
    path = sealed_matroska(tmp_path)
    container = scan(path)
    assert (container.stream, container.width, read_whole(container)) == (1, 80, 5)
    assert words(container)["other_stream"] == (
        "9 pictures of another video stream (number 0, mpeg4, 64 x 48) were not read: the stream is encrypted."
    )
    with pytest.raises(InputError, match="is encrypted"):
        scan(path, stream=0)


def scrambled(path: Path, target: Path, *, since: float) -> Path:
    """Scramble the payloads of a transport stream's video from a share of its packets on."""
    packets = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, 188).copy()
    video = np.flatnonzero((packets[:, 1].astype(int) & 31) << 8 | packets[:, 2] == 256)
    for row in video[int(since * len(video)) :]:
        control = packets[row, 3] >> 4
        if control & 1:
            packets[row, 4 + (1 + int(packets[row, 4]) if control & 2 else 0) :] ^= 0x5A
            packets[row, 3] |= 0x80
    return join(target, packets.tobytes())


def test_scrambled_transport_packets_are_counted(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.ts", 20)
    with pytest.raises(InputError, match="is encrypted: none of its 20 pictures can be read"):
        scan(scrambled(plain, tmp_path / "whole.ts", since=0))
    container = scan(scrambled(plain, tmp_path / "half.ts", since=0.5))
    assert 5 < container.present < 15
    assert words(container) == {
        "encrypted_pictures": f"{20 - container.present} of 20 pictures are encrypted and could not be read."
    }


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.mpg"])
def test_pixels_that_are_not_square_are_told(tmp_path: Path, name: str) -> None:
    container = scan(write(tmp_path / name, 5, ratio=Fraction(12, 11)))
    assert (container.width, container.height) == (64, 48)
    if name == "a.mpg":  # MPEG-2 states the shape of the picture, not of the pixel
        assert "sample_aspect_ratio" not in words(scan(write(tmp_path / name, 5)))
        return
    assert "12:11" in words(container)["sample_aspect_ratio"]
    assert (
        "as they are stored, 64 x 48, and players show them as 70 x 48"
        in (words(container)["sample_aspect_ratio"])
    )


@pytest.mark.quick
@pytest.mark.parametrize("ratio", [None, Fraction(0), Fraction(1), Fraction(337, 336)])
def test_pixels_that_are_square_but_for_rounding_are_not_told(ratio: Fraction | None) -> None:
    assert warn_of_shape(ratio, 320, 240) == []


@pytest.mark.quick
def test_a_missing_picture_takes_eight_bytes_at_least() -> None:
    assert fits(0, 0)
    assert fits(10, 80)
    assert not fits(11, 87)


def test_an_avi_cannot_announce_four_million_pictures(tmp_path: Path) -> None:
    data = bytearray(write(tmp_path / "a.avi", 12).read_bytes())
    struct.pack_into("<I", data, data.index(b"strh") + 8 + 32, 4_000_000)
    container = scan(join(tmp_path / "odd.avi", bytes(data)))
    assert (container.announced, container.frames, container.missing) == (None, 12, 0)
    assert "announces 4,000,000 pictures" in words(container)["header_count"]
    # A few more are frames that the recorder did not get to write.
    struct.pack_into("<I", data, data.index(b"strh") + 8 + 32, 15)
    container = scan(join(tmp_path / "short.avi", bytes(data)))
    assert (container.missing, container.warnings) == (3, ())


def test_an_mp4_cannot_announce_four_million_pictures(tmp_path: Path) -> None:
    data = bytearray(write(tmp_path / "a.mp4", 12).read_bytes())
    struct.pack_into(">I", data, data.index(b"stts") + 12, 4_000_000)
    container = scan(join(tmp_path / "odd.mp4", bytes(data)))
    assert (container.frames, container.missing) == (12, 0)
    assert "announces 4,000,000 pictures" in words(container)["header_count"]
