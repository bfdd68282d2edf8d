"""Write the probe: a small model that shows whether an engine saturates in 16 bits on a CPU.

    python -m capsule_edge.export.tools.saturation_probe

The probe keeps the whole contract of a model file (8 x 8 pixels, two labels). A white frame makes each of 64 channels
255. The next layer multiplies all of them by 127, so two products sum to 64,770, twice what 16 bits hold. An engine
that adds them in 16 bits (see ``export.verify.saturation``) answers half of what the others do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from capsule_edge.runtime.diagnostics import PROBE, PROBE_LOGIT, probe_path
from capsule_edge.runtime.inference import METADATA_KEY, EventParameters, InputSpec, Label, ModelSpec

__all__ = ["build_probe"]

_CHANNELS = 64
_SIZE = 8
# The value of a white pixel: (255 - 128) / 128. For a white frame every layer computes this value, stored as 255.
_WHITE = 127 / 128


def build_probe() -> onnx.ModelProto:
    """Build the probe. For a white frame its second logit is ``PROBE_LOGIT`` where nothing saturates."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        _nodes(),
        PROBE,
        [value("frames", TensorProto.UINT8, ["N", _SIZE, _SIZE, 3])],
        [
            value("probabilities", TensorProto.FLOAT, ["N", 2]),
            value("logits", TensorProto.FLOAT, ["N", 2]),
            value("features", TensorProto.FLOAT, ["N", _SIZE, _SIZE, 2]),
        ],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in _constants().items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {METADATA_KEY: _spec().to_json()})
    onnx.checker.check_model(model)
    return model


def _spec() -> ModelSpec:
    return ModelSpec(
        # The file that comes with the package was written so, and its bytes do not change.
        schema="capsule-edge/model/1",
        name=PROBE,
        version="1",
        precision="int8",
        labels=(Label("normal", "Nothing", "normal"), Label("sum", "Sum of products", "finding")),
        input=InputSpec(_SIZE, crop="none", mask="none"),
        temperature=1.0,
        operating_points={},
        events=EventParameters(),
        license="Apache-2.0",
        saturation_safe=False,
        provenance={"data": "none, written by hand"},
    )


def _constants() -> dict[str, Any]:
    classifier = np.zeros((2, _CHANNELS, 1, 1), np.float32)
    classifier[1] = PROBE_LOGIT / _WHITE / _CHANNELS
    return {
        "pixel_scale": np.float32(1 / 128),
        "pixel_zero": np.uint8(128),
        "scale": np.float32(_WHITE / 255),
        "zero": np.uint8(0),
        # 255 * 64 * 2 fits 16 bits, so the first layer never saturates.
        "first": np.full((_CHANNELS, 3, 1, 1), 64, np.int8),
        "first_scale": np.full(_CHANNELS, 1 / (3 * 64), np.float32),
        "second": np.full((_CHANNELS, _CHANNELS, 1, 1), 127, np.int8),
        "second_scale": np.full(_CHANNELS, 1 / (_CHANNELS * 127), np.float32),
        "channel_zero": np.zeros(_CHANNELS, np.int8),
        "bias": np.zeros(_CHANNELS, np.int32),
        "first_bias_scale": np.full(_CHANNELS, 1 / (3 * 64) / 128, np.float32),
        "second_bias_scale": np.full(_CHANNELS, _WHITE / 255 / (_CHANNELS * 127), np.float32),
        "bias_zero": np.zeros(_CHANNELS, np.int32),
        "classifier": classifier,
    }


def _nodes() -> list[onnx.NodeProto]:
    node = helper.make_node
    nodes = [
        node("Transpose", ["frames"], ["planes"], perm=[0, 3, 1, 2]),
        node("DequantizeLinear", ["planes", "pixel_scale", "pixel_zero"], ["x"]),
    ]
    for name, given, made in (("first", "x", "y"), ("second", "y", "z")):
        nodes += [
            node("DequantizeLinear", [name, f"{name}_scale", "channel_zero"], [f"{name}_w"], axis=0),
            node("DequantizeLinear", ["bias", f"{name}_bias_scale", "bias_zero"], [f"{name}_b"], axis=0),
            node("Conv", [given, f"{name}_w", f"{name}_b"], [f"{name}_sum"]),
            node("QuantizeLinear", [f"{name}_sum", "scale", "zero"], [f"{name}_q"]),
            node("DequantizeLinear", [f"{name}_q", "scale", "zero"], [made]),
        ]
    return [
        *nodes,
        node("Conv", ["z", "classifier"], ["maps"]),
        node("Transpose", ["maps"], ["features"], perm=[0, 2, 3, 1]),
        node("GlobalAveragePool", ["maps"], ["pooled"]),
        node("Flatten", ["pooled"], ["logits"]),
        node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]


if __name__ == "__main__":
    target: Path = probe_path()
    target.write_bytes(build_probe().SerializeToString(deterministic=True))
    print(target)
