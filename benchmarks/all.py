"""Every benchmark whose results are committed, and the README's table of them, in one command.

    python -m capsule_edge.benchmarks.all [--quick] [--only NAME]... [--again] [--out benchmarks/results]

Run it in the root of the repository, on an idle machine, with ``CAPSULE_EDGE_DATA`` set; some 12 minutes on two cores,
once the reference examination and the peers' environments are made (below ``out/benchmarks``, kept). Each benchmark is
a process of its own and leaves one JSON file as soon as it ends, so a run that was stopped goes on where it was: what
is there of the same command, commit, models and processor is not measured again unless ``--again``. Last the table in
README.md is written. ``--quick`` tries everything in some 3 minutes, by default into ``out/benchmarks/quick``, and
leaves README.md alone. ``--render`` measures nothing and writes the table: after models were replaced it says so there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import InputError, OutputError, UsageError

from .architectures import read_certified
from .machine import cores_in_use, describe_machine, load_now
from .performance import update_documents
from .plots import plot_result
from .reference_exam import FRAMES, cut_recording, find_recordings, write_exam
from .resized import resize_input
from .results import Result, describe_commit, hash_models, read_results, write_result

__all__ = ["STEPS", "Step", "measure_all"]

RESULTS = Path("benchmarks/results")
WORK = Path("out/benchmarks")
EXAM, PART = WORK / "exam.mp4", WORK / "exam-part.mp4"
# Frames of the part: enough for the stages, and little enough for the slowest peer.
_PART = 700
_SIZE = 224
_MODELS = {
    "standard-fp32": "runtime/models/capsule-edge.fp32.onnx",
    "standard-int8": "runtime/models/capsule-edge.int8.onnx",
    "small-fp32": "models/capsule-edge-small.fp32.onnx",
    "small-int8": "runtime/models/capsule-edge-small.int8.onnx",
    "tflite": "models/capsule-edge.int8.tflite",
    "small-tflite": "models/capsule-edge-small.int8.tflite",
    "224-fp32": f"{WORK}/capsule-edge-{_SIZE}.fp32.onnx",
    "224-int8": f"{WORK}/capsule-edge-{_SIZE}.int8.onnx",
}
# What is made for the commands that read it.
_MADE = (EXAM, PART, _MODELS["224-fp32"])
_VAL = "$CAPSULE_EDGE_DATA/recordings/bca26705313a4644.mp4"


@dataclass(frozen=True)
class Step:
    """A benchmark: its command, in full and with ``--quick``; ``$NAME`` in a word is taken from the environment."""

    name: str
    command: str
    quick: str
    limit_s: float = 1800.0


def _with(module: str, words: str) -> str:
    return f"python -m capsule_edge.benchmarks.{module} {words}"


_ONNX = " ".join(_MODELS[name] for name in ("standard-fp32", "standard-int8", "small-fp32", "small-int8"))
_BIG = f"{_MODELS['224-fp32']} {_MODELS['224-int8']}"
_BENCH = (
    f"capsule-edge bench {_ONNX} {_BIG} {_MODELS['tflite']} {_MODELS['small-tflite']} --threads 1,2 --json"
)
_PEERS = (
    f"{_BIG} {_MODELS['tflite']} --ours {_MODELS['standard-fp32']} --ours {_MODELS['standard-int8']}"
    f" --ours {_MODELS['small-fp32']} --ours {_MODELS['small-int8']} --envs {WORK}/envs"
)
STEPS = (
    Step("models", f"{_BENCH} --rounds 200 --starts 3", f"{_BENCH} --rounds 40 --starts 1"),
    Step(
        "stages",
        _with("stages", f"{PART} {_MODELS['standard-int8']}"),
        _with("stages", f"{PART} {_MODELS['standard-int8']} --rounds 1"),
    ),
    Step(
        "stages-small",
        _with("stages", f"{PART} {_MODELS['small-int8']}"),
        _with("stages", f"{PART} {_MODELS['small-int8']} --rounds 1"),
    ),
    Step(
        "scaling",
        _with("scaling", f"{EXAM} --model {_MODELS['small-int8']} --work {WORK}/scaling --plot {RESULTS}/scaling.png"),
        _with("scaling", f"{PART} --model {_MODELS['small-int8']} --work {WORK}/scaling-quick --rounds 1 --frames 60"),
    ),
    Step(
        "mlperf",
        _with("mlperf", f"{_MODELS['standard-int8']} --data $CAPSULE_EDGE_DATA/capsule-vision --threads 2"
              f" --seconds 10 --out {WORK}/mlperf"),
        _with("mlperf", f"{_MODELS['standard-int8']} --data $CAPSULE_EDGE_DATA/capsule-vision --threads 2"
              f" --seconds 1 --limit 200 --out {WORK}/mlperf-quick"),
    ),
    Step(
        "instructions",
        _with("instructions", f"{_MODELS['standard-int8']} {_MODELS['small-int8']} --times 2"),
        _with("instructions", _MODELS["small-int8"]),
    ),
    Step(
        "architectures",
        _with("architectures", f"--work {WORK}/architectures"),
        _with("architectures", f"rep_cnn:128 plain_cnn:128 --work {WORK}/architectures --rounds 20"),
    ),
    Step(
        "peers-exam",
        _with("peers", f"{PART} {_PEERS} --rounds 2"),
        _with("peers", f"{PART} {_PEERS} --rounds 1"),
        limit_s=7200,
    ),
    Step(
        "peers-recording",
        _with("peers", f"{_VAL} {_PEERS} --rounds 1"),
        _with("peers", f"{_VAL} {_PEERS} --rounds 1"),
        limit_s=7200,
    ),
)  # fmt: skip


def measure_all(
    steps: Sequence[Step],
    root: Path,
    out: Path,
    *,
    quick: bool,
    again: bool,
    run: Callable[[str, float], dict[str, Any]],
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Result]:
    """Measure the ``steps`` that ``out`` does not have yet, each written as soon as it is there.

    ``run`` takes a command and a limit in seconds and gives the JSON of its last line. The answer is all that ``out``
    then has. Raises what ``run`` raises.
    """
    kept = read_results(out)
    commit, models = describe_commit(root), hash_models(root)
    for step in steps:
        command = step.quick if quick else step.command
        machine = describe_machine()
        began = time.monotonic()
        about = Result(
            benchmark=step.name,
            command=command,
            commit=commit,
            measured=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=0.0,
            quick=quick,
            machine=machine,
            load_after=None,
            models={path: digest for path, digest in models.items() if path in command.split()},
            found={},
        )
        if not again and step.name in kept and kept[step.name].is_of(about):
            tell(f"{step.name}: there already")
            continue
        tell(f"{step.name}: {command}")
        others = cores_in_use()
        found = run(command, step.limit_s)
        # The card is one place for each result: here.
        found.pop("machine", None)
        done: dict[str, Any] = {
            "seconds": round(time.monotonic() - began, 1),
            "load_after": load_now(),
            "found": found,
            "others": others,
        }
        kept[step.name] = Result(**{**vars(about), **done})
        write_result(kept[step.name], out)
        tell(f"{step.name}: {done['seconds']} s")
    return kept


def run_command(command: str, limit_s: float) -> dict[str, Any]:
    """The JSON of the last line of what a command of ours says. Raises ``InputError`` with its last complaint."""
    words = [os.path.expandvars(word) for word in command.split()]
    if words[0] == "python":
        words[0] = sys.executable
    elif words[0] == "capsule-edge":
        words[:1] = [sys.executable, "-c", "from capsule_edge.cli.main import main; main()"]
    try:
        done = subprocess.run(
            words, stdout=subprocess.PIPE, text=True, encoding="utf-8", timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"{command} took more than {limit_s:.0f} s") from None
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        raise InputError(f"{command} ended with exit code {done.returncode}", hint="its last line says why")
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def _prepare(root: Path, *, quick: bool, tell: Callable[[str], None]) -> None:
    """Make what the commands read: the examination or its first part, and the standard network at 224 pixels."""
    if not find_recordings():
        raise InputError("the shared recordings are not there", hint="name their folder in CAPSULE_EDGE_DATA")
    (root / WORK).mkdir(parents=True, exist_ok=True)
    for precision in ("fp32", "int8"):
        resize_input(root / _MODELS[f"standard-{precision}"], _SIZE, root / _MODELS[f"{_SIZE}-{precision}"])
    exam, part = root / EXAM, root / PART
    if not quick and not exam.exists():
        tell(f"writing the reference examination, {FRAMES} frames: some minutes")
        partial = exam.with_name("partial.mp4")
        write_exam(partial, recordings=find_recordings())
        partial.replace(exam)
    if not part.exists():
        if exam.exists():
            cut_recording(exam, _PART, part)
        else:
            partial = part.with_name("partial.mp4")
            write_exam(partial, frames=_PART, recordings=find_recordings())
            partial.replace(part)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m capsule_edge.benchmarks.all",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [step.name for step in STEPS]
    parser.add_argument("--quick", action="store_true", help="few rounds of everything, to see that it runs")
    parser.add_argument("--only", action="append", metavar="NAME", help=f"of {', '.join(names)}; repeatable")
    parser.add_argument("--again", action="store_true", help="measure also what is there already")
    parser.add_argument("--render", action="store_true", help="measure nothing, write the table in README.md")
    parser.add_argument("--out", type=Path, help=f"folder of the results, {RESULTS} in full")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.only or () if name not in names]
    if unknown:
        raise UsageError(f"benchmark {unknown[0]!r} is not known, allowed is one of {', '.join(names)}")
    root = Path.cwd()
    if not (root / "runtime/models").is_dir() or not (root / "README.md").is_file():
        raise InputError(f"{root} is not the root of the repository", hint="change into it")
    out = options.out or (WORK / "quick" if options.quick else RESULTS)

    def tell(what: str) -> None:
        print(what, file=sys.stderr, flush=True)

    results: Mapping[str, Result]
    if options.render:
        results = read_results(out)
    else:
        steps = [step for step in STEPS if not options.only or step.name in options.only]
        if any(str(made) in step.command for step in steps for made in _MADE):
            _prepare(root, quick=options.quick, tell=tell)
        results = measure_all(
            steps, root, out, quick=options.quick, again=options.again, run=run_command, tell=tell
        )
    if "models" in results:
        macro_f1 = {digest: figures[0] for digest, figures in read_certified(root).items()}
        for name, picture in plot_result(results["models"].found, macro_f1).items():
            try:
                (out / name).write_bytes(picture)
            except OSError as error:
                raise OutputError(f"{out / name} cannot be written: {error.strerror or error}") from None
    if not options.quick and out == RESULTS:
        update_documents(root, results, hash_models(root))
    print(json.dumps({"benchmark": "all", "results": {name: one.seconds for name, one in results.items()}}))


if __name__ == "__main__":
    from capsule_edge.evaluation._module import run_module

    run_module(main)
