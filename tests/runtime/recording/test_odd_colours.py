"""Odd colour tags, and every pixel format: converted as the standards say, with a warning where a tag is odd."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from odd_samples import HEIGHT, WIDTH, codes, images, mux, picture

from capsule_edge.evaluation.datasets import read_frame
from capsule_edge.runtime import InputError
from capsule_edge.runtime.preprocessing import measure
from capsule_edge.runtime.recording import decode_still, scan, to_luma, to_rgb
from capsule_edge.runtime.recording.colour import odd_colour

# Colour matrix and range


def flat(pixels: str, values: tuple[int, ...], depth: int = 8) -> av.VideoFrame:
    """Return an image of 32 x 16 pixels with one value in each plane."""
    frame = av.VideoFrame(32, 16, pixels)
    kind = np.uint8 if depth == 8 else np.uint16
    for plane, value in zip(frame.planes, values, strict=True):
        data = np.full((plane.height, plane.line_size // np.dtype(kind).itemsize), value, kind)
        plane.update(data.tobytes())
    return frame


@pytest.mark.quick
@pytest.mark.parametrize("pixels", ["yuv420p", "yuv422p", "yuv444p", "nv12", "yuv420p10le"])
@pytest.mark.parametrize("stated", [0, 3, 18, 255])
def test_a_matrix_that_means_nothing_counts_as_untagged(pixels: str, stated: int) -> None:
    frame = flat("yuv420p", (120, 105, 165)).reformat(format=pixels)
    expected, luma = to_rgb(frame), to_luma(frame)
    frame.colorspace = stated
    np.testing.assert_array_equal(to_rgb(frame), expected)
    np.testing.assert_array_equal(to_luma(frame), luma)
    (warning,) = odd_colour(frame)
    assert warning.code == "colour_matrix"
    assert f"state colour matrix {stated} of ITU-T H.273" in warning.message


@pytest.mark.quick
@pytest.mark.parametrize(("stated", "primaries", "same_as"), [(10, 9, 9), (12, 1, 1), (12, 9, 9), (13, 2, 2)])
def test_a_matrix_that_players_replace(stated: int, primaries: int, same_as: int) -> None:
    frame = flat("yuv420p", (120, 105, 165))
    frame.colorspace = same_as
    expected = to_rgb(frame)
    frame.colorspace, frame.color_primaries = stated, primaries
    np.testing.assert_array_equal(to_rgb(frame), expected)
    assert [warning.code for warning in odd_colour(frame)] == ["colour_matrix"]


@pytest.mark.quick
@pytest.mark.parametrize("stated", [8, 11, 14, 15, 16, 17])
def test_other_colour_spaces_are_refused(stated: int) -> None:
    frame = flat("yuv420p", (120, 105, 165))
    frame.colorspace = stated
    with pytest.raises(InputError, match=f"colour matrix {stated} of ITU-T H.273 is not BT.601"):
        to_rgb(frame)
    assert odd_colour(frame) == []


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv444p"])
def test_matrix_0_in_a_matroska_file(pixels: str, tmp_path: Path) -> None:
    def write(name: str, matrix: int) -> Path:
        with av.open(str(tmp_path / name), "w") as out:
            stream = out.add_stream("ffv1", rate=25)
            stream.width, stream.height, stream.pix_fmt = 32, 16, pixels
            stream.codec_context.colorspace = matrix
            out.mux(stream.encode(flat(pixels, (120, 105, 165))))
            out.mux(stream.encode(None))
        return tmp_path / name

    path = write("odd.mkv", 0)
    with av.open(str(path)) as file:
        written = int(file.streams.video[0].codec_context.colorspace)
    if written != 0:
        pytest.skip("this FFmpeg does not write matrix 0 to Matroska")
    assert codes(scan(path)) == ["colour_matrix"]
    np.testing.assert_array_equal(images(path)[0], images(write("plain.mkv", 2))[0])


@pytest.mark.quick
@pytest.mark.parametrize("pixels", ["rgb24", "gbrp", "pal8", "monob", "yuvj420p", "ya8"])
def test_a_limited_range_that_contradicts_the_pixel_format(pixels: str) -> None:
    plain = av.VideoFrame.from_ndarray(picture(), "rgb24")
    frame = paletted() if pixels == "pal8" else plain.reformat(format=pixels)
    expected = to_rgb(frame)
    frame.color_range = 1
    np.testing.assert_array_equal(to_rgb(frame), expected)
    assert [warning.code for warning in odd_colour(frame)] == ["colour_range"]


# Pixel formats


def paletted() -> av.VideoFrame:
    """Return an image with all 256 entries of a random opaque palette."""
    frame = av.VideoFrame(256, 4, "pal8")
    indices, palette = frame.planes
    indices.update(bytes(np.resize(np.arange(256, dtype=np.uint8), (4, indices.line_size))))
    palette.update(PALETTE.tobytes())
    return frame


# Blue, green, red, alpha.
PALETTE = np.random.default_rng(0).integers(0, 256, (256, 4), dtype=np.uint8)
PALETTE[:, 3] = 255


@pytest.mark.quick
def test_palettes_and_bits() -> None:
    np.testing.assert_array_equal(to_rgb(paletted())[2], PALETTE[:, 2::-1])
    bits = np.random.default_rng(1).integers(0, 2, (8, 64), dtype=np.uint8)
    for pixels, white in (("monob", 1), ("monow", 0)):
        frame = av.VideoFrame(64, 8, pixels)
        (plane,) = frame.planes
        rows = np.zeros((8, plane.line_size), np.uint8)
        rows[:, :8] = np.packbits(bits, axis=1)
        plane.update(rows.tobytes())
        np.testing.assert_array_equal(to_rgb(frame), np.where(bits == white, 255, 0)[:, :, None].repeat(3, 2))
        np.testing.assert_array_equal(to_luma(frame), to_rgb(frame)[:, :, 0])


@pytest.mark.quick
@pytest.mark.parametrize(
    ("pixels", "bits", "kind"),
    [("gray10le", 10, "<u2"), ("gray12le", 12, "<u2"), ("gray16le", 16, "<u2"), ("gray16be", 16, ">u2")],
)
def test_deep_grey(pixels: str, bits: int, kind: str) -> None:
    values = np.random.default_rng(2).integers(0, 1 << bits, (8, 64))
    frame = av.VideoFrame(64, 8, pixels)
    frame.planes[0].update(padded(values.astype(kind), frame.planes[0].line_size))
    frame.color_range = 2
    expected = np.rint(values * (255 / ((1 << bits) - 1)))
    # swscale divides by a power of two.
    assert np.abs(to_rgb(frame)[:, :, 1] - expected).max() <= 1


@pytest.mark.quick
@pytest.mark.parametrize(
    ("pixels", "bits"),
    [("gbrp10le", 10), ("gbrp12le", 12), ("rgb48le", 16), ("rgb48be", 16), ("gbrp16le", 16)],
)
def test_deep_rgb(pixels: str, bits: int) -> None:
    values = np.random.default_rng(3).integers(0, 1 << bits, (8, 64, 3)).astype(np.uint16)
    frame = av.VideoFrame.from_ndarray(values, pixels)
    # swscale divides by a power of two, and dithers.
    assert np.abs(to_rgb(frame) - np.rint(values * (255 / ((1 << bits) - 1)))).max() <= 1


@pytest.mark.quick
@pytest.mark.parametrize(("pixels", "green"), [("rgb555le", 5), ("bgr555le", 5), ("rgb565le", 6)])
def test_rgb_of_16_bits(pixels: str, green: int) -> None:
    values = np.random.default_rng(4).integers(0, 1 << (10 + green), (8, 64)).astype("<u2")
    frame = av.VideoFrame(64, 8, pixels)
    frame.planes[0].update(padded(values, frame.planes[0].line_size))
    first, last = values >> (5 + green), values & 31
    channels = [first, values >> 5 & ((1 << green) - 1), last]
    scaled = [np.rint(c * (255 / top)) for c, top in zip(channels, (31, (1 << green) - 1, 31), strict=True)]
    expected = np.dstack(scaled[::-1] if pixels.startswith("bgr") else scaled)
    # swscale repeats the upper bits, which is within 1 of the exact value.
    assert np.abs(to_rgb(frame) - expected).max() <= 1


def padded(values: np.ndarray, line_size: int) -> bytes:
    rows = np.zeros((len(values), line_size // values.itemsize), values.dtype)
    rows[:, : values.shape[1]] = values
    return rows.tobytes()


@pytest.mark.quick
@pytest.mark.parametrize(
    "pixels", ["nv12", "yuyv422", "uyvy422", "yuv420p12le", "p010le", "yuva420p", "yuv411p"]
)
def test_layouts_of_luma_and_chroma(pixels: str) -> None:
    plain = av.VideoFrame.from_ndarray(picture(), "rgb24").reformat(format="yuv444p")
    frame = plain.reformat(format=pixels)
    luma, grey = to_luma(frame), cv2.cvtColor(to_rgb(frame), cv2.COLOR_RGB2GRAY)
    if pixels in ("nv12", "yuv411p"):
        # The stored plane, of limited range.
        grey = np.rint(16 + grey * (219 / 255)).astype(np.uint8)
    # In the middle of the flat areas chroma is not mixed. 10 and 12 bits are rounded once less.
    for row, column in ((8, 8), (-4, -8), (40, 16)):
        np.testing.assert_allclose(
            to_rgb(frame)[row, column].astype(int), to_rgb(plain)[row, column].astype(int), atol=2
        )
        assert abs(int(luma[row, column]) - int(grey[row, column])) <= 2


def test_near_duplicates_compare_the_whole_of_a_packed_image() -> None:
    changed = picture()
    changed[:, 60:] = 10
    one, other = (
        measure(av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format="yuyv422"), None).astype(int)
        for rgb in (picture(), changed)
    )
    assert np.abs(one - other)[:, :18].max() <= 1
    assert np.abs(one - other)[:, 22:].min() > 20


# Transparency: as on black


def veil() -> np.ndarray:
    """Return an alpha channel with every value."""
    return np.resize(np.arange(256, dtype=np.uint8), (HEIGHT, WIDTH))


@pytest.mark.quick
@pytest.mark.parametrize("pixels", ["rgba", "bgra", "argb", "abgr", "gbrap"])
def test_transparent_parts_are_shown_on_black(pixels: str) -> None:
    both = np.dstack([picture(), veil()])
    frame = av.VideoFrame.from_ndarray(both, "rgba").reformat(format=pixels)
    expected = np.rint(picture() * (veil()[:, :, None] / 255))
    np.testing.assert_array_equal(to_rgb(frame), expected)
    assert [warning.code for warning in odd_colour(frame)] == ["transparency"]
    luma = cv2.cvtColor(expected.astype(np.uint8), cv2.COLOR_RGB2GRAY)
    np.testing.assert_array_equal(to_luma(frame), luma)


@pytest.mark.quick
@pytest.mark.parametrize("alpha", [0, 255])
def test_an_alpha_channel_of_one_value_shows_the_image(alpha: int) -> None:
    # 32-bit RGB in AVI has zeros as its fourth byte.
    both = np.dstack([picture(), np.full((HEIGHT, WIDTH), alpha, np.uint8)])
    frame = av.VideoFrame.from_ndarray(both, "rgba")
    np.testing.assert_array_equal(to_rgb(frame), picture())
    assert odd_colour(frame) == []


@pytest.mark.quick
def test_transparency_of_luma_and_of_grey() -> None:
    frame = flat("yuva420p", (120, 105, 165, 128))
    opaque = to_rgb(flat("yuv420p", (120, 105, 165)))
    np.testing.assert_array_equal(to_rgb(frame), np.rint(opaque * (128 / 255)))
    for pixels, kind, scale in (("ya8", "u1", 1), ("ya16le", "<u2", 257), ("ya16be", ">u2", 257)):
        grey = av.VideoFrame(256, 2, pixels)
        both = np.zeros((2, 512), kind)
        both[:, ::2], both[:, 1::2] = 200 * scale, np.arange(256) * scale
        grey.planes[0].update(padded(both, grey.planes[0].line_size))
        expected = np.rint(200 * np.arange(256) / 255)
        np.testing.assert_array_equal(to_rgb(grey)[1], expected[:, None].repeat(3, 1))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(depth: int, colour: int, row: bytes, width: int, *extra: bytes) -> bytes:
    """Return a PNG of ``HEIGHT`` equal rows."""
    head = struct.pack(">IIBBBBB", width, HEIGHT, depth, colour, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress((b"\0" + row) * HEIGHT))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(extra) + pixels + chunk(b"IEND", b"")


LEVELS = np.arange(WIDTH, dtype=np.uint8)
COLOURS = np.random.default_rng(5).integers(0, 256, (WIDTH, 3), dtype=np.uint8)
# The encoded image, its pixels in a row, the code of the warning in a video, and that in a folder.
PNGS = {
    "paletted": (
        png(8, 3, LEVELS.tobytes(), WIDTH, chunk(b"PLTE", COLOURS.tobytes())),
        COLOURS,
        ["colour_matrix"],
        [],
    ),
    "paletted with transparency": (
        png(
            8, 3, LEVELS.tobytes(), WIDTH, chunk(b"PLTE", COLOURS.tobytes()), chunk(b"tRNS", LEVELS.tobytes())
        ),
        np.rint(COLOURS * (LEVELS[:, None] / 255)),
        ["colour_matrix", "transparency"],
        ["transparency"],
    ),
    "1 bit": (
        png(1, 0, b"\x5a" * (WIDTH // 8), WIDTH),
        np.unpackbits(np.full(WIDTH // 8, 0x5A, np.uint8))[:, None].repeat(3, 1) * 255,
        ["colour_matrix"],
        [],
    ),
    "grey and alpha": (
        png(8, 4, np.dstack([LEVELS + 100, LEVELS * 2]).tobytes(), WIDTH),
        np.rint((LEVELS + 100) * (LEVELS * 2 / 255))[:, None].repeat(3, 1),
        ["colour_matrix", "transparency"],
        ["transparency"],
    ),
    "opaque grey and alpha": (
        png(8, 4, np.dstack([LEVELS + 100, LEVELS * 0 + 255]).tobytes(), WIDTH),
        (LEVELS + 100)[:, None].repeat(3, 1),
        ["colour_matrix"],
        [],
    ),
    "grey and alpha of 16 bits": (
        png(16, 4, (np.dstack([LEVELS + 100, LEVELS * 2]).astype(">u2") * 257).tobytes(), WIDTH),
        np.rint((LEVELS + 100) * (LEVELS * 2 / 255))[:, None].repeat(3, 1),
        ["colour_matrix", "transparency"],
        ["transparency"],
    ),
    "RGBA": (
        png(8, 6, np.column_stack([COLOURS, LEVELS]).tobytes(), WIDTH),
        np.rint(COLOURS * (LEVELS[:, None] / 255)),
        ["transparency"],
        ["transparency"],
    ),
    "grey": (png(8, 0, LEVELS.tobytes(), WIDTH), LEVELS[:, None].repeat(3, 1), [], []),
    "grey of 16 bits": (
        png(16, 0, (LEVELS.astype(">u2") * 257).tobytes(), WIDTH),
        LEVELS[:, None].repeat(3, 1),
        [],
        [],
    ),
}


@pytest.mark.parametrize("kind", PNGS)
def test_png_in_videos_and_folders(kind: str, tmp_path: Path) -> None:
    data, row, in_video, in_folder = PNGS[kind]
    # FFmpeg divides 16 bits of grey by a power of two.
    tolerance = 1 if kind == "grey of 16 bits" else 0
    for container in ("avi", "mov"):
        path = mux(tmp_path / f"png.{container}", [data] * 2, "png", "rgb24")
        assert codes(scan(path)) == in_video
        for rgb in images(path):
            np.testing.assert_allclose(rgb.astype(int), np.broadcast_to(row, rgb.shape), atol=tolerance)
    (folder := tmp_path / "folder").mkdir()
    (folder / "1.png").write_bytes(data)
    assert codes(scan(folder)) == in_folder
    np.testing.assert_array_equal(images(folder)[0], np.broadcast_to(row, (HEIGHT, WIDTH, 3)))
    np.testing.assert_array_equal(read_frame(folder / "1.png"), images(folder)[0])


@pytest.mark.quick
def test_transparent_webp_is_shown_on_black() -> None:
    image = pytest.importorskip("PIL.Image")
    both = np.dstack([picture(), veil()])
    for source, transparent in ((both, True), (picture(), False)):
        buffer = io.BytesIO()
        # "exact" keeps the colours of fully transparent pixels.
        image.fromarray(source).save(buffer, "WEBP", lossless=True, exact=True)
        still = decode_still(buffer.getvalue())
        assert still is not None
        assert still.transparent == transparent
        alpha = veil() if transparent else np.full_like(veil(), 255)
        np.testing.assert_array_equal(still.rgb, np.rint(picture() * (alpha[:, :, None] / 255)))


@pytest.mark.quick
@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK"])
@pytest.mark.parametrize("format", ["TIFF", "BMP", "JPEG"])
def test_other_still_images(mode: str, format: str, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / f"1.{format.lower()}"
    options = {"quality": 100, "subsampling": 0} if format == "JPEG" else {}
    source = image.fromarray(picture()).convert(mode)
    try:
        source.save(path, format, **options)
    except (OSError, ValueError):
        pytest.skip(f"{format} holds no {mode}")
    still = decode_still(path.read_bytes(), 0 if format == "TIFF" else None)
    assert still is not None
    assert not still.transparent
    # JPEG of quality 100 is rounded in two transforms; one bit beside white rings more.
    tolerance = 0 if format != "JPEG" else 60 if mode == "1" else 3
    np.testing.assert_allclose(
        still.rgb.astype(int), np.asarray(source.convert("RGB")).astype(int), atol=tolerance
    )
