"""``capsule-edge doctor``: check the answers of every inference engine on this machine, and time them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._options import HELP_OPTIONS, json_option
from ._printing import console, echo_json, number, table

if TYPE_CHECKING:
    from capsule_edge.runtime.inference import Backend

_WRONG = 1
_BATCH = 16


@click.command(
    context_settings=HELP_OPTIONS,
    epilog="\b\nExamples:\n  capsule-edge doctor\n  capsule-edge doctor model.int8.onnx model.int8.tflite",
)
@click.argument("models", metavar="[MODEL]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--rounds", type=click.IntRange(3), default=15, show_default=True, help="Number of timed batches."
)
@json_option
@click.pass_context
def command(context: click.Context, models: tuple[Path, ...], rounds: int, as_json: bool) -> None:
    """Run frames with known answers (golden frames) on every installed backend, and name the fastest correct one.

    MODEL is a model file, or the name of an installed model: standard or small. Without MODEL, the standard one
    is used. Each MODEL is tried on every backend that reads its format. Exit code 1 if a backend gives wrong
    answers.

    "correct" needs a reference: golden.json or SHA256SUMS beside MODEL must name its SHA-256. The answers of an
    unknown file are compared with those of a slow engine that reads the same file. That finds faults of an
    engine, and no fault of the file.
    """
    from capsule_edge.runtime.diagnostics import describe_cpu
    from capsule_edge.runtime.inference import default_model, find_model

    paths = [find_model(model) for model in models] or [default_model()]
    opened = [model for path in paths for model in _open_each(path)]
    results = [_examine(model, given=bool(models)) for model in opened]
    _time(opened, results, rounds)
    document = {
        "cpu": describe_cpu().to_dict(),
        "results": results,
        "not_tried": _not_tried(paths),
        "fastest": _fastest(results),
        "correct": _all_correct(results),
    }
    for model in opened:
        model.close()
    if as_json:
        echo_json(document)
    else:
        _print(document)
    context.exit(_WRONG if document["correct"] is False else 0)


def _all_correct(results: Sequence[Mapping[str, Any]]) -> bool | None:
    """Return False if a result is wrong, else None if one is not verified, else True."""
    found = [result["correct"] for result in results]
    return False if False in found else None if None in found else True


def _open_each(path: Path) -> list[Backend]:
    """Open the file on each installed backend that reads it. Raises ``BackendError`` if none is installed."""
    from capsule_edge.runtime.inference import find_format, installed_backends, open_model, readers_of

    names = readers_of(find_format(path))
    installed = [name for name in names if name in installed_backends()]
    return [open_model(path, backend=name, threads=1) for name in installed or names[:1]]


def _examine(model: Backend, *, given: bool) -> dict[str, Any]:
    """Return how the answers of one opened model compare with the known ones. ``given``: name its whole path."""
    from importlib.metadata import version

    from capsule_edge.runtime.diagnostics import (
        answers_wrongly_here,
        golden_frames,
        know_answers,
        replay,
        saturates_here,
    )
    from capsule_edge.runtime.inference import BACKENDS, reference_of

    frames = golden_frames(model.spec.input)
    found = replay(model, frames, know_answers(model.path, model.sha256, frames))
    reference = reference_of(model.path, model.sha256)
    # A model whose 8-bit sums can saturate here counts as wrong, even if they do not on the golden frames.
    right = found.correct and not answers_wrongly_here(model.spec, model.name)
    return {
        "file": str(model.path) if given else model.path.name,
        "backend": model.name,
        "version": version(BACKENDS[model.name].needs.replace("_", "-")),
        "precision": model.spec.precision,
        # None: the engines agree about the file, and nothing says what the file should answer.
        "correct": None if right and reference is None else right,
        "reference": reference,
        "frames": len(frames),
        "answers": found.source,
        "off": found.off,
        "limit": found.limit,
        "max_abs_dp": found.max_abs_dp,
        "agreement": found.agreement,
        "saturation_safe": model.spec.saturation_safe,
        "saturates_here": saturates_here(model.name),
    }


def _time(opened: Sequence[Backend], results: Sequence[dict[str, Any]], rounds: int) -> None:
    """Add the time per frame to each result: full batches on one thread, the models taking turns."""
    from capsule_edge.benchmarks.latency import measure, summarise

    times = measure(opened, rounds=rounds, warmup=2, batch=_BATCH) / _BATCH
    for result, row in zip(results, summarise(times), strict=True):
        result |= {"ms_per_frame": row["p50_ms"], "ratio": row["ratio"], "ratio_95": row["ratio_95"]}


def _not_tried(paths: Sequence[Path]) -> list[dict[str, str]]:
    """Return the backends that were not tried, each with the reason and what to do."""
    from capsule_edge.runtime.inference import BACKENDS, find_format

    formats = {find_format(path) for path in paths}
    missing = []
    for name, engine in BACKENDS.items():
        if not engine.installed:
            reason = f"not installed: pip install 'capsule-edge[{engine.extra}]'"
        elif engine.reads not in formats:
            reason = (
                f"no {engine.reads} file was given: capsule-edge doctor model.int8.{engine.reads.lower()}"
            )
        else:
            continue
        missing.append({"backend": name, "reason": reason})
    return missing


def _fastest(results: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return file and backend of the fastest result that is correct, else not verified, or None."""
    correct = [result for result in results if result["correct"]]
    correct = correct or [result for result in results if result["correct"] is None]
    best = min(correct, key=lambda result: result["ms_per_frame"], default=None)
    return None if best is None else {"file": best["file"], "backend": best["backend"]}


