"""Results and readings as DICOM objects: a structured report, key images, their selection, the video.

In: the result folder of a run or a reading, its recording, and whose examination it is. Out: DICOM files in a folder.
Must not know: the service, HTTP, the database. pydicom and highdicom (extra ``[dicom]``) are imported in functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_edge.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from .anonymising import Anonymiser, open_anonymiser
    from .codes import CodeMap, read_code_map
    from .exporting import Exported, export_findings
    from .findings import Finding, FindingsDocument, read_findings
    from .identity import Examination, examination_of_banner, merge_examinations, read_examination
    from .reading_pdf import make_reading_pdf
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        anonymising="Anonymiser open_anonymiser",
        codes="CodeMap read_code_map",
        identity="Examination examination_of_banner merge_examinations read_examination",
        exporting="Exported export_findings",
        findings="Finding FindingsDocument read_findings",
        reading_pdf="make_reading_pdf",
    )

__all__ = [
    "Anonymiser",
    "CodeMap",
    "Examination",
    "Exported",
    "Finding",
    "FindingsDocument",
    "examination_of_banner",
    "export_findings",
    "make_reading_pdf",
    "merge_examinations",
    "open_anonymiser",
    "read_code_map",
    "read_examination",
    "read_findings",
]
