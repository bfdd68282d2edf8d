"""A source of frames: encodings, model input, caches, reading ahead, and recordings that change or vanish."""

from __future__ import annotations

import hashlib
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import damage
import numpy as np
import pytest
from dicom_samples import write_directory, write_pictures
from numbered_video import draw_number, read_number, write_numbered
from red_model import view
from thread_checks import no_thread_left
from tiny_model import write_tiny_model

from capsule_edge.runtime import Reader
from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.runtime.events import activation_map
from capsule_edge.runtime.inference import Answer, Backend, InputSpec, open_model
from capsule_edge.runtime.pipeline import Plan
from capsule_edge.runtime.recording import FrameDecoder, scan
from capsule_edge.workstation.frames import (
    Caches,
    FrameSource,
    FrameStore,
    FrameUnavailable,
    StaleSourceError,
    at_urgency,
    find_contours,
    giving_up,
    mark_recording,
)
from capsule_edge.workstation.frames.frame_reading import VideoReading


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_numbered(tmp_path_factory.mktemp("numbered") / "exam.mp4", frames=120, options={"bf": "2"})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny.onnx")


def write_folder(path: Path, count: int = 8) -> Path:
    path.mkdir()
    for number in range(count):
        cv2.imwrite(str(path / f"frame {number}.png"), cv2.cvtColor(draw_number(number), cv2.COLOR_RGB2BGR))
    return path


def write_tiff(path: Path, count: int = 8) -> Path:
    pages = [cv2.cvtColor(draw_number(number), cv2.COLOR_RGB2BGR) for number in range(count)]
    assert cv2.imwritemulti(str(path), pages)
    return path


def write_turned(path: Path) -> Path:
    """Write a recording that a display matrix turns by 90 degrees."""
    data = bytearray(write_numbered(path, frames=30, options={"bf": "2"}).read_bytes())
    # The matrix in the track header, version 0 (ISO/IEC 14496-12, 8.3.2), lies 44 bytes behind the name of the box.
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    assert scan(path).transposed
    return path


def write_deep(path: Path) -> Path:
    """Write a recording of 10 bits in BT.709, full range."""
    from plain_decoder import ffmpeg

    plain = write_numbered(path.with_name("eight.mp4"), frames=30)
    ffmpeg(*("-i", plain, "-c:v", "libx264", "-pix_fmt", "yuv422p10le"), *("-colorspace", "bt709", path))
    return path


RECORDINGS = {
    "video.mp4": lambda path: write_numbered(path, frames=60, options={"bf": "2"}),
    "open.mkv": lambda path: write_numbered(
        path, frames=60, options={"bf": "2", "x264-params": "open-gop=1"}
    ),
    "motion.avi": lambda path: damage.encode(path, "mjpeg", pixels="yuvj420p", frames=20),
    "turned.mp4": write_turned,
    "deep.mp4": write_deep,
    "pictures": write_folder,
    "pages.tiff": write_tiff,
}


class Recorder:
    """An opened model that keeps the digest of each frame that it is given."""

    def __init__(self, backend: Backend) -> None:
        self.name, self.spec, self.path = backend.name, backend.spec, backend.path
        self.sha256, self._backend = backend.sha256, backend
        self.seen: list[str] = []

    def run(self, frames: np.ndarray) -> Answer:
        self.seen += [hashlib.sha256(np.ascontiguousarray(frame)).hexdigest() for frame in frames]
        return self._backend.run(frames)

    def close(self) -> None:
        self._backend.close()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", RECORDINGS)
