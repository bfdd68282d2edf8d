"""The range over which each output channel's weights are rounded, plain or safe from saturation."""

from __future__ import annotations

from typing import Any, Literal

__all__ = ["Pairs", "weight_limits"]

# Which weights a 16-bit sum can join (``weight_limits``).
Pairs = Literal["none", "adjacent", "any"]
# The narrowest range of a channel, as a share of the layer's widest. A bias of 13 then fits behind the pixels.
_NARROWEST = 1e-4


def weight_limits(flat: Any, ops: Any, *, pairs: Pairs = "none") -> Any:
    """Return the limit of each channel's range, which goes from -limit to +limit.

    Without ``pairs`` the limit is the largest magnitude. On CPUs without VNNI, onnxruntime and oneDNN
    multiply u8 by s8 with vpmaddubsw, which adds two products in 16 bits and saturates. If two weights of the
    same sign can meet in such a sum and add up to more than the largest magnitude, the limit is their sum.
    Their integers then add up to at most 127, plus twice 1/2 of rounding, and 255 * 128 = 32640 fits 16 bits.
    Halving all integers would be safe too and loses more.

    Args:
        flat: weights (anything, channels).
        ops: ``keras.ops``.
        pairs: which weights a 16-bit sum can join. "none": no sum saturates. "adjacent": neighbouring rows of
            ``flat``, the input channels of a 1x1 kernel in the order in which every engine packs them. "any":
            any two rows, for larger kernels, which engines unroll differently.

    Returns:
        (channels,), above 0.
    """
    limit = ops.max(ops.abs(flat), axis=0)
    if pairs == "adjacent" and flat.shape[0] > 1:
        # Products of opposite sign cancel, so only the magnitude of the sum counts, or of one weight alone.
        limit = ops.maximum(limit, ops.max(ops.abs(flat[1:] + flat[:-1]), axis=0))
    elif pairs == "any" and flat.shape[0] > 1:
        channels = ops.transpose(flat)
        for signed in (channels, -channels):
            largest = ops.relu(ops.top_k(signed, k=2)[0])
            limit = ops.maximum(limit, ops.sum(largest, axis=1))
    # A dead channel still needs a range, wide enough for its bias: 32 bits at input scale x weight scale.
    return ops.maximum(limit, _NARROWEST * ops.max(limit) + 1e-8)
