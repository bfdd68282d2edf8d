"""``capsule-edge adopt``: turn a classifier that was trained elsewhere into verified FP32 and INT8 model files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._options import HELP_OPTIONS, json_option
from ._printing import echo_json, summarise_certificate

if TYPE_CHECKING:
    from capsule_edge.export.adopt import AdoptionReport


@click.command(
    context_settings=HELP_OPTIONS,
    epilog="\b\nExample:\n  capsule-edge adopt resnet.onnx --labels labels.yaml --scaling imagenet "
    "--data frames --out adopted",
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--labels",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Labels of the model's outputs (YAML): a list in their order, or number: label; each has key, name and role.",
)
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    help="Labelled frames of videos that the model was not trained on (a data set folder).",
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder for the files, new or empty."
)
@click.option(
    "--scaling",
    metavar="NAME|NUMBERS",
    help="Scaling of the pixels that the model was trained with: 0..255, 0..1, -1..1, imagenet, caffe, or "
    "MEAN,DEVIATION in levels of 255.  [default: what the file states]",
)
@click.option(
    "--channels",
    type=click.Choice(["rgb", "bgr"]),
    help="Order of the colours.  [default: what the file states; imagenet is rgb, caffe bgr]",
)
@click.option(
    "--size", type=click.IntRange(8, 1024), help="Side of the input in pixels, where the file leaves it open."
)
@click.option(
    "--outputs",
    type=click.Choice(["logits", "probabilities", "sigmoid"]),
    help="Meaning of the outputs.  [default: what the file states]",
)
@click.option(
    "--crop",
    type=click.Choice(["none", "field_of_view"]),
    default="none",
    show_default=True,
    help="Cut frames to the field of view, as in the model's training.",
)
@click.option(
    "--mask",
    type=click.Choice(["none", "ellipse"]),
    default="none",
    show_default=True,
    help="Black out what lies outside the inscribed ellipse, as in the model's training.",
)
@click.option(
    "--split", help="Split of --data on which choices are made.  [default: val if there is one, else all]"
)
@click.option(
    "--certify-split", help="Split on which certificates are measured.  [default: other videos of --split]"
)
@click.option(
    "--data-labels",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Label map (YAML) for the class names of --data, see docs/data.md.",
)
@click.option(
    "--keep-float",
    "keep",
    multiple=True,
    metavar="LAYER|auto|none",
    help="Keep this layer in float32 in the INT8 file; can be repeated.  [default: auto, by the gates of shipping]",
)
@click.option(
    "--finetune",
    is_flag=True,
    help="Fine-tune a Keras model for 8 bits, to answer as in FP32. INT8 takes the result only where it is better.",
)
@click.option(
    "--finetune-data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Frames to fine-tune on: a data set or a folder of pictures; labels are not needed.  [default: the split "
    "train of --data]",
)
@click.option("--epochs", type=int, help="How often fine-tuning shows each frame, 1 to 100.  [default: 3]")
@click.option(
    "--no-tflite",
    is_flag=True,
    help="Leave out the FP32 TFLite file, which every source but ONNX gets where TFLite can compute it.",
)
@click.option("--name", help="Name of the model.  [default: the name of its file]")
@click.option("--version", "model_version", help="Version of the model.")
@click.option("--license", "model_license", help="Licence of the model.  [default: not stated]")
@click.option("--intended-use", help="Intended use of the model, as its owner states it.")
@click.option(
    "--held-out",
    type=click.Choice(["patient", "video", "frame", "unknown"]),
    help="What you kept whole when you held the frames of --data out of the model's training.  [default: not stated]",
)
@click.option(
    "--accept-weak", is_flag=True, help="Adopt a model that is no better than guessing, or not calibrated."
)
@json_option
def command(model: Path, labels: Path, data: Path, out: Path, as_json: bool, **given: Any) -> None:
    """Adopt MODEL, a classifier that was trained elsewhere: write FP32 and INT8 model files with certificates.

    MODEL is an ONNX file (opset 13 or later, float32), a file of Keras (.keras, .h5), the folder of a SavedModel, or a
    float TFLite file. What it does not state about its input is asked for, with the
    accuracy that each usual scaling reaches on the frames. The answers are compared with the source's on real frames;
    if a check fails, nothing is written. A source that is no ONNX file also gets an FP32 TFLite file, if TFLite can
    compute it.

    --finetune takes a .keras or .h5 file whose layers TensorFlow's model optimisation can quantise. The FP32 file
    always keeps the weights of MODEL.
    """
    from capsule_edge.evaluation._extras import require
    from capsule_edge.runtime.errors import UsageError

    if not model.exists():
        raise UsageError(
            f"{model} does not exist", hint="name the file of a classifier, for example model.onnx"
        )
    require("onnx", extra="train", what="adopt")
    require("sklearn", "scipy", extra="eval", what="adopt")
    from capsule_edge.export.adopt import adopt

    report = adopt(model, labels, data, out, _options(given), progress=_log)
    for note in report.notes:
        _log(f"note: {note}")
    if as_json:
        echo_json(report.to_dict())
    else:
        _print(report, out)


def _options(given: dict[str, Any]) -> Any:
    """Return the options of the adoption; what was not given keeps its default."""
    from capsule_edge.export.adopt import AdoptOptions
    from capsule_edge.runtime.errors import UsageError
    from capsule_edge.runtime.inference import HeldOutBy

    keep = given.pop("keep")
    for alone in ("none", "auto"):
        if alone in keep and len(set(keep)) > 1:
            raise UsageError(f"--keep-float {alone} goes with no other layer", hint="leave one of them out")
    names = {"model_version": "version", "model_license": "license"}
    stated = {names.get(name, name): value for name, value in given.items() if value is not None}
    for name in ("name", "version", "license", "intended_use"):
        if name in stated and not stated[name].strip():
            raise UsageError(
                f"the {name.replace('_', ' ')} of the model is an empty text", hint="leave the option out"
            )
    if "held_out" in stated:
        stated["held_out"] = HeldOutBy(stated["held_out"])
    stated["tflite"] = not stated.pop("no_tflite")
    if keep:
        stated["keep_float"] = tuple(layer for layer in keep if layer != "none")
    return AdoptOptions(**stated)


def _log(step: str) -> None:
    click.echo(step, err=True)


def _describe_finetuning(record: dict[str, Any]) -> str:
    """Return the result of fine-tuning in one line: whether it was kept, and the figures with and without it."""

    def figures(candidate: dict[str, Any]) -> str:
        missed = ", ".join(candidate["failing"]) or "none"
        count = len(candidate["kept_float"])
        return f"mean difference of a probability {candidate['mean_abs_dp']:.4f}, limits missed: {missed}" + (
            f", {count} layer{'s' * (count > 1)} in float" if count else ""
        )

    result = "kept" if record["kept"] else "not used, because it is not better"
    epochs, data = record["epochs"], record["data"]["name"]
    return (
        f"fine-tuning ({epochs} epoch{'s' * (epochs > 1)}, {record['frames']:,} frames of {data}): {result};"
        f" with it {figures(record['with'])}; without it {figures(record['without'])}"
    )


def _print(report: AdoptionReport, out: Path) -> None:
    source, chosen, conversion = report.source, report.int8["chosen"], report.conversion
    click.echo(
        f"input: {source['scaling']}, {source['channels']}; outputs: {source['outputs']};"
        f" temperature {report.temperature:.3g}"
    )
    click.echo(
        f"FP32 against the source: largest difference of a probability {conversion['max_abs_dp']:.2g},"
        f" {conversion['agreement']:.2%} equal labels on {conversion['frames']} frames"
    )
    kept = f"{len(chosen['kept_float'])} of {report.layers} layers in float"
    safe = "saturation-safe" if chosen["saturation_safe"] else "not saturation-safe"
    fitted = ", fitted weights" if chosen["fitted"] else ""
    evened = ", evened channels" if chosen["evened"] else ""
    click.echo(f"INT8: ranges by {chosen['method']}, {safe}{fitted}{evened}, {kept}")
    if report.finetuned is not None:
        click.echo(_describe_finetuning(report.finetuned))
    if chosen["failing"]:
        click.echo(f"  limits missed on the frames of the choices: {', '.join(chosen['failing'])}")
    for layer in chosen["kept_float"]:
        click.echo(f"  in float: {layer}")
    if report.not_fused:
        click.echo(f"onnxruntime computes {report.not_fused} quantised convolutions in float all the same")
    if not report.has_maps:
        click.echo("no activation maps: the model does not end in global average pooling and one dense layer")
    if edge := report.tflite["edge"]:
        click.echo(
            f"TFLite FP32 against ONNX FP32: largest difference of a logit {edge['max_dlogit']:.2g} (limit"
            f" {edge['limit']:.2g}), {edge['agreement']:.2%} equal labels on {report.tflite['frames']} frames"
        )
    for name, entry in report.files.items():
        click.echo(f"{entry['bytes']:>12,} bytes  {entry['sha256'][:16]}  {out / name}")
    for certificate in report.certificates:
        click.echo(summarise_certificate(certificate))
