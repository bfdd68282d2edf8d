"""``capsule-edge export``: the files of a trained model, each verified."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command(epilog="\b\nExample:\n  capsule-edge export runs/mobilenet --out models/mobilenet")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder to make; it must not hold anything."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(run: Path, out: Path, as_json: bool) -> None:
    """Export a trained RUN: FP32 and INT8, ONNX and TFLite, each loaded again and compared on frames.

    Nothing is left behind when one file fails its checks.
    """
    try:
        from capsule_edge.export.bundle import export_run
    except ModuleNotFoundError as error:
        from capsule_edge.runtime.errors import UsageError

        raise UsageError(
            f"export needs {error.name}, which is not installed", hint="pip install 'capsule-edge[train]'"
        ) from None
    report = export_run(run, out, progress=lambda step: click.echo(step, err=True))
    if as_json:
        click.echo(json.dumps(report.to_dict(), ensure_ascii=False, indent=1, allow_nan=False))
        return
    click.echo(report.tree)
    operators = ", ".join(f"{count} {kind}" for kind, count in report.graph.operators.items())
    click.echo(f"INT8 graph as onnxruntime runs it: {operators}")
    for name, entry in report.files.items():
        click.echo(f"{entry['bytes']:>12,} bytes  {entry['sha256'][:16]}  {out / name}")
