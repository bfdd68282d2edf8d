"""The DICOM export: the frames that it names are the frames shown, it says the same twice, and it knows whose it is."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import damage
import numpy as np
import pytest
from dicom_archives import validate
from dicom_samples import CANARIES, wrap_video, write_directory, write_pictures
from export_samples import (
    PATIENT,
    content,
    examination,
    export,
    make_reading,
    make_result,
    objects,
    write_patient,
)
from red_model import HEIGHT, WIDTH, view, write_exam

from capsule_edge.runtime.errors import InputError, OutputError, PackageError
from capsule_edge.runtime.recording import Frame, fetch, hash_recording, scan
from capsule_edge.workstation.dicom import (
    Examination,
    merge_examinations,
    open_anonymiser,
    read_findings,
)
from capsule_edge.workstation.dicom.frame_numbers import count_pictures, number_frames
from capsule_edge.workstation.dicom.video_object import decimal, make_video_header, video_form

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")

FINDING = "121071"
JAPANESE_AND_LATIN = [(["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"), ("ISO_IR 100", "Müller^Zoë")]


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recording with two red stretches, and its result folder."""
    folder = tmp_path_factory.mktemp("exam")
    recording = write_exam(folder / "exam.mp4", frames=340, fps=1, red=[*range(10, 16), *range(325, 333)])
    # More than five minutes lie between the stretches, so they are two suggestions.
    return recording, make_result(folder / "result", recording)


