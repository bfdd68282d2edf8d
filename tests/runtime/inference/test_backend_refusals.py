"""Bad model files, engines and answers are refused in one line that says what to do."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from backend_samples import SUFFIX, file_of
from tiny_model import tiny_spec, write_tiny_model

from capsule_edge.runtime.errors import BackendError, ModelError, UsageError
from capsule_edge.runtime.inference import BACKENDS, installed_backends, open_model
from capsule_edge.runtime.inference.backend import Tensor, check_contract


@pytest.mark.quick
@pytest.mark.parametrize("content", [b"", b"hello", b"\x00\x00\x00\x00TFL3" + bytes(64), bytes(4096)])
def test_a_file_that_is_not_a_model_is_an_error_in_one_line(
    tmp_path: Path, engine: str, content: bytes
) -> None:
    file = tmp_path / f"bad.{SUFFIX[BACKENDS[engine].reads]}"
    file.write_bytes(content)
    with pytest.raises((ModelError, BackendError)) as caught:
        open_model(file, backend=engine)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_model_file_is_an_error_in_one_line(
    bundle: Path, tmp_path: Path, engine: str, share: float
) -> None:
    whole = file_of(bundle, engine, "int8")
    file = tmp_path / whole.name
    content = whole.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError) as caught:
        open_model(file, backend=engine)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_paths_may_have_spaces_and_non_ascii_letters(bundle: Path, tmp_path: Path, engine: str) -> None:
    file = file_of(bundle, engine, "int8")
    copy = tmp_path / "Größe 2 Ω" / file.name
    copy.parent.mkdir()
    copy.write_bytes(file.read_bytes())
    assert open_model(copy, backend=engine).spec == open_model(file, backend=engine).spec


def test_a_file_of_the_other_format_names_the_backend_that_reads_it(bundle: Path) -> None:
    tflite, onnx = bundle / "model.int8.tflite", bundle / "model.int8.onnx"
    for engine in ("onnxruntime", "openvino"):
        with pytest.raises(BackendError, match=r"is a TFLite file.*reads ONNX.*use --backend litert"):
            open_model(tflite, backend=engine)
    with pytest.raises(
        BackendError, match=r"is not a TFLite file.*reads TFLite.*use --backend onnxruntime or openvino"
    ):
        open_model(onnx, backend="litert")
    disguised = bundle.parent / "disguised.onnx"
    disguised.write_bytes(tflite.read_bytes())
    with pytest.raises(BackendError, match="use --backend litert"):
        open_model(disguised)
    assert open_model(disguised, backend="litert").spec.precision == "int8"


def test_an_engine_that_is_not_installed_is_named_with_its_extra(
    bundle: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, BACKENDS[engine].needs, None)
    with pytest.raises(BackendError) as caught:
        open_model(file_of(bundle, engine, "int8"), backend=engine)
    extra = BACKENDS[engine].extra
    assert "is not installed" in caught.value.message
    assert caught.value.hint == (
        f"pip install 'capsule-edge[{extra}]'" if extra else "install capsule-edge again"
    )
    assert engine not in installed_backends()


def test_unknown_engines_bad_threads_and_folders_are_refused(bundle: Path, engine: str) -> None:
    file = file_of(bundle, engine, "int8")
    with pytest.raises(BackendError, match="allowed is one of onnxruntime, openvino, litert"):
        open_model(file, backend="tensorrt")
    with pytest.raises(UsageError, match="allowed is 0"):
        open_model(file, backend=engine, threads=-1)
    with pytest.raises(ModelError, match="no model file"):
        open_model(bundle, backend=engine)


@pytest.mark.quick
def test_a_file_without_a_spec_is_refused(tmp_path: Path) -> None:
    file = write_tiny_model(tmp_path / "plain.onnx", metadata=False)
    for engine in ("onnxruntime", "openvino"):
        with pytest.raises(ModelError, match="carries no capsule_edge metadata"):
            open_model(file, backend=engine)


FITS = {
    "probabilities": Tensor("float32", (None, 3)),
    "logits": Tensor("float32", (None, 3)),
    "features": Tensor("float32", (None, 8, 8, 3)),
}


@pytest.mark.quick
@pytest.mark.parametrize(
    ("inputs", "outputs", "fault"),
    [
        ({}, {}, "inputs are []"),
        ({"a": Tensor("float32", (None, 32, 32, 3))}, {}, "inputs are [a float32 (any, 32, 32, 3)]"),
        ({"a": Tensor("uint8", (None, 3, 32, 32))}, {}, "needs one uint8 (N, 32, 32, 3)"),
        ({"a": Tensor("uint8", (1, 32, 32, 3))}, {}, "the batch size is fixed at 1"),
        (None, {"logits": None}, "output 'logits' is absent"),
        (None, {"features": Tensor("float32", (None, 3))}, "needed is float32 of rank 4"),
        (None, {"probabilities": Tensor("uint8", (None, 3))}, "output 'probabilities' is uint8 (any, 3)"),
        (None, {"logits": Tensor("float32", (None, 4))}, "ending in 3"),
        (None, {"features": Tensor("float32", (None, 2**20, 2**20, 3))}, "takes 1.32e+13 bytes"),
    ],
)
def test_a_spec_that_does_not_fit_is_refused(
    inputs: dict[str, Tensor] | None, outputs: dict[str, Tensor | None], fault: str
) -> None:
    given = {"frames": Tensor("uint8", (None, 32, 32, 3))} if inputs is None else inputs
    found = {name: tensor for name, tensor in {**FITS, **outputs}.items() if tensor is not None}
    with pytest.raises(ModelError) as caught:
        check_contract(Path("m"), tiny_spec(), given, found)
    assert fault in str(caught.value)
    assert check_contract(Path("m"), tiny_spec(), {"x": Tensor("uint8", (None, 32, 32, 3))}, FITS) == "x"


@pytest.mark.quick
def test_nan_probabilities_are_refused(tmp_path: Path) -> None:
    file = write_tiny_model(tmp_path / "nan.onnx", gain=float("nan"))
    for engine in ("onnxruntime", "openvino"):
        with pytest.raises(ModelError, match="NaN or infinite"):
            open_model(file, backend=engine).run(np.zeros((1, 32, 32, 3), np.uint8))
