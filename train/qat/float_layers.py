"""Keep layers of a QAT model in float32, where 8 bits cost the most accuracy."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from capsule_edge.runtime.errors import UsageError

from .fold_batch_norm import kernel_of
from .integer_layers import IntegerWrapper

__all__ = ["keep_float", "kept_layers", "layers_with_weights"]


def layers_with_weights(qat_model: Any) -> list[str]:
    """Return the names of the layers that can be kept in float, in the model's order."""
    return [wrapper.layer.name for wrapper in _weighted(qat_model)]


def kept_layers(qat_model: Any) -> list[str]:
    """Return the names of the layers that are kept in float, in the model's order."""
    return [wrapper.layer.name for wrapper in _weighted(qat_model) if wrapper.kept]


def keep_float(qat_model: Any, names: Collection[str]) -> None:
    """Compute the layers ``names`` in float32 and all other layers in integers.

    This holds in inference and in exported files. The kept layers use the weights of the QAT model before
    rounding. Values between two kept layers are not rounded to 8 bits either.

    Raises:
        UsageError: a layer does not exist or has no weights. Additions and means cannot be kept: 8 bits only
            round their output, and the layer that reads it needs that anyway.
    """
    known = layers_with_weights(qat_model)
    for name in names:
        if name not in known:
            raise UsageError(
                f"layer {name!r} cannot be kept in float, allowed are layers with weights: {', '.join(known)}"
            )
    readers: dict[int, list[Any]] = {}
    for layer in qat_model.layers:
        given = layer.input if isinstance(layer.input, list | tuple) else [layer.input]
        for tensor in given:
            readers.setdefault(id(tensor), []).append(layer)
    for wrapper in _weighted(qat_model):
        wrapper.kept = wrapper.layer.name in names
    for wrapper in _weighted(qat_model):
        # A fused ReLU is its layer's only reader, and rounds in its place.
        last = wrapper if wrapper.quantize_config.output else readers[id(wrapper.output)][0]
        after = readers.get(id(last.output), [])
        # No layer reads the logits, so nothing needs them as 8-bit steps.
        last.unrounded = wrapper.kept and all(getattr(reader, "kept", False) for reader in after)


def _weighted(qat_model: Any) -> list[IntegerWrapper]:
    wrappers = [layer for layer in qat_model.layers if isinstance(layer, IntegerWrapper)]
    return [wrapper for wrapper in wrappers if kernel_of(wrapper.layer)]
