"""Follow the first operations of a graph: the part that scales pixels and turns their axes, before the network begins.

Files of Keras begin with Rescaling and Normalization, which become Mul, Sub and Div with constants; tf2onnx adds a
Transpose. What these operations do to a pixel is read here, so that it can be joined with the scaling and moved into
the first convolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from .facts import Layout
from .graph import Graph, read_attribute

__all__ = ["InputChain", "follow_input", "implied_scaling", "stated_scaling"]

Factors = npt.NDArray[np.float64]
_ARITHMETIC = ("Add", "Sub", "Mul", "Div")
# The widths of range that networks are trained on: scaled values spread over some 1 to 6, or keep their 255 levels.
_NARROWEST, _WIDEST = 0.5, 12.0
# A caffe scaling takes off a mean of about half the levels.
_CAFFE = (90.0, 140.0)
# Where values of 0 to 1 are expected, the mean of the colours that is taken off is at least this. Statistics of values
# of -1 to 1 with so large a mean would be those of pictures that are all but white.
_LEAST_MEAN = 1 / 3


@dataclass(frozen=True)
class InputChain:
    """The first operations of a graph, as one factor and one summand for each channel.

    Attributes:
        end: The value that they compute; the input's name if there are none.
        layout: The order of its axes.
        gain: The factor of each channel, float64 (3,).
        offset: The summand of each channel, float64 (3,).
        operators: The kinds of the operations that scale, in order.
    """

    end: str
    layout: Layout
    gain: Factors
    offset: Factors
    operators: tuple[str, ...] = ()


def follow_input(graph: Graph, name: str, layout: Layout) -> InputChain:
    """Follow the input to the first operation that does more than scale channels or turn axes."""
    chain = InputChain(name, layout, np.ones(3), np.zeros(3))
    while node := graph.sole_reader(chain.end):
        following = _through(graph, node, chain)
        if following is None:
            return chain
        chain = following
    return chain


def _through(graph: Graph, node: onnx.NodeProto, chain: InputChain) -> InputChain | None:
    """Return the chain with one more operation; None if the operation does not belong to it."""
    end, kind = node.output[0], node.op_type
    if kind in ("Identity", "Dropout") or (
        kind == "Cast" and read_attribute(node, "to") == TensorProto.FLOAT
    ):
        return InputChain(end, chain.layout, chain.gain, chain.offset, chain.operators)
    if kind == "Transpose":
        turned = _turned(chain.layout, read_attribute(node, "perm"))
        return turned and InputChain(end, turned, chain.gain, chain.offset, chain.operators)
    if kind not in _ARITHMETIC:
        return None
    first = node.input[0] == chain.end
    values = graph.constant(node.input[1 if first else 0])
    factors = None if values is None else _by_channel(values, chain.layout)
    if factors is None or not np.isfinite(factors).all() or (kind == "Div" and not first):
        return None
    # A factor of 0 leaves nothing of a channel, so no level belongs to its values.
    if kind in ("Mul", "Div") and not factors.all():
        return None
    gain, offset = chain.gain, chain.offset
    if kind == "Mul":
        gain, offset = gain * factors, offset * factors
    elif kind == "Div":
        gain, offset = gain / factors, offset / factors
    elif kind == "Add":
        offset = offset + factors
    elif first:
        offset = offset - factors
    else:
        gain, offset = -gain, factors - offset
    return InputChain(end, chain.layout, gain, offset, (*chain.operators, kind))


def _turned(layout: Layout, order: object) -> Layout | None:
    if layout == "nhwc" and list(order or ()) == [0, 3, 1, 2]:  # type: ignore[call-overload]
        return "nchw"
    if layout == "nchw" and list(order or ()) == [0, 2, 3, 1]:  # type: ignore[call-overload]
        return "nhwc"
    return None


def _by_channel(values: npt.NDArray[np.generic], layout: Layout) -> Factors | None:
    """Return a constant as one number for each channel; None if it varies over the picture."""
    if values.size == 1:
        return np.full(3, float(values.reshape(-1)[0]))
    axis = -1 if layout == "nhwc" else -3
    if values.size != 3 or values.ndim < -axis or values.shape[axis] != 3:
        return None
    return np.asarray(values.reshape(-1), np.float64)


def stated_scaling(chain: InputChain) -> str | None:
    """Return the scaling that the first operations imply for the input of the file; None if they imply none."""
    return implied_scaling(chain.gain, chain.offset) if chain.operators else None


def implied_scaling(gain: Factors, offset: Factors) -> str | None:
    """Return the range of pixels that is expected by a network which computes ``gain * pixel + offset`` first.

    Dividing by 255 expects levels of 255. Taking off 0.485 and dividing by 0.229 expects values of 0 to 1. The whole
    map is judged: 0 must lie within the range that it makes of the pixels. So ``(x + 1) / 2``, which is for pixels of
    -1 to 1, and ``2 * x``, which may be for either, state nothing.

    Args:
        gain: The factor of each channel.
        offset: The summand of each channel.

    Returns:
        ``0..255``, ``0..1``, or None where both are conceivable, or neither is.
    """
    if not (np.isfinite(gain).all() and np.isfinite(offset).all() and np.all(gain)):
        return None
    # ``mean`` becomes 0: that of the pixels, where a network was trained on centred ones.
    width, mean = np.abs(gain), -offset / gain
    centred = bool(np.all(np.isclose(width, 1)) and _between(mean, *_CAFFE))
    levels = centred or (_between(width * 255, _NARROWEST, _WIDEST) and _between(mean, 0, 255))
    shares = _between(width, _NARROWEST, _WIDEST) and not np.allclose(width, 1) and _between(mean, 0, 1)
    if levels == shares or (shares and mean.mean() < _LEAST_MEAN):
        return None
    return "0..255" if levels else "0..1"


def _between(values: Factors, low: float, high: float) -> bool:
    # Statistics in float32 miss a bound by little.
    slack = 1e-6 * (high - low)
    return bool(np.all((values >= low - slack) & (values <= high + slack)))