def test_the_digest_is_that_of_the_frame_that_the_model_was_given(
    tmp_path: Path, name: str, version: int
) -> None:
    model = write_tiny_model(tmp_path / "model.onnx", input=InputSpec(32, preprocessing=version))
    path = RECORDINGS[name](tmp_path / name)
    with Reader.open(model) as reader:
        recorder = Recorder(reader._backend)
        reader._backend = reader._engines[1] = recorder
        # One thread: the frames come to the model in order.
        reader._plan = Plan(1, 4)
        study = reader.read(path)
    answered = [frame.index for frame in study.frames if frame.status == "classified"]
    assert len(answered) == study.ledger.container > 5
    with FrameSource.open(path, input=recorder.spec.input) as source:
        found = {index: source.input_sha256(index) for index in reversed(answered)}
    assert [found[index] for index in answered] == recorder.seen[: len(answered)]
    assert len(set(recorder.seen)) > 5
    with FrameSource.open(path) as source:
        box = study.source.field_of_view
        again = source.input_sha256(answered[3], input=recorder.spec.input, field_of_view=box)
    assert again == recorder.seen[3]


def test_statuses_are_those_of_a_reading(tmp_path: Path, tiny: Path) -> None:
    sound = damage.encode(tmp_path / "sound.mp4", frames=120, options={"bf": "2"})
    path = damage.flip(sound, tmp_path / "exam.mp4", [20, 63, 100], 4, bits=4)
    with Reader.open(tiny) as reader:
        study = reader.read(path)
    expected = {
        frame.index: (frame.status, frame.detail) for frame in study.frames if frame.status == "corrupt"
    }
    found, codes = {}, set()
    with FrameSource.open(path) as source:
        for index in reversed(range(source.frames)):
            try:
                source.picture(index)
            except FrameUnavailable as error:
                found[index] = error.status, error.detail
                codes.add(error.code)
    assert expected == found
    assert codes == {"frame_corrupt"}
    assert {detail for _, detail in found.values()} == {"damaged", "depends_on_damaged"}


