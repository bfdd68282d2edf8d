"""EfficientNet-Lite: EfficientNet made for 8-bit hardware, without squeeze-and-excitation and with ReLU6.

Tan and Le, ICML 2019; the Lite variants are TensorFlow's (tpu/models/official/efficientnet/lite, 2020). Layers bear
the names that ``keras.applications`` gives those of EfficientNet.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

__all__ = ["efficientnet_lite"]

# Expansion, channels, repeats, stride and kernel of each stage. Lite scales neither the stem (32) nor the top (1280),
# nor how often the first and the last stage repeat.
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
    """Scaled pixels (N, size, size, 3) to features (N, size / 32, size / 32, 1280).

    Lite0 has ``width`` and ``depth`` 1, Lite2 1.1 and 1.2. ``normalise(x, layers, name, relu=)`` is batch
    normalisation, and ReLU6 of the name ``relu`` where one is given. Strided convolutions pad "same", which on even
    sizes is what the padding layers of ``keras.applications`` do.
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
