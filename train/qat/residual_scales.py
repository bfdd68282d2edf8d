"""Choose the scales around a residual Add so that all engines round its sum alike.

An engine adds two 8-bit inputs, a and b. The output in steps is (a x scale of a + b x scale of b) / scale of
the output. onnxruntime computes this in float32, XNNPACK with fixed-point factors of 21 bits. If the result
lies next to the midpoint between two steps, the two engines may round it to different steps, and later layers
amplify the difference (11 steps of a logit were seen). ``align_sums`` makes all scales whole multiples
of one unit, and the scale of the output an odd multiple, n units. The result is then a whole multiple of 1/n,
so it is at least 1/(2n) away from every midpoint.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from .integer_layers import IntegerWrapper, Ranges, grid_of

__all__ = ["align_sums"]

# The largest scale of a group, in units. A sum then stays at least 1/1022 from a middle. XNNPACK's factors are off by
# up to 2.4e-4, float32 by 2e-4. A scale of a twentieth of the largest is widened by at most 4 %,
# that of a sum by at most 8 %.
_UNITS = 511


def align_sums(qat_model: Any) -> None:
    """Align the ranges that meet in residual sums.

    Widen them until their scales are whole multiples of a unit, odd multiples for the sums. A range behind a
    ReLU with a ceiling is narrowed instead. Aligning twice changes nothing more.
    """
    ceilings, sums = set(), set()
    groups: dict[int, dict[int, Ranges]] = {}
    for wrapper in qat_model.layers:
        if not isinstance(wrapper, IntegerWrapper) or wrapper.connected is None:
            continue
        given, target = wrapper.connected
        if wrapper.quantize_config.ceiling is not None:
            ceilings.add(_key(target))
        if isinstance(wrapper.layer, tf_keras.layers.Add):
            sums.add(_key(target))
            joined = {_key(ranges): ranges for ranges in [*given, target]}
            for key in list(joined):
                joined |= groups.get(key, {})
            groups |= dict.fromkeys(joined, joined)
    for group in {id(group): group for group in groups.values()}.values():
        if all(isinstance(ranges["min_var"], tf.Variable) for ranges in group.values()):  # not the pixels
            _align(group, sums, ceilings)


def _align(group: dict[int, Ranges], sums: set[int], ceilings: set[int]) -> None:
    """Set the ranges of one group."""
    grids = {key: grid_of(ranges) for key, ranges in group.items()}
    unit = max(float(grid.scale) for grid in grids.values()) / _UNITS
    for key, ranges in group.items():
        # A scale that is a whole multiple already may be off by float32's 1e-7 of 511.
        exact = float(grids[key].scale) / unit
        steps = math.floor(exact + 1e-3) if key in ceilings else math.ceil(exact - 1e-3)
        if key in sums and steps % 2 == 0:
            steps += -1 if key in ceilings else 1
        zero, scale = float(grids[key].zero), max(1, steps) * unit
        ranges["min_var"].assign(np.float32(-zero * scale))
        ranges["max_var"].assign(np.float32((255 - zero) * scale))


def _key(ranges: Ranges) -> int:
    return id(ranges["min_var"])
