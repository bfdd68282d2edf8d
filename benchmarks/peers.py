"""Side by side with what a user would write instead, each in an environment of its own with pinned versions.

    python -m capsule_edge.benchmarks.peers exam.mp4 MODEL... --envs DIR [--ours MODEL]... [--threads 2] [--rounds 3]
        [--peer NAME]...

Same recording, same model files, same crop, as many threads and cores; ours first, then the peers, in turns. ``--ours``
names files that only ours reads. What is timed is
from opening the recording to the last answer (ours finds the field of view, accounts for each frame and finds events in
that time). Labels are compared with those of our first backend, frame by frame. A peer that cannot run here is listed
with the reason. Environments are made with pip below DIR once and kept. Ends in one line of JSON.
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
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.backends import Format, find_format, installed_backends, open_model, readers_of
from capsule_edge.runtime.containers import scan
from capsule_edge.runtime.errors import UsageError
from capsule_edge.runtime.reader import Reader
from capsule_edge.runtime.spec import Precision

from .machine import describe_machine, limited_cores

__all__ = ["PEERS", "Peer", "Row", "find_view", "make_environment", "measure_peers"]

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

    Frames a second in each round; ``agreement``, the share of frames of which the label is ours; ``core_ms``, the
    processor's time for a frame, which other programs hardly touch (median). ``benchmark_app`` reads no recording and
    tells neither.

    ``ratio`` is of frames a second to the first row of all that ran, paired by rounds.
    """

    name: str
    file: str
    frames_per_s: list[float]
    agreement: float | None = None
    ratio: float | None = None
    core_ms: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class _Result:
    frames_per_s: float
    probabilities: npt.NDArray[np.float32] | None = None
    core_ms: float = float("nan")


class _UnfitError(Exception):
    """The reason, in a line."""


def measure_peers(
    video: Path,
    models: Sequence[Path],
    peers: Sequence[str],
    environment: Callable[[Peer], Path],
    *,
    alone: Sequence[Path] = (),
    threads: int = 2,
    rounds: int = 3,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Read ``video`` with every model: ours on every backend that reads it, then every peer that takes its format.

    ``alone`` are models that only ours reads; ``environment`` gives the Python of a peer. Raises as ``Reader`` does for
    what ours cannot read, and ``UsageError`` for a peer that is not known.
    """
    unknown = [name for name in peers if name not in PEERS]
    if unknown:
        raise UsageError(f"peer {unknown[0]!r} is not known, allowed is one of {', '.join(PEERS)}")
    runs: list[tuple[str, Path, Callable[[], _Result]]] = []
    answers: dict[Path, npt.NDArray[np.float32]] = {}
    reasons: dict[int, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for path in (*models, *alone):
            engines = [name for name in readers_of(find_format(path)) if name in installed_backends()]
            for engine in engines or readers_of(find_format(path))[:1]:
                runs.append((f"capsule-edge, {engine}", path, _ours(video, path, engine, threads)))
        views = {path: find_view(video, path) for path in models}
        kinds = {
            path: open_model(path, backend=readers_of(find_format(path))[0]).spec.precision for path in models
        }
        for name in peers:
            for path in models:
                if find_format(path) == PEERS[name].reads and PEERS[name].precision in (None, kinds[path]):
                    run = _theirs(PEERS[name], environment, video, path, threads, views[path], Path(folder))
                    runs.append((name, path, run))
        rates, cores = np.full((2, rounds, len(runs)), np.nan)
        shares: list[float | None] = [None] * len(runs)
        for turn in range(rounds):
            for at, (name, path, run) in enumerate(runs):
                if at in reasons:
                    continue
                tell(f"round {turn + 1} of {rounds}: {name}, {path.name}")
                try:
                    result = run()
                except _UnfitError as error:
                    reasons[at] = str(error)
                    continue
                rates[turn, at], cores[turn, at] = result.frames_per_s, result.core_ms
                found = result.probabilities
                if found is not None:
                    shares[at] = _agreement(found, answers.setdefault(path, found))
    rows = []
    for at, (name, path, _) in enumerate(runs):
        told = [] if at in reasons else [round(float(rate), 1) for rate in rates[:, at]]
        ratio = round(float(np.median(rates[:, at] / rates[:, 0])), 3) if told and 0 not in reasons else None
        core = float(np.median(cores[:, at]))
        core_ms = round(core, 3) if np.isfinite(core) else None
        rows.append(Row(name, path.name, told, shares[at], ratio, core_ms, reasons.get(at)))
    return rows


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


def _ours(video: Path, model: Path, engine: str, threads: int) -> Callable[[], _Result]:
    def run() -> _Result:
        with (
            limited_cores(threads),
            Reader.open(model, backend=engine, threads=threads, autotune=False) as reader,
        ):
            core, started = time.process_time(), time.perf_counter()
            study = reader.read(video)
            seconds, core = time.perf_counter() - started, time.process_time() - core
        found = [frame.probabilities for frame in study.frames if frame.probabilities is not None]
        whole = len(found) == len(study.frames)
        return _Result(len(found) / seconds, np.stack(found) if whole else None, 1000 * core / len(found))

    return run


def _theirs(
    peer: Peer,
    environment: Callable[[Peer], Path],
    video: Path,
    model: Path,
    threads: int,
    view: dict[str, Any],
    folder: Path,
) -> Callable[[], _Result]:
    def run() -> _Result:
        python = environment(peer)
        if peer.name == "benchmark_app":
            size = view["size"]
            words = [
                str(python.with_name("benchmark_app")),
                "-m",
                str(model),
                "-d",
                "CPU",
                "-t",
                "3",
                "-hint",
                "none",
            ]
            words += [
                "-nstreams",
                str(threads),
                "-nthreads",
                str(threads),
                "-data_shape",
                f"[1,{size},{size},3]",
            ]
            found = re.search(r"Throughput: *([\d.]+)", _call(words))
            if found is None:
                raise _UnfitError("it tells no throughput")
            return _Result(float(found.group(1)))
        out = folder / "answers.npy"
        out.unlink(missing_ok=True)
        told = _call(
            [
                str(python),
                str(_PROGRAM),
                peer.name,
                str(video),
                str(model),
                str(threads),
                json.dumps(view),
                str(out),
            ]
        )
        result = json.loads(told.splitlines()[-1])
        frames = result["frames"]
        return _Result(frames / result["seconds"], np.load(out), 1000 * result["core_s"] / frames)

    return run


def find_view(video: Path, model: Path) -> dict[str, Any]:
    """The model's input size and the field of view that ours finds in the recording."""
    opened = open_model(model, backend=readers_of(find_format(model))[0], threads=1)
    with Reader(opened, autotune=False) as reader:
        source = reader.read(video, every=1_000_000).source
        box = source.field_of_view
        whole = (0, 0, source.width, source.height)
        found = whole if box is None else (box.left, box.top, box.width, box.height)
        return {"size": reader.spec.input.size, "box": found}


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
        rate = f"{median(row.frames_per_s):8.1f} frames/s  ratio {row.ratio}"
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
