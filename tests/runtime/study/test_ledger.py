"""The ledger of damaged recordings, tested with random damage of bytes and packets in every container.

Every container frame is counted once, no frame that depends on a damaged one is classified, and the ledger is the same
for every number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import damage
import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from tiny_model import write_tiny_model

from capsule_edge.runtime import Reader
from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.pipeline import Plan
from capsule_edge.runtime.recording import Container, gop, scan
from capsule_edge.runtime.study import STATUSES, Study

KINDS = {
    "h264.mp4": {"options": {"bf": "3"}},
    "open_gop.mp4": {"options": {"bf": "3", "x264-params": "open-gop=1"}},
    # Two separately coded fields per picture.
    "interlaced.mp4": {"options": {"bf": "2", "x264-params": "interlaced=1:tff=1"}},
    "ten_bits.mkv": {"pixels": "yuv420p10le", "options": {"bf": "2"}},
    "grey.mkv": {"codec": "libx264", "pixels": "gray"},
    "h264.ts": {"options": {"bf": "2"}},
    "h264.avi": {"options": {"bf": "3"}},
    "fragmented.mp4": {"muxer": {"movflags": "frag_keyframe+empty_moov"}},
    "hevc.mov": {"codec": "libx265", "options": {"x265-params": "log-level=none:pools=none"}},
    "mpeg4_b.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "mjpeg.mov": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"lag-in-frames": "12", "cpu-used": "8"}},
}
PACKETS = ("h264.mp4", "open_gop.mp4", "interlaced.mp4", "h264.ts", "hevc.mov", "mpeg4_b.avi", "mjpeg.mov")
# Three GOPs of 12 frames.
COUNT = 36
FEW = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("made")

    def make(name: str) -> Path:
        path = folder / name
        if not path.exists():
            damage.encode(path, frames=COUNT, **KINDS[name])
        return path

    return make


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Reader]]:
    """Return two readers: one thread with small batches, and several threads with large batches."""
    model = write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.onnx")
    plans = (Plan(1, 3), Plan(4, 16))
    opened = [Reader.open(model, plan=plan, threads=plan.workers) for plan in plans]
    with pytest.MonkeyPatch.context() as patch:
        # Let the threads divide even these short files by closed GOPs.
        patch.setattr(gop, "_SHORTEST", 1)
        yield opened
    for reader in opened:
        reader.close()


def check(readers: list[Reader], path: Path) -> Study | None:
    """Check that both readers give the same ledger, or refuse the file with the same message; return the study."""
    studies: list[Study | str] = []
    for reader in readers:
        try:
            studies.append(reader.read(path))
        except InputError as error:
            studies.append(str(error))
    first, other = studies
    if isinstance(first, str) or isinstance(other, str):
        assert first == other
        assert "\n" not in first
        return None
    ledger = first.ledger
    assert sum(getattr(ledger, status) for status in STATUSES) == ledger.container == len(first.frames)
    assert [frame.index for frame in first.frames] == list(range(len(first.frames)))
    assert (ledger.skipped, ledger.unread, ledger.duplicate) == (0, 0, 0)
    assert ledger == other.ledger
    for ours, theirs in zip(first.frames, other.frames, strict=True):
        assert (ours.status, ours.detail, ours.pts, ours.time_s) == (
            theirs.status,
            theirs.detail,
            theirs.pts,
            theirs.time_s,
        )
        np.testing.assert_array_equal(ours.probabilities, theirs.probabilities)
    container = scan(path)
    wrong = [index for index in behind_damage(container, first) if first.frames[index].status == "classified"]
    assert wrong == []
    return first


def behind_damage(container: Container, study: Study) -> list[int]:
    """Return the frames that depend on a damaged one.

    They follow it in decoding order before the next key frame, or are leading frames of that key frame.
    """
    if container.intra_only:
        return []
    place_of = {sample: place for place, sample in enumerate(container.order)}
    behind, broken, leading_before = [], False, -1
    for at, sample in enumerate(container.packets):
        place = place_of.get(at, -1)
        if place >= 0 and study.frames[place].detail == "damaged":
            broken = True
        elif sample.key:
            leading_before, broken = (place if broken else leading_before), False
        elif place >= 0 and (broken or place < leading_before):
            behind.append(place)
    return behind


QUICK = [pytest.param(kind, marks=pytest.mark.quick if kind == "h264.mp4" else ()) for kind in KINDS]


@pytest.mark.parametrize("kind", QUICK)
def test_every_frame_of_an_undamaged_file_is_classified(kind: str, made, readers: list[Reader]) -> None:
    study = check(readers, made(kind))
    assert study is not None
    assert (study.ledger.container, study.ledger.classified) == (COUNT, COUNT)
    assert study.ledger.whole


@FEW
@given(st.data())
def test_damaged_bytes(made, readers: list[Reader], tmp_path: Path, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(KINDS)))
    spoilt = bytearray(made(kind).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(spoilt) - 1))
        if data.draw(st.booleans()):
            spoilt[at] ^= 1 << data.draw(st.integers(0, 7))
        else:
            patch = data.draw(st.binary(min_size=1, max_size=100))
            spoilt[at : at + len(patch)] = patch
    path = tmp_path / kind
    path.write_bytes(spoilt)
    check(readers, path)


@FEW
@given(st.sampled_from(sorted(KINDS)), st.floats(0, 1))
def test_a_file_cut_anywhere(made, readers: list[Reader], tmp_path: Path, kind: str, share: float) -> None:
    data = made(kind).read_bytes()
    path = tmp_path / kind
    path.write_bytes(data[: math.floor(len(data) * share)])
    study = check(readers, path)
    if study is not None and study.ledger.container_source == "header":
        # The header announces all frames, so those that were cut off count as missing.
        assert study.ledger.container == COUNT


@FEW
@given(st.sampled_from(PACKETS), st.data())
def test_dropped_swapped_and_flipped_packets(
    made, readers: list[Reader], tmp_path: Path, kind: str, data: st.DataObject
) -> None:
    count = len(damage.packet_spans(made(kind)))
    dropped = data.draw(st.sets(st.integers(0, count - 1), max_size=4))
    swapped = data.draw(st.sets(st.integers(0, count - 2), max_size=3))
    flipped = data.draw(st.dictionaries(st.integers(0, count - 1), st.floats(0.1, 0.99), max_size=4))
    note(f"dropped {dropped}, swapped {swapped}, flipped {flipped}")
    path = tmp_path / kind
    try:
        repack(made(kind), path, dropped=dropped, swapped=swapped, flipped=flipped)
    except (av.error.FFmpegError, ValueError):
        return  # the muxer refuses these packets, so there is no such file
    check(readers, path)


def repack(
    source: Path, path: Path, *, dropped: set[int], swapped: set[int], flipped: dict[int, float]
) -> None:
    """Copy a recording with some packets dropped, some exchanged with the next, and a bit flipped in others."""
    with av.open(str(source)) as read:
        stream = read.streams.video[0]
        packets = [packet for packet in read.demux(stream) if packet.size]
        contents = [bytearray(bytes(packet)) for packet in packets]
        for at, share in flipped.items():
            contents[at][int(len(contents[at]) * share)] ^= 0x10
        for at in sorted(swapped):
            contents[at], contents[at + 1] = contents[at + 1], contents[at]
        with av.open(str(path), "w") as out:
            copy = out.add_stream_from_template(stream)
            for at, (packet, content) in enumerate(zip(packets, contents, strict=True)):
                if at in dropped:
                    continue
                again = av.Packet(bytes(content))
                again.pts, again.dts, again.duration = packet.pts, packet.dts, packet.duration
                again.time_base = packet.time_base or Fraction(1, 25)
                again.is_keyframe = packet.is_keyframe
                again.stream = copy
                out.mux(again)
