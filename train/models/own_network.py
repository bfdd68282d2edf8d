"""Networks of the user's own: a function or a model becomes a JSON text, which the run folder keeps.

Export builds the network from that text and needs the user's code no more. The network has to be what the others are:
a flat functional tf_keras model that maps pixels, float32 RGB (N, size, size, 3) scaled to [-1, 127/128], to logits,
and ends in global average pooling and one dense layer named ``logits``.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import InputError, UsageError

__all__ = [
    "NETWORK_FILE",
    "NetworkBuilder",
    "build_network",
    "describe_network",
    "hash_network",
    "import_builder",
    "qualified_name",
]

# In the run folder, where the architecture is the user's own.
NETWORK_FILE = "network.json"

NetworkBuilder = Callable[[int, int], Any]

_HEAD = 'end it in GlobalAveragePooling2D() and Dense(labels, name="logits")'


def import_builder(name: str) -> NetworkBuilder:
    """Return the function that ``module:function`` names. Modules of the working directory are found too.

    Args:
        name: the module, a colon, and a function of it that takes (size, labels) and returns a tf_keras model.

    Raises:
        UsageError: the module cannot be imported, or has no such function.
    """
    module_name, _, function_name = name.partition(":")
    here = os.getcwd()
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except (ImportError, SyntaxError, ValueError) as error:
        raise UsageError(
            f"architecture {name!r}: the module {module_name!r} cannot be imported: {error}",
            hint="name it as in an import statement, such as networks:build",
        ) from None
    finally:
        if added:
            sys.path.remove(here)
    builder = getattr(module, function_name, None)
    if not callable(builder):
        raise UsageError(
            f"architecture {name!r}: the module {module_name!r} has no function {function_name!r}"
        )
    found: NetworkBuilder = builder
    return found


def describe_network(network: NetworkBuilder | Any, *, size: int, labels: int) -> str:
    """Return the JSON text of a network, without its weights, after checking that it fits.

    Args:
        network: a function from (size, labels) to a tf_keras model, or such a model.
        size: width and height of the model's input, pixels.
        labels: number of labels.

    Raises:
        UsageError: the network is no flat functional tf_keras model, does not fit size and labels, does not end in
            global average pooling and one dense layer, or has a layer that cannot be built from its configuration.
    """
    import tf_keras

    model = network if isinstance(network, tf_keras.Model) else _call(network, size, labels)
    _check_kind(model)
    _check_shapes(model, size, labels)
    _check_end(model)
    try:
        text = str(model.to_json())
        build_network(text)
    except (InputError, TypeError, ValueError, NotImplementedError) as error:
        raise UsageError(
            f"the network cannot be built from its configuration: {_first_line(error)}",
            hint="use layers of tf_keras only: export has to build the network without your code",
        ) from None
    return text


def build_network(text: str, path: Path | None = None) -> Any:
    """Return the network of a JSON text, with fresh weights.

    Args:
        text: from ``describe_network``.
        path: the file that holds it, for the message.

    Raises:
        InputError: the text describes no network.
    """
    import tf_keras

    reason = "it is no model"
    try:
        model = tf_keras.models.model_from_json(text)
        if isinstance(model, tf_keras.Model):
            return model
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = _first_line(error)
    raise InputError(f"{path or 'the text'} describes no tf_keras network: {reason}")


def _call(network: Any, size: int, labels: int) -> Any:
    if not callable(network):
        raise UsageError(
            f"the network is a {type(network).__module__}.{type(network).__name__}, needed is a tf_keras model or a"
            " function from (size, labels) to one"
        )
    import tf_keras

    # Layers without a name are numbered through the process. A second call must describe the same network.
    tf_keras.backend.reset_uids()
    return network(size, labels)


def _check_kind(model: Any) -> None:
    import tf_keras

    kind = f"{type(model).__module__}.{type(model).__name__}"
    if not isinstance(model, tf_keras.Model) or not getattr(model, "_is_graph_network", False):
        raise UsageError(
            f"the network is a {kind}, needed is a functional tf_keras model",
            hint="build it with tf_keras.Model(inputs, logits), not with Keras 3 and not as a subclass",
        )
    nested = [layer.name for layer in model.layers if isinstance(layer, tf_keras.Model)]
    if nested:
        raise UsageError(
            f"the network holds the model {nested[0]!r} as a layer, allowed are layers alone",
            hint="call its layers one after the other, or build it with input_tensor=",
        )


def _check_shapes(model: Any, size: int, labels: int) -> None:
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UsageError(
            f"the network has {len(model.inputs)} inputs and {len(model.outputs)} outputs, allowed is one each"
        )
    for what, found, wanted in (
        ("takes", model.inputs[0].shape, (None, size, size, 3)),
        ("gives", model.outputs[0].shape, (None, labels)),
    ):
        if tuple(found) != wanted:
            raise UsageError(f"the network {what} {tuple(found)}, needed is {wanted}")


def _check_end(model: Any) -> None:
    import tf_keras

    head = model.layers[-1]
    if not (
        isinstance(head, tf_keras.layers.Dense)
        and head.name == "logits"
        and head.use_bias
        and head.activation is tf_keras.activations.linear
    ):
        raise UsageError(
            f"the network ends in {type(head).__name__} {head.name!r}, needed is a dense layer 'logits' with a bias and"
            " without activation",
            hint=_HEAD,
        )
    before = head.input._keras_history.layer
    if not isinstance(before, tf_keras.layers.GlobalAveragePooling2D):
        raise UsageError(
            f"the layer before 'logits' is {type(before).__name__} {before.name!r}, needed is global average pooling,"
            " so that the model can show where it looked",
            hint=_HEAD,
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def qualified_name(thing: Any) -> str:
    """Return the name of a function or an object's class, with its module."""
    known = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{known.__module__}.{known.__qualname__}"


def hash_network(text: str) -> str:
    """Return the SHA-256 of a network's text; spaces and the order of keys do not count."""
    return hashlib.sha256(json.dumps(json.loads(text), sort_keys=True).encode()).hexdigest()
