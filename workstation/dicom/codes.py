"""Codes for findings, landmarks and quality: a scheme of our own, and a map of the user's to another.

The scheme ``99CAPSULEEDGE`` is private (PS3.3, 8.2) and its codes never change their meaning. A label of another model
gets a code that is derived from its key. Sites and units are the codes that DICOM itself publishes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import InputError

__all__ = [
    "CONCEPTS",
    "OWN_WORDS",
    "SCHEME",
    "SCHEME_NAME",
    "Code",
    "CodeMap",
    "label_code",
    "one_line",
    "read_code_map",
]

SCHEME = "99CAPSULEEDGE"
SCHEME_NAME = "capsule-edge private codes for capsule endoscopy"
# Beginning of a label in the reader's own words (``capsule-edge/reading/1``); the whole label of unnamed ones.
OWN_WORDS = "other: "
# Lengths of Code Value and Coding Scheme Designator (SH) and Code Meaning (LO), characters.
_SHORT, _LONG = 16, 64
_HINT = 'write {"licence": "...", "codes": {"ulcer": {"value": "...", "scheme": "...", "meaning": "..."}}}'


@dataclass(frozen=True)
class Code:
    """A coded concept: its value, the scheme that defines the value, and its meaning in English."""

    value: str
    scheme: str
    meaning: str


def _own(value: str, meaning: str) -> Code:
    return Code(value, SCHEME, meaning)


# By key of a label. New codes are added at the end; a number is never used again.
_LABELS: Mapping[str, Code] = {
    key: _own(value, meaning)
    for key, value, meaning in (
        ("normal", "F0001", "Normal mucosa"),
        ("angioectasia", "F0002", "Angioectasia"),
        ("bleeding", "F0003", "Bleeding"),
        ("erosion", "F0004", "Erosion"),
        ("erythema", "F0005", "Erythema"),
        ("foreign_body", "F0006", "Foreign body"),
        ("lymphangiectasia", "F0007", "Lymphangiectasia"),
        ("polyp", "F0008", "Polyp"),
        ("ulcer", "F0009", "Ulcer"),
        ("worms", "F0010", "Worms"),
        ("blood_fresh", "F0011", "Fresh blood"),
        ("blood_hematin", "F0012", "Haematin"),
        ("stomach", "L0001", "First picture of the stomach"),
        ("small-bowel", "L0002", "First picture of the duodenum"),
        ("colon", "L0003", "First picture of the caecum"),
        ("end", "L0004", "End of the examination"),
        ("pylorus", "L0005", "Pylorus"),
        ("ampulla_of_vater", "L0006", "Ampulla of Vater"),
        ("ileocecal_valve", "L0007", "Ileocaecal valve"),
        ("reduced_mucosal_view", "Q0001", "Reduced mucosal view"),
        (OWN_WORDS, "F0013", "Finding in the reader's own words"),
    )
}
# Names of measurements and evaluations, by keyword.
CONCEPTS: Mapping[str, Code] = {
    "score": _own("M0001", "Score: estimated probability of the finding"),
    "precision": _own("M0002", "Measured precision of suggestions of like score"),
    "precision_low": _own("M0003", "Lower bound of the measured precision (95 %)"),
    "precision_high": _own("M0004", "Upper bound of the measured precision (95 %)"),
    "precision_count": _own("M0005", "Number of suggestions behind the precision"),
    "start": _own("M0006", "Start of the stretch, container time"),
    "end": _own("M0007", "End of the stretch, container time"),
    "time": _own("M0008", "Time of the key picture, container time"),
    "index": _own("M0009", "Number of the key picture, from 1"),
    "review": _own("E0001", "Review by a physician"),
    "unreviewed": _own("E0002", "Not reviewed: a suggestion of software"),
    "confirmed": _own("E0003", "Confirmed in a preliminary reading"),
    "relabelled": _own("E0004", "Given another name in a preliminary reading"),
    "added": _own("E0005", "Added in a preliminary reading"),
    "own_label": _own("E0006", "Finding in the codes of capsule-edge"),
    "none": _own("E0007", "No suggestion by the software"),
    "none_read": _own("E0008", "No finding confirmed or added in a preliminary reading"),
    "procedure": _own("P0001", "Capsule endoscopy"),
    "tract": _own("S0001", "Gastrointestinal tract"),
}


def one_line(text: str, longest: int) -> str:
    """Return a text as a DICOM element of one value can hold it; one that is too long ends in "...".

    A backslash would part it into two values, and a control character is not allowed (PS3.5, 6.2): both become blanks.
    """
    line = "".join(each if each.isprintable() and each != "\\" else " " for each in text).strip()
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


def label_code(key: str, name: str) -> Code:
    """Return our code of a label.

    Args:
        key: of the label in the model file.
        name: for people; the meaning of a label that has no code yet.
    """
    known = _LABELS.get(key)
    if known is not None:
        return known
    digest = hashlib.sha256(key.encode()).hexdigest()
    return _own(f"X{digest[:12].upper()}", one_line(name, _LONG) or one_line(key, _LONG) or "Finding")


@dataclass(frozen=True)
class CodeMap:
    """The user's codes for labels.

    Attributes:
        codes: by key of the label.
        licence: on what terms the codes may be used, as the map states it.
        sha256: of the file.
    """

    codes: Mapping[str, Code] = field(default_factory=dict)
    licence: str = ""
    sha256: str = ""

    @property
    def remark(self) -> str:
        """The line of a report about the map; empty for the empty map."""
        if not self.codes:
            return ""
        if not self.licence:
            return "Codes of findings by a map of the user."
        return f"Codes of findings by a map of the user (SHA-256 {self.sha256}). Licence: {self.licence}"

    def without_licence(self) -> CodeMap:
        """Return the codes alone: the licence may name whose it is, and the hash tells the file that names it."""
        return CodeMap(self.codes)


def read_code_map(path: Path) -> CodeMap:
    """Return the codes of a map, a JSON file with ``licence`` and ``codes``.

    Raises:
        InputError: the file cannot be read, states no licence, or holds a code that DICOM cannot carry.
    """
    try:
        data = path.read_bytes()
        document = json.loads(data)
    except (OSError, ValueError) as error:
        raise InputError(
            f"the map of codes '{path}' cannot be read: {type(error).__name__}", hint=_HINT
        ) from None
    if not isinstance(document, dict) or not isinstance(document.get("codes"), dict):
        raise InputError(f"the map of codes '{path}' has no object \"codes\"", hint=_HINT)
    licence = document.get("licence")
    if not isinstance(licence, str) or not licence.strip():
        raise InputError(
            f"the map of codes '{path}' states no licence",
            hint='write the terms of its codes, for example {"licence": "SNOMED CT affiliate licence of ..."}',
        )
    codes = {str(key): _read_code(path, str(key), value) for key, value in document["codes"].items()}
    return CodeMap(codes, licence.strip(), hashlib.sha256(data).hexdigest())


def _read_code(path: Path, key: str, value: Any) -> Code:
    fields = (("value", _SHORT), ("scheme", _SHORT), ("meaning", _LONG))
    found = []
    for name, longest in fields:
        text = value.get(name) if isinstance(value, dict) else None
        if (
            not isinstance(text, str)
            or not 0 < len(text) <= longest
            or "\\" in text
            or not text.isprintable()
        ):
            raise InputError(
                f"the map of codes '{path}' has a {name} for {key!r} that is no text of 1 to {longest} characters",
                hint=_HINT,
            )
        found.append(text)
    return Code(*found)