def trimmed(path: Path, first: int) -> Path:
    """Write an MP4 with B-frames whose edit list discards its first frames, which are decoded all the same."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream("libx264", rate=2, options={"threads": "1", "bf": "2", "crf": "18"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = 12
        stream.codec_context.time_base = Fraction(1, 2)
        for index in range(60):
            frame = av.VideoFrame.from_ndarray(view(index in range(20, 26), index), format="rgb24")
            # FFmpeg's muxer writes an edit list that begins at 0 for a stream that begins before.
            frame.pts, frame.time_base = index - first, Fraction(1, 2)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def stream_of(video: Any) -> bytes:
    """Return the bit stream inside a video object."""
    return next(pydicom.encaps.generate_frames(bytes(video.PixelData), number_of_frames=1))


def decoded(stream: bytes, path: Path) -> list[np.ndarray]:
    """Return all pictures of a bit stream in presentation order, as a viewer shows them that ignores edit lists."""
    path.write_bytes(stream)
    with av.open(str(path), options={}, container_options={"ignore_editlist": "1"}) as source:
        # By the product's own conversion to RGB: others differ at the edges of colours.
        return [Frame(index, image).rgb() for index, image in enumerate(source.decode(video=0))]


@pytest.mark.quick
def test_the_export_holds_report_key_images_selection_and_video(
    exam: tuple[Path, Path], tmp_path: Path
) -> None:
    recording, result = exam
    exported = export(result, recording, tmp_path / "out")
    assert {kind: len(names) for kind, names in exported.files.items()} == {
        "video": 1,
        "key_image": 2,
        "report": 1,
        "selection": 1,
    }
    assert exported.left_out == []
    (report,) = objects(tmp_path / "out", "report")
    (video,) = objects(tmp_path / "out", "video")
    (selection,) = objects(tmp_path / "out", "selection")
    images = objects(tmp_path / "out", "key-image")
    for each in (report, video, selection, *images):
        assert (each.StudyInstanceUID, each.PatientID) == (report.StudyInstanceUID, PATIENT["patient_id"])
        assert str(each.PatientName) == PATIENT["patient_name"]
        assert str(each.ReferringPhysicianName) == PATIENT["referring_physician"]
        assert "Laterality" not in each
    assert (report.PreliminaryFlag, report.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
    assert [each.ConceptCodeSequence[0].CodeValue for each in content(report, FINDING)] == ["F0003", "F0003"]
    study = json.loads((result / "study.json").read_text())
    scores = [float(each.MeasuredValueSequence[0].NumericValue) for each in content(report, "M0001")]
    assert scores == pytest.approx([each["score"] for each in study["suggestions"]])
    parameters = {each.TextValue for each in content(report, "111002")}
    assert f"model SHA-256 {study['model']['sha256']}" in parameters
    chosen = {
        each.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for each in selection.ContentSequence
        if each.ValueType == "IMAGE"
    }
    assert chosen == {each.SOPInstanceUID for each in images}
    assert stream_of(video)[: recording.stat().st_size] == recording.read_bytes()
    # What was written is read again like the recording itself.
    (file,) = (tmp_path / "out").glob("video-*.dcm")
    again = scan(file)
    assert (again.stream_digest(), again.warnings) == (hash_recording(recording), ())
    assert list(again.times_s) == list(scan(recording).times_s)


@pytest.mark.parametrize("kind", ["plain", "edit list"])
def test_the_frames_of_the_report_are_the_frames_shown(
    kind: str, exam: tuple[Path, Path], tmp_path: Path
) -> None:
    recording, result = exam
    if kind == "edit list":
        recording = trimmed(tmp_path / "trimmed.mp4", 7)
        result = make_result(tmp_path / "result", recording)
    container = scan(recording)
    assert (container.edited_out > 0) == (kind == "edit list")
    export(result, recording, tmp_path / "out")
    (report,) = objects(tmp_path / "out", "report")
    (video,) = objects(tmp_path / "out", "video")
    images = {each.SOPInstanceUID: each for each in objects(tmp_path / "out", "key-image")}
    pictures = decoded(stream_of(video), tmp_path / "stream.mp4")
    assert len(pictures) == video.NumberOfFrames == container.present + container.edited_out
    groups = content(report, "125007")
    assert groups
    for group in groups:
        sources = [
            each.ReferencedSOPSequence[0] for each in group.ContentSequence if each.ValueType == "IMAGE"
        ]
        image = images[sources[0].ReferencedSOPInstanceUID]
        assert sources[1].ReferencedSOPInstanceUID == video.SOPInstanceUID
        number = int(sources[1].ReferencedFrameNumber)
        np.testing.assert_array_equal(image.pixel_array, pictures[number - 1])
        assert image.SourceImageSequence[0].ReferencedFrameNumber == number
        assert {float(each.MeasuredValueSequence[0].NumericValue) for each in content(group, "M0009")} == {
            number
        }


def test_the_pixels_of_a_key_image_are_the_pixels_judged(exam: tuple[Path, Path], tmp_path: Path) -> None:
    recording, result = exam
    export(result, recording, tmp_path / "out")
    wanted = [each.key_index for each in read_findings(result).findings]
    judged = {frame.index: frame.rgb() for frame in fetch(scan(recording), wanted)}
    for image in objects(tmp_path / "out", "key-image"):
        np.testing.assert_array_equal(image.pixel_array, judged[image.InstanceNumber - 1])


def two_streams(path: Path, *parts: Path) -> Path:
    """Write the videos as streams of one file."""
    with av.open(str(path), "w") as out:
        opened = [av.open(str(part)) for part in parts]
        copies = [out.add_stream_from_template(each.streams.video[0]) for each in opened]
        for source, copy in zip(opened, copies, strict=True):
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = copy
                    out.mux(packet)
            source.close()
    return path


@pytest.mark.parametrize("name", ["two.mkv", "two.mp4"])
def test_the_key_images_are_those_of_the_stream_that_was_read(name: str, tmp_path: Path) -> None:
    whole = write_exam(tmp_path / "whole.mp4", red=range(20, 32))
    short = write_exam(tmp_path / "short.mp4", frames=50, red=range(36, 44))
    recording = two_streams(tmp_path / name, whole, short)
    result = make_result(tmp_path / "result", recording, stream=1)
    document = read_findings(result)
    assert document.stream == 1
    export(result, recording, tmp_path / "out")
    (image,) = objects(tmp_path / "out", "key-image")
    (index,) = (each.key_index for each in document.findings)
    (judged,) = fetch(scan(short), [index])
    np.testing.assert_array_equal(image.pixel_array, judged.rgb())
    # The other stream has other objects.
    export(make_result(tmp_path / "other", recording), recording, tmp_path / "out")
    images = objects(tmp_path / "out", "key-image")
    assert len({each.SeriesInstanceUID for each in images}) == len(images) == 2


def test_a_result_and_a_reading_of_one_recording_share_their_pictures(
    exam: tuple[Path, Path], tmp_path: Path
) -> None:
    recording, result = exam
    out = tmp_path / "out"
    reading = make_reading(tmp_path / "reading.json", result)
    export(result, recording, out)
    exported = export(reading, recording, out)
    # The video and a key image are there already.
    assert not [name for name in exported.written if name.startswith("video")]
    series: dict[str, set[str]] = {}
    for kind in ("video", "key-image", "report", "selection"):
        for each in objects(out, kind):
            series.setdefault(str(each.SOPInstanceUID), set()).add(str(each.SeriesInstanceUID))
    assert all(len(names) == 1 for names in series.values())
    separate = tmp_path / "separate"
    export(reading, recording, separate)
    for kind in ("video", "key-image"):
        for each in objects(separate, kind):
            assert series[str(each.SOPInstanceUID)] == {str(each.SeriesInstanceUID)}
    assert {each.SeriesInstanceUID for each in objects(out, "report")} != {
        each.SeriesInstanceUID for each in objects(separate, "report")
    }


def test_missing_frames_have_no_number(tmp_path: Path) -> None:
    container = scan(trimmed(tmp_path / "trimmed.mp4", 7))
    numbers = number_frames(replace(container, announced=(container.announced or 0) + 2))
    assert numbers is not None
    assert numbers[: container.present] == list(
        range(container.edited_out + 1, count_pictures(container) + 1)
    )
    assert numbers[container.present :] == [None, None]


@pytest.mark.quick
def test_a_second_export_writes_nothing_new(exam: tuple[Path, Path], tmp_path: Path) -> None:
    recording, result = exam
    out = tmp_path / "out"
    export(result, recording, out)
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in out.glob("*.dcm")}
    assert export(result, recording, out).written == []
    assert {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in out.glob("*.dcm")} == before
    export(result, recording, tmp_path / "again")
    assert {file.name: file.read_bytes() for file in (tmp_path / "again").glob("*.dcm")} == {
        name: data for name, (data, _) in before.items()
    }


def test_a_changed_reading_becomes_a_new_version_of_the_report(
    exam: tuple[Path, Path], tmp_path: Path
) -> None:
    recording, result = exam
    out = tmp_path / "out"
    first = make_reading(tmp_path / "first.json", result)
    second = make_reading(tmp_path / "second.json", result, findings=[])
    third = make_reading(tmp_path / "third.json", result, findings=[], status="preliminary, not signed ")
    for reading in (first, second, third):
        assert export(reading, recording, out).files["report"]
    reports = objects(out, "report")
    before = {
        each.SOPInstanceUID: [
            item.ReferencedSOPInstanceUID
            for study in each.get("PredecessorDocumentsSequence", ())
            for series in study.ReferencedSeriesSequence
            for item in series.ReferencedSOPSequence
        ]
        for each in reports
    }
    assert len(reports) == 3
    assert len({each.SeriesInstanceUID for each in reports}) == 1
    # A chain: one has none before it, the others name one each.
    assert sorted(map(len, before.values())) == [0, 1, 1]
    assert len({name for names in before.values() for name in names}) == 2
    # Whichever version is exported again, nothing is new.
    for reading in (third, first, second):
        assert export(reading, recording, out).written == []


def test_a_reading_lists_what_its_reader_decided(exam: tuple[Path, Path], tmp_path: Path) -> None:
    recording, result = exam
    reading = make_reading(tmp_path / "reading.json", result)
    exported = export(reading, recording, tmp_path / "out", report_pdf=lambda: b"%PDF-1.7 odd.")
    assert exported.left_out == []
    (report,) = objects(tmp_path / "out", "report")
    assert [each.ConceptCodeSequence[0].CodeValue for each in content(report, FINDING)] == ["F0003", "F0008"]
    assert [each.ConceptCodeSequence[0].CodeValue for each in content(report, "E0001")] == ["E0003", "E0005"]
    assert [str(each.PersonName) for each in content(report, "121008")] == ["Dr Kanarienfreund^"]
    assert [each.ConceptCodeSequence[0].CodeMeaning for each in content(report, "363698007")] == [
        "Small intestine"
    ]
    remarks = " ".join(each.TextValue for each in content(report, "121106"))
    assert "1 suggestions were rejected or not decided" in remarks
    assert "Comment on suggestion 1: seen twice" in remarks
    (pdf,) = (pydicom.dcmread(file) for file in (tmp_path / "out").glob("report-pdf-*.dcm"))
    assert pdf.EncapsulatedDocument[: pdf.EncapsulatedDocumentLength] == b"%PDF-1.7 odd."
    # Without a program for PDF, and said.
    exported = export(reading, recording, tmp_path / "without")
    assert exported.left_out == ["the report as PDF: it needs the extra [serve]"]


def changed_reading(path: Path, result: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Write a reading of a result with a change in its document."""
    document = json.loads(make_reading(path, result).read_text())
    change(document)
    path.write_text(json.dumps(document), "utf-8")
    return path


