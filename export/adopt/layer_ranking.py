"""Rank the quantised layers of a network by the noise that each adds on its own.

A twin of every quantised layer is set beside the float one (``twin_layers``). The ratio of its signal to its noise says
how much the layer alone loses; the layers with the lowest ratio gain most from float.
"""

from __future__ import annotations

import numpy as np
import onnx

from ..contract import FrameArray
from .float_body import PIXELS, FloatBody
from .graph import Graph
from .quantised_nodes import layers_of
from .sessions import open_session, with_outputs
from .twin_layers import add_twin, round_output

__all__ = ["rank_by_noise"]

_BATCH = 8


def rank_by_noise(body: FloatBody, quantised: onnx.ModelProto, frames: FrameArray) -> list[tuple[str, float]]:
    """Return the quantised layers with their ratio of signal to noise in decibels, the lowest first.

    Args:
        body: The float network.
        quantised: The same network in 8 bits, every layer of it quantised that can be.
        frames: uint8 RGB (N, size, size, 3).
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(body.proto)
    shown, small = Graph(proto), Graph(quantised)
    found = {layer.name: _compare(shown, small, layer) for layer in layers_of(shown)}
    names = [name for pair in found.values() if pair is not None for name in pair]
    # Optimised, onnxruntime would compute the twins in 8 bits, with other roundings.
    session = open_session(with_outputs(proto, *names), optimise="none")
    sums = np.zeros(len(names))
    for start in range(0, len(frames), _BATCH):
        answers = session.run(names, {PIXELS: body.entry.apply(frames[start : start + _BATCH])})
        sums += np.asarray(answers, np.float64)
    power = dict(zip(names, sums.tolist(), strict=True))
    ratios = {
        name: _decibels(power[pair[0]], power[pair[1]]) for name, pair in found.items() if pair is not None
    }
    return sorted(ratios.items(), key=lambda item: item[1])


def _decibels(signal: float, noise: float) -> float:
    return 10 * float(np.log10(max(signal, 1e-30) / max(noise, 1e-30)))


def _compare(shown: Graph, small: Graph, layer: onnx.NodeProto) -> tuple[str, str] | None:
    """Compare a layer with its twin. Return the names of signal and noise (mean squares); None if it is float."""
    twin = add_twin(shown, small, layer)
    if twin is None:
        return None
    answer, expected = round_output(shown, small, layer, twin)
    shown.add("Sub", [answer, expected], f"{twin}/difference")
    return _mean_square(shown, expected, f"{twin}/signal"), _mean_square(
        shown, f"{twin}/difference", f"{twin}/noise"
    )


def _mean_square(shown: Graph, value: str, name: str) -> str:
    shown.add("Mul", [value, value], f"{name}/square")
    return shown.add("ReduceMean", [f"{name}/square"], name, keepdims=0)
