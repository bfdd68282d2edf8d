"""Write the reference examination: eight hours at two frames per second, made from the three shared recordings.

    python -m capsule_edge.benchmarks.reference_exam exam.mp4 [--frames 57600]

The file has 57,600 frames of 336 x 336 pixels in H.264. It repeats the recordings of ``CAPSULE_EDGE_DATA`` one after
the other, rotated by a different angle in each repetition, with as many bits per pixel as the recordings have. Without
the recordings it shows the rendered phantom instead, and the last line of output says so. The file is written where it
is needed and is not kept with the code.
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
from capsule_edge.runtime.results import whole_file

__all__ = ["FRAMES", "RECORDINGS", "SIDE", "cut_recording", "find_recordings", "write_exam"]

FRAMES = 57_600
SIDE = 336
FPS = 2
RECORDINGS = ("64440803f87b4843", "5e59c7fdb16c4228", "bca26705313a4644")
# Degrees from one repetition to the next: the eleven repetitions of a whole examination have eleven angles.
_TURN = 31
# Bits per pixel of the phantom: the mean of the three recordings.
_PHANTOM_BITS = 0.7

Pixels = npt.NDArray[np.uint8]


def write_exam(
    path: Path, *, frames: int = FRAMES, recordings: Sequence[Path] = (), side: int = SIDE
) -> dict[str, Any]:
    """Write the first frames of the examination as an MP4 file.

    Args:
        path: file to write.
        frames: number of frames, at least 1.
        recordings: the recordings to repeat; without any the phantom is rendered.
        side: width and height in pixels, even.

    Returns:
        A description of the file: ``source``, ``frames``, ``side``, ``bits_per_pixel`` (asked for and reached) and
        ``bytes``.

    Raises:
        UsageError: ``frames`` or ``side`` is out of range.
    """
    if frames < 1 or side < 2 or side % 2:
        raise UsageError(f"frames is {frames} and side {side}, allowed are 1 or more and an even number")
    bits = _bits_per_pixel(recordings) if recordings else _PHANTOM_BITS
    views = _repeat(recordings, side) if recordings else _render_phantom(side)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as out:
        # One slice per picture and settings close to the recordings'; "fast" shortens the motion search.
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
    """Return the mean over all pixels of the recordings."""
    containers = [scan(recording) for recording in recordings]
    pixels = sum(each.present * each.width * each.height for each in containers)
    return 8 * int(sum(each.packets.sizes.sum() for each in containers)) / pixels


def _repeat(recordings: Sequence[Path], side: int) -> Iterator[Pixels]:
    """Yield all frames of the recordings again and again, rotated by a different angle in each repetition."""
    for turn in count():
        for recording in recordings:
            for frame in decode(scan(recording)):
                if frame.image is not None:
                    yield _rotate(frame.rgb(), turn * _TURN, side)


def _rotate(rgb: Pixels, degrees: float, side: int) -> Pixels:
    """Rotate a frame about its middle and scale its longer side to ``side`` pixels."""
    height, width = rgb.shape[:2]
    move = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, side / max(height, width))
    move[:, 2] += (side - width) / 2, (side - height) / 2
    return np.asarray(cv2.warpAffine(rgb, move, (side, side), flags=cv2.INTER_CUBIC), np.uint8)


def _render_phantom(side: int) -> Iterator[Pixels]:
    from capsule_edge.runtime.phantom import DEMO_SEED, Phantom

    for turn in count():
        phantom = Phantom(DEMO_SEED + turn)
        for index in range(phantom.frames):
            yield _rotate(phantom.render(index), 0, side)


def cut_recording(path: Path, frames: int, out: Path) -> int:
    """Copy the start of a recording without encoding it again.

    Args:
        path: the recording.
        frames: least number of frames; the copy ends before the next key frame.
        out: MP4 file to write.

    Returns:
        The number of frames copied; fewer than ``frames`` if the recording is shorter.

    Raises:
        InputError: the recording cannot be read.
    """
    scan(path)
    with (
        whole_file(out) as temporary,
        av.open(str(path)) as whole,
        av.open(str(temporary), "w", options={"movflags": "faststart"}) as part,
    ):
        source = whole.streams.video[0]
        stream = part.add_stream_from_template(source)
        copied = 0
        for packet in whole.demux(source):
            if packet.dts is None or (packet.is_keyframe and copied >= frames):
                break
            packet.stream = stream
            part.mux(packet)
            copied += 1
    return copied


def find_recordings() -> list[Path]:
    """Return the paths of the three shared recordings; empty unless ``CAPSULE_EDGE_DATA`` has all of them."""
    folder = Path(os.environ.get("CAPSULE_EDGE_DATA") or "/nowhere") / "recordings"
    paths = [folder / f"{name}.mp4" for name in RECORDINGS]
    return paths if all(path.exists() for path in paths) else []


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m capsule_edge.benchmarks.reference_exam",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, help="MP4 file to write")
    parser.add_argument("--frames", type=int, default=FRAMES, help="number of frames (default: %(default)s)")
    options = parser.parse_args(arguments)
    about = write_exam(options.out, frames=options.frames, recordings=find_recordings())
    print(json.dumps({"benchmark": "reference_exam", **about}))


if __name__ == "__main__":
    from capsule_edge.evaluation._module import run_module

    run_module(main)
