"""Export the findings of a recording as DICOM objects into a folder.

    exported = export_findings(document, recording, out, given=[("the file", examination)])

The objects depend on the findings, the recording and the examination alone, so a second export writes nothing new.
"""

from __future__ import annotations

import datetime
import filecmp
import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import InputError, OutputError, PackageError
from capsule_edge.runtime.recording import Container, fetch, hash_recording, read_frames, scan

from .anonymising import Anonymiser
from .codes import CodeMap
from .common_modules import ObjectMaker
from .field_mask import UnknownField, find_field
from .findings import FindingsDocument
from .frame_numbers import number_frames
from .identity import (
    Examination,
    examination_of_banner,
    examination_of_object,
    merge_examinations,
    require_whole,
)
from .key_images import ENDOSCOPIC_CLASS, make_key_image
from .key_selection import make_key_selection, make_pdf_object
from .lossy_history import LossyHistory, loss_of_frame, loss_of_object
from .recorded_objects import RecordedObjects, read_recorded_objects
from .structured_report import Reference, ReportParts, make_report
from .uids import derive_uid
from .video_object import VIDEO_CLASS, make_video_header, video_form, write_video

__all__ = ["Exported", "export_findings"]

Pixels = npt.NDArray[np.uint8]

INDEX = "export.json"


@dataclass(frozen=True)
class Exported:
    """The outcome of an export.

    Attributes:
        folder: that holds the objects.
        files: the file of each object by its kind; key images in the order of the findings.
        written: names of the files that are new.
        left_out: what was not exported, and why.
        anonymised: the objects do not say whose they are.
    """

    folder: Path
    files: Mapping[str, list[str]]
    written: list[str]
    left_out: list[str]
    anonymised: bool = False


@dataclass
class _Export:
    """An export on its way: what all steps share; ``loss`` returns the lossy compression of a frame."""

    document: FindingsDocument
    container: Container
    out: Path
    maker: ObjectMaker
    codes: CodeMap
    anonymiser: Anonymiser | None = None
    loss: Callable[[int], LossyHistory] = field(kw_only=True)
    files: dict[str, list[str]] = field(default_factory=dict)
    written: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def uid(self, kind: str, *parts: object) -> str:
        """Return the UID of an object, which depends on all that the object says of the examination."""
        said = [getattr(self.maker.examination, each.name) for each in fields(Examination)]
        uid = derive_uid(kind, *said, self.document.tool_version, *self._source, *parts)
        return uid if self.anonymiser is None else self.anonymiser.map_uid(uid)

    @property
    def _source(self) -> tuple[str, int]:
        """The recording and the number of its video stream: their frames make the video and the key images."""
        return self.document.recording_sha256, self.container.stream

    def series(self, kind: str) -> str:
        """Return the UID of a series, which stays the same when a report has a new version."""
        return self._series(kind, self.document.identity)

    def image_series(self, kind: str) -> str:
        """Return the UID of a series of pictures. Results and readings of one recording share it, and its objects."""
        return self._series(kind, self.document.tool_version, *self._source)

    def _series(self, kind: str, *parts: object) -> str:
        uid = derive_uid(kind, self.maker.examination.study, *parts)
        return uid if self.anonymiser is None else self.anonymiser.map_uid(uid)

    @property
    def image_maker(self) -> ObjectMaker:
        """The maker of the video and the key images, whose date is the examination's in every version."""
        return replace(self.maker, made_at=_examination_time(self.maker.examination))

    def save(self, kind: str, name: str, dataset: Any) -> None:
        """Write an object, unless the folder holds it already."""
        import pydicom

        if self.anonymiser is not None:
            self.anonymiser.clean(dataset)
        self.place(
            kind,
            name,
            str(dataset.SOPInstanceUID),
            lambda path: pydicom.dcmwrite(path, dataset, enforce_file_format=True),
        )

    def place(self, kind: str, name: str, uid: str, write: Callable[[Path], object]) -> None:
        """Write an object into a temporary file and move it into place.

        Args:
            kind: of the object.
            name: beginning of the file's name, which says nothing of the patient.
            uid: SOP Instance UID.
            write: writes the file at a path.
        """
        file = self.out / f"{name}-{derive_uid(uid)[-12:]}.dcm"
        self.files.setdefault(kind, []).append(file.name)
        temporary = file.with_suffix(".tmp")
        try:
            write(temporary)
            if file.is_file():
                same = filecmp.cmp(file, temporary, shallow=False)
                temporary.unlink()
                if same:
                    return
                raise OutputError(
                    f"'{file}' has the SOPInstanceUID (0008,0018) of a new object and other content",
                    hint="choose another --out, and find out which of the two was sent",
                )
            os.replace(temporary, file)
        except OSError as error:
            raise OutputError(
                f"'{self.out}' cannot be written: {error.strerror or type(error).__name__}",
                hint="choose another --out or ask for write access",
            ) from error
        self.written.append(file.name)


