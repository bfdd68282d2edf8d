"""The form of readings, decisions and their requests, for OpenAPI."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from .documents import Fault, Line

__all__ = [
    "Act",
    "Decision",
    "DecisionChange",
    "Examination",
    "ExaminationChange",
    "Export",
    "ExportList",
    "LandmarkChange",
    "LogState",
    "NewFinding",
    "NewReading",
    "Progress",
    "Reading",
    "ReadingChange",
    "SeenFrames",
    "UndoChange",
    "Undone",
]

Way = Literal["suggestions_first", "everything", "hidden_first"]
Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
FrameIndex = Annotated[int, Field(ge=0, le=10**9)]
Version = Annotated[int, Field(ge=0, le=2**53)]
Span = Annotated[list[FrameIndex], Field(min_length=2, max_length=2)]
Spans = Annotated[list[Span], Field(max_length=5000)]


def _example(**values: Any) -> ConfigDict:
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [values]})


class NewReading(BaseModel):
    """Name of the reader and the way to read."""

    model_config = _example(reader="Dr. Ada Reader", way="suggestions_first")

    reader: Line
    way: Way
    result: Line | None = None


class ReadingChange(BaseModel):
    """Another way to read, or the end of the first pass."""

    model_config = _example(way="everything")

    way: Way | None = None
    pass_: Annotated[Literal["second"] | None, Field(alias="pass")] = None
    reader: Line | None = None


class DecisionChange(BaseModel):
    """A decision, and the version of the decision that the reader saw (0 where there was none).

    ``result_id`` names the result whose suggestions the reader saw.
    """

    model_config = _example(verdict="relabelled", label="bleeding", comment="", version=0, seconds=4.2)

    verdict: Literal["confirmed", "rejected", "relabelled", "undecided", "added", "removed"]
    version: Version
    result_id: Line | None = None
    label: Line | None = None
    comment: Line = ""
    seconds: Seconds | None = None
    start_index: FrameIndex | None = None
    end_index: FrameIndex | None = None
    key_index: FrameIndex | None = None
    reader: Line | None = None


class NewFinding(BaseModel):
    """A finding of the reader's own on the frames [start_index, end_index). ``id`` allows to send it again."""

    model_config = _example(label="other: diverticulum", start_index=120, end_index=131, key_index=124)

    label: Line
    start_index: FrameIndex
    end_index: FrameIndex
    key_index: FrameIndex | None = None
    comment: Line = ""
    seconds: Seconds | None = None
    id: Line | None = None
    reader: Line | None = None


class UndoChange(BaseModel):
    """The line of the log that is to be undone; null for the last that can be."""

    model_config = _example(sequence=17)

    sequence: Version | None = None
    reader: Line | None = None


class LandmarkChange(BaseModel):
    """The frame of a landmark, and optionally the version that the reader saw."""

    model_config = _example(index=412, version=0)

    index: FrameIndex
    version: Version | None = None
    reader: Line | None = None


class SeenFrames(BaseModel):
    """Frames [start, end) that were seen or skimmed, and the seconds of active reading, since the last report."""

    model_config = _example(seen=[[0, 40], [55, 60]], skimmed=[[60, 300]], seconds=5.0)

    seen: Spans = []
    skimmed: Spans = []
    seconds: Seconds = 0.0
    reader: Line | None = None


class Act(BaseModel):
    """Name of the person who finishes or reopens a reading; null for the one who opened it."""

    model_config = _example(reader="Dr. Ada Reader")

    reader: Line | None = None


class ExaminationChange(BaseModel):
    """Fields of the examination that change; a field that is left out is kept."""

    model_config = _example(
        reader="Dr. Ada Reader", version=0, patient_name="Doe, Jane", birth_date="1950-02-28"
    )

    reader: Line
    version: Version
    patient_name: Line | None = None
    patient_id: Line | None = None
    birth_date: Line | None = None
    accession_number: Line | None = None
    procedure_date: Line | None = None
    indication: Line | None = None
    preparation: Line | None = None


class Examination(BaseModel):
    """The examination as it is now."""

    examination: dict[str, str]
    examination_version: int


class Progress(BaseModel):
    """Progress of a reading. ``suggestions`` is null while they are hidden; shares are 0 to 1."""

    suggestions: int | None
    decided: int
    seen_share: float | None
    skimmed_share: float | None
    seen_share_small_bowel: float | None
    seconds: float
    version: int


class Decision(BaseModel):
    """A decision on a suggestion, or a finding of the reader's own."""

    target: str
    verdict: str
    label: str | None
    start_index: int | None
    end_index: int | None
    key_index: int | None
    comment: str
    reader: str
    seconds: float | None
    decided_at: str
    version: int
    progress: Progress | None = None


class Landmark(BaseModel):
    """A landmark of a reading, who set it there and when."""

    index: int
    time_s: float
    version: int
    reader: str
    set_at: str | None


class Transit(BaseModel):
    """Transit times in seconds of capture time; null where a landmark or the capture rate is unknown."""

    gastric_s: float | None
    gastric_from: str | None
    small_bowel_s: float | None
    colon_s: float | None
    clock: str | None
    unknown_for_lack_of: str | None


class Coverage(BaseModel):
    """Frames [start, end) that a human has seen or skimmed."""

    seen: list[list[int]]
    skimmed: list[list[int]]


class Reading(BaseModel):
    """A reading of a study. ``reader`` opened it; ``readers`` are all who acted in it, each act in the log by name.

    ``undoable`` is the line of the log that ``undo`` would undo.
    """

    model_config = ConfigDict(populate_by_name=True)

    id: str
    study_id: str
    result_id: str
    reader: str
    readers: list[str]
    way: Way
    pass_: Annotated[Literal["first", "second"], Field(alias="pass")]
    state: Literal["open", "finished"]
    suggestions_hidden: bool
    opened_at: str
    finished_at: str | None
    version: int
    decisions: list[Decision]
    landmarks: dict[str, Landmark]
    transit: Transit
    coverage: Coverage
    progress: Progress
    undoable: int | None
    head_hash: str


class Undone(BaseModel):
    """The action that was undone, and the reading as it is now."""

    undone: int
    action: str
    target: str
    state: dict[str, Any] | None
    reading: Reading


class Export(BaseModel):
    """A file that can be exported; ``path`` is below ``/v1``."""

    name: str
    path: str
    media_type: str
    reading_id: str | None = None
    reader: str | None = None


class ExportList(BaseModel):
    """The files that can be exported, and the last hash of the study's log."""

    exports: list[Export]
    head_hash: str


class LogState(BaseModel):
    """State of the log of a study: whole, or its first fault."""

    valid: bool
    head: str
    lines: int
    fault: Fault | None = None
