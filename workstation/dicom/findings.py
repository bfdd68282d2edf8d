"""The findings of a result folder or of a reading, as plain records: what the DICOM objects are made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from capsule_edge.runtime.errors import InputError

from .codes import OWN_WORDS

__all__ = ["Finding", "FindingsDocument", "Precision", "read_findings"]

Review = Literal["unreviewed", "confirmed", "relabelled", "added"]
_STUDIES = ("capsule-edge/study/1", "capsule-edge/study/2")
_READING = "capsule-edge/reading/1"
# Name of a finding in the reader's own words, where the words are left out.
_UNNAMED = "Finding in the reader's own words"


@dataclass(frozen=True)
class Precision:
    """The measured precision of suggestions of like score: estimate and interval (0..1), their number, and on what."""

    estimate: float
    low: float
    high: float
    count: int
    measured_on: str


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        number: stable name of the finding in its document.
        label, name: key of the label, and its name for people.
        key_index: index of the picture that shows it.
        start_s, end_s: the stretch in seconds of container time, half-open; None where it is not known.
        score: estimated probability; None for a finding that a reader added.
        precision: None where the model states none.
        segment: segment of the gut, where landmarks tell; or empty.
        review: what a physician said of it.
        comment: of the reader.
        reader: name of the reader who decided; empty where nobody did.
    """

    number: str
    label: str
    name: str
    key_index: int
    start_s: float | None
    end_s: float | None
    score: float | None
    precision: Precision | None = None
    segment: str = ""
    review: Review = "unreviewed"
    comment: str = field(default="", repr=False)
    reader: str = field(default="", repr=False)


@dataclass(frozen=True)
class FindingsDocument:
    """The findings of one recording, and what they come from.

    Attributes:
        digest: SHA-256 of the document's content; a changed reading has another.
        recording_sha256: of the recording.
        tool_version: of capsule-edge that read the recording.
        model: ``name``, ``version``, ``sha256``, ``precision``, ``backend``.
        intended_use: the model's own words.
        findings: in the order of the document.
        left_out: number of suggestions that were rejected or not decided in a reading.
        readers: names of all who read, first the one who opened the reading; none for a result without a reading.
        state: of the reading: ``open`` or ``finished``; empty for a result without a reading.
        made_at: UTC of the reading's end, or of its last decision while it is open, ISO 8601; empty for a result, which
            holds no clock.
        banner: the examination of a reading.
        identity: name of the document over its versions.
        reading: the document of a reading, for its report; None for a result.
        box: (left, top, width, height) of the field of view in a frame, pixels; None where it is not known.
        stream: number of the video stream that was read; None for the one with most pictures, which the workstation
            reads.
    """

    digest: str
    recording_sha256: str
    tool_version: str
    model: Mapping[str, str]
    intended_use: str
    findings: tuple[Finding, ...]
    left_out: int = 0
    readers: tuple[str, ...] = field(default=(), repr=False)
    state: Literal["", "open", "finished"] = ""
    made_at: str = ""
    banner: Mapping[str, Any] = field(default_factory=dict, repr=False)
    identity: str = ""
    reading: Mapping[str, Any] | None = field(default=None, repr=False)
    box: tuple[int, int, int, int] | None = None
    stream: int | None = None

    def without_people(self) -> FindingsDocument:
        """Return the document without the readers' names, words and comments, the clock and the banner.

        The findings are numbered anew: the number of one that was added is a name in the workstation's database.
        """
        findings = tuple(_without_words(each, number) for number, each in enumerate(self.findings, 1))
        return replace(self, findings=findings, readers=(), made_at="", banner={}, reading=None)


def _without_words(finding: Finding, number: int) -> Finding:
    if finding.label.startswith(OWN_WORDS):
        finding = replace(finding, label=OWN_WORDS, name=_UNNAMED)
    return replace(finding, number=f"finding {number}", comment="", reader="")


def read_findings(path: Path) -> FindingsDocument:
    """Return the findings of a result folder (or its ``study.json``) or of a reading (a JSON file).

    Raises:
        InputError: the path holds neither, or the document lacks a field.
    """
    file = path / "study.json" if path.is_dir() else path
    try:
        document = json.loads(file.read_bytes())
        schema = document.get("schema") if isinstance(document, dict) else None
    except (OSError, ValueError) as error:
        raise InputError(
            f"'{file}' cannot be read: {type(error).__name__}",
            hint="give the folder that run wrote, or the JSON file of a reading",
        ) from None
    try:
        if schema in _STUDIES:
            return _of_study(document)
        if schema == _READING:
            return _of_reading(document)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(
            f"'{file}' is no whole {schema}: {type(error).__name__}", hint="read the recording again"
        ) from None
    raise InputError(
        f"'{file}' has schema {str(schema)[:40]!r}, read are {', '.join((*_STUDIES, _READING))}",
        hint="give the folder that run wrote, or the JSON file of a reading",
    )


