"""Write model files of untrained networks, to measure how fast an architecture is before training it.

    python -m capsule_edge.export.tools.untrained DIR mobilenet_v2:160 rep_cnn:128 ...

writes ``ARCHITECTURE-SIZE.fp32.onnx`` and ``ARCHITECTURE-SIZE.int8.onnx`` for each network, with the builders that
export a trained RUN. Weights are random, and ranges come from random pictures. The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx
import tf_keras

from capsule_edge.evaluation._module import run_module
from capsule_edge.runtime.errors import OutputError, UsageError
from capsule_edge.runtime.inference import ModelSpec, open_model
from capsule_edge.train.models import architectures

from ..contract import scale_pixels
from ..fp32 import ServingModel, build_fp32_onnx
from ..int8 import build_int8_onnx, quantize_after_training, read_integers
from ..run_folder import synthetic_frames
from ..verify import check_int8_graph

__all__ = ["write_untrained"]


def write_untrained(architecture: str, size: int, folder: Path, *, seed: int = 0) -> dict[str, Any]:
    """Write the FP32 and the INT8 ONNX file of an untrained network with the labels of the standard model.

    The INT8 file is saturation-safe, as shipped files are.

    Args:
        architecture: A name in ``train.models.architectures.ARCHITECTURES``.
        size: Width and height of the input in pixels.
        folder: Where to write; it is made if it does not exist.
        seed: Seed of the random weights and pictures.

    Returns:
        ``architecture``, ``size``, ``parameters`` (their number), and the file names ``fp32`` and ``int8``.

    Raises:
        UsageError: The architecture or the size is not allowed.
        ModelError: The INT8 file does not run in integers.
        OutputError: A file cannot be written.
    """
    spec = _untrained_spec(f"{architecture}-{size}", size)
    pixels = scale_pixels(synthetic_frames(size, count=8, seed=seed))
    model = _random_model(architecture, size, len(spec.labels), pixels, seed)
    integers = read_integers(quantize_after_training(model, [pixels], saturation_safe=True))
    paths = {precision: folder / f"{spec.name}.{precision}.onnx" for precision in ("fp32", "int8")}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        onnx.save(build_fp32_onnx(ServingModel(model, spec), spec), paths["fp32"])
        int8 = dataclasses.replace(spec, precision="int8", saturation_safe=True)
        onnx.save(build_int8_onnx(integers, int8), paths["int8"])
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from None
    check_int8_graph(paths["int8"])
    return {
        "architecture": architecture,
        "size": size,
        "parameters": model.count_params(),
        **{precision: path.name for precision, path in paths.items()},
    }


def _untrained_spec(name: str, size: int) -> ModelSpec:
    """Return the ModelSpec of the standard model, changed to an untrained FP32 model of another size."""
    standard = open_model("standard", threads=1).spec
    return dataclasses.replace(
        standard,
        name=name,
        precision="fp32",
        saturation_safe=None,
        input=dataclasses.replace(standard.input, size=size),
        provenance={"data": "none, random weights"},
        parity=None,
    )


def _random_model(architecture: str, size: int, labels: int, pixels: npt.NDArray[Any], seed: int) -> Any:
    """Build a Keras model with random weights and the batch statistics of ``pixels``."""
    tf_keras.utils.set_random_seed(seed)
    model = architectures.build(architecture, size=size, labels=labels, keras=tf_keras)
    for layer in model.layers:
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            # With this momentum one step sets the statistics, so that activations do not fade with depth.
            layer.momentum = 0.0
    model(pixels, training=True)
    return model


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder to write into")
    parser.add_argument("networks", nargs="+", metavar="ARCHITECTURE:SIZE", help="networks to write")
    options = parser.parse_args(arguments)
    written = []
    for network in options.networks:
        architecture, _, size = network.partition(":")
        if not size.isdecimal():
            raise UsageError(f"{network!r} names no network, allowed is ARCHITECTURE:SIZE")
        print(network, file=sys.stderr, flush=True)
        written.append(write_untrained(architecture, int(size), options.folder))
    print(json.dumps({"networks": written}))


if __name__ == "__main__":
    run_module(main)
