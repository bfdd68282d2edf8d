"""The modules that all objects share: patient, study, series, equipment, SOP common (PS3.3, C.7, C.12)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .codes import CONCEPTS, SCHEME, SCHEME_NAME, Code
from .identity import Examination

__all__ = ["SITES", "ObjectMaker", "code_item", "file_meta", "sequence"]

MANUFACTURER = "capsule-edge"
# Sites by segment: the codes that DICOM publishes (PS3.16), by their names in pydicom.
SITES = {
    "oesophagus": "Esophagus",
    "stomach": "Stomach",
    "small-bowel": "SmallIntestine",
    "colon": "Colon",
}


def code_item(code: Code) -> Any:
    """Return the item of a code sequence."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme
    item.CodeMeaning = code.meaning
    return item


def sequence(items: Iterable[Any]) -> Any:
    """Return a DICOM sequence of items."""
    from pydicom.sequence import Sequence

    return Sequence(items)


def site_code(segment: str) -> Code:
    """Return the code of a segment of the gut; that of the whole tract where it is not known."""
    from pydicom.sr.codedict import codes

    name = SITES.get(segment)
    if name is None:
        return CONCEPTS["tract"]
    found = getattr(codes.SCT, name)
    return Code(found.value, found.scheme_designator, found.meaning)


def file_meta(dataset: Any, syntax: str) -> Any:
    """Return the file meta information of an object (PS3.10, 7.1)."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import PYDICOM_IMPLEMENTATION_UID

    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    return meta


@dataclass(frozen=True)
class ObjectMaker:
    """Begin objects of one examination.

    Attributes:
        examination: whose they are; its ``study`` is set.
        tool_version: of capsule-edge.
        made_at: date and time of the content, YYYYMMDDHHMMSS.
        offset: of all times of the object from UTC (``+0100``); empty where the examination does not say. Then all are
            local times.
    """

    examination: Examination
    tool_version: str
    made_at: str
    offset: str = ""

    def begin(self, sop_class: str, sop_instance: str, series: str, number: int, modality: str) -> Any:
        """Return an object with the modules that all have.

        Args:
            sop_class, sop_instance, series: UIDs.
            number: of the series in the study.
            modality: ``ES``, ``SR``, ``KO`` or ``DOC``.
        """
        from pydicom.dataset import Dataset

        dataset = Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, sop_instance
        self.fill(dataset)
        dataset.SeriesInstanceUID, dataset.SeriesNumber, dataset.Modality = series, number, modality
        dataset.InstanceNumber = 1
        self.describe_scheme(dataset)
        return dataset

    def fill(self, dataset: Any) -> None:
        """Set patient, study, equipment and dates of an object."""
        one = self.examination
        dataset.SpecificCharacterSet = "ISO_IR 192"
        dataset.PatientName, dataset.PatientID = one.patient_name, one.patient_id
        if one.issuer:
            dataset.IssuerOfPatientID = one.issuer
        dataset.PatientBirthDate, dataset.PatientSex = one.birth_date, one.sex
        dataset.StudyInstanceUID, dataset.StudyID = one.study, one.study_id
        dataset.StudyDate, dataset.StudyTime = one.procedure_date, one.procedure_time
        dataset.AccessionNumber = one.accession_number or ""
        dataset.ReferringPhysicianName = one.referring_physician
        if one.description:
            dataset.StudyDescription = one.description
        dataset.Manufacturer = MANUFACTURER
        dataset.ManufacturerModelName = MANUFACTURER
        dataset.SoftwareVersions = self.tool_version
        dataset.ContentDate, dataset.ContentTime = self.made_at[:8], self.made_at[8:]
        if self.offset:
            dataset.TimezoneOffsetFromUTC = self.offset

    def describe_scheme(self, dataset: Any) -> None:
        """Say what the private scheme of codes is (PS3.3, C.12.1.1.1)."""
        from pydicom.dataset import Dataset

        item = Dataset()
        item.CodingSchemeDesignator = SCHEME
        item.CodingSchemeName = SCHEME_NAME
        item.CodingSchemeResponsibleOrganization = MANUFACTURER
        dataset.CodingSchemeIdentificationSequence = sequence([item])

    def place(self, dataset: Any, segment: str) -> None:
        """Set the anatomic region of an endoscopic image (PS3.3, C.8.12.1), and an empty acquisition context."""
        dataset.AnatomicRegionSequence = sequence([code_item(site_code(segment))])
        if segment not in SITES:
            # Says what the private code of the whole tract does not: no paired part, so Laterality is absent.
            dataset.BodyPartExamined = "ABDOMEN"
        # A capsule turns as it likes.
        dataset.PatientOrientation = ""
        dataset.AcquisitionContextSequence = sequence([])
