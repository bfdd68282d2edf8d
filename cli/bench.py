"""``capsule-edge bench``: measure the speed and memory of model files, and compare results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ._options import HELP_OPTIONS, json_option
from ._printing import console, number, table

_SLOWER = 4


def _numbers(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """Return the numbers of ``value``, which are separated by commas."""
    try:
        return tuple(int(word) for word in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r}, allowed are numbers separated by commas, such as 1,2") from None


@click.command(
    context_settings=HELP_OPTIONS,
    epilog="\b\nExamples:\n  capsule-edge bench model.fp32.onnx model.int8.onnx --threads 1,2 --out results\n"
    "  capsule-edge bench --against earlier.json --result later.json",
)
@click.argument("models", metavar="[MODEL]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--backend",
    "backends",
    multiple=True,
    help="Inference engine to measure; can be repeated.  [default: all installed]",
)
@click.option(
    "--threads",
    default="1",
    show_default=True,
    callback=_numbers,
    metavar="N,N...",
    help="Numbers of threads of one inference call, each measured.",
)
@click.option(
    "--batches",
    default="1,16",
    show_default=True,
    callback=_numbers,
    metavar="N,N...",
    help="Batch sizes for which throughput is measured.",
)
@click.option(
    "--streams",
    default="1,2",
    show_default=True,
    callback=_numbers,
    metavar="N,N...",
    help="Numbers of simultaneous inference calls for which throughput is measured.",
)
@click.option("--rounds", default=200, show_default=True, help="Number of latency measurements, 40 or more.")
@click.option(
    "--starts",
    default=5,
    show_default=True,
    help="Number of fresh processes in which the cold start of each model is measured; 0 leaves it out.",
)
@click.option(
    "--evaluation",
    "evaluations",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help='Output of "evaluate --json" for a MODEL, to plot accuracy against latency; can be repeated.',
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for the results: bench.json, bench.md and plots."
)
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Compare the result with this earlier bench.json.",
)
@click.option(
    "--result",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Compare this bench.json with --against instead of measuring.",
)
@json_option
@click.pass_context
def command(
    context: click.Context,
    /,
    models: tuple[Path, ...],
    backends: tuple[str, ...],
    evaluations: tuple[Path, ...],
    out: Path | None,
    against: Path | None,
    result: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure latency, throughput, cold start and memory of each MODEL on each backend.

    MODEL is a model file, or the name of an installed model: standard or small. Without MODEL, the standard one
    is measured.

    Models are measured in pairs that take turns, so that a busy machine slows both: an INT8 file with its FP32
    original, any other with the first MODEL.

    With --against, the exit code is 4 if a figure is slower than before by more than noise.
    """
    if result is not None and (models or against is None):
        raise click.UsageError(
            "--result needs --against and no MODEL: it compares and measures nothing", context
        )
    from capsule_edge.benchmarks.regression import compare_results, read_result

    earlier = None if against is None else read_result(against)
    accuracy = _read_accuracy(evaluations)
    document = read_result(result) if result else _measure(models, backends, options)
    if out is not None:
        _write(document, out, accuracy)
    changes: dict[str, Any] | None = None
    if earlier is not None:
        found, same = compare_results(earlier, document)
        changes = {"same_machine": same, "changes": [change.to_dict() for change in found]}
    if as_json:
        printed = document if changes is None else {**document, **changes}
        click.echo(json.dumps(printed, ensure_ascii=False, allow_nan=False))
    else:
        if result is None:
            _print(document)
        if changes is not None:
            _print_changes(changes)
    slower = changes is not None and any(change["verdict"] == "slower" for change in changes["changes"])
    context.exit(_SLOWER if slower else 0)


def _measure(
    models: tuple[Path, ...], backends: tuple[str, ...], options: Mapping[str, Any]
) -> dict[str, Any]:
    from capsule_edge.benchmarks.bench import BenchOptions, run_bench
    from capsule_edge.runtime.inference import default_model, installed_backends

    def log(step: str) -> None:
        click.echo(step, err=True)

    paths = list(models) or [default_model()]
    return run_bench(paths, backends or installed_backends(), BenchOptions(**options), report=log)


def _read_accuracy(evaluations: tuple[Path, ...]) -> dict[str, float]:
    """Return macro-F1 by the SHA-256 of the model. Raises ``InputError`` for other files than ``evaluate --json``'s."""
    from capsule_edge.runtime.errors import InputError

    found = {}
    for path in evaluations:
        try:
            document = json.loads(path.read_text("utf-8"))
            found[str(document["model"]["sha256"])] = float(document["macro_f1"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} is not the output of evaluate --json: {error}",
                hint="write it with capsule-edge evaluate --json",
            ) from None
    return found


def _write(document: Mapping[str, Any], out: Path, accuracy: Mapping[str, float]) -> None:
    """Write all the files or none. ``bench.json`` is written last: where it is, the others belong to it."""
    from importlib.util import find_spec

    from capsule_edge.benchmarks.plots import PLOTS, plot_result
    from capsule_edge.benchmarks.tables import render_markdown
    from capsule_edge.runtime.errors import OutputError
    from capsule_edge.runtime.results import commit_files

    text = json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n"
    files = {"bench.json": text.encode(), "bench.md": render_markdown(document).encode()}
    if find_spec("matplotlib") is None:
        click.echo("no plots: matplotlib is not installed (pip install 'capsule-edge[eval]')", err=True)
    else:
        files |= plot_result(document, accuracy)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out} cannot be created: {error.strerror or error}") from None
    written = commit_files(out, files, sign="bench.json")
    # Remove plots of an earlier result that this one did not replace.
    for name in set(PLOTS) - set(files):
        (out / name).unlink(missing_ok=True)
    for path in written.values():
        click.echo(f"wrote {path}", err=True)


def _print(document: Mapping[str, Any]) -> None:
    from capsule_edge.benchmarks.tables import (
        LATENCY,
        STARTUP,
        latency_rows,
        machine_line,
        startup_rows,
        throughput_rows,
    )

    screen = console()
    screen.print(machine_line(document))
    head, throughput = throughput_rows(document)
    _print_table(LATENCY, latency_rows(document))
    _print_table(head, throughput)
    _print_table(STARTUP, startup_rows(document))
    if not all(row["steady"] for entry in document["entries"] for row in entry["latency"]):
        screen.print(
            "~ these times did not settle, because the machine is busy: the core ratio is more reliable"
        )


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    made = table(*columns)
    for row in rows:
        made.add_row(*row)
    console().print(made)


def _print_changes(found: Mapping[str, Any]) -> None:
    screen = console()
    if not found["same_machine"]:
        screen.print("measured on different machines: only ratios are compared")
    rows = table("file", "backend", "threads", "figure", "before", "after", "change", "verdict")
    for change in found["changes"]:
        cells = [change["file"], change["backend"], str(change["threads"]), change["figure"]]
        cells += [
            number(change["before"]),
            number(change["after"]),
            f"{change['change']:+.1%}",
            change["verdict"],
        ]
        rows.add_row(*cells)
    screen.print(rows)
