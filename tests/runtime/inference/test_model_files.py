"""Model files that are not whole in themselves, ask for too much, or contradict what lies beside them."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
import pytest
from flatbuffers import encode, packer
from flatbuffers.table import Table
from onnx import TensorProto, helper, numpy_helper
from tiny_model import tiny_spec, write_tiny_model

from capsule_edge.runtime.errors import BackendError, ModelError
from capsule_edge.runtime.inference import (
    METADATA_KEY,
    ModelSpec,
    default_model,
    open_model,
    references,
    tflite_metadata,
)
from capsule_edge.runtime.inference.onnx_file import CHILDREN, check_onnx
from capsule_edge.runtime.inference.tflite_metadata import check_tflite

SHIPPED = Path(__file__).parents[3] / "models"


def begin_of_hash(name: str) -> str:
    """Return the first eight digits of a shipped file's SHA-256."""
    sums = (SHIPPED / "SHA256SUMS").read_text() + (default_model().parent / "SHA256SUMS").read_text()
    return next(line for line in sums.splitlines() if line.endswith(f"  {name}"))[:8]


def other_digit(text: str, begin: str) -> str:
    """Return the text with another last digit of each hash that begins so."""
    return text.replace(begin, begin[:-1] + ("1" if begin[-1] == "0" else "0"))


SMALL = begin_of_hash("capsule-edge-small.int8.onnx")
SMALL_TFLITE = begin_of_hash("capsule-edge-small.int8.tflite")
SMALL_FP32 = begin_of_hash("capsule-edge-small.fp32.tflite")
ONNX_ENGINES = ("onnxruntime", "openvino")
OUTSIDE = "external data"


@pytest.fixture
def tiny(tmp_path: Path) -> onnx.ModelProto:
    return onnx.load(write_tiny_model(tmp_path / "tiny.onnx"))


def refusal(path: Path, model: onnx.ModelProto, engine: str = "onnxruntime") -> str:
    """Write the model, and return the one line with which it is refused."""
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError) as caught:
        open_model(path, backend=engine)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def external(name: str = "lost", shape: tuple[int, ...] = (1,)) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    return tensor


# External data


