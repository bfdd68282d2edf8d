"""The ranges that training set find their values in the converted network, whose names and axes differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx", reason="needs the extra 'train'")

from capsule_edge.evaluation.classification import load_frames
from capsule_edge.evaluation.datasets import load_dataset
from capsule_edge.export.adopt.finetuning.trained_ranges import TrainedRange, carry_ranges, describe_values
from capsule_edge.export.adopt.float_body import PIXELS, make_body
from capsule_edge.export.adopt.graph import Graph
from capsule_edge.export.adopt.input_chain import follow_input
from capsule_edge.export.adopt.onnx_source import read_onnx
from capsule_edge.export.adopt.quantiser import activations_of
from capsule_edge.export.adopt.scaling import parse_scaling
from capsule_edge.runtime.inference import InputSpec


def test_a_range_goes_to_the_value_with_the_same_numbers(foreign: Any, colours: Path) -> None:
    source = read_onnx(foreign("residual"))
    scaling = parse_scaling("imagenet", None)
    assert scaling is not None
    chain = follow_input(Graph(source.proto), source.input, source.layout)
    body = make_body(source, chain, scaling, "logits")
    _, frames = load_frames(load_dataset(colours), InputSpec(32, crop="none", mask="none", preprocessing=2))
    few = frames[:8]
    name = next(each for each in activations_of(body) if each != PIXELS)
    values = body.values(few, name)
    other = values * 1.01
    trained = [
        TrainedRange(describe_values(other), -9.0, 9.0),
        TrainedRange(describe_values(values.transpose(0, 2, 3, 1)), -1.0, 2.0),
    ]
    assert carry_ranges(body, body.entry.apply(few), trained) == {name: (-1.0, 2.0)}