def reject_all(document: dict[str, Any]) -> None:
    for each in document["suggestions"]:
        each.update(verdict="rejected", decided_label=None)
    document["findings"] = []


def decide_nothing(document: dict[str, Any]) -> None:
    reject_all(document)
    for each in document["suggestions"]:
        each.update(verdict="undecided", decided_at=None)


def hide_suggestions(document: dict[str, Any]) -> None:
    document.update(suggestions_hidden=True, suggestions=[], findings=[])


@pytest.mark.parametrize("change", [reject_all, decide_nothing, hide_suggestions])
def test_a_reading_without_findings_says_nothing_of_the_software(
    change: Callable, exam: tuple[Path, Path], tmp_path: Path
) -> None:
    recording, result = exam
    reading = changed_reading(tmp_path / "reading.json", result, change)
    export(reading, recording, tmp_path / "out")
    (report,) = objects(tmp_path / "out", "report")
    (finding,) = content(report, FINDING)
    assert finding.ConceptCodeSequence[0].CodeValue == "E0008"
    # Neither a review that nobody made, nor an algorithm that suggested nothing.
    assert content(report, "E0001") == content(report, "111001") == []
    (file,) = (tmp_path / "out").glob("report-*.dcm")
    assert [line for line in validate(file) if line.startswith("Error")] == []


def test_long_comments_and_names_are_whole(exam: tuple[Path, Path], tmp_path: Path) -> None:
    recording, result = exam
    words, comment = "w" * 90, "\n".join(f"line {index} of a long comment" for index in range(150))
    assert len(comment) > 3000

    def write(document: dict[str, Any]) -> None:
        document["findings"][0].update(label=f"other: {words}", name=words, comment=f"{comment}\x07end")

    reading = changed_reading(tmp_path / "reading.json", result, write)
    export(reading, recording, tmp_path / "out")
    (report,) = objects(tmp_path / "out", "report")
    remarks = [each.TextValue for each in content(report, "121106")]
    number = "finding 0123456789abcdef0123456789abcdef"
    assert f"Comment on {number}: {comment} end" in remarks
    assert f"Whole name of {number}: {words}" in remarks
    assert content(report, FINDING)[-1].ConceptCodeSequence[0].CodeMeaning == "w" * 61 + "..."
    (file,) = (tmp_path / "out").glob("report-*.dcm")
    assert [line for line in validate(file) if line.startswith("Error")] == []


