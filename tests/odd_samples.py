"""Shared by the tests of odd fields: an image without symmetry, and videos of encoded images."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from capsule_edge.runtime.recording import Container, read_frames, scan

WIDTH, HEIGHT = 96, 64


def picture() -> np.ndarray:
    """Return an image with two different corners. Nothing in it is symmetric."""
    rgb = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    rgb[:24, :32] = (200, 180, 60)
    rgb[-16:, -48:] = (60, 80, 200)
    return rgb


def mux(path: Path, images: list[bytes], codec: str = "mjpeg", pixels: str = "yuvj420p") -> Path:
    """Write encoded images as they are, as the frames of a video."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        for index, data in enumerate(images):
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = index
            packet.is_keyframe = True
            out.mux(packet)
    return path


def codes(container: Container) -> list[str]:
    return [warning.code for warning in container.warnings]


def images(path: Path) -> list[np.ndarray]:
    container = scan(path)
    return [frame.rgb() for frame in read_frames(container, range(container.present))]
