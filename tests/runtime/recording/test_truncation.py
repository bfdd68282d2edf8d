"""A file that ends before its chunks do is truncated, by a single byte too."""

from __future__ import annotations

import io

import pytest

from capsule_edge.runtime.recording.image_integrity import picture_is_cut
from capsule_edge.runtime.recording.truncation import Boxes, avi_is_cut, matroska_is_cut, read_boxes


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


EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
HEAD = EBML + b"\x84" + bytes(4) + SEGMENT


@pytest.mark.quick
@pytest.mark.parametrize(
    ("data", "cut"),
    [
        (HEAD + b"\x85" + bytes(5), False),
        (HEAD + b"\x85" + bytes(4), True),
        (HEAD + b"\x40\x05" + bytes(5), False),  # the same length in two bytes
        (HEAD + b"\x40\x05" + bytes(4), True),
        (HEAD + b"\x01" + bytes(6) + b"\x05" + bytes(5), False),  # and in eight
        (HEAD + b"\x01" + bytes(6) + b"\x05" + bytes(4), True),
        (HEAD + b"\xff" + bytes(5), None),  # a live file: the length is unknown
        (HEAD + b"\x00" + bytes(20), None),  # no length begins so
        (HEAD + b"\x01" + bytes(6), None),  # ends within the length
        (HEAD, None),
        (EBML + b"\xff" + bytes(20), None),
        (EBML + b"\x84" + bytes(20), None),  # no segment
        (EBML, None),
        (b"", None),
    ],
)
def test_a_segment_beyond_the_end_of_the_file_is_a_cut(data: bytes, cut: bool | None) -> None:
    assert matroska_is_cut(io.BytesIO(data), len(data)) is cut


def box(kind: bytes, content: int, *, stated: int | None = None) -> bytes:
    return (8 + content if stated is None else stated).to_bytes(4) + kind + bytes(content)


FTYP, WIDE = box(b"ftyp", 8), (1).to_bytes(4) + b"moov" + (20).to_bytes(8) + bytes(4)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (FTYP + box(b"mdat", 9) + box(b"moov", 7), Boxes("whole", False, False, False)),
        ((FTYP + box(b"mdat", 9) + box(b"moov", 7))[:-1], Boxes("cut", False, False, True)),
        (FTYP + WIDE, Boxes("whole", False, False, False)),
        ((FTYP + WIDE)[:-1], Boxes("cut", False, False, True)),
        (FTYP + box(b"moov", 7, stated=0), Boxes("whole", False, False, False)),
        (FTYP + box(b"moov", 4) + bytes(3), Boxes("whole", False, False, True)),
        (FTYP + box(b"mdat", 9), Boxes("absent", False, False, False)),
        (FTYP + box(b"moov", 4) + box(b"moof", 4), Boxes("whole", True, False, False)),
        (FTYP + box(b"moov", 4) + box(b"moof", 4) + box(b"mfra", 4), Boxes("whole", True, True, False)),
        (FTYP + box(b"moov", 4) + box(b"mfra", 4)[:-1], Boxes("whole", False, False, True)),
        (box(b"RIFF", 8), None),
        (b"\0\0\0\x08fty", None),
        (b"", None),
    ],
)
def test_the_top_level_of_an_mp4_is_whole_to_the_byte(data: bytes, expected: Boxes | None) -> None:
    assert read_boxes(io.BytesIO(data), len(data)) == expected
