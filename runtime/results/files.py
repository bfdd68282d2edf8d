"""Write the files of a run: ``frames.csv``, ``study.json``, ``timing.json`` and ``report.html``.

``commit_files`` writes all four or none, so an error or a full disk leaves the earlier files. ``study.json`` is removed
first and put in place last: if it exists, the other files are of the same run, and a folder without it holds no study.
All files but ``timing.json`` depend on the ``Study`` alone: equal studies give equal bytes.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import OutputError
from ..inference import ModelSpec, most_probable
from ..study import SCHEMA, Event, FrameRecord, Ledger, MeasuredPrecision, Source, Study, Suggestion, columns
from .atomic import commit_files, reason
from .document import familiarity_document, landmarks_document, quality_document, rounded, rules_document

if TYPE_CHECKING:
    from ..recording import RecordingWarning

__all__ = [
    "FILES",
    "event_document",
    "ledger_document",
    "prepare_folder",
    "study_document",
    "tool_version",
    "warnings_document",
    "write_study",
]

FILES = ("frames.csv", "report.html", "timing.json", "study.json")


def prepare_folder(path: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """Create the output folder and make sure that it can be written to.

    Args:
        path: the folder; its parents are created too.
        overwrite: allow a folder that already holds a ``study.json``, to replace it or to resume.

    Raises:
        OutputError: the folder already holds a ``study.json``, a file is in its place, or it cannot be written.
    """
    folder = Path(path)
    probe = folder / f".write-test.{os.getpid()}.tmp"
    try:
        if (folder / "study.json").exists() and not overwrite:
            raise OutputError(
                f"{folder} already holds a study.json",
                hint="choose another --out, or pass --overwrite",
            )
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except (FileExistsError, NotADirectoryError):
        raise OutputError(
            f"{folder} cannot be a folder: a file is in its place", hint="choose another --out"
        ) from None
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{folder} cannot be written: {reason(error)}",
            hint="choose another --out or ask for write access",
        ) from None
    return folder


def write_study(
    study: Study,
    folder: str | os.PathLike[str],
    *,
    timing: Mapping[str, Any],
    colours: npt.NDArray[Any] | None = None,
) -> dict[str, Path]:
    """Write the four files of a study, all or none, and return their paths by name.

    Args:
        study: the results of reading a recording.
        folder: made by ``prepare_folder``.
        timing: values that differ from run to run (seconds, threads, batch size, paths), JSON values by name.
        colours: mean colour of the frames in equal intervals of container time, float (bins, 3), RGB 0..255, NaN for
            an interval without frames. The report draws it as a colour bar; None leaves the bar out.

    Raises:
        OutputError: a file cannot be written. The folder is as it was before.

    Example:
        folder = prepare_folder("exam.capsule-edge", overwrite=False)
        write_study(study, folder, timing={}, colours=study.colours)
    """
    # Import the report here: only the end of a run needs it, and the start of the run should not wait for it.
    from ..report import render_report

    writers: dict[str, Callable[[], str]] = {
        "frames.csv": lambda: frames_csv(study.frames, study.model),
        "report.html": lambda: render_report(study, tool_version=tool_version(), colours=colours),
        "timing.json": lambda: _json(timing),
        "study.json": lambda: _json(study_document(study)),
    }
    # Make one file after the other: an examination's frames.csv takes 15 MB as text and 15 MB as bytes.
    # A file name that is not valid Unicode (Linux allows it) must not stop the run: it is written with "?".
    contents = {name: writers[name]().encode("utf-8", "replace") for name in FILES}
    return commit_files(Path(folder), contents, sign="study.json")


def tool_version() -> str:
    """Return the version of the installed capsule-edge, or ``unknown`` if it is not installed."""
    from importlib import metadata

    try:
        return metadata.version("capsule-edge")
    except metadata.PackageNotFoundError:
        return "unknown"


def frames_csv(frames: Sequence[FrameRecord], model: ModelSpec) -> str:
    """Return the text of ``frames.csv``: a row for each container frame, undefined fields empty.

    Args:
        frames: all container frames, in presentation order.
        model: description of the model; its labels name the columns of the probabilities.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["index", "pts", "time_s", "status", "duplicate_of", "detail", "label"]
        + [f"p_{key}" for key in model.keys]
    )
    writer.writerows(_rows(frames, model))
    return text.getvalue()