def test_a_report_names_every_reader(exam: tuple[Path, Path], tmp_path: Path) -> None:
    recording, result = exam

    def read_by_others(document: dict[str, Any]) -> None:
        document["reading"]["readers"] = ["Dr Second"]
        document["suggestions"][0]["reader"] = "Dr Second"
        document["findings"][0]["reader"] = "Dr Third"

    reading = changed_reading(tmp_path / "reading.json", result, read_by_others)
    export(reading, recording, tmp_path / "out")
    (report,) = objects(tmp_path / "out", "report")
    names = [str(each.PersonName) for each in content(report, "121008")]
    assert names == ["Dr Kanarienfreund^", "Dr Second^", "Dr Third^"]
    remarks = [each.TextValue for each in content(report, "121106")]
    assert "Reader of suggestion 1: Dr Second" in remarks
    (file,) = (tmp_path / "out").glob("report-*.dcm")
    assert [line for line in validate(file) if line.startswith("Error")] == []


def test_a_reading_that_is_open_is_partial(exam: tuple[Path, Path], tmp_path: Path) -> None:
    recording, result = exam

    def open_again(document: dict[str, Any]) -> None:
        document["reading"].update(state="open", finished_at=None)

    reading = changed_reading(tmp_path / "reading.json", result, open_again)
    export(reading, recording, tmp_path / "out")
    (report,) = objects(tmp_path / "out", "report")
    assert (report.CompletionFlag, report.PreliminaryFlag) == ("PARTIAL", "PRELIMINARY")
    assert "The reading is not finished." in [each.TextValue for each in content(report, "121106")]
    (file,) = (tmp_path / "out").glob("report-*.dcm")
    assert [line for line in validate(file) if line.startswith("Error")] == []
    # The time of the last decision.
    assert read_findings(reading).made_at == "2026-03-05T10:12:12.000000Z"
    finished = make_reading(tmp_path / "finished.json", result)
    for findings in (result, finished):
        export(findings, recording, tmp_path / "whole")
    assert {each.CompletionFlag for each in objects(tmp_path / "whole", "report")} == {"COMPLETE"}


