"""Write an ONNX classifier as PyTorch exports one: NCHW, ImageNet's scaling, BatchNormalization, logits.

    python examples/foreign_classifier.py FRAMES OUT

It stands in for a model of yours, so that ``capsule-edge adopt`` can be tried without PyTorch. FRAMES is a folder that
``capsule-edge demo-data`` wrote. The convolutions are random and only the last layer is fitted, to the frames of the
split ``train``: it answers better than guessing, and no more. OUT gets ``net.onnx`` and ``labels.yaml``.
"""

from __future__ import annotations

import csv
import itertools
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

SIZE = 64
CHANNELS = (3, 16, 32, 64)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def read(frames: Path) -> tuple[np.ndarray, list[str]]:
    """Return the frames of the split ``train``, scaled, float32 (N, 3, SIZE, SIZE), and their labels."""
    rows = [
        row
        for row in csv.DictReader((frames / "labels.csv").open(encoding="utf-8"))
        if row["split"] == "train"
    ]
    pictures = [cv2.imread(str(frames / row["file"]))[..., ::-1] for row in rows]
    small = np.stack(
        [cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for picture in pictures]
    )
    scaled = ((small / 255 - MEAN) / DEVIATION).astype(np.float32)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)), [row["label"] for row in rows]


def build(head: tuple[np.ndarray, np.ndarray] | None, labels: int) -> onnx.ModelProto:
    """Return the network up to its pooled features, or with a head (weights, bias) to its logits."""
    rng = np.random.default_rng(0)
    nodes, constants, value = [], [], "input"

    def constant(values: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(np.asarray(values, np.float32), f"constant{len(constants)}"))
        return constants[-1].name

    def add(kind: str, *inputs: str, **attributes: object) -> str:
        output = f"/{kind}_{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    for given, made in itertools.pairwise(CHANNELS):
        weights = rng.normal(0, (2 / (given * 9)) ** 0.5, (made, given, 3, 3))
        value = add("Conv", value, constant(weights), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        ones, zeros = np.ones(made), np.zeros(made)
        value = add("BatchNormalization", value, *map(constant, (ones, zeros, zeros, ones)))
        value = add("Relu", value)
    value = add("Flatten", add("GlobalAveragePool", value), axis=1)
    width = CHANNELS[-1]
    if head is not None:
        value, width = add("Gemm", value, constant(head[0].T), constant(head[1]), transB=1), labels
    graph = helper.make_graph(
        nodes,
        "main_graph",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, ["N", width])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def fit(features: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return weights and bias of a linear layer, by ridge regression."""
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
    inputs = np.c_[(features - mean) / deviation, np.ones(len(features))]
    wanted = 6.0 * np.eye(classes.max() + 1)[classes] - 3
    fitted = np.linalg.solve(inputs.T @ inputs + 10 * np.eye(inputs.shape[1]), inputs.T @ wanted)
    weights = fitted[:-1] / deviation[:, None]
    return weights, fitted[-1] - mean @ weights


def main() -> None:
    frames, out = map(Path, sys.argv[1:3])
    pixels, names = read(frames)
    labels = sorted(set(names))
    session = ort.InferenceSession(build(None, len(labels)).SerializeToString())
    features = np.concatenate(
        [session.run(None, {"input": pixels[at : at + 16]})[0] for at in range(0, len(pixels), 16)]
    )
    model = build(fit(features, np.array([labels.index(name) for name in names])), len(labels))
    out.mkdir(parents=True, exist_ok=True)
    onnx.save(model, out / "net.onnx")
    (out / "labels.yaml").write_text("".join(f"- {label}\n" for label in labels), "utf-8")
    print(f"wrote {out / 'net.onnx'} and {out / 'labels.yaml'}")


if __name__ == "__main__":
    main()
