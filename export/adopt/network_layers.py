"""Describe a network as a list of layers, without its framework: two processes exchange networks in this form."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .facts import Floats

__all__ = ["NetworkLayer", "read_layers", "write_layers"]

_CONFIG, _WEIGHTS = "layers.json", "layers.npz"


@dataclass(frozen=True)
class NetworkLayer:
    """One layer of a network.

    Attributes:
        name: Its name, which no other layer has. Layers of a nested model begin with the name of that model.
        kind: The name of its class in Keras.
        config: The options of the class that can be written as JSON.
        inputs: The names of the layers that it reads, in order.
        weights: Its weights by their short name, such as ``kernel``.
    """

    name: str
    kind: str
    config: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    weights: Mapping[str, Floats] = field(default_factory=dict)


def write_layers(folder: Path, layers: Sequence[NetworkLayer]) -> None:
    """Write layers into a folder: ``layers.json``, and ``layers.npz`` with the weights."""
    entries = [
        {"name": each.name, "kind": each.kind, "config": dict(each.config), "inputs": list(each.inputs)}
        for each in layers
    ]
    (folder / _CONFIG).write_text(json.dumps(entries), "utf-8")
    arrays = {f"{at}/{name}": w for at, each in enumerate(layers) for name, w in each.weights.items()}
    np.savez(folder / _WEIGHTS, **arrays)  # type: ignore[arg-type]


def read_layers(folder: Path) -> tuple[NetworkLayer, ...]:
    """Read the layers that ``write_layers`` wrote."""
    entries = json.loads((folder / _CONFIG).read_text("utf-8"))
    weights: list[dict[str, Floats]] = [{} for _ in entries]
    with np.load(folder / _WEIGHTS) as arrays:
        for key in arrays.files:
            at, name = key.split("/", 1)
            weights[int(at)][name] = np.asarray(arrays[key], np.float32)
    return tuple(
        NetworkLayer(each["name"], each["kind"], each["config"], tuple(each["inputs"]), arrays)
        for each, arrays in zip(entries, weights, strict=True)
    )