def export_findings(
    document: FindingsDocument,
    recording: Path,
    out: Path,
    *,
    given: Sequence[tuple[str, Examination]] = (),
    codes: CodeMap | None = None,
    anonymiser: Anonymiser | None = None,
    report_pdf: Callable[[], bytes] | None = None,
) -> Exported:
    """Write the findings as DICOM objects: report, key images, their selection, the video, and a reading's PDF.

    Args:
        document: the findings, from ``read_findings``.
        recording: the file that was read; its hash must be that of the document.
        out: folder; made where it is absent. Objects that it holds already are left as they are.
        given: examinations that the user gave, each with its source's name.
        codes: the user's codes; None for ours alone.
        anonymiser: leaves out whose the examination is; then there is no video and no PDF, and the key images are
            black outside the field of view. None to keep it.
        report_pdf: makes the report of a reading as PDF; None where it is to be left out.

    Raises:
        InputError: the recording is another, it is not known whose it is, or two sources contradict each other.
        OutputError: the folder cannot be written.
        PackageError: highdicom or pydicom is not installed.
    """
    check_packages()
    with warnings.catch_warnings():
        # pydicom and highdicom quote names in their warnings.
        warnings.simplefilter("ignore")
        return _export(document, recording, out, given, codes, anonymiser, report_pdf)


def _export(
    document: FindingsDocument,
    recording: Path,
    out: Path,
    given: Sequence[tuple[str, Examination]],
    codes: CodeMap | None,
    anonymiser: Anonymiser | None,
    report_pdf: Callable[[], bytes] | None,
) -> Exported:
    container = _check_recording(document, recording)
    recorded = read_recorded_objects(container)
    examination = _whose(document, recorded, given)
    loss = partial(_loss_of, container, recorded)
    if anonymiser is not None:
        examination, document, recorded = anonymiser.anonymise(examination), document.without_people(), None
    offset = recorded.utc_offset if recorded else ""
    made_at = _made_at(document, examination, offset)
    maker = ObjectMaker(examination, document.tool_version, made_at, offset)
    _make_folder(out)
    export = _Export(document, container, out, maker, codes or CodeMap(), anonymiser, loss=loss)
    frames = number_frames(container)
    recorded = recorded or _export_video(export, frames)
    images = _export_images(export, recorded)
    _export_report(export, recorded, images, frames)
    _export_selection(export, images)
    _export_pdf(export, report_pdf)
    _write_index(export)
    return Exported(out, export.files, export.written, export.left_out, anonymiser is not None)


def _loss_of(container: Container, recorded: RecordedObjects | None, index: int) -> LossyHistory:
    return loss_of_frame(container, index) if recorded is None else loss_of_object(recorded.object_of(index))


def check_packages() -> None:
    """Raise ``PackageError`` where a package of the extra ``[dicom]`` is missing."""
    try:
        import highdicom  # noqa: F401
        import pydicom  # noqa: F401
    except ImportError as error:
        raise PackageError(
            f"writing DICOM needs {error.name}", hint="pip install 'capsule-edge[dicom]'"
        ) from None


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"'{out}' cannot be a folder: {error.strerror or type(error).__name__}",
            hint="choose another --out",
        ) from error


def _check_recording(document: FindingsDocument, recording: Path) -> Container:
    if hash_recording(recording) != document.recording_sha256:
        raise InputError(
            "the recording is not the one that was read: its SHA-256 is another",
            hint="give the very file that run or the workstation read",
        )
    container = scan(recording, stream=document.stream)
    beyond = [each.number for each in document.findings if not 0 <= each.key_index < container.present]
    if beyond:
        raise InputError(
            f"finding {beyond[0]} names a frame beyond the {container.present:,} of the recording, "
            "ReferencedFrameNumber (0008,1160)",
            hint="read the recording again",
        )
    return container


def _whose(
    document: FindingsDocument,
    recorded: RecordedObjects | None,
    given: Sequence[tuple[str, Examination]],
) -> Examination:
    sources = [
        ("the DICOM object", examination_of_object(path)) for path in (recorded.paths if recorded else ())
    ]
    if document.banner:
        sources.append(("the reading", examination_of_banner(document.banner)))
    examination = merge_examinations([*sources, *given])
    require_whole(examination)
    if not examination.study:
        parts = (examination.issuer, examination.patient_id, examination.accession_number)
        study = derive_uid("study", *parts, examination.procedure_date, document.recording_sha256)
        examination = replace(examination, study=study)
    return examination


