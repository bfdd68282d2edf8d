"""Compare the reader with the programs that a user would write instead.

    python -m capsule_edge.benchmarks.peers exam.mp4 MODEL... --envs DIR [--ours MODEL]... [--gated MODEL]...
        [--threads 2] [--rounds 3] [--peer NAME]...

Each peer runs in an environment of its own with pinned versions. All read the same recording with the same model files
and the same crop, on as many threads and cores, each time in a fresh process. The reader and the peers take turns, the
reader first. ``--ours`` names files that only the reader reads, ``--gated`` files that it also reads with the
near-duplicate filter.

The time is that from opening the recording to the last answer. The reader's time includes finding the field of view,
accounting for each frame and finding events. Before the first round each program reads the beginning of the recording
alone. This separates the fixed time of a run (its start) from the time per frame. Labels are compared, frame by frame,
with those of the reader's first backend. A peer that cannot run here is listed with the reason.

The environments are made once with pip, below DIR, and kept. The last line of output is JSON.
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
from collections.abc import Callable, Mapping, Sequence
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

__all__ = [
    "OURS",
    "PEERS",
    "Peer",
    "PeerReading",
    "PeerRow",
    "Subject",
    "UnavailableError",
    "make_environment",
    "measure_peers",
    "read_in_turns",
    "summarise_readings",
]

# The reader's rows are called by this and the name of the backend.
OURS = "capsule-edge, "
# Least number of frames of the beginning that is read alone.
_BEGINNING = 64
# Reads no recording: it runs the model on frames of its own.
_MODEL_ALONE = "benchmark_app"

_PROGRAM = Path(__file__).with_name("peer_program.py")
_REQUIREMENTS = Path(__file__).with_name("requirements")
_PIN = re.compile(r"^[^#\s].*$", re.MULTILINE)


@dataclass(frozen=True)
class Peer:
    """A program to compare the reader with.

    Attributes:
        name: name of the peer.
        reads: format of the model files that it takes.
        precision: the only precision that it takes, or None for both.
        requirements: pip's requirements file of its environment.
    """

    name: str
    reads: Format
    precision: Precision | None = None
    requirements: Path = Path()

    @property
    def pins(self) -> tuple[str, ...]:
        """The pinned packages of its environment."""
        return tuple(_PIN.findall(self.requirements.read_text("utf-8")))


def _peer(name: str, reads: Format, precision: Precision | None = None) -> Peer:
    return Peer(name, reads, precision, _REQUIREMENTS / f"{name}.txt")


PEERS = {
    peer.name: peer
    for peer in (
        _peer("cv2-onnxruntime", "ONNX"),
        _peer("cv2-openvino", "ONNX"),
        _peer(_MODEL_ALONE, "ONNX"),
        _peer("mediapipe", "TFLite"),
        _peer("ultralytics", "ONNX"),
        # Its INT8 would be another network: that of quantisation-aware training, computed in float.
        _peer("tf_keras", "ONNX", "fp32"),
    )
}


@dataclass(frozen=True)
class PeerRow:
    """The figures of one program with one model file.

    Attributes:
        name: ``capsule-edge, BACKEND`` or the name of the peer.
        file: name of the model file.
        frames_per_s: frames per second of the whole recording, one value per round.
        start_s: the fixed time of a run, estimated from the beginning that was read alone. None if no such beginning
            was read.
        after_start: frames per second without that fixed time, one value per round; equal to ``frames_per_s`` without
            a beginning.
        agreement: share of frames with the same label as the reader's; None if the answers do not match frame by frame.
        ratio: ``after_start`` relative to the first row, the median over paired rounds.
        core_ms: core time in ms per frame of the whole recording (median), which other programs hardly influence.
        reason: why the program cannot run here; it then has no figures.

    ``benchmark_app`` reads no recording and has no ``start_s``, ``agreement`` and ``core_ms``.
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
class PeerReading:
    """One reading: frames, wall and core seconds, and the probabilities, float32 (frames, labels)."""

    frames: int
    seconds: float
    core_s: float | None = None
    probabilities: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Subject:
    """A program with a model file, and the function that reads a recording with it in a fresh process.

    ``read`` raises ``UnavailableError`` if the program cannot run here.
    """

    name: str
    model: Path
    read: Callable[[Path], PeerReading]


