"""A Keras model as plain PyTorch operations, for a GPU machine without TensorFlow.

Keras 3 on PyTorch spends .17 s in Python on a training step that the GPU does in a few milliseconds. Here the
layers of a flat functional model are read once into a list of nodes and run by ``torch.nn.functional``,
channels first with a channels-last memory layout, in a form that a CUDA graph can record. Weights keep the
names of ``models.weights`` (``layer/variable``) and, outside this module, Keras's shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import UsageError

from ..models import Arrays

__all__ = ["Node", "TorchGraph"]

_KINDS = {
    "Conv2D": "conv",
    "DepthwiseConv2D": "depthwise",
    "BatchNormalization": "norm",
    "ReLU": "relu",
    "Add": "add",
    "GlobalAveragePooling2D": "mean",
    "Dense": "dense",
}
_PIXELS = ""  # the name of the input, as nodes read it
_TRAINED = ("kernel", "depthwise_kernel", "bias", "gamma", "beta")


@dataclass(frozen=True)
class Node:
    """One layer of the graph.

    Attributes:
        kind: the operation, a value of ``_KINDS``.
        name: the name of the layer.
        inputs: the names of the layers whose outputs it reads.
        stride: stride of a convolution.
        window: width of a convolution's kernel.
        momentum: momentum of a normalisation.
        epsilon: epsilon of a normalisation.
        ceiling: largest output of a ReLU; 0 for none.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    stride: int = 1
    window: int = 1
    momentum: float = 0.0
    epsilon: float = 0.0
    ceiling: float = 0.0


class TorchGraph:
    """A network: nodes in order and their tensors.

    ``trained`` tensors take gradients; ``statistics`` are the moving averages of normalisations.

    Args:
        nodes: the layers in order.
        arrays: the weights by name, in Keras's shapes.
        device: "cuda" or "cpu".
    """

    def __init__(self, nodes: list[Node], arrays: Arrays, device: str) -> None:
        self.nodes, self.device = nodes, device
        self.trained: dict[str, Any] = {}
        self.statistics: dict[str, Any] = {}
        for name, array in arrays.items():
            tensor = _to_torch(name, array).to(device)
            if name.rsplit("/", 1)[1] in _TRAINED:
                self.trained[name] = tensor.requires_grad_()
            else:
                self.statistics[name] = tensor

    @classmethod
    def read(cls, model: Any, device: str) -> TorchGraph:
        """Return the graph of a Keras 3 model, with its weights.

        Raises:
            UsageError: the model has a layer of an unknown kind.
        """
        from ..models import collect

        return cls(list(_nodes(model)), collect(model), device)

    def arrays(self) -> Arrays:
        """Return all weights by name, in Keras's shapes."""
        return {name: _to_keras(name, tensor) for name, tensor in self.tensors().items()}

    def tensors(self) -> dict[str, Any]:
        """Return all tensors by name, in PyTorch's shapes."""
        return {**self.trained, **self.statistics}

    def assign(self, arrays: Arrays) -> None:
        """Set every tensor in place.

        Raises:
            KeyError: ``arrays`` lack a name.
        """
        import torch

        with torch.no_grad():
            for name, tensor in self.tensors().items():
                tensor.copy_(_to_torch(name, arrays[name]))

    def run(
        self,
        x: Any,
        *,
        training: bool = False,
        kernel: Callable[[str, Any], Any] = lambda _, kernel: kernel,
        output: Callable[[Node, Any], Any] = lambda _, values: values,
    ) -> Any:
        """Return the logits (N, labels).

        Args:
            x: float (N, S, S, 3) in [-1, 127/128].
            training: whether normalisations use the statistics of the batch.
            kernel: called with the name and the value of each kernel; returns the kernel to use. Quantisation
                rounds here.
            output: called with each node and its values; returns the values to hand on. Quantisation rounds
                here.
        """
        values: dict[str, Any] = {_PIXELS: x.permute(0, 3, 1, 2)}
        for node in self.nodes:
            given = [values[name] for name in node.inputs]
            last = output(node, self._run_node(node, given, training, kernel))
            values[node.name] = last
        return last.float()

    def _run_node(
        self, node: Node, given: list[Any], training: bool, kernel: Callable[[str, Any], Any]
    ) -> Any:
        """Return the output of one node."""
        import torch
        from torch.nn import functional

        x = given[0]
        if node.kind in ("conv", "depthwise"):
            name = f"{node.name}/{'kernel' if node.kind == 'conv' else 'depthwise_kernel'}"
            weight = kernel(name, self.trained[name])
            before, after = _pads(x.shape[-1], node)
            if before != after:
                x = functional.pad(x, (before, after, before, after))
                before = 0
            groups = x.shape[1] if node.kind == "depthwise" else 1
            bias = self.trained.get(f"{node.name}/bias")
            return functional.conv2d(x, weight, bias, node.stride, before, groups=groups)
        if node.kind == "norm":
            of = {key: self.tensors()[f"{node.name}/{key}"] for key in ("gamma", "beta")}
            mean, variance = (self.statistics[f"{node.name}/moving_{key}"] for key in ("mean", "variance"))
            return functional.batch_norm(
                x, mean, variance, of["gamma"], of["beta"], training, 1 - node.momentum, node.epsilon
            )
        if node.kind == "relu":
            return functional.hardtanh(x, 0.0, node.ceiling) if node.ceiling else functional.relu(x)
        if node.kind == "add":
            total = given[0]
            for other in given[1:]:
                total = total + other
            return total
        if node.kind == "mean":
            return x.float().mean((2, 3))
        weight = kernel(f"{node.name}/kernel", self.trained[f"{node.name}/kernel"])
        with torch.autocast(x.device.type, enabled=False):
            return functional.linear(x.float(), weight, self.trained[f"{node.name}/bias"])

    def folded(self) -> TorchGraph:
        """Return a graph that computes the same, with normalisations merged into convolutions."""
        arrays, nodes = self.arrays(), []
        renamed: dict[str, str] = {}
        for node in self.nodes:
            inputs = tuple(renamed.get(name, name) for name in node.inputs)
            if node.kind != "norm":
                nodes.append(replace(node, inputs=inputs))
                continue
            before = next(n for n in nodes if n.name == inputs[0])
            renamed[node.name] = before.name
            key = f"{before.name}/{'kernel' if before.kind == 'conv' else 'depthwise_kernel'}"
            part = {k: arrays.pop(f"{node.name}/{k}").astype(np.float64) for k in _NORMALISATION}
            factor = part["gamma"] / np.sqrt(part["moving_variance"] + node.epsilon)
            shaped = factor[:, None] if before.kind == "depthwise" else factor
            arrays[key] = (arrays[key] * shaped).astype(np.float32)
            bias = arrays.get(f"{before.name}/bias", np.float32(0)) - part["moving_mean"]
            arrays[f"{before.name}/bias"] = (bias * factor + part["beta"]).astype(np.float32)
        return TorchGraph(nodes, arrays, self.device)

    @staticmethod
    def unfolded(original: TorchGraph, folded: Arrays) -> Arrays:
        """Return weights for ``original`` that compute what the ``folded`` weights do.

        Each normalisation then only adds a bias.
        """
        arrays = dict(folded)
        for node in original.nodes:
            if node.kind == "norm":
                bias = arrays.pop(f"{node.inputs[0]}/bias")
                ones = np.ones_like(bias)
                arrays |= {
                    f"{node.name}/gamma": ones,
                    f"{node.name}/beta": bias,
                    f"{node.name}/moving_mean": np.zeros_like(bias),
                    f"{node.name}/moving_variance": ones * np.float32(1 - node.epsilon),
                }
        return arrays