def _made_at(document: FindingsDocument, examination: Examination, offset: str) -> str:
    """Return date and time of the content. A result folder holds no clock: its objects have the examination's.

    The times of the study are local ones, so this is one, too: at the offset of the object that was read, else at that
    of this machine. An object has one offset for all its times (PS3.3, C.12.1).
    """
    if not document.made_at:
        return _examination_time(examination)
    try:
        made_at = datetime.datetime.fromisoformat(document.made_at)
    except ValueError:
        raise InputError(
            "the reading has a time that is none of ISO 8601", hint="export the reading again"
        ) from None
    if made_at.tzinfo is None:
        made_at = made_at.replace(tzinfo=datetime.UTC)
    zone = datetime.datetime.strptime(offset, "%z").tzinfo if offset else None
    return made_at.astimezone(zone).strftime("%Y%m%d%H%M%S")


def _examination_time(examination: Examination) -> str:
    return examination.procedure_date + examination.procedure_time.ljust(6, "0")


def _export_video(export: _Export, frames: Sequence[int | None] | None) -> RecordedObjects | None:
    """Write the recording as a video, and return it for reference; None where DICOM allows no such stream."""
    if export.anonymiser is not None:
        export.left_out.append("the video: its pictures cannot be blanked without coding them anew")
        return None
    form = video_form(export.container)
    if form.syntax and frames is None:
        form = replace(
            form, syntax="", reason="the order of its pictures cannot be told from its time stamps"
        )
    if not form.syntax:
        export.left_out.append(f"the video: {form.reason}")
        return None
    uid, series = export.uid("video"), export.image_series("video")
    header = make_video_header(export.image_maker, export.container, form, sop_instance=uid, series=series)
    export.place("video", "video", uid, lambda path: write_video(path, header, export.container))
    references: list[Reference | None] = [
        None if number is None else (VIDEO_CLASS, uid, number) for number in frames or ()
    ]
    return RecordedObjects((), (header,), references)


def _export_images(export: _Export, recorded: RecordedObjects | None) -> dict[int, Any]:
    """Write the key images and return them by the index of their frame, in the order of the findings.

    None is written where the field of view is not known and all else is to be blanked.
    """
    mask = None if export.anonymiser is None else find_field(export.container, export.document.box)
    if isinstance(mask, UnknownField):
        export.left_out.append(f"the key images: {mask.reason}")
        return {}
    wanted = list(dict.fromkeys(each.key_index for each in export.document.findings))
    segments = {each.key_index: each.segment for each in reversed(export.document.findings)}
    # The report refers to one picture at least, so that it says which recording it is about.
    wanted = wanted or [_first_sound(export.container)]
    pictures = {frame.index: frame.rgb() for frame in fetch(export.container, set(wanted))}
    images: dict[int, Any] = {}
    series = export.image_series("key images")
    for index in wanted:
        if index not in pictures:
            raise InputError(
                f"frame {index} is damaged now, and a finding names it", hint="read the recording again"
            )
        rgb = pictures[index]
        images[index] = make_key_image(
            export.image_maker,
            rgb if mask is None else mask.blank(rgb),
            sop_instance=export.uid(
                "key image", index, segments.get(index, ""), *(() if mask is None else (mask.digest,))
            ),
            series=series,
            number=index + 1,
            frame=index,
            segment=segments.get(index, ""),
            loss=export.loss(index),
            source=recorded.references[index] if recorded else None,
        )
        export.save("key_image", f"key-image-{index:06d}", images[index])
    return images


def _first_sound(container: Container) -> int:
    with closing(read_frames(container, range(container.present))) as frames:
        for frame in frames:
            if frame.status == "ok":
                return frame.index
    raise InputError(
        "the recording holds no frame that can be decoded", hint="copy it again from the recorder"
    )


