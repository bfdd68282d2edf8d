"""Write a recording or a pipe as JSON lines while it is read, for programs in any language.

    {"type": "start", ...}    the model and its labels
    {"type": "frame", ...}    each frame, in order, once its status is final
    {"type": "event", ...}    each event, once no later frame can change it
    {"type": "end", ...}      how the frames add up, and the exit code; or
    {"type": "error", ...}    why the recording was not read to its end

The schema is "capsule-edge/lines/2" (``schema/lines.schema.json``). Each line is flushed at once. A slow reader makes
the run wait, so no line is lost and none pile up.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from ..inference import ModelSpec, most_probable
from ..results import event_document, ledger_document, rounded, warnings_document
from ..study import Event, FrameRecord, Ledger

if TYPE_CHECKING:
    from ..recording import RecordingWarning

__all__ = ["SCHEMA", "Lines"]

SCHEMA = "capsule-edge/lines/2"


class Lines:
    """Write the lines of one recording.

    Args:
        out: text stream that takes the lines.
        recording: name of the recording, written into the lines.
        spec: the model's spec.
    """

    def __init__(self, out: TextIO, recording: str, spec: ModelSpec) -> None:
        self._out, self._recording, self._spec = out, recording, spec
        self._events = 0

    def start(self, *, model_sha256: str, backend: str) -> None:
        """Write the first line: the model and its labels."""
        spec = self._spec
        self._write(
            "start",
            schema=SCHEMA,
            recording=self._recording,
            model={
                "name": spec.name,
                "version": spec.version,
                "sha256": model_sha256,
                "precision": spec.precision,
                "backend": backend,
            },
            labels=[{"key": label.key, "name": label.name, "role": label.role} for label in spec.labels],
            intended_use=spec.intended_use,
        )

    def frame(self, record: FrameRecord) -> None:
        """Write a frame; label and probabilities are null for a frame without an answer."""
        values = record.probabilities
        best = None if values is None else int(most_probable(values))
        self._write(
            "frame",
            index=record.index,
            pts=record.pts,
            time_s=rounded(record.time_s),
            status=record.status,
            duplicate_of=record.duplicate_of,
            detail=record.detail,
            label=None if best is None else self._spec.keys[best],
            probability=None if values is None or best is None else rounded(float(values[best])),
            probabilities=None
            if values is None
            else {key: rounded(value) for key, value in zip(self._spec.keys, values.tolist(), strict=True)},
        )

    def event(self, event: Event) -> None:
        """Write an event that has closed, without its id: ids are given at the end of the recording."""
        document = event_document(event)
        del document["id"]
        self._events += 1
        self._write("event", **document)

    def end(
        self,
        ledger: Ledger,
        *,
        exit_code: int,
        folder: str | os.PathLike[str] | None,
        warnings: Sequence[RecordingWarning] = (),
        suggestions: int | None = None,
    ) -> None:
        """Write the last line of a recording that was read to its end.

        Args:
            ledger: the number of frames by status.
            exit_code: that the program will return.
            folder: holds the results of the recording; None if there is none, or if it is not to be shown.
            warnings: of the recording.
            suggestions: number of suggestions in ``study.json``; None where there is no study.
        """
        self._write(
            "end",
            recording=self._recording,
            ledger=ledger_document(ledger),
            warnings=warnings_document(warnings),
            events=self._events,
            suggestions=suggestions,
            out=None if folder is None else str(folder),
            exit_code=exit_code,
        )

    def error(self, error: Mapping[str, str], *, exit_code: int) -> None:
        """Write the last line of a recording that was not read to its end."""
        self._write("error", recording=self._recording, error=dict(error), exit_code=exit_code)

    def _write(self, kind: str, **fields: Any) -> None:
        document = {"type": kind, **fields}
        self._out.write(
            json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"
        )
        self._out.flush()
