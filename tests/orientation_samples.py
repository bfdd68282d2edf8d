"""Recordings whose stream states an orientation."""

from __future__ import annotations

from pathlib import Path

import av


def state_orientation(source: Path, path: Path, turns: dict[int, tuple[float, bool]]) -> Path:
    """Copy H.264 packets, and state an orientation with some of them.

    Args:
        turns: for packets, the anticlockwise turn in degrees, and whether columns are reversed.
    """
    with av.open(str(source)) as opened, av.open(str(path), "w") as out:
        stream = opened.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for index, packet in enumerate(one for one in opened.demux(stream) if one.size):
            unit = b""
            if index in turns:
                degrees, reversed_columns = turns[index]
                # ITU-T H.264, D.1.27: cancel 0, two mirrors, 16 bits of turn, a repetition period of 1 (010), no
                # extension, and the bit that ends the payload.
                bits = reversed_columns << 22 | round(degrees / 360 * 65536) << 5 | 0b010_0_1
                unit = bytes([6, 47, 3, *bits.to_bytes(3, "big"), 0x80])
                unit = len(unit).to_bytes(4, "big") + unit
            one = av.Packet(unit + bytes(packet))
            one.stream, one.time_base = copy, packet.time_base
            one.pts, one.dts, one.is_keyframe = packet.pts, packet.dts, packet.is_keyframe
            out.mux(one)
    return path
