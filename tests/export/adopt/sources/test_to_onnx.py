"""Models of Keras 3, tf_keras, SavedModel and TFLite become ONNX files that answer as their framework does."""

from __future__ import annotations

import gc
import io
import os
import subprocess
import weakref
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from framework_models import LABELS, SIZE, frames

from capsule_edge.export.adopt.onnx_source import read_onnx
from capsule_edge.export.adopt.sources import framework_program, recognise, to_onnx
from capsule_edge.export.adopt.sources.framework_process import FrameworkProcess, read_message, write_message
from capsule_edge.export.adopt.sources.loaded_model import read_shape
from capsule_edge.export.adopt.sources.tensorflow_graph import call_tf2onnx
from capsule_edge.runtime.errors import InputError, ModelError, UsageError

pytest.importorskip("tf_keras", reason="needs the extra 'train'")
# Float32 in another order of summation, in a network of a few layers.
TOLERANCE = 1e-4


@pytest.fixture(scope="session")
def framework() -> Iterator[Callable[[str], FrameworkProcess]]:
    """Return a function from a kind to its process, which several tests share: TensorFlow loads for seconds."""
    started: dict[str, FrameworkProcess] = {}

    def start(kind: str) -> FrameworkProcess:
        if kind not in started:
            started[kind] = FrameworkProcess(kind)
        return started[kind]

    yield start
    for process in started.values():
        process.close()


def convert(process: FrameworkProcess, path: Path, out: Path, size: int | None = None) -> dict[str, Any]:
    return process.ask({"do": "convert", "path": str(path), "out": str(out), "size": size})[0]


