"""Anonymised exports: no patient field is found in any object or line, and pixels outside the field are black."""

from __future__ import annotations

import json
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from dicom_archives import validate
from dicom_samples import CANARIES, wrap_video
from export_samples import (
    BIRTH_YEAR,
    SECRETS,
    content,
    export,
    make_reading,
    make_result,
    objects,
    write_patient,
)
from red_model import CENTRE, HEIGHT, RADIUS, WIDTH, view, write_exam

from capsule_edge.runtime.errors import InputError
from capsule_edge.workstation.dicom import open_anonymiser, read_code_map
from capsule_edge.workstation.dicom.codes import label_code
from capsule_edge.workstation.dicom.field_mask import FieldMask, UnknownField, mask_of_pictures

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
pytest.importorskip("dicomanonymizer")


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("exam")
    recording = write_exam(folder / "exam.mp4")
    return recording, make_result(folder / "result", recording)


def check_silent(folder: Path) -> None:
    """Assert that no patient field stands in any file of a folder, nor in its name, as text of any common encoding."""
    for file in folder.rglob("*"):
        data = file.read_bytes() if file.is_file() else b""
        assert BIRTH_YEAR.encode() not in re.sub(rb"\d+(\.\d+){4,}|\d{9,}", b"", data), file.name
        for secret in SECRETS:
            assert secret not in str(file.relative_to(folder))
            for encoding in ("utf-8", "utf-16-le", "utf-16-be", "gb18030"):
                assert secret.encode(encoding) not in data, (file.name, secret)


@pytest.mark.quick
@pytest.mark.parametrize("kind", ["result", "reading", "dicom"])
def test_no_patient_field_is_found_after_anonymising(
    kind: str, exam: tuple[Path, Path], call: Callable, tmp_path: Path
) -> None:
    recording, result = exam
    findings = result
    patient: tuple[object, ...] = ("--patient", write_patient(tmp_path / "patient.json"))
    if kind == "reading":
        findings = make_reading(tmp_path / "reading.json", result)
    if kind == "dicom":
        form = {"Rows": HEIGHT, "Columns": WIDTH, "NumberOfFrames": 60, "StudyDate": "20260304"}
        recording = wrap_video(tmp_path / "exam.dcm", recording, **form)
        findings, patient = make_result(tmp_path / "result", recording), ()
    out, secret = tmp_path / "out", tmp_path / "secret"
    options = ("--recording", recording, *patient, "--out", out, "--anonymise", secret)
    called = call("export-dicom", findings, *options)
    assert called.code == 0, called.err
    assert called.err == ""
    assert not any(each in called.out for each in (*SECRETS, *CANARIES.values()))
    check_silent(out)
    assert not list(out.glob("video-*"))
    assert not list(out.glob("report-pdf-*"))
    assert "the video: its pictures cannot be blanked" in called.out
    assert "cannot know what is burnt in" in called.out
    for each in (*objects(out, "report"), *objects(out, "key-image"), *objects(out, "selection")):
        assert (each.PatientIdentityRemoved, each.PatientSex, each.PatientBirthDate) == ("YES", "", "")
        assert each.PatientID == each.PatientName
        assert each.AccessionNumber == ""
        assert each.StudyDate < "20250305"
        if kind == "dicom":
            assert each.StudyInstanceUID != pydicom.dcmread(recording).StudyInstanceUID
    again = call("export-dicom", findings, *options, "--json")
    assert json.loads(again.out)["written"] == []


def test_no_word_of_the_reader_or_of_a_licence_is_found_after_anonymising(
    exam: tuple[Path, Path], tmp_path: Path
) -> None:
    recording, result = exam
    words = "other: CANARY\\diverticulum"
    reading = make_reading(tmp_path / "reading.json", result)
    document = json.loads(reading.read_text())
    document["findings"][0].update(label=words, name="CANARY\\diverticulum", comment="CANARY comment")
    document["suggestions"][0].update(
        verdict="relabelled", decided_label={"label": "other: Kanarienfleck", "name": "Kanarienfleck"}
    )
    reading.write_text(json.dumps(document))
    code = {"value": "1", "scheme": "99LOCAL", "meaning": "CANARY meaning"}
    terms = {"licence": "Licence of the CANARY hospital", "codes": {words: code, "polyp": code}}
    (tmp_path / "codes.json").write_text(json.dumps(terms))
    codes = read_code_map(tmp_path / "codes.json")
    export(reading, recording, tmp_path / "out", codes=codes, anonymiser=open_anonymiser(tmp_path / "secret"))
    check_silent(tmp_path / "out")
    (report,) = objects(tmp_path / "out", "report")
    data = b"".join(file.read_bytes() for file in (tmp_path / "out").iterdir())
    # Neither is a hash there that tells a guess from another.
    for guess in (words, "other: Kanarienfleck"):
        assert label_code(guess, "").value.encode() not in data
    assert codes.sha256.encode() not in data
    assert document["findings"][0]["id"].encode() not in data
    assert [each.ConceptCodeSequence[0].CodeValue for each in content(report, "121071")] == ["F0013"] * 2
    assert "Codes of findings by a map of the user." in [each.TextValue for each in content(report, "121106")]
    for file in (tmp_path / "out").glob("*.dcm"):
        assert [line for line in validate(file) if line.startswith("Error")] == []


