"""Every sound frame that is read again by its index comes, and is the frame of the whole reading."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numbered_video import HEIGHT, WIDTH, draw_number, read_number, write_numbered

from capsule_edge.runtime.recording import decode, fetch, scan

# A frame that is repeated takes fewer bits than a picture of this size has macroblocks.
LARGER = np.ones((4, 4, 1), np.uint8)
REFRESH = {"x264-params": "intra-refresh=1:keyint=20"}


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
@pytest.mark.parametrize("options", [REFRESH, {**REFRESH, "bf": "2"}], ids=["plain", "b pictures"])
def test_every_frame_of_an_intra_refresh_is_fetched(name: str, options: dict, tmp_path: Path) -> None:
    container = scan(write_numbered(tmp_path / name, frames=90, options=options))
    whole = {frame.index: frame.rgb() for frame in decode(container) if frame.status == "ok"}
    assert len(whole) == 90
    found = {frame.index: frame.rgb() for frame in fetch(container, whole)}
    assert found.keys() == whole.keys()
    # One at a time, too: none is there because another was asked for.
    for index in range(0, 90, 7):
        (frame,) = fetch(container, [index])
        assert frame.index == index
        found[index] = frame.rgb()
    for index, rgb in found.items():
        np.testing.assert_array_equal(rgb, whole[index])


def test_frames_come_once(tmp_path: Path) -> None:
    container = scan(write_numbered(tmp_path / "a.mkv", frames=90, options=REFRESH))
    assert sorted(frame.index for frame in fetch(container, [3, 23, 24, 70, 70])) == [3, 23, 24, 70]


def test_a_frame_that_repeats_the_one_before_is_fetched(tmp_path: Path) -> None:
    path = write_repeats(tmp_path / "repeats.avi", {7, 8, 20})
    container = scan(path)
    whole = {frame.index: frame.rgb() for frame in decode(container) if frame.status == "ok"}
    assert {index: read_number(rgb) for index, rgb in whole.items() if index in (6, 7, 8, 20)} == {
        6: 6,
        7: 6,
        8: 6,
        20: 19,
    }
    found = {frame.index: frame.rgb() for frame in fetch(container, whole)}
    assert found.keys() == whole.keys()
    for index, rgb in found.items():
        np.testing.assert_array_equal(rgb, whole[index])
    (alone,) = fetch(container, [8])
    np.testing.assert_array_equal(alone.rgb(), whole[8])


def write_repeats(path: Path, repeats: set[int]) -> Path:
    """Write MPEG-4 Part 2 whose packets of these numbers say that the frame before is shown again (vop_coded 0)."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=25, options={"threads": "1", "b": "4M"})
        stream.width, stream.height, stream.pix_fmt = 4 * WIDTH, 4 * HEIGHT, "yuv420p"
        stream.codec_context.gop_size = 12
        at = 0
        for number in range(30):
            frame = av.VideoFrame.from_ndarray(np.kron(draw_number(number), LARGER), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            for packet in stream.encode(frame):
                if at in repeats:
                    # Start code, P-VOP (01), no whole second (0), marker, time, marker, not coded, stuffing.
                    bits = "01" + "0" + "1" + f"{at % 25:05b}" + "1" + "0"
                    bits += "0" + "1" * (-len(bits) % 8 - 1) if len(bits) % 8 else "01111111"
                    data = b"\0\0\1\xb6" + int(bits, 2).to_bytes(len(bits) // 8)
                    one = av.Packet(data)
                    one.stream, one.time_base = stream, packet.time_base
                    one.pts, one.dts, one.is_keyframe = packet.pts, packet.dts, False
                    packet = one
                out.mux(packet)
                at += 1
        out.mux(stream.encode(None))
    return path
