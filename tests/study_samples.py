"""Made-up studies for the tests of the files of a run; none of their numbers is a measurement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from capsule_edge.runtime.events import find_events
from capsule_edge.runtime.inference import EventParameters, InputSpec, Label, ModelSpec, OperatingPoint
from capsule_edge.runtime.preprocessing import FieldOfView
from capsule_edge.runtime.study import STATUSES, FrameRecord, Ledger, Source, Study

SPEC = ModelSpec(
    name="sample",
    version="7",
    precision="int8",
    labels=(
        Label("normal", "Normal mucosa", "normal"),
        Label("ulcer", "Ulcer", "finding"),
        Label("blood_fresh", "Blood, fresh", "finding"),
    ),
    input=InputSpec(96),
    temperature=1.25,
    operating_points={
        "ulcer": OperatingPoint(0.5, 0.9, 0.95, "made up"),
        "blood_fresh": OperatingPoint(0.6, provisional=False),
    },
    events=EventParameters(),
    license="Apache-2.0",
)

# Frames of one label: first frame, end frame (exclusive), label, probability.
Stretch = tuple[int, int, str, float]


def make_study(
    count: int = 120,
    stretches: Sequence[Stretch] = ((20, 40, "ulcer", 0.9), (60, 90, "blood_fresh", 0.8)),
    *,
    spec: ModelSpec = SPEC,
    step_s: float = 0.5,
    statuses: Mapping[int, Any] | None = None,
    missing: int = 0,
    ledger: Mapping[str, Any] | None = None,
    pictures: bool = True,
    **source: Any,
) -> Study:
    """Return a study of ``count`` frames; ``statuses`` gives frames by index another status than ``classified``."""
    probabilities = np.full((count, len(spec.labels)), 0.01, np.float32)
    for begin, end, key, value in stretches:
        probabilities[begin:end, spec.keys.index(key)] = value
    probabilities[:, 0] = 1 - probabilities[:, 1:].sum(axis=1)
    frames = []
    for index in range(count):
        status = (statuses or {}).get(index, "classified")
        answered = status in ("classified", "duplicate")
        frames.append(
            FrameRecord(
                index,
                status,
                pts=index * 256,
                time_s=index * step_s,
                duplicate_of=index - 1 if status == "duplicate" else None,
                detail="damaged" if status == "corrupt" else "",
                probabilities=probabilities[index] if answered else None,
            )
        )
    frames += [FrameRecord(count + number, "missing") for number in range(missing)]
    totals = Counter(frame.status for frame in frames)
    facts: dict[str, Any] = {
        "name": "sample.mp4",
        "sha256": "0" * 64,
        "codec": "h264",
        "width": 96,
        "height": 96,
        "time_base": "1/512",
        "start_pts": 0,
        "duration_s": count * step_s,
        "time_kind": "capture" if step_s >= 0.1 else "playback",
        "capture_fps": None,
        "field_of_view": FieldOfView(2, 3, 90, 88),
    }
    origin = Source(**(facts | source))
    found = find_events(
        frames, spec, median_distance_s=step_s, time_kind=origin.time_kind, capture_fps=origin.capture_fps
    )
    generator = np.random.default_rng(3)
    study = Study(
        source=origin,
        model=spec,
        model_sha256="1" * 64,
        backend="onnxruntime",
        options={"every": 1, "end_s": None},
        ledger=Ledger(
            **{
                "container": len(frames),
                "container_source": "header",
                "truncated": False,
                **{status: totals.get(status, 0) for status in STATUSES},
                **(ledger or {}),
            }
        ),
        frames=frames,
        events=found,
    )
    if pictures:
        study = replace(
            study,
            thumbnails={e.id: generator.integers(0, 256, (48, 64, 3), np.uint8) for e in found},
            activations={e.id: generator.random((6, 8), np.float32) for e in found},
        )
    return study
