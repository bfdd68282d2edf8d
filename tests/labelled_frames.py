"""Write small data sets with a ``labels.csv``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np


def write_frames(
    root: Path, columns: str, rows: Iterable[Sequence[object]], pictures: Iterable[np.ndarray]
) -> Path:
    """Write ``labels.csv`` and its pictures (uint8 RGB) as PNG; the first column of a row is the file."""
    root.mkdir(exist_ok=True)
    lines = [columns]
    for row, picture in zip(rows, pictures, strict=True):
        cv2.imencode(".png", picture[..., ::-1])[1].tofile(root / str(row[0]))
        lines.append(",".join(map(str, row)))
    (root / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root
