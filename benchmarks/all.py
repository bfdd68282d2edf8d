"""Run every benchmark whose results are committed, and render the tables of the documents from the results.

    python -m capsule_edge.benchmarks.all [--quick] [--only NAME]... [--again] [--render] [--out benchmarks/results]
        [--work out/benchmarks]

Run it in the root of the repository, on an idle machine, with ``CAPSULE_EDGE_DATA`` set. It takes some 30 minutes on
two cores, once the reference examination and the peers' environments exist (below ``--work``, where they are kept).

Each benchmark is a process of its own, and its JSON file is written as soon as it ends. A result with the same command,
code, models and processor is kept unless ``--again`` is given, so a run that was stopped continues. If a benchmark
fails, the others still run, and the command ends with an error. At the end the tables are rendered.

``--quick`` tries everything in some 5 minutes. By default it writes into ``out/benchmarks/quick``, and it leaves the
documents alone. ``--render`` measures nothing and only renders the tables. If models have been replaced since the
measurement, the tables say so.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import InputError, ModelError, UsageError
from capsule_edge.runtime.inference import METADATA_KEY, open_model
from capsule_edge.runtime.results import commit_files, whole_file, write_whole

from .architectures import read_certified
from .machine import describe_machine, load_now, time_of_others
from .performance import update_documents
from .plots import plot_result
from .reference_exam import FRAMES, cut_recording, find_recordings, write_exam
from .results import Result, describe_commit, hash_models, read_results, write_result

__all__ = ["STEPS", "BenchmarkStep", "measure_all", "resize_input"]

RESULTS = Path("benchmarks/results")
WORK = Path("out/benchmarks")
EXAM = WORK / "exam.mp4"
# Parts of the examination by their number of frames. A sixteenth: the slowest peer reads it in half a minute, and the
# start of a run is a small share of it. An eighth: start and end are a small share. 300: enough to see that it runs.
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
# Files that are made for the commands that read them.
_MADE = (EXAM, *PARTS.values(), _MODELS["224-fp32"])
_VAL = "$CAPSULE_EDGE_DATA/recordings/bca26705313a4644.mp4"


@dataclass(frozen=True)
class BenchmarkStep:
    """A benchmark and its commands. ``$NAME`` in a word of a command is an environment variable.

    Attributes:
        name: name of the benchmark and of its result.
        command: the full command.
        quick: the command of ``--quick``.
        limit_s: seconds after which the command is stopped.
    """

    name: str
    command: str
    quick: str
    limit_s: float = 1800.0


def _module(module: str, words: str) -> str:
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
    BenchmarkStep("models", f"{_BENCH} --rounds 200 --starts 3", f"{_BENCH} --rounds 40 --starts 1"),
    BenchmarkStep(
        "stages",
        _module("stages", f"{LONG} {_MODELS['standard-int8']}"),
        _module("stages", f"{SHORT} {_MODELS['standard-int8']} --rounds 1"),
    ),
    BenchmarkStep(
        "stages-small",
        _module("stages", f"{LONG} {_MODELS['small-int8']}"),
        _module("stages", f"{SHORT} {_MODELS['small-int8']} --rounds 1"),
    ),
    BenchmarkStep(
        "scaling",
        _module("scaling", f"{EXAM} --model {_MODELS['small-int8']} --work {WORK}/scaling"
                f" --plot {RESULTS}/scaling.png"),
        _module("scaling", f"{SHORT} --model {_MODELS['small-int8']} --work {WORK}/scaling-quick"
                " --rounds 1 --frames 60"),
    ),
    BenchmarkStep(
        "mlperf",
        _module("mlperf", f"{_MODELS['standard-int8']} --data $CAPSULE_EDGE_DATA/capsule-vision --threads 2"
                f" --seconds 10 --out {WORK}/mlperf"),
        _module("mlperf", f"{_MODELS['standard-int8']} --data $CAPSULE_EDGE_DATA/capsule-vision --threads 2"
                f" --seconds 1 --limit 200 --out {WORK}/mlperf-quick"),
    ),
    BenchmarkStep(
        "instructions",
        _module("instructions", f"{_MODELS['standard-int8']} {_MODELS['small-int8']} --times 2"),
        _module("instructions", _MODELS["small-int8"]),
    ),
    BenchmarkStep(
        "architectures",
        _module("architectures", f"--work {WORK}/architectures"),
        _module("architectures", f"rep_cnn:128 plain_cnn:128 --work {WORK}/architectures --rounds 20"),
    ),
    BenchmarkStep(
        "peers-exam",
        _module("peers", f"{PART} {_PEERS} --rounds 2"),
        _module("peers", f"{SHORT} {_PEERS} --rounds 1"),
        limit_s=7200,
    ),
    BenchmarkStep(
        "peers-recording",
        _module("peers", f"{_VAL} {_PEERS} --rounds 2"),
        _module("peers", f"{SHORT} {_PEERS} --rounds 1"),
        limit_s=7200,
    ),
)  # fmt: skip


def measure_all(
    steps: Sequence[BenchmarkStep],
    root: Path,
    out: Path,
    *,
    quick: bool,
    again: bool,
    run: Callable[[str, float], dict[str, Any]],
    report: Callable[[str], None] = lambda _: None,
) -> tuple[dict[str, Result], list[str]]:
    """Run the steps whose results are missing or outdated, and write each result at once.

    Args:
        steps: the benchmarks.
        root: root of the repository.
        out: folder of the results.
        quick: whether to run the quick commands.
        again: whether to run the steps whose results are up to date too.
        run: runs a command with a limit in seconds and returns the JSON of its last line; raises ``InputError`` if the
            command fails.
        report: called with a line of progress.

    Returns:
        All results that ``out`` then has, and the names of the steps that failed.

    Raises:
        InputError: ``root`` is no checkout, or a file of ``out`` is no result.
        OutputError: a result cannot be written.
    """
    kept, failed = read_results(out), []
    commit, models = describe_commit(root), hash_models(root)
    for step in steps:
        command = step.quick if quick else step.command
        planned = Result(
            benchmark=step.name,
            command=command,
            commit=commit,
            measured=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=0.0,
            quick=quick,
            machine=describe_machine(),
            load_after=None,
            models={path: digest for path, digest in models.items() if path in command.split()},
            found={},
        )
        if not again and step.name in kept and kept[step.name].is_of(planned):
            report(f"{step.name}: measured already")
            continue
        report(f"{step.name}: {command}")
        try:
            kept[step.name] = _measure_step(planned, partial(run, command, step.limit_s))
        except InputError as error:
            report(f"{step.name}: {error}")
            failed.append(step.name)
            continue
        write_result(kept[step.name], out)
        report(f"{step.name}: {kept[step.name].seconds} s")
    return kept, failed


def _measure_step(planned: Result, run: Callable[[], dict[str, Any]]) -> Result:
    """Run a command and complete its result with the figures, the time, and how busy other programs were."""
    before, started = time_of_others(), time.monotonic()
    found = run()
    seconds, after = time.monotonic() - started, time_of_others()
    # The result has the machine card already.
    found.pop("machine", None)
    return replace(
        planned,
        seconds=round(seconds, 1),
        load_after=load_now(),
        found=found,
        others=None if before is None or after is None else round((after - before) / seconds, 2),
    )


def run_command(command: str, limit_s: float, places: Mapping[Path, Path] | None = None) -> dict[str, Any]:
    """Run a command of this project and return the JSON of its last line.

    Args:
        command: words separated by spaces; ``$NAME`` is an environment variable.
        limit_s: seconds after which the command is stopped.
        places: folders by the folder that the command names instead of them.

    Raises:
        InputError: the command failed, took too long, or printed nothing.
    """
    words = [os.path.expandvars(word) for word in command.split()]
    for named, actual in (places or {}).items():
        below = f"{named.as_posix()}/"
        words = [str(actual / word.removeprefix(below)) if word.startswith(below) else word for word in words]
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
    """Write a copy of an ONNX model that takes frames of another size, to compare the speed of input sizes.

    Every network here consists of convolutions, global average pooling and one dense layer, so the same weights work
    at any size. At a size that the network was not trained on it is less accurate.

    Args:
        model: ONNX file with a ModelSpec.
        size: side of the square input in pixels, at least 32.
        out: file to write.

    Returns:
        ``out``.

    Raises:
        ModelError: ``model`` is no ONNX file with a ModelSpec.
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
    # The runtime reads the sides of the features from the file. They are left open here and inferred again below.
    features = next(value for value in proto.graph.output if value.name == "features")
    _declare(features, ("h", "w"))
    del proto.graph.value_info[:]
    for entry in proto.metadata_props:
        if entry.key == METADATA_KEY:
            spec = json.loads(entry.value)
            spec["name"] = f"{spec['name']}-{size}"
            spec["input"]["size"] = size
            entry.value = json.dumps(spec)
    proto = onnx.shape_inference.infer_shapes(proto)
    features = next(value for value in proto.graph.output if value.name == "features")
    inferred = features.type.tensor_type.shape.dim[1].dim_value
    if inferred:
        _declare(features, (inferred, inferred))
    del proto.graph.value_info[:]
    commit_files(out.parent, {out.name: proto.SerializeToString()}, sign=out.name)
    open_model(out, threads=1).close()
    return out