_NORMALISATION = ("gamma", "beta", "moving_mean", "moving_variance")


def _nodes(model: Any) -> Iterator[Node]:
    """Read the layers of a Keras 3 model in order."""
    for layer in model.layers:
        kind = type(layer).__name__
        if kind == "InputLayer":
            continue
        if kind not in _KINDS:
            raise UsageError(
                f"layer {layer.name!r} is a {kind}, allowed is one of {', '.join(_KINDS)}",
                hint="train this architecture with capsule-edge train, which uses TensorFlow",
            )
        given = layer.input if isinstance(layer.input, list) else [layer.input]
        sources = [tensor._keras_history.operation for tensor in given]
        inputs = tuple(_PIXELS if type(s).__name__ == "InputLayer" else s.name for s in sources)
        node = Node(_KINDS[kind], layer.name, inputs)
        if node.kind in ("conv", "depthwise"):
            node = replace(node, stride=int(layer.strides[0]), window=int(layer.kernel_size[0]))
        elif node.kind == "norm":
            node = replace(node, momentum=float(layer.momentum), epsilon=float(layer.epsilon))
        elif node.kind == "relu":
            node = replace(node, ceiling=float(layer.max_value or 0))
        yield node


def _pads(size: int, node: Node) -> tuple[int, int]:
    """Return the padding before and after of TensorFlow's "same"; the odd pixel goes behind."""
    total = max((-(-size // node.stride) - 1) * node.stride + node.window - size, 0)
    return total // 2, total - total // 2


def _to_torch(name: str, array: npt.NDArray[np.float32]) -> Any:
    """Convert an array from Keras's layout to PyTorch's.

    Kernels are (h, w, in, out), depthwise kernels (h, w, in, 1), dense kernels (in, out).
    """
    import torch

    if name.endswith("/depthwise_kernel"):
        array = array.transpose(2, 3, 0, 1)
    elif array.ndim == 4:
        array = array.transpose(3, 2, 0, 1)
    elif array.ndim == 2:
        array = array.T
    tensor = torch.from_numpy(np.array(array, np.float32, order="C"))
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def _to_keras(name: str, tensor: Any) -> npt.NDArray[np.float32]:
    """Convert a tensor from PyTorch's layout to Keras's."""
    array = np.array(tensor.detach().cpu().numpy(), np.float32)
    if name.endswith("/depthwise_kernel"):
        array = array.transpose(2, 3, 0, 1)
    elif array.ndim == 4:
        array = array.transpose(2, 3, 1, 0)
    elif array.ndim == 2:
        array = array.T
    return np.ascontiguousarray(array)
