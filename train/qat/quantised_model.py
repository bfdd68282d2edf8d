"""Build the QAT model from an FP32 model, calibrate it, save it and load it.

Batch normalisation is folded into the convolution before it, with the statistics of FP32 training. The QAT
model therefore quantises the same weights as the TFLite and the ONNX file. All three hold the same integers
and add up the same products, so a range that keeps these sums from saturating in QAT does so in the files too.
``calibrate`` sets the ranges, and training refines them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow_model_optimization as tfmot
import tf_keras

from capsule_edge.runtime.errors import InputError, ModelError, UsageError

from ..models import weights as weight_files
from .fold_batch_norm import FoldedLayer, fold_layers, kernel_of, short_name
from .integer_layers import IntegerWrapper as _Wrapper
from .quantizers import INITIAL_RANGE, INPUT_RANGE, LayerConfig, RangeObserver, WeightQuantizer
from .residual_scales import align_sums
from .weight_ranges import Pairs, weight_limits

__all__ = [
    "calibrate",
    "check_ranges",
    "current_ranges",
    "freeze_observers",
    "is_saturation_safe",
    "load_qat",
    "observed_ranges",
    "pairs_of",
    "quantize",
    "refresh_weights",
    "save_qat",
    "set_ranges",
]

_layers = tf_keras.layers
_SAFE_KEY = "qat/saturation_safe"


def quantize(model: Any, *, saturation_safe: bool = False) -> Any:
    """Return a tf_keras model that emulates ``model`` in INT8, with its weights and uncalibrated ranges.

    It trains on float emulation, and computes with the integers of the exported files in inference
    (``integer_layers``). Batch normalisation is folded into the convolutions.

    Args:
        model: a flat functional tf_keras model that maps float32 (N, s, s, 3) in [-1, 127/128] to logits.
        saturation_safe: widen the ranges of weights so that CPUs without VNNI do not saturate
            (``weight_ranges.weight_limits``).

    Raises:
        UsageError: a layer cannot be quantised (the message names it), or the model is nested, not functional
            or of Keras 3.
    """
    if not isinstance(model, tf_keras.Model) or not getattr(model, "_is_graph_network", False):
        raise UsageError(
            f"the model is a {type(model).__module__}.{type(model).__name__}, needed is a functional tf_keras model",
            hint="build it with capsule_edge.train.models.architectures.build(..., keras=tf_keras)",
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UsageError(
            f"the model has {len(model.inputs)} inputs and {len(model.outputs)} outputs, allowed is one each"
        )
    steps = fold_layers(model)
    inputs = tf_keras.Input(model.inputs[0].shape[1:], name=model.inputs[0].name.split(":")[0])
    pixels = _layers.Activation("linear", name="pixels_range")
    low, high = INPUT_RANGE
    pinned = tfmot.quantization.keras.quantizers.FixedQuantizer(8, low, high, narrow_range=False)
    tensors = {id(model.inputs[0]): _Wrapper(pixels, LayerConfig(output=pinned))(inputs)}
    ranges: dict[int, Any] = {id(model.inputs[0]): {"min_var": np.float32(low), "max_var": np.float32(high)}}
    fused: dict[int, tuple[Any, list[Any]]] = {}
    for step in steps:
        given = [tensors[id(tensor)] for tensor in step.inputs]
        layer = step.layer.__class__.from_config(step.config)
        wrapped = _Wrapper(layer, _config(step, saturation_safe)) if step.quantized else layer
        tensors[id(step.output)] = wrapped(given[0] if len(given) == 1 else given)
        if step.weights:
            _assign(wrapped, step.weights)
        if step.fused_relu:
            fused[id(step.output)] = wrapped, [ranges[id(tensor)] for tensor in step.inputs]
        elif not step.quantized:
            ranges[id(step.output)] = ranges[id(step.inputs[0])]
        else:
            target = ranges[id(step.output)] = wrapped._output_quantizer_vars
            if id(step.inputs[0]) in fused:
                before, sources = fused[id(step.inputs[0])]
                before.connect(sources, target)
                wrapped.connect([target], target)
            else:
                wrapped.connect([ranges[id(tensor)] for tensor in step.inputs], target)
    return tf_keras.Model(inputs, tensors[id(model.outputs[0])], name=f"{model.name}_qat")


def pairs_of(layer: Any) -> Pairs:
    """Return the kind of weight pairs whose products an engine may add in 16 bits (``weight_limits``).

    Depthwise kernels are widened to 16 bits before they are multiplied, so nothing saturates there.
    """
    if isinstance(layer, _layers.DepthwiseConv2D):
        return "none"
    return "adjacent" if getattr(layer, "kernel_size", (1, 1)) == (1, 1) else "any"


def _config(step: FoldedLayer, saturation_safe: bool) -> LayerConfig:
    """Return what the wrapper of a layer quantises."""
    layer, name = step.layer, kernel_of(step.layer)
    weights = None
    if name:
        pairs = pairs_of(step.layer) if saturation_safe else "none"
        weights = WeightQuantizer(depthwise=name == "depthwise_kernel", pairs=pairs)
    activation = layer.activation.__name__ if name else ""
    relu = isinstance(layer, _layers.ReLU) or activation in ("relu", "relu6")
    ceiling = 6.0 if activation == "relu6" else getattr(layer, "max_value", None)
    # Behind the pooling there are no outliers to cut off, and clipping there would hide findings.
    head = isinstance(layer, (_layers.Dense, _layers.GlobalAveragePooling2D))
    observer = RangeObserver(nonnegative=relu, extreme=head)
    return LayerConfig(
        kernel=name,
        weights=weights,
        output=None if step.fused_relu else observer,
        source=step.source,
        ceiling=None if ceiling is None else float(ceiling),
    )


def _assign(wrapped: Any, arrays: dict[str, npt.NDArray[np.float32]]) -> None:
    for variable in wrapped.weights:
        if short_name(variable) in arrays:
            variable.assign(arrays[short_name(variable)])


def _wrappers(model: Any) -> Iterator[Any]:
    return (layer for layer in model.layers if isinstance(layer, _Wrapper))


def _observed(model: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield each wrapper whose output range is observed, with the variables of the range."""
    for wrapper in _wrappers(model):
        if isinstance(wrapper.quantize_config.output, RangeObserver):
            yield wrapper, wrapper._output_quantizer_vars


