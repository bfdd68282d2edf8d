"""Recordings with an orientation: every part of the runtime works on the upright image."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import damage
import numpy as np
import pytest
from red_model import write_red_model

from capsule_edge.runtime import InputError, Reader
from capsule_edge.runtime.preprocessing import measure
from capsule_edge.runtime.recording import Frame, fetch, read_frames, scan

WIDTH, HEIGHT, FRAMES = 96, 64, 40
# The matrix (a, b, c, d) shows a pixel (x, y) at (a x + c y, b x + d y); beside it the same turn with numpy.
ORIENTATIONS = {
    "90": ((0, 1, -1, 0), lambda rgb: np.rot90(rgb, -1)),
    "180": ((-1, 0, 0, -1), lambda rgb: np.rot90(rgb, 2)),
    "270": ((0, -1, 1, 0), lambda rgb: np.rot90(rgb, 1)),
    "mirrored": ((-1, 0, 0, 1), np.fliplr),
    "upside down": ((1, 0, 0, -1), np.flipud),
    "transposed": ((0, 1, 1, 0), lambda rgb: rgb.swapaxes(0, 1)),
    "transverse": ((0, -1, -1, 0), lambda rgb: np.rot90(rgb, 2).swapaxes(0, 1)),
}


def write(path: Path) -> Path:
    """Write frames with two different corners, and a red patch in frames 10 to 29. Nothing in them is symmetric."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"threads": "1"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.bit_rate = 4_000_000
        for index in range(FRAMES):
            rgb = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
            rgb[:20, :30] = (200, 180, 60)
            rgb[-12:, -40:] = (60, 80, 200)
            if 10 <= index < 30:
                rgb[10:54, 20:76] = (220, 20, 20)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        out.mux(stream.encode(None))
    return path


def set_matrix(source: Path, path: Path, matrix: tuple[float, float, float, float]) -> Path:
    """Copy a file and write another matrix into its track header (ISO/IEC 14496-12, 8.3.2)."""
    data = bytearray(source.read_bytes())
    tkhd = data.index(b"tkhd")
    assert data[tkhd + 4] == 0  # the version, on which the offset of the matrix depends
    a, b, c, d = (round(65536 * value) for value in matrix)
    struct.pack_into(">9i", data, tkhd + 4 + 4 + 20 + 16, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("plain") / "plain.mp4")


def read_images(path: Path) -> list[np.ndarray]:
    container = scan(path)
    found = [one.rgb() for one in read_frames(container, range(container.present))]
    assert all(rgb is not None for rgb in found)
    return [rgb for rgb in found if rgb is not None]


# Matroska holds turns, but no mirrored images.
@pytest.mark.parametrize(
    ("orientation", "container"),
    [*((name, "mp4") for name in ORIENTATIONS), *((name, "mkv") for name in ("90", "180", "270"))],
)
def test_images_are_upright(orientation: str, container: str, plain: Path, tmp_path: Path) -> None:
    matrix, as_numpy = ORIENTATIONS[orientation]
    path = set_matrix(plain, tmp_path / "turned.mp4", matrix)
    if container == "mkv":
        path = damage.remux(path, tmp_path / "turned.mkv")
    expected = read_images(plain)
    found = read_images(path)
    assert len(found) == len(expected) == FRAMES
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, as_numpy(other))
    assert scan(path).transposed == (found[0].shape[0] == WIDTH)
    (again,) = fetch(scan(path), [17])
    np.testing.assert_array_equal(again.rgb(), found[17])
    assert again.shape == found[17].shape[:2]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_near_duplicate_filter_compares_upright_images(
    orientation: str, plain: Path, tmp_path: Path
) -> None:
    matrix, as_numpy = ORIENTATIONS[orientation]
    path = set_matrix(plain, tmp_path / "turned.mp4", matrix)
    stored, upright = (next(iter(read_frames(scan(p), range(1)))) for p in (plain, path))
    assert stored.image is not None
    assert upright.image is not None
    one, other = measure(upright.image, None), as_numpy(measure(stored.image, None))
    # Every other row of the upright image is measured. At an edge these are other rows than before the turn.
    assert np.mean(np.abs(one.astype(int) - other)) < 3


@pytest.mark.parametrize("orientation", ["90", "mirrored"])
def test_size_field_of_view_and_thumbnails_are_of_the_upright_image(
    orientation: str, plain: Path, tmp_path: Path
) -> None:
    matrix, as_numpy = ORIENTATIONS[orientation]
    path = set_matrix(plain, tmp_path / "turned.mp4", matrix)
    with Reader.open(write_red_model(tmp_path / "red.onnx")) as reader:
        study, straight = reader.read(path), reader.read(plain)
    size = (HEIGHT, WIDTH) if orientation == "90" else (WIDTH, HEIGHT)
    assert (study.source.width, study.source.height) == size
    assert study.source.field_of_view is not None
    box = study.source.field_of_view
    assert box.left + box.width <= size[0]
    assert box.top + box.height <= size[1]
    assert (
        [event.label for event in study.events] == [event.label for event in straight.events] == ["bleeding"]
    )
    thumbnail = study.thumbnails[1]
    np.testing.assert_array_equal(thumbnail, as_numpy(straight.thumbnails[1]))


@pytest.mark.quick
def test_an_orientation_of_45_degrees_is_refused(plain: Path, tmp_path: Path) -> None:
    path = set_matrix(plain, tmp_path / "askew.mp4", (0.707, 0.707, -0.707, 0.707))
    with (
        Reader.open(write_red_model(tmp_path / "red.onnx")) as reader,
        pytest.raises(InputError, match="allowed are quarter turns and mirrors"),
    ):
        reader.read(path)


@pytest.mark.quick
def test_an_image_given_as_an_array_is_not_turned() -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    assert Frame(0, image).shape == (4, 6)
