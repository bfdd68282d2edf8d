"""Measure some frames of each recording: their colour, sharpness and distance from the training frames.

The results of a reading do not hold these measures, so up to ``FRAMES`` frames of a recording, evenly spread, are
decoded again. The measures are kept in the archive, ``inputs/<first two digits>/<key>.json``, so each recording is
measured once for each model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from capsule_edge.runtime.errors import CapsuleEdgeError
from capsule_edge.runtime.inference import APPEARANCE, ModelSpec, open_model
from capsule_edge.runtime.preprocessing import (
    AppearanceDistance,
    FieldOfView,
    describe_appearance,
    preprocess_frame,
)
from capsule_edge.runtime.recording import fetch, scan
from capsule_edge.runtime.results import write_whole

from ..engines import TaskEngine
from ..sources import RecordingState, check_unchanged

__all__ = ["FRAMES", "InputSample", "SampleSetup", "SampleTask", "sample_archive", "sample_inputs"]

Pixels = npt.NDArray[np.uint8]

FRAMES = 64
"""The most frames of a recording that are measured."""

SCHEMA = "capsule-edge/archive-inputs/1"


@dataclass(frozen=True)
class SampleSetup:
    """The archive and the model file of a sampling; sent to every worker."""

    out: Path
    model: str


@dataclass(frozen=True)
class SampleTask:
    """A recording to be measured.

    Attributes:
        key: name of its result.
        recording: path.
        sha256: of the recording that was read.
        state: its size and time of change then.
        view: left, top, width and height of the field of view, pixels; None without one.
    """

    key: str
    recording: str
    sha256: str
    state: RecordingState
    view: tuple[int, int, int, int] | None


@dataclass(frozen=True)
class InputSample:
    """The measures of some frames of a recording.

    Attributes:
        key: name of the result.
        colour: share of red in the mean colour of each frame, percent.
        sharpness: the statistic ``contrast`` of each frame.
        familiarity: distance of each frame from the training frames; empty where the model cannot tell.
    """

    key: str
    colour: tuple[float, ...]
    sharpness: tuple[float, ...]
    familiarity: tuple[float, ...]


def sample_inputs(setup: SampleSetup, task: SampleTask) -> InputSample | str:
    """Measure some frames of a recording and keep the measures. Runs in a worker.

    Returns:
        The measures, or why the recording cannot be measured.
    """
    try:
        check_unchanged(task.recording, task.state, task.sha256)
        spec = _spec(setup.model)
        sample = measure_frames(spec, task)
        path = sample_path(setup.out, task.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps({"schema": SCHEMA, **asdict(sample)}, allow_nan=False).encode())
        return sample
    except CapsuleEdgeError as error:
        return error.message
    except OSError as error:
        return f"the measures of {task.recording} cannot be kept: {(error.strerror or str(error)).lower()}"


def sample_archive(
    out: Path, tasks: Sequence[SampleTask], open_engine: Callable[[], TaskEngine]
) -> tuple[dict[str, InputSample], list[str]]:
    """Return the measures of recordings, and why some cannot be measured.

    Args:
        out: folder of the archive.
        tasks: the recordings.
        open_engine: opens an engine whose work is ``sample_inputs``; called if a recording has no measures yet.
    """
    found: dict[str, InputSample] = {}
    due = []
    for task in tasks:
        kept = _read_kept(out, task.key)
        if kept is None:
            due.append(task)
        else:
            found[task.key] = kept
    faults: list[str] = []
    if not due:
        return found, faults
    engine = open_engine()
    waiting, running = iter(enumerate(due)), 0
    try:
        while True:
            while running < engine.slots and (entry := next(waiting, None)) is not None:
                engine.submit(*entry)
                running += 1
            if not running:
                return found, faults
            for number, result in engine.wait(1.0):
                running -= 1
                if isinstance(result, InputSample):
                    found[result.key] = result
                else:
                    message = result if isinstance(result, str) else getattr(result, "message", str(result))
                    faults.append(f"{due[number].recording}: {message}")
    finally:
        engine.close()


def measure_frames(
    spec: ModelSpec, task: SampleTask, change: Callable[[Pixels], Pixels] | None = None
) -> InputSample:
    """Return the measures of up to ``FRAMES`` sound frames of a recording, evenly spread.

    Args:
        spec: the model, for its preprocessing and its measure of familiarity.
        task: the recording.
        change: changes the model's inputs, uint8 RGB (n, size, size, 3), before they are measured.

    Raises:
        InputError: the recording cannot be read.
    """
    container = scan(task.recording)
    wanted = sorted({round(at) for at in np.linspace(0, container.present - 1, FRAMES).tolist()})
    box = None if task.view is None else FieldOfView(*task.view)
    held = [preprocess_frame(frame, spec.input, box) for frame in fetch(container, wanted)]
    pixels = np.stack(held) if held else np.empty((0, spec.input.size, spec.input.size, 3), np.uint8)
    statistics = describe_appearance(change(pixels) if change is not None and held else pixels)
    rule = spec.familiarity
    distances = np.empty(0)
    if rule is not None and rule.threshold > 0:
        distances = AppearanceDistance(rule).of_statistics(statistics)
    return InputSample(
        task.key,
        _finite(statistics[:, APPEARANCE.index("share_of_red")]),
        _finite(statistics[:, APPEARANCE.index("contrast")]),
        _finite(distances),
    )


def sample_path(out: Path, key: str) -> Path:
    """Return the path at which the measures of a result are kept."""
    return out / "inputs" / key[:2] / f"{key}.json"


def _read_kept(out: Path, key: str) -> InputSample | None:
    try:
        document: Mapping[str, Any] = json.loads(sample_path(out, key).read_text("utf-8"))
        if document["schema"] != SCHEMA or document["key"] != key:
            return None
        names = ("colour", "sharpness", "familiarity")
        return InputSample(key, *(tuple(float(value) for value in document[name]) for name in names))
    except (OSError, ValueError, KeyError, TypeError):
        return None


@lru_cache(maxsize=2)
def _spec(model: str) -> ModelSpec:
    backend = open_model(model, threads=1)
    try:
        return backend.spec
    finally:
        backend.close()


def _finite(values: Any) -> tuple[float, ...]:
    held = np.asarray(values, np.float64)
    return tuple(np.round(held[np.isfinite(held)], 6).tolist())
