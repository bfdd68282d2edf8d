"""Read a classifier as ONNX, and refuse by name what cannot be adopted, before anything is written."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, inliner, numpy_helper

from capsule_edge.runtime.errors import InputError, ModelError, UsageError
from capsule_edge.runtime.inference import METADATA_KEY

from .facts import LEAST_SIDE, MOST_SIDE, Channels, Floats, Layout
from .graph import Graph, read_attribute
from .sessions import open_session

__all__ = ["MOST_CLASSES", "OnnxSource", "read_onnx"]

MOST_CLASSES = 1000
"""The most outputs of a classifier that is adopted: each is a column of every result."""

_MOST_BYTES = 2**31
_LEAST_OPSET = 13
_CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")
_QUANTISED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
_DRAWS = (
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
)
_HALF = {TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"}
# The metadata that the ONNX specification defines for pictures (docs/MetadataProps.md), as our options write it.
_RANGES = {"NominalRange_0_255": "0..255", "Normalized_0_1": "0..1", "Normalized_1_1": "-1..1"}
_FORMATS: dict[str, Channels] = {"Rgb8": "rgb", "SRgb8": "rgb", "Bgr8": "bgr"}


@dataclass(frozen=True)
class OnnxSource:
    """A float classifier that was read and checked.

    Attributes:
        path: The file.
        sha256: Of the file.
        proto: The model: one input with a dynamic batch and fixed sides, constants folded.
        original: The model as the file has it, with the same input, for comparison.
        input: The name of the input.
        output: The name of the output.
        layout: The order of the input's axes.
        size: The side of the input in pixels.
        classes: The number of labels: that of the outputs, or 2 where ``is_single``.
        opset: The version of the operators in the file.
        producer: The program that wrote the file, as it names itself.
        scaling: The scaling that the metadata state; None if they state none.
        channels: The order of the colours that the metadata state; None if they state none.
        is_single: Whether the file has one output, which answers for the second of two labels.
    """

    path: Path
    sha256: str
    proto: onnx.ModelProto
    original: onnx.ModelProto
    input: str
    output: str
    layout: Layout
    size: int
    classes: int
    opset: int
    producer: str
    scaling: str | None = None
    channels: Channels | None = None
    is_single: bool = False

    def runner(self) -> Callable[[Floats], Floats]:
        """Return a function that answers scaled batches (float32 in ``layout``) with the file as it is."""
        session = open_session(self.original)

        def run(batch: Floats) -> Floats:
            answer = session.run([self.output], {self.input: batch})[0]
            return np.asarray(answer, np.float32).reshape(len(batch), -1)

        return run


def read_onnx(path: Path, *, size: int | None = None, made_from: Path | None = None) -> OnnxSource:
    """Read and check an ONNX classifier.

    Args:
        path: The file.
        size: The side of the input in pixels, for a file that leaves it open.
        made_from: The file of the user that was converted to ``path``: messages and the result name it instead.

    Raises:
        InputError: The file cannot be read.
        UsageError: ``size`` is needed, or contradicts the file.
        ModelError: The file is not a float classifier of pictures that can be adopted. The message names the layer,
            input or value at fault.
    """
    content = _read(path)
    path = made_from or path
    proto = _parse(path, content)
    _check_model(path, proto)
    if len(proto.functions):
        proto = inliner.inline_local_functions(proto)
    _check_nodes(path, proto.graph)
    _check_tensors(path, proto.graph)
    given = _only_input(path, proto.graph)
    layout, side = _picture(path, given, size)
    output = _only_output(path, proto.graph)
    _free_batch(proto, given, layout, side)
    simplified, outputs = _simplify(path, proto, given.name, layout, side)
    stated = {entry.key: entry.value for entry in proto.metadata_props}
    return OnnxSource(
        path, hashlib.sha256(content).hexdigest(), simplified, proto, given.name, output.name, layout, side,
        max(2, outputs), _opset(proto), " ".join((proto.producer_name, proto.producer_version)).strip(),
        _RANGES.get(stated.get("Image.NominalPixelRange", "")), _FORMATS.get(stated.get("Image.BitmapPixelFormat", "")),
        outputs == 1,
    )  # fmt: skip


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ModelError(f"{path} has {path.stat().st_size:,} bytes, allowed are {_MOST_BYTES:,}")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None


def _parse(path: Path, content: bytes) -> onnx.ModelProto:
    try:
        proto = onnx.load_model_from_string(content)
    except Exception:  # protobuf and onnx raise exceptions without a common base class
        proto = onnx.ModelProto()
    if not proto.graph.node:
        raise ModelError(f"{path} is no ONNX model with a graph ({len(content):,} bytes)")
    return proto


def _opset(proto: onnx.ModelProto) -> int:
    return max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def _check_model(path: Path, proto: onnx.ModelProto) -> None:
    if any(entry.key == METADATA_KEY for entry in proto.metadata_props):
        raise ModelError(
            f"{path} already is a model file of capsule-edge",
            hint="run it as it is; 'capsule-edge info' shows it",
        )
    if _opset(proto) < _LEAST_OPSET:
        raise ModelError(
            f"{path} has opset {_opset(proto)}, allowed is {_LEAST_OPSET} or more",
            hint="export it again with a newer opset, or convert it with onnx.version_converter",
        )


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g


def _name(node: onnx.NodeProto) -> str:
    return f"{node.name or (node.output[0] if node.output else '')!r} ({node.op_type})"


def _check_nodes(path: Path, graph: onnx.GraphProto) -> None:
    """Refuse operators that cannot be adopted, by the name of the first node."""
    for node in graph.node:
        if node.op_type in _CONTROL_FLOW or any(True for _ in _subgraphs(node)):
            raise ModelError(
                f"{path}: {_name(node)} is control flow, allowed are operators that run once for every frame",
                hint="export the model with a fixed input size and in inference mode",
            )
        if node.domain not in ("", "ai.onnx"):
            raise ModelError(
                f"{path}: {_name(node)} is a custom operator of {node.domain!r}, allowed are those of ONNX itself",
                hint="export the model without custom operators, and before any optimiser has fused it",
            )
        if (
            node.op_type in _QUANTISED
            or node.op_type.startswith("QLinear")
            or node.op_type.endswith("Integer")
        ):
            raise ModelError(
                f"{path}: {_name(node)} shows that the model is quantised already, a float model is needed",
                hint="adopt the float model: adopt makes the INT8 file itself",
            )
        if node.op_type in _DRAWS or (
            node.op_type == "BatchNormalization" and read_attribute(node, "training_mode", 0)
        ):
            raise ModelError(
                f"{path}: {_name(node)} belongs to training, its answers are not fixed",
                hint="export the model in inference mode (PyTorch: model.eval())",
            )


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t


def _check_tensors(path: Path, graph: onnx.GraphProto) -> None:
    """Refuse weights that lie elsewhere, are of half precision, or are NaN."""
    for tensor in _tensors(graph):
        if tensor.data_location == TensorProto.EXTERNAL:
            raise ModelError(
                f"{path}: the values of {tensor.name!r} lie in another file (external data), allowed is one file",
                hint="save the model with its weights inside: onnx.save(onnx.load(FILE), OTHER)",
            )
        if tensor.data_type in _HALF:
            raise ModelError(
                f"{path}: {tensor.name!r} is {_HALF[tensor.data_type]}, allowed is float32",
                hint="export the model in float32: adopt makes the INT8 file from it",
            )
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        try:
            values = numpy_helper.to_array(tensor)
        except (ValueError, TypeError) as error:
            raise ModelError(f"{path}: {tensor.name!r} cannot be read: {error}") from None
        # Infinity stands in attention masks.
        if np.isnan(values).any():
            raise ModelError(f"{path}: {tensor.name!r} holds values that are not numbers (NaN)")


def _sides(value: onnx.ValueInfoProto) -> list[int | str]:
    """Return the shape of an input or output; a side that is left open has its name.

    Some exporters write -1 or 0 for an open side.
    """
    return [
        side.dim_value if side.dim_value > 0 else side.dim_param or "?"
        for side in value.type.tensor_type.shape.dim
    ]


def _only_input(path: Path, graph: onnx.GraphProto) -> onnx.ValueInfoProto:
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1:
        raise ModelError(
            f"{path} has {len(inputs)} inputs ({', '.join(value.name for value in inputs)}), allowed is one: the frames"
        )
    kind = inputs[0].type.tensor_type.elem_type
    if kind != TensorProto.FLOAT:
        name = _HALF.get(kind) or TensorProto.DataType.Name(kind).lower()
        raise ModelError(
            f"{path}: the input {inputs[0].name!r} is {name}, allowed is float32",
            hint="export the model with a float32 input",
        )
    return inputs[0]


def _only_output(path: Path, graph: onnx.GraphProto) -> onnx.ValueInfoProto:
    if len(graph.output) != 1:
        raise ModelError(
            f"{path} has {len(graph.output)} outputs ({', '.join(value.name for value in graph.output)}), allowed is"
            " one: a number for each label",
            hint="export the model with its classifier's output alone",
        )
    return graph.output[0]


def _picture(path: Path, value: onnx.ValueInfoProto, size: int | None) -> tuple[Layout, int]:
    """Return layout and side of the input."""
    sides = _sides(value)
    shown = f"{path}: the input {value.name!r} is {tuple(sides)}"
    if len(sides) != 4 or (sides[1] == 3) == (sides[3] == 3):
        raise ModelError(f"{shown}, allowed is (N, 3, size, size) or (N, size, size, 3)")
    layout: Layout = "nchw" if sides[1] == 3 else "nhwc"
    high, wide = sides[2:] if layout == "nchw" else sides[1:3]
    if isinstance(high, int) and isinstance(wide, int):
        if high != wide:
            raise ModelError(f"{shown}, height and width must be equal")
        if size is not None and size != high:
            raise UsageError(f"--size is {size}, but {path} takes {high} pixels", hint="leave --size out")
        return layout, _in_range(high, shown)
    if size is None:
        raise UsageError(
            f"{shown}: it leaves the size open, which must be fixed",
            hint="give the size trained with: --size PIXELS",
        )
    fixed = next((side for side in (high, wide) if isinstance(side, int)), size)
    if fixed != size:
        raise UsageError(f"--size is {size}, but {path} takes {fixed} pixels")
    return layout, _in_range(size, shown)


def _in_range(size: int, shown: str) -> int:
    if not LEAST_SIDE <= size <= MOST_SIDE:
        raise ModelError(f"{shown}, a size of {LEAST_SIDE} to {MOST_SIDE} pixels is allowed")
    return size


def _free_batch(proto: onnx.ModelProto, value: onnx.ValueInfoProto, layout: Layout, size: int) -> None:
    """Fix the sides of the input and leave the batch open, also where the exporter fixed it in reshapes."""
    batch = _sides(value)[0]
    sides: list[int | str] = ["N", 3, size, size] if layout == "nchw" else ["N", size, size, 3]
    value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, sides))
    del proto.graph.value_info[:]
    for output in proto.graph.output:
        output.type.tensor_type.shape.Clear()
    if isinstance(batch, int):
        graph = Graph(proto)
        for node in graph.nodes:
            shape = graph.constant(node.input[1]) if node.op_type == "Reshape" else None
            if shape is not None and shape.size > 1 and shape[0] == batch:
                freed = np.asarray(shape).copy()
                # 0 copies the side of the input.
                freed[0] = 0
                graph.set_constant(f"{node.output[0]}/freed_shape", freed)
                node.input[1] = f"{node.output[0]}/freed_shape"


def _simplify(
    path: Path, proto: onnx.ModelProto, name: str, layout: Layout, size: int
) -> tuple[onnx.ModelProto, int]:
    """Return the model with constants folded and batch normalisation joined to convolutions, and its outputs."""
    side = (3, size, size) if layout == "nchw" else (size, size, 3)
    frames = np.random.default_rng(0).random((3, *side), np.float32)
    try:
        with tempfile.TemporaryDirectory() as folder:
            saved = Path(folder) / "simplified.onnx"
            session = open_session(proto, optimise="basic", save=saved)
            simplified = onnx.load(saved)
        together = np.asarray(session.run(None, {name: frames})[0])
        alone = np.asarray(session.run(None, {name: frames[:1]})[0])
    except Exception as error:  # onnxruntime raises exceptions without a common base class
        reason = next(
            (line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__
        )
        raise ModelError(
            f"{path}: onnxruntime cannot run it with batches of 1 and 3: {reason[:300]}"
        ) from None
    if together.dtype != np.float32:
        raise ModelError(
            f"{path}: the output is {together.dtype}, allowed is float32",
            hint="export the model with a float32 output",
        )
    outputs = _count_outputs(path, together)
    # Sums may be added up in another order in a batch.
    if not np.allclose(together[0], alone[0], rtol=1e-3, atol=1e-4):
        raise ModelError(
            f"{path} gives a frame other answers alone than in a batch", hint="export it in inference mode"
        )
    return simplified, outputs


def _count_outputs(path: Path, answers: np.ndarray[Any, Any]) -> int:
    shape = answers.shape
    outputs = int(np.prod(shape[1:]))
    if len(shape) < 2 or shape[0] != 3 or outputs != max(shape[1:]):
        raise ModelError(
            f"{path} answers 3 frames with an output of shape {shape}, allowed is (3, labels): a classifier is needed"
        )
    if outputs > MOST_CLASSES:
        raise ModelError(f"{path} has {outputs:,} outputs, allowed are {MOST_CLASSES:,} labels")
    return outputs
