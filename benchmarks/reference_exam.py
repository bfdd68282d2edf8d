"""The reference examination: eight hours at two frames a second, made of the three shared recordings.

    python -m capsule_edge.benchmarks.reference_exam exam.mp4

57,600 frames of 336 x 336 in H.264. The recordings of ``CAPSULE_EDGE_DATA`` follow one another, again and again,
turned by another angle each time, at the bits per pixel that they have themselves. Without the recordings the
rendered phantom stands in, and the last line says so. The file is made where it is needed and never kept with the code.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import UsageError
from capsule_edge.runtime.recording import decode, scan

__all__ = ["FRAMES", "RECORDINGS", "SIDE", "cut_recording", "find_recordings", "write_exam"]

FRAMES = 57_600
SIDE = 336
FPS = 2
RECORDINGS = ("64440803f87b4843", "5e59c7fdb16c4228", "bca26705313a4644")
# Degrees from one round to the next: no two of the eleven rounds of a whole examination are alike.
_TURN = 31
# Of the phantom, which nothing was recorded of: the mean of the recordings.
_PHANTOM_BITS = 0.7

Pixels = npt.NDArray[np.uint8]


def write_exam(
    path: Path, *, frames: int = FRAMES, recordings: Sequence[Path] = (), side: int = SIDE
) -> dict[str, Any]:
    """Write the first ``frames`` frames of the examination; the phantom's where there are no ``recordings``.

    ``side`` in pixels, even, with as many bits each. Returns what the file is: its source, frames, bits per pixel
    asked for and reached. Raises ``UsageError`` for fewer than one frame and for such sides.
    """
    if frames < 1 or side < 2 or side % 2:
        raise UsageError(f"frames is {frames} and side {side}, allowed are 1 or more and an even number")
    bits = _bits_per_pixel(recordings) if recordings else _PHANTOM_BITS
    views = _turned(recordings, side) if recordings else _phantom(side)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as out:
        # One slice a picture and settings close to the recordings'; "fast" looks for motion less long.
        stream = out.add_stream("libx264", rate=FPS, options={"preset": "fast", "threads": "2"})
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        stream.codec_context.time_base = Fraction(1, FPS)
        stream.bit_rate = round(bits * side * side * FPS)
        for index, view in zip(range(frames), views, strict=False):
            frame = av.VideoFrame.from_ndarray(view, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    reached = 8 * int(scan(path).packets.sizes.sum()) / frames / side**2
    return {
        "source": "recordings" if recordings else "phantom",
        "frames": frames,
        "side": side,
        "bits_per_pixel": {"asked": round(bits, 3), "reached": round(reached, 3)},
        "bytes": path.stat().st_size,
    }


def _bits_per_pixel(recordings: Sequence[Path]) -> float:
    containers = [scan(recording) for recording in recordings]
    pixels = sum(each.present * each.width * each.height for each in containers)
    return 8 * int(sum(each.packets.sizes.sum() for each in containers)) / pixels


def _turned(recordings: Sequence[Path], side: int) -> Iterator[Pixels]:
    """All frames of the recordings, scaled and turned about the middle, another angle each round."""
    for turn in count():
        for recording in recordings:
            for frame in decode(scan(recording)):
                if frame.image is not None:
                    yield _turn(frame.rgb(), turn * _TURN, side)


def _turn(rgb: Pixels, degrees: float, side: int) -> Pixels:
    height, width = rgb.shape[:2]
    move = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, side / max(height, width))
    move[:, 2] += (side - width) / 2, (side - height) / 2
    return np.asarray(cv2.warpAffine(rgb, move, (side, side), flags=cv2.INTER_CUBIC), np.uint8)


def _phantom(side: int) -> Iterator[Pixels]:
    from capsule_edge.runtime.phantom import DEMO_SEED, Phantom

    for turn in count():
        phantom = Phantom(DEMO_SEED + turn)
        for index in range(phantom.frames):
            yield _turn(phantom.render(index), 0, side)


def cut_recording(path: Path, frames: int, out: Path) -> int:
    """Copy the pictures of a recording up to the first key frame behind ``frames``, without encoding them again.

    The answer is how many there are. Raises ``InputError`` as ``scan`` does.
    """
    scan(path)
    partial = out.with_name(out.name + ".partial.mp4")
    with av.open(str(path)) as whole, av.open(str(partial), "w", options={"movflags": "faststart"}) as part:
        source = whole.streams.video[0]
        stream = part.add_stream_from_template(source)
        copied = 0
        for packet in whole.demux(source):
            if packet.dts is None or (packet.is_keyframe and copied >= frames):
                break
            packet.stream = stream
            part.mux(packet)
            copied += 1
    os.replace(partial, out)
    return copied


def find_recordings() -> list[Path]:
    """The three shared recordings, or none where ``CAPSULE_EDGE_DATA`` does not have them all."""
    folder = Path(os.environ.get("CAPSULE_EDGE_DATA") or "/nowhere") / "recordings"
    paths = [folder / f"{name}.mp4" for name in RECORDINGS]
    return paths if all(path.exists() for path in paths) else []


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m capsule_edge.benchmarks.reference_exam", description=__doc__
    )
    parser.add_argument("out", type=Path, help="MP4 file to write")
    parser.add_argument("--frames", type=int, default=FRAMES)
    options = parser.parse_args(arguments)
    print(
        json.dumps(
            {
                "benchmark": "reference_exam",
                **write_exam(options.out, frames=options.frames, recordings=find_recordings()),
            }
        )
    )


if __name__ == "__main__":
    from capsule_edge.evaluation._module import run_module

    run_module(main)