def answers_of(out: Path, batch: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(out, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["N", SIZE, SIZE, 3]
    return session.run(None, {"input": batch.astype(np.float32)})[0]


@pytest.mark.parametrize(
    ("name", "scaling", "outputs"),
    [
        ("cnn", "0..255", "probabilities"),
        ("vit", "0..255", "logits"),
        ("nested", "0..255", "sigmoid"),
        ("normalised", "0..255", "probabilities"),
        ("convnext", "0..255", "logits"),
        ("squeezed", None, "logits"),
    ],
)
def test_keras_3_model_answers_in_onnx_as_in_keras(
    name: str, scaling: str | None, outputs: str, written: Any, framework: Any, tmp_path: Path
) -> None:
    folder, out = written("keras"), tmp_path / "model.onnx"
    facts = convert(framework("keras"), folder / f"{name}.keras", out)
    expected = np.load(folder / f"{name}.npy")
    given = frames() / 127.5 - 1 if name == "squeezed" else frames()
    assert expected.std(axis=0).max() > 1e-3  # the frames are answered differently
    assert np.abs(answers_of(out, given) - expected).max() < TOLERANCE * max(1, np.abs(expected).max())
    assert (facts["scaling"], facts["outputs"], facts["layout"], facts["size"]) == (
        scaling, outputs, "nhwc", SIZE,
    )  # fmt: skip
    assert bool(facts["notes"]) == (scaling is not None)


@pytest.mark.parametrize("name", ["vit", "convnext"])
def test_converted_layers_stand_side_by_side(name: str, written: Any, framework: Any, tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    convert(framework("keras"), written("keras") / f"{name}.keras", out)
    graph = onnx.load(out).graph
    kinds = {node.op_type for node in graph.node}
    assert not kinds & {"Shape", "Gather", "Erfc", "StatefulPartitionedCall"}
    assert "Erf" in kinds
    if name == "vit":  # ConvNeXt normalises in front of a transposition
        assert "LayerNormalization" in kinds
        assert "Sqrt" not in kinds
    constants = {tensor.name for tensor in graph.initializer}
    assert all(node.input[1] in constants for node in graph.node if node.op_type == "Reshape")


@pytest.mark.parametrize("name", ["cnn.h5", "cnn.keras", "cnn_saved", "cnn.tflite"])
def test_tensorflow_model_answers_in_onnx_as_in_its_framework(
    name: str, written: Any, framework: Any, tmp_path: Path
) -> None:
    path, out = written("tf_keras") / name, tmp_path / "model.onnx"
    kind = recognise(path)
    assert kind == {"cnn_saved": "savedmodel", "cnn.tflite": "tflite"}.get(name, "tf_keras")
    facts = convert(framework(kind), path, out)
    expected = np.load(path.with_name("cnn.npy"))
    assert np.abs(answers_of(out, frames()) - expected).max() < TOLERANCE * max(1, np.abs(expected).max())
    assert facts["size"] == SIZE
    if kind == "tf_keras":
        assert (facts["scaling"], facts["outputs"]) == ("0..255", "logits")


@pytest.mark.parametrize("name", ["cnn_legacy.h5", "cnn_exported"])
def test_other_files_of_keras_3_are_converted(
    name: str, written: Any, framework: Any, tmp_path: Path
) -> None:
    path, out = written("keras") / name, tmp_path / "model.onnx"
    convert(framework(recognise(path)), path, out)
    assert np.abs(answers_of(out, frames()) - np.load(path.with_name("cnn.npy"))).max() < TOLERANCE


def test_source_facts_run_answers_with_the_framework(written: Any, tmp_path: Path) -> None:
    facts = to_onnx(written("keras") / "cnn.keras", tmp_path / "model.onnx")
    try:
        assert (facts.kind, facts.scaling, facts.channels, facts.outputs) == (
            "keras",
            "0..255",
            None,
            "probabilities",
        )
        assert callable(facts.run)
        for count in (1, 5):
            expected = np.load(written("keras") / "cnn.npy")[:count]
            answers = facts.run(frames()[:count])
            assert answers.shape == (count, LABELS)
            assert np.abs(answers - expected).max() < TOLERANCE
    finally:
        facts.run.close()
    with pytest.raises(ModelError, match="has been closed"):
        facts.run(frames())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("custom.keras", r"layer 'halving' is of the class Halved, which is not part of Keras"),
        ("lambda.keras", r"layer 'code' is a Lambda, which holds code and is not run"),
        ("mixed.keras", r"layer 'half' computes in mixed_float16, allowed is float32"),
        ("subclassed.keras", r"is a subclassed model \(Own\)"),
        ("only.weights.h5", r"holds no Keras model"),
    ],
)
def test_models_that_need_code_are_refused_before_keras_loads_them(
    name: str, message: str, written: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises(ModelError, match=message) as caught:
        to_onnx(written("keras") / name, tmp_path / "model.onnx")
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("two_inputs.keras", ModelError, r"has 2 inputs \('left', 'right'\), allowed is one"),
        ("maps.keras", ModelError, r"has the shape \(N, 30, 30, 2\), allowed is one score for each label"),
        ("open_size.keras", UsageError, r"leaves the size open \(\(N, \?, \?, 3\)\)"),
    ],
)
def test_models_that_are_no_classifier_of_one_picture_are_refused(
    name: str, error: type[Exception], message: str, written: Any, framework: Any, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        convert(framework("keras"), written("keras") / name, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize(
    ("size", "allowed"), [(7, False), (8, True), (1024, True), (1025, False), (1200, False)]
)
def test_sizes_are_those_of_onnx_files(size: int, allowed: bool) -> None:
    """A size that the ONNX file would be refused for is refused before it is converted, with the user's file."""
    ends = [("x", (None, size, size, 3), "float32")], [("y", (None, LABELS))]
    if allowed:
        assert read_shape(Path("my.keras"), *ends, None).size == size
    else:
        with pytest.raises(ModelError, match=r"my\.keras: .* squares of 8 to 1024 pixels"):
            read_shape(Path("my.keras"), *ends, None)


def test_refusals_of_a_converted_file_name_the_file_of_the_user(foreign: Any, tmp_path: Path) -> None:
    proto = onnx.load(foreign("residual"))
    made = proto.graph.node[-1].output[0]
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 1000], np.int64), "times"))
    proto.graph.node.append(onnx.helper.make_node("Tile", [made, "times"], ["many"], name="/many"))
    proto.graph.output[0].name = "many"
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 3000
    onnx.save(proto, tmp_path / "source.onnx")
    with pytest.raises(ModelError, match=r"^mine\.keras has 3,000 outputs"):
        read_onnx(tmp_path / "source.onnx", made_from=Path("mine.keras"))
    assert read_onnx(foreign("residual"), made_from=Path("mine.keras")).path == Path("mine.keras")


