"""Even out the channels of a network in PyTorch before its activations are rounded: the same function, finer steps.

An 8-bit tensor has one scale and one middle. Between two convolutions a channel may be scaled up, and its readers'
weights down (Nagel et al., ICCV 2019; ``equalise`` does it for tf_keras); where no ReLU follows and only 1x1
convolutions read, it may be moved as well, and its readers' biases take that back. Weights have a scale for each output
channel, and ``gpu_qat`` trains them afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..models import Arrays
from ..qat import group_channels
from .torch_graph import Node, TorchGraph

__all__ = ["even", "rounded_outputs"]

_WEIGHTED = ("conv", "depthwise", "dense")
# A channel may reach this much beyond what was seen before a ReLU's ceiling cuts it.
_MARGIN = 1.25
# Beyond this a reader's weights have too few steps left where channels share a scale.
_MOST = 16.0


def rounded_outputs(nodes: list[Node]) -> dict[str, bool]:
    """The nodes whose output is rounded, and whether it begins at 0; what a ReLU follows is left to the ReLU."""
    behind = {name: node.kind for node in nodes for name in node.inputs if node.kind == "relu"}
    return {node.name: node.kind == "relu" for node in nodes if behind.get(node.name) != "relu"}


def even(graph: TorchGraph, batches: Iterable[Any]) -> Arrays:
    """Weights for ``graph``, which has no normalisations, that compute the same with evened channels.

    ``batches`` (N, S, S, 3) in [-1, 127/128] show how far each channel goes. Exact up to float32, but for values beyond
    ``_MARGIN`` of what was seen below a ReLU's ceiling.
    """
    import torch

    group = group_channels((node.name, node.inputs, node.kind in _WEIGHTED) for node in graph.nodes)
    ends = _ends(graph, batches)
    fixed = {group[graph.nodes[0].inputs[0]], group[graph.nodes[-1].name]}
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if node.kind in _WEIGHTED:
            readers.setdefault(group[node.inputs[0]], []).append(node)
    relus = {group[node.name]: node.ceiling for node in graph.nodes if node.kind == "relu"}

    shifts: dict[str, Any] = {}
    for node in graph.nodes:
        key = group[node.name]
        if key in relus or key in fixed or any(r.kind != "conv" or r.window > 1 for r in readers[key]):
            continue
        if node.kind == "add":
            shifts[node.name] = sum(shifts[name] for name in node.inputs)
        else:
            low, high = ends[node.name]
            shifts[node.name] = -(low + high) / 2

    reach: dict[str, Any] = {}
    for name, (low, high) in ends.items():
        shift = shifts.get(name, 0.0)
        far = torch.maximum((low + shift).abs(), (high + shift).abs())
        reach[group[name]] = torch.maximum(reach.get(group[name], torch.zeros_like(far)), far)
    scales = {}
    for key, far in reach.items():
        if key not in fixed:
            most = relus[key] / _MARGIN if relus.get(key) else far.max()
            scales[key] = (most / far.clamp(min=1e-6)).clamp(1.0, _MOST)

    arrays = {name: torch.from_numpy(array).double() for name, array in graph.arrays().items()}
    for node in graph.nodes:
        if node.kind not in _WEIGHTED:
            continue
        name = f"{node.name}/{'depthwise_kernel' if node.kind == 'depthwise' else 'kernel'}"
        bias = f"{node.name}/bias"
        kernel, given = arrays[name], node.inputs[0]
        if given in shifts:
            arrays[bias] = arrays[bias] - torch.einsum("hwio,i->o", kernel, shifts[given])
        arrays[bias] = arrays[bias] + shifts.get(node.name, 0.0)
        if group[given] in scales:
            kernel = kernel / scales[group[given]][:, None]
        if group[node.name] in scales:
            out = scales[group[node.name]]
            kernel = kernel * (out[:, None] if node.kind == "depthwise" else out)
            arrays[bias] = arrays[bias] * out
        arrays[name] = kernel
    return {name: array.float().numpy() for name, array in arrays.items()}


def _ends(graph: TorchGraph, batches: Iterable[Any]) -> dict[str, tuple[Any, Any]]:
    """The smallest and the largest value of each channel of each rounded output, float64 on the CPU."""
    import torch

    ends: dict[str, tuple[Any, Any]] = {}
    outputs = rounded_outputs(graph.nodes)

    def note(node: Node, values: Any) -> Any:
        if node.name in outputs:
            flat = values.transpose(0, 1).flatten(1)
            low, high = flat.amin(1).double().cpu(), flat.amax(1).double().cpu()
            before = ends.get(node.name, (low, high))
            ends[node.name] = torch.minimum(before[0], low), torch.maximum(before[1], high)
        return values

    with torch.no_grad():
        for x in batches:
            graph.run(x, output=note)
    return ends
