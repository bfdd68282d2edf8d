"""``capsule-edge train``: from labelled frames to a RUN folder that ``export`` takes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ._groups import GroupedCommand
from ._options import json_option
from ._printing import echo_json

_PATH = click.Path(path_type=Path)
_GROUPS = (
    ("Data", ("data", "split", "boxes", "cache")),
    ("Run", ("out", "name", "checkpoint_every", "as_json")),
    ("Start from", ("weights", "teachers", "calibrate_on", "fp32_weights")),
    (
        "Configuration",
        ("config_file", "architecture", "size", "epochs", "batch", "learning_rate", "seed", "assignments"),
    ),
)
# Without a terminal a line comes for each checkpoint, epoch and as many steps.
_STEPS_A_LINE = 50


@click.command(
    cls=GroupedCommand,
    groups=_GROUPS,
    epilog="\b\nExamples:\n"
    "  capsule-edge train --data capsule-vision --weights backbone.h5 --out runs/first\n"
    "  capsule-edge train --data frames --out runs/lite --architecture efficientnet_lite0 \\\n"
    "      --set focal=2 --set patience=3",
)
@click.option(
    "--data", type=_PATH, required=True, help="Folder with labels.csv, or with a folder for each class."
)
@click.option("--split", default=None, help="Rows to train on; 'train' where the data set has it, else all.")
@click.option(
    "--boxes", type=_PATH, help="Kvasir-Capsule's metadata.csv: boxes around lesions, for transplants=N."
)
@click.option("--cache", type=_PATH, help="Keep the preprocessed frames there, for other runs too.")
@click.option("--out", type=_PATH, required=True, help="RUN folder; one that is there goes on.")
@click.option("--name", default="capsule-edge", show_default=True, help="The model's name.")
@click.option("--checkpoint-every", type=click.FloatRange(0), default=120.0, show_default=True, metavar="S",
              help="Seconds between checkpoints within an epoch; one comes behind each epoch.")  # fmt: skip
@json_option
@click.option(
    "--weights", type=_PATH, help="Pretrained backbone: .npz of the architecture, or MobileNetV2 1.0 as .h5."
)
@click.option("--teacher", "teachers", multiple=True, type=_PATH,
              help="Exported model, or weights (.npz), to learn from; may be given again.")  # fmt: skip
@click.option("--calibrate-on", type=_PATH, help="out_of_fold.npz that train.folds left.")
@click.option("--fp32", "fp32_weights", type=_PATH,
              help="FP32 weights that train.folds or train.gpu_qat left, instead of a fit.")  # fmt: skip
@click.option("--config", "config_file", type=_PATH,
              help="JSON of TrainConfig's fields, such as a run's config.json; what follows overrides it.")  # fmt: skip
@click.option("--architecture", help="Of the model, such as mobilenet_v2.")
@click.option("--size", type=int, help="Width and height of the frames, a multiple of 16; of 32 for rep_cnn.")
@click.option("--epochs", type=int, help="Of the FP32 fit.")
@click.option("--batch", type=int, help="Frames a step, over all workers.")
@click.option("--learning-rate", type=float, help="At its peak.")
@click.option("--seed", type=int, help="Of draws and fresh weights: the same seed ends in the same weights.")
@click.option("--set", "assignments", multiple=True, metavar="FIELD=VALUE",
              help="Any field of TrainConfig, such as focal=2; may be given again.")  # fmt: skip
def command(
    data: Path,
    split: str | None,
    boxes: Path | None,
    cache: Path | None,
    out: Path,
    name: str,
    checkpoint_every: float,
    as_json: bool,
    weights: Path | None,
    teachers: tuple[Path, ...],
    calibrate_on: Path | None,
    fp32_weights: Path | None,
    config_file: Path | None,
    assignments: tuple[str, ...],
    **fields: Any,
) -> None:
    """Train FP32, calibrate on videos it has not seen, then train its INT8 twin (QAT).

    A run that was stopped, by whatever, goes on when the same command is given again, and ends as if it had not
    been. Configuration and curves lie in the RUN folder (config.json, curve.csv, tensorboard). With TF_CONFIG
    several machines share the FP32 fit; each runs this command on the same folders.
    """
    from capsule_edge.evaluation._extras import TRAINING, require

    require(*TRAINING, "sklearn", extra="train", what="training")
    from capsule_edge.evaluation.datasets import load_training
    from capsule_edge.train.config import TrainConfig
    from capsule_edge.train.run import train_run

    config = TrainConfig.read(config_file) if config_file else TrainConfig()
    given = {field: value for field, value in fields.items() if value is not None}
    config = TrainConfig.of(config.to_dict() | given).override(assignments)
    dataset = load_training(data, split=split)
    skipped: list[str] = []
    with _watch() as show:

        def note(line: dict[str, Any]) -> None:
            if "skipped" in line and "frames" not in line:
                skipped.append(line["skipped"])
            show(line)

        train_run(
            dataset,
            out,
            config,
            name=name,
            backbone=weights,
            teachers=teachers,
            calibrate_on=calibrate_on,
            fp32_weights=fp32_weights,
            cache=cache,
            boxes=boxes,
            checkpoint_every_s=checkpoint_every,
            note=note,
        )
    if skipped:
        what = f"{len(skipped)} image{'s' * (len(skipped) > 1)}"
        click.echo(f"warning: {what} could not be read and left out", err=True)
    if as_json:
        echo_json({"run": str(out), "skipped": skipped, "config": config.to_dict()})
    else:
        click.echo(f"{out} is ready: capsule-edge export {out} --out DIR")


@contextmanager
def _watch() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Show notes on stderr: a bar with the time left for the steps where that is a terminal, all else as lines."""
    if not sys.stderr.isatty():

        def show(line: dict[str, Any]) -> None:
            if line.get("step", 0) % _STEPS_A_LINE == 0:
                click.echo(_text(line), err=True)

        yield show
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"), TimeRemainingColumn(elapsed_when_finished=True),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def advance(line: dict[str, Any]) -> None:
            part = line.get("part", "")
            if "step" in line:
                if part not in tasks:
                    # What an earlier process did is no measure of this one's speed.
                    tasks[part] = bar.add_task(part, total=line["of"], completed=line["step"], loss="-")
                bar.update(tasks[part], completed=line["step"] + 1, loss=line["loss"])
            elif "checkpoint" not in line:
                bar.console.print(_text(line), markup=False, highlight=False)

        yield advance


def _text(line: dict[str, Any]) -> str:
    return "  ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in line.items()
    )
