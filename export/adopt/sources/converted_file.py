"""Finish a converted ONNX model: name its ends, free its batch, check its operators, compare it with its source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from capsule_edge.runtime.errors import ModelError

from ..facts import Floats
from ..graph import Graph
from .common_forms import join_layer_norms, straighten_gelus

__all__ = ["finish_file"]

INPUT, OUTPUT = "input", "output"
# Largest difference from the source, relative to its largest answer: float32 sums of some thousand terms in another
# order differ by some 1e-6 of their size in a layer, and by less than this after a hundred layers.
_MOST_DIFFERENCE = 1e-3
_ONNX = ("", "ai.onnx")


def finish_file(
    path: Path, proto: onnx.ModelProto, sides: tuple[int, ...], answer: Callable[[Floats], Floats]
) -> onnx.ModelProto:
    """Return the model with one input ``input`` of dynamic batch and one output ``output``.

    Args:
        path: the source, for messages.
        proto: what the converter made.
        sides: the shape of one frame.
        answer: answers a batch with the source's own framework.

    Raises:
        ModelError: an operator is not of ONNX, onnxruntime refuses the model, or its answers differ from the source's.
    """
    _check_operators(path, proto)
    # tf2onnx adds the commit that it was built from, which is None in a release.
    proto.producer_version = proto.producer_version.removesuffix(" None")
    _rename_ends(proto)
    _declare_ends(proto, sides)
    _free_constant_targets(proto)
    _settle_reshapes(path, proto, sides)
    graph = Graph(proto)
    join_layer_norms(graph)
    straighten_gelus(graph)
    graph.drop_unused()
    _compare(path, proto, sides, answer)
    return proto


def _check_operators(path: Path, proto: onnx.ModelProto) -> None:
    for node in proto.graph.node:
        if node.domain not in _ONNX or not onnx.defs.has(node.op_type):
            raise ModelError(
                f"{path}: {node.name!r} computes {node.op_type}, which has no counterpart in ONNX",
                hint="replace this layer, or export the model to ONNX where it was trained",
            )


def _rename_ends(proto: onnx.ModelProto) -> None:
    initial = {tensor.name for tensor in proto.graph.initializer}
    (given,) = [value for value in proto.graph.input if value.name not in initial]
    names = {given.name: INPUT, proto.graph.output[0].name: OUTPUT}
    del proto.graph.input[:]
    proto.graph.input.append(given)
    for node in proto.graph.node:
        for values in (node.input, node.output):
            for place, name in enumerate(values):
                values[place] = names.get(name, name)
    for value in (*proto.graph.input, *proto.graph.output):
        value.name = names[value.name]


def _declare_ends(proto: onnx.ModelProto, sides: tuple[int, ...]) -> None:
    labels = [side.dim_value for side in proto.graph.output[0].type.tensor_type.shape.dim][-1:]
    given = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", *sides])
    scores = helper.make_tensor_value_info(
        OUTPUT, TensorProto.FLOAT, ["N", *(labels if any(labels) else ["L"])]
    )
    proto.graph.input[0].CopyFrom(given)
    proto.graph.output[0].CopyFrom(scores)
    # The shapes that converters record for inner values use their own names of the batch.
    del proto.graph.value_info[:]


def _free_constant_targets(proto: onnx.ModelProto) -> None:
    """Let reshapes whose target is constant take any batch: their first side follows from the others.

    TFLite files fix the batch to 1. A wrong guess shows in the comparison with batches of other sizes.
    """
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        tensor = constants.get(node.input[1]) if node.op_type == "Reshape" else None
        if tensor is None:
            continue
        target = numpy_helper.to_array(tensor).copy()
        if target.size > 1 and target.min() > 0:
            target[0] = -1
            _set_target(proto, node, target)


def _set_target(proto: onnx.ModelProto, node: onnx.NodeProto, target: Any) -> None:
    name = f"{node.output[0]}/target"
    proto.graph.initializer.append(numpy_helper.from_array(np.asarray(target, np.int64), name))
    node.input[1] = name


def _settle_reshapes(path: Path, proto: onnx.ModelProto, sides: tuple[int, ...]) -> None:
    """Give each reshape whose target is computed a constant target, read from two runs of other batches.

    Keras reshapes with shapes computed while the model runs. With constant ones the layers stand side by side, where
    a quantiser recognises them.
    """
    constants = {tensor.name for tensor in proto.graph.initializer}
    nodes = [n for n in proto.graph.node if n.op_type == "Reshape" and n.input[1] not in constants]
    if not nodes:
        return
    probe = onnx.ModelProto()
    probe.CopyFrom(proto)
    names = [node.output[0] for node in nodes if node.output[0] != OUTPUT]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = _open(path, probe)
    runs = [
        session.run([node.output[0] for node in nodes], {INPUT: np.zeros((n, *sides), np.float32)})
        for n in (2, 3)
    ]
    for node, two, three in zip(nodes, *runs, strict=True):
        pairs = list(zip(two.shape, three.shape, strict=True))
        growing = [at for at, (a, b) in enumerate(pairs) if 3 * a == 2 * b and a]
        fixed = [at for at, (a, b) in enumerate(pairs) if a == b]
        if len(growing) <= 1 and len(growing) + len(fixed) == len(pairs):
            _set_target(proto, node, [-1 if at in growing else a for at, (a, _) in enumerate(pairs)])


def _open(path: Path, proto: onnx.ModelProto) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises exceptions without a common base class
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{path}: onnxruntime refuses the converted model: {reason}") from None


def _compare(
    path: Path, proto: onnx.ModelProto, sides: tuple[int, ...], answer: Callable[[Floats], Floats]
) -> None:
    """Compare batches of 1 and 3 frames of noise, as levels of 255 and as values of -1 to 1, with the source."""
    session = _open(path, proto)
    noise = np.random.default_rng(0).random((3, *sides), np.float32)
    for batch in (noise[:1] * 255, noise * 255, noise * 2 - 1):
        expected = answer(batch)
        try:
            ours = session.run([OUTPUT], {INPUT: batch})[0]
        except Exception as error:  # as above
            reason = " ".join(str(error).split())[:200]
            raise ModelError(
                f"{path}: the converted model does not take {len(batch)} frames at a time: {reason}",
                hint="export the model with a dynamic batch",
            ) from None
        size = max(1.0, float(np.abs(expected).max()))
        worst = float(np.abs(ours - expected).max()) / size if ours.shape == expected.shape else np.inf
        if not worst <= _MOST_DIFFERENCE:
            raise ModelError(
                f"{path}: the converted model differs from its source by {worst:.3g} of the largest answer, allowed is"
                f" {_MOST_DIFFERENCE:g}",
                hint="this is a fault of the conversion: please report it with the model's architecture",
            )
