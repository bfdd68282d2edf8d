"""``capsule-edge train``: from labelled frames to a RUN folder that ``export`` takes."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click


@click.command(
    epilog="\b\nExample:\n  capsule-edge train --data capsule-vision --weights backbone.h5 --out runs/first"
)
@click.option("--data", type=click.Path(path_type=Path),  required=True,
              help="Folder with labels.csv, or with a folder for each class.")  # fmt: skip
@click.option("--split", default=None, help="Rows to train on; 'train' where the data set has it, else all.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="RUN folder; one that is there goes on."
)
@click.option(
    "--weights", type=click.Path(path_type=Path), help="Pretrained MobileNetV2 1.0 backbone (.h5, .npz)."
)
@click.option("--teacher", "teachers", multiple=True, type=click.Path(path_type=Path),
              help="Exported model, or weights (.npz), to learn from; may be given again.")  # fmt: skip
@click.option(
    "--calibrate-on", type=click.Path(path_type=Path), help="out_of_fold.npz that train.folds left."
)
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="JSON of TrainConfig's fields."
)
@click.option("--name", default="capsule-edge", show_default=True, help="The model's name.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(
    data: Path,
    split: str | None,
    out: Path,
    weights: Path | None,
    teachers: tuple[Path, ...],
    calibrate_on: Path | None,
    config_file: Path | None,
    name: str,
    as_json: bool,
) -> None:
    """Train FP32, calibrate on videos it has not seen, then train its INT8 twin (QAT). Resumable."""
    from capsule_edge.runtime.errors import UsageError

    for module in ("tensorflow", "tf_keras", "tensorflow_model_optimization", "sklearn"):
        if find_spec(module) is None:
            raise UsageError(
                f"training needs {module}, which is not installed", hint="pip install 'capsule-edge[train]'"
            )
    from capsule_edge.evaluation.datasets import load_dataset
    from capsule_edge.train.config import TrainConfig
    from capsule_edge.train.run import train_run

    dataset = load_dataset(data, split=split or "all")
    if not split and any(sample.split for sample in dataset.samples):
        dataset = load_dataset(data, split="train")
    config = TrainConfig.read(config_file) if config_file else TrainConfig()

    def note(line: dict[str, Any]) -> None:
        click.echo("  ".join(f"{key} {value}" for key, value in line.items()), err=True)

    train_run(
        dataset,
        out,
        config,
        name=name,
        backbone=weights,
        teachers=teachers,
        calibrate_on=calibrate_on,
        note=note,
    )
    if as_json:
        click.echo(json.dumps({"run": str(out), "config": config.to_dict()}))
    else:
        click.echo(f"{out} is ready: capsule-edge export {out} --out DIR")
