"""List the layers of a loaded Keras model, those of nested models in their place. Runs in a child process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from capsule_edge.runtime.errors import UsageError

from ..network_layers import NetworkLayer

__all__ = ["list_layers"]

_PLAIN = (bool, int, float, str, type(None))


def list_layers(path: Path, model: Any) -> tuple[NetworkLayer, ...]:
    """Return the layers of a model of Keras 3 or tf_keras, each behind those that it reads.

    Args:
        path: the file, for messages.
        model: a Functional or Sequential model with one input and one output.

    Raises:
        UsageError: a layer is used more than once.
    """
    found: list[NetworkLayer] = []
    _add_model(path, model, {}, "", found, set())
    return tuple(found)


def _add_model(
    path: Path, model: Any, given: Mapping[int, str], prefix: str, found: list[NetworkLayer], used: set[int]
) -> list[str]:
    """Append the layers of a model, and return the names of those that compute its outputs.

    ``given`` maps the inputs of a nested model to the layers outside that it reads.
    """
    makers = dict(given)
    for layer, node in _nodes_in_order(model.outputs):
        name, outputs = prefix + layer.name, _flat(node.outputs)
        inputs = [makers[id(tensor)] for tensor in _read_by(node)]
        if not inputs and id(outputs[0]) in makers:
            continue  # the input of a nested model
        if id(layer) in used:
            raise UsageError(
                f"{path}: layer {name!r} ({type(layer).__name__}) is used more than once, --finetune needs one use"
                " of each layer",
                hint="leave --finetune out: the model is then adopted by post-training quantisation",
            )
        used.add(id(layer))
        if hasattr(layer, "layers") and getattr(layer, "inputs", None):
            inner = dict(zip(map(id, layer.inputs), inputs, strict=True))
            ends = _add_model(path, layer, inner, f"{name}/", found, used)
            makers.update(zip(map(id, outputs), ends, strict=True))
            continue
        found.append(_describe(layer, name, inputs))
        makers.update((id(output), name) for output in outputs)
    return [makers[id(tensor)] for tensor in model.outputs]


def _nodes_in_order(outputs: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Return each use of a layer that the outputs need, as the layer and Keras's node, inputs first."""
    found, seen = [], set()
    waiting = [(tensor._keras_history, False) for tensor in reversed(outputs)]
    while waiting:
        history, is_ready = waiting.pop()
        layer, index = history[0], history[1]
        node = layer._inbound_nodes[index]
        if is_ready:
            found.append((layer, node))
        elif id(node) not in seen:
            seen.add(id(node))
            waiting.append((history, True))
            waiting += [(tensor._keras_history, False) for tensor in reversed(_read_by(node))]
    return found


def _read_by(node: Any) -> list[Any]:
    """Return the tensors that a use of a layer reads: tf_keras and Keras 3 name them differently."""
    if hasattr(node, "keras_inputs"):
        return [] if node.is_input else list(node.keras_inputs)
    return list(node.input_tensors)


def _flat(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _describe(layer: Any, name: str, inputs: Sequence[str]) -> NetworkLayer:
    kind = type(layer).__name__
    if not hasattr(layer, "get_weights"):
        # Keras 3 records calls such as keras.ops.add as nodes that are no layers.
        return NetworkLayer(name, f"keras.ops.{kind}", {}, tuple(inputs), {})
    config = {key: value for key, value in layer.get_config().items() if _is_plain(value)}
    if hasattr(layer, "activation"):
        activation = layer.activation
        config["activation"] = getattr(activation, "__name__", type(activation).__name__)
    weights = {str(w.name).split(":")[0].rsplit("/", 1)[-1]: w for w in layer.weights}
    if kind == "Normalization":
        weights = {"mean": layer.mean, "variance": layer.variance}
    arrays = {key: np.asarray(value, np.float32) for key, value in weights.items()}
    return NetworkLayer(name, kind, config, tuple(inputs), arrays)


def _is_plain(value: Any) -> bool:
    """Return whether a value of a configuration can be written as JSON."""
    if isinstance(value, list | tuple):
        return all(_is_plain(each) for each in value)
    return isinstance(value, _PLAIN)
