"""The exported files: the contract of each, integers in the graph, agreement, nothing half written."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

pytest.importorskip("tf_keras", reason="needs the extra 'train'")

import tensorflow as tf
from quantised_models import KEYS, calibrated, fp32_model, write_run

from capsule_edge.cli.export import command
from capsule_edge.export import bundle
from capsule_edge.export.bundle import FILES, ExportReport, export_run
from capsule_edge.export.int8 import build_int8_onnx, check_layers, compute, read_integers, reference_runner
from capsule_edge.export.run_folder import load_run, synthetic_frames
from capsule_edge.export.runners import file_runner, in_batches, keras_runner, open_file
from capsule_edge.export.verify import check_int8_graph, check_outputs, compare_edges, replay
from capsule_edge.export.verify.graph_checks import check_bias_scales, count_operators
from capsule_edge.export.verify.saturation import compute_saturating, saturations
from capsule_edge.runtime.errors import CapsuleEdgeError, InputError, ModelError, OutputError
from capsule_edge.runtime.inference import open_model
from capsule_edge.runtime.inference.tflite_metadata import read_metadata, read_spec

ARCHITECTURES = {"plain_cnn": 64, "mobilenet_v2_035": 96}


@pytest.fixture(scope="session", params=ARCHITECTURES)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ExportReport]:
    """A RUN folder and the report of its export."""
    folder = tmp_path_factory.mktemp(request.param)
    run = write_run(folder / "run", request.param, ARCHITECTURES[request.param])
    return run, export_run(run, folder / "out")


@pytest.fixture(scope="session")
def plain_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("plain") / "run", "plain_cnn", 64, saturation_safe=False)


@pytest.fixture(scope="session")
def plain_out(plain_run: Path) -> Path:
    export_run(plain_run, plain_run.parent / "out")
    return plain_run.parent / "out"


def _runner(path: Path) -> Any:
    return file_runner(open_file(path))


@pytest.mark.parametrize("name", FILES)
def test_each_file_keeps_the_contract(exported: tuple[Path, ExportReport], name: str) -> None:
    path = exported[1].folder / FILES[name]
    spec = open_model(path).spec if path.suffix == ".onnx" else read_spec(path)
    assert spec.keys == KEYS
    assert spec.precision == ("int8" if "INT8" in name else "fp32")
    assert spec.temperature == 1.5
    assert spec.saturation_safe is (True if "INT8" in name else None)
    assert "tensorflow" in spec.provenance["exported_with"]
    if "INT8" in name:
        twin = path.with_name(path.name.replace("int8", "fp32"))
        assert spec.parity == {"fp32_sha256": hashlib.sha256(twin.read_bytes()).hexdigest()}
    run, size = _runner(path), spec.input.size
    for batch in (1, 3, 2):
        answer = run(synthetic_frames(size, count=batch))
        assert answer["probabilities"].shape == answer["logits"].shape == (batch, len(KEYS))
        assert answer["features"].shape == (batch, size // 32, size // 32, len(KEYS))
        assert all(values.dtype == np.float32 for values in answer.values())
        assert np.allclose(answer["probabilities"].sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("name", FILES)
def test_outputs_agree_with_each_other(exported: tuple[Path, ExportReport], name: str) -> None:
    run_folder, report = exported
    run = load_run(run_folder)
    path = report.folder / FILES[name]
    spec = open_model(path).spec if path.suffix == ".onnx" else read_spec(path)
    integers = read_integers(run.qat) if "INT8" in name else None
    bias = integers.bias if integers else run.fp32.layers[-1].bias.numpy()
    outputs = dict(in_batches(_runner(path), run.frames))
    check_outputs(name, outputs, spec, bias, integers)
    if integers is None:
        assert np.allclose(outputs["features"].mean(axis=(1, 2)), outputs["logits"] - bias, atol=1e-4)
    with pytest.raises(ModelError, match="features' mean"):
        check_outputs(name, {**outputs, "features": outputs["features"] * 1.5}, spec, bias, integers)
    with pytest.raises(ModelError, match="probabilities are off"):
        check_outputs(
            name, {**outputs, "probabilities": outputs["probabilities"][::-1]}, spec, bias, integers
        )


def test_onnxruntime_runs_the_backbone_in_integers(exported: tuple[Path, ExportReport]) -> None:
    graph = exported[1].graph
    assert graph.float_convolutions == 0
    assert graph.inner_pairs == 0
    assert graph.operators["QLinearConv"] == graph.convolutions_checked
    assert not {"Clip", "Pad", "Add", "GlobalAveragePool", "Gemm"} & set(graph.operators)
    fp32 = count_operators(exported[1].folder / FILES["ONNX FP32"])
    assert "QLinearConv" not in fp32
    assert fp32["Conv"] == graph.convolutions_checked - 1 + 1  # the dense layer is no Conv there, features is


def test_the_two_int8_files_hold_the_same_integers(exported: tuple[Path, ExportReport]) -> None:
    folder = exported[1].folder
    graph = onnx.load(folder / FILES["ONNX INT8"]).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    interpreter = tf.lite.Interpreter(
        str(folder / FILES["TFLite INT8"]),
        experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    details = {detail["name"]: detail for detail in interpreter.get_tensor_details()}
    compared = 0
    for name, weights in constants.items():
        if not name.endswith("/weights"):
            continue
        layer = name.removesuffix("/weights")
        detail, bias = details[name], details[f"{layer}/bias"]
        axis = detail["quantization_parameters"]["quantized_dimension"]
        # TFLite holds (out, h, w, in), of a depthwise kernel (1, h, w, out), where ONNX has (out, in, h, w).
        theirs = np.array(interpreter.get_tensor(detail["index"]))
        ours = weights.transpose(1, 2, 3, 0) if axis == 3 else weights.transpose(0, 2, 3, 1)
        assert np.array_equal(ours, theirs)
        scales = detail["quantization_parameters"]["scales"]
        assert np.array_equal(constants[f"{name}/scale"], scales)
        assert np.array_equal(constants[f"{layer}/bias"], interpreter.get_tensor(bias["index"]))
        compared += 1
    assert compared == exported[1].graph.convolutions_checked


def test_the_int8_files_agree(exported: tuple[Path, ExportReport]) -> None:
    folder = exported[1].folder
    size = open_model(folder / FILES["ONNX INT8"]).spec.input.size
    frames = synthetic_frames(size, count=200, seed=9)
    first = in_batches(_runner(folder / FILES["ONNX INT8"]), frames)["logits"]
    second = in_batches(_runner(folder / FILES["TFLite INT8"]), frames)["logits"]
    # Every engine and the QAT model itself sum exactly and round alike; scales of sums are aligned so that none
    # comes near a middle (train/alignment).
    run = load_run(exported[0])
    kept = in_batches(keras_runner(run.qat), frames)["logits"]
    assert np.array_equal(first, second)
    # The files multiply (steps - zero) by the scale and Keras does too, in float32.
    assert np.abs(first - kept).max() <= 1e-6 * np.abs(kept).max()


def test_the_tree_names_every_edge(exported: tuple[Path, ExportReport]) -> None:
    report = exported[1]
    assert [(edge.a, edge.b) for edge in report.edges] == [
        ("Keras FP32", "ONNX FP32"),
        ("Keras FP32", "TFLite FP32"),
        ("Keras FP32", "Keras QAT"),
        ("Keras QAT", "ONNX INT8"),
        ("Keras QAT", "TFLite INT8"),
        ("exact integers", "ONNX INT8"),
        ("exact integers", "TFLite INT8"),
        ("TFLite INT8", "ONNX INT8"),
    ]
    assert all(edge.holds for edge in report.edges)
    assert report.tree.count("max |dlogit|") == 8
    assert report.edges[0].max_dlogit < 1e-3


def _change(path: Path, out: Path, change: Any) -> Path:
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        values = change(tensor.name, numpy_helper.to_array(tensor))
        if values is not None:
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(values), tensor.name))
    onnx.save(model, out)
    return out


@pytest.mark.parametrize(
    "layer", ["relu_2/scale", "conv_3/weights/scale", "conv_4/bias/scale", "frames/scale"]
)
def test_a_doubled_scale_is_caught_and_its_layer_named(plain_out: Path, tmp_path: Path, layer: str) -> None:
    broken = _change(
        plain_out / FILES["ONNX INT8"],
        tmp_path / "broken.onnx",
        lambda name, values: values * np.float32(2) if name == layer else None,
    )
    # An activation's scale is found at the convolution that reads it.
    reader = {"relu_2/scale": "relu_3", "frames/scale": "relu_1", "conv_3/weights/scale": "relu_3"}.get(
        layer, "relu_4"
    )
    with pytest.raises(ModelError, match=rf"bias scale of '{reader}"):
        check_bias_scales(broken)


def test_a_doubled_scale_with_matching_biases_breaks_its_edge(
    plain_run: Path, plain_out: Path, tmp_path: Path
) -> None:
    doubled = ("conv_3/weights/scale", "conv_3/bias/scale")
    broken = _change(
        plain_out / FILES["ONNX INT8"],
        tmp_path / "broken.onnx",
        lambda name, values: values * np.float32(2) if name in doubled else None,
    )
    check_int8_graph(broken)
    run = load_run(plain_run)
    runners = {"Keras FP32": keras_runner(run.fp32), "Keras QAT": keras_runner(run.qat)}
    runners |= {name: _runner(plain_out / file) for name, file in FILES.items()}
    runners["ONNX INT8"] = _runner(broken)
    integers = read_integers(run.qat)
    runners["exact integers"] = reference_runner(integers, run.spec.temperature)
    step = float(integers.logits.scale)
    edges = compare_edges(replay(runners, run.frames), step)
    assert {(edge.a, edge.b) for edge in edges if not edge.holds} == {
        ("Keras QAT", "ONNX INT8"),
        ("exact integers", "ONNX INT8"),
        ("TFLite INT8", "ONNX INT8"),
    }


def _to_signed(name: str, values: Any) -> Any:
    if name.endswith("relu_2/zero"):
        return np.asarray(values.astype(int) - 128, np.int8)
    return None


def _to_unsigned_weights(name: str, values: Any) -> Any:
    if name == "conv_2/weights":
        return (values.astype(int) + 128).astype(np.uint8)
    return np.full(values.shape, 128, np.uint8) if name == "conv_2/weights/zero" else None


def _to_one_scale(name: str, values: Any) -> Any:
    if name in ("conv_2/weights/scale", "conv_2/bias/scale"):
        return values[:1]
    return values[:1] if name in ("conv_2/weights/zero", "conv_2/bias/zero") else None


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (_to_signed, "needed is uint8"),
        (_to_unsigned_weights, "needed is int8"),
        (_to_one_scale, "needed is one each"),
        (
            lambda name, values: values[None] if name in ("relu_1/scale", "relu_1/zero") else None,
            "needed is a scalar",
        ),
    ],
)
def test_types_that_run_slowly_are_caught(plain_out: Path, tmp_path: Path, change: Any, fault: str) -> None:
    broken = _change(plain_out / FILES["ONNX INT8"], tmp_path / "broken.onnx", change)
    with pytest.raises(ModelError, match=fault):
        check_bias_scales(broken)


def test_a_float_file_is_no_int8_graph(plain_out: Path) -> None:
    with pytest.raises(ModelError, match="are float"):
        check_int8_graph(plain_out / FILES["ONNX FP32"])


def test_a_failed_check_leaves_nothing(
    plain_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(integers: Any, spec: Any) -> Any:
        wrong = copy.deepcopy(integers)
        wrong.nodes[2].kernel.weights[...] *= -1
        return build_int8_onnx(wrong, spec)

    monkeypatch.setattr(bundle, "build_int8_onnx", build)
    with pytest.raises(ModelError, match="Keras QAT and ONNX INT8 differ"):
        export_run(plain_run, tmp_path / "new" / "out")
    assert list((tmp_path / "new").iterdir()) == []


def test_integers_that_are_not_what_qat_emulates_are_named(plain_run: Path) -> None:
    run = load_run(plain_run)
    integers = read_integers(run.qat)
    check_layers(integers, run.qat, run.frames[:4])
    integers.nodes[3].kernel.biases[0] += 10_000
    with pytest.raises(ModelError, match="layer 'conv_4' is off what QAT emulates"):
        check_layers(integers, run.qat, run.frames[:4])


def test_a_folder_that_holds_something_is_refused(plain_run: Path, tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        export_run(plain_run, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def _spoil(run: Path, name: str, text: str | None) -> None:
    if text is None:
        (run / name).unlink()
    else:
        (run / name).write_text(text, "utf-8")


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("run.json", None, "holds no run.json"),
        ("run.json", "{", "cannot be read"),
        ("run.json", "[]", "'architecture' is None"),
        (
            "run.json",
            '{"architecture": "plain_cnn", "size": "64", "labels": 5, "spec": {}}',
            "'size' is '64'",
        ),
        ("run.json", '{"architecture": "plain_cnn", "size": 64, "labels": 5, "spec": {}}', "schema is None"),
        ("fp32.weights.npz", None, "holds no fp32.weights.npz"),
        ("fp32.weights.npz", "no archive", "holds no weights"),
        ("qat.weights.npz", None, "holds no qat.weights.npz"),
        ("replay.npz", "no archive", "holds no frames"),
    ],
)
def test_a_bad_run_folder_is_one_line(
    plain_run: Path, tmp_path: Path, name: str, text: str | None, fault: str
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for path in plain_run.iterdir():
        (run / path.name).write_bytes(path.read_bytes())
    _spoil(run, name, text)
    with pytest.raises(CapsuleEdgeError, match=fault) as caught:
        export_run(run, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_not_there_and_one_that_contradicts_itself(plain_run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run folder"):
        load_run(tmp_path / "absent")
    run = tmp_path / "run"
    run.mkdir()
    document = json.loads((plain_run / "run.json").read_text("utf-8"))
    (run / "run.json").write_text(json.dumps({**document, "labels": 9}), "utf-8")
    for name in ("fp32.weights.npz", "qat.weights.npz"):
        (run / name).write_bytes((plain_run / name).read_bytes())
    with pytest.raises(InputError, match="9 labels, but its spec has 64 and 5"):
        load_run(run)


def test_tflite_metadata_is_read_without_tensorflow_and_damage_is_named(
    plain_out: Path, tmp_path: Path
) -> None:
    content = (plain_out / FILES["TFLite INT8"]).read_bytes()
    assert json.loads(read_metadata(content)["capsule_edge"])["precision"] == "int8"
    for bad in (b"", b"text", b"\0" * 64, content[:200], content[:4] + b"XXXX" + content[8:]):
        (tmp_path / "bad.tflite").write_bytes(bad)
        with pytest.raises(ModelError, match=r"not a TFLite file|carries no"):
            read_spec(tmp_path / "bad.tflite")


def test_the_command_prints_the_tree_or_one_document(plain_run: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    result = runner.invoke(command, [str(plain_run), "--out", str(tmp_path / "a"), "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert set(document["files"]) == set(FILES.values())
    assert document["int8_graph"]["float_convolutions"] == 0
    sums = (tmp_path / "a" / "SHA256SUMS").read_text().splitlines()
    assert sorted(sums) == sorted(f"{entry['sha256']}  {name}" for name, entry in document["files"].items())
    for line in sums:
        digest, name = line.split("  ")
        assert hashlib.sha256((tmp_path / "a" / name).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_safe_model_answers_the_same_where_sums_saturate(architecture: str) -> None:
    model = fp32_model(architecture)
    frames = np.concatenate([synthetic_frames(64, count=1, seed=4), np.full((1, 64, 64, 3), 255, np.uint8)])
    safe = read_integers(calibrated(model, saturation_safe=True))
    exact, saturated = compute(safe, frames), compute_saturating(safe, frames)
    assert all(np.array_equal(exact[name], saturated[name]) for name in exact)
    assert not any(saturations(safe, frames).values())
    unsafe = read_integers(calibrated(model))
    exact, saturated = compute(unsafe, frames), compute_saturating(unsafe, frames)
    assert any(saturations(unsafe, frames).values())
    assert not np.array_equal(exact["logits"], saturated["logits"])
