"""Compare two results of ``bench``: which changes exceed noise, and which figures must not be compared."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from bench_samples import changed

from capsule_edge.benchmarks.regression import compare_results, read_result
from capsule_edge.benchmarks.tables import render_markdown
from capsule_edge.runtime.errors import InputError


@pytest.mark.parametrize(
    ("factor", "width", "verdict"),
    [
        (1.2, 0.01, "slower"),
        (0.8, 0.01, "faster"),
        (1.0, 0.01, "noise"),
        (1.2, 0.15, "noise"),  # the intervals overlap
        (1.04, 0.001, "noise"),  # the intervals do not overlap, but the change is below 5 %
    ],
)
def test_a_change_counts_if_it_exceeds_noise(
    result: dict[str, Any], factor: float, width: float, verdict: str
) -> None:
    changes, same = compare_results(changed(result, 1, width=width), changed(result, factor, width=width))
    assert same
    by_figure = {(change.file, change.backend, change.figure): change for change in changes}
    assert {change.verdict for key, change in by_figure.items() if key[:2] != ("a.onnx", "openvino")} == {
        "noise"
    }
    for figure in ("p50_ms", "ratio"):
        found = by_figure["a.onnx", "openvino", figure]
        assert found.verdict == verdict
        assert found.change == pytest.approx(factor - 1)
    assert ("a.onnx", "onnxruntime", "ratio") not in by_figure


@pytest.mark.parametrize(
    ("factor", "width", "verdict"),
    [(0.8, 0.01, "slower"), (1.2, 0.01, "faster"), (0.8, 0.2, "noise"), (0.97, 0.001, "noise")],
)
def test_fewer_frames_per_second_are_slower(
    result: dict[str, Any], factor: float, width: float, verdict: str
) -> None:
    def rate(value: float) -> dict[str, Any]:
        made = changed(result, 1)
        for row in made["entries"][0]["throughput"]:
            row |= {"frames_per_s": value, "frames_per_s_95": [value * (1 - width), value * (1 + width)]}
        return made

    changes, _ = compare_results(rate(100), rate(100 * factor))
    by_figure = {(one.file, one.backend, one.figure, one.threads): one for one in changes}
    found = by_figure["a.onnx", "onnxruntime", "frames_per_s, batch 16", 2]
    assert found.verdict == verdict
    assert found.change == pytest.approx(factor - 1)
    # A result of an earlier version has no intervals of throughput.
    bare = rate(100)
    for entry in bare["entries"]:
        for row in entry["throughput"]:
            del row["frames_per_s_95"]
    assert {change.figure for change in compare_results(bare, rate(1))[0]} == {"p50_ms", "ratio"}


def test_between_machines_only_ratios_are_compared(result: dict[str, Any]) -> None:
    other = changed(result, 1.5)
    other["machine"]["cpu"]["name"] = "another"
    changes, same = compare_results(changed(result, 1), other)
    assert not same
    assert {change.figure for change in changes} == {"ratio"}
    assert [change.verdict for change in changes] == ["slower", "noise", "noise"]


def test_ratios_to_different_files_are_not_compared(result: dict[str, Any]) -> None:
    """Results of earlier versions do not name the reference of their ratios: it is the first entry."""
    bare, other = changed(result, 1), changed(result, 1.5)
    for entry in bare["entries"]:
        del entry["latency"][0]["reference"]
    by_figure = {(one.file, one.backend, one.figure) for one in compare_results(bare, other)[0]}
    assert ("b.onnx", "openvino", "ratio") in by_figure
    other["entries"][3]["latency"][0]["reference"] = {"file": "a.onnx", "backend": "openvino"}
    by_figure = {(one.file, one.backend, one.figure) for one in compare_results(bare, other)[0]}
    assert ("b.onnx", "openvino", "ratio") not in by_figure
    assert ("b.onnx", "openvino", "p50_ms") in by_figure
    assert "a.onnx, onnxruntime" in render_markdown(result)
    assert "the first" in render_markdown(bare)


def test_results_without_a_common_figure_and_files_that_are_no_result(
    result: dict[str, Any], tmp_path: Path
) -> None:
    other = deepcopy(result)
    for entry in other["entries"]:
        entry["file"] = "c.onnx"
    with pytest.raises(InputError, match="no figure in common"):
        compare_results(result, other)
    for text in ("", "[]", '{"schema": "other"}', json.dumps({**result, "entries": [{"file": "a"}]})):
        (tmp_path / "bad.json").write_text(text, "utf-8")
        with pytest.raises(InputError, match="is no result of bench"):
            read_result(tmp_path / "bad.json")
    with pytest.raises(InputError, match="is no result of bench"):
        read_result(tmp_path / "absent.json")