def clock_of(one: Any) -> tuple[str, str, str | None]:
    return one.ContentDate, one.ContentTime, one.get("TimezoneOffsetFromUTC")


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the zone of the process cannot be set here")
@pytest.mark.parametrize(
    ("zone", "moved"),
    [("UTC0", ("20260305", "102000")), ("XXX-3", ("20260305", "132000")), ("XXX+11", ("20260304", "232000"))],
)
def test_the_times_of_a_reading_are_local_ones(
    zone: str,
    moved: tuple[str, str],
    exam: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recording, result = exam
    reading = make_reading(tmp_path / "reading.json", result)
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        export(reading, recording, tmp_path / "out", given=[("file", examination(procedure_time="093000"))])
    finally:
        monkeypatch.undo()
        time.tzset()
    # An offset would move the times of the study as well.
    for kind in ("report", "selection", "key-image", "video"):
        for each in objects(tmp_path / "out", kind):
            assert each.StudyTime == "093000"
            assert "TimezoneOffsetFromUTC" not in each
    (report,) = objects(tmp_path / "out", "report")
    assert clock_of(report) == (*moved, None)


@pytest.mark.parametrize(
    ("offset", "expected"),
    [("+0530", ("20260305", "155000", "+0530")), ("-0800", ("20260305", "022000", "-0800"))],
)
def test_the_offset_of_the_object_that_was_read_holds_for_all_times(
    offset: str, expected: tuple[str, str, str], tmp_path: Path
) -> None:
    path = write_pictures(
        tmp_path / "exam.dcm",
        "raw",
        [view(True, 1)],
        StudyDate="20260304",
        StudyTime="093000",
        TimezoneOffsetFromUTC=offset,
    )
    result = make_result(tmp_path / "result", path)
    document = json.loads(make_reading(tmp_path / "reading.json", result).read_text())
    document.update(examination={}, suggestions=[], findings=[])
    (tmp_path / "reading.json").write_text(json.dumps(document))
    export(tmp_path / "reading.json", path, tmp_path / "out", given=[])
    (report,) = objects(tmp_path / "out", "report")
    assert clock_of(report) == expected
    (image,) = objects(tmp_path / "out", "key-image")
    assert clock_of(image) == ("20260304", "093000", offset)
    for file in (tmp_path / "out").glob("*.dcm"):
        assert [line for line in validate(file) if line.startswith("Error")] == []


def test_a_recording_that_was_read_from_dicom_says_whose_it_is(
    exam: tuple[Path, Path], tmp_path: Path
) -> None:
    recording, _ = exam
    wrapped = wrap_video(
        tmp_path / "exam.dcm",
        recording,
        size=4096,
        Rows=HEIGHT,
        Columns=WIDTH,
        NumberOfFrames=340,
        StudyDate="20260304",
        SpecificCharacterSet="GB18030",
        PatientName="Wang^XiaoDong=王^小东",
    )
    original = pydicom.dcmread(wrapped)
    result = make_result(tmp_path / "result", wrapped)
    exported = export(result, wrapped, tmp_path / "out", given=[])
    assert "video" not in exported.files
    (report,) = objects(tmp_path / "out", "report")
    assert (report.StudyInstanceUID, report.PatientID) == (original.StudyInstanceUID, CANARIES["PatientID"])
    assert (report.SpecificCharacterSet, str(report.PatientName)) == ("ISO_IR 192", "Wang^XiaoDong=王^小东")
    assert report.AccessionNumber == CANARIES["AccessionNumber"]
    groups = content(report, "125007")
    named = [each.ReferencedSOPSequence[0] for each in groups[0].ContentSequence if each.ValueType == "IMAGE"]
    assert named[1].ReferencedSOPInstanceUID == original.SOPInstanceUID
    assert int(named[1].ReferencedFrameNumber) == read_findings(result).findings[0].key_index + 1


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_pictures_of_a_dicomdir_are_exported(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    uids = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "StudyDate": "20260304"}
    pictures = [view(index in (1, 2), index) for index in range(4)]
    for index, picture in enumerate(pictures):
        write_pictures(folder / f"I{index}", "raw", [picture], InstanceNumber=index + 1, **uids)
    write_directory(folder, [(f"I{index}",) for index in range(4)])
    path = folder / "DICOMDIR" if kind == "file" else folder
    result = make_result(tmp_path / "result", path)
    export(result, path, tmp_path / "out", given=[])
    (image,) = objects(tmp_path / "out", "key-image")
    index = read_findings(result).findings[0].key_index
    np.testing.assert_array_equal(image.pixel_array, pictures[index])
    # The other of the two paths names the same recording.
    other = folder if kind == "file" else folder / "DICOMDIR"
    assert export(result, other, tmp_path / "out", given=[]).written == []
    write_pictures(folder / "I3", "raw", [pictures[0]], InstanceNumber=4, **uids)
    with pytest.raises(InputError, match="not the one that was read"):
        export(result, path, tmp_path / "out", given=[])


@pytest.mark.parametrize(("charset", "name"), JAPANESE_AND_LATIN)
def test_names_of_any_character_set_are_carried_rightly(charset: Any, name: str, tmp_path: Path) -> None:
    pictures = [view(index in (1, 2), index) for index in range(4)]
    path = write_pictures(
        tmp_path / "exam.dcm",
        "raw",
        pictures,
        SpecificCharacterSet=charset,
        PatientName=name,
        StudyDate="20260304",
    )
    result = make_result(tmp_path / "result", path)
    export(result, path, tmp_path / "out", given=[])
    (report,) = objects(tmp_path / "out", "report")
    assert str(report.PatientName) == name
    (image,) = objects(tmp_path / "out", "key-image")
    index = read_findings(result).findings[0].key_index
    assert image.SourceImageSequence[0].ReferencedFrameNumber == index + 1
    np.testing.assert_array_equal(image.pixel_array, pictures[index])


JPEG, JPEG_2000 = "ISO_10918_1", "ISO_15444_1"


@pytest.mark.parametrize(
    ("kind", "said", "expected"),
    [
        ("jpeg", {}, ("01", JPEG, None)),
        ("jpeg", {"LossyImageCompression": "00"}, ("01", JPEG, None)),
        ("raw", {}, ("", None, None)),
        ("raw", {"LossyImageCompression": "00"}, ("00", None, None)),
        # Decoded from a lossy picture by whoever made the object.
        (
            "raw",
            {
                "LossyImageCompression": "01",
                "LossyImageCompressionMethod": [JPEG, JPEG_2000],
                "LossyImageCompressionRatio": ["9", "2.5"],
            },
            ("01", [JPEG, JPEG_2000], [9, 2.5]),
        ),
        ("jpegls", {}, ("00", None, None)),
        ("jpeg2000", {}, ("00", None, None)),
        ("jpeg2000", {"LossyImageCompression": "01"}, ("01", None, None)),
    ],
)
@pytest.mark.parametrize("anonymous", [False, True], ids=["named", "anonymous"])
def test_key_images_carry_the_losses_of_their_source_on(
    kind: str, said: dict[str, Any], expected: tuple[Any, ...], anonymous: bool, tmp_path: Path
) -> None:
    names = ["I1"] if not anonymous else [f"I{index}" for index in range(12)]
    uids = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "StudyDate": "20260304"}
    for index, name in enumerate(names):
        write_pictures(
            tmp_path / name, kind, [view(index == 5, index)], InstanceNumber=index + 1, **uids, **said
        )
    path = write_directory(tmp_path, [(name,) for name in names])
    options = {"anonymiser": open_anonymiser(tmp_path / "secret")} if anonymous else {}
    export(make_result(tmp_path / "result", path), path, tmp_path / "out", given=[], **options)
    (image,) = objects(tmp_path / "out", "key-image")
    names = ("LossyImageCompression", "LossyImageCompressionMethod", "LossyImageCompressionRatio")
    assert tuple(image.get(name) for name in names) == expected
    (file,) = (tmp_path / "out").glob("key-image-*.dcm")
    assert [line for line in validate(file) if line.startswith("Error")] == []


