"""Conversion to RGB by the stream's colour tags, compared with the formulas of the standards."""

from __future__ import annotations

from pathlib import Path

import av
import damage
import numpy as np
import pytest
from video_samples import read

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.recording import to_rgb

# 8-bit Y, U, V in limited range: black, white, mid grey, mucosa, blood, a blue dye, a bright highlight.
PATCHES = [
    (16, 128, 128),
    (235, 128, 128),
    (126, 128, 128),
    (120, 105, 165),
    (70, 110, 180),
    (80, 170, 110),
    (225, 120, 140),
]


BT601, BT709 = (0.299, 0.114), (0.2126, 0.0722)


def formula(y: float, u: float, v: float, weights: tuple[float, float], full: bool) -> list[float]:
    """Return R, G, B (0..255) of 8-bit Y, Cb, Cr by ITU-R BT.601-7 and BT.709-6."""
    red, blue = weights
    luma = y / 255 if full else (y - 16) / 219
    cb, cr = ((c - 128) / (255 if full else 224) for c in (u, v))
    r, b = luma + 2 * (1 - red) * cr, luma + 2 * (1 - blue) * cb
    g = (luma - red * r - blue * b) / (1 - red - blue)
    return [float(np.clip(255 * c, 0, 255)) for c in (r, g, b)]


def patches(pixels: str = "yuv420p", depth: int = 8) -> av.VideoFrame:
    """Return an image of 16-pixel squares of ``PATCHES``, side by side."""
    frame = av.VideoFrame(16 * len(PATCHES), 16, pixels)
    for channel, plane in enumerate(frame.planes):
        row = np.repeat([patch[channel] << (depth - 8) for patch in PATCHES], plane.width // len(PATCHES))
        kind = np.uint8 if depth == 8 else np.uint16
        data = np.zeros((plane.height, plane.line_size // np.dtype(kind).itemsize), kind)
        data[:, : plane.width] = row
        plane.update(data.tobytes())
    return frame


def centres(rgb: np.ndarray) -> np.ndarray:
    """Return the colours in the middle of the squares."""
    assert rgb.dtype == np.uint8
    assert rgb.shape == (16, 16 * len(PATCHES), 3)
    return rgb[8, 8::16].astype(int)


@pytest.mark.parametrize(
    ("tags", "weights", "full"),
    [
        ("", BT601, False),
        ("colormatrix=smpte170m", BT601, False),
        ("colormatrix=bt709", BT709, False),
        ("colormatrix=bt709:fullrange=on", BT709, True),
        ("fullrange=on", BT601, True),
    ],
)
def test_the_tagged_matrix_and_range_are_used(
    tags: str, weights: tuple[float, float], full: bool, tmp_path: Path
) -> None:
    path = tmp_path / "patches.mp4"
    with av.open(str(path), "w") as out:
        # Lossless, so the decoder returns these values exactly.
        options = {"qp": "0", "x264-params": tags}
        stream = out.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 16 * len(PATCHES), 16, "yuv420p"
        out.mux(stream.encode(patches()))
        out.mux(stream.encode(None))
    container, (frame,) = read(path)
    expected = [formula(*patch, weights, full) for patch in PATCHES]
    assert np.abs(centres(frame.rgb()) - expected).max() <= 2
    assert (container.color_range == 2) == full
    assert (container.colorspace == 1) == ("bt709" in tags)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("pixels", "depth"),
    [("yuv420p", 8), ("yuv422p", 8), ("yuv444p", 8), ("yuv420p10le", 10), ("yuv422p10le", 10)],
)
@pytest.mark.parametrize("full", [False, True])
def test_pixel_layouts_and_bit_depths(pixels: str, depth: int, full: bool) -> None:
    frame = patches(pixels, depth)
    frame.color_range = 2 if full else 0
    # The squares are flat, so only rounding remains.
    expected = [formula(*patch, BT601, full) for patch in PATCHES]
    assert np.abs(centres(to_rgb(frame)) - expected).max() <= 1


@pytest.mark.quick
@pytest.mark.parametrize(
    ("matrix", "weights"),
    [
        (1, BT709),
        (2, BT601),
        (4, (0.30, 0.11)),
        (5, BT601),
        (6, BT601),
        (7, (0.212, 0.087)),
        (9, (0.2627, 0.0593)),
    ],
)
def test_each_matrix_of_h273_has_its_own_weights(matrix: int, weights: tuple[float, float]) -> None:
    frame = patches()
    frame.colorspace = matrix
    expected = [formula(*patch, weights, full=False) for patch in PATCHES]
    assert np.abs(centres(to_rgb(frame)) - expected).max() <= 2


@pytest.mark.parametrize(("pixels", "depth"), [("gray", 8), ("gray10le", 10)])
@pytest.mark.parametrize("full", [False, True])
def test_grey_images(pixels: str, depth: int, full: bool) -> None:
    frame = patches(pixels, depth)
    frame.color_range = 2 if full else 1
    expected = [formula(y, 128, 128, BT601, full) for y, _, _ in PATCHES]
    # Ten bits are first cut to eight (an error up to 1), then stretched by 255/219 and rounded.
    assert np.abs(centres(to_rgb(frame)) - expected).max() <= 255 / 219 + 0.5


@pytest.mark.quick
def test_rgb_images_are_unchanged() -> None:
    values = np.random.default_rng(2).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for layout in ("rgb24", "gbrp", "bgr0"):
        frame = av.VideoFrame.from_ndarray(values, "rgb24").reformat(format=layout)
        assert (to_rgb(frame) == values).all()


def test_an_unknown_matrix_is_refused() -> None:
    frame = patches()
    frame.colorspace = 8  # YCgCo
    with pytest.raises(InputError, match="colour matrix 8"):
        to_rgb(frame)


def test_a_corrupt_frame_has_no_image(made, tmp_path: Path) -> None:
    _, frames = read(damage.blank(made("h264.mp4"), tmp_path / "spoilt.mp4", 0))
    assert frames[0].status == "corrupt"
    with pytest.raises(InputError, match="frame 0 is corrupt"):
        frames[0].rgb()
