"""Write small labelled recordings: a video of grey frames, its truth table, and an index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import damage

FRAMES = 12


def write_recording(
    folder: Path, name: str, labels: Sequence[str] = ("Normal",) * 8 + ("Ulcer",) * 4, *, first: int = 0
) -> Path:
    """Write ``name.mp4`` with a frame for each label, and ``name.truth.csv``; frame numbers start at ``first``."""
    folder.mkdir(exist_ok=True)
    video = damage.encode(folder / f"{name}.mp4", frames=len(labels))
    write_table(folder / f"{name}.truth.csv", [(i, first + i, "", label) for i, label in enumerate(labels)])
    return video


def write_table(path: Path, rows: Sequence[Sequence[object]]) -> Path:
    """Write a truth table of rows (index, frame number, time, label)."""
    lines = ["index,frame_number,time_s,label", *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_index(folder: Path, rows: Sequence[str], columns: str = "file,split") -> Path:
    """Write ``index.csv``."""
    (folder / "index.csv").write_text("\n".join([columns, *rows]) + "\n", encoding="utf-8")
    return folder
