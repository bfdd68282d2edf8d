"""Groups decoded side by side give the pictures that one decoder gives, and are left where anything is wrong."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path
from typing import Any

import damage
import numpy as np
import pytest

from capsule_edge.runtime import ffmpeg, groups, video
from capsule_edge.runtime.containers import Container, scan
from capsule_edge.runtime.groups import find_groups
from capsule_edge.runtime.video import decode

RECORDING = Path(os.environ.get("CAPSULE_EDGE_DATA") or "/nowhere") / "recordings" / "bca26705313a4644.mp4"
KINDS: dict[str, dict[str, Any]] = {
    "h264.mp4": {"options": {"bf": "3"}},
    "h264.mkv": {"options": {"bf": "2"}},
    "slices.mp4": {"options": {"bf": "3", "x264-params": "slices=3"}},
    "interlaced.mp4": {"options": {"bf": "2", "x264-params": "interlaced=1:tff=1"}},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none:pools=none"}},
    "hevc_closed.mp4": {
        "codec": "libx265",
        "options": {"x265-params": "log-level=none:pools=none:open-gop=0"},
    },
}


@pytest.fixture(autouse=True)
def short_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "_SHORTEST", 1)


def plain(container: Container, _lanes: int) -> Any:
    """One decoder from the first packet to the last."""
    with ffmpeg.open_recording(container.path) as (source, stream):
        yield from ffmpeg.decode_packets(container.path, source, stream)


def told(container: Container, lanes: int) -> list[tuple[Any, ...]]:
    return [
        (p.index, p.pts, p.status, p.detail, None if p.frame is None else p.rgb().tobytes())
        for p in decode(container, lanes=lanes)
    ]


def account(container: Container, lanes: int) -> list[tuple[int, str, str]]:
    """Without the pictures, which may differ where damage goes unnoticed."""
    return [(p.index, p.status, p.detail) for p in decode(container, lanes=lanes)]


def no_thread_left() -> bool:
    return not any(thread.name == "lane" for thread in threading.enumerate())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("longest", [512, 20])
def test_pictures_are_those_of_one_decoder(
    kind: str, longest: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "_LONGEST", longest)
    container = scan(damage.encode(tmp_path / kind, gop=24 if longest == 20 else 12, **KINDS[kind]))
    assert len(find_groups(container)) > 1
    doubted = []
    monkeypatch.setattr(
        groups, "decode_packets", lambda *a, **k: doubted.append(1) or ffmpeg.decode_packets(*a, **k)
    )
    found = [told(container, lanes) for lanes in (1, 2, 4)]
    assert doubted == [] or kind == "hevc.mp4"  # whose key frames need not reset the decoder
    monkeypatch.setattr(video, "decode_groups", plain)
    assert found == [told(container, 1)] * 3
    assert all(status == "ok" for _, _, status, *_ in found[0])
    assert no_thread_left()


@pytest.mark.parametrize("kind", ["open_gop.mp4", "h264.ts", "h264.avi", "mjpeg.mov"])
def test_what_gives_no_assurance_is_one_group_or_doubted(kind: str, tmp_path: Path) -> None:
    made: dict[str, dict[str, Any]] = {
        "open_gop.mp4": {"options": {"bf": "3", "x264-params": "open-gop=1"}},
        "mjpeg.mov": {"codec": "mjpeg", "pixels": "yuvj420p"},
    }
    container = scan(damage.encode(tmp_path / kind, **made.get(kind, {"options": {"bf": "2"}})))
    if kind == "open_gop.mp4":
        # Leading pictures are shown before the key frame behind which they are stored.
        shown = {sample: place for place, sample in enumerate(container.order)}
        for group in find_groups(container)[1:]:
            assert all(shown[at] > shown[group.start] for at in group if at != group.start)
    else:
        assert find_groups(container) == [range(len(container.samples))]
    assert [p.status for p in decode(container, lanes=3)] == ["ok"] * 60


@pytest.mark.parametrize("kind", ["h264.mp4", "slices.mp4", "h264.mkv", "hevc_closed.mp4"])
def test_damage_is_told_as_by_one_decoder(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random flips; the same account as that of one decoder, for any number of them."""
    whole = damage.encode(tmp_path / kind, **KINDS[kind])
    spans = damage.places(whole)
    draw = random.Random(kind)
    spoilt = tmp_path / f"spoilt_{kind}"
    seen = 0
    for _ in range(25):
        data = bytearray(whole.read_bytes())
        for _ in range(draw.randint(1, 3)):
            at, size = draw.choice(spans)
            data[at + draw.randrange(size)] ^= 1 << draw.randrange(8)
        spoilt.write_bytes(data)
        container = scan(spoilt)
        found = [account(container, lanes) for lanes in (1, 3)]
        with monkeypatch.context() as patch:
            patch.setattr(video, "decode_groups", plain)
            one = account(container, 1)
        assert found == [one, one]
        seen += sum(status == "corrupt" for _, status, _ in one)
    assert seen > 25 or kind == "hevc_closed.mp4"


@pytest.mark.skipif(not RECORDING.exists(), reason="CAPSULE_EDGE_DATA does not name the shared data")
def test_a_real_recording_is_decoded_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    container = scan(RECORDING)
    assert len(find_groups(container)) > 20
    with monkeypatch.context() as patch:
        patch.setattr(video, "decode_groups", plain)
        one = [hash(p.rgb().tobytes()) for p in decode(container)]
    for lanes in (1, 3):
        assert [hash(p.rgb().tobytes()) for p in decode(container, lanes=lanes)] == one


@pytest.mark.skipif(not RECORDING.exists(), reason="CAPSULE_EDGE_DATA does not name the shared data")
def test_flips_in_a_real_recording_are_told_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(5)
    data = bytearray(RECORDING.read_bytes())
    spans = damage.places(RECORDING)
    for at, size in (spans[int(place)] for place in draw.choice(np.arange(300, 1400), 12, replace=False)):
        data[at + int(size * draw.uniform(0.1, 0.9))] ^= 8
    spoilt = tmp_path / "spoilt.mp4"
    spoilt.write_bytes(data)
    container = scan(spoilt)
    found = [account(container, lanes) for lanes in (1, 2)]
    monkeypatch.setattr(video, "decode_groups", plain)
    one = account(container, 1)
    assert found == [one, one]
    assert sum(detail == "damaged" for *_, detail in one) >= 8


def test_closing_early_leaves_no_thread(tmp_path: Path) -> None:
    container = scan(damage.encode(tmp_path / "h264.mp4"))
    pictures = decode(container, lanes=3)
    assert next(pictures).index == 0
    pictures.close()
    assert no_thread_left()
