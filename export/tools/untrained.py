"""Model files of networks that nobody has trained, to measure what an architecture costs before it is worth anything.

    python -m capsule_edge.export.tools.untrained DIR mobilenet_v2:160 rep_cnn:128 ...

writes ``ARCHITECTURE-SIZE.fp32.onnx`` and ``.int8.onnx`` for each, by the builders that export a trained RUN; weights
are random, ranges are of random pictures. Ends in one line of JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tf_keras

from capsule_edge.evaluation._module import run_module
from capsule_edge.runtime.errors import OutputError, UsageError
from capsule_edge.runtime.inference import open_model
from capsule_edge.train.models import architectures

from ..fp32 import ServingModel, build_fp32_onnx
from ..int8 import build_int8_onnx, quantize_after_training, read_integers
from ..run_folder import synthetic_frames
from ..verify import check_int8_graph

__all__ = ["write_untrained"]


def write_untrained(architecture: str, size: int, folder: Path, *, seed: int = 0) -> dict[str, Any]:
    """Write both files, with the labels of the standard model: ``architecture, size, parameters, fp32, int8``.

    The INT8 file is safe on CPUs without VNNI, as those that ship. Raises ``UsageError`` for what is no architecture
    or size, ``ModelError`` where the INT8 file does not run in integers, ``OutputError``.
    """
    standard = open_model("standard", threads=1).spec
    name = f"{architecture}-{size}"
    spec = dataclasses.replace(
        standard,
        name=name,
        precision="fp32",
        saturation_safe=None,
        input=dataclasses.replace(standard.input, size=size),
        provenance={"data": "none, random weights"},
        parity=None,
    )
    tf_keras.utils.set_random_seed(seed)
    model = architectures.build(architecture, size=size, labels=len(spec.labels), keras=tf_keras)
    frames = synthetic_frames(size, count=8, seed=seed)
    pixels = np.asarray((frames.astype(np.float32) - 128) / 128, np.float32)
    for layer in model.layers:
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            # One step then tells each its own statistics, and no activation dies away with the depth.
            layer.momentum = 0.0
    model(pixels, training=True)
    integers = read_integers(quantize_after_training(model, [pixels], saturation_safe=True))
    paths = {precision: folder / f"{name}.{precision}.onnx" for precision in ("fp32", "int8")}
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


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("networks", nargs="+", metavar="ARCHITECTURE:SIZE")
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
