"""Measure how much damage is reported: flip single bits, read, and compare with the reading of the sound recording.

    python -m capsule_edge.benchmarks.damage [STREAM...] [--flips 200] [--recordings 0] [--lines]

Each flip is a file of its own, and neighbouring flips hit different pictures. Two tables: flips anywhere in the picture
data, and flips in the first 12 bytes of a slice (of a packet, for codecs other than H.264 and HEVC). For each stream:

``reported``            flips after which a frame is corrupt or missing
``log``                 of these, flips that FFmpeg reports in its log alone
``changed``             flips that change or lose a picture, by comparing FFmpeg's pictures with the sound ones
``silent``              flips that change a picture while nothing is reported
``leaked``              flips that are reported while a picture that changed is called sound
``unchanged``           flips that are reported though no picture changed
``false alarms``        frames of the sound stream that are called corrupt

``--recordings N`` damages the first 60 pictures of N shared recordings instead. ``--lines`` lists FFmpeg's error lines,
and how many of the flips that caused each one changed a picture. The last line of output is JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any
from zlib import crc32

import av
import av.error
import av.logging
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from capsule_edge.runtime.errors import UsageError
from capsule_edge.runtime.recording import OPEN_OPTIONS, decode, open_decoder, scan

from .reference_exam import find_recordings

__all__ = ["STREAMS", "Sight", "flip_bits", "see", "write_stream"]

FRAMES = 60
SIZE = (96, 80)
_QUIET = {"x265-params": "log-level=none:pools=none"}
# Name of the file: encoder, pixel format, and the encoder's options.
STREAMS: dict[str, tuple[str, str, dict[str, str]]] = {
    "h264_b.mp4": ("libx264", "yuv420p", {"bf": "3"}),
    "h264_slices.mp4": ("libx264", "yuv420p", {"bf": "3", "x264-params": "slices=3"}),
    "h264_open.mkv": ("libx264", "yuv420p", {"bf": "3", "x264-params": "open-gop=1"}),
    "h264_baseline.mp4": ("libx264", "yuv420p", {"profile": "baseline", "qp": "30"}),
    "h264_interlaced.mp4": ("libx264", "yuv420p", {"bf": "3", "x264-params": "interlaced=1"}),
    "h264.ts": ("libx264", "yuv420p", {"bf": "3"}),
    "hevc.mp4": ("libx265", "yuv420p", _QUIET),
    "mpeg4_b.mp4": ("mpeg4", "yuv420p", {"bf": "2"}),
    "mpeg4.avi": ("mpeg4", "yuv420p", {}),
    "mpeg2.mkv": ("mpeg2video", "yuv420p", {"bf": "2"}),
    "mpeg1.mkv": ("mpeg1video", "yuv420p", {"bf": "2"}),
    "vp8.webm": ("libvpx", "yuv420p", {"cpu-used": "8"}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {"cpu-used": "8", "lag-in-frames": "0"}),
    "av1.mp4": ("libsvtav1", "yuv420p", {"preset": "12"}),
    "h263.avi": ("h263p", "yuv420p", {}),
    "flv1.avi": ("flv", "yuv420p", {}),
    "msmpeg4v3.avi": ("msmpeg4", "yuv420p", {}),
    "wmv2.avi": ("wmv2", "yuv420p", {}),
    "wmv1.avi": ("wmv1", "yuv420p", {}),
    "h261.avi": ("h261", "yuv420p", {}),
    "snow.avi": ("snow", "yuv420p", {"strict": "-2"}),
    "mjpeg.avi": ("mjpeg", "yuvj420p", {}),
    "jpeg2000.mkv": ("jpeg2000", "yuv420p", {}),
    "png.mov": ("png", "rgb24", {}),
    "tiff.mov": ("tiff", "rgb24", {}),
    "prores.mov": ("prores_ks", "yuv422p10le", {}),
    "cfhd.mov": ("cfhd", "yuv422p10le", {}),
    "dirac.mkv": ("vc2", "yuv420p", {"strict": "-2"}),
    "asv1.avi": ("asv1", "yuv420p", {}),
    "jpegls.avi": ("jpegls", "rgb24", {}),
    "ffv1.mkv": ("ffv1", "yuv420p", {}),
    "huffyuv.avi": ("huffyuv", "yuv422p", {}),
    "ffvhuff.avi": ("ffvhuff", "yuv420p", {}),
    "magicyuv.avi": ("magicyuv", "yuv420p", {}),
    "utvideo.avi": ("utvideo", "yuv420p", {}),
    "qtrle.mov": ("qtrle", "rgb24", {}),
    "svq1.mov": ("svq1", "yuv410p", {}),
    "cinepak.avi": ("cinepak", "rgb24", {}),
    "msvideo1.avi": ("msvideo1", "rgb555le", {}),
    "rpza.mov": ("rpza", "rgb555le", {}),
    "zlib.avi": ("zlib", "bgr24", {}),
    "flashsv.avi": ("flashsv", "bgr24", {}),
    "zmbv.avi": ("zmbv", "bgr0", {}),
    "rawvideo.avi": ("rawvideo", "yuv420p", {}),
}
# Their slices begin behind a length of four bytes (ISO/IEC 14496-15) or a start code.
_SLICED = ("h264", "hevc")
_HEAD = 12
_NUMBER = re.compile(r"-?\d+|\b[0-9A-F]{2,8}\b")


@dataclass(frozen=True)
class Sight:
    """The observations made of a file.

    Attributes:
        images: checksum of each image that FFmpeg returned, by its packet.
        told: FFmpeg refused a packet, marked an image as corrupt, or returned none for a packet.
        lines: FFmpeg's error lines, with "N" for each number.
        frames: checksum of each frame of ``decode``; None for a corrupt one.
        announced: number of frames by the container.
    """

    images: dict[int, int]
    told: bool
    lines: frozenset[str]
    frames: list[int | None]
    announced: int

    @property
    def reported(self) -> bool:
        """A frame is corrupt or missing."""
        return None in self.frames or self.announced > len(self.frames)


@dataclass
class _Row:
    """The counts of one table's row (see the module)."""

    counts: Counter[str] = field(default_factory=Counter)
    lines: dict[str, list[int]] = field(default_factory=dict)

    def add(self, sound: Sight, seen: Sight) -> None:
        changed = seen.images != sound.images
        differ = any(frame not in (None, own) for frame, own in zip(seen.frames, sound.frames, strict=False))
        self.counts += Counter(
            reported=seen.reported,
            log=seen.reported and not seen.told,
            changed=changed,
            silent=changed and not seen.reported,
            leaked=differ and seen.reported,
            unchanged=seen.reported and not changed,
        )
        for line in seen.lines:
            came = self.lines.setdefault(line, [0, 0, 0])
            came[0] += 1
            came[1] += changed
            came[2] += changed and not seen.told


