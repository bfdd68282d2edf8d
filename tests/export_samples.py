"""Result folders and readings of small recordings, and whose they are, for the tests of the DICOM export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dicom_samples import CANARIES
from red_model import write_red_model

from capsule_edge.runtime import Reader
from capsule_edge.runtime.results import prepare_folder, write_study
from capsule_edge.workstation.dicom import Examination, read_findings

PATIENT: dict[str, Any] = {
    "patient_name": CANARIES["PatientName"],
    "patient_id": CANARIES["PatientID"],
    "birth_date": "1937-02-03",
    "sex": "F",
    "accession_number": CANARIES["AccessionNumber"],
    "procedure_date": "2026-03-04",
    "referring_physician": "Kanarienwirt^Über",
    "description": "Canary study",
}
SECRETS = (*CANARIES.values(), "Kanarien", "CANARY", "1937-02-03", "Kanarienwirt", "20260304", "2026-03-04")
# It comes up by chance in long numbers, such as those of UIDs.
BIRTH_YEAR = "1937"


def examination(**changes: Any) -> Examination:
    """Return the examination of ``PATIENT``."""
    known = {**PATIENT, "birth_date": "19370203", "procedure_date": "20260304", **changes}
    return Examination(**known)


def write_patient(path: Path, **changes: Any) -> Path:
    """Write the file of --patient; a field that is None is left out."""
    known = {name: value for name, value in {**PATIENT, **changes}.items() if value is not None}
    path.write_text(json.dumps(known), "utf-8")
    return path


def make_result(folder: Path, recording: Path, model: Path | str | None = None, **options: Any) -> Path:
    """Read a recording, by default with the red model, and return the result folder."""
    model = write_red_model(folder.parent / "red.onnx") if model is None else model
    with Reader.open(model) as reader:
        study = reader.read(recording, **options)
    write_study(study, prepare_folder(folder, overwrite=True), timing={})
    return folder


def make_reading(path: Path, result: Path, **changes: Any) -> Path:
    """Write a reading of a result (capsule-edge/reading/1): the first suggestion confirmed, one finding added."""
    study = json.loads((result / "study.json").read_text())
    source, model = study["source"], study["model"]

    def place(index: int, segment: str | None = None) -> dict[str, Any]:
        return {
            "index": index,
            "time_s": index / 2,
            "exam_time_s": None,
            "segment": segment,
            "segment_share": None,
        }

    events = {each["id"]: each for each in study["events"]}
    suggestions = [
        {
            "id": each["id"],
            "label": each["label"],
            "name": each["label"].capitalize(),
            "score": each["score"],
            "precision": each["precision"],
            "start_index": events[each["events"][0]]["start_index"],
            "end_index": events[each["events"][0]]["end_index"] + 1,
            "key": place(events[each["events"][0]]["peak_index"], "small-bowel"),
            "verdict": "confirmed" if number == 0 else "rejected",
            "decided_label": None,
            "comment": "seen twice",
            "seconds": 4.0,
            "decided_at": "2026-03-05T10:11:12.000000Z",
        }
        for number, each in enumerate(study["suggestions"])
    ]
    added = {
        "id": "0123456789abcdef0123456789abcdef",
        "label": "polyp",
        "name": "Polyp",
        "start_index": 40,
        "end_index": 42,
        "key": place(41),
        "comment": "",
        "seconds": 9.0,
        "decided_at": "2026-03-05T10:12:12.000000Z",
    }
    document = {
        "schema": "capsule-edge/reading/1",
        "tool": study["tool"],
        "intended_use": study["intended_use"],
        "status": "preliminary, not signed",
        "examination": {
            "patient_name": "Kanarienvogel, Gelb",
            "patient_id": PATIENT["patient_id"],
            "birth_date": "1937-02-03",
            "accession_number": PATIENT["accession_number"],
            "procedure_date": "2026-03-04",
            "indication": "Canary anaemia",
            "preparation": "",
        },
        "recording": {"title": "a", "sha256": source["sha256"], "frames": 60},
        "model": {**model, "tool_version": study["tool"]["version"]},
        "reading": {
            "id": "fedcba9876543210fedcba9876543210",
            "study_id": "a",
            "result_id": "b",
            "reader": "Dr Kanarienfreund",
            "way": "everything",
            "pass": "first",
            "state": "finished",
            "opened_at": "2026-03-05T10:00:00.000000Z",
            "finished_at": "2026-03-05T10:20:00.000000Z",
            "seconds": 100.0,
        },
        "suggestions": suggestions,
        "findings": [added],
        **changes,
    }
    path.write_text(json.dumps(document), "utf-8")
    return path


def export(result: Path, recording: Path, out: Path, **options: Any) -> Any:
    """Export a result or a reading for ``PATIENT``."""
    from capsule_edge.workstation.dicom import export_findings

    given = options.pop("given", [("the file of --patient", examination())])
    return export_findings(read_findings(result), recording, out, given=given, **options)


def objects(out: Path, kind: str) -> list[Any]:
    """Return the objects of a kind ("report", "key-image", "selection", "video") that a folder holds."""
    pydicom = pytest.importorskip("pydicom")
    files = sorted(out.glob(f"{kind}-*.dcm"))
    return [pydicom.dcmread(file) for file in files if kind != "report" or "pdf" not in file.name]


def content(item: Any, concept: str) -> list[Any]:
    """Return the content items of a report whose concept has this code, at any depth."""
    found = []
    for each in item.get("ContentSequence", ()):
        names = each.get("ConceptNameCodeSequence")
        if names and names[0].CodeValue == concept:
            found.append(each)
        found += content(each, concept)
    return found