def _rows(frames: Sequence[FrameRecord], model: ModelSpec) -> Iterator[list[object]]:
    keys, nothing = model.keys, [""] * len(model.keys)
    every = columns(frames)
    known = every.given & np.isfinite(every.probabilities).all(axis=1)
    best = most_probable(every.probabilities).tolist() if known.any() else []
    for at, frame in enumerate(frames):
        time_s = "" if frame.time_s is None else f"{frame.time_s:.6f}"
        label, values = "", nothing
        if known[at]:
            label = keys[best[at]]
            values = [f"{value:.6f}" for value in every.probabilities[at].tolist()]
        # The csv writer turns None into an empty field.
        yield [frame.index, frame.pts, time_s, frame.status, frame.duplicate_of, frame.detail, label, *values]


def study_document(study: Study) -> dict[str, Any]:
    """Return ``study.json`` as a dict, with its keys in the order of the file (``schema/study.schema.json``)."""
    model = study.model
    return {
        "schema": SCHEMA,
        "tool": {"version": tool_version(), "options": dict(sorted(study.options.items()))},
        "intended_use": model.intended_use,
        "source": _source_document(study.source),
        "model": {
            "name": model.name,
            "version": model.version,
            "sha256": study.model_sha256,
            "precision": model.precision,
            "backend": study.backend,
        },
        "ledger": ledger_document(study.ledger),
        "warnings": warnings_document(study.warnings),
        "rules": rules_document(study),
        "events": [event_document(event) for event in study.events],
        "suggestions": None
        if study.suggestions is None
        else list(map(_suggestion_document, study.suggestions)),
        "landmarks": landmarks_document(study),
        "quality": quality_document(study),
        "familiarity": familiarity_document(study),
    }


def _source_document(source: Source) -> dict[str, Any]:
    box = source.field_of_view
    return {
        "name": source.name,
        "sha256": source.sha256,
        "codec": source.codec,
        "width": source.width,
        "height": source.height,
        "time_base": source.time_base,
        "start_pts": source.start_pts,
        "duration_s": rounded(source.duration_s),
        "time_kind": source.time_kind,
        "capture_fps": rounded(source.capture_fps),
        "field_of_view": None
        if box is None
        else {"left": box.left, "top": box.top, "width": box.width, "height": box.height},
        "times": source.times,
        "damage_detection": source.damage_detection,
        "stream_sha256": source.stream_sha256,
    }


def warnings_document(warnings: Sequence[RecordingWarning]) -> list[dict[str, str]]:
    """Return ``warnings`` of ``study.json``."""
    return [{"code": each.code, "message": each.message} for each in warnings]


def ledger_document(ledger: Ledger) -> dict[str, Any]:
    """Return ``ledger`` of ``study.json``."""
    return {
        "container": ledger.container,
        "container_source": ledger.container_source,
        "truncated": ledger.truncated,
        "classified": ledger.classified,
        "duplicate": ledger.duplicate,
        "corrupt": ledger.corrupt,
        "missing": ledger.missing,
        "skipped": ledger.skipped,
        "unread": ledger.unread,
        "edited_out": ledger.edited_out,
    }


def event_document(event: Event) -> dict[str, Any]:
    """Return an entry of ``events`` of ``study.json``."""
    return {
        "id": event.id,
        "label": event.label,
        "role": event.role,
        "start_index": event.start_index,
        "end_index": event.end_index,
        "start_s": rounded(event.start_s),
        "end_s": rounded(event.end_s),
        "peak_index": event.peak_index,
        "peak_s": rounded(event.peak_s),
        "peak_p": rounded(event.peak_p),
        "frames": event.frames,
    }


def _suggestion_document(suggestion: Suggestion) -> dict[str, Any]:
    return {
        "id": suggestion.id,
        "label": suggestion.label,
        "events": list(suggestion.events),
        "score": rounded(suggestion.score),
        "precision": _precision_document(suggestion.precision),
        "alternatives": [
            {"label": other.label, "score": rounded(other.score)} for other in suggestion.alternatives
        ],
        "similar": suggestion.similar,
    }


def _precision_document(precision: MeasuredPrecision | None) -> dict[str, Any] | None:
    if precision is None:
        return None
    return {
        "estimate": rounded(precision.estimate),
        "low": rounded(precision.low),
        "high": rounded(precision.high),
        "n": precision.n,
        "measured_on": precision.measured_on,
    }


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(_plain(document), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """Convert to JSON values: NaN and infinity to null, numpy arrays to lists, paths to text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    return str(value)
