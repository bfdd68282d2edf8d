"""The DICOM objects that a recording was read from, for a report to refer to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import InputError
from capsule_edge.runtime.recording import Container, ImageSeries, is_dicom, quote

from .frame_numbers import number_frames
from .structured_report import Reference

__all__ = ["RecordedObjects", "read_recorded_objects"]

# What a report must know of an object to refer to it.
_NEEDED = (
    "SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID PatientID PatientName PatientBirthDate PatientSex"
    " StudyDate StudyTime StudyID AccessionNumber ReferringPhysicianName NumberOfFrames Rows Columns"
    " TimezoneOffsetFromUTC LossyImageCompression LossyImageCompressionMethod LossyImageCompressionRatio"
)


_IDENTIFIERS = {
    "SOPClassUID": "0008,0016",
    "SOPInstanceUID": "0008,0018",
    "StudyInstanceUID": "0020,000D",
    "SeriesInstanceUID": "0020,000E",
}


@dataclass(frozen=True)
class RecordedObjects:
    """The objects that hold the recording.

    Attributes:
        paths: of the files that were read; empty for an object that the export makes.
        evidence: the objects, without their pixel data.
        references: to the picture of each frame; None where there is none.
    """

    paths: tuple[Path, ...]
    evidence: tuple[Any, ...] = field(repr=False)
    references: Sequence[Reference | None] = field(repr=False)

    @property
    def utc_offset(self) -> str:
        """The offset of the objects' times from UTC (``+0100``); empty unless all say the same."""
        said = {str(each.get("TimezoneOffsetFromUTC") or "") for each in self.evidence}
        (one, *others) = said or {""}
        return one if not others and re.fullmatch(r"[+-](0\d|1[0-4])[0-5]\d", one) else ""

    def object_of(self, index: int) -> Any:
        """Return the object that holds a frame."""
        reference = self.references[index]
        if reference is None:
            return self.evidence[0]
        return next(each for each in self.evidence if str(each.SOPInstanceUID) == reference[1])


def read_recorded_objects(container: Container) -> RecordedObjects | None:
    """Return the DICOM objects of a recording; None where it was read from another kind of file.

    Raises:
        InputError: an object lacks a UID, so that nothing can refer to it.
    """
    if container.place.fragments:
        found = _read(container.path)
        numbers = number_frames(container) or [None] * container.frames
        uid = (str(found.SOPClassUID), str(found.SOPInstanceUID))
        video: list[Reference | None] = [None if number is None else (*uid, number) for number in numbers]
        return RecordedObjects((container.path,), (found,), video)
    if not isinstance(container, ImageSeries) or not is_dicom(container.places[0][0]):
        return None
    places = container.places
    paths = tuple(dict.fromkeys(path for path, _ in places))
    objects = {path: _read(path) for path in paths}
    pictures: list[Reference | None] = [_picture(objects[path], page) for path, page in places]
    return RecordedObjects(paths, tuple(objects.values()), pictures)


def _picture(found: Any, page: int) -> Reference:
    uid = (str(found.SOPClassUID), str(found.SOPInstanceUID))
    return (*uid, page + 1) if int(found.get("NumberOfFrames", 1) or 1) > 1 else (*uid, None)


def _read(path: Path) -> Any:
    import warnings

    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_NEEDED.split()))
        for keyword, tag in _IDENTIFIERS.items():
            if not re.fullmatch(r"[0-9.]{1,64}", str(found.get(keyword) or "")):
                raise InputError(
                    f"{quote(path)} does not say {keyword} ({tag}), by which a report refers to it",
                    hint="export it again from the archive",
                )
    return found
