"""``capsule-edge evaluate``: measure a model file on labelled frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ._evaluation import data_folder, evaluation_options, progress, warn_left_out, warn_of_overlap
from ._options import HELP_OPTIONS, json_option
from ._printing import console, echo_json, interval_cell, number, table

_OVERALL = ("accuracy", "macro_f1", "balanced_accuracy", "mean_auc", "mean_pr_auc", "mcc")
_PER_CLASS = ("precision", "recall", "specificity", "f1", "auc", "pr_auc")
_PER_SOURCE = ("frames", "accuracy", "majority_accuracy", "macro_f1", "balanced_accuracy", "mean_auc", "mcc")


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """The options of ``evaluate``, as click parsed them."""

    data: Path | None
    split: str | None
    label_map: Path | None
    backend: str
    threads: int
    save_predictions: Path | None
    out: Path | None
    overwrite: bool
    resamples: int
    seed: int


@click.command(
    context_settings=HELP_OPTIONS,
    epilog="\b\nExamples:\n  capsule-edge evaluate standard --data frames\n"
    "  capsule-edge evaluate model.int8.onnx --data frames --save-predictions p.csv",
)
@click.argument("model", type=click.Path(path_type=Path))
@evaluation_options
@click.option("--backend", default="onnxruntime", show_default=True, help="Inference engine.")
@click.option(
    "--save-predictions",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the probabilities of each frame to this CSV file.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for a report (JSON, HTML and PNG).")
@click.option("--overwrite", is_flag=True, help="Replace an earlier report in --out.")
@json_option
def command(model: Path, as_json: bool, **given: Any) -> None:
    """Measure MODEL on labelled frames, with 95 % intervals from a bootstrap over videos.

    MODEL is a model file, or the name of an installed model: standard or small.

    Prints accuracy, precision, recall, F1, AUC and the Matthews correlation coefficient (mcc): over all
    classes, for each class, and for normal against abnormal. Beside them stand the figures of always
    answering the most frequent class ("majority class"). A frame that cannot be read is named and left out.
    """
    from capsule_edge.evaluation._extras import require

    require("sklearn")
    document = _measure(model, EvaluateOptions(**given))
    if as_json:
        echo_json(document)
    else:
        _print(document)


def _measure(model: Path, options: EvaluateOptions) -> dict[str, Any]:
    """Run the model on the data, write the files that were asked for, and return the report's document."""
    from capsule_edge.evaluation._files import check_free
    from capsule_edge.evaluation.classification import SIGN, evaluate, write_report
    from capsule_edge.evaluation.classification import predictions as tables
    from capsule_edge.evaluation.datasets import describe, load_dataset, training_overlap
    from capsule_edge.evaluation.parity import describe_model
    from capsule_edge.runtime.inference import open_model

    if options.out is not None:
        check_free(options.out, SIGN, overwrite=options.overwrite)
    opened = open_model(model, backend=options.backend, threads=options.threads)
    dataset = load_dataset(data_folder(options.data), split=options.split, label_map=options.label_map)
    with progress("evaluating", len(dataset.samples)) as advance:
        predictions = tables.predict(opened, dataset, advance=advance)
    warn_left_out(dataset, predictions.skipped)
    _warn_of_leak(dataset.root, dataset.split, options.label_map)
    if options.save_predictions is not None:
        tables.save_predictions(predictions, options.save_predictions)
    findings = [label.key for label in opened.spec.labels if label.role == "finding"]
    figures = evaluate(predictions, findings=findings, resamples=options.resamples, seed=options.seed)
    overlap = training_overlap([opened.spec], predictions.video_ids)
    document = {
        "model": describe_model(opened),
        "data": describe(dataset),
        **figures,
        "training_overlap": overlap,
    }
    warn_of_overlap(overlap, len(predictions))
    if options.out is not None:
        for path in write_report(document, options.out, overwrite=options.overwrite):
            click.echo(f"wrote {path}", err=True)
    return document


