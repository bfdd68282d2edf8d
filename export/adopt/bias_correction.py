"""Correct the biases of a network for the mean error that rounding its weights and inputs makes.

Rounding is not fair to every channel: its errors have a mean, which a bias can take back. Each layer is corrected for
its own error with float inputs, and the logits at last for what is left. Source: Nagel et al., Data-Free Quantization
Through Weight Equalization and Bias Correction, ICCV 2019.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx

from ..contract import FrameArray
from .float_body import LOGITS, PIXELS, FloatBody
from .graph import Graph
from .quantised_nodes import layers_of
from .sessions import open_session, with_outputs
from .twin_layers import add_twin

__all__ = ["bias_errors", "correct_biases", "correct_logits"]

_BATCH = 8


def bias_errors(
    body: FloatBody, quantised: onnx.ModelProto, frames: FrameArray
) -> dict[str, npt.NDArray[np.float64]]:
    """Return the mean error of each channel of each quantised layer that has a bias, by the layer's name.

    Args:
        body: The float network.
        quantised: The same network in 8 bits.
        frames: uint8 RGB (N, size, size, 3).
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(body.proto)
    shown, small = Graph(proto), Graph(quantised)
    twins = {}
    for layer in layers_of(shown):
        twin = add_twin(shown, small, layer)
        if twin is not None and len(layer.input) > 2 and layer.input[2]:
            shown.add("Sub", [twin, layer.output[0]], f"{twin}/error")
            axes = [0, 2, 3] if layer.op_type == "Conv" else [0]
            twins[layer.name] = _mean(shown, f"{twin}/error", axes)
    found = _run(proto, body, list(twins.values()), frames)
    return {name: found[value] for name, value in twins.items()}


def correct_biases(body: FloatBody, errors: Mapping[str, npt.NDArray[np.float64]]) -> FloatBody:
    """Return the float network with the biases that its quantised form should have.

    Args:
        body: The float network.
        errors: The mean errors of the layers to correct (``bias_errors``).
    """
    corrected = onnx.ModelProto()
    corrected.CopyFrom(body.proto)
    graph = Graph(corrected)
    for layer in layers_of(graph):
        if layer.name in errors:
            bias = graph.constant(layer.input[2])
            assert bias is not None  # ``layers_of`` chose the layer
            name = f"corrected/{layer.name}"
            graph.set_constant(name, (bias - errors[layer.name]).astype(np.float32))
            layer.input[2] = name
    graph.drop_unused()
    return dataclasses.replace(body, proto=corrected)


def correct_logits(
    body: FloatBody, quantised: onnx.ModelProto, frames: FrameArray, original: FloatBody
) -> onnx.ModelProto:
    """Return the network in 8 bits with the mean error of each logit taken off.

    Args:
        body: The float network.
        quantised: The same network in 8 bits.
        frames: uint8 RGB (N, size, size, 3).
        original: The network whose logits are wanted: ``body``, or the one that ``body`` was fine-tuned from.
    """
    made = dataclasses.replace(body, proto=quantised)
    error = (made.values(frames) - original.values(frames)).mean(axis=0)
    proto = onnx.ModelProto()
    proto.CopyFrom(quantised)
    graph = Graph(proto)
    node = graph.makers[LOGITS]
    node.output[list(node.output).index(LOGITS)] = node.name = "corrected/raw_logits"
    graph.set_constant("corrected/logits", (-error).astype(np.float32))
    graph.add("Add", ["corrected/raw_logits", "corrected/logits"], LOGITS)
    return proto


def _mean(shown: Graph, value: str, axes: list[int]) -> str:
    """Add the mean over all but the channels, in the form that the version of the operators wants."""
    version = max(entry.version for entry in shown.proto.opset_import if entry.domain in ("", "ai.onnx"))
    if version < 18:
        return shown.add("ReduceMean", [value], f"{value}/mean", axes=axes, keepdims=0)
    shown.set_constant(f"{value}/axes", np.array(axes, np.int64))
    return shown.add("ReduceMean", [value, f"{value}/axes"], f"{value}/mean", keepdims=0)


def _run(
    proto: onnx.ModelProto, body: FloatBody, names: list[str], frames: FrameArray
) -> dict[str, npt.NDArray[np.float64]]:
    """Return the values averaged over the batches."""
    if not names:
        return {}
    # Optimised, onnxruntime would compute the twins in 8 bits, with other roundings.
    session = open_session(with_outputs(proto, *names), optimise="none")
    starts = range(0, len(frames), _BATCH)
    answers = [session.run(names, {PIXELS: body.entry.apply(frames[at : at + _BATCH])}) for at in starts]
    shares = [len(frames[at : at + _BATCH]) / len(frames) for at in starts]
    return {
        name: np.asarray(
            sum(share * batch[at] for share, batch in zip(shares, answers, strict=True)), np.float64
        )
        for at, name in enumerate(names)
    }
