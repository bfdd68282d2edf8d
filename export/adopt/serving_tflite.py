"""Put the contract around a float TFLite network, as ``serving_graph`` does it for ONNX.

The file of the converter, or of the source, stays as it is between its input and its logits. Operators before it turn
uint8 frames into the pixels that it expects; operators behind it add the outputs of the contract.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from capsule_edge.runtime.errors import ModelError
from capsule_edge.runtime.inference import ModelSpec

from ..tflite_file import pack_tflite, unpack_tflite
from ..tflite_graph import TfliteGraph
from .facts import Layout, OutputKind
from .scaling import Scaling

__all__ = ["build_tflite"]

_Op = schema.BuiltinOperator
_NAMES = {number: name for name, number in vars(_Op).items() if isinstance(number, int)}
# Operators behind the last one that leave the values as they are.
_KEEPING = (_Op.RESHAPE, _Op.SQUEEZE)
# The operator that turns logits into outputs of this kind.
_LAST = {"probabilities": _Op.SOFTMAX, "sigmoid": _Op.LOGISTIC, "logits": _Op.LOG_SOFTMAX}


@dataclass(frozen=True)
class _Pooled:
    """Global average pooling and one dense layer: the map before them, and the weights, float32 (channels, labels)."""

    maps: int
    weights: npt.NDArray[np.float32]


def build_tflite(
    content: bytes, scaling: Scaling, layout: Layout, outputs: OutputKind, spec: ModelSpec
) -> bytes:
    """Build the FP32 TFLite file of an adopted model.

    Args:
        content: The network as a float TFLite file: one picture, scaled, in; one score for each label out.
        scaling: The scaling of its input.
        layout: The order of the axes of its input.
        outputs: The meaning of its output.
        spec: The ModelSpec to write into the file. Its temperature calibrates the probabilities.

    Returns:
        The file's bytes. Signature ``serving_default``: ``frames``, uint8 (N, size, size, 3), to float32
        ``probabilities`` and ``logits`` (N, labels), and ``features`` (N, h, w, labels) if ``spec`` has maps and the
        network ends in pooling and one dense layer. If it does not, the ModelSpec in the file says so.

    Raises:
        ModelError: The network cannot be read, or its logits cannot be found.
    """
    try:
        model = unpack_tflite(content)
        given, answer = int(model.subgraphs[0].inputs[0]), int(model.subgraphs[0].outputs[0])
    except Exception as error:  # flatbuffers raises exceptions without a common base class
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(f"the converted network cannot be read as a TFLite file: {reason}") from None
    # Metadata of the source describe its own input and output.
    for entry in model.metadata or []:
        model.buffers[entry.buffer].data = None
    model.metadata = []
    graph = TfliteGraph(model)
    _free_batch(graph)
    frames = _enter(graph, given, scaling, layout, spec.input.size)
    network_logits = _find_logits(graph, answer, outputs)
    pooled = _find_pooled(graph, network_logits) if spec.has_maps else None
    logits = _add_logits(graph, network_logits, len(spec.labels))
    found = {"probabilities": graph.add_probabilities(logits, len(spec.labels), spec.temperature)}
    found["logits"] = logits
    if pooled is not None:
        weights = pooled.weights
        if weights.shape[1] < len(spec.labels):
            # The logit of the first label is 0, whatever the maps show.
            weights = np.pad(weights, [(0, 0), (1, 0)])
        found["features"] = graph.add_features(pooled.maps, weights)
    made = graph.model({"frames": frames}, found)
    return pack_tflite(made, replace(spec, has_maps=pooled is not None))


def _free_batch(graph: TfliteGraph) -> None:
    """Let reshapes to a constant shape take any batch: files that were converted for one frame have a batch of 1.

    A wrong guess shows when frames are answered alone and in a batch.
    """
    for operator in graph.operators:
        if graph.code(operator) != _Op.RESHAPE:
            continue
        target = graph.values(int(operator.inputs[1])) if len(operator.inputs) > 1 else None
        shape = graph.shape(int(operator.outputs[0]))
        if target is None or target.size < 2 or target.flat[0] != 1 or shape[:1] != (1,):
            continue
        freed = np.array([-1, *shape[1:]], np.int32)
        place = graph.constant(f"target/{operator.outputs[0]}", freed)
        operator.inputs = np.array([operator.inputs[0], place], np.int32)
        if operator.builtinOptions is not None:
            operator.builtinOptions.newShape = freed.tolist()


def _enter(graph: TfliteGraph, given: int, scaling: Scaling, layout: Layout, size: int) -> int:
    """Add the operators from uint8 frames to the input of the network, before all others. Return the frames."""
    first = len(graph.operators)
    frames = graph.activation("frames", (size, size, 3), "uint8")
    steps: list[tuple[int, Any, list[int]]] = [(_Op.CAST, schema.CastOptionsT(), [])]
    if scaling.channels == "bgr":
        axis = graph.constant("entry/colours", np.array([3], np.int32))
        steps.append((_Op.REVERSE_V2, schema.ReverseV2OptionsT(), [axis]))
    gain, offset = scaling.gain.astype(np.float32), scaling.offset.astype(np.float32)
    if np.any(gain != 1):
        steps.append(
            (_Op.MUL, schema.MulOptionsT(), [graph.constant("entry/gain", np.ascontiguousarray(gain))])
        )
    if np.any(offset != 0):
        place = graph.constant("entry/offset", np.ascontiguousarray(offset))
        steps.append((_Op.ADD, schema.AddOptionsT(), [place]))
    if layout == "nchw":
        order = graph.constant("entry/nchw", np.array([0, 3, 1, 2], np.int32))
        steps.append((_Op.TRANSPOSE, schema.TransposeOptionsT(), [order]))
    value = frames
    for at, (code, options, constants) in enumerate(steps):
        last = at + 1 == len(steps)
        result = (
            given if last else graph.activation(f"entry/{_NAMES[code].lower()}", (size, size, 3), "float32")
        )
        graph.operator(code, [value, *constants], result, options)
        value = result
    _set_dynamic(graph, given)
    graph.operators[:] = [*graph.operators[first:], *graph.operators[:first]]
    return frames


def _set_dynamic(graph: TfliteGraph, index: int) -> None:
    graph.tensors[index].shapeSignature = np.array([-1, *graph.shape(index)[1:]], np.int32)


def _maker(graph: TfliteGraph, index: int) -> Any:
    """Return the operator that computes a tensor, or None."""
    return next((each for each in graph.operators if index in each.outputs), None)


def _behind(graph: TfliteGraph, index: int) -> int:
    """Follow a tensor back over operators that leave its values as they are."""
    while (maker := _maker(graph, index)) is not None and graph.code(maker) in _KEEPING:
        index = int(maker.inputs[0])
    return index


def _find_logits(graph: TfliteGraph, answer: int, outputs: OutputKind) -> int:
    """Return the tensor that holds the logits."""
    maker = _maker(graph, _behind(graph, answer))
    code = None if maker is None else graph.code(maker)
    if code == _LAST[outputs]:
        return int(maker.inputs[0])
    if outputs == "logits":
        return answer
    name = "nothing" if code is None else _NAMES[code]
    raise ModelError(f"its TFLite network ends in {name}, so the logits behind its {outputs} cannot be read")


def _find_pooled(graph: TfliteGraph, logits: int) -> _Pooled | None:
    """Return the end of the network if it is global average pooling and one dense layer."""
    dense = _maker(graph, _behind(graph, logits))
    if dense is None or graph.code(dense) != _Op.FULLY_CONNECTED:
        return None
    weights = graph.values(int(dense.inputs[1]))
    options = dense.builtinOptions
    if weights is None or weights.ndim != 2 or options is None or options.fusedActivationFunction:
        return None
    pooling = _maker(graph, _behind(graph, int(dense.inputs[0])))
    if pooling is None or not _pools_all(graph, pooling):
        return None
    maps = int(pooling.inputs[0])
    if graph.shape(maps)[3] != weights.shape[1]:
        return None
    return _Pooled(maps, np.ascontiguousarray(weights.T, np.float32))


def _pools_all(graph: TfliteGraph, operator: Any) -> bool:
    """Return whether an operator averages over all positions of a map (N, h, w, channels)."""
    shape, code = graph.shape(int(operator.inputs[0])), graph.code(operator)
    if len(shape) != 4:
        return False
    if code == _Op.MEAN:
        axes = graph.values(int(operator.inputs[1]))
        return axes is not None and sorted(int(axis) % 4 for axis in axes.reshape(-1)) == [1, 2]
    if code == _Op.AVERAGE_POOL_2D:
        options = operator.builtinOptions
        left = graph.shape(int(operator.outputs[0]))[1:3]
        return shape[1:3] == (options.filterHeight, options.filterWidth) and left == (1, 1)
    return False


def _add_logits(graph: TfliteGraph, found: int, labels: int) -> int:
    """Return the logits as (N, labels); where the network has one output, 0 and that output."""
    outputs = graph.shape(found)[-1]
    if len(graph.shape(found)) != 2:
        flat = graph.activation("logits/flat", (outputs,), "float32")
        options = schema.ReshapeOptionsT()
        options.newShape = [-1, outputs]
        target = graph.constant("logits/shape", np.array([-1, outputs], np.int32))
        graph.operator(_Op.RESHAPE, [found, target], flat, options)
        found = flat
    if outputs == 1 and labels == 2:
        both = graph.activation("logits/both", (2,), "float32")
        before = graph.constant("logits/before", np.array([[0, 0], [1, 0]], np.int32))
        graph.operator(_Op.PAD, [found, before], both, schema.PadOptionsT())
        found = both
    _set_dynamic(graph, found)
    return found
