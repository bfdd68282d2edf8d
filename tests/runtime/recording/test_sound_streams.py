"""A corpus of sound streams that look odd to a decoder: every frame counts, and none is reported as damaged."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import av.logging
import cv2
import damage
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from live_servers import Clock, live, server
from video_samples import details, read

from capsule_edge.runtime.recording import Frame, decode, ffmpeg, scan
from capsule_edge.runtime.recording.damage_lines import damage_detection, reads_log, tell_damage

# File: encoder, and pixel format. All encoders of FFmpeg that PyAV can write into these containers.
ENCODERS = {
    "amv.avi": ("amv", "yuvj420p"),
    "asv1.avi": ("asv1", "yuv420p"),
    "asv2.asf": ("asv2", "yuv420p"),
    "avrp.mov": ("avrp", "gbrp10le"),
    "cfhd.avi": ("cfhd", "yuv422p10le"),
    "cfhd.mov": ("cfhd", "yuv422p10le"),
    "cinepak.avi": ("cinepak", "rgb24"),
    "cinepak.mov": ("cinepak", "rgb24"),
    "cljr.avi": ("cljr", "yuv411p"),
    "dirac.mkv": ("dirac", "yuv420p"),
    "dpx.mov": ("dpx", "rgb24"),
    "dxv.mov": ("dxv", "rgba"),
    "exr.mov": ("exr", "grayf32le"),
    "ffv1.avi": ("ffv1", "yuv420p"),
    "ffv1.mkv": ("ffv1", "yuv420p"),
    "ffvhuff.avi": ("ffvhuff", "yuv420p"),
    "flashsv.avi": ("flashsv", "bgr24"),
    "flashsv.flv": ("flashsv", "bgr24"),
    "flashsv2.flv": ("flashsv2", "bgr24"),
    "flv.avi": ("flv", "yuv420p"),
    "flv.flv": ("flv", "yuv420p"),
    "h263p.avi": ("h263p", "yuv420p"),
    "h264.flv": ("libx264", "yuv420p"),
    "h264rgb.mov": ("libx264rgb", "rgb24"),
    "huffyuv.avi": ("huffyuv", "yuv422p"),
    "jpeg2000.mov": ("jpeg2000", "yuv420p"),
    "jpegls.avi": ("jpegls", "rgb24"),
    "ljpeg.avi": ("ljpeg", "yuvj420p"),
    "magicyuv.avi": ("magicyuv", "yuv420p"),
    "mjpeg.mov": ("mjpeg", "yuvj420p"),
    "mpeg1video.mov": ("mpeg1video", "yuv420p"),
    "mpeg2video.avi": ("mpeg2video", "yuv420p"),
    "mpeg4.mkv": ("mpeg4", "yuv420p"),
    "msmpeg4.avi": ("msmpeg4", "yuv420p"),
    "msmpeg4v2.avi": ("msmpeg4v2", "yuv420p"),
    "msvideo1.asf": ("msvideo1", "rgb555le"),
    "msvideo1.avi": ("msvideo1", "rgb555le"),
    "png.avi": ("png", "rgb24"),
    "png.mov": ("png", "rgb24"),
    "prores_aw.mov": ("prores_aw", "yuv422p10le"),
    "prores_ks.mkv": ("prores_ks", "yuv422p10le"),
    "qtrle.mov": ("qtrle", "rgb24"),
    "r10k.avi": ("r10k", "gbrp10le"),
    "r210.mov": ("r210", "gbrp10le"),
    "rawvideo.avi": ("rawvideo", "yuv420p"),
    "rpza.avi": ("rpza", "rgb555le"),
    "rpza.mov": ("rpza", "rgb555le"),
    "sgi.mov": ("sgi", "rgb24"),
    "snow.avi": ("snow", "yuv420p"),
    "speedhq.avi": ("speedhq", "yuv420p"),
    "svq1.avi": ("svq1", "yuv410p"),
    "svq1.mov": ("svq1", "yuv410p"),
    "targa.mov": ("targa", "bgr24"),
    "utvideo.avi": ("utvideo", "yuv420p"),
    "v210.mov": ("v210", "yuv422p"),
    "v410.avi": ("v410", "yuv444p10le"),
    "wmv1.asf": ("wmv1", "yuv420p"),
    "wmv2.avi": ("wmv2", "yuv420p"),
    "y41p.avi": ("y41p", "yuv411p"),
    "yuv4.mov": ("yuv4", "yuv420p"),
    "zlib.avi": ("zlib", "bgr24"),
    "zmbv.avi": ("zmbv", "rgb555le"),
}
# Bit stream filters that change what goes before the slices, but no picture.
HEADERS = {
    "h264": (
        "h264_metadata=level=1.0",
        "h264_metadata=level=6.2",
        "h264_metadata=sample_aspect_ratio=0/1",
        "h264_metadata=tick_rate=4294967295/1",
        "h264_metadata=tick_rate=1/4294967295",
        "h264_metadata=video_format=7:overscan_appropriate_flag=1:chroma_sample_loc_type=5",
        "h264_metadata=crop_left=2:crop_right=2",
        "h264_metadata=crop_top=4",
        "h264_metadata=aud=insert",
        "h264_metadata=sei_user_data=086f3693-b7b3-4f2c-9653-21492feee5b8+capsule",
        "filter_units=remove_types=6|9",
    ),
    "hevc": (
        "hevc_metadata=level=1",
        "hevc_metadata=level=8.5",
        "hevc_metadata=tick_rate=1/4294967295:num_ticks_poc_diff_one=7",
        "hevc_metadata=video_format=7:chroma_sample_loc_type=5",
        "hevc_metadata=crop_left=2",
        "filter_units=remove_types=39|40",
    ),
}
OPEN = {
    "h264": ("libx264", {"bf": "3", "x264-params": "open-gop=1:min-keyint=12:scenecut=0:b-adapt=0"}),
    "pyramid": (
        "libx264",
        {
            "bf": "4",
            "refs": "4",
            "x264-params": "open-gop=1:min-keyint=12:scenecut=0:b-adapt=0:b-pyramid=normal",
        },
    ),
    "hevc": (
        "libx265",
        {"x265-params": "log-level=none:pools=none:open-gop=1:min-keyint=12:scenecut=0:b-adapt=0:bframes=3"},
    ),
    "radl": (
        "libx265",
        {
            "x265-params": "log-level=none:pools=none:open-gop=0:radl=2:min-keyint=12:scenecut=0:b-adapt=0:bframes=3"
        },
    ),
    "mpeg2": ("mpeg2video", {"bf": "2"}),
    "mpeg4": ("mpeg4", {"bf": "2"}),
}


@pytest.mark.quick
@pytest.mark.parametrize("name", ENCODERS)
def test_no_encoder_makes_a_stream_that_is_called_corrupt(name: str, tmp_path: Path) -> None:
    encoder, pixels = ENCODERS[name]
    if encoder not in av.codecs_available:
        pytest.skip(f"this build of FFmpeg has no encoder {encoder}")
    path = damage.encode(tmp_path / name, encoder, frames=9, gop=4, pixels=pixels)
    _, frames = read(path)
    assert details(frames) == [""] * 9


@pytest.mark.quick
def test_an_image_with_an_unknown_tag_is_sound(tmp_path: Path) -> None:
    """TIFF's decoder refuses any tag that it does not know if it is told to "explode"."""
    path = damage.encode(tmp_path / "tagged.mov", "tiff", frames=3, pixels="rgb24")
    with ffmpeg.open_recording(path) as (source, stream):
        decoder = ffmpeg.open_decoder(path, stream)
        images = [decoder.decode(packet) for packet in ffmpeg.picture_packets(source, stream)]
    assert [len(each) for each in images] == [1, 1, 1]