def calibrate(qat_model: Any, fp32_model: Any, batches: Iterable[npt.NDArray[np.float32]]) -> None:
    """Set every range from the values that the FP32 model computes.

    A range is the mean over batches of the batch's minimum and maximum; for the pooled mean and the logits it
    is the outermost values of all batches. The ranges of weights come from the weights.

    Args:
        qat_model: the model to calibrate.
        fp32_model: the model that was quantised.
        batches: float32 (N, s, s, 3) in [-1, 127/128].

    Raises:
        InputError: there is no batch.
    """
    points = observed_ranges(qat_model)
    watched = tf_keras.Model(
        fp32_model.inputs, [fp32_model.get_layer(point.source).output for point in points]
    )
    lows, highs = [], []
    for batch in batches:
        values = watched(batch, training=False)
        values = values if isinstance(values, list | tuple) else [values]
        lows.append([float(np.min(value)) for value in values])
        highs.append([float(np.max(value)) for value in values])
    if not lows:
        raise InputError(
            "there is no batch to calibrate the quantised model on", hint="pass at least one batch of frames"
        )
    ranges = {}
    for point, low, high in zip(points, np.transpose(lows), np.transpose(highs), strict=True):
        ends = (low.min(), high.max()) if point.extreme else (low.mean(), high.mean())
        ranges[point.layer] = (float(ends[0]), float(ends[1]))
    set_ranges(qat_model, ranges)


@dataclass(frozen=True)
class ObservedRange:
    """A quantised output and the source of its range.

    ``layer`` names the quantised layer, ``source`` the FP32 layer that computes the same values. If ``extreme`` is
    True, the range covers the outermost values seen, so that none is clipped.
    """

    layer: str
    source: str
    extreme: bool


def observed_ranges(qat_model: Any) -> list[ObservedRange]:
    """Return every output whose range is observed, in the model's order."""
    configs = [(wrapper.layer.name, wrapper.quantize_config) for wrapper, _ in _observed(qat_model)]
    return [ObservedRange(name, config.source, config.output.extreme) for name, config in configs]


def current_ranges(qat_model: Any) -> dict[str, tuple[float, float]]:
    """Return (low, high) of every observed output, by layer name."""
    return {
        wrapper.layer.name: (float(variables["min_var"]), float(variables["max_var"]))
        for wrapper, variables in _observed(qat_model)
    }


