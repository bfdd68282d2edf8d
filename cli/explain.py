"""``capsule-edge explain``: show which parts of an image a model relies on, as a sheet of images and maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capsule_edge.runtime.errors import InputError, UsageError

from ._options import HELP_OPTIONS, json_option
from ._printing import echo_json

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from capsule_edge.evaluation.explain import Tile

    Frames = Iterator[tuple[Path, npt.NDArray[np.uint8]]]
    Rows = list[tuple[str, list[Tile]]]
    Found = list[dict[str, Any]]

# A sheet of 200 rows is 52,000 pixels high.
_MOST_IMAGES = 200


@click.command(
    context_settings=HELP_OPTIONS,
    epilog="\b\nExample:\n  capsule-edge explain model.int8.onnx frame.jpg --out sheet.png",
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("explained.png"), show_default=True,
    help="The sheet to write (PNG).",
)  # fmt: skip
@click.option(
    "--top",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Number of most probable labels to show for each image.",
)
@click.option("--label", "labels", multiple=True, help="Show the map of this label instead; can be repeated.")
@click.option(
    "--layers",
    is_flag=True,
    help="For a RUN folder: show feature maps and Grad-CAM of each stage of the network.",
)
@click.option(
    "--layer", "names", multiple=True, help="For a RUN folder: show this layer instead; can be repeated."
)
@click.option("--backend", default="onnxruntime", show_default=True, help="Inference engine of a model file.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    model: Path,
    images: tuple[Path, ...],
    out: Path,
    top: int,
    labels: tuple[str, ...],
    layers: bool,
    names: tuple[str, ...],
    backend: str,
    as_json: bool,
) -> None:
    """Draw each IMAGE beside its most probable labels, with a map of the evidence for each label.

    MODEL is a model file, the name of an installed model (standard or small), or a RUN folder that "train" wrote.
    The class-activation maps of a model file need no training framework. For a RUN folder the sheet shows Grad-CAM
    of the last layer and its most active channels, for the most probable label or those of --label.

    Each map has a scale of its own: red marks where most of the evidence for its label lies, however weak that
    evidence is. An image that cannot be read is named and left out.
    """
    from capsule_edge.evaluation.explain import sheet, write_png

    _check_options(context, model, images, of_layers=layers or bool(names))
    skipped: list[str] = []
    frames = _read_frames(images, skipped)
    if model.is_dir():
        rows, found = _explain_run(model, frames, labels, names, every_stage=layers)
    else:
        rows, found = _explain_file(model, backend, frames, labels, top)
    if not rows:
        raise InputError(f"none of the {len(images)} images can be read, first: {skipped[0]}")
    write_png(sheet(rows), out)
    for line in skipped:
        click.echo(f"warning: {line}; it is left out", err=True)
    if as_json:
        document = {"model": str(model), "sheet": str(out), "images": found, "skipped": skipped}
        echo_json(document)
        return
    for entry in found:
        answers = ", ".join(f"{one['label']} {one['probability']:.3f}" for one in entry["labels"])
        click.echo(f"{entry['file']}: {answers}")
    click.echo(f"wrote {out}")


def _check_options(context: click.Context, model: Path, images: Sequence[Path], *, of_layers: bool) -> None:
    """Raise ``UsageError`` for too many images, and for options that do not go with a file or a RUN folder."""
    if len(images) > _MOST_IMAGES:
        raise UsageError(f"{len(images)} images were given, allowed are {_MOST_IMAGES} on one sheet")
    if not model.is_dir():
        if of_layers:
            raise UsageError(
                f"{model} is no RUN folder, and --layers and --layer are for RUN folders",
                hint="leave them out for a model file",
            )
        return
    given = [
        f"--{name}"
        for name in ("backend", "top")
        if context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        raise UsageError(
            f"{model} is a folder, {' and '.join(given)} is for model files",
            hint="a RUN folder is explained in Keras, for the most probable label or those of --label",
        )


def _read_frames(images: Sequence[Path], skipped: list[str]) -> Frames:
    """Yield each image as uint8 RGB; the reason why one cannot be read is added to ``skipped``."""
    from capsule_edge.evaluation.datasets import read_frame

    for path in images:
        try:
            yield path, read_frame(path)
        except InputError as error:
            skipped.append(error.message)


def _explain_file(
    model: Path, backend: str, frames: Frames, labels: Sequence[str], top: int
) -> tuple[Rows, Found]:
    """Return a row of class-activation maps for each frame, and the answers for the JSON document."""
    from capsule_edge.evaluation.explain import Tile, chosen_labels, explain, overlay
    from capsule_edge.runtime.inference import open_model

    opened = open_model(model, backend=backend)
    chosen_labels(opened.spec, labels)
    rows, found = [], []
    for path, frame in frames:
        result = explain(opened, frame, top=top, labels=labels)
        tiles = [Tile(result.picture, "as the model sees it")]
        tiles += [
            Tile(overlay(result.picture, one.map), f"{one.key} {one.probability:.3f}")
            for one in result.labels
        ]
        rows.append((path.name, tiles))
        found.append({"file": str(path), "labels": [one.to_dict() for one in result.labels]})
    opened.close()
    return rows, found


def _explain_run(
    run: Path, frames: Frames, labels: Sequence[str], names: Sequence[str], *, every_stage: bool
) -> tuple[Rows, Found]:
    """Return a row of Grad-CAM maps and channels for each frame and layer, and the answers for the JSON document."""
    from capsule_edge.evaluation._extras import TRAINING, require

    require(*TRAINING, extra="train", what="--layers")
    from capsule_edge.evaluation.explain import Tile, channel_grid, chosen_labels, overlay
    from capsule_edge.export.run_folder import load_fp32
    from capsule_edge.runtime.preprocessing import preprocess
    from capsule_edge.train.grad_cam import feature_maps, grad_cam, probabilities, stage_layers

    keras, spec = load_fp32(run)
    chosen = chosen_labels(spec, labels)
    layers = tuple(names) or stage_layers(keras)[0 if every_stage else -1 :]
    rows, found = [], []
    for path, frame in frames:
        pixels = preprocess(frame, spec.input)[None]
        p = probabilities(keras, pixels, temperature=spec.temperature)[0]
        columns = [spec.keys.index(key) for key in chosen] or [int(p.argmax())]
        features = feature_maps(keras, pixels, layers)
        for name in layers:
            tiles = [Tile(pixels[0], f"{features[name].shape[1]} x {features[name].shape[2]}")]
            for column in columns:
                activation = grad_cam(keras, pixels, name, labels=[column])[0]
                tiles.append(Tile(overlay(pixels[0], activation), f"{spec.keys[column]} {p[column]:.3f}"))
            tiles.append(Tile(channel_grid(features[name][0]), f"{features[name].shape[3]} channels"))
            rows.append((f"{path.name}: {name}", tiles))
        answers = [{"label": spec.keys[c], "probability": round(float(p[c]), 6)} for c in columns]
        found.append({"file": str(path), "labels": answers, "layers": list(layers)})
    return rows, found
