"""Whose examination it is: from the DICOM object that was read, the banner of a reading, or a file.

Every source must agree with every other. An error names the attribute and never its value.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import InputError, PackageError

__all__ = [
    "Examination",
    "examination_of_banner",
    "examination_of_object",
    "merge_examinations",
    "read_examination",
    "require_whole",
]

# Keyword, tag, and most characters of each field (PS3.6; PS3.5, 6.2).
ATTRIBUTES: Mapping[str, tuple[str, int, int]] = {
    "patient_name": ("PatientName", 0x00100010, 64),
    "patient_id": ("PatientID", 0x00100020, 64),
    "issuer": ("IssuerOfPatientID", 0x00100021, 64),
    "birth_date": ("PatientBirthDate", 0x00100030, 8),
    "sex": ("PatientSex", 0x00100040, 16),
    "accession_number": ("AccessionNumber", 0x00080050, 16),
    "procedure_date": ("StudyDate", 0x00080020, 8),
    "procedure_time": ("StudyTime", 0x00080030, 14),
    "description": ("StudyDescription", 0x00081030, 64),
    "study_id": ("StudyID", 0x00200010, 16),
    "referring_physician": ("ReferringPhysicianName", 0x00080090, 64),
    "study": ("StudyInstanceUID", 0x0020000D, 64),
}
# Fields that must be known; the accession number may be known to be empty.
_NEEDED = ("patient_name", "patient_id", "procedure_date")
_DATES = ("birth_date", "procedure_date")
_HINT = (
    'give --patient FILE with {"patient_name": "...", "patient_id": "...", "accession_number": "...", '
    '"procedure_date": "2026-01-31"}'
)


@dataclass(frozen=True)
class Examination:
    """The patient and the procedure. Empty where a source does not say; None for an accession number not spoken of.

    Dates are YYYYMMDD, times HHMMSS. ``study`` is the Study Instance UID. None of it is shown in ``repr``.
    """

    patient_name: str = field(default="", repr=False)
    patient_id: str = field(default="", repr=False)
    issuer: str = field(default="", repr=False)
    birth_date: str = field(default="", repr=False)
    sex: str = field(default="", repr=False)
    accession_number: str | None = field(default=None, repr=False)
    procedure_date: str = field(default="", repr=False)
    procedure_time: str = field(default="", repr=False)
    description: str = field(default="", repr=False)
    study_id: str = field(default="", repr=False)
    referring_physician: str = field(default="", repr=False)
    study: str = field(default="", repr=False)


def named(name: str) -> str:
    """Return the keyword of a field with its tag."""
    keyword, tag, _ = ATTRIBUTES[name]
    return f"{keyword} ({tag >> 16:04X},{tag & 0xFFFF:04X})"


def read_examination(path: Path) -> Examination:
    """Return the examination that a JSON file names by the fields of ``Examination``, dates as YYYY-MM-DD.

    Raises:
        InputError: the file cannot be read, or a field is unknown or has a form that DICOM cannot carry.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        # Without the error's text: it may quote the file.
        raise InputError(
            f"the file of --patient cannot be read: {type(error).__name__}", hint=_HINT
        ) from None
    if not isinstance(document, dict):
        raise InputError("the file of --patient holds no JSON object", hint=_HINT)
    known = {each.name for each in fields(Examination)}
    if strange := len(set(document) - known):
        raise InputError(
            f"the file of --patient has {strange} unknown fields, allowed are {', '.join(sorted(known))}",
            hint=_HINT,
        )
    return _checked(document, "the file of --patient")


def examination_of_banner(banner: Mapping[str, Any]) -> Examination:
    """Return the examination of a reading's banner (``examination`` of ``capsule-edge/reading/1``).

    An empty accession number counts as not spoken of.

    Raises:
        InputError: a field has a form that DICOM cannot carry.
    """
    names = ("patient_name", "patient_id", "birth_date", "accession_number", "procedure_date")
    given = {name: banner[name] for name in names if banner.get(name)}
    typed = given.get("patient_name", "")
    if typed and "^" not in typed:
        # "Doe, Jane" is a name of two components; any other is a single one, which a "^" marks (PS3.5, 6.2.1).
        family, _, rest = typed.partition(",")
        given["patient_name"] = f"{family.strip()}^{rest.strip()}"
    return _checked(given, "the examination of the reading")