class UnavailableError(Exception):
    """A program cannot run here; the message is the reason in one line."""


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
    report: Callable[[str], None] = lambda _: None,
) -> list[PeerRow]:
    """Read a recording with every model: the reader on every backend that reads it, then every peer that takes it.

    Args:
        video: the recording.
        models: model files for the reader and the peers.
        peers: names of ``PEERS``.
        environment: returns the Python of a peer's environment.
        alone: model files for the reader alone.
        gated: model files that the reader also reads with the near-duplicate filter.
        threads: threads, and cores, of each program.
        rounds: readings of the whole recording by each program.
        report: called with a line of progress.

    Returns:
        One row per program and model file, the reader's first.

    Raises:
        UsageError: a peer is unknown.
        CapsuleEdgeError: the reader cannot read the recording or a model.
    """
    unknown = [name for name in peers if name not in PEERS]
    if unknown:
        raise UsageError(f"peer {unknown[0]!r} is not known, allowed is one of {', '.join(PEERS)}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subjects = [
            *_list_ours((*models, *alone), gated, threads, folder),
            *_list_theirs(video, models, [PEERS[name] for name in peers], environment, threads, folder),
        ]
        rows = read_in_turns(subjects, video, folder, rounds=rounds, report=report)
    first = rows[0].after_start
    return [
        replace(row, ratio=round(median(a / b for a, b in zip(row.after_start, first, strict=True)), 3))
        if row.reason is None and first
        else row
        for row in rows
    ]


def _list_ours(models: Sequence[Path], gated: Sequence[Path], threads: int, folder: Path) -> list[Subject]:
    """List the reader with each model on every installed backend, then with the near-duplicate filter."""
    subjects = []
    for path in models:
        engines = [name for name in readers_of(find_format(path)) if name in installed_backends()]
        subjects += [
            Subject(f"{OURS}{engine}", path, _ours(path, engine, threads, folder))
            for engine in engines or readers_of(find_format(path))[:1]
        ]
    subjects += [
        Subject(f"{OURS}onnxruntime, gated", path, _ours(path, "onnxruntime", threads, folder, gated=True))
        for path in gated
    ]
    return subjects


def _list_theirs(
    video: Path,
    models: Sequence[Path],
    peers: Sequence[Peer],
    environment: Callable[[Peer], Path],
    threads: int,
    folder: Path,
) -> list[Subject]:
    """List each peer with every model that it takes."""
    views = {path: find_view(video, path) for path in models}
    subjects = []
    for peer in peers:
        for path in models:
            form = find_format(path)
            precision = open_model(path, backend=readers_of(form)[0]).spec.precision
            if form == peer.reads and peer.precision in (None, precision):
                read = _theirs(peer, environment, path, threads, views[path], folder)
                subjects.append(Subject(peer.name, path, read))
    return subjects


def read_in_turns(
    subjects: Sequence[Subject],
    video: Path,
    folder: Path,
    *,
    rounds: int,
    report: Callable[[str], None] = lambda _: None,
) -> list[PeerRow]:
    """Let every subject read the recording once per round, and before that its beginning alone.

    The beginning is left out if it is more than half of the recording, and for ``benchmark_app``.

    Args:
        subjects: programs with model files.
        video: the recording.
        folder: folder for the beginning.
        rounds: readings of the whole recording by each subject, at least 1.
        report: called with a line of progress.

    Returns:
        One row per subject, without ``ratio``. A subject that raised ``UnavailableError`` has a ``reason``.
    """
    beginning = folder / "beginning.mp4"
    has_beginning = 2 * cut_recording(video, _BEGINNING, beginning) < scan(video).present
    begun: list[PeerReading | None] = [None] * len(subjects)
    found: list[list[PeerReading]] = [[] for _ in subjects]
    reasons: dict[int, str] = {}
    labels: dict[Path, npt.NDArray[np.float32]] = {}
    for turn in range(rounds + 1):
        report(f"round {turn} of {rounds}" if turn else "the beginning alone")
        for at, subject in enumerate(subjects):
            if at in reasons or not (turn or (has_beginning and subject.name != _MODEL_ALONE)):
                continue
            report(f"  {subject.name}, {subject.model.name}")
            try:
                reading = subject.read(video if turn else beginning)
            except UnavailableError as error:
                reasons[at] = str(error)
                continue
            if not turn:
                begun[at] = reading
                continue
            found[at].append(reading)
            if reading.probabilities is not None:
                labels.setdefault(subject.model, reading.probabilities)
    return [
        PeerRow(subject.name, subject.model.name, [], reason=reasons[at])
        if at in reasons
        else summarise_readings(subject.name, subject.model, found[at], begun[at], labels.get(subject.model))
        for at, subject in enumerate(subjects)
    ]


