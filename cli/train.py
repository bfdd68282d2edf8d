"""``capsule-edge train``: train a model on labelled frames. The result is a RUN folder, which ``export`` takes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._evaluation import warn_of_remarks
from ._groups import GroupedCommand
from ._options import HELP_OPTIONS, json_option, labels_option
from ._printing import echo_json
from ._recipes import RecipeOptions, print_recipes, run_recipes

if TYPE_CHECKING:
    from capsule_edge.evaluation.datasets import Dataset
    from capsule_edge.evaluation.recordings import LabelledRecordings
    from capsule_edge.train.config import TrainConfig

_PATH = click.Path(path_type=Path)
_GROUPS = (
    ("Data", ("data", "split", "label_map", "recordings", "weigh", "frames_leak_patients", "boxes", "cache")),
    ("Run", ("out", "checkpoint_every", "as_json")),
    ("Statements of the owner", ("name", "version", "license", "data_license", "intended_use")),
    ("Start from", ("weights", "teachers", "calibrate_on", "fp32_weights")),
    (
        "Configuration",
        ("config_file", "architecture", "size", "epochs", "batch", "learning_rate", "seed", "assignments"),
    ),
    ("Recipes, with PyTorch on a GPU", ("recipes", "folds", "only", "pretrained")),
)
_SHOWN_AS = {
    "held_out": "validation macro-F1",
    "held_out_majority": "majority class",
    "held_out_balanced_accuracy": "balanced accuracy",
}
_WEAK = 6  # exit code
_NOT_STATED = "[default: not stated]"
_OF_RECIPES = ("recipes", "folds", "only", "pretrained")
_SHARED_WITH_RECIPES = ("data", "label_map", "recordings", "weigh", "boxes", "out")
_STATEMENTS = ("name", "version", "license", "data_license", "intended_use")
# Without a terminal, one line is printed for each checkpoint, each epoch and this many steps.
_STEPS_PER_LINE = 50


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """The options of ``train`` apart from the configuration, as click parsed them."""

    data: Path | None
    split: str | None
    label_map: Path | None
    recordings: Path | None
    weigh: Path | None
    boxes: Path | None
    cache: Path | None
    out: Path
    frames_leak_patients: bool
    checkpoint_every: float
    weights: Path | None
    teachers: tuple[Path, ...]
    calibrate_on: Path | None
    fp32_weights: Path | None


@click.command(
    context_settings=HELP_OPTIONS,
    cls=GroupedCommand,
    groups=_GROUPS,
    epilog="\b\nExamples:\n"
    "  capsule-edge train --data capsule-vision --weights backbone.h5 --out runs/first\n"
    "  capsule-edge train --data frames --out runs/lite --architecture efficientnet_lite0 \\\n"
    "      --set focal=2 --set patience=3\n"
    "  capsule-edge train --data frames --recordings recordings --out runs/second",
)
@click.option(
    "--data",
    type=_PATH,
    help="Data set: a folder with labels.csv, or with a folder for each class. Required without --recordings.",
)
@click.option(
    "--split",
    help="Split of --data to train on; 'all' takes every row.  [default: train, or all if the data set has no splits]",
)
@labels_option
@click.option(
    "--recordings",
    type=_PATH,
    metavar="DIR",
    help="Folder of labelled recordings (exam.mp4 and exam.truth.csv) to train on too, or alone. If its index.csv "
    "names splits, only those of train are drawn.",
)
@click.option(
    "--weigh",
    type=_PATH,
    metavar="FILE",
    help="Table of normal stretches on which a model raised events. They are drawn --set hard_weight=N times as often.",
)
@click.option(
    "--boxes",
    type=_PATH,
    help="Kvasir-Capsule's metadata.csv. Only transplants need it: they move lesions between frames by boxes.",
)
@click.option("--cache", type=_PATH, help="Folder to keep preprocessed frames in. Other runs can use it too.")
@click.option("--out", type=_PATH, required=True, help="RUN folder. A run that was stopped there goes on.")
@click.option("--name", help=f"Name of the model.  {_NOT_STATED}")
@click.option("--model-version", "version", help=f"Version of the model.  {_NOT_STATED}")
@click.option("--license", help=f"Licence of the model, which its owner chooses, such as MIT.  {_NOT_STATED}")
@click.option("--data-license", help=f"Licence of the training data.  {_NOT_STATED}")
@click.option(
    "--intended-use",
    help="What the model may be used for.  [default: not stated; research only, not a medical device]",
)
@click.option(
    "--frames-leak-patients",
    is_flag=True,
    help="Hold out frame by frame where frames name no video. The figures in the model file then say nothing of "
    "other patients.",
)
@click.option(
    "--checkpoint-every",
    type=click.FloatRange(0),
    default=120.0,
    show_default=True,
    metavar="S",
    help="Seconds between checkpoints within an epoch. The end of an epoch always has one.",
)
@json_option
@click.option(
    "--weights",
    type=_PATH,
    help="Weights of a pretrained backbone: .npz of the same architecture, or .h5 of MobileNetV2 1.0.",
)
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    type=_PATH,
    help="Model to learn from (distillation): an exported file, or weights (.npz). Can be repeated.",
)
@click.option(
    "--calibrate-on",
    type=_PATH,
    help="The out_of_fold.npz that --recipes wrote. Temperature and operating points are fitted on it.",
)
@click.option(
    "--fp32",
    "fp32_weights",
    type=_PATH,
    help="Use these FP32 weights, which --recipes trained, and skip FP32 training.",
)
@click.option(
    "--config",
    "config_file",
    type=_PATH,
    help="JSON or YAML file with fields of TrainConfig, such as a run's config.json. Other options override it.",
)
@click.option(
    "--architecture",
    help="Architecture of the model, such as mobilenet_v2, or module:function for a network of your own.",
)
@click.option(
    "--size",
    type=int,
    help="Width and height of the model's input in pixels, a multiple of 16 (of 32 for rep_cnn).",
)
@click.option("--epochs", type=int, help="Number of epochs of FP32 training.")
@click.option("--batch", type=int, help="Number of frames per training step, summed over all workers.")
@click.option("--learning-rate", type=float, help="Highest learning rate of FP32 training.")
@click.option(
    "--seed",
    type=int,
    help="Seed of new weights and of random draws. The same seed gives the same trained weights.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Set a field of TrainConfig, such as focal=2. Can be repeated.",
)
@click.option(
    "--recipes",
    type=_PATH,
    metavar="FILE",
    help="JSON file of recipes, named configurations that are trained and cross-validated in order. --out is the "
    "folder of their weights, which --fp32 and --calibrate-on take. Needs PyTorch and Keras 3, not TensorFlow.",
)
@click.option(
    "--folds", type=click.IntRange(2), help="With --recipes: number of folds by video.  [default: 5]"
)
@click.option(
    "--fold",
    "only",
    type=int,
    multiple=True,
    metavar="K",
    help="With --recipes: train only this fold, -1 for all of the data. Can be repeated.",
)
@click.option(
    "--pretrained",
    multiple=True,
    metavar="ARCHITECTURE=FILE",
    help="With --recipes: backbone to start an architecture from (.npz). Can be repeated.",
)
def command(config_file: Path | None, assignments: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Train an FP32 model, calibrate it on videos held out of training, then train its INT8 twin (QAT).

    If a run is stopped for any reason, give the same command again: it goes on, and the trained weights are the
    same as without the stop. The RUN folder holds the configuration (config.json) and the learning curves
    (curve.csv, tensorboard).

    Data whose frames name no video is refused without --frames-leak-patients: no patient can be held out of it.

    Exit code 6: the model was trained and is kept in RUN, but it is no better than always answering the most
    frequent class, or it cannot be calibrated. "export" takes it with --accept-weak only.

    The model file carries what its owner states (--name, --model-version, --license, --data-license,
    --intended-use), and "not stated" for the rest. "export" carries it on.

    Several machines can share FP32 training: set TF_CONFIG, and run this command on each of them with the same
    folders.

    What only a GPU does in good time are recipes: teachers, students that learn their answers again and again, each
    on all of the data and by folds, and weights trained for 8 bits. The shipped models were made so.
    """
    recipes = {name: given.pop(name) for name in _OF_RECIPES}
    if recipes["recipes"] is not None:
        _refuse_beside_recipes()
        shared = {name: given[name] for name in _SHARED_WITH_RECIPES}
        _train_recipes(RecipeOptions(**recipes, **shared), as_json)
        return
    if odd := [name for name, value in recipes.items() if value]:
        raise click.UsageError(
            f"--{'fold' if odd[0] == 'only' else odd[0]} is for --recipes, which is not given"
        )
    from capsule_edge.evaluation._extras import TRAINING, require
    from capsule_edge.train.tensorflow_log import import_quietly

    require(*TRAINING, "sklearn", extra="train", what="training")
    import_quietly()
    chosen = {name: given.pop(name) for name in TrainOptions.__dataclass_fields__}
    options = TrainOptions(**chosen)
    statement = {name: given.pop(name) for name in _STATEMENTS}
    config = _configure(config_file, given, assignments)
    skipped, weak = _train(options, config, statement)
    if skipped:
        images = f"{len(skipped)} {'frame' if options.recordings else 'image'}{'s' * (len(skipped) > 1)}"
        click.echo(f"warning: {images} could not be read and left out", err=True)
    for reason in weak:
        click.echo(f"warning: {reason}", err=True)
    if as_json:
        document = {
            "run": str(options.out),
            "skipped": skipped,
            "weak": list(weak),
            "config": config.to_dict(),
        }
        echo_json(document)
    elif weak:
        click.echo(
            f"{options.out} is kept, but its model is weak: see the warning. Train longer or on more data"
        )
    else:
        click.echo(f"{options.out} is ready: capsule-edge export {options.out} --out DIR")
    if weak:
        click.get_current_context().exit(_WEAK)


