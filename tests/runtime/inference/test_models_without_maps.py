"""A model file may state that it has no ``features``: the specification, and the contract of its outputs."""

from __future__ import annotations

import json

import onnx
import pytest
from tiny_model import tiny_spec, write_tiny_model

from capsule_edge.runtime.errors import ModelError
from capsule_edge.runtime.inference import METADATA_KEY, ModelSpec, open_model


def test_null_is_read_and_written_and_absence_means_maps():
    plain = tiny_spec()
    assert plain.has_maps
    assert "features" not in plain.to_dict()
    document = {**plain.to_dict(), "features": None}
    spec = ModelSpec.from_json(json.dumps(document))
    assert not spec.has_maps
    assert spec.to_dict()["features"] is None
    assert ModelSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize("value", [True, False, 0, "none", []])
def test_another_value_than_null_is_refused(value):
    document = {**tiny_spec().to_dict(), "features": value}
    with pytest.raises(ModelError, match=r"features is .*, allowed is null"):
        ModelSpec.from_json(json.dumps(document))


def test_outputs_that_contradict_the_specification_are_refused(tmp_path):
    path = write_tiny_model(tmp_path / "tiny.onnx")
    proto = onnx.load(path)
    document = {**json.loads(proto.metadata_props[0].value), "features": None}
    onnx.helper.set_model_props(proto, {METADATA_KEY: json.dumps(document)})
    onnx.save(proto, path)
    with pytest.raises(ModelError, match="'features' is there"):
        open_model(path)
    kept = [value for value in proto.graph.output if value.name != "features"]
    del proto.graph.output[:]
    proto.graph.output.extend(kept)
    onnx.save(proto, path)
    assert not open_model(path).spec.has_maps
