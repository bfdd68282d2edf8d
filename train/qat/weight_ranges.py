"""The range that each output channel's weights are rounded over, plain or such that no 16-bit sum saturates."""

from __future__ import annotations

from typing import Any, Literal

__all__ = ["Pairs", "weight_limits"]

# Weights whose products a 16-bit sum can join (``weight_limits``).
Pairs = Literal["none", "adjacent", "any"]
# Share of the layer's widest channel below which no channel's range falls: a bias of 13 then fits behind the
# pixels.
_NARROWEST = 1e-4


def weight_limits(flat: Any, ops: Any, *, pairs: Pairs = "none") -> Any:
    """The range +-limit of each channel, (channels,), for weights (anything, channels); ``ops`` is ``keras.ops``.

    Plain, it is the largest magnitude. On CPUs without VNNI, onnxruntime and oneDNN multiply u8 by s8 with
    vpmaddubsw, which adds two products in 16 bits and saturates. ``pairs`` says which weights such a sum can
    join: ``adjacent`` rows of ``flat`` (input channels of a 1x1 kernel, in the order in which every engine
    packs them), or ``any`` two (larger kernels, which engines unroll differently). Where two of one sign add
    up to more than the largest magnitude, the limit is their sum: their integers then add up to at most 127
    and twice 1/2 of rounding, and 255 * 128 = 32640 fits 16 bits. Halving the integers would be safe too,
    and loses more.
    """
    limit = ops.max(ops.abs(flat), axis=0)
    if pairs == "adjacent" and flat.shape[0] > 1:
        # Products of opposite sign cancel, so the plain sum's magnitude is what counts, or one of the two
        # alone.
        limit = ops.maximum(limit, ops.max(ops.abs(flat[1:] + flat[:-1]), axis=0))
    elif pairs == "any" and flat.shape[0] > 1:
        channels = ops.transpose(flat)
        for signed in (channels, -channels):
            largest = ops.relu(ops.top_k(signed, k=2)[0])
            limit = ops.maximum(limit, ops.sum(largest, axis=1))
    # A dead channel still needs a range, and one wide enough for its bias: 32 bits at input scale x weight
    # scale.
    return ops.maximum(limit, _NARROWEST * ops.max(limit) + 1e-8)
