"""Write the result of a run and its truth, for a recording with an ulcer from 10 to 15 s."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

LABELS = ("normal", "ulcer")
MODEL = "5" * 64
FRAMES, ULCER = 60, range(20, 30)
_COLUMNS = "index,pts,time_s,status,duplicate_of,detail,label"
_EVENT = {"label": "ulcer", "start_index": 20, "end_index": 29, "peak_index": 25, "peak_p": 0.8}


def write_run(folder: Path, labels: Sequence[str] = LABELS) -> Path:
    """Write ``frames.csv`` and ``study.json`` of a run in which the last frame is missing."""
    folder.mkdir(exist_ok=True)
    rows = [",".join([_COLUMNS, *(f"p_{key}" for key in labels)])]
    for i in range(FRAMES - 1):
        p = 0.8 if i in ULCER else 0.1
        rows.append(f"{i},{i},{i * 0.5},classified,,,{labels[p > 0.5]},{1 - p},{p}")
    rows.append(f"{FRAMES - 1},,,missing,,,,,")
    (folder / "frames.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    event = {"id": 1, **_EVENT, "start_s": 10.0, "end_s": 15.0}
    study = {"source": {"name": "exam.mp4"}, "model": {"sha256": MODEL}, "events": [event]}
    (folder / "study.json").write_text(json.dumps(study), encoding="utf-8")
    return folder


def write_truth(path: Path, *, header: str = "index,frame_number,time_s,label", times: bool = True) -> Path:
    """Write the truth table: one row for each frame, with the columns of ``header``."""
    rows = []
    for i in range(FRAMES):
        time, label = i * 0.5 if times else "", "Ulcer" if i in ULCER else "Normal"
        cell = {"index": i, "frame_number": i, "time_s": time, "label": label}
        rows.append(",".join(str(cell.get(name, "")) for name in header.split(",")))
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path
