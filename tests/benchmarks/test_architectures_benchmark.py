"""Test the table of architectures: their accuracy from journals and certificates, and their latency."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from tiny_model import write_tiny_model

from capsule_edge.benchmarks import architectures
from capsule_edge.benchmarks.architectures import (
    NETWORKS,
    RECIPE,
    Accuracy,
    read_accuracy,
    render_architectures,
    time_networks,
)
from capsule_edge.benchmarks.results import Result
from capsule_edge.runtime.errors import InputError, UsageError
from capsule_edge.runtime.inference import open_model
from capsule_edge.train.config import TrainConfig
from capsule_edge.train.models import architectures as models


def recipe(
    name: str, fits: int, macro_f1: float | None, parts: Sequence[str] | None = None, **config: Any
) -> str:
    figures: dict[str, Any] = {} if macro_f1 is None else {"macro_f1": macro_f1, "mean_auc": macro_f1 + 0.3}
    named = {} if parts is None else {"parts": parts}
    return json.dumps({"name": name, **figures, **named, "config": config, "curves": [[]] * fits})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("models/training", "models/certificates", "runtime/models"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def write_journal(root: Path, *lines: str) -> None:
    (root / "models/training/folds.jsonl").write_text("".join(f"{line}\n" for line in lines), "utf-8")


def test_a_recipe_without_network_has_the_default_of_training() -> None:
    default = TrainConfig()
    assert {name: getattr(default, name) for name in RECIPE} == RECIPE


@pytest.mark.quick
def test_accuracy_is_that_of_the_best_recipe_with_most_fits(root: Path) -> None:
    write_journal(
        root,
        recipe("one fold is easy", 1, 0.9),
        recipe("plain", 5, 0.4, epochs=5),
        recipe("better", 5, 0.5, epochs=6),
        recipe("parted", 1, 0.2, architecture="rep_cnn", size=128),
        recipe("parted", 2, 0.5, architecture="rep_cnn", size=128),
        recipe("parted", 1, None, architecture="rep_cnn", size=128),
    )
    found = read_accuracy(root)
    assert set(found) == {("mobilenet_v2", 160), ("rep_cnn", 128)}
    assert found["mobilenet_v2", 160] == Accuracy(pytest.approx((0.5, 0.8)), 5)
    # Three fits, two of which were scored together.
    assert found["rep_cnn", 128] == Accuracy(pytest.approx((0.4, 0.7)), 3)


@pytest.mark.quick
def test_a_fit_on_all_videos_does_not_count_as_scored(root: Path) -> None:
    rep = {"architecture": "rep_cnn", "size": 128}
    write_journal(
        root,
        recipe("of four", 4, 0.9, ["all", "fold0", "fold1", "fold3"]),
        recipe("of folds alone", 4, 0.5, ["fold0", "fold1", "fold2", "fold3"]),
        recipe("parted", 2, 0.2, ["all", "fold0"], **rep),
        recipe("parted", 2, 0.5, ["fold1", "fold3"], **rep),
    )
    found = read_accuracy(root)
    assert found["mobilenet_v2", 160] == Accuracy(pytest.approx((0.5, 0.8)), 4)
    assert found["rep_cnn", 128] == Accuracy(pytest.approx((0.4, 0.7)), 3)


def test_accuracy_on_val_is_that_of_the_certificate(root: Path) -> None:
    write_journal(root)
    path = root / "runtime/models/a.int8.onnx"
    write_tiny_model(path, provenance={"training": {"architecture": "plain_cnn"}})
    write_tiny_model(path.with_name("uncertified.int8.onnx"), seed=2, provenance={"training": {}})
    document = {
        "macro_f1": {"a": 0.6, "b": 0.5},
        "mean_auc": {"a": 0.9, "b": 0.8},
        "models": {"a": {"sha256": "0" * 64}, "b": {"sha256": open_model(path).sha256}},
    }
    certificate = root / "models/certificates/a.int8.onnx.shipping.json"
    certificate.write_text(json.dumps(document), "utf-8")
    assert read_accuracy(root) == {("plain_cnn", 32): Accuracy(val=(0.5, 0.8))}
    certificate.write_text(json.dumps({**document, "macro_f1": None}), "utf-8")
    with pytest.raises(InputError, match="is no certificate"):
        read_accuracy(root)


def test_a_file_that_is_no_journal_is_refused(root: Path) -> None:
    for text in ("{", '{"macro_f1": 1, "name": "x"}'):
        write_journal(root, text)
        with pytest.raises(InputError, match="is no journal of folds"):
            read_accuracy(root)


def entry(architecture: str, ms: float, **more: Any) -> dict[str, Any]:
    times = {"p50_ms": ms, "ratio": 0.5}
    sizes = {"parameters": 1_234_567, "fp32_bytes": 4_000_000, "int8_bytes": 1_100_000}
    return {
        "architecture": architecture,
        "size": 128,
        **sizes,
        "fp32_onnxruntime": {**times, "p50_ms": 2 * ms},
        "int8_onnxruntime": times,
        **more,
    }


def test_the_table_has_a_row_per_network_and_empty_cells_without_training() -> None:
    result = Result(
        benchmark="architectures",
        command="c",
        commit="0123456789ab",
        measured="2026-11-27T00:00:00+00:00",
        seconds=1.0,
        quick=False,
        machine={"cpu": {"name": "c"}, "cores_allowed": 2, "versions": {"onnxruntime": "9"}},
        load_after=None,
        models={},
        found={"networks": [entry("fast", 0.3), entry("slow", 3.0, int8_openvino={"p50_ms": 2.5})]},
        others=0.0,
    )
    known = {("fast", 128): Accuracy((0.4, 0.75), 5, (0.5, 0.9))}
    _, _, slow, fast, *after = render_architectures(result, known).splitlines()
    assert slow == "| slow, 128 | 1.23 | 4.0 | 1.1 | 6.00 | 3.00 | .50 | 2.50 |  |  |  |  |  |"
    assert fast == "| fast, 128 | 1.23 | 4.0 | 1.1 | 0.60 | 0.30 | .50 |  | .400 | .750 | 5 | .500 | .900 |"
    assert "Other programs" not in after[-1]
    disturbed = Result(**{**vars(result), "others": 1.0})
    assert "Other programs" in render_architectures(disturbed, known)
    assert "Not measured yet" in render_architectures(None, known)


def test_files_take_turns_on_the_engines_that_are_installed(tmp_path: Path) -> None:
    network: dict[str, Any] = {"architecture": "tiny", "size": 32, "parameters": 9}
    for precision in ("fp32", "int8"):
        network[precision] = write_tiny_model(tmp_path / f"{precision}.onnx", precision=precision).name
    (found,) = time_networks([network], tmp_path, rounds=6)
    assert found["fp32_bytes"] == (tmp_path / "fp32.onnx").stat().st_size
    assert found["fp32_onnxruntime"]["ratio"] == 1.0
    for name in (key for key in found if key.endswith(("onnxruntime", "openvino"))):
        low, high = found[name]["p50_95_ms"]
        assert 0 < low <= high
        assert found[name]["p50_ms"] <= found[name]["p99_ms"]


def test_the_untrained_files_run_in_integers(tmp_path: Path) -> None:
    pytest.importorskip("tf_keras", reason="needs the extra 'train'")
    from capsule_edge.export.tools.untrained import main, write_untrained

    written = write_untrained("plain_cnn", 32, tmp_path)
    assert written["parameters"] > 0
    fp32, int8 = (open_model(tmp_path / written[precision]).spec for precision in ("fp32", "int8"))
    assert (fp32.precision, int8.precision, int8.saturation_safe) == ("fp32", "int8", True)
    assert fp32.input.size == 32
    assert fp32.parity is None
    for words, said in ((["plain_cnn"], "names no network"), (["nonesuch:32"], "is not known")):
        with pytest.raises(UsageError, match=said):
            main([str(tmp_path), *words])


def test_every_network_of_the_table_can_be_built() -> None:
    for network in NETWORKS:
        architecture, size = network.split(":")
        assert architecture in models.ARCHITECTURES
        assert int(size) % (32 if architecture in models.BRANCHED else 16) == 0


def test_files_that_cannot_be_made_are_an_input_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(architectures.subprocess, "run", lambda *_, **__: CompletedProcess([], 1, "", ""))
    with pytest.raises(InputError, match="could not be made"):
        architectures.make_networks(NETWORKS, tmp_path)