def _refuse_beside_recipes() -> None:
    """Refuse options that a recipe states itself, or that belong to the RUN folder."""
    context = click.get_current_context()
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        allowed = (*_OF_RECIPES, *_SHARED_WITH_RECIPES, "as_json")
        if source is not None and source.name == "COMMANDLINE" and parameter.name not in allowed:
            raise click.UsageError(
                f"{parameter.opts[0]} is not for --recipes: write settings into the recipes, and statements and "
                "calibration into the command that makes a RUN folder of their weights"
            )


def _train_recipes(options: RecipeOptions, as_json: bool) -> None:
    """Train recipes and print what they reached."""
    with _show_progress() as show:
        found = run_recipes(options, show)
    if as_json:
        echo_json({"out": str(options.out), "recipes": found})
    else:
        print_recipes(found, options.out)


def _configure(file: Path | None, fields: dict[str, Any], assignments: tuple[str, ...]) -> TrainConfig:
    """Return the configuration: the file's fields, overridden by the options given, overridden by ``--set``."""
    from capsule_edge.train.config import TrainConfig

    config = TrainConfig.read(file) if file else TrainConfig()
    given = {field: value for field, value in fields.items() if value is not None}
    return TrainConfig.of(config.to_dict() | given).override(assignments)


def _train(
    options: TrainOptions, config: TrainConfig, statement: dict[str, str | None]
) -> tuple[list[str], tuple[str, ...]]:
    """Run the training. Return the images that could not be read, and the reasons not to export the model."""
    from capsule_edge.evaluation.datasets import check_roles

    dataset, recordings = _load(options)
    check_roles(dataset.classes, dataset.stated_roles)
    warn_of_remarks(dataset.remarks)
    # This import loads TensorFlow: ask first.
    from capsule_edge.train.run import train_run
    from capsule_edge.train.run_inputs import OwnerStatement

    skipped: list[str] = []
    with _show_progress() as show:

        def note(line: dict[str, Any]) -> None:
            if "skipped" in line and "frames" not in line:
                skipped.append(line["skipped"])
            show(line)

        weak = train_run(
            dataset,
            options.out,
            config,
            statement=OwnerStatement(**{name: text for name, text in statement.items() if text is not None}),
            backbone=options.weights,
            teachers=options.teachers,
            calibrate_on=options.calibrate_on,
            fp32_weights=options.fp32_weights,
            cache=options.cache,
            boxes=options.boxes,
            leak_patients=options.frames_leak_patients,
            recordings=recordings,
            weigh=options.weigh,
            checkpoint_every_s=options.checkpoint_every,
            note=note,
        )
    return skipped, weak


