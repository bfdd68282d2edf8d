"""The files a run leaves: ``frames.csv``, ``study.json``, ``timing.json`` and ``report.html``.

All four are written beside their final names first and moved there only when every one is whole (``commit``), so
a full disk or an error leaves what was there before. ``study.json`` is withdrawn first and comes last: where it
lies, the others are of the same run, and a folder without it holds no study. All but ``timing.json`` depend on
the ``Study`` alone, byte for byte.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import OutputError
from ..inference import ModelSpec, most_probable
from ..study import SCHEMA, Event, FrameRecord, Ledger, Study, columns
from .atomic import commit_files, reason
from .document import landmarks_document, quality_document, rounded, rules_document

__all__ = [
    "FILES",
    "event_document",
    "ledger_document",
    "prepare_folder",
    "study_document",
    "tool_version",
    "write_study",
]

FILES = ("frames.csv", "report.html", "timing.json", "study.json")


def prepare_folder(path: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """Create the output folder and make sure that it can be written to.

    Args:
        path: the folder; its parents are created too.
        overwrite: allow a folder that already holds a ``study.json`` (also for resuming).

    Raises ``OutputError`` when there is a study already, a file lies in the way or the folder cannot be
    written.
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
            f"{folder} cannot be a folder: a file lies in its place", hint="choose another --out"
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
    """Write the four files into a folder made by ``prepare_folder``; return their paths by name.

    Args:
        timing: what differs from run to run (seconds, threads, batch size, paths); JSON values.
        colours: mean colour of the frames in equal stretches of container time, RGB 0..255 of shape (bins, 3),
            NaN for a stretch without a frame; drawn as the report's colour bar.

    Raises ``OutputError`` when a file cannot be written. Nothing has changed then.
    """
    # What only the end of a run needs is not waited for at its start.
    from ..report import render_report

    writers: dict[str, Callable[[], str]] = {
        "frames.csv": lambda: frames_csv(study.frames, study.model),
        "report.html": lambda: render_report(study, tool_version=tool_version(), colours=colours),
        "timing.json": lambda: _json(timing),
        "study.json": lambda: _json(study_document(study)),
    }
    # One after the other: as text and as bytes an examination's take 15 MB each.
    # A file name that is not valid Unicode (Linux allows it) must not stop the run: it is shown with "?".
    contents = {name: writers[name]().encode("utf-8", "replace") for name in FILES}
    return commit_files(Path(folder), contents, sign="study.json")


def tool_version() -> str:
    """Version of the installed capsule-edge, ``unknown`` when it runs from loose files."""
    from importlib import metadata

    try:
        return metadata.version("capsule-edge")
    except metadata.PackageNotFoundError:
        return "unknown"


def frames_csv(frames: Sequence[FrameRecord], model: ModelSpec) -> str:
    """One row for each container frame; what is undefined is empty."""
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
    told = columns(frames)
    known = told.given & np.isfinite(told.probabilities).all(axis=1)
    best = most_probable(told.probabilities).tolist() if known.any() else []
    for at, frame in enumerate(frames):
        time_s = "" if frame.time_s is None else f"{frame.time_s:.6f}"
        label, values = "", nothing
        if known[at]:
            label = keys[best[at]]
            values = [f"{value:.6f}" for value in told.probabilities[at].tolist()]
        # csv writes None as an empty field
        yield [frame.index, frame.pts, time_s, frame.status, frame.duplicate_of, frame.detail, label, *values]


def study_document(study: Study) -> dict[str, Any]:
    """``study.json`` as a dict, keys in the order they are written (``schema/study.schema.json``)."""
    source, model, box, ledger = study.source, study.model, study.source.field_of_view, study.ledger
    return {
        "schema": SCHEMA,
        "tool": {"version": tool_version(), "options": dict(sorted(study.options.items()))},
        "intended_use": model.intended_use,
        "source": {
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
        },
        "model": {
            "name": model.name,
            "version": model.version,
            "sha256": study.model_sha256,
            "precision": model.precision,
            "backend": study.backend,
        },
        "ledger": ledger_document(ledger),
        "rules": rules_document(study),
        "events": [event_document(event) for event in study.events],
        "landmarks": landmarks_document(study),
        "quality": quality_document(study),
    }


def ledger_document(ledger: Ledger) -> dict[str, Any]:
    """A ledger as ``study.json`` has it."""
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
    """An event as ``study.json`` has it."""
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


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(_plain(document), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """Values as JSON has them: NaN and infinity become null, numpy scalars numbers, paths text."""
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
