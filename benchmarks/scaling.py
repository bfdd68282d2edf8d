"""Measure how reading scales with the length of an examination, the frame size, cores, and recordings at once.

    python -m capsule_edge.benchmarks.scaling exam.mp4 --work DIR [--model small] [--rounds 3] [--plot scaling.png]

Each reading is a fresh process (``reading``). Lengths are 1, 2, 4, 8 and 16 sixteenths of the examination, cut without
encoding again, and read as ``capsule-edge run`` does, with files and report. Frame sizes are 224 to 1024 pixels:
pictures of the reference examination, encoded with the same bits per pixel and kept in DIR. All readings except those
of the lengths take turns over the rounds, and medians count. If other programs run too, compare core time. The last
line of output is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from capsule_edge.runtime.errors import OutputError, UsageError
from capsule_edge.runtime.pipeline import count_cores
from capsule_edge.runtime.recording import scan
from capsule_edge.runtime.results import whole_file, write_whole

from .machine import describe_machine
from .reading import read_afresh
from .reference_exam import cut_recording, find_recordings, write_exam

__all__ = ["LENGTHS", "SIZES", "judge_growth", "measure_scaling"]

LENGTHS = (1, 2, 4, 8, 16)
SIZES = (224, 336, 512, 768, 1024)
AT_ONCE = (1, 2, 4)

Figures = dict[str, Any]
Read = Callable[..., Figures]
# What a row is about, the recordings that it reads at once, and the number of cores.
Reading = tuple[Figures, list[Path], int]


def measure_scaling(
    exam: Path,
    work: Path,
    *,
    model: Path | str | None = "small",
    cores: Sequence[int] = (1, 2),
    sizes: Sequence[int] = SIZES,
    frames: int = 400,
    rounds: int = 3,
    read: Read = read_afresh,
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Read an examination at several lengths, frame sizes, numbers of cores and numbers of recordings at once.

    Args:
        exam: the examination, at least 256 frames.
        work: folder for the recordings that are cut or encoded; they are kept.
        model: a model file, or the name of an installed model.
        cores: numbers of cores; all rows but those of ``cores`` use the largest.
        sizes: sides of the frames in pixels.
        frames: frames of the recording of each size, at least 1. The recordings for ``cores`` and ``at_once`` have four
            times as many.
        rounds: rounds whose median counts, at least 1.
        read: reads recordings and returns a row of figures.
        report: called with a line of progress.

    Returns:
        Rows of ``reading`` under ``length``, ``size``, ``cores`` and ``at_once``, and ``growth`` (``judge_growth``).

    Raises:
        InputError: the examination cannot be read.
        UsageError: the examination is too short, or ``rounds`` or ``frames`` is below 1.
        OutputError: ``work`` cannot be made.
    """
    present = scan(exam).present
    if present < 16 * LENGTHS[-1] or rounds < 1 or frames < 1:
        raise UsageError(
            f"the examination has {present} frames, and {rounds} rounds of {frames} frames are asked for; allowed are"
            f" {16 * LENGTHS[-1]} or more, 1 or more, and 1 or more"
        )
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{work} cannot be made: {error.strerror or error}") from None
    most = max(cores)
    lengths = []
    for times in LENGTHS:
        report(f"length, {times} of {LENGTHS[-1]}")
        part = _cut_length(exam, present, times, work)
        lengths.append({"times": times, **read([part], model=model, cores=most, written=True)})
    short = work / "short.mp4"
    cut_recording(exam, 4 * frames, short)
    readings: dict[str, list[Reading]] = {
        "size": [({"side": side}, [_write_size(side, frames, work, report)], most) for side in sizes],
        "cores": [({}, [short], count) for count in cores],
        "at_once": [({}, [short] * count, most) for count in AT_ONCE],
    }
    found = {"length": lengths, **_read_in_turns(readings, partial(read, model=model), rounds, report)}
    return found | {"growth": judge_growth(found)}


