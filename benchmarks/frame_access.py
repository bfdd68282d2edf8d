"""Measure how fast frames are shown by their index, and check that each is the one of its index.

    python -m capsule_edge.benchmarks.frame_access exam.mp4 [--accesses 300] [--checks 1000] [--skip-timing] [--sound]

Times are those of ``workstation.frames`` for a JPEG of full size: the first one behind opening, random ones, and steps
forward and backward, with a pause behind each, as a person makes them. The checks compare random frames with those of a
plain decoding from start to end, with small caches, so that nearly every frame is decoded for its own sake. Wall
time counts what other programs take; core time is that of this process. The last line of output is JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from capsule_edge.runtime.recording import Frame, decode, scan
from capsule_edge.workstation.frames import (
    Caches,
    FrameSource,
    FrameUnavailable,
    encode_jpeg,
    preview_recording,
)

from .machine import describe_machine, load_now

__all__ = ["check_indices", "time_access"]

Figures = dict[str, Any]
# A person who steps on looks at a frame for this long; 25 frames a second.
_LOOK_S = 0.04
_SMALL = 4 << 20


def time_access(
    path: Path, *, accesses: int, steps: int = 400, seed: int = 1, sound: bool = False
) -> Figures:
    """Return the times of the first picture, of random ones and of steps, milliseconds.

    Args:
        path: of the recording.
        accesses: number of random frames.
        steps: number of steps in each direction.
        seed: of the random frames.
        sound: as for ``FrameSource``.
    """
    began = time.perf_counter()
    source = FrameSource.open(path, sound=sound)
    opened = time.perf_counter()
    source.jpeg(0)
    first = time.perf_counter()
    generator = np.random.default_rng(seed)
    with source:
        access = source.access()
        places = generator.integers(0, source.container.present, accesses).tolist()
        random = []
        for place in places:
            random.append(_time(source.jpeg, place))
            time.sleep(_LOOK_S)
        begin = int(generator.integers(0, max(1, source.container.present - steps)))
        stretch = range(begin, min(begin + steps, source.container.present))
        forward = _step(source, stretch)
        backward = _step(source, stretch[::-1])
        kept = source.cached_bytes
    return {
        "open_ms": round(1000 * (opened - began), 1),
        "first_picture_ms": round(1000 * (first - began), 1),
        "random": _summarise(random),
        "forward": _summarise(forward),
        "backward": _summarise(backward),
        "cached_bytes": kept,
        "access": asdict(access),
    }


def check_indices(path: Path, *, checks: int, seed: int = 2, sound: bool = False) -> Figures:
    """Compare the JPEG of random frames with those of a plain decoding; return how many were wrong."""
    expected = [_digest(frame) for frame in decode(scan(path))]
    places = np.random.default_rng(seed).integers(0, len(expected), checks).tolist()
    caches = Caches.of_size(_SMALL, _SMALL)
    with FrameSource.open(path, caches=caches, sound=sound) as source:
        wrong = [place for place in places if _show(source, place) != expected[place]]
    caches.ahead.close()
    return {"frames": len(expected), "compared": checks, "wrong": len(wrong), "wrong_indices": wrong[:20]}


def time_preview(path: Path) -> Figures:
    """Return when the length and the first and last colours of a new recording were known, milliseconds."""
    began, found = time.perf_counter(), []
    for result in preview_recording(path):
        found.append((round(1000 * (time.perf_counter() - began), 1), result))
    last = found[-1][1]
    coloured = sum(colour is not None for colour in last.colours)
    return {
        "length_ms": found[0][0],
        "first_colours_ms": found[min(1, len(found) - 1)][0],
        "end_ms": found[-1][0],
        "colours": coloured,
        "complete": last.complete,
    }


def _time(show: Callable[[int], object], index: int) -> tuple[float, float]:
    """Return the wall time and the core time of one call, seconds."""
    wall, core = time.perf_counter(), time.process_time()
    show(index)
    return time.perf_counter() - wall, time.process_time() - core


def _step(source: FrameSource, stretch: Sequence[int]) -> list[tuple[float, float]]:
    found = []
    for index in stretch:
        found.append(_time(source.jpeg, index))
        time.sleep(_LOOK_S)
    # The first one is a jump.
    return found[1:]


def _summarise(times: Sequence[tuple[float, float]]) -> Figures:
    wall, core = (1000 * np.array(column) for column in zip(*times, strict=True))
    return {
        "count": len(times),
        "p50_ms": round(float(np.percentile(wall, 50)), 2),
        "p95_ms": round(float(np.percentile(wall, 95)), 2),
        "most_ms": round(float(wall.max()), 2),
        "core_p50_ms": round(float(np.percentile(core, 50)), 2),
        "core_p95_ms": round(float(np.percentile(core, 95)), 2),
    }


def _digest(frame: Frame) -> tuple[str, str]:
    return frame.detail, "" if frame.image is None else hashlib.sha256(encode_jpeg(frame.rgb())).hexdigest()


def _show(source: FrameSource, index: int) -> tuple[str, str]:
    try:
        return "", hashlib.sha256(source.jpeg(index)).hexdigest()
    except FrameUnavailable as error:
        return error.detail, ""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m capsule_edge.benchmarks.frame_access",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recordings", type=Path, nargs="+", help="recordings to measure")
    parser.add_argument(
        "--accesses", type=int, default=300, help="random frames to time (default: %(default)s)"
    )
    parser.add_argument(
        "--checks", type=int, default=1000, help="random frames to compare (default: %(default)s)"
    )
    parser.add_argument("--skip-timing", action="store_true", help="compare only")
    parser.add_argument(
        "--sound", action="store_true", help="a reading found no damage: decode as the workstation then does"
    )
    options = parser.parse_args(arguments)
    rows = []
    for path in options.recordings:
        row: Figures = {"recording": path.name}
        if not options.skip_timing:
            access = time_access(path, accesses=options.accesses, sound=options.sound)
            row |= {"preview": time_preview(path), **access}
        if options.checks:
            row["checks"] = check_indices(path, checks=options.checks, sound=options.sound)
        print(json.dumps(row))
        rows.append(row)
    print(
        json.dumps(
            {"benchmark": "frame_access", "machine": describe_machine(), "load": load_now(), "rows": rows}
        )
    )


if __name__ == "__main__":
    from capsule_edge.evaluation._module import run_module

    run_module(main)
