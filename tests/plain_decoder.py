"""Compare what the reader reads with what a plain decoder shows, and make recordings with the ffmpeg program."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest

from capsule_edge.runtime.recording import Container, Frame, decode, scan


def ffmpeg(*arguments: object) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed (Debian: apt-get install ffmpeg)")
    subprocess.run(
        ["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True, stdin=subprocess.DEVNULL
    )


def shown_by_decoder(path: Path) -> list[np.ndarray]:
    """Return all images of a plain decoder with one thread, in its order."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        stream.thread_count = 1
        images = []
        for packet in file.demux(stream):
            # A decoder may refuse headers that come as a packet.
            with suppress(av.error.FFmpegError):
                images += [image.to_ndarray() for image in stream.decode(packet)]
        return images


def read_whole(path: Path) -> tuple[Container, list[Frame]]:
    """Read a recording; check that it is what a plain decoder shows, and that its times rise."""
    container = scan(path)
    frames = list(decode(container))
    assert [frame.detail for frame in frames] == [""] * len(frames)
    expected = shown_by_decoder(path)
    assert len(frames) == len(expected) == container.frames
    for frame, image in zip(frames, expected, strict=True):
        assert isinstance(frame.image, av.VideoFrame)
        np.testing.assert_array_equal(frame.image.to_ndarray(), image)
    assert all(
        before < after for before, after in zip(container.times_s, container.times_s[1:], strict=False)
    )
    return container, frames
