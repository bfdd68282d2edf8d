"""Test ``capsule-edge bench``: its statistics on given times, its document on small files. No time is asserted."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bench_samples import QUICK, changed
from tiny_model import write_tiny_model

from capsule_edge.benchmarks import bench, plots, startup, throughput
from capsule_edge.benchmarks.bench import BenchOptions, run_bench
from capsule_edge.benchmarks.latency import find_steady, summarise
from capsule_edge.benchmarks.machine import describe_machine
from capsule_edge.benchmarks.plots import plot_result
from capsule_edge.benchmarks.regression import read_result
from capsule_edge.benchmarks.tables import render_markdown
from capsule_edge.cli.main import main
from capsule_edge.runtime.errors import BackendError, ModelError, UsageError
from capsule_edge.runtime.inference import open_model
from capsule_edge.runtime.results import atomic


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*words: object) -> SimpleNamespace:
        with pytest.raises(SystemExit) as stopped:
            main([str(word) for word in words])
        shown = capsys.readouterr()
        return SimpleNamespace(code=int(stopped.value.code or 0), out=shown.out, err=shown.err)

    return run


# Statistics on given times


def noise(rounds: int = 200, columns: int = 2) -> np.ndarray:
    return 0.004 * np.random.default_rng(0).normal(1, 0.01, (rounds, columns))


@pytest.mark.quick
def test_the_first_steady_round_is_found() -> None:
    times = noise()
    assert find_steady(times) == (0, True)
    # A processor that needs 37 rounds to reach its clock: the first four blocks of ten are too slow.
    times[:37] *= 1.5
    assert find_steady(times) == (40, True)
    # One column still falls at the half.
    times = noise()
    times[:, 1] *= np.linspace(3, 1, 200)
    start, steady = find_steady(times)
    assert (start, steady) == (100, False)
    # Too few rounds to judge.
    assert find_steady(noise(30)) == (0, False)


@pytest.mark.quick
def test_outliers_move_neither_the_median_nor_its_interval() -> None:
    clean, disturbed = noise(), noise()
    disturbed[::20] *= 50
    (plain, _), (hit, _) = summarise(clean), summarise(disturbed)
    # 5 % of outliers shift the rank of the median by 2.6 %: .07 standard deviations, each 1 % of the time.
    assert hit["p50_ms"] == pytest.approx(plain["p50_ms"], rel=0.002)
    assert hit["jitter_ms"] == pytest.approx(0.04, rel=0.25)
    low, high = hit["p50_95_ms"]
    assert low <= hit["p50_ms"] <= high
    assert high - low < 0.02 * hit["p50_ms"]
    assert hit["p99_ms"] > 40 * hit["p50_ms"]
    assert hit["min_ms"] <= hit["p50_ms"] <= hit["p90_ms"] <= hit["p95_ms"] <= hit["p99_ms"]


# The document


def test_every_file_runs_on_every_backend_that_reads_it(files: list[Path], result: dict[str, Any]) -> None:
    assert result["schema"] == bench.SCHEMA
    assert [(entry["file"], entry["backend"]) for entry in result["entries"]] == [
        (file.name, backend) for file in files for backend in ("onnxruntime", "openvino")
    ]
    first = result["entries"][0]
    assert first["sha256"] == open_model(files[0]).sha256
    assert first["bytes"] == files[0].stat().st_size
    for entry in result["entries"]:
        (row,) = entry["latency"]
        assert row["threads"] == 1
        assert 0 < row["min_ms"] <= row["p50_ms"] <= row["p99_ms"]
        assert row["core_ms"] > 0
        assert len(row["times_ms"]) == row["rounds"] <= 40
        assert [(cell["batch"], cell["streams"]) for cell in entry["throughput"]] == [
            (1, 1),
            (1, 2),
            (16, 1),
            (16, 2),
        ]
        for cell in entry["throughput"]:
            low, high = cell["frames_per_s_95"]
            assert 0 < low <= cell["frames_per_s"] <= high
        assert entry["startup"] is None
    assert first["latency"][0]["ratio"] == 1
    json.dumps(result, allow_nan=False)


def test_int8_is_timed_in_turns_with_its_own_fp32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other file is timed with the first. The fake machine gets three times slower with every pair."""
    files = [
        write_tiny_model(tmp_path / "other.onnx", name="other"),
        write_tiny_model(tmp_path / "int8.onnx", precision="int8"),
        write_tiny_model(tmp_path / "fp32.onnx"),
        write_tiny_model(tmp_path / "large-int8.onnx", precision="int8", size=64),
    ]
    cost = {"other": 0.004, "fp32": 0.008, "int8": 0.002, "large-int8": 0.016}
    pairs: list[list[tuple[str, str]]] = []

    def measure(models: list[Any], *, rounds: int) -> tuple[np.ndarray, np.ndarray]:
        pairs.append([(model.path.stem, model.name) for model in models])
        times = np.array([cost[name] for name, _ in pairs[-1]]) * 3.0 ** len(pairs)
        return np.tile(times, (rounds, 1)), np.tile(times, (rounds, 1))

    monkeypatch.setattr(bench, "measure_both", measure)
    backends = ["onnxruntime", "openvino"]
    options = BenchOptions(rounds=40, throughput_rounds=1, starts=0, batches=(1,), streams=(1,))
    entries = run_bench(files, backends, options)["entries"]
    assert len(pairs) == len(entries) - 1
    rows = {}
    for entry in entries:
        (row,) = entry["latency"]
        rows[Path(entry["file"]).stem, entry["backend"]] = row
        other = (Path(row["reference"]["file"]).stem, row["reference"]["backend"])
        assert row["ratio"] == pytest.approx(cost[Path(entry["file"]).stem] / cost[other[0]])
        assert row["steady"]
    for backend in backends:
        assert rows["int8", backend]["reference"] == {"file": "fp32.onnx", "backend": backend}
        # large-int8 has another input size, so fp32 is not its twin.
        for name in ("other", "fp32", "large-int8"):
            assert rows[name, backend]["reference"] == {"file": "other.onnx", "backend": "onnxruntime"}


