"""A float TFLite network that others wrote gets the contract of a model file, and keeps its answers."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="needs the extra 'litert'")

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from tiny_model import tiny_spec

from capsule_edge.evaluation.classification import load_predictions
from capsule_edge.evaluation.datasets import load_dataset
from capsule_edge.export.adopt import SourceFacts
from capsule_edge.export.adopt.adopted_tflite import TFLITE, write_tflite
from capsule_edge.export.adopt.facts import Layout, OutputKind
from capsule_edge.export.adopt.scaling import Scaling, parse_scaling
from capsule_edge.export.adopt.serving_tflite import build_tflite
from capsule_edge.export.tflite_file import pack_tflite, unpack_tflite
from capsule_edge.export.tflite_graph import TfliteGraph
from capsule_edge.runtime.errors import ModelError
from capsule_edge.runtime.inference import open_model

Op = schema.BuiltinOperator
SIZE, TEMPERATURE = 32, 1.5
# Float32 sums of a few hundred products in another order, relative to the largest answer.
TOLERANCE = 1e-5


def write_network(
    *,
    labels: int = 3,
    last: str | None = None,
    layout: Layout = "nhwc",
    pool: str = "MEAN",
    fixed: bool = False,
) -> bytes:
    """Return a convolution, pooling and one dense layer as a TFLite file, as converters write it.

    Args:
        labels: Number of outputs.
        last: The operator behind the logits.
        layout: The axes of the input.
        pool: The operator that pools.
        fixed: Flatten to (1, 16), which takes one frame alone.
    """
    rng, graph = np.random.default_rng(0), TfliteGraph()

    def constant(values: Any) -> int:
        return graph.constant("constant", np.ascontiguousarray(values))

    sides = (SIZE, SIZE, 3) if layout == "nhwc" else (3, SIZE, SIZE)
    given = value = graph.activation("input", sides, "float32")
    if layout == "nchw":
        value = graph.activation("nhwc", (SIZE, SIZE, 3), "float32")
        order = constant(np.array([0, 2, 3, 1], np.int32))
        graph.operator(Op.TRANSPOSE, [given, order], value, schema.TransposeOptionsT())
    kernel, bias = rng.normal(size=(16, 4, 4, 3)), rng.normal(size=16)
    weights = [constant(part.astype(np.float32)) for part in (kernel, bias)]
    options = schema.Conv2DOptionsT()
    options.strideH = options.strideW = 4
    options.padding = schema.Padding.VALID
    options.fusedActivationFunction = schema.ActivationFunctionType.RELU
    maps = graph.activation("maps", (8, 8, 16), "float32")
    graph.operator(Op.CONV_2D, [value, *weights], maps, options)
    value = _pool(graph, pool, maps, constant)
    if fixed:
        flat = graph.activation("flat", (16,), "float32")
        target = constant(np.array([1, 16], np.int32))
        graph.operator(Op.RESHAPE, [value, target], flat, schema.ReshapeOptionsT())
        value = flat
    dense = [rng.normal(size=(labels, 16)) / 4, rng.normal(size=labels)]
    logits = graph.activation("scores", (labels,), "float32")
    inputs = [value, *(constant(part.astype(np.float32)) for part in dense)]
    graph.operator(Op.FULLY_CONNECTED, inputs, logits, schema.FullyConnectedOptionsT())
    answer = logits
    if last is not None:
        answer = graph.activation("answer", (labels,), "float32")
        softmax = schema.SoftmaxOptionsT()
        softmax.beta = 1.0
        graph.operator(getattr(Op, last), [logits], answer, softmax if last == "SOFTMAX" else None)
    if fixed:
        for tensor in graph.tensors:
            tensor.shapeSignature = None
    # The parameters that the packer of ours demands; ``build_tflite`` replaces them.
    return pack_tflite(graph.model({"input": given}, {"answer": answer}), tiny_spec(name="source"))


def _pool(graph: TfliteGraph, kind: str, maps: int, constant: Callable[[Any], int]) -> int:
    if kind == "MEAN":
        pooled, options = graph.activation("pooled", (16,), "float32"), schema.ReducerOptionsT()
        graph.operator(Op.MEAN, [maps, constant(np.array([1, 2], np.int32))], pooled, options)
        return pooled
    pooled, options = graph.activation("pooled", (1, 1, 16), "float32"), schema.Pool2DOptionsT()
    options.filterHeight = options.filterWidth = options.strideH = options.strideW = 8
    options.padding = schema.Padding.VALID
    graph.operator(getattr(Op, kind), [maps], pooled, options)
    flat = graph.activation("flat", (16,), "float32")
    target = constant(np.array([-1, 16], np.int32))
    graph.operator(Op.RESHAPE, [pooled, target], flat, schema.ReshapeOptionsT())
    return flat


def scaled(text: str, channels: Any = None) -> Scaling:
    scaling = parse_scaling(text, channels)
    assert scaling is not None
    return scaling


def some_frames(count: int = 5) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def answer_of_source(network: bytes, batch: np.ndarray) -> np.ndarray:
    interpreter = Interpreter(model_content=network)
    interpreter.allocate_tensors()
    given, answer = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    rows = []
    for frame in batch:
        interpreter.set_tensor(given["index"], frame[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(answer["index"])[0])
    return np.stack(rows)


def build(network: bytes, scaling: Scaling, outputs: OutputKind, path: Path, **options: Any) -> Any:
    """Write the model file and open it as users do."""
    spec = tiny_spec(options.pop("labels", ("normal", "bleeding", "polyp")), SIZE, temperature=TEMPERATURE)
    layout = options.pop("layout", "nhwc")
    path.write_bytes(build_tflite(network, scaling, layout, outputs, dataclasses.replace(spec, **options)))
    return open_model(path, backend="litert")


def check(model: Any, expected: np.ndarray, frames: np.ndarray) -> None:
    """Check logits, probabilities and maps, for all frames together and for one alone."""
    limit = TOLERANCE * max(1.0, np.abs(expected).max())
    for count in (len(frames), 1, 3):
        answer = model.run(frames[:count])
        assert np.abs(answer.logits - expected[:count]).max() < limit
        calibrated = expected[:count] / TEMPERATURE
        powers = np.exp(calibrated - calibrated.max(axis=1, keepdims=True))
        assert np.abs(answer.probabilities - powers / powers.sum(axis=1, keepdims=True)).max() < TOLERANCE
    if model.spec.has_maps:
        answer = model.run(frames)
        assert answer.features.shape == (len(frames), 8, 8, expected.shape[1])
        # The bias is one number for all frames.
        assert np.ptp(answer.logits - answer.features.mean(axis=(1, 2)), axis=0).max() < 10 * limit


@pytest.mark.quick
@pytest.mark.parametrize(
    ("text", "channels", "layout"),
    [("imagenet", None, "nhwc"), ("caffe", None, "nhwc"), ("0..255", "bgr", "nchw"), ("-1..1", "rgb", "nchw"),
     ("100,110,120,50,60,70", "bgr", "nhwc")],
)  # fmt: skip
def test_frames_reach_the_network_as_its_scaling_says(
    text: str, channels: Any, layout: Layout, tmp_path: Path
) -> None:
    network, scaling = write_network(layout=layout), scaled(text, channels)
    model = build(network, scaling, "logits", tmp_path / TFLITE, layout=layout)
    assert model.spec.has_maps
    assert model.spec.name == "tiny"
    frames = some_frames()
    check(model, answer_of_source(network, scaling.apply(frames, layout)), frames)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("last", "outputs"), [("SOFTMAX", "probabilities"), ("LOGISTIC", "sigmoid"), ("LOG_SOFTMAX", "logits")]
)
@pytest.mark.parametrize("fixed", [False, True])
def test_the_last_activation_is_taken_off(
    last: str, outputs: OutputKind, fixed: bool, tmp_path: Path
) -> None:
    scaling, frames = scaled("0..1", "rgb"), some_frames()
    expected = answer_of_source(write_network(), scaling.apply(frames, "nhwc"))
    network = write_network(last=last, fixed=fixed)
    check(build(network, scaling, outputs, tmp_path / TFLITE), expected, frames)


@pytest.mark.quick
def test_one_output_answers_for_two_labels(tmp_path: Path) -> None:
    network, scaling, frames = write_network(labels=1, last="LOGISTIC"), scaled("0..1", "rgb"), some_frames()
    model = build(network, scaling, "sigmoid", tmp_path / TFLITE, labels=("normal", "polyp"))
    expected = answer_of_source(write_network(labels=1), scaling.apply(frames, "nhwc"))
    check(model, np.pad(expected, [(0, 0), (1, 0)]), frames)


@pytest.mark.quick
@pytest.mark.parametrize(("pool", "maps"), [("AVERAGE_POOL_2D", True), ("MAX_POOL_2D", False)])
def test_maps_follow_from_an_average_over_all_positions(pool: str, maps: bool, tmp_path: Path) -> None:
    network, scaling, frames = write_network(pool=pool), scaled("0..1", "rgb"), some_frames()
    model = build(network, scaling, "logits", tmp_path / TFLITE)
    assert model.spec.has_maps is maps
    check(model, answer_of_source(network, scaling.apply(frames, "nhwc")), frames)


@pytest.mark.quick
def test_a_network_whose_logits_are_not_there_is_refused() -> None:
    with pytest.raises(
        ModelError, match="ends in TANH, so the logits behind its probabilities cannot be read"
    ):
        build_tflite(write_network(last="TANH"), scaled("0..1", "rgb"), "nhwc", "probabilities", tiny_spec())


@pytest.mark.quick
def test_metadata_of_the_source_are_left_out() -> None:
    made = unpack_tflite(build_tflite(write_network(), scaled("0..1", "rgb"), "nhwc", "logits", tiny_spec()))
    assert [entry.name for entry in made.metadata] == [b"capsule_edge"]
    assert [signature.signatureKey for signature in made.signatureDefs] == [b"serving_default"]


def refuse() -> bytes:
    raise ModelError("net.keras computes Erf, which TFLite's own operators do not compute")


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (refuse, "computes Erf"),
        (lambda: b"no TFLite file at all, and long enough to be read", "cannot be read as a TFLite file"),
        (lambda: write_network()[:500], "cannot be read as a TFLite file"),
        (lambda: write_network(labels=4), "output 'logits' is float32 (any, 4)"),
        (lambda: write_network(), "differ in logits by"),
        (lambda: write_network(last="TANH"), "differ in logits by"),
        (lambda: write_network(layout="nchw"), ""),
    ],
)
def test_a_network_that_cannot_be_used_leaves_a_reason_and_no_file(
    network: Callable[[], bytes], words: str, adopted: Any, colours: Path, tmp_path: Path
) -> None:
    for name in ("model.fp32.onnx", "source.csv"):
        shutil.copy(adopted("residual").folder / name, tmp_path)
    before = sorted(tmp_path.iterdir())
    report = write_tflite(
        tmp_path / "model.fp32.onnx", SourceFacts("keras", layout="nhwc", tflite=network), scaled("imagenet"),
        "logits", some_frames(), load_predictions(tmp_path / "source.csv"), load_dataset(colours),
    )  # fmt: skip
    assert (report.file, report.certificate) == (None, None)
    assert report.reason is not None
    assert words in report.reason
    assert "\n" not in report.reason
    assert sorted(tmp_path.iterdir()) == before


def test_an_onnx_source_has_no_tflite_file(adopted: Any) -> None:
    report = adopted("residual")
    assert report.tflite["file"] is None
    assert "ONNX file, which adopt does not convert" in report.tflite["reason"]
    assert not any("TFLite" in note for note in report.notes)
