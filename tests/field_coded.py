"""Write a tiny H.264 stream of field pictures, one field an access unit (ITU-T H.264, 7.3), without an encoder."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av

WIDTH, HEIGHT = 32, 64
RATE = 25


class Bits:
    """Bits of a NAL unit."""

    def __init__(self) -> None:
        self.text = ""

    def put(self, count: int, value: int) -> Bits:
        self.text += f"{value:0{count}b}"
        return self

    def golomb(self, *values: int) -> Bits:
        for value in values:
            length = (value + 1).bit_length()
            self.put(2 * length - 1, value + 1)
        return self

    def align(self) -> Bits:
        self.text += "0" * (-len(self.text) % 8)
        return self

    def unit(self, head: int) -> bytes:
        """Return the NAL unit with its start code and its first byte."""
        self.put(1, 1).align()
        payload = int(self.text, 2).to_bytes(len(self.text) // 8)
        escaped = bytearray()
        for byte in payload:
            if byte <= 3 and escaped[-2:] == b"\0\0":
                escaped.append(3)
            escaped.append(byte)
        return b"\0\0\0\1" + bytes([head]) + bytes(escaped)


def headers(*, frames_only: bool = False) -> bytes:
    """Return the parameter sets of Main profile; a field has ``HEIGHT`` / 2 rows."""
    sequence = Bits().put(8, 77).put(8, 0).put(8, 30).golomb(0, 4, 0, 4, 1).put(1, 0)
    rows = HEIGHT // 16 if frames_only else HEIGHT // 32
    sequence.golomb(WIDTH // 16 - 1, rows - 1).put(1, frames_only)
    if not frames_only:
        sequence.put(1, 0)
    sequence.put(1, 1).put(1, 0).put(1, 0)
    picture = Bits().golomb(0, 0).put(1, 0).put(1, 0).golomb(0, 0, 0).put(1, 0).put(2, 0).golomb(0, 0, 0)
    picture.put(1, 1).put(1, 0).put(1, 0)
    return sequence.unit(0x67) + picture.unit(0x68)


def field(frame_num: int, *, bottom: bool, level: int, idr: bool, idr_id: int = 0) -> bytes:
    """Return a field of uncompressed macroblocks of one brightness."""
    bits = Bits().golomb(0, 7, 0).put(8, frame_num).put(1, 1).put(1, bottom)
    if idr:
        bits.golomb(idr_id)
    bits.put(8, 2 * frame_num + bottom)
    bits.put(2, 0) if idr else bits.put(1, 0)
    bits.golomb(0, 1)
    for _ in range(WIDTH // 16 * (HEIGHT // 32)):
        bits.golomb(25).align()
        bits.text += f"{level:08b}" * 256 + f"{128:08b}" * 128
    return bits.unit(0x65 if idr else 0x61)


def field_packets(frames: int, *, gop: int = 5) -> list[bytes]:
    """Return two packets for each frame; frame i has the brightness 40 + 3 i."""
    packets = []
    for index in range(frames):
        number, level = index % gop, 40 + 3 * index
        first = field(number, bottom=False, level=level, idr=number == 0, idr_id=index // gop % 2)
        packets.append((headers() if number == 0 else b"") + first)
        packets.append(field(number, bottom=True, level=level, idr=False))
    return packets


def write_packets(path: Path, packets: list[bytes], *, keys: set[int], codec: str = "h264") -> Path:
    """Write packets into a container, half a frame apart."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec if codec != "h264" else "libx264", rate=2 * RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.extradata = headers()
        stream.time_base = Fraction(1, 2 * RATE)
        for index, data in enumerate(packets):
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, Fraction(1, 2 * RATE)
            packet.pts = packet.dts = index
            packet.is_keyframe = index in keys
            out.mux(packet)
    return path
