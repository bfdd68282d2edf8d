"""``capsule-edge export``: write the model files of a training run, each verified."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ._evaluation import recordings_option
from ._options import HELP_OPTIONS, json_option, labels_option
from ._printing import echo_json, summarise_certificate

if TYPE_CHECKING:
    from capsule_edge.export.bundle import ExportReport


@click.command(
    context_settings=HELP_OPTIONS,
    epilog="\b\nExample:\n  capsule-edge export runs/mobilenet --out models/mobilenet --data frames",
)
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder for the model files, new or empty."
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help='Labelled frames on which the INT8 files are certified (a data set folder, see "compare").',
)
@click.option(
    "--split",
    help="Split of --data to certify on; 'all' takes every row.  [default: val if there is one, else all]",
)
@labels_option
@recordings_option
@click.option(
    "--keep-float",
    "keep",
    multiple=True,
    metavar="LAYER|auto",
    help="Keep this layer in float32; can be repeated. 'auto' keeps the fewest layers with which no shipping gate "
    "fails on the videos that the run held out.",
)
@click.option(
    "--accept-weak",
    is_flag=True,
    help='Export a model that "train" found no better than the majority class, or not calibrated.',
)
@json_option
def command(
    run: Path,
    out: Path,
    data: Path | None,
    split: str | None,
    label_map: Path | None,
    recordings: tuple[Path, ...],
    keep: tuple[str, ...],
    accept_weak: bool,
    as_json: bool,
) -> None:
    """Export the training run RUN as FP32 and INT8 models, each as ONNX and TFLite.

    Each file is loaded again and its answers are compared with the trained model's on sample frames. If any
    file fails its checks, nothing is written.

    With --data, each INT8 file gets two certificates. The conversion certificate compares it with the
    trained Keras model; if it fails, nothing is written. The shipping certificate compares it with FP32; its
    verdict is printed and does not stop the export.
    """
    report = _export(
        run,
        out,
        data=data,
        split=split,
        label_map=label_map,
        recordings=recordings,
        keep=keep,
        accept_weak=accept_weak,
    )
    if data is None:
        click.echo("warning: without --data the INT8 files carry no certificate", err=True)
    if as_json:
        echo_json(report.to_dict())
    else:
        _print(report, out)


def _export(
    run: Path,
    out: Path,
    *,
    data: Path | None,
    split: str | None,
    label_map: Path | None,
    recordings: tuple[Path, ...],
    keep: tuple[str, ...],
    accept_weak: bool,
) -> ExportReport:
    from capsule_edge.evaluation._extras import TRAINING, require
    from capsule_edge.runtime.errors import UsageError

    if data is None and (split or recordings or label_map):
        raise UsageError(
            "--split, --labels and --recording are for certificates, which need --data",
            hint="add --data DIR",
        )
    automatic = "auto" in keep
    if automatic and (data is None or len(keep) > 1):
        raise UsageError(
            "--keep-float auto chooses the layers itself, on frames", hint="give --data, and no other layer"
        )
    require(*TRAINING, "tf2onnx", "onnx", "ai_edge_litert", extra="train", what="export")
    from capsule_edge.train.tensorflow_log import import_quietly

    import_quietly()
    from capsule_edge.evaluation.datasets import load_dataset
    from capsule_edge.export.bundle import export_run
    from capsule_edge.export.held_out import frames_to_choose_on

    dataset = None if data is None else load_dataset(data, split=split, label_map=label_map)
    choose_on = None
    if data is not None and automatic:
        choose_on = frames_to_choose_on(run, data, label_map=label_map, progress=_log)
    return export_run(
        run,
        out,
        dataset=dataset,
        recordings=recordings,
        keep=() if automatic else keep,
        choose_on=choose_on,
        accept_weak=accept_weak,
        progress=_log,
    )


def _log(step: str) -> None:
    click.echo(step, err=True)


def _print(report: ExportReport, out: Path) -> None:
    click.echo(report.tree)
    operators = ", ".join(f"{count} {kind}" for kind, count in report.graph.operators.items())
    click.echo(f"INT8 graph as onnxruntime runs it: {operators}")
    for name, entry in report.files.items():
        click.echo(f"{entry['bytes']:>12,} bytes  {entry['sha256'][:16]}  {out / name}")
    if report.kept_float:
        click.echo(f"kept in float: {', '.join(report.kept_float)}")
    for certificate in report.certificates:
        click.echo(summarise_certificate(certificate))
