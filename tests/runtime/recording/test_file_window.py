"""Windows and fragments of a file are read like a file of their own."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capsule_edge.runtime.recording.file_window import FileWindow, FragmentedFile

pytestmark = pytest.mark.quick

CONTENT = bytes(range(200))
# Each is (way of seeking, position from there) or the number of bytes to read; -1 reads to the end.
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END]), st.integers(-60, 60)),
        st.integers(-1, 60),
    ),
    max_size=12,
)
PLACES = st.tuples(st.integers(0, 200), st.integers(0, 200)).map(lambda ends: (min(ends), max(ends)))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stored") / "file"
    path.write_bytes(CONTENT)
    return path


def assert_reads_like(content: bytes, file: BinaryIO, steps: list[int | tuple[int, int]]) -> None:
    """Take the same steps in the file and in its content. A step ends at the beginning at the latest."""
    expected = io.BytesIO(content)
    for step in steps:
        if isinstance(step, int):
            assert file.read(step) == expected.read(step)
        else:
            whence, offset = step
            base = {os.SEEK_SET: 0, os.SEEK_CUR: expected.tell(), os.SEEK_END: len(content)}[whence]
            assert file.seek(max(offset, -base), whence) == expected.seek(max(0, base + offset))
        assert file.tell() == expected.tell()


@settings(deadline=None)
@given(place=PLACES, steps=STEPS)
def test_a_window_is_read_like_a_file(
    stored: Path, place: tuple[int, int], steps: list[int | tuple[int, int]]
) -> None:
    with stored.open("rb") as file:
        window = cast(BinaryIO, FileWindow(file, *place))
        assert_reads_like(CONTENT[slice(*place)], window, steps)


@settings(deadline=None)
@given(places=st.lists(PLACES, max_size=4), steps=STEPS)
def test_fragments_are_read_like_a_file(
    stored: Path, places: list[tuple[int, int]], steps: list[int | tuple[int, int]]
) -> None:
    content = b"".join(CONTENT[slice(*place)] for place in places)
    fragments = FragmentedFile(stored, tuple(places))
    assert (fragments.size, fragments.stat().st_size) == (len(content), len(content))
    with fragments.open("rb") as file:
        assert_reads_like(content, file, steps)
