"""Closed GOPs that are read in parallel give the answers of a single decoder, in sound and in damaged recordings."""

from __future__ import annotations

import os
import random
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import damage
import numpy as np
import pytest
from thread_checks import no_thread_left
from tiny_model import tiny_spec

from capsule_edge.runtime.inference.backend import Answer
from capsule_edge.runtime.pipeline import Plan, answer_frames, pipeline
from capsule_edge.runtime.preprocessing import FieldOfView
from capsule_edge.runtime.recording import (
    Container,
    decode,
    decoder,
    ffmpeg,
    find_gops,
    gop,
    scan,
    source,
)

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
def short_gops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gop, "_SHORTEST", 1)


class Checksum:
    """A backend whose answer for a frame is a checksum of its pixels."""

    name, sha256, path = "checksum", "0" * 64, Path("checksum")
    spec = tiny_spec(("normal", "bleeding"), 32)

    def run(self, frames: np.ndarray) -> Answer:
        sums = np.array([[zlib.crc32(each) >> 8, each[0, 0, 0]] for each in frames], np.float32)
        return Answer(sums, sums, np.zeros((len(frames), 1, 1, 2), np.float32))

    def close(self) -> None:
        pass


def answers_of(
    container: Container,
    threads: int,
    *,
    wanted: range | None = None,
    done: int = 0,
    size: int = 5,
    gate: float | None = None,
) -> list[tuple[Any, ...]]:
    """Return index, detail, ``duplicate_of`` and answer of each frame, read by this number of threads."""
    box = FieldOfView(0, 0, container.width, container.height)
    results = answer_frames(
        container,
        range(container.present) if wanted is None else wanted,
        Checksum(),
        Plan(threads, size),
        done=done,
        gate=gate,
        field_of_view=box,
    )
    with closing(results):
        return [
            (
                frame.index,
                frame.detail,
                frame.duplicate_of,
                None if row is None else result.probabilities[row].tolist(),
            )
            for result in results
            for frame, row in zip(result.frames, result.rows, strict=True)
        ]


def details_of(container: Container, threads: int) -> list[tuple[int, str]]:
    """Return index and detail of each frame. Answers may differ where damage goes unnoticed."""
    return [(index, detail) for index, detail, *_ in answers_of(container, threads)]


def use_one_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make one decoder read the recording, from the first packet to the last."""
    monkeypatch.setattr(gop._NalUnits, "of", lambda *_: None)
    monkeypatch.setattr(gop, "_decode", lambda *_: pytest.fail("a GOP was decoded by itself"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("longest", [512, 20])
def test_any_number_of_threads_gives_the_answers_of_one_decoder(
    kind: str, longest: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gop, "_LONGEST", longest)
    container = scan(damage.encode(tmp_path / kind, gop=24 if longest == 20 else 12, **KINDS[kind]))
    assert len(find_gops(container)) > 1
    with mock.patch.object(decoder, "decode_packets", side_effect=ffmpeg.decode_packets) as in_order:
        found = [answers_of(container, threads) for threads in (1, 2, 4)]
    # A GOP of HEVC may begin with a frame that does not reset the decoder; GOPs of 24 frames are all too long.
    assert in_order.called == (kind == "hevc.mp4" or longest == 20)
    use_one_decoder(monkeypatch)
    assert found == [answers_of(container, 1)] * 3
    assert [index for index, *_ in found[0]] == list(range(60))
    assert not any(detail for _, detail, *_ in found[0])
    assert no_thread_left()


@pytest.mark.parametrize("threads", [1, 3])
def test_wanted_frames_have_the_answers_of_the_whole_recording(threads: int, tmp_path: Path) -> None:
    container = scan(damage.encode(tmp_path / "h264.mp4", options={"bf": "3"}))
    whole = answers_of(container, threads)
    for wanted in (range(0, 60, 7), range(30, 50), range(59, 60), range(13, 55, 20)):
        assert answers_of(container, threads, wanted=wanted) == [whole[index] for index in wanted]
        assert answers_of(container, threads, wanted=wanted, done=1) == [whole[index] for index in wanted[1:]]
    assert answers_of(container, threads, wanted=range(0)) == []


@pytest.mark.quick
def test_decoding_begins_at_the_gop_of_the_first_wanted_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = scan(damage.encode(tmp_path / "h264.mp4", options={"bf": "3"}))
    sent = []
    real = ffmpeg.send
    monkeypatch.setattr(gop, "send", lambda *args, **how: sent.append(args[2]) or real(*args, **how))
    answers_of(container, 2, wanted=range(38, 40))
    # Only packets of their own GOP of twelve, and only as far as they are needed.
    assert sent == list(range(36, 36 + len(sent)))
    assert 4 <= len(sent) <= 12


def test_reading_ends_at_the_last_wanted_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The GOP after the last wanted frame is too long to be decoded by itself; it must not be reached."""
    container = scan(damage.encode(tmp_path / "h264.mp4", gop=12))
    monkeypatch.setattr(gop, "_LONGEST", 12)
    monkeypatch.setattr(gop, "find_gops", lambda _: [range(12), range(12, 60)])
    with mock.patch.object(source, "decode", side_effect=decode) as in_order:
        assert [index for index, *_ in answers_of(container, 2, wanted=range(12))] == list(range(12))
        assert not in_order.called
        answers_of(container, 2, wanted=range(13))
        assert in_order.called


