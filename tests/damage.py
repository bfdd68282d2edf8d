"""Small recordings to order, and ways to spoil them. Made with PyAV, so no tool is needed beside it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SIZE = (96, 80)


def level(index: int) -> int:
    """Brightness that names frame ``index`` (below 70), three grey levels from its neighbours."""
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
) -> Path:
    """A recording whose frame i has the mean brightness ``level(i)`` and moving texture.

    It is shown at i / ``rate`` seconds, or at ``shown_at[i] / rate``.
    """
    width, height = SIZE
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


def remux(source: Path, path: Path, *, format: str | None = None, **options: str) -> Path:
    """The same packets in another container."""
    with av.open(str(source)) as read, av.open(str(path), "w", format=format, options=options) as out:
        stream = read.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in read.demux(stream):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
    return path


def cut(source: Path, path: Path, share: float) -> Path:
    """The first ``share`` of the file's bytes, counted from its first picture (headers outweigh a small
    file).
    """
    data = source.read_bytes()
    start = places(source)[0][0]
    path.write_bytes(data[: start + int((len(data) - start) * share)])
    return path


def places(path: Path) -> list[tuple[int, int]]:
    """(offset in the file, bytes) of each picture, in decoding order; exact for MP4."""
    with av.open(str(path)) as read:
        return [(packet.pos, packet.size) for packet in read.demux(video=0) if packet.size]


def flip(source: Path, path: Path, pictures: list[int], seed: int, *, bits: int = 1) -> Path:
    """``bits`` seeded single-bit flips in each of ``pictures``, behind their first eighth (the headers)."""
    rng = np.random.default_rng(seed)
    data = bytearray(source.read_bytes())
    where = places(source)
    for picture in pictures:
        at, size = where[picture]
        for _ in range(bits):
            data[at + size // 8 + int(rng.integers(size - size // 8))] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)
    return path


def blank(source: Path, path: Path, picture: int, *, behind: float = 0.25) -> Path:
    """One picture's data overwritten with ones behind its first quarter; from the start where ``behind``
    is 0.
    """
    data = bytearray(source.read_bytes())
    at, size = places(source)[picture]
    start = at + int(size * behind)
    data[start : at + size] = b"\xff" * (at + size - start)
    path.write_bytes(data)
    return path
