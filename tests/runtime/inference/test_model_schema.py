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
        "weights": {
            "intercept": -1.5,
            "measures": {
                "mean": 0.5,
                "peak": 0.25,
                "frames": 0.0,
                "top_share": 1.0,
                "margin": 0.1,
                "abnormal": -0.2,
            },
            "labels": {"normal": 0.25},
        },
        "grouping": {"overlap": 0.5, "within_s": 60.0, "distance": 0.5},
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


def test_weights_and_grouping_may_be_absent_or_null() -> None:
    for given in ({}, {"weights": None, "grouping": None}):
        document = full()
        for key in ("weights", "grouping"):
            del document["suggestions"][key]
        without = copy.deepcopy(document)
        document["suggestions"] |= given
        validate(document, "model")
        spec = ModelSpec.from_json(json.dumps(document))
        assert spec.suggestions.weights is None
        assert json.loads(spec.to_json()) == without


def test_the_precision_of_a_score_is_that_of_the_last_entry_below_it() -> None:
    document = full()
    document["suggestions"]["precision"] = [
        {"score": score, "estimate": score, "low": 0.0, "high": 1.0, "n": 5} for score in (0.25, 0.5)
    ]
    found = ModelSpec.from_json(json.dumps(document)).suggestions
    assert [entry and entry.score for entry in map(found.at, (0.0, 0.25, 0.499999, 0.5, 1.0))] == [
        None,
        0.25,
        0.25,
        0.5,
        0.5,
    ]


def test_thresholds_by_hand_take_the_precision_away_and_keep_the_weights() -> None:
    spec = ModelSpec.from_json(json.dumps(full()))
    changed = spec.with_rules({"polyp": 0.9}).suggestions
    assert changed == replace(spec.suggestions, precision=())


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


def test_the_text_in_the_shipped_model_is_what_its_spec_writes() -> None:
    import onnxruntime

    path = default_model()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    text = session.get_modelmeta().custom_metadata_map["capsule_edge"]
    model = open_model(path)
    assert (model.spec.schema, model.spec.input.preprocessing) == ("capsule-edge/model/2", 2)
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
        (
            ("suggestions", "precision"),
            [RECORDS["suggestions"]["precision"][0]] * 2,
            "rising scores are needed",
        ),
        (("suggestions", "weights"), [], r"suggestions.weights is \[\], a JSON object"),
        (("suggestions", "weights", "bias"), 1, "weights has 'bias', allowed is one of intercept"),
        (("suggestions", "weights", "intercept"), "high", r"weights.intercept is \['high'\]"),
        (("suggestions", "weights", "intercept"), 1e300, "number 1e\\+300, allowed is up to 1e\\+06"),
        (
            ("suggestions", "weights", "measures", "colour"),
            1,
            "measures has 'colour', allowed is one of mean",
        ),
        (("suggestions", "weights", "measures", "mean"), True, r"measures.mean is \[True\]"),
        (("suggestions", "weights", "labels", "tapeworm"), 1, "labels has 'tapeworm', allowed is one of"),
        (("suggestions", "grouping", "overlap"), 0, "overlap 0, within_s 60 and distance 0.5, allowed"),
        (("suggestions", "grouping", "within_s"), -1, "within_s -1"),
        (("suggestions", "grouping", "minutes"), 1, "grouping has 'minutes'"),
        (("provenance",), {"fitted_recordings": ["abc"]}, "fitted_recordings is .*64 hexadecimal digits"),
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
