"""What the tests of reading share: kinds of files, the real recordings, and what is true of every file."""

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
    # AVI holds no presentation times: FFmpeg makes up the decoding order for H.264.
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
    root = os.environ.get("CAPSULE_EDGE_DATA")
    path = Path(root or "/nowhere") / "recordings" / f"{name}.mp4"
    if not path.exists():
        pytest.skip("CAPSULE_EDGE_DATA names no folder with the real recordings")
    return path


def read(path: Path) -> tuple[Container, list[Frame]]:
    """Scan and decode, holding what must be true of every file."""
    container = scan(path)
    pictures = list(decode(container))
    assert [picture.index for picture in pictures] == list(range(container.present))
    assert len(pictures) + container.missing == container.frames
    assert [picture.time_s for picture in pictures] == sorted(picture.time_s for picture in pictures)
    assert all((picture.image is None) == (picture.status == "corrupt") for picture in pictures)
    assert all(bool(picture.detail) == (picture.status == "corrupt") for picture in pictures)
    return container, pictures


def details(pictures: list[Frame]) -> list[str]:
    return [picture.detail for picture in pictures]


def expected_details(container: Container, damaged: set[int]) -> list[str]:
    """The rule spelled out: ``damaged`` holds decoding indices; the answer is in presentation order."""
    rank = {index: place for place, index in enumerate(container.order)}
    found = [""] * len(container.packets)
    broken, limit = False, -1
    for index, sample in enumerate(container.packets):
        if index in damaged:
            found[index], broken = "damaged", True
        elif sample.key:
            limit, broken = (rank[index] if broken else limit), False
        elif broken or rank[index] < limit:
            found[index] = "depends_on_damaged"
    return [found[index] for index in container.order]
