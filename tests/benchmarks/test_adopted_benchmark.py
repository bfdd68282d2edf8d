"""The table of adopted models: a row for adopt, and one for the naive way, measured on the same frames."""

from __future__ import annotations

import pytest

pytest.importorskip("onnx")
pytest.importorskip("sklearn")

import onnx
from foreign_models import make_net, write_colours, write_names

from capsule_edge.benchmarks.adopted import measure_adopted, render_adopted
from capsule_edge.evaluation.datasets import load_dataset
from capsule_edge.export.adopt import AdoptOptions, adopt
from capsule_edge.runtime.errors import InputError


def test_an_adopted_folder_and_the_naive_way_get_a_row_each(tmp_path):
    root = write_colours(tmp_path / "frames", frames=16)
    onnx.save(make_net("residual", root), tmp_path / "net.onnx")
    labels = write_names(tmp_path / "labels.yaml")
    adopt(
        tmp_path / "net.onnx",
        labels,
        root,
        tmp_path / "out",
        AdoptOptions(scaling="imagenet", accept_weak=True),
    )
    dataset = load_dataset(root)
    ours, naive = measure_adopted(tmp_path / "out", dataset, rounds=3, naive=True, work=tmp_path)
    assert (ours.name, naive.name) == ("net", "net, quantize_static")
    assert ours.verdict in ("pass", "fail", "undecided")
    assert naive.verdict is None
    assert 0 <= naive.agreement <= 1
    assert all(fp32 > 0 and int8 > 0 for row in (ours, naive) for fp32, int8 in row.p50_ms.values())
    assert "onnxruntime" in ours.p50_ms
    table = render_adopted([ours, naive], "note")
    assert table.count("\n| net") == 2
    with pytest.raises(InputError, match="no adopted model"):
        measure_adopted(root, dataset, rounds=1)