def _print(document: Mapping[str, Any]) -> None:
    show, cpu = console().print, document["cpu"]
    words = {True: "yes", False: "no", None: "unknown"}
    features = ", ".join(f"{name} {words[has]}" for name, has in cpu["features"].items())
    show(f"{cpu['name'] or 'processor unknown'}, {cpu['architecture']}, {cpu['cores']} cores: {features}")
    show(_result_table(document["results"]))
    for result in document["results"]:
        for line in _faults(result):
            show(line)
    for entry in document["not_tried"]:
        show(f"{entry['backend']} was not tried: {entry['reason']}")
    best = document["fastest"]
    if best is None:
        show("no backend answers correctly here")
    elif not any(result["correct"] for result in document["results"]):
        show(f"fastest here, not verified: --backend {best['backend']} with {best['file']}, one thread")
    else:
        show(f"fastest and correct here: --backend {best['backend']} with {best['file']}, one thread")


def _result_table(results: Sequence[Mapping[str, Any]]) -> Any:
    columns = ("backend", "version", "file", "answers", "max |dp|", "ms/frame", "ratio", "16-bit sums")
    rows = table(*columns, numbers=False)
    for result in results:
        rows.add_row(
            *(result[name] for name in ("backend", "version", "file")),
            {True: "correct", False: "WRONG", None: "not verified"}[result["correct"]],
            number(result["max_abs_dp"], 4),
            number(result["ms_per_frame"], 2),
            number(result["ratio"], 2),
            "saturate" if result["saturates_here"] else "do not saturate",
        )
    return rows


def _faults(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each fault of a result: no reference, wrong answers, and 8-bit sums that saturate."""
    name = f"{result['file']} with {result['backend']}"
    if result["reference"] is None:
        yield (
            f"{name}: unknown file: no reference, not verified. Neither golden.json nor SHA256SUMS beside it names"
            " its SHA-256"
        )
    if result["off"] > result["limit"]:
        yield (
            f"WRONG: a logit of {name} differs by {result['off']:.3g} from the {result['answers']} answers of "
            f"{result['frames']} golden frames, allowed is {result['limit']:.3g}"
        )
    if result["saturates_here"] and result["precision"] == "int8" and not result["saturation_safe"]:
        unsafe = result["saturation_safe"] is False
        known = "is not saturation-safe" if unsafe else "does not say whether it is saturation-safe"
        yield (
            f"{'WRONG' if unsafe else 'warning'}: {name} {known}, and 8-bit sums saturate here"
            f"{', so run refuses it' if unsafe else ''}. Use a saturation-safe file, FP32, or TFLite with --backend"
            " litert"
        )
