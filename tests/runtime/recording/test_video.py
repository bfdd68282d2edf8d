"""Scanning and decoding video files: the number, order and times of the frames in every container."""

from __future__ import annotations

import csv
import struct
import sys
from pathlib import Path

import damage
import numpy as np
import pytest
from video_samples import KINDS, RECORDINGS, details, read, recording

from capsule_edge.runtime.recording import decode, scan


@pytest.mark.parametrize("name", RECORDINGS)
def test_all_frames_of_a_real_recording_have_the_true_times(name: str) -> None:
    path = recording(name)
    with path.with_suffix(".truth.csv").open(newline="") as file:
        truth = [float(row["time_s"]) for row in csv.DictReader(file)]
    container, frames = read(path)
    assert {frame.status for frame in frames} == {"ok"}
    assert (container.frames, container.missing, container.edited_out) == (len(truth), 0, 0)
    assert (container.container_source, container.truncated) == ("header", False)
    assert (container.codec, container.width, container.height) == ("h264", 224, 224)
    assert container.time_kind == "playback"
    # The table rounds to 4 decimals, and a tick of the file is 1/15360 s.
    assert [frame.time_s for frame in frames] == pytest.approx(truth, abs=0.00005 + 1 / 15360)


@pytest.mark.parametrize("kind", KINDS)
def test_undamaged_files_have_no_corrupt_frame_and_the_true_order(kind: str, made) -> None:
    container, frames = read(made(kind))
    assert {frame.status for frame in frames} == {"ok"}
    assert container.frames == 60
    assert container.missing == 0
    assert not container.truncated
    # Matroska rounds to milliseconds.
    assert [frame.time_s for frame in frames] == pytest.approx([i / 25 for i in range(60)], abs=0.0011)
    assert container.duration_s == pytest.approx(60 / 25, abs=0.0022)
    # Neighbours differ by 3 grey levels; at this bit rate an encoder changes the mean of an image by less than
    # half of that.
    means = np.array([frame.rgb().mean() for frame in frames])
    assert (np.diff(means) > 0).all()


@pytest.mark.quick
@pytest.mark.parametrize(
    ("kind", "source", "truncated"),
    [
        ("h264.mp4", "header", False),
        ("mpeg4.avi", "header", False),
        ("h264.mkv", "packets", False),
        ("h264.ts", "packets", None),
        ("fragmented.mp4", "packets", False),
    ],
)
def test_source_of_the_frame_count_and_truncation(
    kind: str, source: str, truncated: bool | None, made
) -> None:
    container = scan(made(kind))
    assert (container.container_source, container.truncated) == (source, truncated)
    assert (container.announced is None) == (source == "packets")


def test_a_file_of_two_frames_a_second_has_capture_time(tmp_path: Path) -> None:
    container = scan(damage.encode(tmp_path / "slow.mp4", frames=8, rate=2))
    assert (container.time_kind, container.frame_distance_s) == ("capture", 0.5)
    assert list(container.times_s) == [i / 2 for i in range(8)]


@pytest.mark.quick
def test_irregular_times_are_kept(tmp_path: Path) -> None:
    shown_at = [0, 1, 2, 50, 51, 700, 701, 702]
    container, frames = read(damage.encode(tmp_path / "gaps.mp4", frames=8, shown_at=shown_at))
    assert [frame.time_s for frame in frames] == [at / 25 for at in shown_at]
    assert container.missing == 0


def test_empty_slots_of_an_avi_are_not_missing_frames(tmp_path: Path) -> None:
    shown_at = [0, 1, 2, 10, 11, 30, 31]
    path = damage.encode(tmp_path / "gaps.avi", "mpeg4", frames=7, shown_at=shown_at)
    container, frames = read(path)
    assert (container.frames, container.missing) == (7, 0)
    assert [frame.time_s for frame in frames] == [at / 25 for at in shown_at]


def test_times_go_on_where_two_recordings_are_joined(made, tmp_path: Path) -> None:
    path = tmp_path / "joined.ts"
    path.write_bytes(made("mpeg2.ts").read_bytes() * 2)
    container, _ = read(path)
    assert container.present == 120
    assert container.duration_s == pytest.approx(2 * 60 / 25, abs=0.01)
    assert max(np.diff(container.times_s)) < 0.1


def test_paths_with_spaces_and_other_scripts(made, tmp_path: Path) -> None:
    folder = tmp_path / "Gerät 7 内視鏡"
    folder.mkdir()
    path = folder / "записи № 1: 50 %.mp4"
    path.write_bytes(made("h264.mp4").read_bytes())
    assert scan(path).frames == 60
    assert len(list(decode(scan(str(path))))) == 60


def test_a_relative_path_that_looks_like_a_protocol_is_a_file(made, tmp_path: Path, monkeypatch) -> None:
    if sys.platform == "win32":
        pytest.skip("Windows forbids a colon in a file name")
    (tmp_path / "concat:a.mp4").write_bytes(made("h264.mp4").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert scan("concat:a.mp4").frames == 60


def skip_by_edit(source: Path, path: Path, skip: int) -> Path:
    """Move the start of the only edit by ``skip`` frames. At 25 frames/s, the muxer counts 512 ticks a frame."""
    data = bytearray(source.read_bytes())
    at = data.index(b"elst") + 16
    (start,) = struct.unpack(">i", data[at : at + 4])
    data[at : at + 4] = struct.pack(">i", start + 512 * skip)
    path.write_bytes(data)
    return path


@pytest.mark.quick
def test_edited_out_frames_are_no_container_frames(made, tmp_path: Path) -> None:
    source = made("h264.mp4")
    container, frames = read(skip_by_edit(source, tmp_path / "edited.mp4", 17))
    assert (container.announced, container.edited_out, container.frames) == (60, 17, 43)
    assert container.missing == 0
    assert {frame.status for frame in frames} == {"ok"}
    _, whole = read(source)
    assert all((a.rgb() == b.rgb()).all() for a, b in zip(frames, whole[17:], strict=True))


def test_damage_in_an_edited_out_frame_reaches_the_shown_ones(made, tmp_path: Path) -> None:
    path = skip_by_edit(made("h264.mp4"), tmp_path / "edited.mp4", 17)
    container = scan(path)
    first_key, second_key = [index for index, packet in enumerate(container.packets) if packet.key][:2]
    assert container.packets[first_key].edited_out
    _, frames = read(damage.blank(path, tmp_path / "spoilt.mp4", first_key))
    sound_from = container.order.index(second_key)
    assert set(details(frames)[:sound_from]) == {"depends_on_damaged"}
    assert set(details(frames)[sound_from:]) == {""}


def test_a_title_in_another_encoding_is_ignored(tmp_path: Path) -> None:
    title = "q" * 20
    path = damage.encode(tmp_path / "latin1.mkv", title=title)
    data = path.read_bytes()
    assert data.count(title.encode()) == 1
    path.write_bytes(data.replace(title.encode(), b"\xe4" * len(title)))
    container, frames = read(path)
    assert container.frames == 60
    assert {frame.status for frame in frames} == {"ok"}