def test_two_examinations_of_a_patient_stay_together_and_the_secret_parts_them_from_others(
    exam: tuple[Path, Path], tmp_path: Path
) -> None:
    recording, result = exam

    def anonymous(name: str, secret: str, **changes: Any) -> Any:
        from export_samples import examination

        given = [("the file", examination(**changes))]
        anonymiser = open_anonymiser(tmp_path / secret)
        export(result, recording, tmp_path / name, given=given, anonymiser=anonymiser)
        (report,) = objects(tmp_path / name, "report")
        return report

    first = anonymous("first", "secret")
    later = anonymous("later", "secret", procedure_date="20260314", accession_number="2")
    other = anonymous("other", "secret", patient_id="someone else")
    foreign = anonymous("foreign", "another secret")
    assert first.PatientID == later.PatientID
    assert len({first.PatientID, other.PatientID, foreign.PatientID}) == 3
    assert len({each.StudyInstanceUID for each in (first, later, other, foreign)}) == 4
    # Ten days lie between the examinations before and after.
    moved = [
        np.datetime64(f"{each.StudyDate[:4]}-{each.StudyDate[4:6]}-{each.StudyDate[6:]}")
        for each in (first, later)
    ]
    assert moved[1] - moved[0] == np.timedelta64(10, "D")


def test_the_objects_of_an_anonymised_export_are_valid(exam: tuple[Path, Path], tmp_path: Path) -> None:
    recording, result = exam
    export(result, recording, tmp_path / "out", anonymiser=open_anonymiser(tmp_path / "secret"))
    for file in (tmp_path / "out").glob("*.dcm"):
        assert [line for line in validate(file) if line.startswith("Error")] == []
    (report,) = objects(tmp_path / "out", "report")
    (image,) = objects(tmp_path / "out", "key-image")
    (group,) = content(report, "125007")
    (named,) = (each.ReferencedSOPSequence[0] for each in group.ContentSequence if each.ValueType == "IMAGE")
    assert named.ReferencedSOPInstanceUID == image.SOPInstanceUID


FIELD = (CENTRE[0] - RADIUS, CENTRE[1] - RADIUS, 2 * RADIUS + 1, 2 * RADIUS + 1)


@pytest.mark.quick
@pytest.mark.parametrize("box", [None, FIELD], ids=["no box", "box"])
def test_text_outside_the_field_of_view_is_blanked(box: tuple[int, int, int, int] | None) -> None:
    pictures = [view(index in (4, 5), index) for index in range(12)]
    for index, picture in enumerate(pictures):
        # One that changes, as a clock does.
        cv2.putText(picture, f"CAN {index:02d}", (2, HEIGHT - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255,) * 3)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    inside = (columns - CENTRE[0]) ** 2 + (rows - CENTRE[1]) ** 2 <= (RADIUS - 2) ** 2
    outside = (columns - CENTRE[0]) ** 2 + (rows - CENTRE[1]) ** 2 > (RADIUS + 2) ** 2
    mask = mask_of_pictures(pictures, box)
    assert isinstance(mask, FieldMask)
    for picture in pictures:
        assert picture[outside].any()
        blanked = mask.blank(picture)
        assert not blanked[outside].any()
        np.testing.assert_array_equal(blanked[inside], picture[inside])


def bright(index: int, height: int = 64, width: int = 64) -> np.ndarray:
    """Return a picture without a border whose every pixel changes from one to the next."""
    return np.full((height, width, 3), 60 + 50 * (index % 3), np.uint8)


def test_a_picture_without_a_border_stays_whole() -> None:
    mask = mask_of_pictures([bright(index) for index in range(12)], None)
    assert isinstance(mask, FieldMask)
    assert mask.inside.all()


