"""Export a RUN: every file keeps the contract, INT8 runs in integers, models agree, failures leave no file."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

pytest.importorskip("tf_keras", reason="needs the extra 'train'")

import tensorflow as tf
from quantised_models import KEYS, Exported, calibrated, fp32_model
from tiny_model import tiny_spec

from capsule_edge.cli.export import command
from capsule_edge.export import bundle
from capsule_edge.export.bundle import FILES, export_run
from capsule_edge.export.certify import TABLE
from capsule_edge.export.int8 import (
    build_int8_onnx,
    build_int8_tflite,
    check_layers,
    compute,
    read_integers,
    reference_runner,
)
from capsule_edge.export.run_folder import load_run, synthetic_frames
from capsule_edge.export.runners import file_runner, in_batches, keras_runner, open_file
from capsule_edge.export.verify import check_int8_graph, check_outputs, compare_edges, draw_tree, replay
from capsule_edge.export.verify.graph_checks import check_bias_scales, count_operators
from capsule_edge.export.verify.saturation import compute_saturating, saturations
from capsule_edge.runtime.errors import CapsuleEdgeError, InputError, ModelError, OutputError, UsageError
from capsule_edge.runtime.inference import open_model
from capsule_edge.runtime.inference.tflite_metadata import read_metadata, read_spec


def _runner(path: Path) -> Any:
    return file_runner(open_file(path))


@pytest.mark.parametrize("name", FILES)
def test_each_file_keeps_the_contract(exported: Exported, name: str) -> None:
    path = exported.report.folder / FILES[name]
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
        assert answer["features"].shape == (batch, *exported.integers.maps.shape[:2], len(KEYS))
        assert all(values.dtype == np.float32 for values in answer.values())
        assert np.allclose(answer["probabilities"].sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("name", FILES)
def test_outputs_agree_with_each_other(exported: Exported, name: str) -> None:
    run = exported.run
    path = exported.report.folder / FILES[name]
    spec = open_model(path).spec if path.suffix == ".onnx" else read_spec(path)
    integers = exported.integers if "INT8" in name else None
    bias = integers.bias if integers else run.fp32.layers[-1].bias.numpy()
    outputs = dict(in_batches(_runner(path), run.frames))
    check_outputs(name, outputs, spec, bias, integers)
    if integers is None:
        assert np.allclose(outputs["features"].mean(axis=(1, 2)), outputs["logits"] - bias, atol=1e-4)
    with pytest.raises(ModelError, match="features' mean"):
        check_outputs(name, {**outputs, "features": outputs["features"] * 1.5}, spec, bias, integers)
    with pytest.raises(ModelError, match="probabilities differ"):
        check_outputs(
            name, {**outputs, "probabilities": outputs["probabilities"][::-1]}, spec, bias, integers
        )


def test_onnxruntime_runs_the_backbone_in_integers(exported: Exported) -> None:
    graph = exported.report.graph
    assert graph.float_convolutions == 0
    assert graph.inner_pairs == 0
    assert graph.operators["QLinearConv"] == graph.convolutions_checked
    assert not {"Clip", "Pad", "Add", "GlobalAveragePool", "Gemm"} & set(graph.operators)
    fp32 = count_operators(exported.report.folder / FILES["ONNX FP32"])
    assert "QLinearConv" not in fp32
    # In FP32 the dense layer is no Conv, but the features are one: as many as are quantised in INT8.
    assert fp32["Conv"] == graph.convolutions_checked


def test_the_two_int8_files_hold_the_same_integers(exported: Exported) -> None:
    folder = exported.report.folder
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
        # TFLite stores (out, h, w, in), or (1, h, w, channels) for a depthwise kernel; ONNX stores (out, in, h, w).
        theirs = np.array(interpreter.get_tensor(detail["index"]))
        ours = weights.transpose(1, 2, 3, 0) if axis == 3 else weights.transpose(0, 2, 3, 1)
        assert np.array_equal(ours, theirs)
        scales = detail["quantization_parameters"]["scales"]
        assert np.array_equal(constants[f"{name}/scale"], scales)
        assert np.array_equal(constants[f"{layer}/bias"], interpreter.get_tensor(bias["index"]))
        compared += 1
    assert compared == exported.report.graph.convolutions_checked


def test_the_int8_files_agree(exported: Exported) -> None:
    folder = exported.report.folder
    size = open_model(folder / FILES["ONNX INT8"]).spec.input.size
    frames = synthetic_frames(size, count=96, seed=9)
    first = in_batches(_runner(folder / FILES["ONNX INT8"]), frames)["logits"]
    second = in_batches(_runner(folder / FILES["TFLite INT8"]), frames)["logits"]
    # Every engine and the QAT model itself sum exactly and round alike. The scales of additions are aligned, so that
    # no sum lies next to the middle between two steps (train.qat).
    keras = in_batches(keras_runner(exported.run.qat), frames)["logits"]
    assert np.array_equal(first, second)
    # The files and Keras multiply (steps - zero point) by the scale in float32.
    assert np.abs(first - keras).max() <= 1e-6 * np.abs(keras).max()


def test_the_int8_files_of_a_deep_network_agree(tmp_path: Path) -> None:
    """MobileNetV2 has 53 layers, so a sum that two engines round differently would reach the logits."""
    model = calibrated(fp32_model("mobilenet_v2_035"), saturation_safe=True)
    integers = read_integers(model)
    spec = tiny_spec(KEYS, 64, temperature=1.5, precision="int8", saturation_safe=True)
    onnx.save(build_int8_onnx(integers, spec), tmp_path / "model.onnx")
    (tmp_path / "model.tflite").write_bytes(build_int8_tflite(integers, spec))
    frames = synthetic_frames(64, count=32, seed=9)
    first, second = (in_batches(_runner(tmp_path / f"model.{kind}"), frames) for kind in ("onnx", "tflite"))
    exact = reference_runner(integers, 1.5)(frames[:8])["logits"]
    keras = keras_runner(model)(frames[:8])["logits"]
    assert np.array_equal(first["logits"], second["logits"])
    # The files, Keras and the reference multiply (steps - zero point) by the scale in float32.
    limit = 1e-6 * np.abs(exact).max()
    assert np.abs(first["logits"][:8] - exact).max() <= limit
    assert np.abs(first["logits"][:8] - keras).max() <= limit


def test_the_report_lists_every_comparison_and_all_hold(exported: Exported) -> None:
    report = exported.report
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
def test_a_doubled_scale_is_found_and_its_layer_named(plain_out: Path, tmp_path: Path, layer: str) -> None:
    broken = _change(
        plain_out / FILES["ONNX INT8"],
        tmp_path / "broken.onnx",
        lambda name, values: values * np.float32(2) if name == layer else None,
    )
    # A wrong scale of an activation shows at the convolution that reads it.
    reader = {"relu_2/scale": "relu_3", "frames/scale": "relu_1", "conv_3/weights/scale": "relu_3"}.get(
        layer, "relu_4"
    )
    with pytest.raises(ModelError, match=rf"bias scale of '{reader}"):
        check_bias_scales(broken)


def test_a_doubled_scale_with_a_matching_bias_breaks_the_edges_of_its_file(
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
    assert draw_tree(edges).count("BROKEN") == 3


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
        (_to_signed, "must be uint8"),
        (_to_unsigned_weights, "must be int8"),
        (_to_one_scale, "must have one for each"),
        (
            lambda name, values: values[None] if name in ("relu_1/scale", "relu_1/zero") else None,
            "must have a scalar",
        ),
    ],
)
def test_types_that_onnxruntime_cannot_fuse_are_found(
    plain_out: Path, tmp_path: Path, change: Any, fault: str
) -> None:
    broken = _change(plain_out / FILES["ONNX INT8"], tmp_path / "broken.onnx", change)
    with pytest.raises(ModelError, match=fault):
        check_bias_scales(broken)


def test_a_float_file_is_refused_as_an_int8_graph(plain_out: Path) -> None:
    with pytest.raises(ModelError, match="are float"):
        check_int8_graph(plain_out / FILES["ONNX FP32"])


def test_a_failed_check_leaves_no_file(
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


def test_a_layer_whose_integers_differ_from_the_qat_model_is_named(plain_run: Path) -> None:
    run = load_run(plain_run)
    integers = read_integers(run.qat)
    check_layers(integers, run.qat, run.frames[:4])
    integers.nodes[3].kernel.biases[0] += 10_000
    with pytest.raises(ModelError, match="layer 'conv_4' differs from the QAT model"):
        check_layers(integers, run.qat, run.frames[:4])


def test_an_output_folder_that_is_not_empty_is_refused(plain_run: Path, tmp_path: Path) -> None:
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
def test_a_bad_run_folder_gives_an_error_of_one_line(
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


def test_a_missing_run_and_one_that_contradicts_itself_are_refused(plain_run: Path, tmp_path: Path) -> None:
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


def test_tflite_metadata_is_read_without_tensorflow_and_damage_is_reported(
    plain_out: Path, tmp_path: Path
) -> None:
    content = (plain_out / FILES["TFLite INT8"]).read_bytes()
    assert json.loads(read_metadata(content)["capsule_edge"])["precision"] == "int8"
    for bad in (b"", b"text", b"\0" * 64, content[:200], content[:4] + b"XXXX" + content[8:]):
        (tmp_path / "bad.tflite").write_bytes(bad)
        with pytest.raises(ModelError, match=r"not a TFLite file|carries no"):
            read_spec(tmp_path / "bad.tflite")


def test_the_command_prints_one_json_document_and_the_sums_match(
    plain_export: tuple[Path, dict[str, Any], str],
) -> None:
    out, document, _ = plain_export
    assert set(document["files"]) == set(FILES.values())
    assert document["int8_graph"]["float_convolutions"] == 0
    sums = (out / "SHA256SUMS").read_text().splitlines()
    assert sorted(sums) == sorted(f"{entry['sha256']}  {name}" for name, entry in document["files"].items())
    for line in sums:
        digest, name = line.split("  ")
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest


def test_the_command_says_that_there_is_no_certificate(
    plain_run: Path, plain_export: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    out, _, printed = plain_export
    assert "warning: without --data the INT8 files carry no certificate" in printed
    assert not (out / TABLE).exists()
    refused = CliRunner().invoke(command, [str(plain_run), "--out", str(tmp_path / "b"), "--split", "val"])
    assert isinstance(refused.exception, UsageError)


@pytest.mark.parametrize("architecture", ["plain_cnn", "short_mobilenet"])
def test_a_safe_model_answers_the_same_where_sums_saturate(
    architecture: str, make_run: Callable[..., Path]
) -> None:
    frames = np.concatenate([synthetic_frames(64, count=1, seed=4), np.full((1, 64, 64, 3), 255, np.uint8)])
    safe = read_integers(load_run(make_run(architecture)).qat)
    exact, saturated = compute(safe, frames), compute_saturating(safe, frames)
    assert all(np.array_equal(exact[name], saturated[name]) for name in exact)
    assert not any(saturations(safe, frames).values())
    unsafe = read_integers(load_run(make_run(architecture, safe=False)).qat)
    exact, saturated = compute(unsafe, frames), compute_saturating(unsafe, frames)
    assert any(saturations(unsafe, frames).values())
    assert not np.array_equal(exact["logits"], saturated["logits"])
