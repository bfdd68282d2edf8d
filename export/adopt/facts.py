"""Facts that a source file states about itself, and a way to run it in its own framework."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from .network_layers import NetworkLayer

__all__ = ["LEAST_SIDE", "MOST_SIDE", "Channels", "Floats", "Layout", "OutputKind", "SourceFacts"]

Floats = npt.NDArray[np.float32]
Channels = Literal["rgb", "bgr"]
Layout = Literal["nhwc", "nchw"]
OutputKind = Literal["logits", "probabilities", "sigmoid"]

LEAST_SIDE, MOST_SIDE = 8, 1024
"""The sides of an input that can be adopted, in pixels."""


@dataclass(frozen=True)
class SourceFacts:
    """The facts that a source file states. None stands for what it does not state.

    Attributes:
        kind: The format of the file: ``onnx``, ``keras``, ``tf_keras``, ``savedmodel`` or ``tflite``.
        scaling: The scaling of the pixels that the model's input expects, as ``--scaling`` writes it.
        channels: The order of the colours that the input expects.
        outputs: The meaning of the outputs.
        layout: The order of the input's axes.
        size: The side of the input in pixels.
        notes: What the reader found and did, one sentence each.
        run: Answers a batch with the source's own framework: float32 in the source's layout, scaled, to float32
            (N, labels). None if there is nothing to compare with.
        layers: Lists the layers of a Keras model (``network_layers.NetworkLayer``); None for other formats.
        tflite: Returns the network as the bytes of a float TFLite file, with its own input and output; None for a
            format that TensorFlow does not convert.
    """

    kind: str
    scaling: str | None = None
    channels: Channels | None = None
    outputs: OutputKind | None = None
    layout: Layout | None = None
    size: int | None = None
    notes: tuple[str, ...] = ()
    run: Callable[[npt.NDArray[Any]], Floats] | None = None
    layers: Callable[[], tuple[NetworkLayer, ...]] | None = None
    tflite: Callable[[], bytes] | None = None
