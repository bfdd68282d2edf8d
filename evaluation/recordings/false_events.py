"""List the normal stretches of recordings on which a model raised events.

    python -m capsule_edge.evaluation.recordings.false_events RESULT TRUTH [RESULT TRUTH ...] --out stretches.csv

RESULT is the folder that ``capsule-edge run`` wrote, TRUTH the truth table of the recording. An event is false if fewer
than half of its frames carry its label in the truth (``findings``). A stretch is a run of frames of a false event that
the truth calls normal, as long as possible. Frames of another finding do not belong to it. ``stretches.csv`` has a row
for each stretch: ``recording,label,first_index,last_index,first_frame_number,last_frame_number,peak_p,frames``.

``capsule-edge train --recordings DIR --weigh stretches.csv --set hard_weight=3`` draws these frames three times as
often as other normal frames. A model raises fewer events on videos that it was trained on: let a model of another
fold read the recordings. The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from capsule_edge.runtime.errors import InputError

from .._module import run_module
from ..datasets import read_rows
from .findings import NORMAL, FoundEvent, Reading, is_right
from .normal_stretches import NormalStretch, write_stretches
from .recording_scores import compare_with_truth
from .truth_table import TruthRow, read_truth

__all__ = ["count_stretches", "false_stretches"]


def false_stretches(folder: Path, truth: Path) -> list[NormalStretch]:
    """Return the normal stretches in the false events of one reading, in the order of the events.

    Args:
        folder: The folder that ``capsule-edge run`` wrote.
        truth: The truth table of the recording.

    Raises:
        InputError: A file is missing or does not fit, or the two have different rows.
    """
    reading: Reading = compare_with_truth(folder, truth)["reading"]
    rows = read_truth(truth)
    false = [event for event in reading.events if not is_right(event, reading.labels)]
    columns = [f"p_{label}" for label in dict.fromkeys(event.label for event in false)]
    answers = [cells for _, cells in read_rows(folder / "frames.csv", columns)]
    return [
        _stretch(reading.recording, event, rows, run, answers)
        for event in false
        for run in _normal_runs(event, reading.labels)
    ]


def _normal_runs(event: FoundEvent, labels: Sequence[str]) -> list[range]:
    """Return the longest runs of normal frames in an event."""
    runs = []
    for key, group in groupby(range(event.first, event.last + 1), key=lambda row: labels[row]):
        held = list(group)
        if key == NORMAL:
            runs.append(range(held[0], held[-1] + 1))
    return runs


def _stretch(
    recording: str,
    event: FoundEvent,
    rows: Sequence[TruthRow],
    run: range,
    answers: Sequence[dict[str, str]],
) -> NormalStretch:
    cells = [answers[row][f"p_{event.label}"] for row in run]
    try:
        # A corrupt frame has no probability.
        peak = max((float(cell) for cell in cells if cell), default=0.0)
    except ValueError as error:
        raise InputError(
            f"the frames.csv of {recording} has a p_{event.label} that is no number: {error}"
        ) from None
    first, last = rows[run[0]], rows[run[-1]]
    return NormalStretch(
        recording, event.label, first.index, last.index, first.frame_number, last.frame_number, peak, len(run)
    )


def count_stretches(stretches: Sequence[NormalStretch]) -> dict[str, Any]:
    """Return the numbers of stretches and of distinct frames in them, in all and by label."""
    by_label: dict[str, int] = {}
    for stretch in stretches:
        by_label[stretch.label] = by_label.get(stretch.label, 0) + 1
    places = {(s.recording, index) for s in stretches for index in range(s.first_index, s.last_index + 1)}
    return {"stretches": len(stretches), "frames": len(places), "by_label": dict(sorted(by_label.items()))}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pairs", nargs="+", type=Path, metavar="RESULT TRUTH")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="CSV file to write")
    options = parser.parse_args()
    pairs = options.pairs
    if len(pairs) % 2:
        parser.error(f"{len(pairs)} paths were given; each recording needs a run folder and a truth file")
    found: list[NormalStretch] = []
    for folder, truth in zip(pairs[::2], pairs[1::2], strict=True):
        found += false_stretches(folder, truth)
    write_stretches(found, options.out)
    document = {"recordings": len(pairs) // 2, **count_stretches(found)}
    for label, count in document["by_label"].items():
        print(f"{label:18} {count} stretches")
    print(json.dumps(document, allow_nan=False))


if __name__ == "__main__":
    run_module(main)