def test_weights_in_the_working_directory_are_not_read(
    tiny: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same file with other weights beside the user gave other answers, under the same hash."""
    (dense,) = (tensor for tensor in tiny.graph.initializer if tensor.name == "dense")
    values = numpy_helper.to_array(dense)
    dense.CopyFrom(external("dense", values.shape))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes((values * -3).astype("<f4").tobytes())
    for engine in ONNX_ENGINES:
        assert OUTSIDE in refusal(tmp_path / "outside.onnx", tiny, engine)
        assert "'dense'" in refusal(tmp_path / "outside.onnx", tiny, engine)


def _sparse(graph: onnx.GraphProto) -> None:
    graph.sparse_initializer.add().values.CopyFrom(external())


def _constant(graph: onnx.GraphProto) -> None:
    graph.node.append(helper.make_node("Constant", [], ["c"], value=external()))


def _tensors(graph: onnx.GraphProto) -> None:
    graph.node.append(helper.make_node("Own", [], ["c"], values=[external(), external()]))


def _sparse_constant(graph: onnx.GraphProto) -> None:
    node = helper.make_node("Constant", [], ["c"])
    node.attribute.add(name="sparse_value").sparse_tensor.indices.CopyFrom(external())
    graph.node.append(node)


def _branch(graph: onnx.GraphProto) -> None:
    inner = helper.make_graph([], "inner", [], [], [external()])
    outer = helper.make_graph([helper.make_node("If", ["x"], ["y"], then_branch=inner)], "outer", [], [])
    graph.node.append(helper.make_node("Loop", ["x"], ["y"], body=outer))


@pytest.mark.quick
@pytest.mark.parametrize("put", [_sparse, _constant, _tensors, _sparse_constant, _branch])
def test_external_data_is_found_in_every_place(put: Callable[[Any], None], tiny: onnx.ModelProto) -> None:
    for graph in (tiny.graph, tiny.training_info.add().algorithm):
        copy = onnx.ModelProto()
        copy.CopyFrom(tiny)
        put(copy.graph if graph is tiny.graph else copy.training_info[0].algorithm)
        with pytest.raises(ModelError, match=OUTSIDE):
            check_onnx(Path("m.onnx"), copy.SerializeToString())
    function = tiny.functions.add(name="f", domain="d")
    holder = onnx.GraphProto()
    put(holder)
    function.node.extend(holder.node)
    if holder.node:
        with pytest.raises(ModelError, match=OUTSIDE):
            check_onnx(Path("m.onnx"), tiny.SerializeToString())


def _paths_to_tensors() -> Iterator[tuple[str, int, str]]:
    """Yield message, field number and message of each step of ONNX's schema on a way from a model to a tensor."""
    messages = onnx.onnx_ml_pb2.DESCRIPTOR.message_types_by_name
    steps = {
        (name, field.number, field.message_type.name)
        for name, message in messages.items()
        for field in message.fields
        if field.message_type is not None
    }
    leads = {"TensorProto"}
    while found := {name for name, _, to in steps if to in leads} - leads:
        leads |= found
    reached, new = {"ModelProto"}, {"ModelProto"}
    while new := {to for name, _, to in steps if name in reached and to in leads} - reached:
        reached |= new
    yield from (step for step in steps if step[0] in reached and step[2] in leads)


@pytest.mark.quick
def test_the_field_numbers_are_those_of_onnx() -> None:
    wanted = {step for step in _paths_to_tensors() if step[0] != "TensorProto"}
    ours = {(name, number, to) for name, fields in CHILDREN.items() for number, to in fields.items()}
    assert ours == wanted | {("ModelProto", 14, "StringStringEntryProto")}
    numbers = {field.name: field.number for field in TensorProto.DESCRIPTOR.fields}
    assert (numbers["data_location"], numbers["external_data"], numbers["raw_data"]) == (14, 13, 9)


@pytest.mark.quick
def test_field_types_that_protobuf_skips_hide_nothing(tiny: onnx.ModelProto) -> None:
    content = tiny.SerializeToString()
    # A second graph is merged with the first; a "graph" that is a number is an unknown field.
    second = onnx.ModelProto(graph=onnx.GraphProto(initializer=[external()])).SerializeToString()
    with pytest.raises(ModelError, match=OUTSIDE):
        check_onnx(Path("m.onnx"), content + second)
    check_onnx(Path("m.onnx"), content + bytes([7 << 3, 1]))
    deep = b""
    for _ in range(40):  # three levels each; protobuf stops at 100
        deep = _nest(deep)
    with pytest.raises(ModelError, match="levels"):
        check_onnx(Path("m.onnx"), b"\x3a" + _length(deep) + deep)


def _length(content: bytes) -> bytes:
    size, found = len(content), b""
    while size >= 0x80:
        found, size = found + bytes([size & 0x7F | 0x80]), size >> 7
    return found + bytes([size])


def _nest(graph: bytes) -> bytes:
    """A graph with a node with an attribute with the graph."""
    for tag in (6 << 3 | 2, 5 << 3 | 2, 1 << 3 | 2):
        graph = bytes([tag]) + _length(graph) + graph
    return graph


# Metadata


@pytest.mark.parametrize("engine", ONNX_ENGINES)
def test_two_descriptions_are_refused(tiny: onnx.ModelProto, tmp_path: Path, engine: str) -> None:
    other = tiny_spec(("normal", "polyp", "bleeding")).to_json()
    tiny.metadata_props.add(key=METADATA_KEY, value=other)
    assert "has 2 capsule_edge entries" in refusal(tmp_path / "two.onnx", tiny, engine)


def tflite_of(names: Sequence[str], *, external: bool = False) -> bytes:
    """A TFLite file of nothing but metadata entries, and a group of external buffers."""
    builder = flatbuffers.Builder()

    def vector(offsets: list[int]) -> int:
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return int(builder.EndVector())

    def table(*fields: int) -> int:
        builder.StartObject(10)
        for number, offset in enumerate(fields):
            if offset:
                builder.PrependUOffsetTRelativeSlot(number, offset, 0)
        return int(builder.EndObject())

    entries = vector([table(text) for text in [builder.CreateString(name) for name in names]])
    groups = vector([table(builder.CreateString("weights.bin"))]) if external else 0
    builder.Finish(table(0, 0, 0, 0, vector([table()]), 0, entries, 0, groups), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.quick
def test_two_descriptions_or_external_buffers_in_a_tflite_file_are_refused() -> None:
    path = Path("m.tflite")
    check_tflite(path, tflite_of([METADATA_KEY, "other"]))
    check_tflite(path, (SHIPPED / "capsule-edge-small.int8.tflite").read_bytes())
    with pytest.raises(ModelError, match="has 2 capsule_edge entries"):
        check_tflite(path, tflite_of([METADATA_KEY, "other", METADATA_KEY]))
    with pytest.raises(ModelError, match=OUTSIDE):
        check_tflite(path, tflite_of([METADATA_KEY], external=True))


def _with(**changes: Any) -> dict[str, Any]:
    return {**json.loads(tiny_spec().to_json()), **changes}


SUMMARY = {
    "verdict": "pass",
    "agreement": 1.0,
    "data": {"name": "d", "frames": 3},
    "failed": [],
    "undecided": [],
}


@pytest.mark.quick
@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (tiny_spec().to_json()[:-1] + ', "name": "other"}', "'name' is there twice"),
        (tiny_spec().to_json().replace('"threshold": 0.5', '"threshold": NaN'), "NaN is not a number"),
        (tiny_spec().to_json().replace('"threshold": 0.5', '"threshold": 1e999'), "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        (json.dumps(_with(name="half \ud800")), "is not JSON"),
        (json.dumps(_with(saturation_safe="yes")), "saturation_safe is 'yes'"),
        (
            json.dumps(_with(operating_points={"polyp": {"threshold": 0.5, "sensitivity": "x"}})),
            "sensitivity",
        ),
        (json.dumps(_with(parity={"shipping": {**SUMMARY, "verdict": "good"}})), "verdict 'good'"),
        (json.dumps(_with(parity={"shipping": {**SUMMARY, "agreement": 2}})), "agreement"),
        (json.dumps(_with(parity={"shipping": {**SUMMARY, "data": []}})), "a JSON object is needed"),
        (json.dumps(_with(parity={"shipping": {**SUMMARY, "against_sha256": "x"}})), "64 hexadecimal"),
        (
            json.dumps(_with(parity={"shipping": {**SUMMARY, "failed": ["sensitivity_loss.worms"]}})),
            "judges the label 'worms', and the model's labels are normal, bleeding, polyp",
        ),
    ],
)
def test_descriptions_that_readers_could_take_in_two_ways_are_refused(text: str, fault: str) -> None:
    with pytest.raises(ModelError) as caught:
        ModelSpec.from_json(text)
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.quick
def test_a_certificate_about_the_labels_is_read() -> None:
    parity = {
        "shipping": {**SUMMARY, "undecided": ["sensitivity_loss.polyp", "agreement"]},
        "fp32_sha256": "e",
    }
    assert ModelSpec.from_json(json.dumps(_with(parity=parity))).certificates.keys() == {"shipping"}


def test_metadata_that_is_not_utf_8_is_one_line(tmp_path: Path) -> None:
    file = write_tiny_model(tmp_path / "tiny.onnx")
    content = file.read_bytes()
    file.write_bytes(content.replace(b"Bleeding", b"Bleed\xe9ng"))
    for engine in ONNX_ENGINES:
        with pytest.raises(ModelError, match="is not UTF-8: byte"):
            open_model(file, backend=engine)


# Scales and sizes


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0])
@pytest.mark.parametrize("raw", [True, False])
def test_a_scale_must_be_a_positive_number(
    tiny: onnx.ModelProto, tmp_path: Path, value: float, raw: bool
) -> None:
    scale = helper.make_tensor("s", TensorProto.FLOAT, [2], [0.5, value])
    if raw:
        scale = numpy_helper.from_array(np.float32([0.5, value]), "s")
    tiny.graph.initializer.extend([scale, helper.make_tensor("w", TensorProto.INT8, [2], [1, 2])])
    tiny.graph.node.append(helper.make_node("DequantizeLinear", ["w", "s"], ["r"], axis=0))
    assert f"a scale of 's' is {value:g}, allowed is" in refusal(tmp_path / "scale.onnx", tiny)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        (2, struct.pack("<f", float("nan")), "a scale of .* is nan, allowed is a finite number above 0"),
        (3, struct.pack("<q", 300), "a zero point of .* is 300, allowed is"),
    ],
)
def test_the_quantisation_of_a_tflite_file_is_checked(field: int, value: bytes, fault: str) -> None:
    content = bytearray((SHIPPED / "capsule-edge-small.int8.tflite").read_bytes())
    graph = tflite_metadata._tables(Table(content, encode.Get(packer.uoffset, content, 0)), 2)[0]
    tensor = tflite_metadata._tables(graph, 0)[1]
    details = Table(content, tensor.Indirect(tflite_metadata._field(tensor, 4)))
    at = details.Vector(tflite_metadata._field(details, field) - details.Pos)
    content[at : at + len(value)] = value
    with pytest.raises(ModelError, match=fault):
        check_tflite(Path("m.tflite"), bytes(content))


