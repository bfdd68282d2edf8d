"""Settings of a training run that takes seconds, and its results, for the tests of training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from click.testing import Result

SIZE, KEYS = 32, ("bleeding", "normal", "polyp")
DAMAGED = ("7.png", "8.png")
COLOURS = np.array([[200, 90, 60], [90, 40, 30], [180, 180, 60]])
SETTINGS = (
    "architecture=plain_cnn", f"size={SIZE}", "epochs=3", "batch=16", "phantom=0", "qat_batch=8", "steps_per_class=0",
)  # fmt: skip
MORE_SETTINGS = ("patience=2", "mixup=0.2", "focal=1.5", "debris=1", "compression=1", "qat_epochs=2")


@dataclass(frozen=True)
class WholeRun:
    """A finished run: its folder, the command's words without --data and --out, and what the command printed."""

    out: Path
    words: list[str]
    result: Result


def setting_words(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]
