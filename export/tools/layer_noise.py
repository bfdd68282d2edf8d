"""Measure how much quantisation noise each layer adds: the ratio of signal to noise in decibels.

    python -m capsule_edge.export.tools.layer_noise RUN [--out DIR] [--keep-float LAYER] [--double LAYER]

Two figures for each layer:

- ``own_db``: the noise of this layer alone. Its input is FP32's values, rounded to the input's scale, and its output is
  compared with FP32's.
- ``total_db``: the noise of its output in the whole INT8 model, with the noise of all layers before it.

Look first at the layer with the lowest ``own_db``; 6 dB are one bit. The program prints the table for the RUN folder's
own frames, the worst layer first, and ends in one line of JSON. ``--out`` also writes the table as CSV, a plot (SVG)
and the INT8 ONNX file of exactly these integers. ``--double`` doubles the weight scales of a layer, to test that the
table lists it first and that ``compare`` fails the file.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
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

from ..contract import FrameArray, scale_pixels
from ..int8 import (
    IntegerModel,
    IntegerNode,
    Integers,
    IntegerTensor,
    build_int8_onnx,
    compute,
    compute_node,
    read_integers,
)
from ..run_folder import TrainedRun, load_run

__all__ = ["LayerNoise", "double_scales", "measure_layers", "plot_layers"]

# Frames of the RUN to measure on. Even one frame has some 1e4 values of most layers.
_FRAMES = 16


@dataclass(frozen=True)
class LayerNoise:
    """The ratio of signal to noise of one layer's output, in dB; infinite where nothing is lost.

    Attributes:
        layer: The layer's name.
        kind: Its operation (``IntegerNode.kind``).
        own_db: With the noise of this layer alone.
        total_db: With the noise of this layer and all before it.
    """

    layer: str
    kind: str
    own_db: float
    total_db: float


def measure_layers(
    model: IntegerModel, qat_model: Any, fp32_model: Any, frames: FrameArray
) -> list[LayerNoise]:
    """Measure the noise of every layer.

    If QAT has changed the weights, that change counts as noise too.

    Args:
        model: The integers read from ``qat_model``.
        qat_model: The Keras QAT model.
        fp32_model: The Keras FP32 model that ``qat_model`` was made from.
        frames: uint8 RGB (N, size, size, 3).

    Returns:
        The layers, the one with the lowest ``own_db`` first.
    """
    expected = _fp32_outputs(model, qat_model, fp32_model, frames)
    whole = compute(model, frames)
    # The input of each layer: FP32's values rounded to the scale of the input.
    given: dict[str, Integers] = {model.pixels.name: whole[model.pixels.name]}
    noises = []
    for node in model.nodes:
        name = node.output.name
        own = compute_node(node, [given[tensor.name] for tensor in node.inputs])
        if name not in expected:
            given[name] = own
            continue
        own_db, total_db = (
            _decibels(expected[name], _dequantize(values, node.output)) for values in (own, whole[name])
        )
        noises.append(LayerNoise(node.name, node.kind, own_db, total_db))
        given[name] = _quantize(expected[name], node.output)
    return sorted(noises, key=lambda noise: noise.own_db)


def _fp32_outputs(
    model: IntegerModel, qat_model: Any, fp32_model: Any, frames: FrameArray
) -> dict[str, npt.NDArray[Any]]:
    """Return FP32's value of every quantised output, float32 (N, h, w, channels), by the output's name."""
    sources = {point.layer: point.source for point in observed_ranges(qat_model)}
    nodes: list[IntegerNode] = [node for node in model.nodes if node.output.name in sources]
    outputs = [fp32_model.get_layer(sources[node.output.name]).output for node in nodes]
    values = tf_keras.Model(fp32_model.inputs, outputs)(scale_pixels(frames), training=False)
    return {
        node.output.name: np.asarray(value).reshape(len(frames), *node.output.shape)
        for node, value in zip(nodes, values, strict=True)
    }


def _quantize(values: npt.NDArray[Any], tensor: IntegerTensor) -> npt.NDArray[Any]:
    if tensor.unrounded:
        return values
    steps = np.rint(values / tensor.scale) + tensor.zero_point
    return np.asarray(np.clip(steps, -128, 127), np.int8)


def _dequantize(values: Integers, tensor: IntegerTensor) -> npt.NDArray[np.float64]:
    if tensor.unrounded:
        return values.astype(np.float64)
    return (values.astype(np.float64) - tensor.zero_point) * float(tensor.scale)


def _decibels(signal: npt.NDArray[np.float32], found: npt.NDArray[np.float64]) -> float:
    noise = float(np.mean((found - signal) ** 2))
    power = float(np.mean(signal.astype(np.float64) ** 2))
    return float("inf") if noise == 0 else 10 * float(np.log10(max(power, 1e-30) / noise))


def double_scales(model: IntegerModel, layer: str) -> IntegerModel:
    """Return the model with the weight scales of a layer doubled, as a faulty converter could write it.

    Raises:
        UsageError: There is no such layer, or it has no integer weights.
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
    """Plot both figures of each layer as SVG.

    Args:
        noises: The layers' noise.
        order: The layers' names from input to output. Names without noise are left out.
        path: The file to write.
    """
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


def _write(folder: Path, run: TrainedRun, model: IntegerModel, noises: Sequence[LayerNoise]) -> None:
    """Write the table, the plot and the INT8 ONNX file."""
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


def _json_line(noise: LayerNoise) -> Mapping[str, Any]:
    """Return a layer's noise for JSON, which has no infinity: a layer that loses nothing has null."""
    return {
        name: None if isinstance(value, float) and not np.isfinite(value) else value
        for name, value in dataclasses.asdict(noise).items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder that training wrote")
    parser.add_argument("--out", type=Path, help="folder for the table, the plot and the INT8 ONNX file")
    parser.add_argument(
        "--keep-float",
        action="append",
        default=[],
        metavar="LAYER",
        help="keep this layer in float; repeatable",
    )
    parser.add_argument("--double", metavar="LAYER", help="double the weight scales of this layer")
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
    lines = [_json_line(noise) for noise in noises]
    print(json.dumps({"frames": run.frames_are, "layers": lines}, allow_nan=False))


if __name__ == "__main__":
    run_module(main)