def rewrite(source: Path, path: Path, change: Callable[[av.Packet], list[av.Packet]]) -> Path:
    """Write the packets that ``change`` makes of each packet into another file."""
    with av.open(str(source)) as read_from, av.open(str(path), "w") as out:
        stream = read_from.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in read_from.demux(stream):
            for each in change(packet) if packet.size else []:
                each.stream = copy
                out.mux(each)
    return path


@pytest.mark.parametrize("ending", ["mp4", "ts"])
@pytest.mark.parametrize(
    ("codec", "change"), [(codec, change) for codec, changes in HEADERS.items() for change in changes]
)
def test_odd_headers_are_no_damage(codec: str, change: str, ending: str, made, tmp_path: Path) -> None:
    path = tmp_path / f"odd.{ending}"
    with av.open(str(made(f"{codec}.mp4"))) as source, av.open(str(path), "w") as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        changes = BitStreamFilterContext(change, stream, copy)
        for packet in source.demux(stream):
            for each in changes.filter(packet if packet.size else None):
                each.stream = copy
                out.mux(each)
    container, frames = read(path)
    assert details(frames) == [""] * 60
    assert {frame.rgb().shape for frame in frames} == {(container.height, container.width, 3)}


def without_tick_rate(data: bytes) -> bytes:
    """Set the number of units in a tick of the VUI to 0. It stands before the time scale 50, at any bit."""
    at = data.index(b"\x00\x00\x00\x01\x67") + 5
    end = data.index(b"\x00\x00\x01", at) - (1 if data[data.index(b"\x00\x00\x01", at) - 1] == 0 else 0)
    bits = "".join(f"{byte:08b}" for byte in data[at:end].replace(b"\0\0\3", b"\0\0"))
    rate = f"{1:032b}{50:032b}"
    assert bits.count(rate) == 1
    bits = bits.replace(rate, f"{0:032b}{50:032b}")
    plain = bytes(int(bits[place : place + 8], 2) for place in range(0, len(bits), 8))
    escaped = bytearray()
    for byte in plain:
        if escaped[-2:] == b"\0\0" and byte <= 3:
            escaped.append(3)
        escaped.append(byte)
    return data[:at] + bytes(escaped) + data[end:]