def _warn_of_leak(root: Path, split: str | None, label_map: Path | None) -> None:
    """Warn if videos of the split are in another split too."""
    from capsule_edge.evaluation.audit import shared_videos
    from capsule_edge.evaluation.datasets import list_samples

    if split is None:
        return
    if shared := shared_videos(list_samples(root, label_map=label_map).samples, split):
        frames = sum(count[split] for count in shared.values())
        click.echo(
            f"warning: {len(shared)} videos of {split} ({frames:,} frames) are in another split too: a model that was "
            "trained there has seen them; see 'capsule-edge audit'",
            err=True,
        )


def _print(document: Mapping[str, Any]) -> None:
    from capsule_edge.evaluation.datasets import describe_frames

    show = console().print
    model, data = document["model"], document["data"]
    show(
        f"{model['name']} {model['version']} ({model['precision']}) on {data['name']}, "
        f"split {data['split'] or 'all'}: {describe_frames(document['frames'], document['videos'])}"
    )
    intervals = document["confidence_intervals"] or {}
    show(_overall_table(document, intervals))
    show(_class_table(document, intervals))
    if len(document["per_source"]) > 1:
        show(_source_table(document))
    _print_remarks(document, intervals)


def _overall_table(document: Mapping[str, Any], intervals: Mapping[str, Any]) -> Any:
    majority = document["majority_baseline"]
    rows = table("", "value", "95 % interval", "majority class")
    for name in _OVERALL:
        span = interval_cell(intervals.get(name))
        rows.add_row(name, number(document[name]), span, number(majority[name]))
    rows.add_row("ece (calibration error)", number(document["ece"]), "-", "-")
    binary, constant = document["normal_vs_abnormal"], majority["normal_vs_abnormal"]
    span = interval_cell(intervals.get("normal_vs_abnormal_auc"))
    rows.add_row("abnormal: auc", number(binary["auc"]), span, number(constant["auc"]))
    for specificity, sensitivity in binary["sensitivity_at_specificity"].items():
        span = interval_cell(intervals.get("sensitivity_at_specificity", {}).get(specificity))
        baseline = number(constant["sensitivity_at_specificity"][specificity])
        rows.add_row(f"abnormal: sens. at spec. {specificity}", number(sensitivity), span, baseline)
    return rows


def _class_table(document: Mapping[str, Any], intervals: Mapping[str, Any]) -> Any:
    heads = ("class", "frames", "videos", "prec.", "recall", "spec.", "f1", "auc", "pr auc", "recall, 95 %")
    rows = table(*heads)
    for key, entry in document["per_class"].items():
        recall = intervals.get("per_class", {}).get(key, {}).get("recall")
        cells = [number(entry[name]) for name in ("support", "videos", *_PER_CLASS)]
        rows.add_row(key, *cells, interval_cell(recall))
    return rows


def _source_table(document: Mapping[str, Any]) -> Any:
    rows = table("source", *(name.replace("majority_accuracy", "majority class") for name in _PER_SOURCE))
    for source, entry in document["per_source"].items():
        rows.add_row(source, *(number(entry[name]) for name in _PER_SOURCE))
    return rows


def _print_remarks(document: Mapping[str, Any], intervals: Mapping[str, Any]) -> None:
    """Print what limits the figures: absent classes, missing intervals, frames left out, videos trained on."""
    from capsule_edge.evaluation.datasets import describe_overlap

    show = console().print
    absent = [key for key in document["labels"] if key not in document["averaged_over"]]
    if absent:
        show(f"no frame of {', '.join(absent)}: averages are over the other classes")
    if intervals.get("reason"):
        show(f"no intervals: {intervals['reason']}")
    if document["skipped"]:
        show(f"{len(document['skipped'])} frames could not be read and are left out")
    show(describe_overlap(document["training_overlap"], document["frames"]))
