"""Recordings whose pictures show their own number, so that a frame under a wrong index is seen."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS = 12
_BLOCK = 16
WIDTH, HEIGHT = 6 * _BLOCK, 4 * _BLOCK


def draw_number(number: int) -> np.ndarray:
    """Return a picture, uint8 RGB, whose upper half holds a number in black and white blocks; below is texture."""
    grey = np.random.default_rng(number).integers(60, 180, (HEIGHT, WIDTH)).astype(np.uint8)
    for bit in range(BITS):
        row, column = divmod(bit, 6)
        rows = slice(row * _BLOCK, (row + 1) * _BLOCK)
        grey[rows, column * _BLOCK : (column + 1) * _BLOCK] = 230 if number >> bit & 1 else 25
    return np.repeat(grey[:, :, None], 3, axis=2)


def read_number(rgb: np.ndarray) -> int:
    """Return the number that a picture shows."""
    height, width = rgb.shape[0] // 4, rgb.shape[1] // 6
    bits = [
        rgb[r * height : (r + 1) * height, c * width : (c + 1) * width].mean() > 128
        for r in (0, 1)
        for c in range(6)
    ]
    return sum(int(bit) << place for place, bit in enumerate(bits))


def write_numbered(
    path: Path,
    codec: str = "libx264",
    *,
    frames: int = 180,
    gop: int = 48,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    irregular: bool = True,
    shift: int = 0,
) -> Path:
    """Write a recording whose frame i shows i. With ``irregular``, the distances between frames vary from 1 to 9 ticks.

    ``shift`` moves all packets to an earlier time: an MP4 then leaves the first pictures out by its edit list.
    """
    steps = np.random.default_rng(1).integers(1, 10, frames) if irregular else np.full(frames, 4)
    at = np.concatenate([[0], np.cumsum(steps)[:-1]]).tolist()
    with av.open(str(path), "w", options=muxer or {}) as out:
        stream = out.add_stream(codec, rate=25, options={"threads": "1", **(options or {})})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = gop
        stream.codec_context.time_base = stream.time_base = Fraction(1, 100)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(draw_number(number), format="rgb24")
            frame.pts, frame.time_base = at[number], Fraction(1, 100)
            for packet in stream.encode(frame):
                _mux(out, packet, shift)
        for packet in stream.encode(None):
            _mux(out, packet, shift)
    return path


def _mux(out: av.container.OutputContainer, packet: av.Packet, shift: int) -> None:
    if shift and packet.pts is not None and packet.dts is not None:
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
    out.mux(packet)
