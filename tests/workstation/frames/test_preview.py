"""The first look at a recording: its length, and colours in the right place."""

from __future__ import annotations

from pathlib import Path

import cv2
import damage
import numpy as np
import pytest
from red_model import view, write_exam

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.recording import find_entries, scan
from capsule_edge.workstation.frames import preview_recording

RED = range(24, 36)


def is_red(colour: tuple[int, int, int]) -> bool:
    return colour[0] > colour[1] + 10


@pytest.mark.parametrize("bins", [1, 5, 20, 60, 500])
def test_each_colour_lies_in_the_bin_of_its_key_frame(tmp_path: Path, bins: int) -> None:
    path = write_exam(tmp_path / "exam.mp4", frames=60, red=RED, gop=6)
    results = list(preview_recording(path, bins=bins, seconds=60))
    first, last = results[0], results[-1]
    assert (first.frames, first.duration_s, first.decoded) == (60, 30.0, 0)
    assert set(first.colours) == {None}
    keys = find_entries(scan(path)).frames.tolist()
    coloured = {at for at, colour in enumerate(last.colours) if colour is not None}
    assert coloured == {key * bins // 60 for key in keys}
    assert last.complete
    assert last.decoded == len(coloured)
    if bins >= 20:
        red = {at for at in coloured if is_red(last.colours[at])}
        assert red == {key * bins // 60 for key in keys if key in RED}


def test_results_improve_and_end_in_time(tmp_path: Path) -> None:
    path = damage.encode(tmp_path / "exam.avi", "mjpeg", pixels="yuvj420p", frames=60)
    results = list(preview_recording(path, bins=40, seconds=60))
    counts = [sum(colour is not None for colour in result.colours) for result in results]
    assert counts == sorted(counts)
    assert counts[-1] == 40
    assert len(counts) > 3
    # The early results already span the recording.
    early = [at for at, colour in enumerate(results[1].colours) if colour is not None]
    assert max(np.diff([-1, *early, 40])) <= 12
    stopped = list(preview_recording(path, bins=40, seconds=0))
    assert [result.decoded for result in stopped] == [0, 0]
    assert not stopped[-1].complete


def test_a_folder_has_a_preview_and_damaged_images_no_colour(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(12):
        data = cv2.imencode(".png", cv2.cvtColor(view(index in range(6, 9), index), cv2.COLOR_RGB2BGR))[
            1
        ].tobytes()
        (folder / f"{index}.png").write_bytes(data[: len(data) // 2] if index == 2 else data)
    last = list(preview_recording(folder, bins=12, seconds=60))[-1]
    assert [at for at, colour in enumerate(last.colours) if colour is None] == [2]
    assert [at for at, colour in enumerate(last.colours) if colour and is_red(colour)] == [6, 7, 8]


def test_damaged_key_frames_have_no_colour(tmp_path: Path) -> None:
    sound = write_exam(tmp_path / "exam.mp4", frames=60, gop=6)
    entries = find_entries(scan(sound))
    path = damage.blank(sound, tmp_path / "damaged.mp4", int(entries.packets[4]))
    last = list(preview_recording(path, bins=60, seconds=60))[-1]
    missing = set(entries.frames.tolist()) - {at for at, colour in enumerate(last.colours) if colour}
    assert missing == {int(entries.frames[4])}


def test_what_is_no_recording_has_no_preview(tmp_path: Path) -> None:
    (tmp_path / "exam.mp4").write_bytes(b"no recording")
    with pytest.raises(InputError):
        list(preview_recording(tmp_path / "exam.mp4"))
