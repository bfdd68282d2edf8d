"""``run --demo``: a phantom recording with known lesions, rendered, read and compared with what was planted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capsule_edge.runtime.errors import OutputError

from ._outcomes import Outcome, print_json, print_outcome
from ._printing import console, number, table

if TYPE_CHECKING:
    from capsule_edge.runtime import Reader, Study
    from capsule_edge.runtime.phantom import Phantom
    from capsule_edge.runtime.results import Run

__all__ = ["match_planted", "run_demo"]


def run_demo(
    reader: Reader, folder: Path, read: Callable[[Path, Run], Outcome], *, overwrite: bool, as_json: bool
) -> int:
    """Render, ``read`` and compare with what was planted; returns the exit code.

    A recording that lay in its place stays until the new one is read. Raises what reading raises, and ``OutputError``.
    """
    import os

    from capsule_edge.runtime.phantom import DEMO_SEED, Phantom, write_recording
    from capsule_edge.runtime.results import open_run

    phantom = Phantom(DEMO_SEED)
    recording, earlier = folder / "phantom.mp4", folder / ".phantom.mp4.earlier"
    if recording.exists() and not overwrite:
        raise OutputError(f"{recording} is there already", hint="choose another --out, or pass --overwrite")
    with open_run(folder, overwrite=overwrite) as run:
        if recording.exists():
            os.replace(recording, earlier)
        try:
            click.echo(f"rendering {phantom.frames} frames of a phantom", err=True)
            write_recording(recording, phantom)
            outcome = read(recording, run)
        except BaseException:
            recording.unlink(missing_ok=True)
            if earlier.exists():
                os.replace(earlier, recording)
            raise
        earlier.unlink(missing_ok=True)
    found = match_planted(phantom, outcome.study)
    if as_json:
        print_json([outcome], outcome.exit_code, planted=found, planted_note=_seen(reader))
    else:
        print_outcome(outcome)
        _print_planted(found)
        click.echo(_seen(reader))
    return outcome.exit_code


def match_planted(phantom: Phantom, study: Study | None) -> list[dict[str, Any]]:
    """Each planted lesion with the event of its label that overlaps it most (IoU in time)."""
    matched = []
    for lesion in phantom.planted:
        best, event_id = 0.0, None
        for event in study.events if study else ():
            shared = min(lesion.end_s, event.end_s) - max(lesion.start_s, event.start_s)
            union = max(lesion.end_s, event.end_s) - min(lesion.start_s, event.start_s)
            if event.label == lesion.label and shared / union > best:
                best, event_id = shared / union, event.id
        matched.append(
            {
                "label": lesion.label,
                "start_s": lesion.start_s,
                "end_s": lesion.end_s,
                "event": event_id,
                "iou": round(best, 6),
            }
        )
    return matched


def _seen(reader: Reader) -> str:
    """What the table of planted lesions is worth with this model."""
    count = reader.spec.provenance.get("phantom_frames")
    if isinstance(count, int) and count > 0:
        return (
            f"{count:,} frames of such phantoms are in this model's training: the demo shows how a run works, "
            "not how well lesions are found."
        )
    return "A phantom is no patient: the demo shows how a run works, not how well lesions are found."


def _print_planted(found: Sequence[dict[str, Any]]) -> None:
    from capsule_edge.runtime.recording import clock

    rows = table("planted", "from", "to", "found as event", "overlap (IoU)")
    for entry in found:
        times = (clock(entry[name]) for name in ("start_s", "end_s"))
        rows.add_row(entry["label"], *times, number(entry["event"]), number(entry["iou"], 2))
    console().print(rows)