def _load(options: TrainOptions) -> tuple[Dataset, LabelledRecordings | None]:
    """Return the images, none of them without ``--data``, and the labelled recordings."""
    from capsule_edge.evaluation.datasets import load_training, videos_kept_from, without_videos
    from capsule_edge.evaluation.recordings import load_recordings
    from capsule_edge.runtime.errors import UsageError

    labels = options.label_map
    recordings = load_recordings(options.recordings, label_map=labels) if options.recordings else None
    if options.data is not None:
        dataset = load_training(options.data, split=options.split, label_map=labels)
        if recordings is not None:
            kept = videos_kept_from(options.data, dataset.split, label_map=labels)
            left_out = len(kept.intersection(recordings.videos))
            recordings = recordings.without(kept)
            if left_out:
                click.echo(
                    f"warning: {left_out} videos of --recordings are of another split of --data", err=True
                )
            drawn = without_videos(dataset, recordings.kept_videos)
            if fewer := len(dataset.samples) - len(drawn.samples):
                click.echo(
                    f"warning: {fewer} frames of --data are left out, since --recordings keeps their videos for "
                    "another split",
                    err=True,
                )
            dataset = drawn
        return dataset, recordings
    if recordings is None:
        raise UsageError(
            "there is nothing to train on", hint="name frames, recordings or both: --data, --recordings"
        )
    if options.split:
        raise UsageError(
            f"--split is {options.split}, and there is no --data that it could be of",
            hint="the column split of index.csv says which recordings are drawn",
        )
    from capsule_edge.train.data import images_beside

    return images_beside(recordings), recordings


@contextmanager
def _show_progress() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a function that shows a note of the training on stderr.

    On a terminal, steps move a progress bar. Elsewhere some of them are printed as lines, like all other notes.
    """
    if not sys.stderr.isatty():

        def show(line: dict[str, Any]) -> None:
            if line.get("step", 0) % _STEPS_PER_LINE == 0:
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
                    # Steps that an earlier process took must not count for the time left.
                    tasks[part] = bar.add_task(part, total=line["of"], completed=line["step"], loss="-")
                bar.update(tasks[part], completed=line["step"] + 1, loss=line["loss"])
            elif "checkpoint" not in line:
                bar.console.print(_text(line), markup=False, highlight=False)

        yield advance


def _text(line: dict[str, Any]) -> str:
    if "warning" in line:
        return f"warning: {line['warning']}"
    if "held_out" in line:
        line = {_SHOWN_AS.get(name, name): value for name, value in line.items()}
    return "  ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in line.items()
    )
