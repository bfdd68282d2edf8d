"""``capsule-edge bench``: latency, throughput, cold start and memory of model files; what changed since a result."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ._options import json_option
from ._printing import console, number, table

_REGRESSED = 4


def _numbers(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r}, allowed are numbers as 1,2") from None


@click.command(
    epilog="\b\nExamples:\n  capsule-edge bench model.fp32.onnx model.int8.onnx --threads 1,2 --out results\n"
    "  capsule-edge bench --against earlier.json --result later.json"
)
@click.argument("models", metavar="[MODEL]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--backend", "backends", multiple=True, help="Inference engine; repeatable.  [default: all installed]"
)
@click.option("--threads", default="1", show_default=True, callback=_numbers, help="Of one call, as 1,2.")
@click.option("--batches", default="1,16", show_default=True, callback=_numbers, help="Of throughput.")
@click.option(
    "--streams", default="1,2", show_default=True, callback=_numbers, help="Calls at once, of throughput."
)
@click.option("--rounds", default=200, show_default=True, help="Of latency; from 40.")
@click.option("--starts", default=5, show_default=True, help="Fresh processes for each; 0 leaves them out.")
@click.option("--evaluation", "evaluations", multiple=True, type=click.Path(path_type=Path),
              help="What evaluate --json said of a MODEL, for accuracy against latency; repeatable.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Write bench.json, bench.md and plots there.")
@click.option("--against", type=click.Path(path_type=Path), help="An earlier result to compare with.")
@click.option("--result", type=click.Path(path_type=Path), help="Compare this result instead of measuring.")
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
    """Measure MODEL... on every backend, in pairs that take turns: INT8 with its FP32, all else with the first.

    MODEL is a file, or standard or small: those installed; without any it is standard.

    With --against, exit code 4 when a figure is slower than before by more than noise.
    """
    from capsule_edge.benchmarks.regression import compare_results, read_result

    if result is not None and (models or against is None):
        raise click.UsageError("--result is compared with --against, and no MODEL is measured", context)
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
        told = document if changes is None else {**document, **changes}
        click.echo(json.dumps(told, ensure_ascii=False, allow_nan=False))
    else:
        if result is None:
            _print(document)
        if changes is not None:
            _print_changes(changes)
    slower = changes is not None and any(change["verdict"] == "slower" for change in changes["changes"])
    context.exit(_REGRESSED if slower else 0)


def _measure(
    models: tuple[Path, ...], backends: tuple[str, ...], options: Mapping[str, Any]
) -> dict[str, Any]:
    from capsule_edge.benchmarks.bench import BenchOptions, run_bench
    from capsule_edge.runtime.inference import default_model, installed_backends

    def tell(what: str) -> None:
        click.echo(what, err=True)

    paths = list(models) or [default_model()]
    return run_bench(paths, backends or installed_backends(), BenchOptions(**options), report=tell)


def _read_accuracy(evaluations: tuple[Path, ...]) -> dict[str, float]:
    """Macro-F1 by the model's SHA-256."""
    from capsule_edge.runtime.errors import InputError

    found = {}
    for path in evaluations:
        try:
            document = json.loads(path.read_text("utf-8"))
            found[str(document["model"]["sha256"])] = float(document["macro_f1"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} is no document of evaluate: {error}",
                hint="write it with capsule-edge evaluate --json",
            ) from None
    return found


def _write(document: Mapping[str, Any], out: Path, accuracy: Mapping[str, float]) -> None:
    """All the files or none; ``bench.json``, the last, is the sign that they belong together."""
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
        raise OutputError(f"{out} cannot be made: {error.strerror or error}") from None
    written = commit_files(out, files, sign="bench.json")
    # A picture of an earlier result beside this one would be taken for its own.
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
        screen.print("~ the times did not settle: the machine is busy, trust the core ratio more")


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
