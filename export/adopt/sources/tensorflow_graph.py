"""Turn a TensorFlow function into ONNX through tf2onnx, with what tf2onnx cannot convert rewritten before."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from capsule_edge.runtime.errors import ModelError

from .loaded_model import PictureShape

__all__ = ["OPSET", "call_tf2onnx", "convert_function", "freeze", "rewrite_erfc", "trace"]

OPSET = 17
_RAISES = "TF2ONNX_CATCH_ERRORS"
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
# Functions and calls with these attributes are not inlined. XLA's are the wrapped convolutions of Keras.
_WALLS = ("_XlaMustCompile", "_noinline")


def convert_function(path: Path, call: Callable[[Any], Any], shape: PictureShape) -> onnx.ModelProto:
    """Convert a function of one tensor to ONNX.

    Args:
        path: the source, for messages.
        call: answers a float32 tensor (N, ...) with a tensor (N, labels).
        shape: the input of ``call``.

    Raises:
        ModelError: a part of the function is not inlined.
    """
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(
        logging.CRITICAL
    )  # what it does not support is refused by its operator
    frozen = trace(call, shape)
    graph = frozen.graph.as_graph_def()
    for node in graph.node:
        if node.op in _CALLS:
            raise ModelError(
                f"{path}: the function {node.name!r} cannot be joined with the graph that calls it"
            )
    rewrite_erfc(graph)
    return call_tf2onnx(
        tf2onnx.convert.from_graph_def,
        graph,
        input_names=[tensor.name for tensor in frozen.inputs],
        output_names=[tensor.name for tensor in frozen.outputs],
        opset=OPSET,
    )


def trace(call: Callable[[Any], Any], shape: PictureShape) -> Any:
    """Return a function of one tensor as a concrete function of any batch, frozen (``freeze``).

    Args:
        call: answers a float32 tensor (N, ...) with a tensor (N, labels).
        shape: the input of ``call``.
    """
    import tensorflow as tf

    signature = tf.TensorSpec((None, *shape.sides()), tf.float32, name="input")
    return freeze(tf.function(call, input_signature=[signature]).get_concrete_function())


def call_tf2onnx(convert: Callable[..., Any], *given: Any, **options: Any) -> onnx.ModelProto:
    """Call a conversion of tf2onnx. Where one of its optimisers fails, call it again without that one.

    tf2onnx leaves failing optimisers out only if it may copy the whole graph before each. The variable that
    ``framework_process`` sets forbids this: the copies take many times the memory of the weights.

    Args:
        convert: A function of ``tf2onnx.convert``.
        given: Its arguments.
        options: Its options.
    """
    try:
        return convert(*given, **options)[0]
    except Exception:  # tf2onnx raises exceptions of many kinds
        forbidden = os.environ.pop(_RAISES, None)
        if forbidden is None:
            raise
        try:
            return convert(*given, **options)[0]
        finally:
            os.environ[_RAISES] = forbidden


def freeze(function: Any) -> Any:
    """Return a concrete function whose variables are constants and whose calls are inlined, XLA's included."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    frozen = convert_variables_to_constants_v2(function, lower_control_flow=False)
    graph = frozen.graph.as_graph_def()
    if not any(node.op in _CALLS for node in graph.node):
        return frozen
    _open_functions(graph)
    wrapped = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), [])
    inputs, outputs = ([tensor.name for tensor in ends] for ends in (frozen.inputs, frozen.outputs))
    ends = wrapped.graph.get_tensor_by_name
    pruned = wrapped.prune([ends(name) for name in inputs], [ends(name) for name in outputs])
    return convert_variables_to_constants_v2(pruned, lower_control_flow=False)


def _open_functions(graph: Any) -> None:
    """Let TensorFlow inline every function of a graph, in place.

    Each gets a new name, because TensorFlow keeps the functions of a process and refuses another with a known name.
    """
    names = {inner.signature.name: f"{inner.signature.name}_opened" for inner in graph.library.function}
    for inner in graph.library.function:
        _clear(inner.attr)
        inner.signature.name = names[inner.signature.name]
    for node in (*graph.node, *(part for inner in graph.library.function for part in inner.node_def)):
        if node.op in _CALLS:
            _clear(node.attr)
        for value in node.attr.values():
            if value.WhichOneof("value") == "func":
                value.func.name = names.get(value.func.name, value.func.name)


def _clear(attributes: Any) -> None:
    for name in _WALLS:
        attributes.pop(name, None)


def rewrite_erfc(graph: Any) -> None:
    """Write erfc(x) as 1 - erf(x), and erfc(-x) as 1 + erf(x), in place.

    tf2onnx does not know Erfc, by which TensorFlow computes the exact GELU. onnxruntime recognises the second form.
    """
    nodes = {node.name: node for node in graph.node}
    for node in [node for node in graph.node if node.op == "Erfc"]:
        given = node.input[0]
        before = nodes.get(given.split(":")[0])
        negated = before is not None and before.op == "Neg"
        one, inner = (
            graph.node.add(name=f"{node.name}/one", op="Const"),
            graph.node.add(name=f"{node.name}/erf", op="Erf"),
        )
        one.attr["dtype"].type = node.attr["T"].type
        one.attr["value"].tensor.dtype = node.attr["T"].type
        one.attr["value"].tensor.float_val.append(1.0)
        one.attr["value"].tensor.tensor_shape.SetInParent()
        inner.attr["T"].type = node.attr["T"].type
        inner.input.append(before.input[0] if negated and before is not None else given)
        node.op = "AddV2" if negated else "Sub"
        node.input[:] = [one.name, inner.name, *node.input[1:]]