def test_mucosa_in_bright_light_changes_although_it_is_always_red() -> None:
    pictures = [bright(index) for index in range(12)]
    for picture in pictures:
        picture[:, 20:, 0] = 230
    mask = mask_of_pictures(pictures, None)
    assert isinstance(mask, FieldMask)
    assert mask.inside.all()


@pytest.mark.parametrize("kind", ["beside", "over"])
def test_the_panel_of_a_viewer_is_blanked_and_the_picture_is_kept(kind: str) -> None:
    # A bright panel that stands still, larger than the picture beside it, or in one corner of it.
    pictures = []
    for index in range(12):
        screen = np.zeros((120, 200, 3), np.uint8)
        screen[10:110, 90:190] = bright(index, 100, 100)
        panel = screen[2:118, 2:86] if kind == "beside" else screen[10:40, 90:130]
        panel[:] = 200
        cv2.putText(panel, "CANARY", (2, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0))
        pictures.append(screen)
    mask = mask_of_pictures(pictures, None)
    assert isinstance(mask, FieldMask)
    blanked = mask.blank(pictures[3])
    assert not blanked[:, :88].any()
    np.testing.assert_array_equal(blanked[50:108, 100:188], pictures[3][50:108, 100:188])
    if kind == "over":
        assert not blanked[12:38, 92:128].any()


def still() -> list[np.ndarray]:
    return [np.full((64, 64, 3), 90, np.uint8)] * 12


def small_area() -> list[np.ndarray]:
    pictures = [np.full((90, 90, 3), 180, np.uint8) for _ in range(12)]
    for index, picture in enumerate(pictures):
        picture[30:60, 30:60] = bright(index, 30, 30)
    return pictures


def area_at_the_border() -> list[np.ndarray]:
    pictures = [np.full((90, 90, 3), 180, np.uint8) for _ in range(12)]
    for index, picture in enumerate(pictures):
        picture[:, :45] = bright(index, 90, 45)
    return pictures


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (still, "nothing in the pictures changes"),
        (lambda: still()[:1], "1 pictures are too few"),
        (lambda: [], "0 pictures are too few"),
        (small_area, "fills 11% of the field of view"),
        (area_at_the_border, "reaches the border of the picture and fills 50% of it"),
    ],
)
def test_an_area_that_may_be_no_field_of_view_is_not_taken(make: Callable, says: str) -> None:
    found = mask_of_pictures(make(), None)
    assert isinstance(found, UnknownField)
    assert says in found.reason


def test_without_a_known_field_of_view_there_are_no_key_images(call: Callable, tmp_path: Path) -> None:
    # A recording that stands still but for its red stretch.
    still_ones = {index: view(20 <= index < 32) for index in range(60)}
    recording = write_exam(tmp_path / "exam.mp4", instead=still_ones)
    result = make_result(tmp_path / "result", recording)
    patient = write_patient(tmp_path / "patient.json")
    options = ("--patient", patient, "--out", tmp_path / "out", "--anonymise", tmp_path / "secret")
    called = call("export-dicom", result, "--recording", recording, *options)
    assert called.code == 0, called.err
    assert "left out: the key images: " in called.out
    assert "black outside" not in called.out
    check_silent(tmp_path / "out")
    assert {file.name.partition("-")[0] for file in (tmp_path / "out").glob("*.dcm")} == {"report"}
    (report,) = objects(tmp_path / "out", "report")
    assert [each.ConceptCodeSequence[0].CodeValue for each in content(report, "121071")] == ["F0003"]
    (file,) = (tmp_path / "out").glob("*.dcm")
    assert [line for line in validate(file) if line.startswith("Error")] == []


def test_the_secret_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    first = open_anonymiser(path)
    assert open_anonymiser(path) == first
    assert open_anonymiser(tmp_path / "another") != first
    assert len(path.read_text().strip()) == 64
    assert first.secret.hex() not in repr(first)
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("no secret")
    with pytest.raises(InputError, match="holds no secret, needed are 64 hexadecimal digits"):
        open_anonymiser(path)


def test_without_the_library_the_anonymiser_says_what_to_install(
    exam: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from capsule_edge.runtime.errors import PackageError

    monkeypatch.setitem(sys.modules, "dicomanonymizer", None)
    recording, result = exam
    with pytest.raises(PackageError, match=r"anonymising DICOM needs dicomanonymizer"):
        export(result, recording, tmp_path / "out", anonymiser=open_anonymiser(tmp_path / "secret"))
    assert not list((tmp_path / "out").glob("*.dcm"))