HUGE = 2**40


@pytest.mark.quick
@pytest.mark.parametrize(
    ("operator", "inputs"),
    [
        ("ConstantOfShape", [np.array([HUGE], np.int64)]),
        ("Expand", [np.float32([1]), np.array([2**20, 1, 2**20], np.int64)]),
        ("Tile", [np.float32([1]), np.array([HUGE], np.int64)]),
        ("Resize", [np.float32([1]), np.float32([]), np.float32([1e12])]),
        ("Pad", [np.float32([[1]]), np.array([0, 2**20, 2**20, 0], np.int64)]),
    ],
)
@pytest.mark.parametrize("constant", [True, False])
def test_a_model_that_asks_for_terabytes_is_refused(
    tiny: onnx.ModelProto, operator: str, inputs: list[Any], constant: bool
) -> None:
    names = [f"i{number}" for number in range(len(inputs))]
    for name, value in zip(names, inputs, strict=True):
        tensor = numpy_helper.from_array(value, name)
        if constant:
            tiny.graph.node.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            tiny.graph.initializer.append(tensor)
    tiny.graph.node.append(helper.make_node(operator, names, ["huge"]))
    with pytest.raises(ModelError, match="makes a tensor of at least"):
        check_onnx(Path("m.onnx"), tiny.SerializeToString())