def test_one_file_alone_is_its_own_reference(files: list[Path]) -> None:
    options = BenchOptions(rounds=40, throughput_rounds=1, starts=0, batches=(1,), streams=(1,))
    (entry,) = run_bench(files[:1], ["onnxruntime"], options)["entries"]
    assert entry["latency"][0]["ratio"] == 1
    assert entry["latency"][0]["reference"] == {"file": "a.onnx", "backend": "onnxruntime"}


def test_the_machine_card() -> None:
    card = describe_machine()
    assert card["cores_allowed"] >= 1
    assert card["versions"]["onnxruntime"]
    assert card["versions"]["capsule-edge"]
    assert "governor" in card


def test_every_frame_goes_through_once(files: list[Path]) -> None:
    class Counted:
        def __init__(self) -> None:
            self.spec, self.batches = open_model(files[0]).spec, []

        def run(self, frames: np.ndarray) -> None:
            self.batches.append(len(frames))

    model = Counted()
    throughput.measure_throughput([model], batches=[4], streams=[1, 3], rounds=2, frames=32)
    # 8 calls of 4 frames, for two numbers of streams and three rounds, one of which warms up.
    assert model.batches == [4] * 8 * 2 * 3


def test_the_start_is_that_of_a_fresh_process(files: list[Path]) -> None:
    """The parent's memory does not count: it has 400 MB here, and a process with a tiny model needs some 60."""
    held = np.ones(50_000_000)
    options = BenchOptions(rounds=40, throughput_rounds=1, starts=1, batches=(1,), streams=(1,))
    (entry,) = run_bench(files[:1], ["onnxruntime"], options)["entries"]
    assert held.sum() == 50_000_000
    found = entry["startup"]
    # A process cannot answer before it has opened the model, nor hold less than an interpreter does.
    assert found["cold_start_s"] > found["open_s"] > 0
    assert found["peak_mb"] is None or 10 < found["peak_mb"] < 300


def test_a_process_that_fails_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"a fresh process cannot run .*no model file") as caught:
        startup.measure_startup([(tmp_path / "absent.onnx", "onnxruntime")], rounds=1)
    assert "\n" not in str(caught.value)


@pytest.mark.quick
@pytest.mark.parametrize(
    "options", [{"threads": ()}, {"threads": (0,)}, {"batches": (-1,)}, {"rounds": 39}, {"starts": -1}]
)
def test_numbers_below_their_minimum_are_usage_errors(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"allowed are|at least"):
        BenchOptions(**options)


