"""Load a model of Keras 3 or tf_keras, and read what its first and last layers say. Runs in a child process."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import ModelError

from ..facts import Floats
from ..input_chain import implied_scaling
from .keras_layers import list_layers
from .loaded_model import LoadedModel, as_floats, read_shape
from .tensorflow_graph import convert_function
from .tflite_conversion import function_to_tflite

__all__ = ["load_keras", "read_keras", "read_last_layer", "read_scaling"]

# Layers that pass a frame on as it is when the model is not trained.
_PASSING = ("InputLayer", "Dropout", "GaussianNoise", "Activation")
_OUTPUTS = {"softmax": "probabilities", "sigmoid": "sigmoid", "linear": "logits"}
_Numbers = npt.NDArray[np.float64]
_UNKNOWN = re.compile(r"(?:Unknown layer|Could not locate class|Unknown object):? '?([\w>]+)")


def load_keras(path: Path, kind: str, size: int | None) -> LoadedModel:
    """Load a Keras model whose configuration has been checked.

    Args:
        path: the file.
        kind: ``keras`` for Keras 3, ``tf_keras`` for Keras 2.
        size: the side of the input in pixels, for a model that leaves it open.

    Raises:
        ModelError: Keras cannot build the model, or it is no classifier of pictures.
        UsageError: ``size`` is needed, or contradicts the file.
    """
    return read_keras(path, _build(path, kind), size)


def read_keras(path: Path, model: Any, size: int | None = None) -> LoadedModel:
    """Read the ends of a Keras model that is in memory already.

    Args:
        path: its file, for messages.
        model: the model.
        size: the side of the input in pixels, for a model that leaves it open.

    Raises:
        ModelError: it is no classifier of pictures.
        UsageError: ``size`` is needed, or contradicts the model.
    """
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs:
        raise ModelError(
            f"{path} does not state the shape of its input",
            hint="build the model (model.build, or a keras.Input as its first layer) and save it again",
        )
    shape = read_shape(
        path,
        [
            (tensor.name, tuple(tensor.shape), str(getattr(tensor.dtype, "name", tensor.dtype)))
            for tensor in inputs
        ],
        [(tensor.name, tuple(tensor.shape)) for tensor in outputs],
        size,
    )

    def call(batch: Any) -> Any:
        return model(batch, training=False)

    # A model that was loaded has to be called once before it is traced: some layers build on the first call.
    call(np.zeros((1, *shape.sides()), np.float32))
    scaling, notes = read_scaling(model)
    facts = {"scaling": scaling, "channels": None, "outputs": read_last_layer(model), "notes": notes}

    def answer(batch: Floats) -> Floats:
        return as_floats(call(batch))

    return LoadedModel(
        path, shape, answer, lambda: convert_function(path, call, shape), facts,
        layers=lambda: list_layers(path, model), tflite=lambda: function_to_tflite(path, call, shape),
    )  # fmt: skip


def _build(path: Path, kind: str) -> Any:
    own: dict[str, Any] = {}
    if kind == "keras":
        from keras.models import load_model
    else:
        from tf_keras.models import load_model
        from tf_keras.src.applications import convnext

        # tf_keras has these layers, but does not find them when it loads a model.
        own = {name: getattr(convnext, name) for name in ("LayerScale", "StochasticDepth")}
    try:
        return load_model(path, compile=False, safe_mode=True, custom_objects=own)
    except Exception as error:  # Keras raises exceptions of many kinds
        reason = " ".join(str(error).split())
        if found := _UNKNOWN.search(reason):
            raise ModelError(
                f"{path}: a layer is of the class {found.group(1)}, which is not part of Keras",
                hint="export it where its code is, to ONNX or as a SavedModel (model.export)",
            ) from None
        raise ModelError(f"{path} cannot be loaded with {kind}: {reason[:300]}") from None


def _first_layers(model: Any) -> Iterator[Any]:
    """Yield the layers from the input on, those of a nested model in its place, up to the first with two readers."""
    config = json.dumps(model.get_config()["layers"], default=str)
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _first_layers(layer)
            return
        yield layer
        # Both versions of Keras write a reader's source like this, and a Sequential writes none.
        if config.count(f'["{layer.name}", 0, 0') > 1:
            return


def read_scaling(model: Any) -> tuple[str | None, tuple[str, ...]]:
    """Return the scaling that the model's input expects, as far as its first layers say, and notes on these layers.

    Rescaling and Normalization are joined to one factor and one summand for each colour (``implied_scaling``).
    """
    notes, gain, offset = [], np.ones(3), np.zeros(3)
    for layer in _first_layers(model):
        kind = type(layer).__name__
        if kind in ("Rescaling", "Normalization"):
            factor, summand, text = _linear(layer, kind)
            notes.append(f"the model scales its input: {layer.name} ({text})")
            if factor.size not in (1, 3) or summand.size not in (1, 3):  # it varies over the picture
                return None, tuple(notes)
            gain, offset = gain * factor, offset * factor + summand
        elif kind not in _PASSING and not kind.startswith("Random"):
            break
    return implied_scaling(gain, offset) if notes else None, tuple(notes)


def _linear(layer: Any, kind: str) -> tuple[_Numbers, _Numbers, str]:
    """Return factor and summand of a layer that scales, and both in words."""
    if kind == "Rescaling":
        factor, summand = (np.asarray(part, np.float64).reshape(-1) for part in (layer.scale, layer.offset))
        return factor, summand, f"times {_text(factor)}, plus {_text(summand)}"
    mean, variance = (np.asarray(part, np.float64).reshape(-1) for part in (layer.mean, layer.variance))
    # As Keras keeps a deviation from 0.
    deviation = np.maximum(np.sqrt(variance), 1e-7)
    if getattr(layer, "invert", False):
        return deviation, mean, f"times {_text(deviation)}, plus {_text(mean)}"
    return 1 / deviation, -mean / deviation, f"minus {_text(mean)}, divided by {_text(deviation)}"


def _text(values: Any) -> str:
    return ", ".join(f"{value:.4g}" for value in np.asarray(values).reshape(-1))


def read_last_layer(model: Any) -> str | None:
    """Return what the outputs are by the activation of the last layer; None if it has none that says so."""
    last = model.layers[-1]
    if hasattr(last, "layers"):
        return read_last_layer(last)
    if type(last).__name__ == "Softmax":
        return "probabilities"
    activation = getattr(last, "activation", None)
    return _OUTPUTS.get(getattr(activation, "__name__", ""))
