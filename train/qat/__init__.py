"""Quantisation-aware training: fold normalisation, insert quantisers, equalise channels, keep float layers.

In: a trained Keras FP32 model. Out: a Keras model that computes with INT8 weights and activations.
Must not know: file formats of export.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .channels import group_channels
    from .equalisation import equalise, snap
    from .float_layers import keep_float, layers_with_weights
    from .fold_batch_norm import kernel_of, short_name
    from .integer_layers import IntegerWrapper
    from .quantised_model import check_ranges, is_saturation_safe, observed_ranges, quantize, set_ranges
    from .quantizers import INPUT_RANGE, LayerConfig, RangeObserver, WeightQuantizer
    from .weight_ranges import Pairs, weight_limits
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        channels="group_channels",
        equalisation="equalise snap",
        float_layers="keep_float layers_with_weights",
        fold_batch_norm="kernel_of short_name",
        integer_layers="IntegerWrapper",
        quantised_model="check_ranges is_saturation_safe observed_ranges quantize set_ranges",
        quantizers="INPUT_RANGE LayerConfig RangeObserver WeightQuantizer",
        weight_ranges="Pairs weight_limits",
    )

__all__ = [
    "INPUT_RANGE",
    "IntegerWrapper",
    "LayerConfig",
    "Pairs",
    "RangeObserver",
    "WeightQuantizer",
    "check_ranges",
    "equalise",
    "group_channels",
    "is_saturation_safe",
    "keep_float",
    "kernel_of",
    "layers_with_weights",
    "observed_ranges",
    "quantize",
    "set_ranges",
    "short_name",
    "snap",
    "weight_limits",
]
