"""The architectures: flat functional Keras models that tensorflow-model-optimization can quantise.

Every model maps pixels, float32 RGB (N, size, size, 3) scaled to [-1, 127/128], to logits (N, labels). It
ends in global average pooling and one dense layer, so that class-activation maps need nothing else.

The builders take the Keras to build with: tf_keras for training, quantisation and export, or Keras 3 for a
GPU without TensorFlow. Layers have the same names in both, so weights are carried over by name (``weights``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from capsule_edge.runtime.errors import UsageError

from .efficientnet import efficientnet_lite

__all__ = ["ARCHITECTURES", "BRANCHED", "build"]

# MobileNetV2 of ``keras.applications`` has .999, which forgets too slowly for fine-tuning of a few hundred steps.
_BN_MOMENTUM = 0.99


def build(architecture: str, *, size: int, labels: int, keras: Any, branched: bool = False) -> Any:
    """Return a fresh model for frames of ``size`` x ``size``.

    Args:
        architecture: a name in ``ARCHITECTURES``.
        size: width and height in pixels, from 32: a multiple of 16, for re-parameterised architectures of 32.
        labels: number of labels.
        keras: the module ``tf_keras`` or ``keras``.
        branched: build the form in which a re-parameterised architecture (``BRANCHED``) is trained.
            ``reparameterise.merge`` converts its weights to the plain form. Other architectures have one form
            only.

    Raises:
        UsageError: the name is not known, or the size does not fit.

    Example:
        ``build("plain_cnn", size=64, labels=3, keras=tf_keras)``
    """
    if architecture not in ARCHITECTURES:
        raise UsageError(
            f"architecture {architecture!r} is not known, allowed is one of {', '.join(ARCHITECTURES)}"
        )
    step = 32 if architecture in BRANCHED else 16
    if size % step or size < 32:
        raise UsageError(f"the input size is {size}, allowed is a multiple of {step} from 32")
    inputs = keras.Input((size, size, 3), name="pixels")
    builders = BRANCHED if branched and architecture in BRANCHED else ARCHITECTURES
    features = builders[architecture](inputs, keras.layers)
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(features)
    logits = keras.layers.Dense(labels, name="logits")(pooled)
    return keras.Model(inputs, logits, name=architecture)


def _normalise(x: Any, layers: Any, name: str, *, relu: str | None = None) -> Any:
    x = layers.BatchNormalization(epsilon=1e-3, momentum=_BN_MOMENTUM, name=name)(x)
    return layers.ReLU(6.0, name=relu)(x) if relu else x


def _mobilenet_v2(x: Any, layers: Any, width: float) -> Any:
    """Return the features of MobileNetV2 (Sandler et al., CVPR 2018).

    Layers have the names of ``keras.applications``. Strided convolutions pad "same" instead of using a
    padding layer. On even sizes both compute the same, and a separate padding layer would break the pattern
    that the quantiser looks for.
    """

    def channels(count: float) -> int:
        rounded = max(8, int(count * width + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * count * width else rounded

    x = layers.Conv2D(channels(32), 3, 2, padding="same", use_bias=False, name="Conv1")(x)
    x = _normalise(x, layers, "bn_Conv1", relu="Conv1_relu")
    blocks = [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]
    number = 0
    for expansion, filters, repeats, stride in blocks:
        for repeat in range(repeats):
            name = f"block_{number}" if number else "expanded_conv"
            before, inside = x, int(x.shape[-1])
            if expansion > 1:
                x = layers.Conv2D(inside * expansion, 1, use_bias=False, name=f"{name}_expand")(x)
                x = _normalise(x, layers, f"{name}_expand_BN", relu=f"{name}_expand_relu")
            step = stride if repeat == 0 else 1
            x = layers.DepthwiseConv2D(3, step, padding="same", use_bias=False, name=f"{name}_depthwise")(x)
            x = _normalise(x, layers, f"{name}_depthwise_BN", relu=f"{name}_depthwise_relu")
            x = layers.Conv2D(channels(filters), 1, use_bias=False, name=f"{name}_project")(x)
            x = _normalise(x, layers, f"{name}_project_BN")
            if step == 1 and inside == channels(filters):
                x = layers.Add(name=f"{name}_add")([before, x])
            number += 1
    x = layers.Conv2D(max(1280, channels(1280)), 1, use_bias=False, name="Conv_1")(x)
    return _normalise(x, layers, "Conv_1_bn", relu="out_relu")


def _plain_cnn(x: Any, layers: Any) -> Any:
    """Return the features of a plain CNN: five stages of 3x3 convolutions, each halving the resolution."""
    for stage, filters in enumerate((16, 32, 64, 96, 160), start=1):
        x = layers.Conv2D(filters, 3, 2, padding="same", use_bias=False, name=f"conv_{stage}")(x)
        x = _normalise(x, layers, f"bn_{stage}", relu=f"relu_{stage}")
    return x


# Channels of each stage's convolutions. The first convolution of a stage has a stride of 2. The numbers were chosen by
# INT8 latency: dense 3x3 convolutions gain twice as much from 8 bits as depthwise ones.
_REP_STAGES = ((16,), (32,), (64, 64), (128, 128), (192, 192))


def _rep_cnn(x: Any, layers: Any, *, branched: bool) -> Any:
    """Return the features of plain 3x3 convolutions (RepVGG, Ding et al., CVPR 2021).

    In training each has a 1x1 branch and an identity branch beside it. ReLU6 replaces ReLU, because 8 bits
    resolve its range well.
    """
    for stage, filters in enumerate(_REP_STAGES, start=1):
        for place, count in enumerate(filters, start=1):
            name, stride = f"rep_{stage}_{place}", 2 if place == 1 else 1
            if branched:
                parts = []
                for window in (3, 1):
                    part = f"{name}_{window}x{window}"
                    y = layers.Conv2D(count, window, stride, padding="same", use_bias=False, name=part)(x)
                    parts.append(_normalise(y, layers, f"{part}_bn"))
                if stride == 1 and int(x.shape[-1]) == count:
                    parts.append(_normalise(x, layers, f"{name}_identity_bn"))
                x = layers.Add(name=f"{name}_sum")(parts)
            else:
                x = layers.Conv2D(count, 3, stride, padding="same", name=name)(x)
            x = layers.ReLU(6.0, name=f"{name}_relu")(x)
    return x


BRANCHED: dict[str, Callable[[Any, Any], Any]] = {
    "rep_cnn": lambda x, layers: _rep_cnn(x, layers, branched=True),
}
ARCHITECTURES: dict[str, Callable[[Any, Any], Any]] = {
    "mobilenet_v2": lambda x, layers: _mobilenet_v2(x, layers, 1.0),
    "mobilenet_v2_050": lambda x, layers: _mobilenet_v2(x, layers, 0.5),
    "mobilenet_v2_035": lambda x, layers: _mobilenet_v2(x, layers, 0.35),
    "efficientnet_lite0": lambda x, layers: efficientnet_lite(x, layers, _normalise),
    "efficientnet_lite2": lambda x, layers: efficientnet_lite(x, layers, _normalise, width=1.1, depth=1.2),
    "plain_cnn": _plain_cnn,
    "rep_cnn": lambda x, layers: _rep_cnn(x, layers, branched=False),
}
