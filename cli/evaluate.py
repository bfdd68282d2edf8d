"""``capsule-edge evaluate``: what a model file is worth on labelled frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ._evaluation import data_folder, evaluation_options, progress, warn_left_out, warn_of_overlap
from ._options import json_option
from ._printing import console, echo_json, interval_cell, number, table


@click.command(
    epilog="\b\nExample:\n  capsule-edge evaluate model.int8.onnx --data frames --save-predictions p.csv"
)
@click.argument("model", type=click.Path(path_type=Path))
@evaluation_options
@click.option("--backend", default="onnxruntime", show_default=True, help="Inference engine.")
@click.option("--save-predictions", type=click.Path(path_type=Path), help="Write the probabilities as CSV.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the report there (JSON, HTML, PNG).")
@click.option("--overwrite", is_flag=True, help="Replace the report that --out holds.")
@json_option
def command(
    model: Path,
    data: Path | None,
    split: str | None,
    backend: str,
    threads: int,
    save_predictions: Path | None,
    out: Path | None,
    overwrite: bool,
    resamples: int,
    seed: int,
    as_json: bool,
) -> None:
    """Measure MODEL on labelled frames, with 95 % intervals from a bootstrap over videos.

    Prints accuracy, precision, recall, F1, AUC and the Matthews correlation beside the majority baseline,
    each class, and normal against abnormal. A frame that cannot be read is named and left out.
    """
    from capsule_edge.evaluation._extras import require

    require("sklearn")
    from capsule_edge.evaluation._files import check_free
    from capsule_edge.evaluation.classification import SIGN, evaluate, write_report
    from capsule_edge.evaluation.classification import predictions as tables
    from capsule_edge.evaluation.datasets import describe, load_dataset, training_overlap
    from capsule_edge.evaluation.parity import describe_model
    from capsule_edge.runtime.inference import open_model

    if out is not None:
        check_free(out, SIGN, overwrite=overwrite)
    opened = open_model(model, backend=backend, threads=threads)
    dataset = load_dataset(data_folder(data), split=split)
    with progress("evaluating", len(dataset.samples)) as advance:
        predictions = tables.predict(opened, dataset, advance=advance)
    warn_left_out(dataset, predictions.skipped)
    _warn_of_leak(dataset.root, dataset.split)
    if save_predictions is not None:
        tables.save_predictions(predictions, save_predictions)
    findings = [label.key for label in opened.spec.labels if label.role == "finding"]
    document = {
        "model": describe_model(opened),
        "data": describe(dataset),
        **evaluate(predictions, findings=findings, resamples=resamples, seed=seed),
        "training_overlap": training_overlap([opened.spec], predictions.video_ids),
    }
    warn_of_overlap(document["training_overlap"], len(predictions))
    if out is not None:
        for path in write_report(document, out, overwrite=overwrite):
            click.echo(f"wrote {path}", err=True)
    if as_json:
        echo_json(document)
    else:
        _print(document)


def _warn_of_leak(root: Path, split: str | None) -> None:
    from capsule_edge.evaluation.audit import shared_videos
    from capsule_edge.evaluation.datasets import list_samples

    if split is not None and (shared := shared_videos(list_samples(root).samples, split)):
        frames = sum(count[split] for count in shared.values())
        click.echo(
            f"warning: {len(shared)} videos of {split} ({frames:,} frames) are in another split too: a model that was "
            "trained there has seen them; see 'capsule-edge audit'",
            err=True,
        )


def _print(document: dict[str, Any]) -> None:
    from capsule_edge.evaluation.datasets import describe_overlap

    screen = console()
    model, data = document["model"], document["data"]
    screen.print(
        f"{model['name']} {model['version']} ({model['precision']}) on {data['name']}, "
        f"split {data['split'] or 'all'}: {document['frames']:,} frames of {document['videos']} videos"
    )
    intervals = document["confidence_intervals"] or {}
    majority = document["majority_baseline"]
    overall = table("", "value", "95 % interval", "majority")
    for name in ("accuracy", "macro_f1", "balanced_accuracy", "mean_auc", "mean_pr_auc", "mcc"):
        span = interval_cell(intervals.get(name))
        overall.add_row(name, number(document[name]), span, number(majority[name]))
    overall.add_row("ece", number(document["ece"]), "-", "-")
    binary, constant = document["normal_vs_abnormal"], majority["normal_vs_abnormal"]
    span = interval_cell(intervals.get("normal_vs_abnormal_auc"))
    overall.add_row("abnormal: auc", number(binary["auc"]), span, number(constant["auc"]))
    for specificity, sensitivity in binary["sensitivity_at_specificity"].items():
        span = interval_cell(intervals.get("sensitivity_at_specificity", {}).get(specificity))
        without = number(constant["sensitivity_at_specificity"][specificity])
        what = f"abnormal: sens. at spec. {specificity}"
        overall.add_row(what, number(sensitivity), span, without)
    screen.print(overall)
    names = ("precision", "recall", "specificity", "f1", "auc", "pr_auc")
    classes = table(
        "class", "frames", "videos", "prec.", "recall", "spec.", "f1", "auc", "pr auc", "recall, 95 %"
    )
    for key, entry in document["per_class"].items():
        of_recall = intervals.get("per_class", {}).get(key, {}).get("recall")
        cells = [number(entry[name]) for name in ("support", "videos", *names)]
        classes.add_row(key, *cells, interval_cell(of_recall))
    screen.print(classes)
    if len(document["per_source"]) > 1:
        columns = (
            "frames",
            "accuracy",
            "majority_accuracy",
            "macro_f1",
            "balanced_accuracy",
            "mean_auc",
            "mcc",
        )
        sources = table("source", *(column.replace("majority_accuracy", "majority") for column in columns))
        for source, entry in document["per_source"].items():
            sources.add_row(source, *(number(entry[name]) for name in columns))
        screen.print(sources)
    absent = [key for key in document["labels"] if key not in document["averaged_over"]]
    if absent:
        screen.print(f"no frame of {', '.join(absent)}: averages are over the other classes", highlight=False)
    if intervals.get("reason"):
        screen.print(f"no intervals: {intervals['reason']}")
    if document["skipped"]:
        screen.print(f"{len(document['skipped'])} frames could not be read and are left out", highlight=False)
    screen.print(describe_overlap(document["training_overlap"], document["frames"]))
