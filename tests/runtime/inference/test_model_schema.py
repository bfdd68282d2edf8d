"""The two versions of the model file's schema: both are read, and what version 1 lacks is None."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from importlib import resources
from typing import Any

import jsonschema
import numpy as np
import pytest
from tiny_model import tiny_spec

from capsule_edge.runtime.errors import ModelError
from capsule_edge.runtime.inference import APPEARANCE, HeldOutBy, ModelSpec, default_model, open_model

pytestmark = pytest.mark.quick

HISTOGRAM = {"edges": [0.0, 0.5, 1.0], "histogram": [3.0, 1.0], "n": 4}
REFERENCE = dict.fromkeys(("colour", "sharpness", "field_of_view", "label_shares", "scores"))
RECORDS: dict[str, Any] = {
    "familiarity": {
        "measure": "appearance",
        "threshold": 13.5,
        "parameters": {
            "statistics": list(APPEARANCE),
            "mean": [1.5] * len(APPEARANCE),
            "whitening": np.eye(len(APPEARANCE)).tolist(),
            "frozen_frames": 32,
            "frozen_levels": 0.2,
        },
    },
    "reference": {
        **REFERENCE,
        "sharpness": HISTOGRAM,
        "label_shares": {"edges": None, "histogram": [1, 2], "n": 3},
        "familiarity": None,
    },
    "suggestions": {
        "precision": [{"score": 0.5, "estimate": 0.8, "low": 0.6, "high": 0.9, "n": 20}],
        "n": 20,
        "measured_on": "4 recordings of train",
    },
    "held_out": {"by": "video"},
}


def validate(document: dict[str, Any], name: str) -> None:
    text = (resources.files("capsule_edge.runtime") / "schema" / f"{name}.schema.json").read_text("utf-8")
    jsonschema.validate(document, json.loads(text), jsonschema.Draft202012Validator)


def full() -> dict[str, Any]:
    document = json.loads(tiny_spec().to_json())
    return document | copy.deepcopy(RECORDS) | {"input": document["input"] | {"preprocessing": 1}}


def of_version_1() -> dict[str, Any]:
    document = full() | {"schema": "capsule-edge/model/1"}
    del document["input"]["preprocessing"]
    return {key: value for key, value in document.items() if key not in RECORDS}


def test_every_record_of_version_2_survives_reading_and_writing() -> None:
    validate(full(), "model")
    spec = ModelSpec.from_json(json.dumps(full()))
    assert json.loads(spec.to_json()) == full()
    assert spec.input.preprocessing == 1
    assert spec.held_out == HeldOutBy("video")
    assert spec.reference is not None
    assert spec.reference["sharpness"].edges == (0.0, 0.5, 1.0)
    assert spec.suggestions.precision[0].estimate == 0.8


def test_every_field_of_version_2_may_be_absent() -> None:
    document = full()
    for key in RECORDS:
        del document[key]
    del document["input"]["preprocessing"]
    validate(document, "model")
    assert ModelSpec.from_json(json.dumps(document)).held_out is None


def test_a_file_of_version_1_is_read_and_written_as_version_1() -> None:
    document = of_version_1()
    validate(document, "model-1")
    spec = ModelSpec.from_json(json.dumps(document))
    assert [getattr(spec, name) for name in RECORDS] == [None] * len(RECORDS)
    assert spec.input.preprocessing is None
    assert json.loads(spec.to_json()) == document
    with pytest.raises(jsonschema.ValidationError):
        validate(full(), "model-1")


def test_a_spec_of_version_1_that_gains_a_record_is_written_as_version_2() -> None:
    spec = replace(ModelSpec.from_json(json.dumps(of_version_1())), held_out=HeldOutBy("frame"))
    document = json.loads(spec.to_json())
    assert document["schema"] == "capsule-edge/model/2"
    validate(document, "model")


def test_the_shipped_model_is_of_version_1_and_its_text_is_unchanged() -> None:
    import onnxruntime

    path = default_model()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    text = session.get_modelmeta().custom_metadata_map["capsule_edge"]
    model = open_model(path)
    assert model.spec.schema == "capsule-edge/model/1"
    assert json.loads(model.spec.to_json()) == json.loads(text)
    model.close()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("schema",), "capsule-edge/model/3", "model/3'"),
        (("held_out",), "video", "held_out is 'video', a JSON object"),
        (("held_out", "by"), "hospital", "held_out.by is 'hospital'"),
        (("familiarity", "threshold"), "high", r"familiarity.threshold is \['high'\]"),
        (("familiarity", "threshold"), -1, "familiarity.threshold is -1.0, allowed is 0 or more"),
        (("familiarity", "measure"), "", "familiarity.measure is ''"),
        (("familiarity", "measure"), "energy", "measure is 'energy', this capsule-edge knows 'appearance'"),
        (("familiarity", "parameters"), None, "parameters is None, a JSON object"),
        (
            ("familiarity", "parameters", "statistics"),
            ["mean_red"],
            r"statistics are \['mean_red'\], needed are",
        ),
        (("familiarity", "parameters", "mean"), [1.5], r"parameters.mean has 1 numbers, 19 are needed"),
        (("familiarity", "parameters", "mean", 3), float("inf"), "Infinity is not a number of JSON"),
        (("familiarity", "parameters", "whitening"), [[1.0]], r"whitening is \[\[1.0\]\], a list of 19 rows"),
        (("familiarity", "parameters", "whitening", 2), [1.0], "parameters.whitening has 1 numbers"),
        (("familiarity", "parameters", "whitening", 2, 1), "0", "whitening is .* finite numbers are needed"),
        (
            ("familiarity", "parameters", "frozen_frames"),
            1,
            "frozen_frames is 1, a whole number of 2 or more",
        ),
        (("familiarity", "parameters", "frozen_levels"), -0.5, "frozen_levels is -0.5, allowed is 0 or more"),
        (("reference", "smell"), None, "measure 'smell'"),
        (("reference", "sharpness", "edges"), [0, 0, 1], "3 rising numbers"),
        (("reference", "sharpness", "histogram"), [-1, 2], "0 or more"),
        (("reference", "sharpness", "n"), 1.5, "sharpness.n is 1.5"),
        (("suggestions", "precision"), {}, "precision is {}"),
        (("suggestions", "precision", 0, "high"), 1.5, "allowed is 0 to 1"),
        (("input", "preprocessing"), 3, "version 3, this capsule-edge has version 1 and 2"),
        (("input", "preprocessing"), True, "preprocessing is True"),
    ],
)
def test_a_record_that_does_not_fit_is_named(path: tuple[Any, ...], value: Any, message: str) -> None:
    document = full()
    place: Any = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ModelError, match=message):
        ModelSpec.from_json(json.dumps(document))