def test_nothing_is_left_in_the_folder_for_temporary_files(
    written: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorFlow writes the functions that it rewrites as files, and has no time to remove them."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    facts = to_onnx(written("keras") / "cnn.keras", tmp_path / "model.onnx")
    assert list(folder.rglob("*")), "the process wrote no file, so this shows nothing"
    facts.run.close()
    assert not list(folder.iterdir())


@pytest.mark.parametrize("broken", [False, True])
def test_an_optimiser_that_fails_is_left_out(monkeypatch: pytest.MonkeyPatch, broken: bool) -> None:
    """tf2onnx leaves it out where the variable is not set, and copies the graph before each optimiser then."""
    monkeypatch.setenv("TF2ONNX_CATCH_ERRORS", "FALSE")
    calls = []

    def convert(graph: str, *, opset: int) -> tuple[str, None]:
        calls.append("TF2ONNX_CATCH_ERRORS" in os.environ)
        if broken and calls[-1]:
            raise ValueError("an optimiser failed")
        return f"{graph} {opset}", None

    assert call_tf2onnx(convert, "graph", opset=17) == "graph 17"
    assert calls == ([True, False] if broken else [True])
    assert os.environ["TF2ONNX_CATCH_ERRORS"] == "FALSE"


def test_a_conversion_that_fails_twice_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def convert() -> None:
        raise ValueError("no such operation")

    for value in ("FALSE", None):
        monkeypatch.delenv("TF2ONNX_CATCH_ERRORS", raising=False)
        if value:
            monkeypatch.setenv("TF2ONNX_CATCH_ERRORS", value)
        with pytest.raises(ValueError, match="no such operation"):
            call_tf2onnx(convert)
        assert os.environ.get("TF2ONNX_CATCH_ERRORS") == value


def test_graphs_of_a_conversion_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """They refer to themselves, and Python might look for them only hours later."""

    class Model:
        def convert(self, out: Path) -> dict[str, Any]:
            graph = type("Graph", (), {})()
            graph.itself = graph
            kept.append(weakref.ref(graph))
            return {"size": 8}

    kept: list[Any] = []
    monkeypatch.setattr(framework_program, "load", lambda *_: Model())
    requests, replies = io.BytesIO(), io.BytesIO()
    write_message(requests, {"do": "convert", "path": "a", "out": "b", "size": None})
    requests.seek(0)
    gc.disable()
    try:
        framework_program.serve("keras", requests, replies)
    finally:
        gc.enable()
    replies.seek(0)
    assert read_message(replies) == ({"size": 8}, None)
    assert kept[0]() is None


def test_open_size_is_fixed_by_the_option(written: Any, framework: Any, tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    facts = convert(framework("keras"), written("keras") / "open_size.keras", out, SIZE)
    assert facts["size"] == SIZE
    assert answers_of(out, frames()).shape == (len(frames()), LABELS)


def test_size_that_contradicts_the_file_is_refused(written: Any, framework: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--size is 64, but the input of .* is 32"):
        convert(framework("keras"), written("keras") / "cnn.keras", tmp_path / "model.onnx", 64)


def test_half_precision_tflite_is_refused_by_its_tensor(written: Any, framework: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the tensor '.+' is float16, allowed is float32"):
        convert(framework("tflite"), written("tf_keras") / "half.tflite", tmp_path / "model.onnx")


def test_saved_model_that_reads_files_is_refused_by_its_operation(
    written: Any, framework: Any, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="is a ReadFile, allowed are operations that compute"):
        convert(framework("savedmodel"), written("tf_keras") / "reading", tmp_path / "model.onnx")


def test_damaged_files_are_refused_in_one_line(written: Any, framework: Any, tmp_path: Path) -> None:
    whole = (written("tf_keras") / "cnn.tflite").read_bytes()
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(whole[: len(whole) // 3])
    with pytest.raises(ModelError, match=r"LiteRT cannot open .*cut.tflite") as caught:
        convert(framework("tflite"), cut, tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)
    # The process goes on after an error.
    assert (
        convert(framework("tflite"), written("tf_keras") / "cnn.tflite", tmp_path / "m.onnx")["size"] == SIZE
    )


def test_keras_file_without_its_weights_is_refused(written: Any, framework: Any, tmp_path: Path) -> None:
    emptied = tmp_path / "emptied.keras"
    with zipfile.ZipFile(written("keras") / "cnn.keras") as whole, zipfile.ZipFile(emptied, "w") as part:
        for name in ("config.json", "metadata.json"):
            part.writestr(name, whole.read(name))
    with pytest.raises(ModelError, match=r"emptied.keras cannot be loaded with keras") as caught:
        convert(framework("keras"), emptied, tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)


def test_process_that_dies_is_reported_with_its_last_line(tmp_path: Path) -> None:
    process = FrameworkProcess("keras")
    try:
        process._process.stdin.write(b"no message\n")
        with pytest.raises(ModelError, match=r"ended with code 1: .*JSONDecodeError"):
            convert(process, tmp_path / "cnn.keras", tmp_path / "model.onnx")
    finally:
        process.close()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is of no known format"),
        (b"PK\x03\x04 and nothing", "holds no Keras model"),
        (b"\x89HDF\r\n\x1a\n and nothing", "holds no Keras model"),
        (b"\x80\x04\x95 a pickle", "is of no known format"),
    ],
)
def test_files_of_other_kinds_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        recognise(path)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.keras cannot be read: No such file"):
        recognise(tmp_path / "none.keras")
    with pytest.raises(ModelError, match=r"is a folder without saved_model.pb"):
        recognise(tmp_path)