@pytest.mark.quick
def test_a_tensor_beyond_the_limit_is_refused(tiny: onnx.ModelProto) -> None:
    tiny.graph.initializer.append(TensorProto(name="big", data_type=TensorProto.FLOAT, dims=[HUGE, HUGE]))
    with pytest.raises(
        ModelError, match=r"'big' of shape .* takes 4.84e\+24 bytes, allowed are 2,147,483,648"
    ):
        check_onnx(Path("m.onnx"), tiny.SerializeToString())


@pytest.mark.quick
def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "recording.onnx"
    with file.open("wb") as sparse:
        sparse.truncate(2**31 + 1)
    with pytest.raises(ModelError, match="has 2,147,483,649 bytes, allowed are"):
        open_model(file)


# Engines


@pytest.mark.parametrize("engine", ONNX_ENGINES)
def test_an_engine_that_fails_while_it_runs_is_one_line(
    tiny: onnx.ModelProto, tmp_path: Path, engine: str
) -> None:
    """A constant shape fits two frames and no others."""
    tiny.graph.initializer.append(numpy_helper.from_array(np.array([2, 3], np.int64), "two"))
    for node in tiny.graph.node:
        if node.op_type == "Add":
            node.output[0] = "sum"
    tiny.graph.node.append(helper.make_node("Reshape", ["sum", "two"], ["logits"]))
    ordered = sorted(tiny.graph.node, key=lambda node: node.op_type in ("Div", "Softmax"))
    del tiny.graph.node[:]
    tiny.graph.node.extend(ordered)
    file = tmp_path / "two.onnx"
    file.write_bytes(tiny.SerializeToString())
    model = open_model(file, backend=engine)
    assert model.run(np.zeros((2, 32, 32, 3), np.uint8)).logits.shape == (2, 3)
    with pytest.raises(BackendError) as caught:
        model.run(np.zeros((3, 32, 32, 3), np.uint8))
    assert f"cannot run {file}: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.quick
def test_features_that_are_not_numbers_are_refused(tiny: onnx.ModelProto, tmp_path: Path) -> None:
    for node in tiny.graph.node:
        if "features" in node.output:
            node.output[0] = "plain"
    tiny.graph.initializer.append(numpy_helper.from_array(np.float32(np.nan), "none"))
    tiny.graph.node.append(helper.make_node("Add", ["plain", "none"], ["features"]))
    file = tmp_path / "nan.onnx"
    file.write_bytes(tiny.SerializeToString())
    with pytest.raises(ModelError, match="NaN or infinite features"):
        open_model(file).run(np.zeros((1, 32, 32, 3), np.uint8))


