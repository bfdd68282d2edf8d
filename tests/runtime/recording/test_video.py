"""Reading recordings: each container frame accounted for, damage not hidden, colours by the stream's tags."""

from __future__ import annotations

import csv
import struct
import sys
from pathlib import Path

import damage
import numpy as np
import pytest
from video_samples import KINDS, RECORDINGS, details, read, recording

from capsule_edge.runtime.recording import decode, decoder, scan


@pytest.mark.parametrize("name", RECORDINGS)
def test_real_recording_is_read_whole_at_the_true_times(name: str) -> None:
    path = recording(name)
    with path.with_suffix(".truth.csv").open(newline="") as file:
        truth = [float(row["time_s"]) for row in csv.DictReader(file)]
    container, pictures = read(path)
    assert {picture.status for picture in pictures} == {"ok"}
    assert (container.frames, container.missing, container.edited_out) == (len(truth), 0, 0)
    assert (container.container_source, container.truncated) == ("header", False)
    assert (container.codec, container.width, container.height) == ("h264", 224, 224)
    assert container.time_kind == "playback"
    # The table rounds to 4 decimals, and a tick of the file is 1/15360 s.
    assert [picture.time_s for picture in pictures] == pytest.approx(truth, abs=0.00005 + 1 / 15360)


@pytest.mark.parametrize("kind", KINDS)
def test_undamaged_kinds_have_no_corrupt_frame_and_the_true_order(kind: str, made) -> None:
    container, pictures = read(made(kind))
    assert {picture.status for picture in pictures} == {"ok"}
    assert container.frames == 60
    assert container.missing == 0
    assert not container.truncated
    # Matroska rounds to milliseconds.
    assert [picture.time_s for picture in pictures] == pytest.approx([i / 25 for i in range(60)], abs=0.0011)
    assert container.duration_s == pytest.approx(60 / 25, abs=0.0022)
    # Neighbours differ by 3 grey levels; at this bit rate an encoder moves the mean of a picture by less than
    # half of that.
    means = np.array([picture.rgb().mean() for picture in pictures])
    assert (np.diff(means) > 0).all()


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
def test_what_a_container_says_about_its_length(kind: str, source: str, truncated: bool | None, made) -> None:
    container = scan(made(kind))
    assert (container.container_source, container.truncated) == (source, truncated)
    assert (container.announced is None) == (source == "packets")


def test_two_frames_a_second_are_capture_time(tmp_path: Path) -> None:
    container = scan(damage.encode(tmp_path / "slow.mp4", frames=8, rate=2))
    assert (container.time_kind, container.frame_distance_s) == ("capture", 0.5)
    assert list(container.times_s) == [i / 2 for i in range(8)]


def test_irregular_times_are_kept(tmp_path: Path) -> None:
    shown_at = [0, 1, 2, 50, 51, 700, 701, 702]
    container, pictures = read(damage.encode(tmp_path / "gaps.mp4", frames=8, shown_at=shown_at))
    assert [picture.time_s for picture in pictures] == [at / 25 for at in shown_at]
    assert container.missing == 0


def test_empty_places_of_an_avi_are_not_missing_pictures(tmp_path: Path) -> None:
    shown_at = [0, 1, 2, 10, 11, 30, 31]
    path = damage.encode(tmp_path / "gaps.avi", "mpeg4", frames=7, shown_at=shown_at)
    container, pictures = read(path)
    assert (container.frames, container.missing) == (7, 0)
    assert [picture.time_s for picture in pictures] == [at / 25 for at in shown_at]


def test_recordings_joined_end_to_end_go_on_in_time(made, tmp_path: Path) -> None:
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


def test_relative_path_that_looks_like_a_protocol(made, tmp_path: Path, monkeypatch) -> None:
    if sys.platform == "win32":
        pytest.skip("Windows forbids a colon in a file name")
    (tmp_path / "concat:a.mp4").write_bytes(made("h264.mp4").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert scan("concat:a.mp4").frames == 60


def edit(source: Path, path: Path, skip: int) -> Path:
    """Moves the start of the only edit by ``skip`` frames; the muxer counts 512 ticks a frame at 25/s."""
    data = bytearray(source.read_bytes())
    at = data.index(b"elst") + 16
    (start,) = struct.unpack(">i", data[at : at + 4])
    data[at : at + 4] = struct.pack(">i", start + 512 * skip)
    path.write_bytes(data)
    return path


def test_edited_out_frames_are_no_container_frames(made, tmp_path: Path) -> None:
    source = made("h264.mp4")
    container, pictures = read(edit(source, tmp_path / "edited.mp4", 17))
    assert (container.announced, container.edited_out, container.frames) == (60, 17, 43)
    assert container.missing == 0
    assert {picture.status for picture in pictures} == {"ok"}
    _, whole = read(source)
    assert all((a.rgb() == b.rgb()).all() for a, b in zip(pictures, whole[17:], strict=True))


def test_damage_in_an_edited_out_frame_reaches_the_shown_ones(made, tmp_path: Path) -> None:
    path = edit(made("h264.mp4"), tmp_path / "edited.mp4", 17)
    container = scan(path)
    first_key = next(i for i, sample in enumerate(container.packets) if sample.key)
    assert container.packets[first_key].edited_out
    _, pictures = read(damage.blank(path, tmp_path / "spoilt.mp4", first_key))
    second_key = container.order.index(
        next(i for i, s in enumerate(container.packets) if s.key and i > first_key)
    )
    assert set(details(pictures)[:second_key]) == {"depends_on_damaged"}
    assert set(details(pictures)[second_key:]) == {""}


def test_the_module_offers_what_it_says() -> None:
    assert all(hasattr(decoder, name) for name in decoder.__all__)


def test_a_title_in_another_encoding_does_not_matter(tmp_path: Path) -> None:
    title = "q" * 20
    path = damage.encode(tmp_path / "latin1.mkv", title=title)
    data = path.read_bytes()
    assert data.count(title.encode()) == 1
    path.write_bytes(data.replace(title.encode(), b"\xe4" * len(title)))
    container, pictures = read(path)
    assert container.frames == 60
    assert {picture.status for picture in pictures} == {"ok"}