def summarise_readings(
    name: str,
    model: Path,
    readings: Sequence[PeerReading],
    beginning: PeerReading | None = None,
    ours: npt.NDArray[np.float32] | None = None,
) -> PeerRow:
    """Turn the readings of one program into a row, without its ratio.

    Args:
        name: name of the program.
        model: its model file.
        readings: readings of the whole recording, one per round.
        beginning: the reading of the beginning alone.
        ours: probabilities of the reader, for the agreement of labels.
    """
    rates = [one.frames / one.seconds for one in readings]
    start, after = None, rates
    if beginning is not None:
        each = [(one.seconds - beginning.seconds) / (one.frames - beginning.frames) for one in readings]
        # A disturbed beginning that took longer than a whole recording says nothing.
        if min(each) > 0:
            start = beginning.seconds - beginning.frames * median(each)
            after = [1 / seconds for seconds in each]
    last = readings[-1].probabilities
    core = [1000 * one.core_s / one.frames for one in readings if one.core_s is not None]
    return PeerRow(
        name,
        model.name,
        [round(rate, 1) for rate in rates],
        None if start is None else round(start, 3),
        [round(rate, 1) for rate in after],
        None if last is None or ours is None else _agreement(last, ours),
        core_ms=round(median(core), 3) if core else None,
    )


def make_environment(folder: Path, peer: Peer) -> Path:
    """Return the Python of the peer's environment; make the environment if it does not exist.

    Args:
        folder: folder of all environments.
        peer: the peer, whose pins the environment holds.

    Raises:
        UnavailableError: pip cannot install the pins.
    """
    mark = hashlib.sha256("\n".join((*peer.pins, sys.version)).encode()).hexdigest()[:12]
    home = folder / mark
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    complete = home / "made"
    if not complete.exists():
        pip = [sys.executable, "-m", "pip", "--python", str(python), "-q", "--disable-pip-version-check"]
        _call([sys.executable, "-m", "venv", "--clear", "--without-pip", str(home)], limit_s=1800)
        _call([*pip, "install", "-r", str(peer.requirements)], limit_s=1800)
        complete.write_text("\n".join(peer.pins), "utf-8")
    return python


def _ours(
    model: Path, engine: str, threads: int, folder: Path, *, gated: bool = False
) -> Callable[[Path], PeerReading]:
    def read(video: Path) -> PeerReading:
        out = folder / "answers.npy"
        out.unlink(missing_ok=True)
        found = read_afresh([video], model=model, backend=engine, cores=threads, gated=gated, answers=out)
        answers = np.load(out) if out.exists() else None
        return PeerReading(found["frames"], found["seconds"], found["core_s"], answers)

    return read


def _theirs(
    peer: Peer,
    environment: Callable[[Peer], Path],
    model: Path,
    threads: int,
    view: Mapping[str, Any],
    folder: Path,
) -> Callable[[Path], PeerReading]:
    def read(video: Path) -> PeerReading:
        if peer.name == _MODEL_ALONE:
            return _run_benchmark_app(environment(peer), model, threads, view["size"])
        out = folder / "answers.npy"
        out.unlink(missing_ok=True)
        words = [str(environment(peer)), str(_PROGRAM), peer.name, str(video), str(model), str(threads)]
        found = json.loads(_call([*words, json.dumps(view), str(out)]).splitlines()[-1])
        return PeerReading(found["frames"], found["seconds"], found["core_s"], np.load(out))

    return read


