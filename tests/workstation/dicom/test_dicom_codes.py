"""Codes of findings: stable ones of our own, and a map of the user's, whose licence must be stated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dicom_archives import validate
from export_samples import content, export, make_reading, make_result, objects
from red_model import write_exam

from capsule_edge.runtime import Reader
from capsule_edge.runtime.errors import InputError
from capsule_edge.workstation.dicom.codes import _LABELS, CONCEPTS, label_code, read_code_map

pytest.importorskip("pydicom")
pytest.importorskip("highdicom")

MAP = {"value": "12345-6", "scheme": "99LOCAL", "meaning": "Local bleeding"}


def write_map(path: Path, **document: Any) -> Path:
    path.write_text(json.dumps(document), "utf-8")
    return path


@pytest.mark.quick
def test_codes_are_unique_and_fit_their_elements() -> None:
    codes = [*_LABELS.values(), *CONCEPTS.values(), label_code("any other", "Any other")]
    assert len({code.value for code in codes}) == len(codes)
    assert all(len(code.value) <= 16 and len(code.scheme) <= 16 and len(code.meaning) <= 64 for code in codes)


def test_every_label_of_the_shipped_models_has_a_code() -> None:
    for name in ("standard", "small"):
        with Reader.open(name) as reader:
            assert {label.key for label in reader.spec.labels} <= set(_LABELS)


def test_a_label_of_another_model_has_a_code_that_stays() -> None:
    assert label_code("villous atrophy", "Villous atrophy").value == label_code("villous atrophy", "").value
    assert label_code("villous atrophy", "x" * 64).meaning == "x" * 64
    assert label_code("villous atrophy", "x" * 65).meaning == "x" * 61 + "..."
    assert label_code("a", "").value != label_code("b", "").value


@pytest.mark.parametrize("words", ["back\\slash", "two\nlines", "\x1b[0m bell\x07", "\\"])
def test_words_that_an_element_cannot_hold_stay_one_value(words: str, tmp_path: Path) -> None:
    recording = write_exam(tmp_path / "exam.mp4")
    reading = make_reading(tmp_path / "reading.json", make_result(tmp_path / "result", recording))
    document = json.loads(reading.read_text())
    document["findings"][0].update(label=f"other: {words}", name=words)
    reading.write_text(json.dumps(document))
    export(reading, recording, tmp_path / "out")
    (report,) = objects(tmp_path / "out", "report")
    meaning = content(report, "121071")[-1].ConceptCodeSequence[0].CodeMeaning
    assert isinstance(meaning, str)
    assert meaning
    assert meaning.isprintable()
    (file,) = (tmp_path / "out").glob("report-*.dcm")
    assert [line for line in validate(file) if line.startswith("Error")] == []


def test_a_map_of_codes_names_the_findings_and_its_licence(tmp_path: Path) -> None:
    recording = write_exam(tmp_path / "exam.mp4")
    codes = read_code_map(
        write_map(tmp_path / "map.json", licence="Local licence 7", codes={"bleeding": MAP})
    )
    result = make_result(tmp_path / "result", recording)
    export(result, recording, tmp_path / "out", codes=codes)
    (report,) = objects(tmp_path / "out", "report")
    (finding,) = content(report, "121071")
    code = finding.ConceptCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning) == tuple(MAP.values())
    (own,) = content(report, "E0006")
    assert own.ConceptCodeSequence[0].CodeValue == "F0003"
    assert any("Licence: Local licence 7" in each.TextValue for each in content(report, "121106"))
    # Another map is another version of the report.
    export(result, recording, tmp_path / "out")
    assert len(objects(tmp_path / "out", "report")) == 2


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"codes": {"bleeding": MAP}}, "states no licence"),
        ({"licence": " ", "codes": {"bleeding": MAP}}, "states no licence"),
        ({"licence": "x"}, 'has no object "codes"'),
        ({"licence": "x", "codes": {"bleeding": {**MAP, "value": "1" * 17}}}, "a value for 'bleeding'"),
        ({"licence": "x", "codes": {"bleeding": {**MAP, "meaning": "a\\b"}}}, "a meaning for 'bleeding'"),
        ({"licence": "x", "codes": {"bleeding": 5}}, "a value for 'bleeding'"),
    ],
)
def test_a_map_that_dicom_cannot_carry_is_refused(
    document: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says):
        read_code_map(write_map(tmp_path / "map.json", **document))
