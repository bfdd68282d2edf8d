"""Plan the twin of a Keras network: the layers of tf_keras that compute the same and that TFMOT can quantise.

Layers that do nothing in use (dropout, augmentation) are left out, activations become layers of their own, a separable
convolution becomes two layers, and the last softmax or sigmoid is taken off, so that the twin answers with logits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from capsule_edge.runtime.errors import UsageError

from ..network_layers import NetworkLayer
from .norm_folding import fold_norms

__all__ = ["KERNELS", "TWIN_KINDS", "plan_twin"]

KERNELS: Mapping[str, str] = {"Conv2D": "kernel", "DepthwiseConv2D": "depthwise_kernel", "Dense": "kernel"}
"""The layers with weights that are quantised, and the name of their kernel."""

TWIN_KINDS = (
    *KERNELS, "Add", "AveragePooling2D", "BatchNormalization", "Concatenate", "Flatten", "GlobalAveragePooling2D",
    "GlobalMaxPooling2D", "InputLayer", "MaxPooling2D", "ReLU", "Rescaling", "Reshape", "ZeroPadding2D",
)  # fmt: skip
"""The layers of a twin. BatchNormalization is frozen, and Rescaling stands only before the first other layer."""

_LEFT_OUT = (
    "Dropout",
    "SpatialDropout2D",
    "GaussianDropout",
    "GaussianNoise",
    "ActivityRegularization",
    "Identity",
)
_RELUS: Mapping[str, float | None] = {"relu": None, "relu6": 6.0}
_LAST = ("softmax", "sigmoid")
_WAY_OUT = "leave --finetune out: the model is then adopted by post-training quantisation"
# The options of each kind that the twin takes over as they are.
_TAKEN: Mapping[str, tuple[str, ...]] = {
    "Add": (),
    "AveragePooling2D": ("pool_size", "strides", "padding"),
    "Concatenate": ("axis",),
    "Flatten": (),
    "GlobalAveragePooling2D": ("keepdims",),
    "GlobalMaxPooling2D": ("keepdims",),
    "MaxPooling2D": ("pool_size", "strides", "padding"),
    "Reshape": ("target_shape",),
    "ZeroPadding2D": ("padding",),
}


def plan_twin(
    path: Path, layers: Sequence[NetworkLayer], sides: tuple[int, int, int]
) -> tuple[NetworkLayer, ...]:
    """Return the layers of the twin of a network, each behind those that it reads.

    Args:
        path: The source, for messages.
        layers: The layers of the source.
        sides: The shape of a frame, (size, size, 3).

    Raises:
        UsageError: A layer has no twin. The message names the layer, its class and the reason.
    """
    plan = _Plan(path, layers, sides)
    for layer in layers:
        plan.add(layer)
    return fold_norms(plan.made)


class _Plan:
    """The layers of a twin as far as they are planned."""

    def __init__(self, path: Path, layers: Sequence[NetworkLayer], sides: tuple[int, int, int]) -> None:
        self.path, self.sides = path, sides
        self.made: list[NetworkLayer] = []
        # The layer of the twin that computes what a layer of the source computes.
        self._twins: dict[str, str] = {}
        self._scaled: set[str] = set()
        self._last = _last_computing(layers)

    def add(self, layer: NetworkLayer) -> None:
        """Plan one layer of the source."""
        kind = layer.kind
        special: Mapping[str, Callable[[NetworkLayer], None]] = {
            "InputLayer": self._add_input,
            "Activation": lambda each: self._end(each, self._only(each)),
            "Softmax": lambda each: self._end(each, self._only(each), "softmax"),
            "ReLU": self._add_relu,
            "Rescaling": self._add_rescaling,
            "Normalization": self._add_normalization,
            "BatchNormalization": self._add_norm,
            "SeparableConv2D": self._add_separable,
        }
        if kind in _LEFT_OUT or kind.startswith("Random"):
            self._end(layer, self._only(layer), "linear")
        elif kind in special:
            special[kind](layer)
        elif kind in KERNELS:
            self._add_kernel(layer)
        elif kind in _TAKEN:
            self._add_plain(layer)
        else:
            raise self._refuse(layer, "")

    def _refuse(self, layer: NetworkLayer, reason: str) -> UsageError:
        return UsageError(
            f"{self.path}: layer {layer.name!r} ({layer.kind}{reason and ': '}{reason}) has no twin that TFMOT can"
            " quantise",
            hint=_WAY_OUT,
        )

    def _given(self, layer: NetworkLayer) -> list[str]:
        return [self._twins[name] for name in layer.inputs]

    def _only(self, layer: NetworkLayer) -> str:
        (given,) = self._given(layer)
        return given

    def _make(
        self,
        name: str,
        kind: str,
        inputs: Sequence[str],
        config: Mapping[str, Any],
        weights: Mapping[str, Any] | None = None,
    ) -> str:
        """Append a layer of the twin, and return its name, which is a new one where ``name`` is taken."""
        taken = {each.name for each in self.made}
        while name in taken:
            name += "_"
        arrays = {key: np.asarray(value, np.float32) for key, value in (weights or {}).items()}
        self.made.append(NetworkLayer(name, kind, dict(config), tuple(inputs), arrays))
        return name

    def _end(self, layer: NetworkLayer, value: str, activation: str | None = None) -> None:
        """Add the activation of a layer, and record the result as what the layer computes."""
        name = activation or str(layer.config.get("activation", "linear"))
        if name in _RELUS:
            config = {} if _RELUS[name] is None else {"max_value": _RELUS[name]}
            value = self._make(_safe(layer.name, "relu"), "ReLU", [value], config)
        elif name in _LAST and layer.name == self._last:
            if int(layer.config.get("axis", -1)) not in (-1, 1):
                raise self._refuse(layer, f"{name} over axis {layer.config['axis']}")
        elif name != "linear":
            raise self._refuse(layer, f"activation {name}")
        self._twins[layer.name] = value

    def _add_input(self, layer: NetworkLayer) -> None:
        if any(each.kind == "InputLayer" for each in self.made):
            raise self._refuse(layer, "a second input")
        name = self._make(_safe(layer.name), "InputLayer", (), {"shape": list(self.sides)})
        self._scaled.add(name)
        self._twins[layer.name] = name

    def _add_relu(self, layer: NetworkLayer) -> None:
        if layer.config.get("negative_slope") or layer.config.get("threshold"):
            raise self._refuse(layer, "it is leaky or has a threshold")
        most = layer.config.get("max_value")
        config = {} if most is None else {"max_value": float(most)}
        self._twins[layer.name] = self._make(_safe(layer.name), "ReLU", self._given(layer), config)

    def _add_rescaling(self, layer: NetworkLayer) -> None:
        self._scale(layer, layer.config.get("scale", 1.0), layer.config.get("offset", 0.0))

    def _add_normalization(self, layer: NetworkLayer) -> None:
        mean, variance = (layer.weights[key].reshape(-1).astype(float) for key in ("mean", "variance"))
        if layer.config.get("invert") or mean.size not in (1, 3):
            raise self._refuse(layer, "it does not scale the colours of a picture")
        # Keras's own least deviation.
        deviation = np.maximum(np.sqrt(variance), 1e-7)
        self._scale(layer, (1 / deviation).tolist(), (-mean / deviation).tolist())

    def _scale(self, layer: NetworkLayer, scale: Any, offset: Any) -> None:
        """Add a scaling of pixels, which stays in float and is possible only in front."""
        given = self._only(layer)
        if given not in self._scaled:
            raise self._refuse(layer, "it scales values inside the network")
        name = self._make(_safe(layer.name), "Rescaling", [given], {"scale": scale, "offset": offset})
        self._scaled.add(name)
        self._twins[layer.name] = name

    def _add_norm(self, layer: NetworkLayer) -> None:
        axis = layer.config.get("axis", -1)
        if (axis[0] if isinstance(axis, list) and axis else axis) not in (-1, 3):
            raise self._refuse(layer, f"over axis {axis}, allowed is the last")
        config = {"epsilon": layer.config.get("epsilon", 1e-3), "axis": -1}
        config |= {"center": "beta" in layer.weights, "scale": "gamma" in layer.weights}
        made = self._make(_safe(layer.name), "BatchNormalization", self._given(layer), config, layer.weights)
        self._twins[layer.name] = made

    def _add_plain(self, layer: NetworkLayer) -> None:
        self._check_layout(layer)
        if layer.kind == "Concatenate" and layer.config.get("axis", -1) not in (-1, 3):
            raise self._refuse(layer, f"over axis {layer.config['axis']}, allowed is the last")
        config = {key: layer.config[key] for key in _TAKEN[layer.kind] if key in layer.config}
        self._twins[layer.name] = self._make(_safe(layer.name), layer.kind, self._given(layer), config)

    def _check_layout(self, layer: NetworkLayer) -> None:
        if layer.config.get("data_format") == "channels_first":
            raise self._refuse(layer, "channels first")

    def _check_convolution(self, layer: NetworkLayer) -> None:
        config = layer.config
        self._check_layout(layer)
        if any(rate != 1 for rate in _pair(config.get("dilation_rate", 1))):
            raise self._refuse(layer, "dilated")
        if int(config.get("groups", 1)) != 1:
            raise self._refuse(layer, f"{config['groups']} groups")
        if int(config.get("depth_multiplier") or 1) != 1:
            raise self._refuse(layer, f"depth multiplier {config['depth_multiplier']}")
        if config.get("padding", "valid") not in ("same", "valid"):
            raise self._refuse(layer, f"padding {config['padding']}")

    def _add_kernel(self, layer: NetworkLayer) -> None:
        if layer.kind != "Dense":
            self._check_convolution(layer)
        kernel = layer.weights.get("depthwise_kernel", layer.weights.get("kernel"))
        value = self._make_kernel(_safe(layer.name), layer.kind, self._given(layer), layer, kernel)
        self._end(layer, value)

    def _add_separable(self, layer: NetworkLayer) -> None:
        self._check_convolution(layer)
        depthwise = self._make(
            _safe(layer.name, "depthwise"), "DepthwiseConv2D", self._given(layer),
            {**_steps(layer), "use_bias": True},
            {
                "depthwise_kernel": layer.weights["depthwise_kernel"],
                "bias": np.zeros(layer.weights["depthwise_kernel"].shape[2]),
            },
        )  # fmt: skip
        pointwise = NetworkLayer(
            layer.name,
            "Conv2D",
            {"kernel_size": [1, 1]},
            layer.inputs,
            {k: layer.weights[k] for k in layer.weights if k == "bias"},
        )
        kernel = layer.weights["pointwise_kernel"]
        self._end(
            layer, self._make_kernel(_safe(layer.name, "pointwise"), "Conv2D", [depthwise], pointwise, kernel)
        )

    def _make_kernel(
        self, name: str, kind: str, inputs: Sequence[str], layer: NetworkLayer, kernel: Any
    ) -> str:
        """Add a layer with a kernel. It always has a bias, which normalisation is folded into."""
        outputs = kernel.shape[2] if kind == "DepthwiseConv2D" else kernel.shape[-1]
        config: dict[str, Any] = {"use_bias": True}
        if kind != "Dense":
            config |= _steps(layer)
        if kind != "DepthwiseConv2D":
            config["units" if kind == "Dense" else "filters"] = int(outputs)
        bias = layer.weights.get("bias", np.zeros(outputs))
        return self._make(name, kind, inputs, config, {KERNELS[kind]: kernel, "bias": bias})


def _last_computing(layers: Sequence[NetworkLayer]) -> str:
    """Return the name of the last layer, but for those that do nothing in use."""
    for layer in reversed(layers):
        passes = layer.kind in _LEFT_OUT or (
            layer.kind == "Activation" and layer.config.get("activation") == "linear"
        )
        if not passes:
            return layer.name
    return ""


def _steps(layer: NetworkLayer) -> dict[str, Any]:
    """Return kernel size, strides and padding of a convolution."""
    return {
        "kernel_size": list(_pair(layer.config["kernel_size"])),
        "strides": list(_pair(layer.config.get("strides", 1))),
        "padding": layer.config.get("padding", "valid"),
    }


def _pair(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (int(value), int(value))


def _safe(*parts: str) -> str:
    """Return a name for a layer of the twin: nested models divide names by slashes, which tf_keras reads as scopes."""
    return "__".join(parts).replace("/", "__")