@pytest.mark.quick
@pytest.mark.parametrize("spoilt", [False, True])
def test_duplicates_do_not_depend_on_how_gops_are_read(
    spoilt: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames of two GOPs are never compared, not even where one decoder reads both."""
    path = damage.encode(tmp_path / "h264.mp4", options={"bf": "3"})
    container = scan(damage.blank(path, tmp_path / "spoilt.mp4", 30, behind=0.25) if spoilt else path)
    found = [answers_of(container, threads, gate=255.0, size=size) for threads, size in ((1, 5), (3, 16))]
    assert found[0] == found[1]
    assert any(detail for _, detail, *_ in found[0]) == spoilt
    originals = [index for index, detail, original, _ in found[0] if original is None and not detail]
    assert originals == [0, 12, 24, 36, 48]
    use_one_decoder(monkeypatch)
    assert found[0] == answers_of(container, 1, gate=255.0)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_duplicates_in_a_damaged_gop_are_those_of_one_decoder(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame behind the damage may be a duplicate of one before it, wherever a batch ends in the GOP."""
    path = damage.encode(tmp_path / "h264.mp4", options={"bf": "3"})
    container = scan(damage.blank(path, tmp_path / "spoilt.mp4", 34, behind=0.25))
    found = answers_of(container, 2, gate=7.0, size=size)
    use_one_decoder(monkeypatch)
    assert found == answers_of(container, 1, gate=7.0)
    # Before the damage, every second frame of the GOP is a duplicate.
    assert found[25][2] == 24
    assert found[26][2] is None


@pytest.mark.parametrize("kind", ["open_gop.mp4", "h264.ts", "h264.avi", "mjpeg.mov"])
def test_a_container_without_closed_gops_is_read_whole(kind: str, tmp_path: Path) -> None:
    made: dict[str, dict[str, Any]] = {
        "open_gop.mp4": {"options": {"bf": "3", "x264-params": "open-gop=1"}},
        "mjpeg.mov": {"codec": "mjpeg", "pixels": "yuvj420p"},
    }
    container = scan(damage.encode(tmp_path / kind, **made.get(kind, {"options": {"bf": "2"}})))
    if kind == "open_gop.mp4":
        # No GOP begins at a key frame with leading frames: they are stored after it and shown before it.
        place = {packet: at for at, packet in enumerate(container.order)}
        for packets in find_gops(container)[1:]:
            assert all(place[at] > place[packets.start] for at in packets if at != packets.start)
    else:
        assert find_gops(container) == [range(len(container.packets))]
    assert details_of(container, 3) == [(index, "") for index in range(60)]


@pytest.mark.parametrize("kind", ["h264.mp4", "slices.mp4", "h264.mkv", "hevc_closed.mp4"])
def test_random_damage_is_reported_as_by_one_decoder(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = damage.encode(tmp_path / kind, **KINDS[kind])
    spans = damage.packet_spans(whole)
    draw = random.Random(kind)
    spoilt = tmp_path / f"spoilt_{kind}"
    corrupt = 0
    for _ in range(12):
        data = bytearray(whole.read_bytes())
        for _ in range(draw.randint(1, 3)):
            at, size = draw.choice(spans)
            data[at + draw.randrange(size)] ^= 1 << draw.randrange(8)
        spoilt.write_bytes(data)
        container = scan(spoilt)
        found = [details_of(container, threads) for threads in (1, 3)]
        with monkeypatch.context() as patch:
            use_one_decoder(patch)
            expected = details_of(container, 1)
        assert found == [expected, expected]
        assert expected == [(frame.index, frame.detail) for frame in decode(container)]
        corrupt += sum(detail != "" for _, detail in expected)
    # FFmpeg's HEVC decoder reports damage in a packet's header alone.
    assert corrupt > 12 or kind == "hevc_closed.mp4"


@pytest.mark.quick
@pytest.mark.parametrize("fault", [{"is_corrupt": True}, {"width": 64}, {"key_frame": False}])
def test_a_gop_with_an_unsound_image_is_left_to_one_decoder(
    fault: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault is put into the first image of the second GOP: FFmpeg marks few images without an error."""
    container = scan(damage.encode(tmp_path / "h264.mp4"))
    real = gop.send

    def send(*args: Any, **how: Any) -> ffmpeg.PacketOutput:
        output = real(*args, **how)
        sound = {"is_corrupt": False, "width": 96, "height": 80, "key_frame": True}
        faulty: Any = SimpleNamespace(**(sound | fault))
        images = [(at, faulty if at == 12 else image) for at, image in output.images]
        return replace(output, images=images)

    monkeypatch.setattr(gop, "send", send)
    found: list[int] = []
    with gop.decode_gops(container) as gops:
        packets = (packet for _, outputs in gops for output in outputs for packet, _ in output.images)
        with pytest.raises(gop.ClosedGopError) as end:
            found.extend(packets)
    assert sorted(found) == list(range(12))
    # One decoder starts a GOP earlier, so that it is in the state of one that read everything.
    assert end.value.first_packet == 0


@pytest.mark.skipif(not RECORDING.exists(), reason="CAPSULE_EDGE_DATA does not name the shared data")
def test_a_real_recording_has_the_answers_of_one_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    container = scan(RECORDING)
    assert len(find_gops(container)) > 20
    found = answers_of(container, 3)
    use_one_decoder(monkeypatch)
    assert found == answers_of(container, 2)


@pytest.mark.skipif(not RECORDING.exists(), reason="CAPSULE_EDGE_DATA does not name the shared data")
def test_bit_flips_in_a_real_recording_are_reported_as_by_one_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first 500 packets of the recording, with 12 flips from packet 150 on."""
    source = damage.remux(RECORDING, tmp_path / "first.mp4", packets=500)
    picks = np.random.default_rng(5).choice(np.arange(150, 490), 12, replace=False).tolist()
    container = scan(damage.flip(source, tmp_path / "flipped.mp4", picks, seed=5))
    found = [details_of(container, threads) for threads in (1, 2)]
    use_one_decoder(monkeypatch)
    expected = details_of(container, 1)
    assert found == [expected, expected]
    assert sum(detail == "damaged" for _, detail in expected) >= 8


@pytest.mark.quick
def test_closing_early_leaves_no_thread(tmp_path: Path) -> None:
    container = scan(damage.encode(tmp_path / "h264.mp4"))
    results = answer_frames(container, range(60), Checksum(), Plan(3, 4))
    assert next(results).frames[0].index == 0
    results.close()
    assert no_thread_left()


def test_every_begun_gop_is_closed_before_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline begins a GOP to find the field of view. It closes it too if no thread has taken it yet."""
    decode_gop, open_recording = gop._decode, gop.open_recording
    begun: set[int] = set()
    open_at_close: list[set[int]] = []

    def decode_watched(container: Container, packets: range, *rest: Any) -> Iterator[ffmpeg.PacketOutput]:
        begun.add(packets.start)
        try:
            yield from decode_gop(container, packets, *rest)
        finally:
            begun.remove(packets.start)

    @contextmanager
    def open_watched(path: Path, place: ffmpeg.StreamPlace) -> Iterator[Any]:
        with open_recording(path, place) as opened:
            try:
                yield opened
            finally:
                open_at_close.append(set(begun))

    container = scan(damage.encode(tmp_path / "h264.mp4", gop=20))
    monkeypatch.setattr(gop, "_decode", decode_watched)
    monkeypatch.setattr(gop, "open_recording", open_watched)
    # One frame per result, and at most four results wait: the only thread does not reach the second GOP.
    monkeypatch.setattr(pipeline, "_MOST_GATHERED", 1)
    results = answer_frames(container, range(60), Checksum(), Plan(1, 1))
    assert len(next(results).frames) == 1
    assert 20 in begun
    results.close()
    assert open_at_close == [set()]

    class Refusing(Checksum):
        def run(self, pixels: Any) -> Any:
            raise ValueError("no answer")

    # The error's traceback keeps the generators alive, so nothing is closed by the garbage collector.
    with pytest.raises(ValueError, match="no answer"):
        next(answer_frames(container, range(60), Refusing(), Plan(1, 1)))
    assert open_at_close == [set()] * 2
