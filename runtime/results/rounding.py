"""How a number is written: six decimals, microseconds, and finer than a float32 probability is worth."""

from __future__ import annotations

import math

__all__ = ["rounded"]


def rounded(value: float | None) -> float | None:
    """Six decimals; never a NaN, an infinity or a minus zero, on which readers of JSON do not agree."""
    return None if value is None or not math.isfinite(value) else round(float(value), 6) + 0.0
