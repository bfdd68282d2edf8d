"""``capsule-edge export``: the files of a trained model, each verified."""

from __future__ import annotations

from pathlib import Path

import click

from ._evaluation import recordings_option
from ._options import json_option
from ._printing import echo_json


@click.command(epilog="\b\nExample:\n  capsule-edge export runs/mobilenet --out models/mobilenet")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder to make; it must not hold anything."
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Labelled frames to certify the INT8 files on, as for compare.",
)
@click.option("--split", help="Rows of labels.csv to use; 'all' is every row.  [default: val, else all]")
@recordings_option
@click.option(
    "--keep-float",
    "keep",
    multiple=True,
    metavar="LAYER|auto",
    help="Keep this layer in float32; repeatable. 'auto' keeps the fewest for which no gate of shipping fails "
    "on the videos that the run held out.",
)
@json_option
def command(
    run: Path,
    out: Path,
    data: Path | None,
    split: str | None,
    recordings: tuple[Path, ...],
    keep: tuple[str, ...],
    as_json: bool,
) -> None:
    """Export a trained RUN: FP32 and INT8, ONNX and TFLite, each loaded again and compared on frames.

    With --data both INT8 files get two certificates: that they answer as Keras does (or there is no export), and how
    they compare with FP32. Nothing is left behind when one file fails its checks.
    """
    from capsule_edge.evaluation._extras import TRAINING, require
    from capsule_edge.runtime.errors import UsageError

    if data is None and (split or recordings):
        raise UsageError("--split and --recording are of certificates", hint="name the frames with --data")
    automatic = "auto" in keep
    if automatic and (data is None or len(keep) > 1):
        raise UsageError(
            "--keep-float auto chooses by itself, on frames", hint="give --data, and no other layer"
        )
    require(*TRAINING, "tf2onnx", "onnx", "ai_edge_litert", extra="train", what="export")
    from capsule_edge.evaluation.datasets import load_dataset
    from capsule_edge.export.bundle import export_run
    from capsule_edge.export.held_out import frames_to_choose_on

    def tell(step: str) -> None:
        click.echo(step, err=True)

    dataset = None if data is None else load_dataset(data, split=split)
    report = export_run(
        run,
        out,
        dataset=dataset,
        recordings=recordings,
        keep=() if automatic else keep,
        choose_on=frames_to_choose_on(run, data, progress=tell) if data is not None and automatic else None,
        progress=tell,
    )
    if dataset is None:
        click.echo("warning: without --data the INT8 files carry no certificate", err=True)
    if as_json:
        echo_json(report.to_dict())
        return
    click.echo(report.tree)
    operators = ", ".join(f"{count} {kind}" for kind, count in report.graph.operators.items())
    click.echo(f"INT8 graph as onnxruntime runs it: {operators}")
    for name, entry in report.files.items():
        click.echo(f"{entry['bytes']:>12,} bytes  {entry['sha256'][:16]}  {out / name}")
    if report.kept_float:
        click.echo(f"kept in float: {', '.join(report.kept_float)}")
    for certificate in report.certificates:
        models, frames, events = certificate["models"], certificate["data"]["frames"], certificate["events"]
        click.echo(
            f"{certificate['kind']} of {models['b']['file']} against {models['a']['file']}: {certificate['verdict']}, "
            f"agreement {certificate['agreement']:.3%} of {frames:,} frames, max |dp| {certificate['max_abs_dp']:.2g}, "
            f"macro-F1 {certificate['macro_f1_delta']:+.4f}"
            + (f", {events['matched']} events of {events['a']} and {events['b']} in common" if events else "")
        )
