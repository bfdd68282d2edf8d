"""How reading grows with the length of an examination, the size of its frames, cores and recordings at once.

    python -m capsule_edge.benchmarks.scaling exam.mp4 --work DIR [--model small] [--rounds 3] [--plot scaling.png]

Each reading is a fresh process (``reading``). Lengths are 1, 2, 4, 8 and 16 sixteenths of the examination, cut without
encoding again, and read as ``run`` does it, with files and report; sizes are 224 to 1024 pixels of the reference
examination's pictures, encoded with the same bits per pixel and kept in DIR. All but the lengths take turns over the
rounds, medians count. Where other programs run too, compare core time. Ends in one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from capsule_edge.runtime.errors import OutputError, UsageError
from capsule_edge.runtime.recording import scan

from .machine import describe_machine
from .reading import read_afresh
from .reference_exam import cut_recording, find_recordings, write_exam

__all__ = ["LENGTHS", "SIZES", "judge_growth", "measure_scaling"]

LENGTHS = (1, 2, 4, 8, 16)
SIZES = (224, 336, 512, 768, 1024)
AT_ONCE = (1, 2, 4)

Row = dict[str, Any]
Read = Callable[..., Row]


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
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Rows of ``reading`` under ``length``, ``size``, ``cores`` and ``at_once``, and ``growth`` (``judge_growth``).

    ``frames`` are those of each size; the recordings for ``cores`` and ``at_once`` have four times as many. Raises
    ``InputError`` for an examination that cannot be read, ``UsageError`` for one shorter than 16 x 16 frames.
    """
    present = scan(exam).present
    if present < 16 * LENGTHS[-1] or rounds < 1 or frames < 1:
        raise UsageError(
            f"the examination has {present} frames, {rounds} rounds of {frames} frames are asked for; allowed are"
            f" {16 * LENGTHS[-1]}, 1 and 1 or more"
        )
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{work} cannot be made: {error.strerror or error}") from None
    most = max(cores)
    lengths = []
    for times in LENGTHS:
        wanted = present * times // LENGTHS[-1]
        part = exam if times == LENGTHS[-1] else work / f"length-{times}.mp4"
        if part != exam:
            cut_recording(exam, wanted, part)
        tell(f"length, {times} of {LENGTHS[-1]}")
        lengths.append({"times": times, **read([part], model=model, cores=most, written=True)})
    short = work / "short.mp4"
    cut_recording(exam, 4 * frames, short)
    jobs: dict[str, list[tuple[Row, list[Path], int]]] = {"size": [], "cores": [], "at_once": []}
    for side in sizes:
        path = work / f"size-{side}-{frames}.mp4"
        if not path.exists():
            tell(f"writing frames of {side} pixels")
            partial = path.with_name("partial.mp4")
            write_exam(partial, frames=frames, recordings=find_recordings(), side=side)
            partial.replace(path)
        jobs["size"].append(({"side": side}, [path], most))
    jobs["cores"] = [({}, [short], count) for count in cores]
    jobs["at_once"] = [({}, [short] * count, most) for count in AT_ONCE]
    found: dict[str, list[list[Row]]] = {name: [[] for _ in rows] for name, rows in jobs.items()}
    for turn in range(rounds):
        tell(f"round {turn + 1} of {rounds}")
        for name, rows in jobs.items():
            for at, (_, paths, count) in enumerate(rows):
                found[name][at].append(read(paths, model=model, cores=count))
    answer: dict[str, Any] = {"length": lengths}
    for name, rows in jobs.items():
        answer[name] = [about | _middle(found[name][at]) for at, (about, _, _) in enumerate(rows)]
    return answer | {"growth": judge_growth(answer)}


def judge_growth(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, float | None]:
    """What the rows come to.

    ``time_exponent``: core time grows with this power of the length (least squares over logarithms; 1 is linear).
    ``bytes_per_frame``: memory that each further frame takes, from the shortest to the longest. ``cores``: frames
    a second with the most cores to those with the fewest. ``at_once``: the same of most recordings at once to one.
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


def _middle(rows: Sequence[Row]) -> Row:
    """Of each figure the median of the rounds."""
    return {
        name: None if rows[0][name] is None else round(median(row[name] for row in rows), 3)
        for name in rows[0]
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m capsule_edge.benchmarks.scaling", description=__doc__)
    parser.add_argument("exam", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="where what is read is made and kept")
    parser.add_argument("--model", default="small", help="a file, or standard or small")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--frames", type=int, default=400, help="of each size; four times as many for cores and recordings"
    )
    parser.add_argument("--plot", type=Path, help="draw the rows as PNG (needs matplotlib)")
    options = parser.parse_args(arguments)
    most = describe_machine()["cores_allowed"]
    found = measure_scaling(
        options.exam,
        options.work,
        model=options.model,
        cores=sorted({1, min(2, most)}),
        rounds=options.rounds,
        frames=options.frames,
        tell=lambda what: print(what, file=sys.stderr),
    )
    if options.plot:
        from .plots import plot_scaling

        try:
            options.plot.parent.mkdir(parents=True, exist_ok=True)
            options.plot.write_bytes(plot_scaling(found))
        except OSError as error:
            raise OutputError(f"{options.plot} cannot be written: {error.strerror or error}") from None
    about = {"benchmark": "scaling", "recording": options.exam.name, "model": str(options.model)}
    print(json.dumps({**about, "machine": describe_machine(), **found}))


if __name__ == "__main__":
    from capsule_edge.evaluation._module import run_module

    run_module(main)
