"""The findings as a Comprehensive 3D SR that holds a TID 1500 Measurement Report (PS3.16), made with highdicom.

Every report is preliminary and unverified: nobody can sign in this version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .codes import CONCEPTS, Code, CodeMap, label_code
from .common_modules import MANUFACTURER, ObjectMaker, site_code
from .findings import Finding, FindingsDocument
from .uids import derive_uid

__all__ = ["Reference", "ReportParts", "make_report", "person_name", "settle"]

# (class, instance, number of the frame in it) of a picture; no number for an object of one picture.
Reference = tuple[str, str, int | None]

_EXPLICIT = "1.2.840.10008.1.2.1"
_SR_CLASS = "1.2.840.10008.5.1.4.1.1.88.34"


@dataclass(frozen=True)
class ReportParts:
    """The objects that a report refers to.

    Attributes:
        evidence: the objects referred to, by SOP Instance UID.
        pictures: the references to the picture of each finding, by the finding's number; by "" those of one picture of
            a recording without findings.
        times_s: container time of each finding's picture, seconds.
        frame_numbers: number of each finding's picture in the video, from 1; absent where it cannot be told.
        remarks: lines for people, such as why no video is referred to.
        series: UID of the series of the report.
    """

    evidence: Mapping[str, Any]
    pictures: Mapping[str, Sequence[Reference]]
    times_s: Mapping[str, float]
    frame_numbers: Mapping[str, int]
    remarks: Sequence[str]
    series: str


def make_report(
    maker: ObjectMaker,
    document: FindingsDocument,
    parts: ReportParts,
    codes: CodeMap,
    *,
    sop_instance: str,
    previous: Any = None,
) -> Any:
    """Return the structured report.

    Args:
        maker: of the examination.
        document: the findings.
        parts: what the report refers to.
        codes: the user's codes.
        sop_instance: UID.
        previous: the report of which this one is a new version; None for the first.
    """
    from highdicom import sr
    from pydicom.sr.codedict import codes as known

    algorithm = _algorithm(document)
    groups = [_group(each, parts, codes, algorithm) for each in document.findings] or [
        _nothing(parts, None if document.state else algorithm)
    ]
    content = sr.MeasurementReport(
        observation_context=_observers(document),
        procedure_reported=_coded(CONCEPTS["procedure"]),
        imaging_measurements=groups,
        title=known.DCM.ImagingMeasurementReport,
        referenced_images=None,
    )
    for remark in _remarks(document, parts, codes):
        content[0].ContentSequence.append(
            sr.TextContentItem(
                name=known.DCM.Comment, value=remark, relationship_type=sr.RelationshipTypeValues.CONTAINS
            )
        )
    report = sr.Comprehensive3DSR(
        # highdicom asks for an object also where the report refers to none; this one stands nowhere in it.
        evidence=list(parts.evidence.values())
        or [maker.begin(_SR_CLASS, sop_instance, parts.series, 3, "SR")],
        record_evidence=bool(parts.evidence),
        content=content[0],
        series_instance_uid=parts.series,
        series_number=3,
        sop_instance_uid=sop_instance,
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=document.state != "open",
        is_final=False,
        is_verified=False,
        previous_versions=None if previous is None else [previous],
        transfer_syntax_uid=_EXPLICIT,
    )
    report.SeriesDescription = "Findings of capsule-edge, preliminary"
    settle(report, maker)
    return report


def settle(dataset: Any, maker: ObjectMaker) -> None:
    """Replace what highdicom takes from the clock, so that a second export makes the same object."""
    maker.fill(dataset)
    maker.describe_scheme(dataset)
    for name in ("InstanceCreationDate", "InstanceCreationTime"):
        if name in dataset:
            delattr(dataset, name)
    if "ContributingEquipmentSequence" in dataset:
        for item in dataset.ContributingEquipmentSequence:
            if "ContributionDateTime" in item:
                del item.ContributionDateTime


def _coded(code: Code) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(value=code.value, scheme_designator=code.scheme, meaning=code.meaning)


def _observers(document: FindingsDocument) -> Any:
    """Return who observed: the software, and all readers of a reading (TID 1002 once for each)."""
    from highdicom import sr
    from pydicom.sr.codedict import codes as known

    model = document.model
    device = sr.ObserverContext(
        observer_type=known.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=derive_uid("device", document.tool_version, model["sha256"]),
            name=f"capsule-edge {document.tool_version}",
            manufacturer_name=MANUFACTURER,
            model_name=f"{model['name']} {model['version']} {model['precision']}",
        ),
    )
    context = sr.ObservationContext(observer_device_context=device)
    for name in document.readers:
        attributes = sr.PersonObserverIdentifyingAttributes(name=person_name(name))
        context.extend(
            sr.ObserverContext(observer_type=known.DCM.Person, observer_identifying_attributes=attributes)
        )
    return context


def person_name(text: str) -> str:
    """Return a name that was typed as a person name of DICOM: the whole is the family name if it has no "^"."""
    plain = "".join(each for each in text if each.isprintable() and each not in "\\=").strip()[:64]
    return plain if "^" in plain else f"{plain[:63]}^"


def _algorithm(document: FindingsDocument) -> Any:
    from highdicom import sr
    from pydicom.sr.codedict import codes as known

    model = document.model
    return sr.AlgorithmIdentification(
        name=model["name"],
        version=model["version"],
        family=known.cid7162.ArtificialIntelligence,
        manufacturer=MANUFACTURER,
        parameters=[
            f"model SHA-256 {model['sha256']}",
            f"model precision {model['precision']}",
            f"inference engine {model['backend']}",
            f"capsule-edge {document.tool_version}",
        ],
    )


def _group(finding: Finding, parts: ReportParts, codes: CodeMap, algorithm: Any) -> Any:
    """Return a finding as a group of measurements and evaluations (TID 1501)."""
    from highdicom import sr

    own = label_code(finding.label, finding.name)
    mapped = codes.codes.get(finding.label)
    evaluations = [
        sr.QualitativeEvaluation(_coded(CONCEPTS["review"]), _coded(CONCEPTS[finding.review])),
    ]
    if mapped is not None:
        evaluations.append(sr.QualitativeEvaluation(_coded(CONCEPTS["own_label"]), _coded(own)))
    sites = [sr.FindingSite(_coded(site_code(finding.segment)))] if finding.segment else None
    suggested = finding.review in ("unreviewed", "confirmed")
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=derive_uid("finding", parts.series, finding.number),
            identifier=_text(f"{finding.number}: {finding.name}"),
        ),
        finding_type=_coded(mapped or own),
        algorithm_id=algorithm if suggested else None,
        finding_sites=sites,
        measurements=_measurements(finding, parts) or None,
        qualitative_evaluations=evaluations,
        source_images=_source_images(parts.pictures[finding.number]),
    )


def _source_images(pictures: Sequence[Reference]) -> list[Any] | None:
    from highdicom import sr

    return [
        sr.SourceImageForMeasurementGroup(sop_class, sop_instance, None if number is None else [number])
        for sop_class, sop_instance, number in pictures
    ] or None


def _nothing(parts: ReportParts, algorithm: Any) -> Any:
    """Return the group that says that there is no finding: the template asks for one group or more.

    Args:
        parts: what the report refers to.
        algorithm: that suggested nothing; None for a reading, whose readers confirmed and added nothing.
    """
    from highdicom import sr

    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=derive_uid("no finding", parts.series),
            identifier="no suggestion" if algorithm else "no finding",
        ),
        finding_type=_coded(CONCEPTS["none" if algorithm else "none_read"]),
        algorithm_id=algorithm,
        qualitative_evaluations=[
            sr.QualitativeEvaluation(_coded(CONCEPTS["review"]), _coded(CONCEPTS["unreviewed"]))
        ]
        if algorithm
        else None,
        source_images=_source_images(parts.pictures[""]),
    )


def _measurements(finding: Finding, parts: ReportParts) -> list[Any]:
    from highdicom import sr
    from pydicom.sr.codedict import codes as known

    precision = vars(finding.precision) if finding.precision else {}
    one, second = known.UCUM.NoUnits, known.UCUM.Second
    values: list[tuple[str, float | None, Any]] = [
        ("score", finding.score, one),
        ("precision", precision.get("estimate"), one),
        ("precision_low", precision.get("low"), one),
        ("precision_high", precision.get("high"), one),
        ("precision_count", precision.get("count"), one),
        ("start", finding.start_s, second),
        ("end", finding.end_s, second),
        ("time", parts.times_s.get(finding.number), second),
        ("index", parts.frame_numbers.get(finding.number), one),
    ]
    return [
        sr.Measurement(name=_coded(CONCEPTS[name]), value=value, unit=unit)
        for name, value, unit in values
        if value is not None
    ]


def _remarks(document: FindingsDocument, parts: ReportParts, codes: CodeMap) -> list[str]:
    """Return the lines for people at the end of the report."""
    lines = [
        "Preliminary and not verified. Findings are suggestions of software that a physician must confirm."
    ]
    if document.state:
        lines[0] = "Preliminary and not verified: a reading that nobody has signed."
        if document.state == "open":
            lines.append("The reading is not finished.")
        if document.left_out:
            lines.append(f"{document.left_out} suggestions were rejected or not decided, and are not listed.")
    if not document.findings:
        lines.append("No finding is listed. That does not mean that the examination is normal.")
    measured = sorted({each.precision.measured_on for each in document.findings if each.precision})
    lines += [f"Precision was measured on {each}." for each in measured]
    for each in document.findings:
        if label_code(each.label, each.name).meaning.endswith("..."):
            lines.append(f"Whole name of {each.number}: {each.name}")
        if each.reader and len(document.readers) > 1:
            lines.append(f"Reader of {each.number}: {each.reader}")
        if each.comment:
            lines.append(f"Comment on {each.number}: {each.comment}")
    lines += parts.remarks
    lines += [codes.remark, document.intended_use]
    return [_text(each) for each in lines if each.strip()]


def _text(text: str) -> str:
    """Return a text as an unlimited text of DICOM can hold it (VR UT; PS3.5, 6.2): of controls, ends of lines alone."""
    return "".join(each if each.isprintable() or each in "\r\n\t" else " " for each in text)