def _digest(document: Mapping[str, Any]) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _model(document: Mapping[str, Any]) -> dict[str, str]:
    names = ("name", "version", "sha256", "precision", "backend")
    return {name: str(document["model"].get(name) or "") for name in names}


def _of_study(document: Mapping[str, Any]) -> FindingsDocument:
    places = {each["event"]: each["segment"] for each in document["landmarks"].get("positions") or ()}
    events = {each["id"]: each for each in document["events"]}
    suggestions = document.get("suggestions")
    if suggestions is None:
        # Study 1 has no suggestions: each event with a finding is one.
        suggestions = [
            {"id": each["id"], "label": each["label"], "events": [each["id"]], "score": each["peak_p"]}
            for each in document["events"]
            if each["role"] == "finding"
        ]
    return FindingsDocument(
        digest=_digest(document),
        recording_sha256=document["source"]["sha256"],
        tool_version=str(document["tool"]["version"]),
        model=_model(document),
        intended_use=document["intended_use"],
        findings=tuple(_suggested(each, events, places) for each in suggestions),
        identity=f"result {document['source']['sha256']}",
        box=_box(document["source"].get("field_of_view")),
        stream=_stream(document["tool"]),
    )


def _stream(tool: Mapping[str, Any]) -> int | None:
    found = tool.get("options", {}).get("stream")
    return None if found is None else int(found)


def _box(document: Mapping[str, Any] | None) -> tuple[int, int, int, int] | None:
    if document is None:
        return None
    left, top, width, height = (int(document[name]) for name in ("left", "top", "width", "height"))
    return left, top, width, height


def _suggested(
    suggestion: Mapping[str, Any], events: Mapping[int, Any], places: Mapping[int, Any]
) -> Finding:
    # The first event is the best one: its peak is the picture that report.html shows.
    best = events[suggestion["events"][0]]
    label = str(suggestion["label"])
    return Finding(
        number=str(suggestion["id"]),
        label=label,
        name=label.replace("_", " ").capitalize(),
        key_index=int(best["peak_index"]),
        start_s=float(best["start_s"]),
        end_s=float(best["end_s"]),
        score=float(suggestion["score"]),
        precision=_precision(suggestion.get("precision")),
        segment=places.get(best["id"]) or "",
    )


def _precision(document: Mapping[str, Any] | None) -> Precision | None:
    if document is None:
        return None
    return Precision(
        float(document["estimate"]),
        float(document["low"]),
        float(document["high"]),
        int(document["n"]),
        str(document["measured_on"]),
    )


def _of_reading(document: Mapping[str, Any]) -> FindingsDocument:
    decided = [each for each in document["suggestions"] if each["verdict"] in ("confirmed", "relabelled")]
    findings = [_decided(each) for each in decided] + [_added(each) for each in document["findings"]]
    reading = document["reading"]
    return FindingsDocument(
        digest=_digest(document),
        recording_sha256=document["recording"]["sha256"],
        tool_version=str(document["model"]["tool_version"]),
        model=_model(document),
        intended_use=document["intended_use"],
        findings=tuple(findings),
        left_out=len(document["suggestions"]) - len(decided),
        readers=_readers(document),
        state="finished" if reading["state"] == "finished" else "open",
        made_at=str(reading["finished_at"] or _last_decision(document)),
        banner=document["examination"],
        identity=f"reading {reading['id']}",
        reading=document,
    )


def _readers(document: Mapping[str, Any]) -> tuple[str, ...]:
    reading = document["reading"]
    decisions = (*document["suggestions"], *document["findings"])
    names = [reading["reader"], *reading.get("readers", ()), *(each.get("reader") for each in decisions)]
    return tuple(dict.fromkeys(str(name) for name in names if name))


def _last_decision(document: Mapping[str, Any]) -> str:
    """Return the time of the last decision in a reading that is open, or of its opening."""
    decided = [each["decided_at"] for each in (*document["suggestions"], *document["findings"])]
    return max(str(each) for each in (document["reading"]["opened_at"], *decided) if each)


def _decided(each: Mapping[str, Any]) -> Finding:
    label = each["decided_label"] or each
    return Finding(
        number=f"suggestion {each['id']}",
        label=str(label["label"]),
        name=str(label["name"]),
        key_index=int(each["key"]["index"]),
        start_s=None,
        end_s=None,
        score=float(each["score"]) if each["verdict"] == "confirmed" else None,
        precision=_precision(each["precision"]) if each["verdict"] == "confirmed" else None,
        segment=each["key"]["segment"] or "",
        review=each["verdict"],
        comment=str(each["comment"]),
        reader=str(each.get("reader") or ""),
    )


def _added(each: Mapping[str, Any]) -> Finding:
    return Finding(
        number=f"finding {each['id']}",
        label=str(each["label"]),
        name=str(each["name"]),
        key_index=int(each["key"]["index"]),
        start_s=None,
        end_s=None,
        score=None,
        segment=each["key"]["segment"] or "",
        review="added",
        comment=str(each["comment"]),
        reader=str(each.get("reader") or ""),
    )