@pytest.mark.parametrize(
    ("suffix", "expected"),
    [(".jpg", ("01", JPEG)), (".png", ("00", None)), (".tif", ("", None)), (".webp", ("", None))],
)
def test_key_images_of_a_folder_say_the_losses_of_its_files(
    suffix: str, expected: tuple[Any, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in range(4):
        cv2.imwrite(str(folder / f"{index}{suffix}"), view(index in (1, 2), index)[:, :, ::-1])
    # The first file does not speak for the others.
    cv2.imwrite(str(folder / "0.bmp"), view(False, 0)[:, :, ::-1])
    (folder / f"0{suffix}").unlink()
    export(make_result(tmp_path / "result", folder), folder, tmp_path / "out")
    (image,) = objects(tmp_path / "out", "key-image")
    assert (image.LossyImageCompression, image.get("LossyImageCompressionMethod")) == expected
    (file,) = (tmp_path / "out").glob("key-image-*.dcm")
    assert [line for line in validate(file) if line.startswith("Error")] == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"patient_id": ""}, r"PatientID \(0010,0020\) is not said"),
        ({"accession_number": None}, r"AccessionNumber \(0008,0050\) is not said"),
        ({"procedure_date": ""}, r"StudyDate \(0008,0020\) is not said"),
    ],
)
def test_without_knowing_whose_it_is_nothing_is_exported(
    changes: dict[str, Any], says: str, exam: tuple[Path, Path], tmp_path: Path
) -> None:
    recording, result = exam
    with pytest.raises(InputError, match=says):
        export(result, recording, tmp_path / "out", given=[("the file", examination(**changes))])
    assert not (tmp_path / "out").exists()
    # Said to be empty is not the same as not said.
    if "accession_number" in changes:
        export(result, recording, tmp_path / "out", given=[("the file", examination(accession_number=""))])


@pytest.mark.parametrize(
    ("name", "value", "tag"),
    [
        ("patient_id", "another", r"PatientID \(0010,0020\)"),
        ("patient_name", "Other^Bird", r"PatientName \(0010,0010\)"),
        ("accession_number", "A2", r"AccessionNumber \(0008,0050\)"),
        ("procedure_date", "20260305", r"StudyDate \(0008,0020\)"),
    ],
)
def test_a_mismatch_of_two_sources_stops_the_export(
    name: str, value: str, tag: str, exam: tuple[Path, Path], tmp_path: Path
) -> None:
    recording, result = exam
    reading = make_reading(tmp_path / "reading.json", result)
    given = [("the file of --patient", examination(**{name: value}))]
    with pytest.raises(InputError, match=f"{tag} of the reading and of the file") as caught:
        export(reading, recording, tmp_path / "out", given=given)
    assert not any(secret in str(caught.value) for secret in (value, *CANARIES.values()))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("names", "same"),
    [
        (("=山田^太郎", "=佐藤^花子"), False),
        (("Yamada^Tarou=山田^太郎", "Yamada^Tarou=佐藤^花子"), False),
        (("Yamada^Tarou==やまだ^たろう", "Yamada^Tarou==さとう^はなこ"), False),
        (("Yamada^Tarou", "=佐藤^花子"), False),
        # The third source contradicts the second; the first says nothing of this script.
        (("Yamada^Tarou", "Yamada^Tarou=山田^太郎", "Yamada^Tarou=佐藤^花子"), False),
        (("Yamada^Tarou=山田^太郎", "yamada tarou"), True),
        (("Yamada^Tarou", "Yamada^Tarou=山田^太郎"), True),
        (("Yamada^Tarou==やまだ^たろう", "Yamada^Tarou=山田^太郎"), True),
        (("=山田^太郎", "=山田^太郎^^"), True),
        # A banner has no scripts: the characters are the same.
        (("山田^太郎", "=山田^太郎"), True),
    ],
)
@pytest.mark.parametrize("field", ["patient_name", "referring_physician"])
def test_names_of_several_scripts_must_agree_in_each(field: str, names: tuple[str, ...], same: bool) -> None:
    sources = [(f"source {place}", Examination(**{field: name})) for place, name in enumerate(names)]
    for order in (sources, sources[::-1]):
        if same:
            assert getattr(merge_examinations(order), field) == getattr(order[0][1], field)
        else:
            with pytest.raises(InputError, match="are not the same") as caught:
                merge_examinations(order)
            assert not any(name in str(caught.value) for name in names)


