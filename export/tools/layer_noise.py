"""Which layer hurts: the ratio of signal to quantisation noise of each layer, in decibels.

``own_db`` is what the layer itself loses: it is given FP32's values, rounded to its input's scale, and its
output compared with FP32's. ``total_db`` compares what reaches it in the whole INT8 model, with all that the
layers before it lost. The layer to look at first is the one whose own ratio is lowest; 6 dB are one bit.

    python -m capsule_edge.export.tools.layer_noise RUN [--out DIR] [--keep-float LAYER] [--double LAYER]

prints the table for a RUN folder's own frames, the worst layer first, and ends in one line of JSON; --out adds it as
CSV, a plot (SVG) and the INT8 ONNX file of exactly these integers. --double doubles the weight scales of a layer, to
see that the table names it first and that ``compare`` fails the file.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import tf_keras

from capsule_edge.evaluation._module import run_module
from capsule_edge.evaluation._pages import svg
from capsule_edge.runtime.errors import OutputError, UsageError
from capsule_edge.train.qat import keep_float, observed_ranges

from ..int8 import (
    IntegerModel,
    Integers,
    IntegerTensor,
    build_int8_onnx,
    compute,
    compute_node,
    read_integers,
)
from ..run_folder import Run, load_run
from ..runners import Frames

__all__ = ["LayerNoise", "double_scales", "measure_layers", "plot_layers"]

# Frames of the RUN that are measured on: a single one has 1e4 values of most layers.
_FRAMES = 16


@dataclass(frozen=True)
class LayerNoise:
    """Signal to noise of one layer's output in dB, infinite where nothing is lost."""

    layer: str
    kind: str
    own_db: float
    total_db: float


def measure_layers(model: IntegerModel, qat_model: Any, fp32_model: Any, frames: Frames) -> list[LayerNoise]:
    """Every layer of ``model`` (read from ``qat_model``, made of ``fp32_model``), the one that loses most
    first.

    ``frames`` are uint8 (N, s, s, 3). Where QAT has moved the weights, what they changed counts as noise too.
    """
    sources = {point.layer: point.source for point in observed_ranges(qat_model)}
    nodes = [node for node in model.nodes if node.output.name in sources]
    outputs = [fp32_model.get_layer(sources[node.output.name]).output for node in nodes]
    values = tf_keras.Model(fp32_model.inputs, outputs)(
        (frames.astype(np.float32) - 128) / 128, training=False
    )
    shapes = {node.output.name: (len(frames), *node.output.shape) for node in nodes}
    real = {
        node.output.name: np.asarray(value).reshape(shapes[node.output.name])
        for node, value in zip(nodes, values, strict=True)
    }
    whole = compute(model, frames)
    given: dict[str, Integers] = {model.pixels.name: whole[model.pixels.name]}
    noises = []
    for node in model.nodes:
        own = compute_node(node, [given[tensor.name] for tensor in node.inputs])
        name = node.output.name
        if name not in real:
            given[name] = own
            continue
        noises.append(
            LayerNoise(
                node.name,
                node.kind,
                _decibels(real[name], _real(own, node.output)),
                _decibels(real[name], _real(whole[name], node.output)),
            )
        )
        if node.output.unrounded:
            given[name] = real[name]
            continue
        steps = np.rint(real[name] / node.output.scale) + node.output.zero_point
        given[name] = np.asarray(np.clip(steps, -128, 127), np.int8)
    return sorted(noises, key=lambda noise: noise.own_db)


def _real(values: Integers, tensor: IntegerTensor) -> npt.NDArray[np.float64]:
    if tensor.unrounded:
        return values.astype(np.float64)
    return (values.astype(np.float64) - tensor.zero_point) * float(tensor.scale)


def _decibels(signal: npt.NDArray[np.float32], found: npt.NDArray[np.float64]) -> float:
    noise = float(np.mean((found - signal) ** 2))
    power = float(np.mean(signal.astype(np.float64) ** 2))
    return float("inf") if noise == 0 else 10 * float(np.log10(max(power, 1e-30) / noise))


def double_scales(model: IntegerModel, layer: str) -> IntegerModel:
    """The model with the weight scales of ``layer`` doubled, as a faulty converter would leave it.

    Raises ``UsageError`` for a layer that is not there or has no integer weights.
    """
    names = [node.name for node in model.nodes if node.kernel is not None]
    if layer not in names:
        raise UsageError(f"layer {layer!r} has no scales to double, allowed is one of {', '.join(names)}")
    nodes = []
    for node in model.nodes:
        if node.name == layer and node.kernel is not None:
            kernel = dataclasses.replace(node.kernel, scales=node.kernel.scales * np.float32(2))
            node = dataclasses.replace(node, kernel=kernel)
        nodes.append(node)
    return IntegerModel(model.pixels, tuple(nodes), model.saturation_safe)


def plot_layers(noises: Sequence[LayerNoise], order: Sequence[str], path: Path) -> None:
    """Both ratios of each layer in the model's ``order``, as SVG."""
    from matplotlib.figure import Figure

    found = {noise.layer: noise for noise in noises}
    names = [name for name in order if name in found]
    figure = Figure(figsize=(8, 1.5 + 0.18 * len(names)), layout="constrained")
    axes = figure.subplots()
    rows = range(len(names))
    for label, colour, values in (
        ("alone", "#335c9e", [found[name].own_db for name in names]),
        ("with all before it", "#b3261e", [found[name].total_db for name in names]),
    ):
        axes.plot(np.minimum(values, 100), rows, "o", markersize=4, color=colour, label=label)
    axes.set_yticks(rows, names, fontsize=6)
    axes.invert_yaxis()
    axes.grid(axis="x", linewidth=0.4)
    axes.set_xlabel("signal to quantisation noise, dB (6 dB are one bit)")
    axes.legend()
    path.write_text(svg(figure), encoding="utf-8")


def _write(folder: Path, run: Run, model: IntegerModel, noises: Sequence[LayerNoise]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "layers.csv").open("w", newline="", encoding="utf-8") as stream:
            rows = csv.writer(stream, lineterminator="\n")
            rows.writerow(["layer", "kind", "own_db", "total_db"])
            rows.writerows([n.layer, n.kind, f"{n.own_db:.2f}", f"{n.total_db:.2f}"] for n in noises)
        plot_layers(noises, [node.name for node in model.nodes], folder / "layers.svg")
        spec = dataclasses.replace(run.spec, precision="int8", saturation_safe=model.saturation_safe)
        onnx.save(build_int8_onnx(model, spec), folder / "model.int8.onnx")
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--keep-float", action="append", default=[], metavar="LAYER")
    parser.add_argument("--double", metavar="LAYER")
    options = parser.parse_args(arguments)
    run = load_run(options.run)
    keep_float(run.qat, options.keep_float)
    model = read_integers(run.qat)
    if options.double:
        model = double_scales(model, options.double)
    noises = measure_layers(model, run.qat, run.fp32, run.frames[:_FRAMES])
    print(f"{'layer':32}{'kind':14}{'alone, dB':>10}{'with all before it':>20}")
    for noise in noises:
        print(f"{noise.layer:32}{noise.kind:14}{noise.own_db:10.1f}{noise.total_db:20.1f}")
    if options.out:
        _write(options.out, run, model, noises)
    # A layer that loses nothing has no number in JSON.
    lines = [dataclasses.asdict(noise) for noise in noises]
    for line in lines:
        line.update({name: None for name in ("own_db", "total_db") if not np.isfinite(line[name])})
    print(json.dumps({"frames": run.frames_are, "layers": lines}, allow_nan=False))


if __name__ == "__main__":
    run_module(main)
