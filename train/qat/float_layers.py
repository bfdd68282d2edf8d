"""Layers of a QAT model that stay in float32: what 8 bits cost most may be worth its time."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from capsule_edge.runtime.errors import UsageError

from .fold_batch_norm import kernel_of
from .integer_layers import IntegerWrapper

__all__ = ["keep_float", "kept_layers", "layers_with_weights"]


def layers_with_weights(qat_model: Any) -> list[str]:
    """The layers that can be kept in float, in the model's order."""
    return [wrapper.layer.name for wrapper in _weighted(qat_model)]


def kept_layers(qat_model: Any) -> list[str]:
    return [wrapper.layer.name for wrapper in _weighted(qat_model) if wrapper.kept]


def keep_float(qat_model: Any, names: Collection[str]) -> None:
    """Compute the layers ``names`` in float32 in inference and in what is exported, all others in integers.

    Their weights are those of the QAT model before rounding. What lies between two kept layers is not rounded to 8
    bits either. Raises ``UsageError`` for a layer that is not there or has no weights: of an addition or a mean 8 bits
    only round the output, which its reader needs anyway.
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
        # A fused ReLU reads alone and rounds in its layer's stead.
        last = wrapper if wrapper.quantize_config.output else readers[id(wrapper.output)][0]
        after = readers.get(id(last.output), [])
        # The logits are an output: nothing reads them as steps.
        last.unrounded = wrapper.kept and all(getattr(reader, "kept", False) for reader in after)


def _weighted(qat_model: Any) -> list[IntegerWrapper]:
    wrappers = [layer for layer in qat_model.layers if isinstance(layer, IntegerWrapper)]
    return [wrapper for wrapper in wrappers if kernel_of(wrapper.layer)]
