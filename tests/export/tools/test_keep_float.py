"""Keep layers in float: Keras, the integers and both INT8 files still agree, and only those layers are float."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner

pytest.importorskip("tf_keras", reason="needs the extra 'train'")

from labelled_frames import write_frames
from quantised_models import KEYS, pixels_of

from capsule_edge.cli.export import command
from capsule_edge.evaluation.datasets import Dataset, Sample, load_dataset
from capsule_edge.export.bundle import FILES, export_run
from capsule_edge.export.held_out import frames_to_choose_on, split_held_out
from capsule_edge.export.int8 import check_layers, read_integers
from capsule_edge.export.restore_float import restore_layers
from capsule_edge.export.run_folder import load_run, synthetic_frames
from capsule_edge.export.tools.layer_noise import measure_layers
from capsule_edge.export.verify import check_int8_graph
from capsule_edge.runtime.errors import InputError, ModelError, UsageError
from capsule_edge.runtime.inference import open_model
from capsule_edge.runtime.inference.tflite_metadata import read_spec
from capsule_edge.train.data.held_out import HeldOut
from capsule_edge.train.qat import keep_float, layers_with_weights
from capsule_edge.train.qat.float_layers import kept_layers

CASES = {
    # The first layer alone, two neighbours with nothing rounded between them, and the logits.
    "plain_cnn": ["conv_1", "conv_3", "conv_4", "logits"],
    # A depthwise layer with its neighbour, and one that an addition reads.
    "short_mobilenet": ["block_1_expand", "block_1_depthwise", "block_2_project"],
}


def _command(*words: object) -> Any:
    return CliRunner().invoke(command, [str(word) for word in words])


@pytest.mark.parametrize("architecture", CASES)
def test_both_files_and_keras_agree_and_the_graph_has_the_layers_in_float(
    architecture: str, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    kept = CASES[architecture]
    report = export_run(make_run(architecture), tmp_path / "out", keep=kept)
    assert all(edge.holds for edge in report.edges)
    # A float32 sum next to the middle between two steps falls to either side, and later layers amplify the
    # difference: some steps in a few frames.
    assert {edge.agreement for edge in report.edges if "INT8" in edge.b} == {1.0}
    assert report.graph.float_convolutions == len(kept)
    float_weights = {
        node.input[1].split("/")[0]
        for node in onnx.load(tmp_path / "out" / FILES["ONNX INT8"]).graph.node
        if node.op_type == "Conv"
        and "features" not in node.name
        and not _is_quantised(tmp_path, node.input[1])
    }
    assert float_weights == set(kept)
    assert read_spec(tmp_path / "out" / FILES["TFLite INT8"]).provenance["kept_float"] == kept
    assert open_model(tmp_path / "out" / FILES["ONNX INT8"]).spec.provenance["kept_float"] == kept
    with pytest.raises(ModelError, match="are float"):
        check_int8_graph(tmp_path / "out" / FILES["ONNX INT8"])


def _is_quantised(folder: Path, name: str) -> bool:
    graph = onnx.load(folder / "out" / FILES["ONNX INT8"]).graph
    return any(name in node.output for node in graph.node)


def test_a_model_with_every_layer_in_float_answers_nearly_as_fp32(plain_run: Path) -> None:
    run = load_run(plain_run)
    fp32, quantised = run.fp32, run.qat
    pixels = pixels_of(synthetic_frames(64, count=8, seed=3))
    rounded = quantised(pixels, training=False).numpy()
    keep_float(quantised, layers_with_weights(quantised))
    expected = fp32(pixels, training=False).numpy()
    kept = quantised(pixels, training=False).numpy()
    # What is left is the rounding of the pooled mean and of what goes into it.
    assert np.abs(kept - expected).max() < 0.5 * np.abs(rounded - expected).max()
    keep_float(quantised, [])
    assert np.array_equal(quantised(pixels, training=False), rounded)
    assert kept_layers(quantised) == []


def test_integers_and_keras_agree_layer_by_layer_and_noise_is_measured(plain_run: Path) -> None:
    run = load_run(plain_run)
    fp32, quantised = run.fp32, run.qat
    frames = synthetic_frames(64, count=4, seed=3)
    before = {n.layer: n.own_db for n in measure_layers(read_integers(quantised), quantised, fp32, frames)}
    keep_float(quantised, ["conv_2", "conv_3"])
    integers = read_integers(quantised)
    assert integers.kept_float == ("conv_2", "conv_3")
    assert [node.output.unrounded for node in integers.nodes[:4]] == [False, True, False, False]
    check_layers(integers, quantised, frames)
    after = {n.layer: n.own_db for n in measure_layers(integers, quantised, fp32, frames)}
    assert after["conv_2"] > before["conv_2"]  # what is rounded there is only what it reads
    assert after["conv_3"] > before["conv_3"]
    assert after["conv_5"] == pytest.approx(before["conv_5"], abs=1e-6)


def test_a_layer_that_cannot_be_kept_in_float_is_refused_by_name(make_run: Callable[..., Path]) -> None:
    quantised = load_run(make_run("short_mobilenet")).qat
    for name in ("block_2_add", "pool", "absent"):
        with pytest.raises(
            UsageError, match=rf"layer '{name}' cannot be kept in float, allowed are .*Conv1, "
        ):
            keep_float(quantised, ["Conv1", name])
    assert kept_layers(quantised) == []


def _dataset(root: Path, run: Any) -> Dataset:
    """Return colour fields, five to a video, with the labels that FP32 gives: any other label is an error."""
    frames = synthetic_frames(64, count=60, seed=12)
    answers = np.asarray(run.fp32(pixels_of(frames), training=False)).argmax(axis=1)
    samples = []
    for i, (frame, answer) in enumerate(zip(frames, answers, strict=True)):
        path = root / f"{i}.png"
        cv2.imencode(".png", frame[..., ::-1])[1].tofile(path)
        samples.append(Sample(path, run.spec.keys[answer], video_id=f"v{i // 5}"))
    return Dataset(tuple(samples), run.spec.keys, root)


def test_the_automatic_mode_keeps_the_broken_layer_and_few_others_in_float(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    run = load_run(make_run())
    dataset = _dataset(tmp_path, run)
    dataset.samples[7].file.write_bytes(b"no image")
    # A tenth of the range: nine values in ten are clipped there.
    (wrapper,) = (layer for layer in run.qat.layers if layer.name == "quant_conv_3")
    ((_, _, ranges),) = wrapper._weight_vars
    for name in ("min_var", "max_var"):
        ranges[name].assign(ranges[name] * 0.1)
    said: list[str] = []
    chosen = restore_layers(run, dataset, progress=said.append)
    assert chosen[0] == "conv_3"
    assert len(chosen) < len(layers_with_weights(run.qat))
    assert kept_layers(run.qat) == [name for name in layers_with_weights(run.qat) if name in chosen]
    assert "0 layers in float: agreement" in said[0]
    # The choice itself was tried and passed.
    assert any(line.startswith(f"{len(chosen)} layers in float: no gate failing") for line in said)


def _labelled(root: Path, columns: str, count: int = 36) -> Path:
    """Write frames of twelve videos. ``columns`` are those of labels.csv."""
    names = columns.split(",")
    cells = [
        {
            "file": f"{i}.png",
            "label": KEYS[i % 3],
            "video_id": f"v{i // 3}",
            "split": "train" if i < 30 else "val",
        }
        for i in range(count)
    ]
    rows = [[cell[name] for name in names] for cell in cells]
    return write_frames(root, columns, rows, synthetic_frames(64, count=count, seed=5))


def test_choices_are_made_on_what_the_run_held_out(tmp_path: Path) -> None:
    data = _labelled(tmp_path / "data", "file,label,video_id,split")
    HeldOut(("v2", "v7", "v11")).write(tmp_path)
    said: list[str] = []
    chosen = frames_to_choose_on(tmp_path, data, progress=said.append)
    # v11 is of val, which the certificates are measured on.
    assert {s.video_id for s in chosen.samples} == {"v2", "v7"}
    assert said == []
    rest, out = split_held_out(tmp_path, load_dataset(data, split="train"))
    assert (len(rest.samples), len(out.samples)) == (24, 6)
    HeldOut(("elsewhere",)).write(tmp_path)
    with pytest.raises(InputError, match=r"none of the 1 videos that .* held out is in"):
        frames_to_choose_on(tmp_path, data)
    for text in ("", "[]", '{"calibration": 3, "stopping": []}'):
        (tmp_path / "held_out.json").write_text(text)
        with pytest.raises(InputError, match=r"held_out\.json does not name the videos held out"):
            frames_to_choose_on(tmp_path, data)


@pytest.mark.parametrize("recorded", [False, True])
def test_choices_are_made_on_data_without_splits_too(tmp_path: Path, recorded: bool) -> None:
    data = _labelled(tmp_path / "data", "file,label,video_id")
    if recorded:
        HeldOut(("v2", "v11")).write(tmp_path)
    said: list[str] = []
    chosen = frames_to_choose_on(tmp_path, data, progress=said.append)
    videos = {s.video_id for s in chosen.samples}
    assert videos == {"v2", "v11"} if recorded else len(videos) == 2
    assert len(said) == (not recorded)
    assert all("names no videos held out" in line for line in said)
    nameless = _labelled(tmp_path / "nameless", "file,label")
    if recorded:
        HeldOut(("5", "17")).write(tmp_path)  # frames without a video stand for themselves
        assert [s.file.name for s in frames_to_choose_on(tmp_path, nameless).samples] == ["5.png", "17.png"]
    else:
        with pytest.raises(InputError, match="name no video_id"):
            frames_to_choose_on(tmp_path, nameless)


def test_the_command_chooses_on_data_without_splits(make_run: Callable[..., Path], tmp_path: Path) -> None:
    data = _labelled(tmp_path / "data", "file,label,video_id")
    result = _command(make_run(), "--out", tmp_path / "out", "--data", data, "--keep-float", "auto", "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    assert "names no videos held out" in result.stderr
    assert "layers in float:" in result.stderr


def test_the_command_keeps_the_layer_that_it_is_given(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_run("plain_cnn", 32)
    result = _command(run, "--out", tmp_path / "out", "--keep-float", "conv_2", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["kept_float"] == ["conv_2"]


@pytest.mark.parametrize(("layer", "fault"), [("auto", "give --data"), ("absent", "'absent' cannot be kept")])
def test_the_command_refuses_a_choice_without_frames_and_an_unknown_layer(
    make_run: Callable[..., Path], tmp_path: Path, layer: str, fault: str
) -> None:
    refused = _command(make_run("plain_cnn", 32), "--out", tmp_path / "b", "--keep-float", layer)
    assert isinstance(refused.exception, UsageError)
    assert fault in str(refused.exception)
