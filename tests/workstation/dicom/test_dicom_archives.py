"""The exported objects pass dciodvfy, DCMTK reads them, and archives give them back as they took them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dicom_archives import dump, fetch_all, orthanc, put, send, store_scp, validate
from export_samples import export, make_reading, make_result
from red_model import write_exam
from video_samples import recording as real_recording

from capsule_edge.runtime.phantom import DEMO_SEED, Phantom, write_recording

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")

# Warnings of dciodvfy that are no faults, each with its reason.
ALLOWED = {
    # A private scheme is named by its own designator, which begins with 99 (PS3.16, 8.2).
    "Warning - Unrecognized defined term <99CAPSULEEDGE> for value 1 of attribute <Coding Scheme Designator>",
    # Type 2 attributes of the study that the examination does not say. A DICOMDIR may make up its own.
    "Warning - Missing attribute or value that would be needed to build DICOMDIR - Study Time",
    "Warning - Missing attribute or value that would be needed to build DICOMDIR - Study ID",
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that a reading of a rendered recording becomes: report, PDF, key images, selection, video."""
    folder = tmp_path_factory.mktemp("archives")
    recording = write_exam(folder / "exam.mp4")
    reading = make_reading(folder / "reading.json", make_result(folder / "result", recording))
    # A PDF of one empty page.
    pdf = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj\n%%EOF\n"
    export(reading, recording, folder / "out", report_pdf=lambda: pdf)
    return folder / "out"


def check_valid(folder: Path) -> None:
    files = sorted(folder.glob("*.dcm"))
    assert files
    assert {file.name: set(validate(file)) - ALLOWED for file in files} == {
        file.name: set() for file in files
    }


def test_every_object_of_a_reading_is_valid(exported: Path) -> None:
    check_valid(exported)
    kinds = {file.name.rstrip("0123456789.dcm").rstrip("-") for file in exported.glob("*.dcm")}
    assert len(kinds) >= 5


@pytest.mark.parametrize("name", ["ad91cf7ca91440aa", "2fc3db471f9d44c0", "39960e5e099a45ca"])
def test_every_object_of_a_shared_recording_is_valid(name: str, tmp_path: Path) -> None:
    recording = real_recording(name)
    exported = export(make_result(tmp_path / "result", recording, "small"), recording, tmp_path / "out")
    assert "video" in exported.files
    check_valid(tmp_path / "out")


@pytest.mark.parametrize("frames", [60, pytest.param(600, marks=pytest.mark.fuzz)])
def test_every_object_of_the_demo_is_valid(frames: int, tmp_path: Path) -> None:
    recording = tmp_path / "demo.mp4"
    write_recording(recording, Phantom(seed=DEMO_SEED, frames=frames))
    export(make_result(tmp_path / "result", recording, "small"), recording, tmp_path / "out")
    check_valid(tmp_path / "out")


def test_dcmtk_reads_every_object(exported: Path) -> None:
    for file in exported.glob("*.dcm"):
        assert "SOPInstanceUID" in dump("dcmdump", file)
    (report,) = (file for file in exported.glob("report-*.dcm") if "pdf" not in file.name)
    text = dump("dsrdump", report)
    for line in ("Comprehensive 3D SR Document", "PRELIMINARY", "UNVERIFIED", '"Imaging Measurements"'):
        assert line in text
    assert "(F0003,99CAPSULEEDGE," in text


def check_same(file: Path, given_back: Any) -> None:
    """Assert that an object came back with the same data set and the same bytes of pixel data."""
    given = pydicom.dcmread(file)
    back = pydicom.dcmread(given_back)
    # The file meta information is the receiver's own; only the transfer syntax must be the same.
    assert back.file_meta.TransferSyntaxUID == given.file_meta.TransferSyntaxUID
    pixels = [each.pop(0x7FE00010, None) for each in (given, back)]
    assert given == back
    assert (pixels[0] is None) == (pixels[1] is None)
    if pixels[0] is not None:
        assert pixels[0].value == pixels[1].value


def test_storescp_takes_every_object_and_keeps_it(exported: Path, tmp_path: Path) -> None:
    received = tmp_path / "received"
    received.mkdir()
    files = sorted(exported.glob("*.dcm"))
    with store_scp(received) as port:
        send(port, files)
    kept = {
        str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID): file
        for file in received.iterdir()
    }
    assert len(kept) == len(files)
    for file in files:
        check_same(file, kept[str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID)])


def test_orthanc_takes_every_object_and_gives_it_back(exported: Path, tmp_path: Path) -> None:
    from io import BytesIO

    files = sorted(exported.glob("*.dcm"))
    with orthanc(tmp_path / "orthanc") as (port, address):
        send(port, files[:-1])
        put(address, files[-1])
        held = fetch_all(address)
    assert len(held) == len(files)
    for file in files:
        uid = str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID)
        check_same(file, BytesIO(held[uid]))
