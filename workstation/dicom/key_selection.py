"""The selection of key images (Key Object Selection; TID 2010), and the report of a reading as Encapsulated PDF."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .common_modules import MANUFACTURER, ObjectMaker, file_meta, sequence
from .structured_report import settle

__all__ = ["make_key_selection", "make_pdf_object"]

_EXPLICIT = "1.2.840.10008.1.2.1"
_PDF_CLASS = "1.2.840.10008.5.1.4.1.1.104.1"


def make_key_selection(maker: ObjectMaker, images: Sequence[Any], *, sop_instance: str, series: str) -> Any:
    """Return the object that names the key images.

    Args:
        maker: of the examination.
        images: the key images, one or more.
        sop_instance, series: UIDs.
    """
    from highdicom import ko
    from pydicom.sr.codedict import codes as known

    content = ko.KeyObjectSelection(
        document_title=known.DCM.OfInterest,
        referenced_objects=list(images),
        description="Pictures of findings, preliminary. A physician must confirm them.",
    )
    selection = ko.KeyObjectSelectionDocument(
        evidence=list(images),
        content=content,
        series_instance_uid=series,
        series_number=4,
        sop_instance_uid=sop_instance,
        instance_number=1,
        manufacturer=MANUFACTURER,
    )
    selection.SeriesDescription = "Key images of capsule-edge"
    settle(selection, maker)
    return selection


def make_pdf_object(maker: ObjectMaker, pdf: bytes, *, sop_instance: str, series: str, title: str) -> Any:
    """Return a PDF as an object of the study (PS3.3, A.45.1).

    Args:
        maker: of the examination.
        pdf: the bytes of the document.
        sop_instance, series: UIDs.
        title: of the document; it names no patient.
    """
    dataset = maker.begin(_PDF_CLASS, sop_instance, series, 5, "DOC")
    dataset.SeriesDescription = "Report of a reading, preliminary"
    dataset.ConversionType = "WSD"
    dataset.BurnedInAnnotation = "YES"
    dataset.AcquisitionDateTime = ""
    dataset.DocumentTitle = title
    dataset.ConceptNameCodeSequence = sequence([])
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.add_new(0x00420011, "OB", pdf + bytes(len(pdf) % 2))
    dataset.EncapsulatedDocumentLength = len(pdf)
    dataset.file_meta = file_meta(dataset, _EXPLICIT)
    return dataset