def write_stream(path: Path, encoder: str, pixels: str, options: dict[str, str]) -> Path:
    """Encode ``FRAMES`` pictures of moving texture, with a key frame every 12."""
    width, height = (176, 144) if encoder == "h261" else SIZE
    noise = np.random.default_rng(7).integers(-20, 21, (height + 80, width + 80)).repeat(4, 0).repeat(4, 1)
    with av.open(str(path), "w") as out:
        stream = out.add_stream(encoder, rate=25, options={"threads": "1", **options})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.codec_context.gop_size = 12
        stream.codec_context.bit_rate = 8_000_000
        stream.codec_context.time_base = Fraction(1, 25)
        for index in range(FRAMES):
            patch = noise[index : index + height, 2 * index : 2 * index + width]
            grey = np.clip(30 + 3 * index + patch, 0, 255).astype(np.uint8)
            frame = VideoFrame.from_ndarray(grey, format="gray").reformat(format=pixels)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def see(path: Path) -> Sight:
    """Read a file twice: with FFmpeg's decoder alone, and with ``decode``."""
    images, told, lines = _see_alone(path)
    try:
        container = scan(path)
        shown = (frame.image for frame in decode(container))
        frames = [_checksum(image) if isinstance(image, VideoFrame) else None for image in shown]
        announced = container.frames
    except Exception as error:  # whatever a damaged header raises is a report
        return Sight(images, True, lines | {f"(refused: {type(error).__name__})"}, [None], 1)
    return Sight(images, told, lines, frames, announced)


def _see_alone(path: Path) -> tuple[dict[int, int], bool, frozenset[str]]:
    images: dict[int, int] = {}
    lines: set[str] = set()
    told = False
    with av.open(str(path), **OPEN_OPTIONS) as source:
        stream = source.streams.video[0]
        decoder = open_decoder(path, stream)
        count = 0
        packets = [packet for packet in source.demux(stream) if packet.size]
        for index, packet in enumerate([*packets, None]):
            if packet is not None:
                packet.opaque, count = (index,), index + 1
            with av.logging.Capture() as said:
                try:
                    found = decoder.decode(packet)
                except av.error.FFmpegError:
                    found, told = [], True
            for image in found:
                told |= image.is_corrupt
                mark = image.opaque
                images[mark[0] if isinstance(mark, tuple) else -len(images) - 1] = _checksum(image)
            lines |= {_NUMBER.sub("N", text.strip()) for level, _, text in said if level <= av.logging.ERROR}
        return images, told or len(images) < count, frozenset(lines)


def _checksum(image: VideoFrame) -> int:
    if image.width % 2 or image.height % 2:  # an odd size, by a damaged header
        return crc32(f"{image.width} {image.height}".encode())
    if image.format.name not in ("yuv420p", "rgb24"):
        image = image.reformat(format="rgb24")
    return crc32(image.to_ndarray().tobytes(), image.width)


