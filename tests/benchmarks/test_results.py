"""Test committed results: the documents show them, and a run of all benchmarks that was stopped continues."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT

from capsule_edge.benchmarks import all as everything
from capsule_edge.benchmarks import machine
from capsule_edge.benchmarks.all import STEPS, BenchmarkStep, measure_all
from capsule_edge.benchmarks.architectures import read_accuracy, render_architectures
from capsule_edge.benchmarks.details import render_details
from capsule_edge.benchmarks.documents import between
from capsule_edge.benchmarks.performance import render_peers, render_performance, render_reach
from capsule_edge.benchmarks.results import (
    Result,
    describe_commit,
    hash_models,
    read_result,
    read_results,
    write_result,
)
from capsule_edge.runtime.errors import InputError, OutputError, UsageError

RESULTS = ROOT / "benchmarks" / "results"
HOW = (
    "measure again: python -m capsule_edge.benchmarks.all; or render the tables anew: the same with --render"
)


@pytest.fixture(scope="module")
def kept() -> dict[str, Result]:
    return read_results(RESULTS)


# Committed results


@pytest.mark.quick
def test_the_documents_show_the_results(kept: dict[str, Result]) -> None:
    shipped = hash_models(ROOT)
    assert between(ROOT / "README.md", "performance")[1] == render_performance(kept, shipped), HOW
    assert between(ROOT / "docs/benchmarks.md", "peers")[1] == render_peers(kept, shipped), HOW
    assert between(ROOT / "docs/benchmarks.md", "reach")[1] == render_reach(kept), HOW
    assert between(ROOT / "docs/benchmarks.md", "details")[1] == render_details(kept, shipped), HOW
    known = read_accuracy(ROOT)
    table = render_architectures(kept.get("architectures"), known)
    assert between(ROOT / "docs/models.md", "architectures")[1] == table, HOW


@pytest.mark.quick
def test_a_result_is_of_its_benchmarks_command(kept: dict[str, Result]) -> None:
    assert {"models", "scaling"} <= set(kept) <= {step.name for step in STEPS}
    for step in (step for step in STEPS if step.name in kept):
        result = kept[step.name]
        assert result.command == step.command, HOW
        assert not result.quick
        assert len(result.commit.rstrip("+")) == 12
        reads_models = any(word.endswith((".onnx", ".tflite")) for word in step.command.split())
        assert bool(result.models) == reads_models
        assert result.machine["versions"]["onnxruntime"]


def test_results_hold_no_path_of_their_machine() -> None:
    for path in RESULTS.glob("*.json"):
        # A slash after a space, a quote or a bracket begins an absolute path.
        assert re.findall(r"(?<![\w.)*}%-])/[\w.-]+/", path.read_text("utf-8")) == [], path.name


@pytest.mark.quick
def test_the_readmes_table_is_short(kept: dict[str, Result]) -> None:
    assert len(render_performance(kept, hash_models(ROOT)).splitlines()) <= 12


# The tables


def changed(result: Result, **found: Any) -> Result:
    return replace(result, found={**json.loads(json.dumps(result.found)), **found})


def test_a_model_that_was_replaced_is_named_in_the_table(kept: dict[str, Result]) -> None:
    # Results of several runs may be of different models, so only one is looked at.
    only = {"models": kept["models"]}
    shipped = hash_models(ROOT) | dict(kept["models"].models)
    assert "earlier files" not in render_performance(only, shipped) + render_details(only, shipped)
    path = "runtime/models/capsule-edge.int8.onnx"
    other = {**shipped, path: "0" * 64}
    assert f"**Measured with earlier files** of `{path}`" in render_performance(only, other)
    assert render_details(only, other).count(", **of earlier files**") == 1
    peers = {"peers-exam": replace(changed(kept["models"], rows=[], frames=9, threads=1), others=0.0)}
    assert "earlier files" not in render_peers(peers, shipped)
    assert "1 threads, **of earlier files**:" in render_peers(peers, other)
    del shipped[path]
    assert f"`{path}`" in render_performance(only, shipped)


def test_an_aim_is_judged_by_the_result(kept: dict[str, Result]) -> None:
    def verdicts(results: dict[str, Result]) -> list[str]:
        return [line.split("|")[3].strip() for line in render_reach(results).splitlines()[2:]]

    assert set(verdicts({})) == {"not measured"}
    scaling = json.loads(json.dumps(kept["scaling"].found))
    for seconds, verdict in ((30.0, "reached"), (30.1, "**not reached**")):
        scaling["length"][-1]["seconds"] = seconds
        result = replace(changed(kept["scaling"], **scaling), others=0.0)
        assert verdicts({"scaling": result}).count(verdict) == 1


def test_a_peer_that_cannot_run_is_named_with_its_reason(kept: dict[str, Result]) -> None:
    found = {"rows": [peer("ours", "a", 8.0), peer("theirs", "a", None)], "frames": 9, "threads": 1}
    text = render_peers({"peers-exam": changed(kept["models"], **found)}, hash_models(ROOT))
    # 9 frames at 8 per second, after half a second.
    assert "| ours | a | 6 | 0.50 | 8 |" in text
    assert "theirs cannot run here: no such instruction." in text
    assert "On a real recording: not measured yet." in text


def test_each_result_is_shown_with_its_command_and_load(kept: dict[str, Result]) -> None:
    shipped = hash_models(ROOT)
    text = render_details(kept, shipped)
    for name in set(kept) & {"models", "stages", "stages-small", "mlperf", "scaling", "instructions"}:
        result = kept[name]
        assert f"`{result.command}`, {result.measured[:10]} at `{result.commit}`" in text
    card = kept["models"].machine
    assert card["versions"]["onnxruntime"] in text
    # The name of the operating system, not the version of its kernel.
    assert f", {card['system'].partition('-')[0]}, Python {card['python']}," in text
    assert card["system"] not in text
    # Every file on every backend, in three tables, in one of them with one and with two threads.
    assert text.count("| capsule-edge.int8.onnx | openvino |") == 4
    busy = render_details({"models": replace(kept["models"], others=0.9)}, shipped)
    assert busy.count("**other programs ran meanwhile**") == 1
    assert busy.count("Not measured yet.") == 5


def peer(name: str, file: str, after_start: float | None) -> dict[str, Any]:
    """A row of ``peers``, with half a second before the first of 9 frames; without ``after_start`` it cannot run."""
    can = after_start is not None
    return {
        "name": name,
        "file": file,
        "frames_per_s": [round(9 / (0.5 + 9 / after_start), 1)] if can else [],
        "start_s": 0.5 if can else None,
        "after_start": [after_start] if can else [],
        "core_ms": 1.0 if can else None,
        "agreement": 1.0 if can else None,
        "reason": None if can else "no such instruction",
    }


def test_the_bounds_of_decoding_and_the_model_are_shown_beside_the_figures(kept: dict[str, Result]) -> None:
    """Decoding takes 1 ms and the small model .25: 1,600 frames per second on two cores.

    The network alone reaches 1,000 frames per second.
    """
    fp32, int8 = (f"capsule-edge-224.{precision}.onnx" for precision in ("fp32", "int8"))
    rows = [
        peer("capsule-edge, openvino", int8, 500.0),
        peer("capsule-edge, onnxruntime", "capsule-edge-small.int8.onnx", 1200.0),
        peer("cv2-onnxruntime", fp32, 200.0),
        peer("benchmark_app", int8, 1000.0),
    ]
    stages = {"core_ms_per_frame": {"decode": 1.0, "prepare": 9.0, "infer": 0.25}, "cores": 2}
    results = {
        "peers-exam": replace(changed(kept["models"], rows=rows), others=0.0),
        "stages-small": changed(kept["models"], **stages),
    }
    cells = [
        [cell.strip() for cell in line.split("|")[2:5]] for line in render_reach(results).splitlines()[2:]
    ]
    assert cells[0] == ["2.50", "**not reached**", "3.33"]
    assert cells[1] == ["0.50", "**not reached**", "0.67"]
    assert cells[2] == ["-", "not measured", "36 s"]
    assert cells[3] == ["6.00", "**not reached**", "8.00"]
    busy = render_reach(results | {"peers-exam": replace(results["peers-exam"], others=0.9)})
    bounds = [line.split("|")[4].strip() for line in busy.splitlines()[2:]]
    assert [bound for bound in bounds if bound] == ["36 s"]


def test_disturbed_results_are_named(kept: dict[str, Result]) -> None:
    for others, disturbed in ((0.1, False), (0.9, True)):
        results = {name: replace(result, others=others) for name, result in kept.items()}
        assert ("Other programs ran" in render_performance(results, hash_models(ROOT))) == disturbed
        assert ("other programs ran" in render_reach(results)) == disturbed
        # Times of a busy machine say nothing about an idle one.
        assert ("not judged" in render_reach(results).splitlines()[-1]) == disturbed


# Files


def sample(**other: Any) -> Result:
    values: dict[str, Any] = {
        "benchmark": "one",
        "command": "python -m one",
        "commit": "0123456789ab",
        "measured": "2026-11-25T00:00:00+00:00",
        "seconds": 1.5,
        "quick": False,
        "machine": {"cpu": {"name": "c"}, "cores_allowed": 2, "load_1min": 0.1},
        "load_after": None,
        "models": {"a.onnx": "0" * 64},
        "found": {"times": [1.5, -2e-5, 3], "names": ["a", "b"], "rows": [{"x": [1, 2]}], "none": []},
    }
    return Result(**(values | other))


@pytest.mark.quick
def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = write_result(sample(), tmp_path / "results")
    assert read_result(path) == sample()
    assert '"times": [1.5, -2e-05, 3]' in path.read_text("utf-8")
    assert [one.name for one in path.parent.iterdir()] == ["one.json"]


def test_a_file_that_is_no_result_and_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    for text in ("", "[]", '{"schema": "other"}', '{"schema": "capsule-edge/result/1", "found": {}}'):
        (tmp_path / "bad.json").write_text(text, "utf-8")
        with pytest.raises(InputError, match="is no result"):
            read_result(tmp_path / "bad.json")
    with pytest.raises(OutputError, match="cannot be written"):
        write_result(sample(), tmp_path / "bad.json" / "below")
    with pytest.raises(InputError, match="is no checkout"):
        describe_commit(tmp_path)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_time_of_others_excludes_this_process_and_its_children() -> None:
    before = machine.time_of_others(lambda: 100.0)
    code = "import time\nwhile time.process_time() < 0.5: pass"
    subprocess.run([sys.executable, "-c", code], check=True)
    after = machine.time_of_others(lambda: 103.0)
    assert before is not None
    assert after is not None
    # Half a second of the three was the child's, and a little was this test's. os.times rounds four times to .01 s.
    assert 2.0 < after - before < 2.55


@pytest.mark.quick
def test_the_load_decides_if_the_time_of_others_is_not_known() -> None:
    card = {"cpu": {"name": "c"}, "cores_allowed": 2}
    for others, load, disturbed in (
        (0.2, 9.0, False),
        (0.3, 0.0, True),
        (None, 3.1, True),
        (None, 2.9, False),
    ):
        result = sample(others=others, machine={**card, "load_1min": load})
        assert result.was_disturbed == disturbed
    assert not sample(machine={**card, "load_1min": None}).was_disturbed


def git(folder: Path, *words: str) -> None:
    identity = ("-c", "user.name=n", "-c", "user.email=e")
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    (root / "runtime/models").mkdir(parents=True)
    (root / "runtime/models/a.onnx").write_bytes(b"a")
    (root / "README.md").write_text("r", "utf-8")
    git(tmp_path, "init", "-q", str(root))
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "m")
    return root


def test_the_commit_ignores_results_and_documents(checkout: Path) -> None:
    commit = describe_commit(checkout)
    assert re.fullmatch("[0-9a-f]{12}", commit)
    (checkout / "README.md").write_text("another table", "utf-8")
    assert describe_commit(checkout) == commit
    # Committed documents are no other code either.
    (checkout / "docs").mkdir()
    (checkout / "docs/a.md").write_text("a", "utf-8")
    git(checkout, "add", ".")
    git(checkout, "commit", "-q", "-m", "tables")
    assert describe_commit(checkout) == commit
    (checkout / "runtime/models/a.onnx").write_bytes(b"b")
    assert describe_commit(checkout) == f"{commit}+"
    git(checkout, "commit", "-q", "-a", "-m", "a model")
    assert re.fullmatch("[0-9a-f]{12}", describe_commit(checkout))
    assert describe_commit(checkout) != commit


# Measuring


def test_a_run_that_was_stopped_continues(checkout: Path, tmp_path: Path) -> None:
    steps = [
        BenchmarkStep(name, f"python -m {name} runtime/models/a.onnx", f"python -m {name}") for name in "abc"
    ]
    ran: list[str] = []
    failed: list[str] = []
    failing = {"python -m b runtime/models/a.onnx"}

    def run(command: str, _limit_s: float) -> dict[str, Any]:
        ran.append(command.split()[2])
        if command in failing:
            raise InputError("stopped")
        return {"benchmark": ran[-1], "machine": {}, "figure": len(ran)}

    def measure(*, quick: bool = False, again: bool = False) -> dict[str, Result]:
        ran.clear()
        results, failed[:] = measure_all(steps, checkout, tmp_path / "out", quick=quick, again=again, run=run)
        return results

    measure()
    # The step after the failed one is still measured.
    assert (ran, failed) == (["a", "b", "c"], ["b"])
    assert set(read_results(tmp_path / "out")) == {"a", "c"}
    failing.clear()
    results = measure()
    assert (ran, failed) == (["b"], [])
    assert results == read_results(tmp_path / "out")
    assert results["b"].found == {"benchmark": "b", "figure": 1}
    assert set(results["b"].models) == {"runtime/models/a.onnx"}
    measure()
    assert ran == []
    measure(again=True)
    assert ran == ["a", "b", "c"]
    measure(quick=True)
    assert ran == ["a", "b", "c"]
    measure(quick=True)
    assert ran == []
    # With another model every result is outdated.
    (checkout / "runtime/models/a.onnx").write_bytes(b"b")
    measure()
    assert ran == ["a", "b", "c"]


def test_a_command_is_run_and_its_last_line_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CAPSULE_EDGE_TEST", str(tmp_path / "absent.onnx"))
    found = everything.run_command("python -c print('{\"a\":1}')", 60)
    assert found == {"a": 1}
    with pytest.raises(InputError, match="ended with exit code"):
        everything.run_command("capsule-edge bench $CAPSULE_EDGE_TEST --json", 60)
    # A path below a named folder is replaced by one below another folder.
    command = "python -c __import__('json').dump({'a':__import__('sys').argv[1]},__import__('sys').stdout) out/a.mp4"
    assert everything.run_command(command, 60, {Path("out"): tmp_path}) == {"a": str(tmp_path / "a.mp4")}
    assert everything.run_command(command, 60) == {"a": "out/a.mp4"}
    with pytest.raises(InputError, match="took more than"):
        everything.run_command("python -c __import__('threading').Event().wait()", 0.2)


def test_bad_input_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'nonesuch' is not known"):
        everything.main(["--only", "nonesuch"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is not the root"):
        everything.main([])


def test_a_benchmark_that_fails_is_named_at_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, checkout: Path
) -> None:
    def fail(command: str, *_: object, **__: object) -> dict[str, Any]:
        raise InputError("no such thing")

    monkeypatch.chdir(checkout)
    with pytest.raises(InputError, match="not measured: instructions"):
        everything.main(["--only", "instructions", "--out", str(tmp_path / "results")], run=fail)
    monkeypatch.setenv("CAPSULE_EDGE_DATA", str(tmp_path))
    with pytest.raises(InputError, match="recordings are not there"):
        everything.main([])
    with pytest.raises(InputError, match="no place for the table"):
        everything.main(["--render"])
