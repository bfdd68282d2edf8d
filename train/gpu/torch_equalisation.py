"""Equalise the channels of a PyTorch network, so that 8 bits resolve its activations in finer steps.

The network computes the same function before and after. An 8-bit tensor has one scale and one zero point.
Between two convolutions a channel can be scaled up if its readers' weights are scaled down (Nagel et al.,
ICCV 2019; ``qat.equalisation`` does it for tf_keras). If no ReLU follows and only 1x1 convolutions read a
channel, it can also be shifted, and its readers' biases take the shift back. Weights have one scale for each
output channel, and ``torch_qat`` trains them afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..models import Arrays
from ..qat import group_channels
from .torch_graph import Node, TorchGraph

__all__ = ["equalise_channels", "rounded_outputs"]

_WEIGHTED = ("conv", "depthwise", "dense")
# A channel may exceed its observed reach by this factor before a ReLU's ceiling cuts it.
_MARGIN = 1.25
# The largest factor of a channel. Beyond it, a reader's weights have too few steps if channels share a scale.
_MOST = 16.0


def rounded_outputs(nodes: list[Node]) -> dict[str, bool]:
    """Return the nodes whose output is rounded to 8 bits, and whether their range begins at 0.

    If a ReLU follows a node, only the ReLU's output is rounded.
    """
    behind = {name: node.kind for node in nodes for name in node.inputs if node.kind == "relu"}
    return {node.name: node.kind == "relu" for node in nodes if behind.get(node.name) != "relu"}


def equalise_channels(graph: TorchGraph, batches: Iterable[Any]) -> Arrays:
    """Return weights for ``graph`` that compute the same with equalised channels.

    The result is exact up to float32, except for values that exceed the observed ones by more than ``_MARGIN`` below a
    ReLU's ceiling.

    Args:
        graph: a graph without normalisations (``TorchGraph.folded``).
        batches: float32 tensors (N, S, S, 3) in [-1, 127/128]. They show how far each channel reaches.
    """
    import torch

    group = group_channels((node.name, node.inputs, node.kind in _WEIGHTED) for node in graph.nodes)
    ends = _ends(graph, batches)
    shifts = _shifts(graph, group, ends)
    scales = _scales(graph, group, ends, shifts)
    arrays = {name: torch.from_numpy(array).double() for name, array in graph.arrays().items()}
    for node in graph.nodes:
        if node.kind in _WEIGHTED:
            _apply(node, arrays, group, shifts, scales)
    return {name: array.float().numpy() for name, array in arrays.items()}


def _fixed(graph: TorchGraph, group: dict[str, str]) -> set[str]:
    """Return the groups that must stay unchanged: those of the pixels and of the logits."""
    return {group[graph.nodes[0].inputs[0]], group[graph.nodes[-1].name]}


def _relu_ceilings(graph: TorchGraph, group: dict[str, str]) -> dict[str, float]:
    return {group[node.name]: node.ceiling for node in graph.nodes if node.kind == "relu"}


def _shifts(graph: TorchGraph, group: dict[str, str], ends: dict[str, tuple[Any, Any]]) -> dict[str, Any]:
    """Return the shift that centres each channel's range at 0, for the nodes that can be shifted."""
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if node.kind in _WEIGHTED:
            readers.setdefault(group[node.inputs[0]], []).append(node)
    relus, fixed = _relu_ceilings(graph, group), _fixed(graph, group)
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
    return shifts


def _scales(
    graph: TorchGraph, group: dict[str, str], ends: dict[str, tuple[Any, Any]], shifts: dict[str, Any]
) -> dict[str, Any]:
    """Return the factor of each channel of each group, 1 to ``_MOST``."""
    import torch

    reach: dict[str, Any] = {}
    for name, (low, high) in ends.items():
        shift = shifts.get(name, 0.0)
        far = torch.maximum((low + shift).abs(), (high + shift).abs())
        reach[group[name]] = torch.maximum(reach.get(group[name], torch.zeros_like(far)), far)
    relus, fixed = _relu_ceilings(graph, group), _fixed(graph, group)
    scales = {}
    for key, far in reach.items():
        if key not in fixed:
            most = relus[key] / _MARGIN if relus.get(key) else far.max()
            scales[key] = (most / far.clamp(min=1e-6)).clamp(1.0, _MOST)
    return scales


def _apply(
    node: Node, arrays: dict[str, Any], group: dict[str, str], shifts: dict[str, Any], scales: dict[str, Any]
) -> None:
    """Change kernel and bias of a node so that it reads and writes shifted and scaled channels."""
    import torch

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


def _ends(graph: TorchGraph, batches: Iterable[Any]) -> dict[str, tuple[Any, Any]]:
    """Return the smallest and the largest value of each channel of each rounded output, float64 on the CPU."""
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