def test_models_that_cannot_be_opened(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model file"):
        run_bench([tmp_path / "absent.onnx"], ["onnxruntime"], QUICK)
    with pytest.raises(BackendError, match="is not known"):
        run_bench(files, ["nonesuch"], QUICK)
    with pytest.raises(BackendError, match="reads TFLite"):
        run_bench(files, ["litert"], QUICK)


# Markdown and plots


def test_markdown_has_a_row_for_every_figure(result: dict[str, Any]) -> None:
    text = render_markdown(result)
    assert text.count("| a.onnx | openvino |") == 3
    assert "batch 16, 2 streams" in text
    assert describe_machine()["versions"]["onnxruntime"] in text


def test_plots_are_pictures(result: dict[str, Any]) -> None:
    accuracy = {result["entries"][0]["sha256"]: 0.5}
    made = plot_result(result, accuracy)
    assert list(made) == ["latency.png", "throughput.png", "pareto.png"]
    assert all(picture.startswith(b"\x89PNG") for picture in made.values())
    # Without accuracy the other two are drawn, byte for byte the same.
    again = plot_result(result)
    assert list(again) == ["latency.png", "throughput.png"]
    assert all(made[name] == picture for name, picture in again.items())


def test_the_files_are_written_all_or_none(
    result: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Any
) -> None:
    def draw(_document: Any, accuracy: Any) -> dict[str, bytes]:
        return {name: name.encode() for name in plots.PLOTS if accuracy or name != "pareto.png"}

    monkeypatch.setattr(plots, "plot_result", draw)
    (tmp_path / "result.json").write_text(json.dumps(result), "utf-8")
    accuracy = {"model": {"sha256": result["entries"][0]["sha256"]}, "macro_f1": 0.4}
    (tmp_path / "evaluation.json").write_text(json.dumps(accuracy), "utf-8")
    words = ("bench", "--result", tmp_path / "result.json", "--against", tmp_path / "result.json")
    out = tmp_path / "out"
    assert call(*words, "--out", out, "--evaluation", tmp_path / "evaluation.json").code == 0
    assert (out / "pareto.png").exists()
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    replaced = atomic.os.replace

    def fail(source: Any, target: Any) -> None:
        if Path(target).name == "bench.md" and Path(source).name.endswith(".tmp"):
            raise OSError(28, "No space left on device")
        replaced(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(atomic.os, "replace", fail)
        failed = call(*words, "--out", out)
    assert failed.code == 1
    assert "bench.md cannot be written" in failed.err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    # A plot of the earlier run that this one does not draw is removed.
    assert call(*words, "--out", out).code == 0
    assert {path.name for path in out.iterdir()} == {
        "bench.json",
        "bench.md",
        "latency.png",
        "throughput.png",
    }


def test_the_command_measures_writes_and_compares(files: list[Path], tmp_path: Path, call: Any) -> None:
    quick = ("--rounds", 40, "--starts", 0, "--batches", 2, "--streams", 1, "--backend", "onnxruntime")
    out = tmp_path / "out"
    evaluation = tmp_path / "evaluation.json"
    evaluation.write_text(
        json.dumps({"model": {"sha256": open_model(files[0]).sha256}, "macro_f1": 0.4}), "utf-8"
    )
    called = call("bench", *files, *quick, "--out", out, "--evaluation", evaluation)
    assert called.code == 0, called.err
    assert {path.name for path in out.iterdir()} == {
        *("bench.json", "bench.md", "latency.png", "throughput.png", "pareto.png")
    }
    assert "core ratio" in called.out
    document = read_result(out / "bench.json")
    assert document["options"]["batches"] == [2]
    assert document["entries"][0]["startup"] is None

    for name, factor in (("before", 1), ("after", 1.5)):
        (tmp_path / f"{name}.json").write_text(json.dumps(changed(document, factor)), "utf-8")
    called = call(
        "bench", "--result", tmp_path / "after.json", "--against", tmp_path / "before.json", "--json"
    )
    assert called.code == 4
    assert "slower" in {change["verdict"] for change in json.loads(called.out)["changes"]}
    called = call("bench", "--result", tmp_path / "before.json", "--against", tmp_path / "after.json")
    assert called.code == 0
    assert "faster" in called.out


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("--threads", "one"), "allowed are numbers"),
        (("--threads", "0"), "threads are [0]"),
        (("--rounds", 3), "rounds are 3"),
        (("--result", "x.json"), "--result needs --against"),
        (("--against", "absent.json"), "is no result of bench"),
        (("--evaluation", "absent.json"), "is not the output of evaluate --json"),
        (("absent.onnx",), "no model file"),
    ],
)
def test_bad_input_is_one_line(call: Any, words: tuple[object, ...], fault: str) -> None:
    called = call("bench", *words)
    assert called.code in (1, 2)
    assert called.err.count("\n") == 1
    assert fault in called.err
