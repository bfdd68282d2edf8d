"""Anonymise objects by the basic profile of DICOM (PS3.15, annex E), with UIDs mapped and dates shifted by a secret.

The secret is a file that the user keeps. With it, two exports of one patient stay together: the same identity gives the
same pseudonym, the same UID the same new one, and all dates of a patient move by the same number of days. Without it,
nobody can go back.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import os
import secrets
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import InputError, OutputError, PackageError

from .identity import Examination

__all__ = ["Anonymiser", "open_anonymiser"]

_BYTES = 32
# Attributes of the profile's table that objects are made with on purpose: mapped UIDs, the moved date, the pseudonym,
# and sequences that hold these alone.
_KEPT = (
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "StudyDate",
    "ContentDate",
    "ContentTime",
    "PatientName",
    "PatientID",
    "ContentSequence",
    "AcquisitionContextSequence",
    "SourceImageSequence",
)
# Dates move back by one to ten years, so that no date lies in the future.
_LEAST_DAYS, _MOST_DAYS = 365, 3650


@dataclass(frozen=True)
class Anonymiser:
    """Map identities, UIDs and dates with a secret.

    Attributes:
        secret: 32 random bytes.
    """

    secret: bytes = field(repr=False)

    def _digest(self, *parts: str) -> bytes:
        text = "\0".join(f"{len(part)}:{part}" for part in parts)
        return hmac.digest(self.secret, text.encode("utf-8", "surrogatepass"), hashlib.sha256)

    def map_uid(self, uid: str) -> str:
        """Return the new UID of an instance, series or study."""
        value = bytearray(self._digest("uid", uid)[:16])
        value[6] = value[6] & 0x0F | 0x80
        value[8] = value[8] & 0x3F | 0x80
        return f"2.25.{uuid.UUID(bytes=bytes(value)).int}"

    def anonymise(self, one: Examination) -> Examination:
        """Return a pseudonym in place of an examination: a derived identity, a moved date, and nothing else.

        Names, sex, birth date, accession number and texts are emptied (basic profile, actions Z and X).
        """
        pseudonym = "A" + self._digest("patient", one.issuer, one.patient_id).hex()[:15].upper()
        return Examination(
            patient_name=pseudonym,
            patient_id=pseudonym,
            accession_number="",
            procedure_date=self._move(one, one.procedure_date),
            study=self.map_uid(one.study),
        )

    def _move(self, one: Examination, date: str) -> str:
        """Return a date YYYYMMDD moved back by the patient's number of days."""
        digest = self._digest("days", one.issuer, one.patient_id)
        days = _LEAST_DAYS + int.from_bytes(digest[:8]) % (_MOST_DAYS - _LEAST_DAYS)
        moved = datetime.datetime.strptime(date, "%Y%m%d").date() - datetime.timedelta(days=days)
        return moved.strftime("%Y%m%d").zfill(8)

    def clean(self, dataset: Any) -> None:
        """Apply the basic profile to an object that was made for a pseudonym, and say so in it.

        The object was made with mapped UIDs, moved dates and without persons. dicom-anonymizer then applies the action
        of the profile to every attribute of its table; kept is only what this class or the object's definition gives.
        Private attributes are removed.

        Raises:
            PackageError: dicom-anonymizer is not installed.
        """
        from pydicom.datadict import tag_for_keyword

        library = _load_library()
        rules = {}
        for keyword in _KEPT:
            tag = int(tag_for_keyword(keyword) or 0)
            rules[tag >> 16, tag & 0xFFFF] = library.keep
        library.anonymize_dataset(dataset, rules, base_rules_gen=library.initialize_actions_2024b)
        # The library fills an emptied date with one of the year 1, which is no date of DICOM.
        dataset.PatientBirthDate = ""
        _describe(dataset)


def _load_library() -> Any:
    try:
        from dicomanonymizer import simpledicomanonymizer
    except ImportError as error:
        raise PackageError(
            f"anonymising DICOM needs {error.name}", hint="pip install 'capsule-edge[dicom]'"
        ) from None
    return simpledicomanonymizer


def _describe(dataset: Any) -> None:
    """Say in an object that it is anonymised, and how (PS3.15, E.1; PS3.3, C.7.1.1)."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "PS3.15 basic profile, dates moved, blanked outside the field"
    items = []
    for value, meaning in (
        ("113100", "Basic Application Confidentiality Profile"),
        ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    ):
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
        items.append(item)
    dataset.DeidentificationMethodCodeSequence = Sequence(items)
    dataset.LongitudinalTemporalInformationModified = "MODIFIED"


def open_anonymiser(path: Path) -> Anonymiser:
    """Return the anonymiser of a secret file, which is made where it is absent, readable by its owner alone.

    Raises:
        InputError: the file holds no secret.
        OutputError: the file cannot be made.
    """
    try:
        text = path.read_text("ascii")
    except FileNotFoundError:
        return Anonymiser(_make_secret(path))
    except (OSError, ValueError) as error:
        raise InputError(f"the secret '{path}' cannot be read: {type(error).__name__}") from None
    try:
        secret = bytes.fromhex(text.strip())
    except ValueError:
        secret = b""
    if len(secret) != _BYTES:
        raise InputError(
            f"'{path}' holds no secret, needed are {2 * _BYTES} hexadecimal digits",
            hint="name a new file to make a secret",
        )
    return Anonymiser(secret)


def _make_secret(path: Path) -> bytes:
    secret = secrets.token_bytes(_BYTES)
    try:
        # Never over a file that another export made meanwhile: two secrets would map one patient twice.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secret.hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(
            f"the secret '{path}' cannot be written: {error.strerror or type(error).__name__}",
            hint="name a file in a folder that you may write to",
        ) from None
    return secret
