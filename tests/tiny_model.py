"""Write a model file of a few kilobytes that keeps the whole contract, for tests that need any model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from capsule_edge.runtime.inference import (
    METADATA_KEY,
    EventParameters,
    InputSpec,
    Label,
    ModelSpec,
    OperatingPoint,
)

LABELS = ("normal", "bleeding", "polyp")


def tiny_spec(labels: Sequence[str] = LABELS, size: int = 32, **overrides: Any) -> ModelSpec:
    """Return a ModelSpec for label keys. ``normal`` has that role, all others are findings.

    ``overrides`` replace fields of the spec.
    """
    spec = ModelSpec(
        name="tiny",
        version="0",
        precision="fp32",
        labels=tuple(
            Label(key, key.replace("_", " ").capitalize(), "normal" if key == "normal" else "finding")
            for key in labels
        ),
        input=InputSpec(size=size),
        temperature=1.0,
        operating_points={key: OperatingPoint(0.5) for key in labels if key != "normal"},
        events=EventParameters(),
        license="CC0-1.0",
        provenance={"data": "none, random weights"},
    )
    return replace(spec, **overrides)


def write_tiny_model(
    path: str | Path,
    *,
    labels: Sequence[str] = LABELS,
    size: int = 32,
    seed: int = 0,
    noise: float = 0.0,
    gain: float = 2.0,
    metadata: bool = True,
    **overrides: Any,
) -> Path:
    """Write an ONNX file of two convolutions with random weights, and return its path.

    Args:
        path: The file to write.
        labels: The label keys.
        size: Width and height of the input in pixels.
        seed: Seed of the random weights.
        noise: Size of the noise added to the classifier's weights, relative to theirs; it stands for quantisation.
        gain: Scale of the logits.
        metadata: Whether the file carries its ModelSpec.
        overrides: Fields of the ModelSpec to replace.
    """
    spec = tiny_spec(labels, size, **overrides)
    random = np.random.default_rng(seed)
    conv_1 = random.normal(0, 0.4, (8, 3, 3, 3))
    conv_2 = random.normal(0, 0.2, (16, 8, 3, 3))
    dense = random.normal(0, gain, (len(labels), 16, 1, 1))
    dense += noise * gain * np.random.default_rng(seed + 1).normal(0, 1, dense.shape)
    bias = random.normal(0, 0.1, len(labels))
    constants = {
        "offset": np.array(128.0),
        "scale": np.array(1 / 128),
        "temperature": np.array(spec.temperature),
        "conv_1": conv_1,
        "conv_2": conv_2,
        "dense": dense,
        "bias": bias,
    }
    strided = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["pixels", "offset"], ["centred"]),
        helper.make_node("Mul", ["centred", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["x"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["x", "conv_1"], ["c1"], **strided),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "conv_2"], ["c2"], **strided),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("Conv", ["r2", "dense"], ["maps"]),
        helper.make_node("Transpose", ["maps"], ["features"], perm=[0, 2, 3, 1]),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Add", ["flat", "bias"], ["logits"]),
        helper.make_node("Div", ["logits", "temperature"], ["tempered"]),
        helper.make_node("Softmax", ["tempered"], ["probabilities"], axis=1),
    ]
    count, side = len(labels), (size + 3) // 4
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", size, size, 3])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", count]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", count]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", side, side, count]),
        ],
        [numpy_helper.from_array(np.float32(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if metadata:
        helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    onnx.checker.check_model(model)
    path = Path(path)
    path.write_bytes(model.SerializeToString())
    return path
