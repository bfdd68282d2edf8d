"""Quantise after training, and measure which layer adds the most noise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("tf_keras", reason="needs the extra 'train'")

from quantised_models import KEYS, pixels_of

from capsule_edge.cli.compare import command as compare
from capsule_edge.export.int8 import METHODS, quantize_after_training, read_integers
from capsule_edge.export.int8.range_methods import _entropy, _least_error, _percentile
from capsule_edge.export.run_folder import load_fp32, synthetic_frames
from capsule_edge.export.tools.layer_noise import double_scales, main, measure_layers
from capsule_edge.runtime.errors import InputError, UsageError


@pytest.fixture(scope="module")
def fp32(make_run: Callable[..., Path]) -> Any:
    return load_fp32(make_run())[0]


@pytest.fixture(scope="module")
def batches() -> list[Any]:
    pixels = pixels_of(synthetic_frames(64, seed=2))
    return [pixels[:16], pixels[16:]]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_model_that_exports(fp32: Any, batches: list[Any], method: Any) -> None:
    quantised = quantize_after_training(fp32, batches, method=method)
    integers = read_integers(quantised)
    expected = fp32(batches[0], training=False).numpy()
    answer = quantised(batches[0], training=False).numpy()
    # The bound of QAT's calibration (test_qat), which leaves room for values that cut ranges clip.
    assert np.sqrt(np.mean((answer - expected) ** 2)) < 0.05 * np.ptp(expected)
    # The logits always use minmax: 255 steps span the values that were seen.
    spread = max(0, max(b.max() for b in (fp32(x).numpy() for x in batches))) - min(
        0, min(b.min() for b in (fp32(x).numpy() for x in batches))
    )
    assert float(integers.logits.scale) * 255 == pytest.approx(spread, rel=1e-5)


def test_an_unknown_method_and_no_batch_are_refused(fp32: Any, batches: list[Any]) -> None:
    with pytest.raises(UsageError, match="'best' is not known, allowed is one of minmax"):
        quantize_after_training(fp32, batches, method="best")
    with pytest.raises(InputError, match="no batch"):
        quantize_after_training(fp32, [])


def _counts(values: Any, ends: tuple[float, float]) -> Any:
    return np.histogram(values, bins=2048, range=ends)[0].astype(float)


@pytest.mark.quick
def test_an_outlier_is_clipped_and_a_uniform_range_is_kept() -> None:
    rng = np.random.default_rng(0)
    body = np.abs(rng.normal(0, 1, 200_000))
    ends = (0.0, 100.0)
    counts = _counts(np.append(body, 100.0), ends)
    for choose in (_percentile, _entropy):
        low, high = choose(counts, ends)
        # Of 200,000 half-normal values the outermost lie near 4.5; a histogram's bin is 0.05 wide and the
        # smallest range of 256 levels ends at 12.5.
        assert low == 0
        assert 3 < high < 15
    flat = _counts(rng.uniform(-1, 1, 200_000), (-1.0, 1.0))
    low, high = _percentile(flat, (-1.0, 1.0))
    assert low == pytest.approx(-1, abs=0.01)
    assert high == pytest.approx(1, abs=0.01)


@pytest.mark.quick
@pytest.mark.parametrize("signed", [False, True])
def test_the_range_of_least_error_rounds_and_clips_best(signed: bool) -> None:
    rng = np.random.default_rng(1)
    values = rng.laplace(0, 1, 400_000)
    values = values if signed else np.abs(values)
    ends = (float(values.min()) if signed else 0.0, float(values.max()))
    counts = _counts(values, ends)

    def error(low: float, high: float) -> float:
        step = (high - low) / 255
        return float(np.square(np.rint(np.clip(values, low, high) / step) * step - values).mean())

    chosen = error(*_least_error(counts, ends))
    shares = np.linspace(0.3, 1, 15)
    tried = [error(ends[0] * below, ends[1] * above) for below in shares for above in shares]
    assert chosen < 0.95 * error(*ends)
    assert chosen < 1.02 * min(tried)
    assert _least_error(_counts(rng.uniform(0, 2, 100_000), (0, 2)), (0.0, 2.0)) == pytest.approx(
        (0, 2), abs=0.01
    )
    nothing = np.zeros(2048)
    nothing[0] = 5
    assert _least_error(nothing, (0.0, 1.0)) == (0.0, 1.0)


def test_the_noisiest_layer_comes_first(fp32: Any, batches: list[Any]) -> None:
    quantised = quantize_after_training(fp32, batches)
    integers = read_integers(quantised)
    frames = synthetic_frames(64, count=4, seed=2)
    sound = measure_layers(integers, quantised, fp32, frames)
    # 8 bits over a ReLU's range hold some 40 dB. The noise of earlier layers only adds to a layer's own.
    assert min(noise.own_db for noise in sound) > 20
    assert np.mean([noise.own_db - noise.total_db for noise in sound]) > 0
    broken = measure_layers(double_scales(integers, "conv_3"), quantised, fp32, frames)
    assert broken[0].layer == "conv_3"
    assert broken[0].own_db < 10
    with pytest.raises(UsageError, match="'absent' has no scales to double, allowed is one of conv_1"):
        double_scales(integers, "absent")


def test_a_broken_file_fails_its_gates_and_the_table_names_the_layer(
    make_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Double a layer's scales, as a faulty converter could: ``compare`` and the table both report it."""
    run = make_run()
    frames = tmp_path / "frames"
    for i, frame in enumerate(synthetic_frames(64, count=40, seed=8)):
        (frames / KEYS[i % 5]).mkdir(parents=True, exist_ok=True)
        cv2.imencode(".png", frame[..., ::-1])[1].tofile(frames / KEYS[i % 5] / f"{i}.png")
    main([str(run), "--out", str(tmp_path / "sound")])
    sound = json.loads(capsys.readouterr().out.splitlines()[-1])["layers"]
    main([str(run), "--double", "conv_3", "--out", str(tmp_path / "broken")])
    printed = capsys.readouterr().out
    broken = json.loads(printed.splitlines()[-1])["layers"]
    assert broken[0]["layer"] == printed.splitlines()[1].split()[0] == "conv_3"
    assert broken[0]["own_db"] < 10 < min(line["own_db"] for line in sound)
    for name in ("layers.csv", "layers.svg"):
        assert (tmp_path / "broken" / name).stat().st_size > 100
    for which, code in (("sound", 0), ("broken", 4)):
        arguments = [
            tmp_path / "sound" / "model.int8.onnx",
            tmp_path / which / "model.int8.onnx",
            "--data",
            frames,
        ]
        result = CliRunner().invoke(compare, [str(argument) for argument in arguments])
        assert result.exit_code == code, result.output