@pytest.mark.parametrize("absent", ["SeriesInstanceUID", "StudyInstanceUID"])
@pytest.mark.parametrize("kind", ["pictures", "video"])
def test_an_object_without_a_uid_is_refused_by_its_tag(
    absent: str, kind: str, exam: tuple[Path, Path], tmp_path: Path
) -> None:
    path, attributes = tmp_path / "exam.dcm", {absent: None, "StudyDate": "20260304"}
    if kind == "pictures":
        write_pictures(path, "raw", [view(index in (1, 2), index) for index in range(4)], **attributes)
    else:
        wrap_video(path, exam[0], Rows=HEIGHT, Columns=WIDTH, NumberOfFrames=340, **attributes)
    result = make_result(tmp_path / "result", path)
    tag = {"SeriesInstanceUID": "0020,000E", "StudyInstanceUID": "0020,000D"}[absent]
    with pytest.raises(InputError, match=rf"does not say {absent} \({tag}\)"):
        export(result, path, tmp_path / "out", given=[])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"patient_id": "x" * 65}, r"PatientID \(0010,0020\) of the file of --patient is too long"),
        ({"patient_name": "a\\b"}, r"PatientName .* backslash"),
        ({"birth_date": "3rd May"}, r"PatientBirthDate .* is no date"),
        ({"sex": "female"}, r"PatientSex .* none of M, F, O"),
        ({"study": "1.02.3"}, r"StudyInstanceUID .* is no UID"),
        ({"patient_id": 7}, r"PatientID .* is no text"),
        ({"kanarienvogel": "x"}, r"1 unknown fields"),
    ],
)
def test_a_field_that_dicom_cannot_carry_is_refused(
    call: Callable, changes: dict[str, Any], says: str, exam: tuple[Path, Path], tmp_path: Path
) -> None:
    recording, result = exam
    patient = write_patient(tmp_path / "patient.json", **changes)
    called = call(
        "export-dicom", result, "--recording", recording, "--patient", patient, "--out", tmp_path / "out"
    )
    assert called.code == 1
    assert called.err.count("\n") == 1
    assert re.search(says, called.err), called.err
    assert not any(
        secret in called.err for secret in (*CANARIES.values(), "3rd May", "female", "xxxx", "kanarien")
    )


def test_the_command_exports_and_says_what_it_wrote(
    call: Callable, exam: tuple[Path, Path], tmp_path: Path
) -> None:
    recording, result = exam
    patient = write_patient(tmp_path / "patient.json")
    options = ("--recording", recording, "--patient", patient, "--out", tmp_path / "out")
    called = call("export-dicom", result, *options, "--json")
    assert called.code == 0, called.err
    told = json.loads(called.out)
    assert len(told["written"]) == 5
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"export.json", *told["written"]}
    index = json.loads((tmp_path / "out" / "export.json").read_text())
    assert index["files"] == told["files"]
    called = call("export-dicom", result, *options)
    assert "2 key images, 0 new" in called.out
    names = " ".join(file.name for file in (tmp_path / "out").iterdir())
    assert not any(
        secret in called.out + called.err + names + json.dumps(index) for secret in CANARIES.values()
    )


def test_another_recording_is_refused(exam: tuple[Path, Path], tmp_path: Path) -> None:
    _, result = exam
    with pytest.raises(InputError, match="not the one that was read"):
        export(result, write_exam(tmp_path / "other.mp4", frames=50), tmp_path / "out")


def test_a_finding_beyond_the_recording_is_refused_by_its_tag(
    exam: tuple[Path, Path], tmp_path: Path
) -> None:
    recording, result = exam
    reading = make_reading(tmp_path / "reading.json", result)
    document = json.loads(reading.read_text())
    document["findings"][0]["key"]["index"] = 340
    reading.write_text(json.dumps(document))
    with pytest.raises(
        InputError, match=r"beyond the 340 of the recording, ReferencedFrameNumber \(0008,1160\)"
    ):
        export(reading, recording, tmp_path / "out")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "capsule-edge/study/2"}', '{"schema": "x"}'])
def test_what_is_no_result_and_no_reading_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "reading.json").write_text(text)
    with pytest.raises(InputError, match=r"reading\.json"):
        read_findings(tmp_path / "reading.json")


def test_an_object_of_the_same_uid_and_other_content_is_not_replaced(
    exam: tuple[Path, Path], tmp_path: Path
) -> None:
    recording, result = exam
    export(result, recording, tmp_path / "out")
    (file,) = (tmp_path / "out").glob("selection-*.dcm")
    file.write_bytes(file.read_bytes().replace(b"preliminary. A", b"definite.... A"))
    with pytest.raises(OutputError, match=r"SOPInstanceUID \(0008,0018\) of a new object and other content"):
        export(result, recording, tmp_path / "out")


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("baseline.mp4", {"options": {"profile": "baseline"}}, "h264 .*Baseline"),
        ("a.mkv", {}, "its container is matroska"),
        ("a.avi", {"codec": "mpeg4"}, "its container is avi"),
        ("a.mp4", {"pixels": "yuv444p"}, "h264 High 4:4:4"),
        ("level.mp4", {"options": {"level": "5.1"}}, "level 51"),
        ("a.mov", {}, "its container is QuickTime"),
        ("renamed.mp4", {"muxer": {"brand": "qt  "}}, "its container is QuickTime"),
    ],
)
def test_a_stream_that_dicom_does_not_allow_is_left_out_and_said(
    kind: str, options: dict[str, Any], says: str, tmp_path: Path
) -> None:
    form = video_form(scan(damage.encode(tmp_path / kind, **options)))
    assert form.syntax == ""
    assert re.search(says, form.reason), form.reason