def test_a_frame_rate_of_zero_is_no_damage(made, tmp_path: Path) -> None:
    """FFmpeg logs an error at each key frame: "time_scale/num_units_in_tick invalid or unsupported"."""

    def change(packet: av.Packet) -> list[av.Packet]:
        if not packet.is_keyframe:
            return [packet]
        changed = av.Packet(without_tick_rate(bytes(packet)))
        changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
        return [changed]

    path = rewrite(made("h264.ts"), tmp_path / "odd.ts", change)
    with ffmpeg.open_recording(path) as (source, stream):
        decoder = ffmpeg.open_decoder(path, stream)
        with av.logging.Capture() as lines:
            for packet in ffmpeg.picture_packets(source, stream):
                decoder.decode(packet)
    assert sum(line[2].startswith("time_scale/num_units_in_tick") for line in lines) >= 5
    assert details(read(path)[1]) == [""] * 60


def cut_out(source: Path, path: Path, *, first_key: int, later: int | None = None) -> Path:
    """Copy the packets from a key frame on. With ``later`` the time is 0 so many frames after that key frame."""
    with av.open(str(source)) as read_from:
        keys = [packet.pts for packet in read_from.demux(video=0) if packet.size and packet.is_keyframe]
    start = keys[first_key]
    begun = False

    def change(packet: av.Packet) -> list[av.Packet]:
        nonlocal begun
        begun = begun or packet.pts == start
        assert packet.time_base is not None
        shift = 0 if later is None else start + int(Fraction(later, 25) / packet.time_base)
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        return [packet] if begun else []

    return rewrite(source, path, change)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, list[Frame]]]:
    """Return an open-GOP recording and its frames, made once."""
    folder = tmp_path_factory.mktemp("whole")
    made: dict[str, tuple[Path, list[Frame]]] = {}

    def make(kind: str) -> tuple[Path, list[Frame]]:
        if kind not in made:
            encoder, options = OPEN[kind]
            path = damage.encode(folder / f"{kind}.ts", encoder, options=options)
            made[kind] = path, list(decode(scan(path)))
        return made[kind]

    return make