def _export_report(
    export: _Export,
    recorded: RecordedObjects | None,
    images: Mapping[int, Any],
    frames: Sequence[int | None] | None,
) -> None:
    findings = export.document.findings
    evidence = {
        str(each.SOPInstanceUID): each
        for each in (*images.values(), *(recorded.evidence if recorded else ()))
    }
    pictures: dict[str, list[Reference]] = {}
    named = {each.number: each.key_index for each in findings} or dict.fromkeys([""], next(iter(images), -1))
    for number, index in named.items():
        pictures[number] = []
        if index in images:
            pictures[number].append((ENDOSCOPIC_CLASS, str(images[index].SOPInstanceUID), None))
        if recorded and index >= 0 and (source := recorded.references[index]) is not None:
            pictures[number].append(source)
    numbers = {each.number: shown for each in findings if frames and (shown := frames[each.key_index])}
    series = export.series("report")
    parts = ReportParts(
        evidence=evidence,
        pictures=pictures,
        times_s={each.number: export.container.times_s[each.key_index] for each in findings},
        frame_numbers=numbers,
        remarks=[f"Not part of this export: {each}." for each in export.left_out],
        series=series,
    )
    uid, previous = _next_version(export, series)
    report = make_report(
        export.maker,
        export.document,
        parts,
        export.codes if export.anonymiser is None else export.codes.without_licence(),
        sop_instance=uid,
        previous=previous,
    )
    export.save("report", "report", report)


def _next_version(export: _Export, series: str) -> tuple[str, Any]:
    """Return the UID of this version of a report, and the version before it that the folder holds, or None.

    The folder's versions form a chain: each names the one before, and its UID depends on that one. A version that is
    there already keeps its place.
    """
    import pydicom

    versions: dict[str, Any] = {}
    for file in sorted(export.out.glob("report-*.dcm")):
        found = pydicom.dcmread(file)
        if str(found.get("SeriesInstanceUID")) == series:
            versions[str(found.SOPInstanceUID)] = found
    before = {name: _named_before(found) for name, found in versions.items()}
    for uid, name in before.items():
        if uid == _version_uid(export, name):
            return uid, versions.get(name or "")
    last = min(set(versions) - set(before.values()), default=None)
    return _version_uid(export, last), versions.get(last or "")


def _version_uid(export: _Export, previous: str | None) -> str:
    document = export.document
    parts = (document.identity, document.digest, export.maker.made_at, export.codes.sha256)
    return export.uid("report", *parts, previous or "")


def _named_before(report: Any) -> str | None:
    for study in report.get("PredecessorDocumentsSequence") or ():
        for series in study.ReferencedSeriesSequence:
            for item in series.ReferencedSOPSequence:
                return str(item.ReferencedSOPInstanceUID)
    return None


def _export_selection(export: _Export, images: Mapping[int, Any]) -> None:
    if not export.document.findings:
        export.left_out.append("the selection of key images: there is no finding")
        return
    if not images:
        export.left_out.append("the selection of key images: there is none")
        return
    chosen = list(images.values())
    uids = [str(each.SOPInstanceUID) for each in chosen]
    selection = make_key_selection(
        export.maker,
        chosen,
        sop_instance=export.uid("selection", export.document.identity, export.maker.made_at, *uids),
        series=export.series("selections"),
    )
    export.save("selection", "selection", selection)


def _export_pdf(export: _Export, report_pdf: Callable[[], bytes] | None) -> None:
    document = export.document
    if document.reading is None:
        return
    uid = export.uid("report as pdf", document.identity, document.digest, export.maker.made_at)
    name = f"report-pdf-{derive_uid(uid)[-12:]}.dcm"
    if (export.out / name).is_file():
        # The program that writes a PDF puts the time into it. The one that is there is of the same reading.
        export.files["pdf"] = [name]
        return
    if report_pdf is None:
        export.left_out.append("the report as PDF: it needs the extra [serve]")
        return
    try:
        pdf = report_pdf()
    except PackageError as error:
        export.left_out.append(f"the report as PDF: {error}")
        return
    dataset = make_pdf_object(
        export.maker,
        pdf,
        sop_instance=uid,
        series=export.series("reports as pdf"),
        title="Report of a capsule endoscopy reading, preliminary",
    )
    export.save("pdf", "report-pdf", dataset)


def _write_index(export: _Export) -> None:
    """Write the list of the objects, which says nothing of the patient."""
    document: dict[str, Any] = {
        "schema": "capsule-edge/dicom-export/1",
        "files": export.files,
        "left_out": export.left_out,
    }
    if export.anonymiser is None:
        document["recording_sha256"] = export.document.recording_sha256
        document["findings_sha256"] = export.document.digest
    elif "key_image" in export.files:
        document["burnt_in"] = (
            "Text that is burnt in over the field of view, if any, is still in the key images."
        )
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    file = export.out / INDEX
    temporary = file.with_suffix(".tmp")
    temporary.write_text(text, "utf-8")
    os.replace(temporary, file)
