"""Order and times: from the container's stamps where these hold, else from the decoder; and joined clips."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import damage
import numpy as np
import pytest
from plain_decoder import ffmpeg, read_whole

from capsule_edge.runtime.recording import decode, scan
from capsule_edge.runtime.recording.packets import PacketInfo, PacketTable, present, unreliable

Stamp = int | None


def table(stamps: Sequence[Stamp | tuple[Stamp, Stamp]]) -> PacketTable:
    """Return packets with these stamps: (pts, dts), or one number for both."""
    pairs = [each if isinstance(each, tuple) else (each, each) for each in stamps]
    return PacketTable.of(PacketInfo(pts, dts, 100, True, False, False) for pts, dts in pairs)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("stamps", "line", "restarts"),
    [
        ([0, 4, 8, 12, 0, 4, 8], [0, 4, 8, 12, 16, 20, 24], (4,)),  # short clips
        ([0, 4, 8, 0, 50, 100, 150], [0, 4, 8, 12, 62, 112, 162], (3,)),  # a slow clip behind a fast one
        ([0, 50, 100, 0, 4, 8, 12], [0, 50, 100, 150, 154, 158, 162], (3,)),  # and the other way round
        ([7, 11, 7, 11, 7, 11, 15], [7, 11, 15, 19, 23, 27, 31], (2, 4)),
        ([0, 4, 8, 7, 16, 20], [0, 4, 7, 8, 16, 20], ()),  # jitter of less than a step
        ([0, 4, 8, 0, 16, 20, 24], [0, 0, 4, 8, 16, 20, 24], ()),  # one stamp too low
        ([0, 4, 900, 12, 16, 20], [0, 4, 12, 16, 20, 900], ()),  # one stamp too high
        ([0, 4, 8, 100, 104], [0, 4, 8, 100, 104], ()),  # a gap is no new start
    ],
)
def test_a_new_start_of_the_clock_is_told_from_jitter(
    stamps: list[int], line: list[int], restarts: tuple[int, ...]
) -> None:
    found = present(table(stamps))
    assert list(found.line) == line
    assert found.restarts == restarts


@pytest.mark.quick
def test_a_frame_is_shown_within_32_places_of_where_it_is_stored() -> None:
    """Packet 60 is stamped as shown before the second one. Showing it there would take 60 frames in memory."""
    stamps = [4 * at for at in range(60)] + [2] + [4 * at for at in range(61, 70)]
    found = present(table([(pts, at) for at, pts in enumerate(stamps)]))
    late = [*range(28), 60, *range(28, 60), *range(61, 70)]
    assert list(found.order) == late
    # Nearer than that, the stamps give the order.
    near = present(table([(pts, at) for at, pts in enumerate(stamps[40:])]))
    assert list(near.order) == [20, *range(20), *range(21, 30)]


@pytest.mark.quick
def test_reordering_within_joined_clips_stays_within_each() -> None:
    clip = [(0, -2), (3, -1), (1, 0), (2, 1), (6, 2), (4, 3), (5, 4)]
    found = present(table(clip * 3))
    order = [0, 2, 3, 1, 5, 6, 4]
    assert list(found.order) == [index + 7 * part for part in range(3) for index in order]
    assert list(found.line) == list(range(21))
    assert found.restarts == (7, 14)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        ([None] * 5, [0, 2, 4, 6, 8]),
        ([(None, at) for at in (0, 1, 2, 3, 4)], [0, 1, 2, 3, 4]),
        ([(0, 0), (8, 1), (None, 2), (4, 3), (None, 4)], [0, 2, 4, 6, 8]),  # between known ones
        ([(None, None), (20, None), (None, None), (10, None), (None, None)], [5, 8, 10, 15, 20]),
        ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4]),  # the stamps of storage
    ],
)
def test_times_come_from_the_stamps_that_are_left(stamps: list[Stamp], expected: list[int]) -> None:
    # The decoder shows the last two before the second.
    found = present(table(stamps), [0, 2, 3, 4, 1], step=Fraction(2))
    assert list(found.order) == [0, 2, 3, 4, 1]
    assert all(before < after for before, after in pairwise(found.line))
    if None not in [each if not isinstance(each, tuple) else each[0] for each in stamps] or stamps[0] is None:
        assert list(found.line) == expected


@pytest.mark.quick
def test_stamps_that_cannot_give_the_order() -> None:
    assert unreliable(table([(0, 0), (None, 1), (2, 2)]))
    assert unreliable(table([(0, 0), (3, 1), (3, 2)]))
    assert not unreliable(table([(0, 0), (3, 1), (1, 2), (2, 3)]))
    # The same stamps again in another part are no doubt.
    assert not unreliable(table([(0, 0), (3, 1), (1, 2), (2, 3)] * 2))


CODECS = {
    "h264": ["-c:v", "libx264", "-bf", 2, "-g", 25, "-pix_fmt", "yuv420p"],
    "hevc": ["-c:v", "libx265", "-x265-params", "log-level=0:bframes=2:keyint=25", "-pix_fmt", "yuv420p"],
    "mpeg4": ["-c:v", "mpeg4", "-bf", 2, "-g", 25],
    "mpeg2": ["-c:v", "mpeg2video", "-bf", 2, "-g", 12],
}
SOURCE = ["-f", "lavfi", "-i", "testsrc2=size=176x144:rate=25:duration=2"]


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov"])
@pytest.mark.parametrize("codec", ["h264", "hevc", "mpeg4"])
def test_storage_order_as_time_stamps_is_not_believed(tmp_path: Path, codec: str, suffix: str) -> None:
    whole, path = tmp_path / "whole.mp4", tmp_path / f"stored.{suffix}"
    ffmpeg(*SOURCE, *CODECS[codec], whole)
    ffmpeg("-i", whole, "-c", "copy", "-bsf:v", "setts=pts=DTS", path)
    container, _ = read_whole(path)
    assert (container.times, container.missing) == ("inferred", 0)
    assert [warning.code for warning in container.warnings] == ["times_inferred"]


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [("h264", "mpg"), ("h264", "avi"), ("mpeg4", "avi"), ("mpeg2", "avi"), ("mpeg4", "asf"), ("h264", "asf")],
)
def test_containers_without_presentation_times_show_the_order_of_the_decoder(
    tmp_path: Path, codec: str, suffix: str
) -> None:
    raw, path = tmp_path / "raw.h264", tmp_path / f"stored.{suffix}"
    if suffix == "mpg":
        ffmpeg(*SOURCE, *CODECS[codec], raw)
        ffmpeg("-fflags", "+genpts", "-r", 25, "-i", raw, "-c", "copy", "-f", "vob", path)
    else:
        ffmpeg(*SOURCE, *CODECS[codec], path)
    container, _ = read_whole(path)
    assert container.missing == 0
    assert container.times_s[-1] == pytest.approx((container.frames - 1) / 25, abs=0.1)


@pytest.mark.parametrize("suffix", ["ts", "mpg"])
@pytest.mark.parametrize("frames", [3, 5, 20])
def test_joined_clips_follow_one_another(tmp_path: Path, suffix: str, frames: int) -> None:
    whole = damage.encode(tmp_path / "a.mkv", "mpeg2video", frames=frames, options={"bf": "2"})
    clip = damage.remux(whole, tmp_path / f"a.{suffix}").read_bytes()
    path = tmp_path / f"joined.{suffix}"
    path.write_bytes(clip * 3)
    container, read = scan(path), list(decode(scan(path)))
    assert [frame.detail for frame in read] == [""] * 3 * frames
    assert container.times_s == pytest.approx([place / 25 for place in range(3 * frames)], abs=0.001)
    means = np.array([frame.rgb().mean() for frame in read]).reshape(3, frames)
    assert (np.diff(means, axis=1) > 0).all()


def test_a_sound_avi_that_plays_half_its_rate_misses_nothing(tmp_path: Path) -> None:
    # ffmpeg writes an empty place behind each frame, also behind the last.
    ffmpeg(*SOURCE, "-c:v", "mpeg4", "-bf", 0, tmp_path / "a.mp4")
    ffmpeg("-i", tmp_path / "a.mp4", "-c", "copy", tmp_path / "a.avi")
    container, _ = read_whole(tmp_path / "a.avi")
    assert (container.frames, container.missing) == (50, 0)
