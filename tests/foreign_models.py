"""Write ONNX classifiers as other programs export them: parts of a shipped model, and small networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from labelled_frames import write_frames
from onnx import TensorProto, helper, numpy_helper
from paths import ROOT

SMALL = ROOT / "models" / "capsule-edge-small.fp32.onnx"
STANDARD = ROOT / "runtime" / "models" / "capsule-edge.fp32.onnx"
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


def strip(
    path: Path,
    shipped: Path = SMALL,
    *,
    layout: str = "nhwc",
    outputs: str = "logits",
    batch: int | str = "N",
) -> Path:
    """Write the float network of a shipped model without our contract: float pixels in, its answers out.

    Its pixels are scaled as (level - 128) / 128.
    """
    model = onnx.load(shipped)
    graph = model.graph
    size = graph.input[0].type.tensor_type.shape.dim[1].dim_value
    first = next(node for node in graph.node if node.op_type == "Transpose")
    kept = [node for node in graph.node if node.name not in ("Cast", "sub", "truediv", "mul", "Softmax")]
    kept = [node for node in kept if node.name != "Conv2D" and "features" not in node.output]
    if layout == "nchw":
        kept = [node for node in kept if node.name != first.name]
    for node in kept:
        for at, name in enumerate(node.input):
            if name == (first.output[0] if layout == "nchw" else first.input[0]):
                node.input[at] = "input"
    if outputs != "logits":
        kind = {"probabilities": "Softmax", "sigmoid": "Sigmoid"}[outputs]
        kept.append(helper.make_node(kind, ["logits"], [outputs], name="last"))
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:], model.metadata_props[:]
    graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    constants = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(constants)
    sides = [batch, 3, size, size] if layout == "nchw" else [batch, size, size, 3]
    graph.input.append(helper.make_tensor_value_info("input", TensorProto.FLOAT, sides))
    graph.output.append(helper.make_tensor_value_info(outputs, TensorProto.FLOAT, [batch, 10]))
    model.producer_name = "elsewhere"
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def labels_of_shipped(path: Path) -> Path:
    """Write the labels of the shipped models' outputs."""
    from capsule_edge.runtime.inference import open_model

    lines = [
        f"- {{key: {label.key}, name: {label.name}, role: {label.role}}}"
        for label in open_model(SMALL).spec.labels
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


COLOURS = {"normal": (200, 120, 90), "bleeding": (120, 10, 10), "polyp": (190, 150, 60)}


def write_colours(
    root: Path,
    *,
    size: int = 40,
    frames: int = 40,
    videos: int = 4,
    seed: int = 7,
    mark: str = "",
    labels: Sequence[str] = tuple(COLOURS),
) -> Path:
    """Write a data set of labels that differ in colour, each in ``videos`` videos of its own.

    ``mark`` begins the names of the videos. Another seed draws other pictures.
    """
    rng = np.random.default_rng(seed)
    rows, pictures = [], []
    for label in labels:
        for number in range(frames):
            rows.append((f"{label}_{number}.png", label, f"{mark}{label}{number % videos}"))
            smooth = rng.normal(0, 14, (4, 4, 3)).repeat(size // 4, 0).repeat(size // 4, 1)
            noise = smooth + rng.normal(0, 8, (size, size, 3))
            # The colours overlap, so that no head separates all frames and a temperature can be fitted.
            tint = rng.normal(0, 30, 3)
            pictures.append(np.clip(np.array(COLOURS[label]) + tint + noise, 0, 255).astype(np.uint8))
    return write_frames(root, "file,label,video_id", rows, pictures)


class Net:
    """A small classifier under construction, NCHW unless told otherwise, with random weights and a fitted head.

    Args:
        size: Side of the input in pixels.
        seed: Of the weights.
    """

    def __init__(self, size: int = 32, *, layout: str = "nchw", seed: int = 0) -> None:
        self.size, self.layout, self.rng = size, layout, np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        output = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"/{output}", **attributes))
        return output

    def conv(
        self, x: str, channels: tuple[int, int], kernel: int = 3, stride: int = 1, group: int = 1
    ) -> str:
        given, made = channels
        fan = given // group * kernel**2
        weights = self.constant(self.rng.normal(0, (2 / fan) ** 0.5, (made, given // group, kernel, kernel)))
        bias = self.constant(self.rng.normal(0, 0.1, made))
        side = kernel // 2
        return self.node(
            "Conv",
            x,
            weights,
            bias,
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=[side] * 4,
            group=group,
        )

    def normalise(self, x: str, channels: int) -> str:
        """Add a BatchNormalization with statistics of its own."""
        values = [self.rng.uniform(0.8, 1.2, channels), self.rng.normal(0, 0.1, channels)]
        values += [self.rng.normal(0, 0.1, channels), self.rng.uniform(0.8, 1.2, channels)]
        return self.node("BatchNormalization", x, *map(self.constant, values))

    def swish(self, x: str) -> str:
        return self.node("Mul", x, self.node("Sigmoid", x))

    def squeeze(self, x: str, channels: int) -> str:
        """Add squeeze-and-excitation."""
        gate = self.swish(self.conv(self.node("GlobalAveragePool", x), (channels, 4), 1))
        return self.node("Mul", x, self.node("Sigmoid", self.conv(gate, (4, channels), 1)))

    def gelu(self, x: str) -> str:
        root, one, half = (self.constant(value) for value in (2**0.5, 1.0, 0.5))
        inner = self.node("Add", self.node("Erf", self.node("Div", x, root)), one)
        return self.node("Mul", self.node("Mul", x, inner), half)

    def dense(self, x: str, given: int, made: int) -> str:
        weights = self.constant(self.rng.normal(0, given**-0.5, (given, made)))
        return self.node("Add", self.node("MatMul", x, weights), self.constant(self.rng.normal(0, 0.1, made)))

    def layer_norm(self, x: str, width: int) -> str:
        return self.node(
            "LayerNormalization", x, self.constant(np.ones(width)), self.constant(np.zeros(width)), axis=-1
        )

    def attend(self, x: str, width: int, heads: int = 2) -> str:
        """Add a block of a transformer: attention and two dense layers, each with a residual sum."""
        y = self.layer_norm(x, width)
        split = self.constant([0, -1, heads, width // heads], np.int64)
        q, k, v = (self.node("Reshape", self.dense(y, width, width), split) for _ in range(3))
        q, v = (self.node("Transpose", each, perm=[0, 2, 1, 3]) for each in (q, v))
        scores = self.node("MatMul", q, self.node("Transpose", k, perm=[0, 2, 3, 1]))
        scaled = self.node("Mul", scores, self.constant((width // heads) ** -0.5))
        mixed = self.node("MatMul", self.node("Softmax", scaled, axis=-1), v)
        joined = self.node("Transpose", mixed, perm=[0, 2, 1, 3])
        flat = self.node("Reshape", joined, self.constant([0, -1, width], np.int64))
        x = self.node("Add", x, self.dense(flat, width, width))
        wide = self.gelu(self.dense(self.layer_norm(x, width), width, 2 * width))
        return self.node("Add", x, self.dense(wide, 2 * width, width))

    def pool(self, x: str, kind: str = "GlobalAveragePool") -> str:
        """Add pooling as an exporter writes it, and flatten the result."""
        if kind == "ReduceMean":
            return self.node("ReduceMean", x, axes=[2, 3], keepdims=0)
        return self.node("Flatten", self.node("GlobalAveragePool", x), axis=1)

    def model(self, output: str, batch: int | str = "N", shape: Sequence[Any] = ("N", 3)) -> onnx.ModelProto:
        sides = [3, self.size, self.size] if self.layout == "nchw" else [self.size, self.size, 3]
        graph = helper.make_graph(
            self.nodes, "net", [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, *sides])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)], self.constants,
        )  # fmt: skip
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        made.producer_name = "pytorch"
        onnx.checker.check_model(made)
        return made

    def finish(
        self,
        pooled: str,
        width: int,
        frames: np.ndarray,
        labels: np.ndarray,
        *,
        last: str = "",
        transposed: bool = True,
    ) -> onnx.ModelProto:
        """Fit a head to the pooled features of scaled ``frames`` and end in it."""
        features = run_model(self.model(pooled, shape=("N", width)), frames)
        mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-3
        inputs = np.c_[(features - mean) / deviation, np.ones(len(features))]
        wanted = 4.0 * np.eye(labels.max() + 1)[labels] - 2
        fitted = np.linalg.solve(inputs.T @ inputs + np.eye(width + 1), inputs.T @ wanted)
        weights = fitted[:-1] / deviation[:, None]
        bias = self.constant(fitted[-1] - mean @ weights)
        if transposed:
            logits = self.node("Gemm", pooled, self.constant(weights.T), bias, transB=1)
        else:
            logits = self.node("Add", self.node("MatMul", pooled, self.constant(weights)), bias)
        kinds = {"Softmax": {"axis": 1}, "LogSoftmax": {"axis": 1}, "Sigmoid": {}}
        return self.model(self.node(last, logits, **kinds[last]) if last else logits)


def run_model(model: onnx.ModelProto, frames: np.ndarray) -> np.ndarray:
    """Return the only output of a model."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    name = model.graph.input[0].name
    return np.concatenate(
        [session.run(None, {name: frames[at : at + 8]})[0] for at in range(0, len(frames), 8)]
    )


def make_net(kind: str, root: Path, *, scaling: str = "imagenet", last: str = "") -> onnx.ModelProto:
    """Return a small network of the given kind, whose head is fitted to the frames of ``write_colours``.

    ``kind`` is ``residual`` (BatchNormalization, ReLU, a sum), ``mobile`` (depthwise, swish, squeeze-excite),
    ``transformer`` (LayerNormalization, GELU, attention) or ``nhwc`` (a Transpose first, as tf2onnx writes it).
    """
    size = 32
    frames, labels = scaled_frames(root, size, scaling)
    net = Net(size, layout="nhwc" if kind == "nhwc" else "nchw")
    x = net.node("Transpose", "input", perm=[0, 3, 1, 2]) if kind == "nhwc" else "input"
    if kind in ("residual", "nhwc"):
        x = net.node("Relu", net.normalise(net.conv(x, (3, 12), stride=2), 12))
        y = net.normalise(net.conv(x, (12, 12)), 12)
        x = net.node("Relu", net.node("Add", x, y))
        x = net.node("Relu", net.normalise(net.conv(x, (12, 16), stride=2), 16))
        pooled = net.pool(x, "ReduceMean" if kind == "nhwc" else "GlobalAveragePool")
        width = 16
    elif kind == "mobile":
        x = net.swish(net.normalise(net.conv(x, (3, 12), stride=2), 12))
        x = net.swish(net.normalise(net.conv(x, (12, 12), group=12), 12))
        x = net.conv(net.squeeze(x, 12), (12, 16), 1)
        pooled, width = net.pool(net.swish(x)), 16
    else:
        width = 16
        x = net.conv(x, (3, width), 8, 8)
        for_padding = net.nodes[-1]
        del for_padding.attribute[:]
        for_padding.attribute.extend(
            [helper.make_attribute("strides", [8, 8]), helper.make_attribute("pads", [0] * 4)]
        )
        x = net.node("Reshape", x, net.constant([0, width, -1], np.int64))
        x = net.node("Transpose", x, perm=[0, 2, 1])
        x = net.attend(net.attend(x, width), width)
        pooled = net.node("ReduceMean", net.layer_norm(x, width), axes=[1], keepdims=0)
    return net.finish(
        pooled,
        width,
        frames if kind != "nhwc" else frames.transpose(0, 2, 3, 1),
        labels,
        last=last,
        transposed=kind != "nhwc",
    )


def scaled_frames(root: Path, size: int, scaling: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the frames of ``write_colours`` as a training program would scale them (NCHW), and their labels."""
    from capsule_edge.evaluation.classification import load_frames
    from capsule_edge.evaluation.datasets import load_dataset
    from capsule_edge.runtime.inference import InputSpec

    dataset, frames = load_frames(
        load_dataset(root), InputSpec(size, crop="none", mask="none", preprocessing=2)
    )
    labels = np.array([list(COLOURS).index(sample.label) for sample in dataset.samples])
    if scaling == "imagenet":
        scaled = (frames / np.float32(255) - IMAGENET_MEAN) / IMAGENET_DEVIATION
    else:
        scaled = frames / np.float32(255)
    return np.ascontiguousarray(scaled.astype(np.float32).transpose(0, 3, 1, 2)), labels


def write_names(path: Path, names: Sequence[str] = tuple(COLOURS)) -> Path:
    """Write the labels of a model's outputs as a list of names."""
    path.write_text("".join(f"- {name}\n" for name in names), "utf-8")
    return path
