"""A model that its framework has loaded, with what is common to all frameworks: shapes, and writing ONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from capsule_edge.runtime.errors import ModelError, UsageError

from ..facts import LEAST_SIDE, MOST_SIDE, Floats, Layout
from ..network_layers import NetworkLayer
from .converted_file import finish_file

__all__ = ["LoadedModel", "PictureShape", "as_floats", "read_shape"]


@dataclass(frozen=True)
class PictureShape:
    """The input of a classifier.

    Attributes:
        layout: the order of the axes.
        size: width and height in pixels.
    """

    layout: Layout
    size: int

    def sides(self) -> tuple[int, int, int]:
        """Return the shape of one frame."""
        size = self.size
        return (size, size, 3) if self.layout == "nhwc" else (3, size, size)


@dataclass(frozen=True)
class LoadedModel:
    """A loaded model.

    Attributes:
        path: the file or folder.
        shape: its input.
        answer: answers a float32 batch in the model's layout with float32 (N, labels).
        build: converts the model to ONNX.
        facts: what the model says about itself: ``scaling``, ``channels``, ``outputs``, ``notes``.
        owner: an object that has to live as long as this one.
        layers: lists the layers of the model; None for a format that has none.
        tflite: returns the network as the bytes of a float TFLite file, with the model's own input and output.
    """

    path: Path
    shape: PictureShape
    answer: Callable[[Floats], Floats]
    build: Callable[[], onnx.ModelProto]
    facts: dict[str, Any]
    owner: Any = None
    layers: Callable[[], tuple[NetworkLayer, ...]] | None = None
    tflite: Callable[[], bytes] | None = None

    def convert(self, out: Path) -> dict[str, Any]:
        """Write the ONNX file, check it against the model, and return the facts of ``SourceFacts``."""
        proto = finish_file(self.path, self.build(), self.shape.sides(), self.answer)
        onnx.save(proto, out)
        return {**self.facts, "layout": self.shape.layout, "size": self.shape.size}


def read_shape(
    path: Path, inputs: Sequence[tuple[str, Any, str]], outputs: Sequence[tuple[str, Any]], size: int | None
) -> PictureShape:
    """Check the inputs and outputs of a classifier and return its input.

    Args:
        path: the file, for messages.
        inputs: name, shape (None for an open side) and type of each input.
        outputs: name and shape of each output.
        size: width and height in pixels, for an input that leaves them open.

    Raises:
        ModelError: it has not one picture as input, or not one score for each label as output.
        UsageError: ``size`` is needed, or contradicts the file.
    """
    if len(inputs) != 1 or len(outputs) != 1:
        names = ", ".join(repr(entry[0]) for entry in (inputs if len(inputs) != 1 else outputs))
        what, count = ("inputs", len(inputs)) if len(inputs) != 1 else ("outputs", len(outputs))
        raise ModelError(
            f"{path} has {count} {what} ({names}), allowed is one",
            hint="save a model that ends in the scores of the labels: keras.Model(inputs, scores)",
        )
    (name, shape, kind), (output, scores) = inputs[0], outputs[0]
    if kind != "float32":
        raise ModelError(f"{path}: input {name!r} is {kind}, allowed is float32")
    if scores is None or len(scores) != 2 or not scores[1]:
        raise ModelError(
            f"{path}: output {output!r} has the shape {_text(scores)}, allowed is one score for each label"
            " (N, labels), or one for two labels (N, 1)",
            hint="a detector, a segmentation or a headless network is not a classifier",
        )
    return _picture(path, name, shape, size)


def _picture(path: Path, name: str, shape: Any, size: int | None) -> PictureShape:
    layout: Layout | None = None
    if shape is not None and len(shape) == 4:
        layout = "nhwc" if shape[3] == 3 else "nchw" if shape[1] == 3 else None
    if layout is None:
        allowed = "(N, size, size, 3) or (N, 3, size, size)"
        raise ModelError(f"{path}: input {name!r} has the shape {_text(shape)}, allowed is {allowed}")
    height, width = shape[1:3] if layout == "nhwc" else shape[2:4]
    if height is None or width is None:
        if size is None:
            raise UsageError(
                f"{path}: input {name!r} leaves the size open ({_text(shape)})",
                hint="give the size that the model was trained at: --size",
            )
        height = width = size
    if height != width or not LEAST_SIDE <= height <= MOST_SIDE:
        allowed = f"allowed are squares of {LEAST_SIDE} to {MOST_SIDE} pixels"
        raise ModelError(f"{path}: input {name!r} is {width}x{height} pixels, {allowed}")
    if size not in (None, height):
        raise UsageError(f"--size is {size}, but the input of {path} is {height}", hint="leave --size out")
    return PictureShape(layout, int(height))


def _text(shape: Any) -> str:
    if shape is None:
        return "unknown"
    sides = [str(side) if side is not None else "?" if at else "N" for at, side in enumerate(shape)]
    return f"({', '.join(sides)})"


def as_floats(value: Any) -> Floats:
    """Return a tensor of any framework as float32."""
    return np.ascontiguousarray(np.asarray(value), np.float32)