def equal_tail(frames: list[Frame], originals: list[Frame]) -> bool:
    """Return whether frames are the last ones of a recording, bit for bit."""
    return all(
        (ours.rgb() == theirs.rgb()).all()
        for ours, theirs in zip(frames, originals[len(originals) - len(frames) :], strict=True)
    )


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("kind", OPEN)
def test_a_recording_may_begin_at_an_open_key_frame(kind: str, ending: str, whole, tmp_path: Path) -> None:
    """Leading pictures that build on what was cut off are no frames; all others are those of the whole recording."""
    source, originals = whole(kind)
    path = cut_out(source, tmp_path / f"cut.{ending}", first_key=2)
    container, frames = read(path)
    assert details(frames) == [""] * len(frames)
    assert equal_tail(frames, originals)
    left_out = len(container.packets) - container.present - container.edited_out
    # RADL pictures are leading pictures that can be decoded.
    assert (left_out > 0) == (kind != "radl" and not container.edited_out)
    assert [warning.code for warning in container.warnings] == (["leading_pictures"] if left_out else [])


def test_leading_pictures_may_lack_a_time_of_their_own(whole, tmp_path: Path) -> None:
    """Matroska holds no negative times: the leading picture has none."""
    source, originals = whole("pyramid")
    container, frames = read(cut_out(source, tmp_path / "cut.mkv", first_key=2, later=0))
    assert container.packets[1].pts is None
    assert details(frames) == [""] * len(frames)
    assert equal_tail(frames, originals)


@pytest.mark.parametrize("kind", ["h264", "pyramid", "hevc", "mpeg2", "mpeg4"])
def test_an_edit_list_may_discard_the_leading_pictures(kind: str, whole, tmp_path: Path) -> None:
    source, originals = whole(kind)
    container, frames = read(cut_out(source, tmp_path / "cut.mp4", first_key=2, later=2))
    assert container.edited_out > 0
    assert details(frames) == [""] * len(frames)
    assert equal_tail(frames, originals)
    assert not container.warnings


def test_a_recording_may_begin_in_an_intra_refresh(tmp_path: Path) -> None:
    """The pictures up to its end cannot be decoded; the others are those of the whole recording."""
    options = {"x264-params": "intra-refresh=1:bframes=0:keyint=12"}
    source = damage.encode(tmp_path / "strips.mp4", options=options)
    _, frames = read(cut_out(source, tmp_path / "cut.mkv", first_key=2))
    whole_from = details(frames).index("")
    assert 0 < whole_from < 12
    assert details(frames)[whole_from:] == [""] * (len(frames) - whole_from)
    assert equal_tail(frames[whole_from:], list(decode(scan(source))))


def test_damage_in_the_first_key_frame_is_not_taken_for_an_intra_refresh(made, tmp_path: Path) -> None:
    path = damage.blank(made("h264.mp4"), tmp_path / "spoilt.mp4", 0, behind=0.0)
    assert all(details(read(path)[1])[:12])


