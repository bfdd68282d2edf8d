"""A model for which red is bleeding, and recordings to test it on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tiny_model import tiny_spec

from capsule_edge.runtime.inference import METADATA_KEY

LABELS = ("normal", "bleeding", "polyp")
SIZE = 32
PATCHES = 4
# Grey tissue in a round field of view beside the centre, and burnt-in text in a corner.
WIDTH, HEIGHT, RADIUS, CENTRE = 160, 128, 56, (88, 66)


def write_red_model(path: Path, **overrides: Any) -> Path:
    """Write an ONNX model whose probability of bleeding grows with the red in a frame; its map has 4 x 4 patches.

    The logit of bleeding is 64 times the mean of (R - G) / 128, less 4, against 0 of normal: a grey frame
    has 0.02, and one with R - G = 180 in a quarter of a disc (a fifth of its square) 64 * 0.2 * 180 / 128 -
    4 = 14, so 1. ``overrides`` replace fields of the spec.
    """
    spec = tiny_spec(LABELS, SIZE, name="red", **overrides)
    weights = np.zeros((3, 3, 1, 1))
    weights[1, :2, 0, 0] = 64, -64
    side = SIZE // PATCHES
    constants = {
        "offset": np.array(128.0),
        "scale": np.array(1 / 128),
        "weights": weights,
        "bias": np.array([0.0, -4.0, -9.0]),
    }
    nodes = [
        helper.make_node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["pixels", "offset"], ["centred"]),
        helper.make_node("Mul", ["centred", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["x"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["x", "weights"], ["fine"]),
        helper.make_node("AveragePool", ["fine"], ["maps"], kernel_shape=[side, side], strides=[side, side]),
        helper.make_node("Transpose", ["maps"], ["features"], perm=[0, 2, 3, 1]),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Add", ["flat", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    count = len(LABELS)
    graph = helper.make_graph(
        nodes,
        "red",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", SIZE, SIZE, 3])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", count]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", count]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", PATCHES, PATCHES, count]),
        ],
        [numpy_helper.from_array(np.float32(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def view(red: bool, index: int = 0) -> np.ndarray:
    """Return a frame, uint8 RGB: grey tissue, with a red upper left quarter of the field of view if ``red``."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    inside = (columns - CENTRE[0]) ** 2 + (rows - CENTRE[1]) ** 2 <= RADIUS**2
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    frame[inside] = 90 + (index * 7 + columns[inside, None] + rows[inside, None]) % 40
    if red:
        frame[inside & (columns < CENTRE[0]) & (rows < CENTRE[1])] = 220, 40, 40
    frame[4:10, 4:24:2] = 255
    return frame


def write_exam(
    path: Path,
    *,
    frames: int = 60,
    red: Collection[int] = range(20, 32),
    fps: int = 2,
    gop: int = 12,
    instead: Mapping[int, np.ndarray] | None = None,
) -> Path:
    """Write an H.264 MP4, index in front. Frame i is shown at i / ``fps`` seconds, and is red if i is in ``red``.

    ``instead`` gives other pictures by index, uint8 RGB (``HEIGHT``, ``WIDTH``, 3).
    """
    options = {"threads": "1", "bf": "2", "crf": "18"}
    with av.open(str(path), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = gop
        stream.codec_context.time_base = Fraction(1, fps)
        for index in range(frames):
            picture = (instead or {}).get(index)
            if picture is None:
                picture = view(index in red, index)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path
