"""A shipped network told to take frames of another size, so that sizes can be compared: ``python -m
capsule_edge.benchmarks.resized MODEL SIZE OUT``.

Every network here is convolutions, global average pooling and one dense layer, so the same weights answer frames of any
size. What they answer at a size that they were not trained on is worth less; their speed is that of the network. Ends
in one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from capsule_edge.runtime.backends import open_model
from capsule_edge.runtime.errors import ModelError, OutputError, UsageError
from capsule_edge.runtime.spec import METADATA_KEY

__all__ = ["resize_input"]


def resize_input(model: Path, size: int, out: Path) -> Path:
    """Write the ONNX file ``model`` as ``out``, for frames of ``size`` pixels square.

    Raises ``ModelError`` for what is no such model, ``UsageError`` for a size below 32 or without the package
    ``onnx``, ``OutputError`` for a file that cannot be written.
    """
    if size < 32:
        raise UsageError(f"size is {size}, allowed are numbers from 32")
    if find_spec("onnx") is None:
        raise UsageError("onnx is not installed", hint="pip install 'capsule-edge[train]'")
    import onnx

    if model.suffix != ".onnx":
        raise ModelError(f"{model} is no ONNX file")
    open_model(model, threads=1).close()
    proto = onnx.load(model)
    _declare(proto.graph.input[0], (size, size))
    # What is pooled may have any sides; the runtime asks the file for them, so they must be the right ones.
    for value in proto.graph.output:
        if value.name == "features":
            _declare(value, ("h", "w"))
    del proto.graph.value_info[:]
    for entry in proto.metadata_props:
        if entry.key == METADATA_KEY:
            spec = json.loads(entry.value)
            spec["name"] = f"{spec['name']}-{size}"
            spec["input"]["size"] = size
            entry.value = json.dumps(spec)
    proto = onnx.shape_inference.infer_shapes(proto)
    side = next(v for v in proto.graph.output if v.name == "features").type.tensor_type.shape.dim[1].dim_value
    if side:
        _declare(next(v for v in proto.graph.output if v.name == "features"), (side, side))
    del proto.graph.value_info[:]
    partial = out.with_name(out.name + ".partial")
    try:
        onnx.save(proto, partial)
        os.replace(partial, out)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}") from None
    open_model(out, threads=1).close()
    return out


def _declare(value: Any, sides: tuple[int | str, int | str]) -> None:
    for dimension, side in zip(value.type.tensor_type.shape.dim[1:3], sides, strict=True):
        if isinstance(side, int):
            dimension.dim_value = side
        else:
            dimension.dim_param = side


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m capsule_edge.benchmarks.resized", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("size", type=int)
    parser.add_argument("out", type=Path)
    options = parser.parse_args(arguments)
    resize_input(options.model, options.size, options.out)
    print(json.dumps({"benchmark": "resized", "file": options.out.name, "size": options.size}))


if __name__ == "__main__":
    from capsule_edge.evaluation._module import run_module

    run_module(main)