def _declare(value: Any, sides: tuple[int | str, int | str]) -> None:
    """Set height and width of a tensor's declared shape, to numbers or to names of open dimensions."""
    for dimension, side in zip(value.type.tensor_type.shape.dim[1:3], sides, strict=True):
        if isinstance(side, int):
            dimension.dim_value = side
        else:
            dimension.dim_param = side


def _prepare(root: Path, work: Path, *, quick: bool, report: Callable[[str], None]) -> None:
    """Make the files that the commands read: the examination, its parts, and the standard network at 224 pixels."""
    recordings = find_recordings()
    if not recordings:
        raise InputError(
            "the shared recordings are not there",
            hint="set CAPSULE_EDGE_DATA to the folder that holds recordings/",
        )
    work.mkdir(parents=True, exist_ok=True)
    for precision in ("fp32", "int8"):
        resized = work / Path(_MODELS[f"{_SIZE}-{precision}"]).name
        resize_input(root / _MODELS[f"standard-{precision}"], _SIZE, resized)
    exam = work / EXAM.name
    if not quick and not exam.exists():
        report(f"writing the reference examination, {FRAMES} frames: some minutes")
        _write_part(exam, FRAMES, recordings)
    for frames, named in PARTS.items():
        part = work / named.name
        if part.exists() or (quick and named != SHORT):
            continue
        if exam.exists():
            cut_recording(exam, frames, part)
        else:
            _write_part(part, frames, recordings)