def set_ranges(qat_model: Any, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Set the ranges of all observed outputs by layer name, and the ranges of weights from the weights.

    Args:
        qat_model: the model.
        ranges: (low, high) for each observed layer.
    """
    for wrapper, variables in _observed(qat_model):
        low, high = ranges[wrapper.layer.name]
        variables["min_var"].assign(min(0.0, low))
        variables["max_var"].assign(max(0.0, high))
        # Let the moving average count as settled, so that a single training batch does not overturn the calibration.
        variables["seen"].assign(1 / (1 - wrapper.quantize_config.output.decay))
    align_sums(qat_model)
    refresh_weights(qat_model)


def refresh_weights(qat_model: Any) -> None:
    """Set the ranges of weights from the current weights. Training does this at each step."""
    for wrapper in _wrappers(qat_model):
        for variable, quantizer, ranges in wrapper._weight_vars:
            flat = np.reshape(variable.numpy(), (-1, ranges["min_var"].shape[0]))
            limit = weight_limits(flat, keras.ops, pairs=quantizer.pairs)
            ranges["min_var"].assign(-limit)
            ranges["max_var"].assign(limit)


def freeze_observers(qat_model: Any, *, frozen: bool = True) -> None:
    """Freeze the ranges of activations from now on, or release them; a running ``fit`` obeys at once.

    Before freezing, the ranges that meet in a residual sum are aligned (``residual_scales``).
    """
    if frozen:
        align_sums(qat_model)
    for wrapper, variables in _observed(qat_model):
        settled = 1 / (1 - wrapper.quantize_config.output.decay)
        variables["seen"].assign(np.inf if frozen else settled)


def check_ranges(qat_model: Any) -> None:
    """Raise ``ModelError`` that names the first layer whose range was never set or is invalid."""
    for wrapper, variables in _observed(qat_model):
        config = wrapper.quantize_config
        low, high = float(variables["min_var"]), float(variables["max_var"])
        ceiling = np.inf if config.ceiling is None else config.ceiling
        fault = ""
        if float(variables["seen"]) == 0 or (low, high) == INITIAL_RANGE:
            fault = "was never calibrated"
        elif not (np.isfinite(low) and np.isfinite(high) and low <= 0 < high):
            fault = "is no range around 0"
        elif config.output.nonnegative and (low != 0 or high > ceiling + 1e-3):
            fault = f"is not within [0, {ceiling:g}] behind a ReLU"
        if fault:
            raise ModelError(
                f"the range of layer {wrapper.layer.name!r}, [{low:g}, {high:g}], {fault}",
                hint="call calibrate() on frames before training and export",
            )


def save_qat(path: Path, qat_model: Any) -> None:
    """Write the QAT model's weights and ranges to a ``.npz`` file with keys ``layer/variable``.

    Raises:
        OutputError: the file cannot be written.
    """
    arrays = {k: v for k, v in weight_files.collect(qat_model).items() if not k.endswith("/optimizer_step")}
    arrays[_SAFE_KEY] = np.asarray(is_saturation_safe(qat_model), np.float32)
    weight_files.save(path, arrays)


def load_qat(path: Path, fp32_model: Any) -> Any:
    """Return the QAT model that ``save_qat`` wrote.

    Args:
        path: the file.
        fp32_model: an FP32 model of the same architecture.

    Raises:
        InputError: the file cannot be read, holds no QAT model, or belongs to another architecture.
    """
    arrays = weight_files.load(path)
    if _SAFE_KEY not in arrays:
        raise InputError(f"{path} holds no QAT model: {_SAFE_KEY} is absent")
    model = quantize(fp32_model, saturation_safe=bool(arrays[_SAFE_KEY]))
    for layer in model.layers:
        for variable in layer.weights:
            name = f"{layer.name}/{short_name(variable)}"
            if name.endswith("/optimizer_step"):
                continue
            if name not in arrays or arrays[name].shape != tuple(variable.shape):
                found = f"has shape {arrays[name].shape}" if name in arrays else "is absent"
                raise InputError(
                    f"{path} is not of {fp32_model.name}: {name} of shape {tuple(variable.shape)} {found}"
                )
            variable.assign(arrays[name])
    align_sums(model)
    return model


def is_saturation_safe(qat_model: Any) -> bool:
    """Return whether the ranges of weights are widened against saturation."""
    quantizers = [quantizer for wrapper in _wrappers(qat_model) for _, quantizer, _ in wrapper._weight_vars]
    return any(quantizer.pairs != "none" for quantizer in quantizers)
