"""Every benchmark whose results are committed, and the README's table of them, in one command.

    python -m capsule_edge.benchmarks.all [--quick] [--only NAME]... [--again] [--out benchmarks/results]
        [--work out/benchmarks]

Run it in the root of the repository, on an idle machine, with ``CAPSULE_EDGE_DATA`` set; some 30 minutes on two cores,
once the reference examination and the peers' environments are made (below ``--work``, kept). Each benchmark is a
process of its own and leaves one JSON file as soon as it ends. What is there of the same command, code, models and
processor is not measured again unless ``--again``, so a run that was stopped goes on where it was; of a benchmark that
fails the others are measured all the same, and the run ends with an error. Last the tables are written. ``--quick``
tries everything in some 5 minutes, by default into ``out/benchmarks/quick``, and leaves the documents alone.
``--render`` measures nothing and writes the tables: after models were replaced they say so.
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
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import InputError, ModelError, OutputError, UsageError
from capsule_edge.runtime.inference import METADATA_KEY, open_model

from .architectures import read_certified
from .machine import describe_machine, load_now, time_of_others
from .performance import update_documents
from .plots import plot_result
from .reference_exam import FRAMES, cut_recording, find_recordings, write_exam
from .results import Result, describe_commit, hash_models, read_results, write_result

__all__ = ["STEPS", "Step", "measure_all", "resize_input"]

RESULTS = Path("benchmarks/results")
WORK = Path("out/benchmarks")
EXAM = WORK / "exam.mp4"
# Frames of the parts: a sixteenth of the examination, of which the start of a run is little and which the slowest peer
# reads in half a minute; an eighth, of which start and end are little too; and enough to see that it runs.
PARTS = {frames: WORK / f"exam-{frames}.mp4" for frames in (FRAMES // 16, FRAMES // 8, 300)}
PART, LONG, SHORT = PARTS.values()
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
_MADE = (EXAM, *PARTS.values(), _MODELS["224-fp32"])
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
    f" --ours {_MODELS['small-fp32']} --ours {_MODELS['small-int8']}"
    f" --gated {_MODELS['standard-int8']} --gated {_MODELS['small-int8']} --envs {WORK}/envs"
)
STEPS = (
    Step("models", f"{_BENCH} --rounds 200 --starts 3", f"{_BENCH} --rounds 40 --starts 1"),
    Step(
        "stages",
        _with("stages", f"{LONG} {_MODELS['standard-int8']}"),
        _with("stages", f"{SHORT} {_MODELS['standard-int8']} --rounds 1"),
    ),
    Step(
        "stages-small",
        _with("stages", f"{LONG} {_MODELS['small-int8']}"),
        _with("stages", f"{SHORT} {_MODELS['small-int8']} --rounds 1"),
    ),
    Step(
        "scaling",
        _with("scaling", f"{EXAM} --model {_MODELS['small-int8']} --work {WORK}/scaling --plot {RESULTS}/scaling.png"),
        _with("scaling", f"{SHORT} --model {_MODELS['small-int8']} --work {WORK}/scaling-quick --rounds 1 --frames 60"),
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
        _with("peers", f"{SHORT} {_PEERS} --rounds 1"),
        limit_s=7200,
    ),
    Step(
        "peers-recording",
        _with("peers", f"{_VAL} {_PEERS} --rounds 2"),
        _with("peers", f"{SHORT} {_PEERS} --rounds 1"),
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
) -> tuple[dict[str, Result], list[str]]:
    """Measure the ``steps`` that ``out`` does not have yet, each written as soon as it is there.

    ``run`` takes a command and a limit in seconds and gives the JSON of its last line, or raises ``InputError``. The
    answer is all that ``out`` then has, and the names of the steps that failed.
    """
    kept, failed = read_results(out), []
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
        others = time_of_others()
        try:
            found = run(command, step.limit_s)
        except InputError as error:
            tell(f"{step.name}: {error}")
            failed.append(step.name)
            continue
        # The card is one place for each result: here.
        found.pop("machine", None)
        seconds, meanwhile = time.monotonic() - began, time_of_others()
        done: dict[str, Any] = {
            "seconds": round(seconds, 1),
            "load_after": load_now(),
            "found": found,
            "others": None
            if others is None or meanwhile is None
            else round((meanwhile - others) / seconds, 2),
        }
        kept[step.name] = Result(**{**vars(about), **done})
        write_result(kept[step.name], out)
        tell(f"{step.name}: {done['seconds']} s")
    return kept, failed


def run_command(command: str, limit_s: float, places: Mapping[Path, Path] | None = None) -> dict[str, Any]:
    """The JSON of the last line of what a command of ours says. Raises ``InputError`` with its last complaint.

    What it names below a folder of ``places`` is read and written below the other.
    """
    words = [os.path.expandvars(word) for word in command.split()]
    for named, meant in (places or {}).items():
        below = f"{named.as_posix()}/"
        words = [str(meant / word.removeprefix(below)) if word.startswith(below) else word for word in words]
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


def resize_input(model: Path, size: int, out: Path) -> Path:
    """Write a copy of an ONNX model that takes frames of another size, to compare the speed of sizes.

    Every network here is convolutions, global average pooling and one dense layer, so the same weights answer frames
    of any size. The answers at a size that the network was not trained on are worth less.

    Args:
        model: ONNX file with a ModelSpec.
        size: side of the new square input, pixels, at least 32.
        out: file to write.

    Raises:
        ModelError: ``model`` is not such a file.
        UsageError: ``size`` is below 32, or the package ``onnx`` is not installed.
        OutputError: ``out`` cannot be written.
    """
    if size < 32:
        raise UsageError(f"size is {size}, allowed are numbers from 32")
    if find_spec("onnx") is None:
        raise UsageError("onnx is not installed", hint="pip install 'capsule-edge[train]'")
    import onnx

    if model.suffix != ".onnx":
        raise ModelError(f"{model} is no ONNX file")
    open_model(model, threads=1).close()
    proto = onnx.load(model)
    _declare(proto.graph.input[0], (size, size))
    # What is pooled may have any sides; the runtime asks the file for them, so they must be the right ones.
    for value in proto.graph.output:
        if value.name == "features":
            _declare(value, ("h", "w"))
    del proto.graph.value_info[:]
    for entry in proto.metadata_props:
        if entry.key == METADATA_KEY:
            spec = json.loads(entry.value)
            spec["name"] = f"{spec['name']}-{size}"
            spec["input"]["size"] = size
            entry.value = json.dumps(spec)
    proto = onnx.shape_inference.infer_shapes(proto)
    side = next(v for v in proto.graph.output if v.name == "features").type.tensor_type.shape.dim[1].dim_value
    if side:
        _declare(next(v for v in proto.graph.output if v.name == "features"), (side, side))
    del proto.graph.value_info[:]
    partial = out.with_name(out.name + ".partial")
    try:
        onnx.save(proto, partial)
        os.replace(partial, out)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}") from None
    open_model(out, threads=1).close()
    return out


def _declare(value: Any, sides: tuple[int | str, int | str]) -> None:
    for dimension, side in zip(value.type.tensor_type.shape.dim[1:3], sides, strict=True):
        if isinstance(side, int):
            dimension.dim_value = side
        else:
            dimension.dim_param = side


def _prepare(root: Path, work: Path, *, quick: bool, tell: Callable[[str], None]) -> None:
    """Make what the commands read: the examination, its parts, and the standard network at 224 pixels."""
    if not find_recordings():
        raise InputError("the shared recordings are not there", hint="name their folder in CAPSULE_EDGE_DATA")
    work.mkdir(parents=True, exist_ok=True)
    for precision in ("fp32", "int8"):
        made = work / Path(_MODELS[f"{_SIZE}-{precision}"]).name
        resize_input(root / _MODELS[f"standard-{precision}"], _SIZE, made)
    exam = work / EXAM.name
    if not quick and not exam.exists():
        tell(f"writing the reference examination, {FRAMES} frames: some minutes")
        unfinished = exam.with_name("partial.mp4")
        write_exam(unfinished, recordings=find_recordings())
        unfinished.replace(exam)
    for frames, named in PARTS.items():
        part = work / named.name
        if part.exists() or (quick and named != SHORT):
            continue
        if exam.exists():
            cut_recording(exam, frames, part)
        else:
            unfinished = part.with_name("partial.mp4")
            write_exam(unfinished, frames=frames, recordings=find_recordings())
            unfinished.replace(part)


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
    parser.add_argument(
        "--work",
        type=Path,
        default=WORK,
        help="where what is read is made and kept: exam.mp4, envs, models, logs",
    )
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
    failed: list[str] = []
    if options.render:
        results = read_results(out)
    else:
        steps = [step for step in STEPS if not options.only or step.name in options.only]
        if any(str(made) in step.command for step in steps for made in _MADE):
            _prepare(root, options.work, quick=options.quick, tell=tell)
        run = partial(run_command, places={WORK: options.work, RESULTS: out})
        results, failed = measure_all(
            steps, root, out, quick=options.quick, again=options.again, run=run, tell=tell
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
    if failed:
        raise InputError(
            f"not measured: {', '.join(failed)}", hint="see above why; the same command goes on there"
        )
    print(json.dumps({"benchmark": "all", "results": {name: one.seconds for name, one in results.items()}}))


if __name__ == "__main__":
    from capsule_edge.evaluation._module import run_module

    run_module(main)