def flip_bits(source: Path, folder: Path, flips: int, *, head: bool, seed: int) -> Iterator[Path]:
    """Yield copies of a file, each with one flipped bit: in the head of a slice, or behind it."""
    whole, rng = source.read_bytes(), np.random.default_rng(seed)
    with av.open(str(source), **OPEN_OPTIONS) as opened:
        stream = opened.streams.video[0]
        sliced = stream.codec_context.codec.canonical_name in _SLICED
        spans = []
        for packet in (packet for packet in opened.demux(stream) if packet.size):
            # In a transport stream a picture lies in pieces: its first 100 bytes are one.
            at = whole.find(bytes(packet)[:100], max(packet.pos or 0, 0))
            spans.append((at, packet.size if bytes(packet) in whole[at : at + packet.size] else 100))
    path = folder / f"flipped_{source.name}"
    order = [1 + int(each) for each in rng.permutation(len(spans) - 1)]
    for turn in range(flips):
        at, size = spans[order[turn % len(order)]]
        skip = 4 if sliced else 0
        low, high = (0, min(_HEAD, size - skip)) if head else (min(_HEAD, size - skip - 1), size - skip)
        data = bytearray(whole)
        data[at + skip + int(rng.integers(low, high))] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        yield path


def _measure(source: Path, folder: Path, flips: int) -> dict[str, Any]:
    sound = see(source)
    row: dict[str, Any] = {"codec": scan(source).codec, "false_alarms": sound.frames.count(None)}
    row["sound_lines"] = sorted(sound.lines)
    for name, head in (("anywhere", False), ("head", True)):
        table = _Row()
        for path in flip_bits(source, folder, flips, head=head, seed=4):
            table.add(sound, see(path))
        keys = ("reported", "log", "changed", "silent", "leaked", "unchanged")
        row[name] = {key: table.counts[key] for key in keys}
        row[f"{name}_lines"] = table.lines
    return row


def _write(name: str, folder: Path) -> Path:
    try:
        return write_stream(folder / name, *STREAMS[name])
    except (av.error.FFmpegError, ValueError) as error:
        raise UsageError(f"{name} cannot be encoded here: {error}") from None


def _cut(recording: Path, folder: Path) -> Path:
    """Copy the first ``FRAMES`` packets of a recording."""
    path = folder / f"{recording.stem}.mp4"
    with av.open(str(recording)) as read, av.open(str(path), "w") as out:
        stream = read.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for _, packet in zip(range(FRAMES), read.demux(stream), strict=False):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
    return path


def _print_row(name: str, row: dict[str, Any]) -> None:
    for table in ("anywhere", "head"):
        cells = " | ".join(str(value) for value in row[table].values())
        print(f"| {name} | {table} | {cells} | {row['false_alarms']} |", flush=True)


def _print_lines(rows: dict[str, dict[str, Any]]) -> None:
    found: dict[tuple[str, str], list[int]] = {}
    for row in rows.values():
        for table in ("anywhere_lines", "head_lines"):
            for line, counts in row[table].items():
                total = found.setdefault((row["codec"], line), [0, 0, 0])
                total[:] = [a + b for a, b in zip(total, counts, strict=True)]
    print(
        "\n| codec | line | flips | of these a picture changed | and only the log says so |\n|---|---|---|---|---|"
    )
    for (codec, line), counts in sorted(found.items()):
        print(f"| {codec} | {line} | {counts[0]} | {counts[1]} | {counts[2]} |")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables, and a line of JSON."""
    options = _make_parser().parse_args(arguments)
    unknown = sorted(set(options.streams) - set(STREAMS))
    if unknown:
        raise UsageError(f"the stream {unknown[0]} is not known; allowed are {', '.join(STREAMS)}")
    if options.flips < 1:
        raise UsageError(f"{options.flips} flips are asked for; allowed is 1 or more")
    print("| stream | flips | reported | log | changed | silent | leaked | unchanged | false alarms |")
    print("|---|---|---|---|---|---|---|---|---|")
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recordings = find_recordings()[: options.recordings] if options.recordings else []
        names = options.streams or ([] if options.recordings else list(STREAMS))
        for source in [
            *(_write(each, folder) for each in names),
            *(_cut(each, folder) for each in recordings),
        ]:
            rows[source.name] = _measure(source, folder, options.flips)
            _print_row(source.name, rows[source.name])
    if options.lines:
        _print_lines(rows)
    kept = {n: {k: v for k, v in row.items() if not k.endswith("_lines")} for n, row in rows.items()}
    print(
        json.dumps(
            {
                "benchmark": "damage",
                "ffmpeg": av.library_versions["libavcodec"],
                "flips": options.flips,
                "streams": kept,
            }
        )
    )


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m capsule_edge.benchmarks.damage",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "streams", nargs="*", metavar="STREAM", help=f"of {', '.join(STREAMS)} (default: all)"
    )
    parser.add_argument("--flips", type=int, default=200, help="flips per stream and table")
    parser.add_argument("--recordings", type=int, default=0, help="number of shared recordings to damage")
    parser.add_argument("--lines", action="store_true", help="list FFmpeg's error lines")
    return parser


if __name__ == "__main__":
    from capsule_edge.evaluation._module import run_module

    run_module(main)
