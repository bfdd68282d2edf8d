"""The size that a header states is read without decoding, and an image that states too much is never decoded."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest

from capsule_edge.runtime.recording import MOST_PIXELS, decode_still, picture_size
from capsule_edge.runtime.recording.image_header import has_deep_values

pytestmark = pytest.mark.quick

PIXELS = np.random.default_rng(0).integers(0, 256, (37, 53, 3)).astype(np.uint8)


def encode(suffix: str, *options: int, pixels: np.ndarray = PIXELS) -> bytes:
    return bytes(cv2.imencode(suffix, pixels, list(options))[1].tobytes())


FORMATS = {
    "png": lambda: encode(".png"),
    "jpeg": lambda: encode(".jpg"),
    "progressive jpeg": lambda: encode(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "bmp": lambda: encode(".bmp"),
    "tiff": lambda: encode(".tiff"),
    "lossy webp": lambda: encode(".webp", cv2.IMWRITE_WEBP_QUALITY, 80),
    "lossless webp": lambda: encode(".webp", cv2.IMWRITE_WEBP_QUALITY, 101),
    "webp with transparency": lambda: encode(
        ".webp", cv2.IMWRITE_WEBP_QUALITY, 80, pixels=np.dstack([PIXELS, PIXELS[..., 0]])
    ),
    "ppm": lambda: encode(".ppm"),
    "pgm with a comment": lambda: b"P5\n# made by hand\n53 37\n255\n" + bytes(37 * 53),
    "jpeg with a thumbnail": lambda: (
        encode(".jpg")[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(SMALL)) + SMALL + encode(".jpg")[2:]
    ),
}
SMALL = encode(".jpg", pixels=PIXELS[:8, :8])


@pytest.mark.parametrize("kind", FORMATS)
def test_the_header_of_each_format_states_the_size(kind: str) -> None:
    assert picture_size(FORMATS[kind]()) == (53, 37)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_broken_header_has_no_size_or_another_and_raises_nothing(kind: str) -> None:
    data = FORMATS[kind]()
    for length in range(0, min(len(data), 700), 7):
        picture_size(data[:length])
    random = np.random.default_rng(1)
    for _ in range(200):
        broken = bytearray(data[:400])
        broken[random.integers(0, len(broken))] ^= 1 << random.integers(0, 8)
        picture_size(bytes(broken))
        has_deep_values(bytes(broken))


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".ppm", ".pgm"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_the_header_states_the_depth(suffix: str, kind: type[np.unsignedinteger]) -> None:
    pixels = PIXELS.astype(kind) if suffix != ".pgm" else PIXELS[..., 0].astype(kind)
    assert has_deep_values(encode(suffix, pixels=pixels)) is (kind is np.uint16)


def test_an_unknown_format_has_no_size() -> None:
    assert picture_size(b"") is None
    assert picture_size(b"not a picture at all, but long enough to be one") is None


def bomb(width: int, height: int) -> bytes:
    """A PNG of one grey level, as small as its header allows."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_a_picture_that_states_too_many_pixels_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    side = int(MOST_PIXELS**0.5)
    assert decode_still(bomb(side + 1, side)) is None
    with pytest.raises(pytest.fail.Exception):
        decode_still(bomb(side, side))