def examination_of_object(path: Path) -> Examination:
    """Return the examination that a DICOM object belongs to. Its texts are decoded by its character sets.

    Raises:
        InputError: the object cannot be read, or an attribute has a form that cannot be carried.
        PackageError: pydicom is not installed.
    """
    try:
        import pydicom
    except ImportError:
        raise PackageError("DICOM needs pydicom", hint="pip install 'capsule-edge[dicom]'") from None
    import warnings

    tags = [tag for _, tag, _ in ATTRIBUTES.values()]
    found: dict[str, Any] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
            dataset.decode()
            for name, (keyword, _, _) in ATTRIBUTES.items():
                if keyword in dataset:
                    found[name] = str(dataset.get(keyword) or "")
    except Exception as error:
        found_error = type(error).__name__
    else:
        for name in _DATES:
            # The older form with dots (PS3.5, 6.2, note of DA).
            found[name] = found.get(name, "").replace(".", "")
        if "procedure_time" in found:
            found["procedure_time"] = found["procedure_time"].partition(".")[0].replace(":", "")
        return _checked(found, "the DICOM object")
    raise InputError(
        f"the DICOM object of the recording does not say whose it is: {found_error}",
        hint="copy it again from the archive",
    )


def _checked(given: Mapping[str, Any], source: str) -> Examination:
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name == "accession_number" and value is None:
            continue
        if not isinstance(value, str):
            raise InputError(f"{named(name)} of {source} is no text", hint=_HINT)
        text = value.strip()
        longest = ATTRIBUTES[name][2]
        if name in _DATES and text:
            text = _date(name, text, source)
        groups = text.split("=") if name in ("patient_name", "referring_physician") else [text]
        if len(groups) > 3 or any(len(group) > longest for group in groups):
            raise InputError(
                f"{named(name)} of {source} is too long, allowed are {longest} characters", hint=_HINT
            )
        if "\\" in text or any(ord(each) < 32 or ord(each) == 127 for each in text):
            raise InputError(f"{named(name)} of {source} has a backslash or a control character", hint=_HINT)
        if name == "study" and text and not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+", text):
            raise InputError(f"{named(name)} of {source} is no UID", hint=_HINT)
        if name == "sex" and text not in ("", "M", "F", "O"):
            raise InputError(f"{named(name)} of {source} is none of M, F, O", hint=_HINT)
        if name == "procedure_time" and not re.fullmatch(r"(\d\d){0,3}", text):
            raise InputError(f"{named(name)} of {source} is no time HHMMSS", hint=_HINT)
        values[name] = text
    return Examination(**values)


def _date(name: str, text: str, source: str) -> str:
    """Return a date as DICOM has it."""
    for form in ("%Y-%m-%d", "%Y%m%d"):
        try:
            return datetime.datetime.strptime(text, form).strftime("%Y%m%d").zfill(8)
        except ValueError:
            pass
    raise InputError(f"{named(name)} of {source} is no date YYYY-MM-DD", hint=_HINT)


def merge_examinations(sources: Sequence[tuple[str, Examination]]) -> Examination:
    """Return what the sources say together.

    Args:
        sources: each with its name for the error message. The first that says something is taken.

    Raises:
        InputError: two sources contradict each other.
    """
    merged = Examination()
    said: dict[str, list[tuple[str, str]]] = {name: [] for name in ATTRIBUTES}
    for source, one in sources:
        for name in ATTRIBUTES:
            value, known = getattr(one, name), getattr(merged, name)
            if not value and not (name == "accession_number" and value == "" and known is None):
                continue
            # Each is compared with all before: two may agree with a shorter one, and not with each other.
            for earlier, other in said[name] if value else ():
                if not _agree(name, other, value):
                    raise InputError(
                        f"{named(name)} of {earlier} and of {source} are not the same",
                        hint="find out whose examination it is; nothing was exported",
                    )
            if value:
                said[name].append((source, value))
            if not known:
                merged = replace(merged, **{name: value})
    return merged


def _agree(name: str, one: str, other: str) -> bool:
    """Return whether two values say the same, by whatever way they are written."""
    if name == "procedure_time":
        return one.ljust(6, "0") == other.ljust(6, "0")
    if name not in ("patient_name", "referring_physician"):
        return one == other
    # The scripts of a name: alphabetic, ideographic, phonetic (PS3.5, 6.2.1.2). What both sources have must agree.
    groups, others = _name_groups(one), _name_groups(other)
    shared = [pair for pair in zip(groups, others, strict=False) if all(pair)]
    return all(first == second for first, second in shared) if shared else "".join(groups) == "".join(others)


def _name_groups(value: str) -> list[str]:
    # "Doe, Jane" of a banner is "Doe^Jane" of DICOM.
    return [" ".join(re.split(r"[\s,^]+", group.casefold())).strip() for group in value.split("=")]


def require_whole(examination: Examination) -> None:
    """Raise ``InputError`` where it is not known whose examination it is."""
    absent = [named(name) for name in _NEEDED if not getattr(examination, name)]
    if examination.accession_number is None:
        absent.append(named("accession_number"))
    if absent:
        raise InputError(
            f"it is not known whose the examination is: {', '.join(absent)} is not said", hint=_HINT
        )