def _cut_length(exam: Path, present: int, times: int, work: Path) -> Path:
    """Return the first ``times`` sixteenths of the examination as a file."""
    if times == LENGTHS[-1]:
        return exam
    part = work / f"length-{times}.mp4"
    cut_recording(exam, present * times // LENGTHS[-1], part)
    return part


def _write_size(side: int, frames: int, work: Path, report: Callable[[str], None]) -> Path:
    """Return a recording of that frame size, written unless an earlier run has left it."""
    path = work / f"size-{side}-{frames}.mp4"
    if not path.exists():
        report(f"writing frames of {side} pixels")
        with whole_file(path) as temporary:
            write_exam(temporary, frames=frames, recordings=find_recordings(), side=side)
    return path


def _read_in_turns(
    readings: Mapping[str, Sequence[Reading]], read: Read, rounds: int, report: Callable[[str], None]
) -> dict[str, list[Figures]]:
    """Do every reading once per round, and return the median figures of each."""
    samples: dict[str, list[list[Figures]]] = {name: [[] for _ in rows] for name, rows in readings.items()}
    for turn in range(rounds):
        report(f"round {turn + 1} of {rounds}")
        for name, rows in readings.items():
            for taken, (_, paths, count) in zip(samples[name], rows, strict=True):
                taken.append(read(paths, cores=count))
    return {
        name: [about | _median(taken) for taken, (about, _, _) in zip(samples[name], rows, strict=True)]
        for name, rows in readings.items()
    }


def judge_growth(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, float | None]:
    """Summarise how the figures grow.

    Args:
        found: rows under ``length``, ``cores`` and ``at_once``, smallest first.

    Returns:
        ``time_exponent``: core time grows with this power of the length (least squares over logarithms; 1 is linear).
        ``bytes_per_frame``: memory per additional frame between the shortest and the longest recording, None if memory
        is not known. ``cores``: frames per second with the most cores, relative to the fewest. ``at_once``: frames per
        second with the most recordings at once, relative to one.
    """
    rows = found["length"]
    slope = np.polyfit(np.log([row["frames"] for row in rows]), np.log([row["core_s"] for row in rows]), 1)[0]
    first, last = rows[0], rows[-1]
    grown = None
    if first["peak_mb"] is not None:
        grown = round((last["peak_mb"] - first["peak_mb"]) * 1e6 / (last["frames"] - first["frames"]), 1)
    return {
        "time_exponent": round(float(slope), 3),
        "bytes_per_frame": grown,
        "cores": _gain(found["cores"]),
        "at_once": _gain(found["at_once"]),
    }


def _gain(rows: Sequence[Mapping[str, Any]]) -> float:
    return round(float(rows[-1]["frames_per_s"] / rows[0]["frames_per_s"]), 3)


def _median(rows: Sequence[Figures]) -> Figures:
    """Return the median of each figure over the rounds."""
    return {
        name: None if rows[0][name] is None else round(median(row[name] for row in rows), 3)
        for name in rows[0]
    }


def main(arguments: Sequence[str] | None = None, *, read: Read = read_afresh) -> None:
    options = _make_parser().parse_args(arguments)
    found = measure_scaling(
        options.exam,
        options.work,
        model=options.model,
        cores=sorted({1, min(2, count_cores())}),
        sizes=options.sizes,
        rounds=options.rounds,
        frames=options.frames,
        read=read,
        report=lambda line: print(line, file=sys.stderr),
    )
    if options.plot:
        from .plots import plot_scaling

        try:
            options.plot.parent.mkdir(parents=True, exist_ok=True)
            write_whole(options.plot, plot_scaling(found))
        except OSError as error:
            raise OutputError(f"{options.plot} cannot be written: {error.strerror or error}") from None
    about = {"benchmark": "scaling", "recording": options.exam.name, "model": str(options.model)}
    print(json.dumps({**about, "machine": describe_machine(), **found}))


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m capsule_edge.benchmarks.scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("exam", type=Path, help="the examination, at least 256 frames")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder where cut and encoded recordings are kept"
    )
    parser.add_argument(
        "--model", default="small", help="model file or installed model (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds whose median counts (default: %(default)s)"
    )
    parser.add_argument(
        "--frames",
        type=int,
        default=400,
        help="frames of each frame size (default: %(default)s); the readings on several cores and at once have four"
        " times as many",
    )
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=SIZES,
        metavar="SIDE",
        help="frame sizes in pixels (default: 224 to 1024)",
    )
    parser.add_argument("--plot", type=Path, help="draw the rows as a PNG file (needs matplotlib)")
    return parser


if __name__ == "__main__":
    from capsule_edge.evaluation._module import run_module

    run_module(main)