@pytest.mark.parametrize(
    ("kind", "options", "syntax"),
    [
        ("a.mp4", {}, "102"),
        ("a.ts", {}, "102"),
        ("level.mp4", {"options": {"level": "4.2"}}, "104"),
        ("hevc.mp4", {"codec": "libx265", "options": {"x265-params": "log-level=none:pools=none"}}, "107"),
        ("hevc.ts", {"codec": "libx265", "options": {"x265-params": "log-level=none:pools=none"}}, "107"),
    ],
)
def test_a_stream_that_dicom_allows_gets_its_syntax(
    kind: str, options: dict[str, Any], syntax: str, tmp_path: Path
) -> None:
    form = video_form(scan(damage.encode(tmp_path / kind, **options)))
    assert (form.syntax, form.reason) == (f"1.2.840.10008.1.2.4.{syntax}", "")


def test_a_file_without_a_brand_is_no_mp4(tmp_path: Path) -> None:
    data = damage.encode(tmp_path / "a.mov", muxer={"movflags": "faststart"}).read_bytes()
    size = int.from_bytes(data[:4])
    assert data[4:12] == b"ftypqt  "
    # In place of the box of the brand one that says nothing, so that all offsets hold.
    (tmp_path / "old.mov").write_bytes(data[:4] + b"free" + data[8:size] + data[size:])
    form = video_form(scan(tmp_path / "old.mov"))
    assert (form.syntax, "QuickTime" in form.reason) == ("", True)


def test_a_recording_without_a_video_object_refers_to_key_images_alone(tmp_path: Path) -> None:
    recording = tmp_path / "exam.mkv"
    with av.open(str(write_exam(tmp_path / "exam.mp4"))) as source, av.open(str(recording), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    exported = export(make_result(tmp_path / "result", recording), recording, tmp_path / "out")
    assert "video" not in exported.files
    (reason,) = exported.left_out
    assert reason.startswith("the video: its container is matroska")
    (report,) = objects(tmp_path / "out", "report")
    assert any("matroska" in each.TextValue for each in content(report, "121106"))
    for group in content(report, "125007"):
        assert sum(each.ValueType == "IMAGE" for each in group.ContentSequence) == 1


def test_a_recording_without_findings_is_exported_and_says_so(tmp_path: Path) -> None:
    recording = write_exam(tmp_path / "exam.mp4", red=())
    exported = export(make_result(tmp_path / "result", recording), recording, tmp_path / "out")
    assert set(exported.files) == {"video", "key_image", "report"}
    (report,) = objects(tmp_path / "out", "report")
    remarks = " ".join(each.TextValue for each in content(report, "121106"))
    assert "does not mean that the examination is normal" in remarks


def test_frame_times_fit_their_elements(exam: tuple[Path, Path]) -> None:
    container = scan(exam[0])
    from capsule_edge.workstation.dicom.common_modules import ObjectMaker

    maker = ObjectMaker(examination(study="1.2.3"), "0", "20260304000000")

    def header(times_s: list[float]) -> Any:
        count = len(times_s)
        packets = type(container.packets).of(list(container.packets)[:1] * count)
        steps = np.diff(times_s)
        longer = replace(
            container,
            packets=packets,
            order=range(count),
            times_s=times_s,
            frame_distance_s=float(np.median(steps)),
        )
        return make_video_header(maker, longer, video_form(container), sop_instance="1.2", series="1.3")

    even = header([index / 3 for index in range(60)])
    assert (even.FrameIncrementPointer, float(even.FrameTime)) == (0x00181063, 333.333)
    assert "FrameTimeVector" not in even
    uneven = header([index / 3 + (index > 30) * 7.123456 for index in range(60)])
    assert uneven.FrameIncrementPointer == 0x00181065
    assert len(uneven.FrameTimeVector) == 60
    assert float(uneven.FrameTimeVector[31]) == pytest.approx(7456.789, abs=0.001)
    long = header([index / 3 + (index > 30) * 7.1 for index in range(57_600)])
    assert (long.FrameIncrementPointer, float(long.FrameTime)) == (0x00181063, 333.333)
    for value in (1e-9, 1 / 3, 333.3333333333, 86_400_000.123456, 1e15 / 7, 1e30):
        assert len(decimal(value)) <= 16
        assert float(decimal(value)) == pytest.approx(value, rel=1e-6, abs=0.001)


def test_without_highdicom_the_command_says_what_to_install(
    exam: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording, result = exam
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(PackageError, match=r"writing DICOM needs highdicom.*capsule-edge\[dicom\]"):
        export(result, recording, tmp_path / "out")
