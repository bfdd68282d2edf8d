"""Side by side with what a user would write instead, each in an environment of its own with pinned versions.

    python -m capsule_edge.benchmarks.peers exam.mp4 MODEL... --envs DIR [--ours MODEL]... [--gated MODEL]...
        [--threads 2] [--rounds 3] [--peer NAME]...

Same recording, same model files, same crop, as many threads and cores; ours first, then the peers, in turns, each time
in a fresh process. ``--ours`` names files that only ours reads, ``--gated`` such as it reads with the redundancy gate.
What is timed is from opening the recording to the last answer (ours finds the field of view, accounts for each frame
and finds events in that time). First each reads the recording's beginning alone: what a run takes whatever its length
is told apart from what each frame takes. Labels are compared with those of our first backend, frame by frame. A peer
that cannot run here is listed with the reason.
Environments are made with pip below DIR once and kept. Ends in one line of JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import UsageError
from capsule_edge.runtime.inference import (
    Format,
    Precision,
    find_format,
    installed_backends,
    open_model,
    readers_of,
)
from capsule_edge.runtime.recording import scan

from .machine import describe_machine
from .reading import find_view, read_afresh
from .reference_exam import cut_recording

__all__ = ["OURS", "PEERS", "Peer", "Row", "make_environment", "measure_peers"]

# Before the name of the backend.
OURS = "capsule-edge, "
# Frames of the beginning that is read alone.
_BEGINNING = 64

_PROGRAM = Path(__file__).with_name("peer_program.py")
_REQUIREMENTS = Path(__file__).with_name("requirements")
_KEPT = re.compile(r"^[^#\s].*$", re.MULTILINE)


@dataclass(frozen=True)
class Peer:
    """``reads`` is the format of model that it takes, ``precision`` the only one, where not both; ``requirements`` the
    file of what its environment holds.
    """

    name: str
    reads: Format
    precision: Precision | None = None
    requirements: Path = Path()

    @property
    def pins(self) -> tuple[str, ...]:
        return tuple(_KEPT.findall(self.requirements.read_text("utf-8")))


def _peer(name: str, reads: Format, precision: Precision | None = None) -> Peer:
    return Peer(name, reads, precision, _REQUIREMENTS / f"{name}.txt")


PEERS = {
    peer.name: peer
    for peer in (
        _peer("cv2-onnxruntime", "ONNX"),
        _peer("cv2-openvino", "ONNX"),
        _peer("benchmark_app", "ONNX"),
        _peer("mediapipe", "TFLite"),
        _peer("ultralytics", "ONNX"),
        # Its INT8 would be another network: that of quantisation-aware training, in float.
        _peer("tf_keras", "ONNX", "fp32"),
    )
}


@dataclass(frozen=True)
class Row:
    """One way to read the recording with one file, or the ``reason`` why it cannot run here.

    ``frames_per_s`` of the whole recording in each round. ``start_s`` is what a run takes beside its frames, worked out
    from one of the recording's beginning, and ``after_start`` the frames a second of the rest, in each round; None and
    the same where there is no such beginning. ``agreement``, the share of frames of which the label is ours;
    ``core_ms``, the processor's time for a frame of the whole, which other programs hardly touch (median).
    ``benchmark_app`` reads no recording and tells neither.

    ``ratio`` is of ``after_start`` to the first row of all that ran, paired by rounds.
    """

    name: str
    file: str
    frames_per_s: list[float]
    start_s: float | None = None
    after_start: list[float] = field(default_factory=list)
    agreement: float | None = None
    ratio: float | None = None
    core_ms: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class _Result:
    frames: int
    seconds: float
    core_s: float | None = None
    probabilities: npt.NDArray[np.float32] | None = None


Run = Callable[[Path], _Result]


class _UnfitError(Exception):
    """The reason, in a line."""


def measure_peers(
    video: Path,
    models: Sequence[Path],
    peers: Sequence[str],
    environment: Callable[[Peer], Path],
    *,
    alone: Sequence[Path] = (),
    gated: Sequence[Path] = (),
    threads: int = 2,
    rounds: int = 3,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Read ``video`` with every model: ours on every backend that reads it, then every peer that takes its format.

    ``alone`` are models that only ours reads, ``gated`` such as it reads with the gate; ``environment`` gives the
    Python of a peer. Raises as ``Reader`` does for what ours cannot read, and ``UsageError`` for an unknown peer.
    """
    unknown = [name for name in peers if name not in PEERS]
    if unknown:
        raise UsageError(f"peer {unknown[0]!r} is not known, allowed is one of {', '.join(PEERS)}")
    runs: list[tuple[str, Path, Run]] = []
    answers: dict[Path, npt.NDArray[np.float32]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in (*models, *alone):
            engines = [name for name in readers_of(find_format(path)) if name in installed_backends()]
            for engine in engines or readers_of(find_format(path))[:1]:
                runs.append((f"{OURS}{engine}", path, _ours(path, engine, threads, folder)))
        runs += [
            (f"{OURS}onnxruntime, gated", path, _ours(path, "onnxruntime", threads, folder, gated=True))
            for path in gated
        ]
        views = {path: find_view(video, path) for path in models}
        kinds = {
            path: open_model(path, backend=readers_of(find_format(path))[0]).spec.precision for path in models
        }
        for name in peers:
            for path in models:
                if find_format(path) == PEERS[name].reads and PEERS[name].precision in (None, kinds[path]):
                    run = _theirs(PEERS[name], environment, path, threads, views[path], folder)
                    runs.append((name, path, run))
        beginning = folder / "beginning.mp4"
        is_part = 2 * cut_recording(video, _BEGINNING, beginning) < scan(video).present
        found: list[list[_Result]] = [[] for _ in runs]
        begun: list[_Result | None] = [None] * len(runs)
        reasons: dict[int, str] = {}
        for turn in range(rounds + 1):
            tell(f"round {turn} of {rounds}" if turn else "the beginning alone")
            for at, (name, path, run) in enumerate(runs):
                if at in reasons or not (turn or (is_part and name != "benchmark_app")):
                    continue
                tell(f"  {name}, {path.name}")
                try:
                    result = run(video if turn else beginning)
                except _UnfitError as error:
                    reasons[at] = str(error)
                    continue
                if not turn:
                    begun[at] = result
                    continue
                found[at].append(result)
                if result.probabilities is not None:
                    answers.setdefault(path, result.probabilities)
    rows = [
        Row(name, path.name, [], reason=reasons[at])
        if at in reasons
        else _judge(name, path, found[at], begun[at], answers.get(path))
        for at, (name, path, _) in enumerate(runs)
    ]
    first = rows[0].after_start
    return [
        replace(row, ratio=round(median(a / b for a, b in zip(row.after_start, first, strict=True)), 3))
        if row.reason is None and first
        else row
        for row in rows
    ]


def _judge(
    name: str,
    model: Path,
    rounds: Sequence[_Result],
    begun: _Result | None,
    ours: npt.NDArray[np.float32] | None,
) -> Row:
    """A row without its ratio; ``begun`` is of the beginning alone."""
    rates = [one.frames / one.seconds for one in rounds]
    start, after = None, rates
    if begun is not None:
        each = [(one.seconds - begun.seconds) / (one.frames - begun.frames) for one in rounds]
        # Where a disturbed beginning took longer than the whole, it tells nothing.
        if min(each) > 0:
            start = begun.seconds - begun.frames * median(each)
            after = [1 / seconds for seconds in each]
    last = rounds[-1].probabilities
    core = [1000 * one.core_s / one.frames for one in rounds if one.core_s is not None]
    return Row(
        name,
        model.name,
        [round(rate, 1) for rate in rates],
        None if start is None else round(start, 3),
        [round(rate, 1) for rate in after],
        None if last is None or ours is None else _agreement(last, ours),
        core_ms=round(median(core), 3) if core else None,
    )


def make_environment(folder: Path, peer: Peer) -> Path:
    """The Python of an environment below ``folder`` that holds the peer's pins, made where it is not there yet.

    Raises ``_UnfitError`` when pip cannot install them.
    """
    mark = hashlib.sha256("\n".join((*peer.pins, sys.version)).encode()).hexdigest()[:12]
    home = folder / f"{mark}"
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = home / "made"
    if not done.exists():
        for words in (
            [sys.executable, "-m", "venv", "--clear", str(home)],
            [
                str(python),
                "-m",
                "pip",
                "install",
                "-q",
                "--disable-pip-version-check",
                "-r",
                str(peer.requirements),
            ],
        ):
            _call(words, limit_s=1800)
        done.write_text("\n".join(peer.pins), "utf-8")
    return python


def _ours(model: Path, engine: str, threads: int, folder: Path, *, gated: bool = False) -> Run:
    def run(video: Path) -> _Result:
        out = folder / "answers.npy"
        out.unlink(missing_ok=True)
        told = read_afresh([video], model=model, backend=engine, cores=threads, gated=gated, answers=out)
        return _Result(
            told["frames"], told["seconds"], told["core_s"], np.load(out) if out.exists() else None
        )

    return run


def _theirs(
    peer: Peer,
    environment: Callable[[Peer], Path],
    model: Path,
    threads: int,
    view: dict[str, Any],
    folder: Path,
) -> Run:
    def run(video: Path) -> _Result:
        if peer.name == "benchmark_app":
            return _alone(environment(peer), model, threads, view["size"])
        out = folder / "answers.npy"
        out.unlink(missing_ok=True)
        words = [str(environment(peer)), str(_PROGRAM), peer.name, str(video), str(model), str(threads)]
        result = json.loads(_call([*words, json.dumps(view), str(out)]).splitlines()[-1])
        return _Result(result["frames"], result["seconds"], result["core_s"], np.load(out))

    return run


def _alone(environment: Path, model: Path, threads: int, size: int) -> _Result:
    """OpenVINO's own benchmark, a stream for each thread."""
    words = [str(environment.with_name("benchmark_app")), "-m", str(model), "-d", "CPU"]
    words += ["-t", "5", "-hint", "none", "-nstreams", str(threads), "-nthreads", str(threads)]
    told = _call([*words, "-data_shape", f"[1,{size},{size},3]"])
    found = re.search(r"Count: *(\d+).*Duration: *([\d.]+) ms", told, re.DOTALL)
    if found is None:
        raise _UnfitError("it tells no count and time")
    return _Result(int(found.group(1)), float(found.group(2)) / 1000)


def _agreement(found: npt.NDArray[np.float32], ours: npt.NDArray[np.float32]) -> float | None:
    """None where it is not frame for frame: the peer has dropped some, or has them twice."""
    if found.shape != ours.shape:
        return None
    return round(float(np.mean(found.argmax(axis=1) == ours.argmax(axis=1))), 4)


def _call(words: Sequence[str], *, limit_s: float = 600) -> str:
    """What the program says on stdout. Raises ``_UnfitError`` with the last line of its complaint."""
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=limit_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _UnfitError(str(error).splitlines()[0]) from None
    if done.returncode != 0:
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise _UnfitError(said[-1][:300] if said else f"exit code {done.returncode}")
    return done.stdout


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m capsule_edge.benchmarks.peers", description=__doc__)
    parser.add_argument("video", type=Path)
    parser.add_argument(
        "models", nargs="+", type=Path, help="ONNX or TFLite; ratios are to the first, read by ours"
    )
    parser.add_argument(
        "--envs", type=Path, required=True, help="where the peers' environments are made and kept"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--peer", action="append", dest="peers", help=f"of {', '.join(PEERS)}; all where none is given"
    )
    parser.add_argument(
        "--ours", type=Path, action="append", default=[], metavar="MODEL", help="read by ours alone"
    )
    parser.add_argument(
        "--gated", type=Path, action="append", default=[], metavar="MODEL", help="read by ours with the gate"
    )
    options = parser.parse_args(arguments)
    if options.threads < 1 or options.rounds < 1:
        raise UsageError(
            f"threads are {options.threads} and rounds {options.rounds}, allowed are numbers from 1"
        )
    rows = measure_peers(
        options.video,
        options.models,
        options.peers or list(PEERS),
        lambda peer: make_environment(options.envs, peer),
        alone=options.ours,
        gated=options.gated,
        threads=options.threads,
        rounds=options.rounds,
        tell=lambda what: print(what, file=sys.stderr),
    )
    for row in rows:
        if row.reason is not None:
            print(f"{row.name:26} {row.file:26} cannot run here: {row.reason}")
            continue
        share = "" if row.agreement is None else f"  labels as ours {row.agreement:.2%}"
        core = "" if row.core_ms is None else f"  core {row.core_ms:.2f} ms"
        start = (
            ""
            if row.start_s is None
            else f"  start {row.start_s:.2f} s, behind it {median(row.after_start):.1f}"
        )
        rate = f"{median(row.frames_per_s):8.1f} frames/s{start}  ratio {row.ratio}"
        print(f"{row.name:26} {row.file:26} {rate}{core}{share}")
    document = {
        "benchmark": "peers",
        "recording": options.video.name,
        "frames": scan(options.video).present,
        "threads": options.threads,
        "machine": describe_machine(),
        "pins": {name: list(PEERS[name].pins) for name in options.peers or PEERS},
        "rows": [asdict(row) for row in rows],
    }
    print(json.dumps(document))


if __name__ == "__main__":
    from capsule_edge.evaluation._module import run_module

    run_module(main)
