"""Shared by the tests of ``recording``: kinds of files, the real recordings, and checks that hold for every file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from capsule_edge.runtime.recording import Container, Frame, decode, scan

RECORDINGS = ("64440803f87b4843", "5e59c7fdb16c4228", "bca26705313a4644")


KINDS = {
    "h264.mp4": {"options": {"bf": "3"}},
    "open_gop.mp4": {"options": {"bf": "3", "x264-params": "open-gop=1"}},
    "h264.mkv": {"options": {"bf": "3"}},
    "h264.ts": {"options": {"bf": "2"}},
    # AVI holds no presentation times: for H.264, FFmpeg returns the decoding order.
    "h264.avi": {"options": {"bf": "3"}},
    "baseline.mp4": {"options": {"profile": "baseline"}},
    "fragmented.mp4": {"muxer": {"movflags": "frag_keyframe+empty_moov"}},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg4_b.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "mjpeg.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "mpeg2.ts": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none:pools=none"}},
    "vp8.webm": {"codec": "libvpx", "options": {"lag-in-frames": "8", "auto-alt-ref": "1", "cpu-used": "8"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"lag-in-frames": "12", "cpu-used": "8"}},
    "ffv1.mkv": {"codec": "ffv1"},
}


def recording(name: str) -> Path:
    """Return the path of a real recording; skip the test where there is none."""
    root = os.environ.get("CAPSULE_EDGE_DATA")
    path = Path(root or "/nowhere") / "recordings" / f"{name}.mp4"
    if not path.exists():
        pytest.skip("CAPSULE_EDGE_DATA names no folder with the real recordings")
    return path


def read(path: Path) -> tuple[Container, list[Frame]]:
    """Scan and decode a file, and assert what must hold for every file."""
    container = scan(path)
    frames = list(decode(container))
    assert [frame.index for frame in frames] == list(range(container.present))
    assert len(frames) + container.missing == container.frames
    assert [frame.time_s for frame in frames] == sorted(frame.time_s for frame in frames)
    assert all((frame.image is None) == (frame.status == "corrupt") for frame in frames)
    assert all(bool(frame.detail) == (frame.status == "corrupt") for frame in frames)
    return container, frames


def details(frames: list[Frame]) -> list[str]:
    return [frame.detail for frame in frames]


def damaged_packets(container: Container, frames: list[Frame]) -> set[int]:
    """Return the packets of the frames whose detail is ``damaged``."""
    return {container.order[frame.index] for frame in frames if frame.detail == "damaged"}


def expected_details(container: Container, damaged: set[int]) -> list[str]:
    """Return the detail of each frame, in presentation order, by the rule of the decoder written a second time.

    Args:
        damaged: indices of the damaged packets, in decoding order.
    """
    places = {packet: place for place, packet in enumerate(container.order)}
    found = [""] * len(container.packets)
    broken, leading_before = False, -1
    for index, packet in enumerate(container.packets):
        if index in damaged:
            found[index], broken = "damaged", True
        elif packet.key:
            leading_before, broken = (places[index] if broken else leading_before), False
        elif broken or places[index] < leading_before:
            found[index] = "depends_on_damaged"
    return [found[packet] for packet in container.order]
