"""Odd side data and display matrices refuse no recording: it is read, with a warning."""

from __future__ import annotations

import gc
import io
import math
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import damage
import numpy as np
import pytest
from live_servers import Clock, live, server
from odd_samples import HEIGHT, WIDTH, codes, images, mux, picture
from orientation_samples import state_orientation
from red_model import write_red_model
from video_samples import read

from capsule_edge.evaluation.datasets import read_frame
from capsule_edge.runtime import InputError, Reader
from capsule_edge.runtime.recording import (
    decode_still,
    fetch,
    orientation_of,
    read_closed_gops,
    read_frames,
    scan,
    to_luma,
)
from capsule_edge.runtime.streaming.pipe_formats import Mjpeg

GROUP = 32
# Exif orientations as numpy turns them (Exif 2.32, tag 0x0112).
EXIF: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda rgb: rgb,
    2: np.fliplr,
    3: lambda rgb: np.rot90(rgb, 2),
    4: np.flipud,
    5: lambda rgb: rgb.swapaxes(0, 1),
    6: lambda rgb: np.rot90(rgb, -1),
    7: lambda rgb: np.rot90(rgb, 2).swapaxes(0, 1),
    8: lambda rgb: np.rot90(rgb, 1),
}


def jpeg(orientation: int | None) -> bytes:
    """Return the image as JPEG, with an Exif block that holds the orientation; None for no block."""
    data = cv2.imencode(".jpg", picture()[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    if orientation is None:
        return data
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    block = b"Exif\0\0" + b"II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]


# Side data


@pytest.mark.parametrize("container", ["avi", "mov", "mkv"])
def test_exif_orientations_turn_the_images_of_a_video(container: str, tmp_path: Path) -> None:
    (plain,) = images(mux(tmp_path / f"plain.{container}", [jpeg(None)]))
    for orientation, turn in EXIF.items():
        path = mux(tmp_path / f"{orientation}.{container}", [jpeg(orientation)] * 3)
        assert codes(scan(path)) == ["side_data"]
        for rgb in images(path):
            np.testing.assert_array_equal(rgb, turn(plain))
    # 0 and 9 are no orientations.
    for orientation in (0, 9):
        path = mux(tmp_path / f"{orientation}.{container}", [jpeg(orientation)])
        np.testing.assert_array_equal(images(path)[0], plain)


@pytest.mark.quick
def test_exif_orientations_turn_the_images_of_folders_pipes_and_data_sets(tmp_path: Path) -> None:
    plain = decode_still(jpeg(None))
    (piped,) = Mjpeg().read(io.BytesIO(jpeg(None)))
    assert plain is not None
    assert piped is not None
    for orientation, turn in EXIF.items():
        data = jpeg(orientation)
        folder = tmp_path / str(orientation)
        folder.mkdir()
        (folder / "1.jpg").write_bytes(data)
        np.testing.assert_array_equal(images(folder)[0], turn(plain.rgb))
        np.testing.assert_array_equal(read_frame(folder / "1.jpg"), turn(plain.rgb))
        (rgb,) = Mjpeg().read(io.BytesIO(data))
        np.testing.assert_array_equal(rgb, turn(piped))
        assert codes(scan(folder)) == []


def test_a_recording_with_exif_is_classified_and_says_so(tmp_path: Path) -> None:
    path = mux(tmp_path / "exam.avi", [jpeg(6)] * 5)
    with Reader.open(write_red_model(tmp_path / "red.onnx")) as reader:
        study = reader.read(path)
    assert study.ledger.classified == 5
    assert (study.source.width, study.source.height) == (HEIGHT, WIDTH)
    assert [warning.code for warning in study.warnings] == ["side_data"]
    assert "number 31 of FFmpeg" in study.warnings[0].message


@pytest.mark.parametrize("container", ["video", "folder"])
def test_an_image_that_is_shown_in_another_size_is_damaged(container: str, tmp_path: Path) -> None:
    data = [jpeg(6), jpeg(1), jpeg(8), jpeg(None), jpeg(5)]
    if container == "video":
        path = mux(tmp_path / "mixed.avi", data)
    else:
        (path := tmp_path / "mixed").mkdir()
        for index, one in enumerate(data):
            (path / f"{index}.jpg").write_bytes(one)
    frames = list(read_frames(scan(path), range(5)))
    assert [frame.detail for frame in frames] == ["", "damaged", "", "damaged", ""]
    assert frames[2].shape == (WIDTH, HEIGHT)


def test_reading_the_orientation_makes_no_reference_cycle(tmp_path: Path) -> None:
    _, (frame,) = read(mux(tmp_path / "exif.avi", [jpeg(6)]))
    gc.collect()
    gc.disable()
    try:
        before = sys.getrefcount(frame.image)
        for _ in range(3):
            orientation_of(frame.image)
        after = sys.getrefcount(frame.image)
        assert after == before
        assert gc.collect() == 0
    finally:
        gc.enable()


# Display matrices


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three closed groups of pictures, each long enough to be read by itself."""
    path = tmp_path_factory.mktemp("plain") / "plain.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"threads": "1", "bf": "0", "sc_threshold": "0"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = GROUP
        for _ in range(3 * GROUP):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture(), format="rgb24")))
        out.mux(stream.encode(None))
    return path


def set_matrix(source: Path, path: Path, values: list[int], box: bytes = b"tkhd", at: int = 44) -> Path:
    """Copy a file and write nine other values into the matrix of its track or movie header."""
    data = bytearray(source.read_bytes())
    struct.pack_into(">9i", data, data.index(box) + at, *values)
    path.write_bytes(data)
    return path


def matrix(degrees: float, *, mirrored: bool = False, scales: tuple[float, float] = (1, 1)) -> list[int]:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    a, b, c, d = scales[0] * cosine, scales[0] * sine, -scales[1] * sine, scales[1] * cosine
    if mirrored:
        a, b = -a, -b
    a, b, c, d = (round(65536 * value) for value in (a, b, c, d))
    return [a, b, 0, c, d, 0, 0, 0, 1 << 30]


def upright(rgb: np.ndarray) -> np.ndarray:
    return rgb


def clockwise(rgb: np.ndarray) -> np.ndarray:
    return np.rot90(rgb, -1)


WARNED = ["display_matrix"]


@pytest.mark.parametrize(
    ("values", "turn", "warned"),
    [
        ([0] * 9, upright, WARNED),
        ([65536, *[0] * 7, 1 << 30], upright, WARNED),  # squeezed to a line
        (matrix(0.5), upright, WARNED),
        (matrix(-1), upright, WARNED),
        (matrix(90.9), clockwise, WARNED),
        (matrix(89), clockwise, WARNED),
        (matrix(-91), lambda rgb: np.rot90(rgb, 1), WARNED),
        (matrix(179.2), lambda rgb: np.rot90(rgb, 2), WARNED),
        (matrix(0.6, mirrored=True), np.fliplr, WARNED),
        (matrix(90.6, mirrored=True), lambda rgb: np.rot90(rgb, 2).swapaxes(0, 1), WARNED),
        ([1, 65535, 0, -65536, 0, 0, 0, 0, 1 << 30], clockwise, WARNED),
        (matrix(0, scales=(2, 1)), upright, ["sample_aspect_ratio"]),
        (matrix(90, scales=(2, 1)), clockwise, ["sample_aspect_ratio"]),
        (matrix(0, scales=(3, 3)), upright, []),
        ([0, 1, 0, -1, 0, 0, 0, 0, 1 << 30], clockwise, []),
    ],
)
def test_odd_display_matrices(
    values: list[int], turn: Callable, warned: list, plain: Path, tmp_path: Path
) -> None:
    stored = images(plain)[0]
    path = set_matrix(plain, tmp_path / "odd.mp4", values)
    container = scan(path)
    assert codes(container) == warned
    (frame,) = read_frames(container, [0])
    np.testing.assert_array_equal(frame.rgb(), turn(stored))
    assert frame.shape == turn(stored).shape[:2]


@pytest.mark.parametrize("container", ["mov", "mkv"])
def test_a_rounded_turn_in_other_containers(container: str, plain: Path, tmp_path: Path) -> None:
    # Matroska holds it as ProjectionPoseRoll.
    odd = set_matrix(plain, tmp_path / "odd.mp4", matrix(90.9))
    path = damage.remux(odd, tmp_path / f"odd.{container}")
    assert codes(scan(path)) == ["display_matrix"]
    np.testing.assert_array_equal(images(path)[0], clockwise(images(plain)[0]))


@pytest.mark.quick
def test_a_movie_header_with_a_matrix_of_zeros(plain: Path, tmp_path: Path) -> None:
    path = set_matrix(plain, tmp_path / "odd.mp4", [0] * 9, b"mvhd", 40)
    assert codes(scan(path)) == ["display_matrix"]
    np.testing.assert_array_equal(images(path)[0], images(plain)[0])


@pytest.mark.quick
@pytest.mark.parametrize("values", [matrix(45), matrix(1.2), [65536, 0, 0, 32768, 65536, 0, 0, 0, 1 << 30]])
def test_what_no_quarter_turn_shows_is_refused(values: list[int], plain: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="allowed are quarter turns and mirrors"):
        scan(set_matrix(plain, tmp_path / "askew.mp4", values))


# Orientation in the supplemental information of H.264 and HEVC


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("packets", [(0,), (0, GROUP, 2 * GROUP)])
def test_an_orientation_of_h264_lasts(container: str, packets: tuple, plain: Path, tmp_path: Path) -> None:
    path = state_orientation(plain, tmp_path / f"turned.{container}", dict.fromkeys(packets, (90, False)))
    container_ = scan(path)
    frames = list(read_frames(container_, range(3 * GROUP)))
    assert [frame.detail for frame in frames] == [""] * (3 * GROUP)
    for frame, stored in zip(frames, images(plain), strict=True):
        # H.264 counts anticlockwise.
        np.testing.assert_array_equal(frame.rgb(), np.rot90(stored, 1))
        assert frame.shape == (WIDTH, HEIGHT)
    (again,) = fetch(container_, [GROUP + 6])
    np.testing.assert_array_equal(again.rgb(), frames[GROUP + 6].rgb())
    (luma,) = (to_luma(frame.image) for frame in read_frames(scan(plain), [GROUP + 6]))
    np.testing.assert_array_equal(to_luma(frames[GROUP + 6].image), np.rot90(luma, 1))


def test_groups_that_are_read_in_parallel_have_the_same_orientation(plain: Path, tmp_path: Path) -> None:
    path = state_orientation(plain, tmp_path / "turned.mp4", {0: (180, False), GROUP: (0, True)})
    container = scan(path)
    one_by_one = images(path)
    stored = images(plain)
    np.testing.assert_array_equal(one_by_one[3], np.rot90(stored[3], 2))
    np.testing.assert_array_equal(one_by_one[GROUP + 3], np.fliplr(stored[GROUP + 3]))
    # A key frame that states no orientation goes by the first image of the recording.
    np.testing.assert_array_equal(one_by_one[-1], np.rot90(stored[-1], 2))
    with read_closed_gops(container, range(3 * GROUP)) as gops:
        apart = {frame.index: frame.rgb() for frames in gops for frame in frames}
    assert sorted(apart) == list(range(3 * GROUP))
    for index, rgb in apart.items():
        np.testing.assert_array_equal(rgb, one_by_one[index])


def test_images_that_are_turned_later_are_damaged_and_refuse_nothing(plain: Path, tmp_path: Path) -> None:
    for degrees in (90, 45):
        path = state_orientation(
            plain, tmp_path / "turned.mp4", {GROUP: (degrees, False), 2 * GROUP: (0, False)}
        )
        container, frames = read(path)
        found = [frame.detail for frame in frames]
        assert found[: GROUP + 1] == [*[""] * GROUP, "damaged"]
        assert found[2 * GROUP :] == [""] * GROUP
        assert container.warnings == ()


def hevc_with_orientation(path: Path, turn: int) -> Path:
    """Write HEVC whose first picture states an anticlockwise turn in 1/65536 (ITU-T H.265, D.2.17)."""
    raw = damage.encode(
        path.with_suffix(".hevc"),
        "libx265",
        frames=6,
        gop=6,
        options={"x265-params": "log-level=none:pools=none:bframes=0"},
        size=(WIDTH, HEIGHT),
    )
    data = raw.read_bytes()
    # cancel 0, mirrors 00, 16 bits of turn, persistence 1, then the end of the payload.
    payload = (turn << 5 | 1 << 4 | 1 << 3).to_bytes(3, "big")
    unit = b"\0\0\0\1" + bytes([39 << 1, 1, 47, 3, *payload, 0x80])
    # Before the first picture: a unit of type 16 to 21.
    at = next(
        i for i in range(len(data) - 4) if data[i : i + 3] == b"\0\0\1" and 16 <= data[i + 3] >> 1 & 63 <= 21
    )
    raw.write_bytes(data[:at] + unit[1:] + data[at:])
    return damage.remux(raw, path)


def test_an_orientation_of_hevc_lasts(tmp_path: Path) -> None:
    path = hevc_with_orientation(tmp_path / "turned.mkv", 0x4000)
    container, frames = read(path)
    assert container.transposed
    assert {frame.shape for frame in frames} == {(WIDTH, HEIGHT)}
    path = hevc_with_orientation(tmp_path / "rounded.mkv", 0x4001)
    assert codes(scan(path)) == ["display_matrix"]


# Network sources


def test_a_network_source_is_turned_in_the_same_way(plain: Path, tmp_path: Path) -> None:
    path = state_orientation(plain, tmp_path / "turned.ts", {0: (90, False)})
    exif = mux(tmp_path / "exif.mkv", [jpeg(6)] * 4)
    for one, shape in ((path, (WIDTH, HEIGHT, 3)), (exif, (WIDTH, HEIGHT, 3))):
        data = one.read_bytes()
        with server(lambda _turn, data=data: ("video/mp4", data), length=True) as address:
            frames = list(live(address, Clock()).read())
        expected = images(one)
        assert len(frames) == len(expected)
        for frame, rgb in zip(frames, expected, strict=True):
            assert frame is not None
            assert frame.shape == shape
            np.testing.assert_array_equal(frame, rgb)
