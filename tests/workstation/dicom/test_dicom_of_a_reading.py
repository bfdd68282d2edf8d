"""A reading of the workstation, exported by its own route, becomes DICOM objects."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
pytest.importorskip("httpx2", reason="httpx2 is not installed")

from dicom_archives import validate
from export_samples import PATIENT, content, objects
from read_station import STUDY, ReadStation, read_exam, read_station

from capsule_edge.runtime.errors import PackageError
from capsule_edge.workstation.dicom import make_reading_pdf, read_findings

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")

BANNER = {
    "patient_name": "Kanarienvogel, Gelb",
    "patient_id": PATIENT["patient_id"],
    "accession_number": PATIENT["accession_number"],
    "procedure_date": "2026-03-04",
}


@pytest.fixture
def station(tmp_path: Path, exam: Path, red_model: Path) -> Iterator[ReadStation]:
    with read_station(tmp_path / "home", read_exam(exam, red_model, tmp_path / "result")) as running:
        yield running


def read(station: ReadStation, path: Path) -> Path:
    """Confirm a suggestion, add a finding, and write the reading's document."""
    station.send(
        "PATCH", f"studies/{STUDY}/examination", json={"reader": "Dr. Reader", "version": 0, **BANNER}
    )
    reading = station.open()["id"]
    station.decide(reading, "suggestion:1", verdict="confirmed", comment="", seconds=1)
    body = {"label": "polyp", "start_index": 40, "end_index": 42}
    station.send("POST", f"readings/{reading}/findings", 201, json=body)
    path.write_text(json.dumps(station.get(f"readings/{reading}/reading.json")), "utf-8")
    return path


def pdf_is_possible(path: Path, exam: Path) -> bool:
    write = make_reading_pdf(read_findings(path), exam)
    assert write is not None
    try:
        return write().startswith(b"%PDF-")
    except PackageError:
        return False


@pytest.mark.skipif(importlib.util.find_spec("weasyprint") is None, reason="WeasyPrint is not installed")
def test_a_reading_of_the_workstation_becomes_objects(
    station: ReadStation, call: Callable, exam: Path, tmp_path: Path
) -> None:
    reading = read(station, tmp_path / "reading.json")
    options = ("--recording", exam, "--out", tmp_path / "out", "--json")
    # Whose it is, the banner of the reading says.
    called = call("export-dicom", reading, *options)
    assert called.code == 0, called.err
    told: dict[str, Any] = json.loads(called.out)
    possible = pdf_is_possible(reading, exam)
    assert ("pdf" in told["files"]) == possible
    assert len(told["left_out"]) == (0 if possible else 1)
    (report,) = objects(tmp_path / "out", "report")
    assert (str(report.PatientName), report.PatientID) == ("Kanarienvogel^Gelb", PATIENT["patient_id"])
    assert [each.ConceptCodeSequence[0].CodeValue for each in content(report, "121071")] == ["F0003", "F0008"]
    assert [str(each.PersonName) for each in content(report, "121008")] == ["Dr. Reader^"]
    for file in (tmp_path / "out").glob("*.dcm"):
        assert [line for line in validate(file) if line.startswith("Error")] == []
    assert json.loads(call("export-dicom", reading, *options).out)["written"] == []