def _run_benchmark_app(environment: Path, model: Path, threads: int, size: int) -> PeerReading:
    """Run OpenVINO's own benchmark for five seconds, with one stream per thread."""
    words = [str(environment.with_name("benchmark_app")), "-m", str(model), "-d", "CPU"]
    words += ["-t", "5", "-hint", "none", "-nstreams", str(threads), "-nthreads", str(threads)]
    text = _call([*words, "-data_shape", f"[1,{size},{size},3]"])
    found = re.search(r"Count: *(\d+).*Duration: *([\d.]+) ms", text, re.DOTALL)
    if found is None:
        raise UnavailableError("its output has no count and duration")
    return PeerReading(int(found.group(1)), float(found.group(2)) / 1000)


def _agreement(found: npt.NDArray[np.float32], ours: npt.NDArray[np.float32]) -> float | None:
    """Return the share of equal labels; None if the program has dropped or repeated frames."""
    if found.shape != ours.shape:
        return None
    return round(float(np.mean(found.argmax(axis=1) == ours.argmax(axis=1))), 4)


def _call(words: Sequence[str], *, limit_s: float = 600) -> str:
    """Run a program and return its stdout; ``UnavailableError`` has the last line that a failing one printed."""
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
        raise UnavailableError(str(error).splitlines()[0]) from None
    if done.returncode != 0:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise UnavailableError(lines[-1][:300] if lines else f"exit code {done.returncode}")
    return done.stdout


def main(
    arguments: Sequence[str] | None = None, *, environment: Callable[[Path, Peer], Path] = make_environment
) -> None:
    options = _make_parser().parse_args(arguments)
    if options.threads < 1 or options.rounds < 1:
        raise UsageError(
            f"threads are {options.threads} and rounds {options.rounds}, allowed are numbers from 1"
        )
    peers = options.peers or list(PEERS)
    rows = measure_peers(
        options.video,
        options.models,
        peers,
        lambda peer: environment(options.envs, peer),
        alone=options.ours,
        gated=options.gated,
        threads=options.threads,
        rounds=options.rounds,
        report=lambda line: print(line, file=sys.stderr),
    )
    for row in rows:
        print(f"{row.name:26} {row.file:26} {_describe(row)}")
    document = {
        "benchmark": "peers",
        "recording": options.video.name,
        "frames": scan(options.video).present,
        "threads": options.threads,
        "machine": describe_machine(),
        "pins": {name: list(PEERS[name].pins) for name in peers},
        "rows": [asdict(row) for row in rows],
    }
    print(json.dumps(document))


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m capsule_edge.benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("video", type=Path, help="recording to read")
    add("models", nargs="+", type=Path, metavar="MODEL",
        help="ONNX or TFLite files; ratios are to the reader with the first")  # fmt: skip
    add(
        "--envs",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder where the peers' environments are kept",
    )
    add("--threads", type=int, default=2, help="threads and cores of each program (default: %(default)s)")
    add("--rounds", type=int, default=3, help="readings by each program (default: %(default)s)")
    add("--peer", action="append", dest="peers", metavar="NAME",
        help=f"one of {', '.join(PEERS)}; repeatable (default: all)")  # fmt: skip
    add("--ours", type=Path, action="append", default=[], metavar="MODEL",
        help="file that only the reader reads; repeatable")  # fmt: skip
    add("--gated", type=Path, action="append", default=[], metavar="MODEL",
        help="file that the reader also reads with the near-duplicate filter; repeatable")  # fmt: skip
    return parser


def _describe(row: PeerRow) -> str:
    """Return the figures of a row as a line of text."""
    if row.reason is not None:
        return f"cannot run here: {row.reason}"
    parts = [f"{median(row.frames_per_s):8.1f} frames/s"]
    if row.start_s is not None:
        parts.append(f"start {row.start_s:.2f} s, then {median(row.after_start):.1f} frames/s")
    parts.append(f"ratio {row.ratio}")
    if row.core_ms is not None:
        parts.append(f"core {row.core_ms:.2f} ms")
    if row.agreement is not None:
        parts.append(f"same label as the reader {row.agreement:.2%}")
    return "  ".join(parts)


if __name__ == "__main__":
    from capsule_edge.evaluation._module import run_module

    run_module(main)