def test_damage_ends_at_the_containers_key_frame_if_the_decoder_marks_none(tmp_path: Path) -> None:
    source = damage.encode(tmp_path / "rle.mov", "qtrle", frames=12, gop=4, pixels="rgb24")
    data = bytearray(source.read_bytes())
    at, _ = damage.packet_spans(source)[5]
    # The header of the packet: a first line far outside the image.
    data[at + 4 : at + 8] = b"\0\x0d\xff\xff"
    path = tmp_path / "spoilt.mov"
    path.write_bytes(data)
    container, frames = read(path)
    assert [index for index, packet in enumerate(container.packets) if packet.key] == [0, 4, 8]
    found = details(frames)
    assert found[:5] == [""] * 5
    assert found[8:] == [""] * 4


def test_a_network_source_may_have_a_decoder_that_marks_no_key_frames(tmp_path: Path) -> None:
    source = damage.encode(tmp_path / "rle.mov", "qtrle", frames=9, gop=4, pixels="rgb24")
    data = damage.remux(source, tmp_path / "first.mov", movflags="faststart").read_bytes()
    with server(lambda _turn: ("video/quicktime", data), length=True) as address:
        assert [frame is None for frame in live(address, Clock()).read()] == [False] * 9


@pytest.mark.quick
@pytest.mark.parametrize(
    ("decoder", "line", "damaged"),
    [
        ("h264", "error while decoding MB 3 2, bytestream 55\n", True),
        ("h264", "reference overflow 33 > 31 or 0 > 31\n", True),
        ("h264", "reference overflow (pps)\n", False),
        ("h264", "mmco: unref short failure\n", False),
        (
            "h264",
            "number of reference frames (0+5) exceeds max (4; probably corrupt input), discarding one\n",
            False,
        ),
        ("h264", "SEI type 5 size 700 truncated at 40\n", False),
        ("h264", "a line of a later FFmpeg\n", False),
        ("hevc", "Could not find ref with POC 12\n", True),
        ("hevc", "VPS 0 does not exist\n", False),
        ("hevc", "SPS 0 does not exist\n", True),
        ("ffv1", "slice CRC mismatch 8D2AF1!", True),
    ],
)
def test_a_line_means_damage_if_it_is_about_a_slice(decoder: str, line: str, damaged: bool) -> None:
    assert reads_log(decoder)
    assert tell_damage(decoder, [(av.logging.ERROR, decoder, line)]) is damaged
    assert not tell_damage(decoder, [(av.logging.WARNING, decoder, line)])


@pytest.mark.quick
@pytest.mark.parametrize(
    ("codec", "detection"),
    [
        ("h264", "full"),
        ("hevc", "partial"),
        ("rawvideo", "none"),
        ("qtrle", "none"),
        (".png", "full"),
        ("unheard of", "none"),
    ],
)
def test_the_damage_detection_of_a_codec_is_stated(codec: str, detection: str) -> None:
    assert damage_detection(codec) == detection


def test_a_container_states_the_damage_detection_of_its_codec(made, tmp_path: Path) -> None:
    assert scan(made("h264.mp4")).damage_detection == "full"
    assert scan(made("mpeg2.ts")).damage_detection == "partial"
    for name in ("1.jpg", "2.jpg"):
        cv2.imwrite(str(tmp_path / name), np.full((16, 16, 3), 90, np.uint8))
    assert scan(tmp_path).damage_detection == "partial"


def test_a_wrong_checksum_of_a_slice_of_ffv1_is_damage(made, tmp_path: Path) -> None:
    picks = [5, 20, 40]
    source = made("ffv1.mkv")
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as file:
        packets = [bytes(packet) for packet in file.demux(video=0) if packet.size]
    for pick in picks:
        data[data.index(packets[pick]) + len(packets[pick]) // 2] ^= 1
    path = tmp_path / "flipped.mkv"
    path.write_bytes(data)
    _, frames = read(path)
    assert [frame.index for frame in frames if frame.detail == "damaged"] == picks


@pytest.mark.quick
def test_the_corpus_has_at_least_100_sound_streams() -> None:
    headers = 2 * sum(len(changes) for changes in HEADERS.values())
    assert len(ENCODERS) + headers + 3 * len(OPEN) + 5 >= 100
