"""EfficientNet-Lite: EfficientNet for 8-bit hardware, without squeeze-and-excitation and with ReLU6.

Tan and Le, ICML 2019; the Lite variants are TensorFlow's (tpu/models/official/efficientnet/lite, 2020).
Layers have the names of EfficientNet in ``keras.applications``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

__all__ = ["efficientnet_lite"]

# Expansion, channels, repeats, stride and kernel of each stage. Lite scales neither the channels of the stem (32) and
# of the top (1280) nor the repeats of the first and the last stage.
_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)


def efficientnet_lite(
    x: Any, layers: Any, normalise: Callable[..., Any], *, width: float = 1.0, depth: float = 1.0
) -> Any:
    """Return the features of EfficientNet-Lite, (N, size / 32, size / 32, 1280).

    Strided convolutions pad "same"; on even sizes this equals the padding layers of ``keras.applications``.

    Args:
        x: scaled pixels (N, size, size, 3).
        layers: ``tf_keras.layers`` or ``keras.layers``.
        normalise: ``normalise(x, layers, name, relu=)`` adds batch normalisation and, if ``relu`` is a name,
            ReLU6.
        width: factor of the channels: 1 for Lite0, 1.1 for Lite2.
        depth: factor of the repeats: 1 for Lite0, 1.2 for Lite2.
    """
    x = layers.Conv2D(32, 3, 2, padding="same", use_bias=False, name="stem_conv")(x)
    x = normalise(x, layers, "stem_bn", relu="stem_activation")
    for stage, (expansion, channels, count, stride, kernel) in enumerate(_STAGES, start=1):
        filters = _round_to_eight(channels * width)
        repeats = count if stage in (1, len(_STAGES)) else math.ceil(count * depth)
        for repeat in range(repeats):
            name, before, inside = f"block{stage}{chr(ord('a') + repeat)}", x, int(x.shape[-1])
            if expansion > 1:
                x = layers.Conv2D(inside * expansion, 1, use_bias=False, name=f"{name}_expand_conv")(x)
                x = normalise(x, layers, f"{name}_expand_bn", relu=f"{name}_expand_activation")
            step = stride if repeat == 0 else 1
            x = layers.DepthwiseConv2D(kernel, step, padding="same", use_bias=False, name=f"{name}_dwconv")(x)
            x = normalise(x, layers, f"{name}_bn", relu=f"{name}_activation")
            x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_project_conv")(x)
            x = normalise(x, layers, f"{name}_project_bn")
            if step == 1 and inside == filters:
                x = layers.Add(name=f"{name}_add")([before, x])
    x = layers.Conv2D(1280, 1, use_bias=False, name="top_conv")(x)
    return normalise(x, layers, "top_bn", relu="top_activation")


def _round_to_eight(channels: float) -> int:
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