def _write_part(path: Path, frames: int, recordings: Sequence[Path]) -> None:
    """Write the first frames of the examination; a file of that name is always complete."""
    with whole_file(path) as temporary:
        write_exam(temporary, frames=frames, recordings=recordings)


def main(
    arguments: Sequence[str] | None = None,
    *,
    run: Callable[..., dict[str, Any]] = run_command,
) -> None:
    options = _make_parser().parse_args(arguments)
    names = [step.name for step in STEPS]
    unknown = [name for name in options.only or () if name not in names]
    if unknown:
        raise UsageError(f"benchmark {unknown[0]!r} is not known, allowed is one of {', '.join(names)}")
    root = Path.cwd()
    if not (root / "runtime/models").is_dir() or not (root / "README.md").is_file():
        raise InputError(f"{root} is not the root of the repository", hint="change into it")
    out = options.out or (WORK / "quick" if options.quick else RESULTS)

    def report(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    results: Mapping[str, Result]
    failed: list[str] = []
    if options.render:
        results = read_results(out)
    else:
        steps = [step for step in STEPS if not options.only or step.name in options.only]
        if any(str(made) in step.command for step in steps for made in _MADE):
            _prepare(root, options.work, quick=options.quick, report=report)
        placed = partial(run, places={WORK: options.work, RESULTS: out})
        results, failed = measure_all(
            steps, root, out, quick=options.quick, again=options.again, run=placed, report=report
        )
    if "models" in results:
        _draw(root, results["models"], out)
    if not options.quick and out == RESULTS:
        update_documents(root, results, hash_models(root))
    if failed:
        raise InputError(
            f"not measured: {', '.join(failed)}",
            hint="the lines above say why; the same command continues with them",
        )
    print(json.dumps({"benchmark": "all", "results": {name: one.seconds for name, one in results.items()}}))


def _draw(root: Path, result: Result, out: Path) -> None:
    """Draw the plots of the result of ``bench``, with macro-F1 from the certificates."""
    macro_f1 = {digest: figures[0] for digest, figures in read_certified(root).items()}
    for name, picture in plot_result(result.found, macro_f1).items():
        write_whole(out / name, picture)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m capsule_edge.benchmarks.all",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="few rounds of everything, to see that it runs")
    add("--only", action="append", metavar="NAME",
        help=f"run one benchmark of {', '.join(step.name for step in STEPS)}; repeatable")  # fmt: skip
    add("--again", action="store_true", help="measure up-to-date results again too")
    add("--render", action="store_true", help="measure nothing, only render the tables of the documents")
    add("--out", type=Path, help=f"folder of the results (default: {RESULTS}, or {WORK}/quick with --quick)")
    add("--work", type=Path, default=WORK,
        help="folder for the examination, environments, models and logs (default: %(default)s)")  # fmt: skip
    return parser


if __name__ == "__main__":
    from capsule_edge.evaluation._module import run_module

    run_module(main)