# What lies beside a model


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the installed small model and what comes with it, in a folder that counts as installed."""
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("capsule-edge-small.int8.onnx", "SHA256SUMS", "golden.json"):
        shutil.copy(default_model().parent / name, folder)
    monkeypatch.setattr(references, "_is_installed", lambda path: path.parent == folder)
    return folder / "capsule-edge-small.int8.onnx"


def test_an_installed_model_must_be_the_one_that_was_released(installed: Path) -> None:
    open_model(installed).close()
    content = bytearray(installed.read_bytes())
    content[len(content) // 2] ^= 1
    installed.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        open_model(installed)
    assert str(installed) in caught.value.message
    assert hashlib.sha256(content).hexdigest() in caught.value.message
    assert caught.value.hint == "get the file back: pip install --force-reinstall --no-deps capsule-edge"


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        ("SHA256SUMS", lambda text: "", "does not list the installed"),
        ("SHA256SUMS", lambda text: text[3:], "line 1 is not a SHA-256 and a file name"),
        ("SHA256SUMS", lambda text: text + other_digit(text, SMALL), "contradicts another"),
        ("golden.json", lambda text: text[:100], "is damaged"),
        ("golden.json", lambda text: other_digit(text, SMALL), "has no answers of the installed"),
        ("golden.json", lambda text: text.replace('"polyp", "ulcer"', '"ulcer", "polyp"'), "with the labels"),
        ("golden.json", lambda text: text.replace("-1.02698", "NaN"), "is damaged"),
    ],
)
def test_what_comes_with_an_installed_model_is_checked(
    installed: Path, name: str, change: Callable[[str], str], fault: str
) -> None:
    beside = installed.with_name(name)
    beside.write_text(change(beside.read_text()))
    with pytest.raises(ModelError, match=fault) as caught:
        open_model(installed)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """The shipped TFLite file of the small model with its certificates, as ``export`` leaves a folder."""
    file = Path(shutil.copy(SHIPPED / "capsule-edge-small.int8.tflite", tmp_path))
    (tmp_path / "certificates").mkdir()
    for certificate in (SHIPPED / "certificates").glob(f"{file.name}.*.json"):
        shutil.copy(certificate, tmp_path / "certificates")
    shutil.copy(SHIPPED / "SHA256SUMS", tmp_path)
    return file


def test_an_exported_model_is_checked_against_its_folder(released: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    open_model(released, backend="litert").close()
    sums = released.with_name("SHA256SUMS")
    listed = sums.read_text()
    sums.write_text(other_digit(listed, SMALL_FP32))
    with pytest.raises(ModelError, match=f"was certified against an FP32 file of SHA-256 {SMALL_FP32}"):
        open_model(released, backend="litert")
    sums.write_text(other_digit(listed, SMALL_TFLITE))
    with pytest.raises(ModelError, match="is not the file that SHA256SUMS beside it lists"):
        open_model(released, backend="litert")
    sums.unlink()
    open_model(released, backend="litert").close()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            lambda text: other_digit(text, SMALL_TFLITE),
            f"the SHA-256 is {other_digit(SMALL_TFLITE, SMALL_TFLITE)}",
        ),
        (lambda text: text.replace('"undecided",\n "tool"', '"pass",\n "tool"'), "the verdict is pass"),
        (lambda text: text.replace('"worms": {', '"worm": {'), "the labels is"),
        (lambda text: text[:100], "is damaged"),
    ],
)
def test_a_certificate_that_contradicts_the_model_is_one_line(
    released: Path, change: Callable[[str], str], fault: str
) -> None:
    pytest.importorskip("ai_edge_litert")
    certificate = released.parent / "certificates" / f"{released.name}.shipping.json"
    text = certificate.read_text()
    assert change(text) != text
    certificate.write_text(change(text))
    with pytest.raises(ModelError, match=fault) as caught:
        open_model(released, backend="litert")
    assert certificate.name in str(caught.value)
    assert "\n" not in str(caught.value)


# What features mean


@pytest.mark.parametrize("name", ["standard", "small"])
def test_features_average_to_the_logits_less_the_bias(name: str) -> None:
    """The bound of docs/quantization.md, from the scales in the file, on the golden frames."""
    from capsule_edge.runtime.diagnostics import golden_frames

    graph = onnx.load(default_model(name)).graph
    values = {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in graph.initializer}
    dense = values["head/classifier"][:, :, 0, 0]
    through = values["pool/scale"] ** 2 * (dense**2).sum(axis=1)
    bound = 6 * np.sqrt((through + values["logits/scale"] ** 2) / 12)
    model = open_model(default_model(name), threads=1)
    # Without the three frames of noise, which exceed the ranges of the calibration.
    answer = model.run(golden_frames(model.spec.input)[:-3])
    bias = values["logits/bias"] * values["logits/bias/scale"]
    off = np.abs(answer.features.mean(axis=(1, 2)) - (answer.logits - bias))
    assert np.all(off <= bound)
    # Features that are 5 % too large would not pass.
    assert np.any(np.abs(1.05 * answer.features.mean(axis=(1, 2)) - (answer.logits - bias)) > bound)
    assert bound.max() < 0.09
