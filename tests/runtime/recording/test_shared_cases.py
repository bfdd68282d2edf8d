"""Recordings that sound software writes and that were read wrongly once, built by a script beside the data."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from plain_decoder import shown_by_decoder

from capsule_edge.runtime.recording import Container, Frame, read_frames, scan

# For each recording: frames, edited out, and the codes of the warnings.
CASES: dict[str, tuple[int, int, list[str]]] = {
    "paff.ts": (40, 0, []),
    "vp8_2pass.webm": (75, 0, []),
    "xvid_packed.avi": (58, 0, ["times_inferred"]),
    "cat_short.mpg": (40, 0, ["clock_restarts"]),
    "h264_b.mpg": (75, 0, ["times_inferred"]),
    "edit_repeat.mp4": (20, 40, []),
    "timing_0.ts": (40, 0, []),
    "og_cut.mp4": (53, 3, []),
    "qtrle.mov": (60, 0, []),
    "svq1.mov": (60, 0, []),
    "tiff.mov": (60, 0, ["side_data"]),
    "exif.avi": (40, 0, ["side_data"]),
    "exif_o6.avi": (40, 0, ["side_data"]),
    "matrix_zero.mp4": (60, 0, ["display_matrix"]),
    "matrix0_420.mp4": (50, 0, ["colour_matrix"]),
    "pid_change.ts": (50, 0, ["other_stream"]),
    "preview_first.mp4": (50, 0, ["other_stream"]),
    "cat.mp4": (50, 0, ["appended_recording"]),
    "mac": (50, 0, ["hidden_files"]),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = os.environ.get("CAPSULE_EDGE_DATA")
    script = Path(data or ".").parent / "cases" / "build.sh"
    if data is None or not script.exists():
        pytest.skip("the script that builds the cases is not beside CAPSULE_EDGE_DATA")
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed (Debian: apt-get install ffmpeg)")
    folder = tmp_path_factory.mktemp("cases")
    subprocess.run(["bash", str(script), str(folder)], check=True, capture_output=True)
    return folder


def read(path: Path, **options: int) -> tuple[Container, list[Frame]]:
    container = scan(path, **options)
    return container, list(read_frames(container, range(container.present)))


@pytest.mark.parametrize("name", CASES)
def test_a_sound_recording_is_read_whole(built: Path, name: str) -> None:
    frames, edited_out, codes = CASES[name]
    container, found = read(built / name)
    assert Counter(frame.detail for frame in found) == {"": frames}
    assert (container.frames, container.missing, container.edited_out) == (frames, 0, edited_out)
    assert [warning.code for warning in container.warnings] == codes
    assert all(before < after for before, after in pairwise(container.times_s))


@pytest.mark.parametrize("name", ["xvid_packed.avi", "h264_b.mpg", "cat_short.mpg", "edit_repeat.mp4"])
def test_the_pictures_come_in_the_order_of_the_decoder(built: Path, name: str) -> None:
    _, found = read(built / name)
    expected = shown_by_decoder(built / name)
    assert len(found) == len(expected)
    for frame, image in zip(found, expected, strict=True):
        np.testing.assert_array_equal(frame.image.to_ndarray(), image)  # type: ignore[union-attr]


def test_the_times_of_repeated_and_joined_parts(built: Path) -> None:
    assert scan(built / "edit_repeat.mp4").times_s[-1] == pytest.approx(0.76, abs=0.001)
    assert scan(built / "cat_short.mpg").times_s[-1] == pytest.approx(39 / 25, abs=0.001)
    assert scan(built / "xvid_packed.avi").times == scan(built / "h264_b.mpg").times == "inferred"


def test_a_recording_cut_in_an_open_gop_shows_the_pictures_of_the_whole_one(built: Path) -> None:
    _, cut = read(built / "og_cut.mp4")
    whole = {image.tobytes() for image in shown_by_decoder(built / "og.ts")}
    assert all(frame.image.to_ndarray().tobytes() in whole for frame in cut)  # type: ignore[union-attr]


def test_the_other_stream_is_read_when_asked_for(built: Path) -> None:
    _, found = read(built / "preview_first.mp4", stream=0)
    assert [frame.detail for frame in found] == ["", ""]
    container, _ = read(built / "exif_o6.avi")
    assert container.transposed
