"""Encode small recordings with PyAV, and damage them: cut, flip bits, overwrite packets."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np

SIZE = (96, 80)


def level(index: int) -> int:
    """Return the brightness of frame ``index`` (below 70). Neighbours differ by three grey levels."""
    return 30 + 3 * index


def encode(
    path: Path,
    codec: str = "libx264",
    *,
    frames: int = 60,
    gop: int = 12,
    rate: int = 25,
    shown_at: list[int] | None = None,
    texture: int = 20,
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    format: str | None = None,
    title: str | None = None,
    size: tuple[int, int] = SIZE,
) -> Path:
    """Write a recording whose frame i has the mean brightness ``level(i)`` and moving texture.

    Frame i is shown at i / ``rate`` seconds, or at ``shown_at[i] / rate``. ``size`` is (width, height).
    """
    width, height = size
    rng = np.random.default_rng(7)
    noise = rng.integers(-texture, texture + 1, (height + 80, width + 80)).repeat(4, 0).repeat(4, 1)
    with av.open(str(path), "w", format=format, options=muxer or {}) as out:
        if title is not None:
            out.metadata["title"] = title
        stream = out.add_stream(codec, rate=rate, options={"threads": "1", **(options or {})})
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.codec_context.gop_size = gop
        # Ample, so that brightness survives: the default leaves MPEG-4 two grey levels off.
        stream.codec_context.bit_rate = 8_000_000
        stream.codec_context.time_base = Fraction(1, rate)
        for index in range(frames):
            patch = noise[index : index + height, 2 * index : 2 * index + width]
            grey = np.clip(level(index) + patch - patch.mean(), 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="gray").reformat(format=pixels)
            frame.pts = shown_at[index] if shown_at else index
            frame.time_base = Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def remux(
    source: Path, path: Path, *, format: str | None = None, packets: int | None = None, **options: str
) -> Path:
    """Write the same packets, or the first ``packets`` of them, into another container."""
    with av.open(str(source)) as read, av.open(str(path), "w", format=format, options=options) as out:
        stream = read.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in islice((packet for packet in read.demux(stream) if packet.size), packets):
            packet.stream = copy
            out.mux(packet)
    return path


def cut(source: Path, path: Path, share: float) -> Path:
    """Keep the headers and the first ``share`` of the bytes from the first packet on.

    The headers are not counted: in a small file they outweigh the packets.
    """
    data = source.read_bytes()
    start = packet_spans(source)[0][0]
    path.write_bytes(data[: start + int((len(data) - start) * share)])
    return path


def packet_spans(path: Path) -> list[tuple[int, int]]:
    """Return (offset in the file, bytes) of each packet, in decoding order. Exact for MP4."""
    with av.open(str(path)) as read:
        return [(packet.pos, packet.size) for packet in read.demux(video=0) if packet.size]


def flip(source: Path, path: Path, packets: Iterable[int], seed: int, *, bits: int = 1) -> Path:
    """Flip ``bits`` random bits in each of ``packets``, behind their first eighth, which holds the headers."""
    rng = np.random.default_rng(seed)
    data = bytearray(source.read_bytes())
    spans = packet_spans(source)
    for packet in packets:
        at, size = spans[packet]
        for _ in range(bits):
            data[at + size // 8 + int(rng.integers(size - size // 8))] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)
    return path


def blank(source: Path, path: Path, packet: int, *, behind: float = 0.25) -> Path:
    """Overwrite a packet with ones, from the share ``behind`` of its bytes to its end."""
    data = bytearray(source.read_bytes())
    at, size = packet_spans(source)[packet]
    start = at + int(size * behind)
    data[start : at + size] = b"\xff" * (at + size - start)
    path.write_bytes(data)
    return path