def test_a_jpeg_keeps_the_full_colour_resolution_and_a_png_every_pixel(numbered: Path) -> None:
    with FrameSource.open(numbered) as source:
        rgb, jpeg, png = source.picture(50), source.jpeg(50), source.png(50)
        small = cv2.imdecode(np.frombuffer(source.thumbnail(50, 48), np.uint8), cv2.IMREAD_COLOR)
    # The frame header (SOF0): 17 bytes, 8 bits, height, width, 3 components, and the sampling factors of each.
    head = jpeg.index(b"\xff\xc0")
    assert jpeg[head + 4 : head + 10] == bytes([8, 0, rgb.shape[0], 0, rgb.shape[1], 3])
    assert [jpeg[head + at] for at in (11, 14, 17)] == [0x11] * 3
    # Quality 92: libjpeg scales its table by 16 %, and the first step of luma, 16, becomes 3.
    table = jpeg.index(b"\xff\xdb")
    assert jpeg[table + 5] == 3
    seen = cv2.cvtColor(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert np.abs(seen.astype(int) - rgb).mean() < 3
    exact = cv2.cvtColor(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(exact, rgb)
    assert small.shape == (32, 48, 3)


def test_an_index_or_size_that_is_none_is_refused(numbered: Path) -> None:
    with FrameSource.open(numbered) as source:
        for index in (-1, 120, 10**9):
            with pytest.raises(UsageError, match="allowed are 0 to 119"):
                source.jpeg(index)
        with pytest.raises(UsageError, match="size is 0"):
            source.jpeg(3, 0)
        with pytest.raises(UsageError, match="input is not known"):
            source.input_sha256(3)
    with pytest.raises(InputError, match="was closed"):
        source.jpeg(3)


@pytest.mark.parametrize("change", ["rewrite", "cut", "remove", "replace by a folder"])
def test_a_recording_that_changes_or_vanishes_is_an_error_of_one_line(
    tmp_path: Path, numbered: Path, change: str
) -> None:
    path = tmp_path / "exam.mp4"
    path.write_bytes(numbered.read_bytes())
    with FrameSource.open(path) as source:
        source.jpeg(10)
        data = path.read_bytes()
        path.unlink()
        if change == "rewrite":
            path.write_bytes(data[::-1])
        elif change == "cut":
            path.write_bytes(data[: len(data) // 2])
        elif change != "remove":
            path.mkdir()
        # Those in the cache as well.
        for index in (10, 11, 90):
            with pytest.raises(InputError) as caught:
                source.jpeg(index)
            assert "\n" not in str(caught.value)
            assert not isinstance(caught.value, FrameUnavailable)


def test_an_image_that_vanishes_from_a_folder_is_an_error_of_that_frame(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pictures")
    with FrameSource.open(folder) as source:
        (folder / "frame 3.png").unlink()
        with pytest.raises(InputError, match=r"frame 3\.png' went away"):
            source.picture(3)
        assert read_number(source.picture(4)) == 4
        assert source.access().speed == "fast"


def test_the_caches_stay_within_their_bytes(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "exam.mp4", frames=100, gop=100)
    caches = Caches.of_size(200_000, 60_000)
    with FrameSource.open(path, caches=caches) as source:
        for index in (99, 0, 50, 98, 97):
            source.jpeg(index)
            assert 0 < caches.decoded.bytes <= 200_000
            assert 0 < caches.encoded.bytes <= 60_000
    assert caches.decoded.bytes == caches.encoded.bytes == 0
    caches.ahead.close()


def test_requests_for_one_group_decode_it_once(numbered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    original = FrameDecoder.frames_from
    monkeypatch.setattr(
        FrameDecoder, "frames_from", lambda self, packet: begun.append(packet) or original(self, packet)
    )
    barrier = threading.Barrier(6)
    with FrameSource.open(numbered) as source, ThreadPoolExecutor(6) as pool:

        def show(index: int) -> int:
            barrier.wait()
            return read_number(source.picture(index))

        assert list(pool.map(show, [40, 41, 42, 43, 44, 45])) == [40, 41, 42, 43, 44, 45]
    assert len(begun) == 1


def test_many_threads_see_the_right_frames(numbered: Path) -> None:
    caches = Caches.of_size(1 << 18, 1 << 18)
    with FrameSource.open(numbered, caches=caches) as source, ThreadPoolExecutor(4) as pool:
        asked = np.random.default_rng(2).integers(0, 120, 80).tolist()

        def show(index: int) -> int:
            data = np.frombuffer(source.jpeg(index), np.uint8)
            return read_number(cv2.imdecode(data, cv2.IMREAD_COLOR))

        assert list(pool.map(show, asked)) == asked
    caches.ahead.close()
    assert no_thread_left()


def test_the_neighbours_are_encoded_ahead_and_the_thread_ends(
    numbered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches = Caches.of_size()
    with FrameSource.open(numbered, caches=caches) as source:
        source.jpeg(60)
        assert caches.ahead.wait(60)
        calls = []
        original = source.picture

        def note(index: int) -> np.ndarray:
            if threading.current_thread() is threading.main_thread():
                calls.append(index)
            return original(index)

        monkeypatch.setattr(source, "picture", note)
        # Both neighbours come from the cache; the direction of travel is known from the second step on.
        assert source.jpeg(61)
        assert caches.ahead.wait(60)
        assert source.jpeg(59)
        assert calls == []
    caches.ahead.close()
    assert no_thread_left()


def test_closing_ends_reading_ahead_at_once(numbered: Path) -> None:
    source = FrameSource.open(numbered)
    source.jpeg(60)
    source.close()
    assert no_thread_left()
    source.close()


def test_a_strip_shows_its_frames_and_says_which_have_no_picture(tmp_path: Path) -> None:
    sound = write_numbered(
        tmp_path / "sound.mp4", frames=60, gop=20, options={"x264-params": "scenecut=0:bframes=0"}
    )
    path = damage.blank(sound, tmp_path / "exam.mp4", 30)
    with FrameSource.open(path) as source:
        strip = source.strip(25, 45, size=96)
        sheet = cv2.imdecode(np.frombuffer(strip.jpeg, np.uint8), cv2.IMREAD_COLOR)
        tiles = np.split(sheet, len(strip.indices), axis=1)
        assert strip.indices == tuple(range(25, 45))
        assert strip.unavailable == tuple(range(30, 40))
        assert all(tile.shape == (strip.tile_height, strip.tile_width, 3) for tile in tiles)
        shown = {i: tile for i, tile in zip(strip.indices, tiles, strict=True) if i not in strip.unavailable}
        assert all(read_number(tile) == index for index, tile in shown.items())
        assert source.strip(0, 60, most=3).indices == (0, 30, 59)
        for start, end in ((5, 5), (-1, 4), (50, 61)):
            with pytest.raises(UsageError):
                source.strip(start, end)


def test_an_activation_map_is_the_one_that_the_report_would_show(numbered: Path, tiny: Path) -> None:
    backend = open_model(tiny)
    with FrameSource.open(numbered) as source:
        found = source.activation(33, backend.spec.keys[1], backend)
        pixels = source.model_input(33, input=backend.spec.input)
        with pytest.raises(UsageError, match="allowed are"):
            source.activation(33, "no such label", backend)
        box = source._field_of_view
    np.testing.assert_array_equal(found.values, activation_map(backend.run(pixels[None]).features[0][..., 1]))
    assert found.box == box
    backend.close()


def test_contours_enclose_what_lies_above_the_level() -> None:
    rows, columns = np.mgrid[0:12, 0:16]
    values = np.exp(-((rows - 4) ** 2 + (columns - 10) ** 2) / 8).astype(np.float32)
    lines = find_contours(values, 0.5)
    assert len(lines) == 1
    x, y = (np.array(lines[0]) * (16, 12) - 0.5).T
    # The level is reached at a distance of sqrt(8 ln 2) = 2.35 cells; linear interpolation is off by less than 0.15.
    distances = np.hypot(x - 10, y - 4)
    assert 2.2 < distances.min() <= distances.max() < 2.5
    assert find_contours(np.zeros((4, 4), np.float32)) == []
    whole = find_contours(np.ones((4, 4), np.float32))
    assert len(whole) == 1
    assert np.ptp(np.array(whole[0]), axis=0) == pytest.approx([1, 1], abs=0.05)


@pytest.mark.parametrize("level", [5e-324, 1e-20, 1e-12, 1 - 1e-12])
def test_contours_of_the_faintest_and_strongest_level_close(level: float) -> None:
    # Beside zeros, each crossing falls within rounding of a grid point.
    values = np.random.default_rng(0).random((7, 7)).astype(np.float32)
    values /= values.max()
    values[2:4, 2:4] = 0
    above = np.array([point for line in find_contours(values, level) for point in line])
    assert level > 0.5 or len(above)
    assert ((above >= 0) & (above <= 1)).all()


@pytest.mark.parametrize("seed", range(5))
def test_contours_close_on_any_map(seed: int) -> None:
    # Values of few levels: many equal the level, and many cells are saddles.
    values = np.random.default_rng(seed).integers(0, 5, (9, 7)).astype(np.float32) / 4
    for level in (0.25, 0.5, 0.75):
        for line in find_contours(values, level):
            steps = np.abs(np.diff(np.array([*line, line[0]]), axis=0))
            assert len(line) >= 3
            assert (steps <= np.array([1.01 / 56, 1.01 / 72])).all()


def test_a_store_opens_each_recording_once_and_lets_go_of_the_oldest(
    tmp_path: Path, numbered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    original = FrameSource.open.__func__
    monkeypatch.setattr(
        FrameSource,
        "open",
        classmethod(lambda cls, path, **options: opened.append(path) or original(cls, path, **options)),
    )
    store = FrameStore(most_sources=2)
    with ThreadPoolExecutor(4) as pool:
        sources = list(pool.map(lambda _: store.open("a", numbered), range(4)))
    assert len(opened) == 1
    assert len({id(source) for source in sources}) == 1
    other = write_numbered(tmp_path / "other.mp4", frames=20)
    for key in ("b", "c"):
        store.open(key, other)
    # "a" was let go of, but whoever holds it goes on.
    assert read_number(sources[0].picture(7)) == 7
    assert store.open("a", numbered) is not sources[0]
    store.discard("c")
    with pytest.raises(InputError):
        store.open("none", tmp_path / "none.mp4")
    store.close()
    with pytest.raises(InputError, match="closed"):
        store.open("a", numbered)
    assert no_thread_left()


@pytest.mark.parametrize("name", ["DICOMDIR", ""], ids=["file", "folder"])
def test_an_object_of_a_dicomdir_that_changes_is_stale(tmp_path: Path, name: str) -> None:
    pytest.importorskip("pydicom")
    uids = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4"}
    for index in range(4):
        write_pictures(tmp_path / f"I{index}", "raw", [view(False, index)], InstanceNumber=index + 1, **uids)
    write_directory(tmp_path, [(f"I{index}",) for index in range(4)])
    path = tmp_path / name
    before = mark_recording(path)
    with FrameSource.open(path) as source:
        np.testing.assert_array_equal(source.picture(2), view(False, 2))
        write_pictures(tmp_path / "I3", "raw", [view(True, 9)], InstanceNumber=4, **uids)
        with pytest.raises(StaleSourceError, match=r"I3' changed since it was opened"):
            source.picture(3)
        np.testing.assert_array_equal(source.picture(1), view(False, 1))
    assert mark_recording(path) != before


def test_a_jump_goes_before_a_frame_that_is_being_decoded(
    numbered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, jumped = threading.Event(), threading.Event()
    read = VideoReading.read

    def wait_for_the_jump(self: VideoReading, index: int, keep: Any, pause: Any) -> Any:
        while index == 20 and not jumped.is_set() and not pause():
            begun.set()
            jumped.wait(0.001)
        return read(self, index, keep, pause)

    monkeypatch.setattr(VideoReading, "read", wait_for_the_jump)
    shown: list[int] = []
    with FrameSource.open(numbered, sound=True) as source:
        other = threading.Thread(target=lambda: shown.append(read_number(source.picture(20))))
        other.start()
        assert begun.wait(10)
        # Without its precedence it would wait for a frame that waits for it.
        source.jpeg(115)
        jumped.set()
        other.join(10)
    assert shown == [20]


def test_an_urgent_frame_goes_before_one_that_is_fetched_ahead(
    numbered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, shown_first = threading.Event(), threading.Event()
    read = VideoReading.read

    def wait_for_the_urgent(self: VideoReading, index: int, keep: Any, pause: Any) -> Any:
        while index == 60 and not shown_first.is_set() and not pause():
            begun.set()
            shown_first.wait(0.001)
        return read(self, index, keep, pause)

    monkeypatch.setattr(VideoReading, "read", wait_for_the_urgent)
    shown: list[int] = []

    def fetch_ahead(source: FrameSource) -> None:
        with at_urgency(6):
            shown.append(read_number(source.picture(60)))

    with FrameSource.open(numbered) as source:
        source.jpeg(22)
        other = threading.Thread(target=fetch_ahead, args=(source,))
        other.start()
        assert begun.wait(10)
        # A step and no jump: it goes first because it is urgent.
        with at_urgency(1):
            source.jpeg(24)
        shown_first.set()
        other.join(10)
    assert shown == [60]


def test_a_frame_that_becomes_urgent_while_it_is_decoded_is_decoded_once(
    numbered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, urgent = threading.Event(), threading.Event()
    read, paused = VideoReading.read, list[bool]()

    def wait_until_it_is_urgent(self: VideoReading, index: int, keep: Any, pause: Any) -> Any:
        begun.set()
        assert urgent.wait(10)
        paused.append(pause())
        return read(self, index, keep, pause)

    def asked_while_it_waits() -> bool:
        urgent.set()
        return False

    monkeypatch.setattr(VideoReading, "read", wait_until_it_is_urgent)
    with FrameSource.open(numbered) as source, at_urgency(6):
        other = threading.Thread(target=source.thumbnail, args=(20,))
        other.start()
        assert begun.wait(10)
        with at_urgency(1), giving_up(asked_while_it_waits):
            assert read_number(source.picture(20)) == 20
        other.join(10)
    assert paused == [False]


def test_pictures_that_nobody_looks_at_prepare_no_neighbours(numbered: Path) -> None:
    with FrameSource.open(numbered) as source:
        with at_urgency(6):
            source.jpeg(60)
        assert source._shown is None
        source.jpeg(30)
        assert source._shown == 30
