"""Fits to the machine how the model is run, while a recording is read: how many at once, how large a batch.

No time is set apart for it and no result waits: the first seconds of a long recording are read with one plan after
the other, in turns, each for a stretch of frames, and the fastest stays. What was found is kept for this model,
engine and processor in the user's cache folder. Answers depend on none of it; it is reported in ``timing.json``.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .pipeline import FixedPlan, Plan

__all__ = [
    "SHORTEST",
    "PlanKey",
    "Tuner",
    "cache_folder",
    "describe_processor",
    "load_plan",
    "plans",
    "save_plan",
]

_SCHEMA = "capsule-edge/plan/2"
# Frames of one stretch: at least this many batches a worker, and this many seconds, so that what is in the
# pipeline from the plan before does not count for much.
_BATCHES = 4
_SECONDS = 1.0
# Times that each plan has its turn; other programs come and go within one.
_ROUNDS = 4
# A plan must be faster than the first by more than what two measurements of the same differ by: answers come in groups.
_MARGIN = 1.05
# Pixels of a batch: 8 pictures of 128 x 128, 4 of 176 x 176, 2 of 224 x 224 (measured, ``docs/log.md``).
_BATCH_PIXELS = 1 << 17
_MOST_BATCH = 16
# Recordings of fewer frames end before the search does.
SHORTEST = 16_000


@dataclass(frozen=True)
class PlanKey:
    """What a plan holds for, beside the processor: ``cores`` are those that inference may use."""

    model_sha256: str
    backend: str
    cores: int


def plans(cores: int, side: int) -> list[FixedPlan]:
    """What is tried with a model that takes ``side`` x ``side`` pixels, the usual first.

    A worker on each core, or of many one fewer; and batches of as many pixels as keep their activations in the
    caches, or fewer. A larger one is slower, and holds more memory to the end.
    """
    fitting = max(2, _BATCH_PIXELS // side**2)
    most = min(_MOST_BATCH, 1 << (fitting.bit_length() - 1))
    found = [FixedPlan(cores, size) for size in (most, most // 2)]
    return [*found, FixedPlan(cores - 1, most)] if cores > 2 else found


class Tuner:
    """A ``Plan`` that tries others in turns and keeps the fastest.

    Args:
        candidates: the first is the one in doubt.
        clock: seconds.
        settled: called with the plan that was chosen.
    """

    def __init__(
        self,
        candidates: Sequence[FixedPlan],
        *,
        clock: Callable[[], float] = time.perf_counter,
        settled: Callable[[FixedPlan], None] = lambda plan: None,
    ) -> None:
        self._candidates = list(candidates)
        self._clock, self._settled = clock, settled
        self._speeds: list[list[float]] = [[] for _ in self._candidates]
        self._turn = 0
        self._chosen = self._candidates[0] if len(self._candidates) == 1 else None
        self._now = self._candidates[0]
        self._began: float | None = None
        self._frames = 0
        self._passed = 0

    @property
    def most_workers(self) -> int:
        return max(plan.most_workers for plan in self._candidates)

    @property
    def chosen(self) -> FixedPlan | None:
        """The plan that stays, None while it is looked for."""
        return self._chosen

    def workers(self) -> int:
        return self._now.most_workers

    def batch(self) -> int:
        return self._now.size

    def answered(self, frames: int) -> None:
        if self._chosen is not None:
            return
        plan = self._now
        if self._began is None:
            # What comes first was begun under the plan before.
            self._passed += frames
            if self._passed >= 3 * self.most_workers * max(each.size for each in self._candidates):
                self._began, self._frames = self._clock(), 0
            return
        self._frames += frames
        seconds = self._clock() - self._began
        if self._frames < _BATCHES * plan.most_workers * plan.size or seconds < _SECONDS:
            return
        self._speeds[self._turn % len(self._candidates)].append(self._frames / seconds)
        self._turn += 1
        self._began, self._passed = None, 0
        if self._turn == _ROUNDS * len(self._candidates):
            self._choose()
        else:
            self._now = self._candidates[self._turn % len(self._candidates)]

    def _choose(self) -> None:
        # Each against the first of its own round, which had the same neighbours on the machine.
        gains = [
            median(mine / usual for mine, usual in zip(speeds, self._speeds[0], strict=True))
            for speeds in self._speeds
        ]
        best = max(range(len(gains)), key=gains.__getitem__)
        self._now = self._chosen = self._candidates[best if gains[best] > _MARGIN else 0]
        self._settled(self._chosen)


def choose_plan(key: PlanKey, *, side: int, frames: int, search: bool) -> Plan:
    """The plan found earlier; where there is none and ``search``, one to look for while so many frames are read.

    ``side`` in pixels is that of the model's input.
    """
    offered = plans(key.cores, side)
    if not search:
        return offered[0]
    known = load_plan(key)
    if known is None and frames >= SHORTEST:
        return Tuner(offered, settled=lambda plan: save_plan(plan, key))
    return known or offered[0]


def cache_folder() -> Path:
    """The user's cache folder for capsule-edge on this system; ``CAPSULE_EDGE_CACHE`` names another."""
    if named := os.environ.get("CAPSULE_EDGE_CACHE"):
        return Path(named)
    if sys.platform == "win32":
        return (
            Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
            / "capsule-edge"
            / "Cache"
        )
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "capsule-edge"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "capsule-edge"


def load_plan(key: PlanKey) -> FixedPlan | None:
    """The plan found earlier for a model file, engine and this processor; None where there is none."""
    with suppress(OSError, ValueError, KeyError, TypeError, RuntimeError):
        document = json.loads(_place(key).read_text("utf-8"))
        workers, size = document["workers"], document["batch"]
        if (
            document["schema"] == _SCHEMA
            and all(type(value) is int for value in (workers, size))
            and 1 <= workers <= key.cores
            and 1 <= size <= 256
        ):
            return FixedPlan(workers, size)
    return None


def save_plan(plan: FixedPlan, key: PlanKey) -> None:
    """Keep a plan. A cache that cannot be written is no fault: the search is done again the next time."""
    document = {
        "schema": _SCHEMA,
        "processor": describe_processor(),
        "cores": key.cores,
        "backend": key.backend,
        "model_sha256": key.model_sha256,
        "workers": plan.most_workers,
        "batch": plan.size,
    }
    with suppress(OSError, RuntimeError):
        place = _place(key)
        place.parent.mkdir(parents=True, exist_ok=True)
        # Beside and then moved: two runs may end at once.
        staged = place.with_name(f".{place.name}.{os.getpid()}.tmp")
        staged.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        os.replace(staged, place)


def describe_processor() -> str:
    """The processor's name; ``platform`` knows it on Windows and macOS, Linux has it in a file."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _place(key: PlanKey) -> Path:
    text = "\n".join((key.model_sha256, key.backend, str(key.cores), describe_processor()))
    return cache_folder() / "plans" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
