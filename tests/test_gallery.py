"""Pictures of peaks: kept while a recording is read, or decoded again with what they build on, and the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import damage
import numpy as np
import pytest
from red_model import write_exam, write_red_model

from capsule_edge.runtime import Reader, ffmpeg, gallery, illustration
from capsule_edge.runtime.illustration import illustrate
from capsule_edge.runtime.video import decode, fetch, scan


@pytest.fixture(scope="module")
def red(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    with Reader.open(write_red_model(tmp_path_factory.mktemp("model") / "red.onnx")) as opened:
        yield opened


KINDS = {
    "h264.mp4": {"options": {"bf": "3"}},
    "open_gop.mp4": {"options": {"bf": "3", "x264-params": "open-gop=1"}},
    "h264.avi": {"options": {"bf": "3"}},
    "h264.ts": {"options": {"bf": "2"}},
    "mpeg4_b.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "mjpeg.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none:pools=none"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"lag-in-frames": "12", "cpu-used": "8"}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_fetched_again_are_the_same(kind: str, tmp_path: Path, monkeypatch) -> None:
    container = scan(damage.encode(tmp_path / kind, **KINDS[kind]))
    whole = {picture.index: picture for picture in decode(container)}
    sent = []
    real = ffmpeg._match
    monkeypatch.setattr(ffmpeg, "_match", lambda *args: sent.extend(found := real(*args)) or found)
    for wanted in ([0], [59], [3, 30, 31], [13], [25, 47]):
        sent.clear()
        found = dict(fetch(container, wanted))
        assert sorted(found) == wanted
        for index, frame in found.items():
            assert frame.pts == whole[index].frame.pts
            np.testing.assert_array_equal(frame.to_ndarray(), whole[index].frame.to_ndarray())
        # A group has 12 pictures; one that builds on the group before costs two.
        assert len(sent) <= 2 * 12 * len(wanted) or kind == "vp9.webm"


def test_peaks_are_not_decoded_again(red: Reader, tmp_path: Path, monkeypatch) -> None:
    exam = write_exam(tmp_path / "exam.mp4", red=[*range(4, 10), *range(30, 40)])
    kept = red.read(exam)
    assert len(kept.events) == 2
    container = scan(exam)
    again = illustrate(container, kept.events, red._engine(1), kept.source.field_of_view)
    for event in kept.events:
        np.testing.assert_array_equal(kept.thumbnails[event.id], again[0][event.id])
        # The map is of the batch's own inference, which has the same answer for a frame in any batch.
        np.testing.assert_array_equal(kept.activations[event.id], again[1][event.id])

    def fail(*_args: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(illustration, "fetch", fail)
    assert sorted(red.read(exam).thumbnails) == [1, 2]


def test_what_does_not_fit_is_decoded_again(red: Reader, tmp_path: Path, monkeypatch) -> None:
    exam = write_exam(tmp_path / "exam.mp4", red=[*range(4, 10), *range(30, 40)])
    whole = red.read(exam)
    monkeypatch.setattr(gallery, "KEPT", 1)
    tight = red.read(exam)
    for event in whole.events:
        np.testing.assert_array_equal(whole.thumbnails[event.id], tight.thumbnails[event.id])
