"""A file that ends before its chunks do is truncated, by a single byte too."""

from __future__ import annotations

import io

import pytest

from capsule_edge.runtime.recording.image_integrity import picture_is_cut
from capsule_edge.runtime.recording.truncation import avi_is_cut


def riff(kind: bytes, content: int, *, stated: int | None = None) -> bytes:
    """Return a RIFF chunk with ``content`` bytes behind its kind, padded to an even length as the format asks."""
    length = 4 + content
    return (
        b"RIFF"
        + (length if stated is None else stated).to_bytes(4, "little")
        + kind
        + bytes(content + content % 2)
    )


ONE, TWO = riff(b"AVI ", 40), riff(b"AVI ", 41) + riff(b"AVIX", 30)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("data", "cut"),
    [
        (ONE, False),
        (ONE[:-1], True),
        (ONE + b"behind the end", False),
        (TWO, False),
        (TWO[:-1], True),
        (TWO[:-30], True),
        (riff(b"AVI ", 41)[:-1], False),  # only the padding is missing
        (riff(b"AVI ", 40, stated=0), None),
        (riff(b"AVI ", 40, stated=0xFFFFFFFF), None),
        (ONE + riff(b"AVIX", 30, stated=0), None),
        (riff(b"WAVE", 40), None),
        (b"RIFF\x08", None),
        (b"", None),
    ],
)
def test_a_riff_chunk_beyond_the_end_of_the_file_is_a_cut(data: bytes, cut: bool | None) -> None:
    assert avi_is_cut(io.BytesIO(data), len(data)) is cut


@pytest.mark.quick
@pytest.mark.parametrize(
    ("data", "cut"),
    [
        (b"\xff\xd8", True),  # neither scan nor end
        (b"\xff\xd8 \xff\xda ..", True),
        (b"\xff\xd8 \xff\xd9 \xff\xda ..", True),  # the end is a thumbnail's
        (b"\xff\xd8 \xff\xda .. \xff\xd9 behind", False),
        (b"\x89PNG", True),
        (b"\x89PNG IDAT ..", True),
        (b"\x89PNG IDAT .. IEND", False),
        (b"BM", False),
    ],
)
def test_an_image_without_its_end_marker_is_cut(data: bytes, cut: bool) -> None:
    assert picture_is_cut(data) is cut
