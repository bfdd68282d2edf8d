"""``run --demo``: render a phantom recording with known lesions, read it, and compare the events with the lesions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capsule_edge.runtime.errors import OutputError

from ._names import NamedRecording, name_by_file, name_by_hash
from ._outcomes import Outcome, print_json, print_outcome
from ._printing import console, number, table
from ._reading import other_study, read_recording

if TYPE_CHECKING:
    from capsule_edge.runtime import Reader
    from capsule_edge.runtime.phantom import Phantom

    from .run import RunOptions

__all__ = ["match_planted", "run_demo"]

_RECORDING = "phantom.mp4"


def run_demo(reader: Reader, folder: Path, read_options: Mapping[str, Any], options: RunOptions) -> int:
    """Render and read the demo, print the result and return the exit code.

    A folder that holds this demo already, read with the same model and options, is reported as it is, unless
    ``--overwrite`` was given.

    Args:
        reader: the opened model.
        folder: holds the rendered recording and its results.
        read_options: keyword arguments of ``Reader.read``.
        options: the options of ``run``.

    Raises:
        OutputError: the folder holds something else, or cannot be written.
    """
    from capsule_edge.runtime.phantom import DEMO_SEED, Phantom

    phantom = Phantom(DEMO_SEED)
    if (folder / "study.json").is_file() and not options.overwrite:
        outcome = _earlier_demo(reader, folder, phantom, read_options, options)
    else:
        outcome = _new_demo(reader, folder, phantom, read_options, options)
    planted = match_planted(phantom, (outcome.document() or {}).get("events", ()))
    note = _demo_note(reader)
    if options.as_json:
        print_json([outcome], outcome.exit_code, planted=planted, planted_note=note)
    else:
        _print_demo(outcome, planted, note)
    return outcome.exit_code


def _new_demo(
    reader: Reader, folder: Path, phantom: Phantom, read_options: Mapping[str, Any], options: RunOptions
) -> Outcome:
    """Render the recording and read it. Until then, an earlier recording in its place is kept."""
    from capsule_edge.runtime.phantom import write_recording
    from capsule_edge.runtime.results import open_run

    recording = folder / _RECORDING
    if recording.exists() and not options.overwrite:
        raise OutputError(f"{recording} already exists", hint="choose another --out, or pass --overwrite")
    with open_run(folder, overwrite=options.overwrite) as run, _replacing(recording):
        click.echo(f"rendering {phantom.frames} frames of a phantom", err=True)
        write_recording(recording, phantom)
        named = _named(recording, folder, options)
        return read_recording(reader, named, run, read_options, threads=options.threads, resumable=False)


def _earlier_demo(
    reader: Reader, folder: Path, phantom: Phantom, read_options: Mapping[str, Any], options: RunOptions
) -> Outcome:
    """Return the outcome that the folder holds. Raises ``OutputError`` if it is not this demo's."""
    from capsule_edge.runtime.phantom import is_recording_of
    from capsule_edge.runtime.results import open_run

    recording = folder / _RECORDING
    with open_run(folder, resume=True) as run:
        if run.finished is None or not is_recording_of(recording, phantom):
            raise other_study(folder)
        named = _named(recording, folder, options)
        return read_recording(reader, named, run, read_options, threads=options.threads)


def _named(recording: Path, folder: Path, options: RunOptions) -> NamedRecording:
    (named,) = (name_by_hash if options.anonymous else name_by_file)([recording], folder)
    # The folder that the demo takes by itself is not private.
    return replace(named, shown_folder=str(folder)) if options.out is None else named


@contextmanager
def _replacing(recording: Path) -> Iterator[None]:
    """Set an earlier recording aside, and put it back if the new one is not made and read."""
    earlier = recording.with_name(f".{recording.name}.earlier")
    if recording.exists():
        os.replace(recording, earlier)
    try:
        yield
    except BaseException:
        recording.unlink(missing_ok=True)
        if earlier.exists():
            os.replace(earlier, recording)
        raise
    earlier.unlink(missing_ok=True)


def match_planted(phantom: Phantom, events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Match each planted lesion with the event of its label that overlaps it most in time.

    Args:
        phantom: the recording.
        events: the ``events`` of its ``study.json``.

    Returns:
        For each lesion its label, ``start_s`` and ``end_s``, the id of the event (None without one), and
        ``iou``, the intersection over union of both in time (0 to 1).
    """
    matched = []
    for lesion in phantom.planted:
        best, event_id = 0.0, None
        for event in events:
            start_s, end_s = event["start_s"], event["end_s"]
            shared = min(lesion.end_s, end_s) - max(lesion.start_s, start_s)
            union = max(lesion.end_s, end_s) - min(lesion.start_s, start_s)
            if event["label"] == lesion.label and shared / union > best:
                best, event_id = shared / union, event["id"]
        entry = {"label": lesion.label, "start_s": lesion.start_s, "end_s": lesion.end_s}
        matched.append({**entry, "event": event_id, "iou": round(best, 6)})
    return matched


def _demo_note(reader: Reader) -> str:
    """Return what the demo does not show. It depends on whether the model was trained on phantoms."""
    count = reader.spec.provenance.get("phantom_frames")
    if isinstance(count, int) and count > 0:
        return (
            f"{count:,} frames of such phantoms are in this model's training: the demo shows how a run works, "
            "not how well lesions are found."
        )
    return "A phantom is no patient: the demo shows how a run works, not how well lesions are found."


def _print_demo(outcome: Outcome, planted: Sequence[Mapping[str, Any]], note: str) -> None:
    from capsule_edge.runtime.recording import clock

    if outcome.earlier is None:
        print_outcome(outcome)
    else:
        console().print("the demo was read already; --overwrite reads it again")
        console().print(f"report: {outcome.recording.report}")
    rows = table("planted", "from", "to", "found as event", "overlap (IoU)")
    for entry in planted:
        times = (clock(entry[name]) for name in ("start_s", "end_s"))
        rows.add_row(entry["label"], *times, number(entry["event"]), number(entry["iou"], 2))
    console().print(rows)
    click.echo(note)
