"""Make up a study as long as the reference examination: 57,600 frames, eight hours at 2 per second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from study_samples import make_study

from capsule_edge.runtime.events import find_events
from capsule_edge.runtime.inference import EventParameters, InputSpec, Label, ModelSpec, OperatingPoint
from capsule_edge.runtime.study import Event, FrameRecord, StripPicture, Study

FINDINGS = (
    *(
        "Angioectasia",
        "Bleeding",
        "Erosion",
        "Erythema",
        "Foreign body",
        "Lymphangiectasia",
        "Polyp",
        "Ulcer",
    ),
    "Worms",
)
SPEC = ModelSpec(
    name="made-up",
    version="1",
    precision="int8",
    labels=(
        Label("normal", "Normal mucosa", "normal"),
        *(Label(name.lower().replace(" ", "_"), name, "finding") for name in FINDINGS),
    ),
    input=InputSpec(224),
    temperature=1.0,
    operating_points={
        name.lower().replace(" ", "_"): OperatingPoint(0.5, 0.71, 0.99, "made up") for name in FINDINGS
    },
    events=EventParameters(),
    license="Apache-2.0",
)
FRAMES = 57_600


def make_exam(
    events: int = 300,
    *,
    landmarks: Mapping[str, float] | None = None,
    pictures: Sequence[np.ndarray] | None = None,
    strips: bool = True,
) -> tuple[Study, np.ndarray]:
    """Return a study, and the mean colours of its frames, RGB of shape (1000, 3).

    Args:
        events: number of events; eight of ten are of one finding.
        landmarks: landmarks of the study, seconds by name.
        pictures: thumbnails of the events, uint8 RGB, used in turn; without any they are drawn.
        strips: give every event a strip.
    """
    generator = np.random.default_rng(events)
    base = make_study(1, (), spec=SPEC, pictures=False)
    values = np.clip(generator.gamma(0.6, 0.02, (FRAMES, len(SPEC.labels))), 0, 0.4).astype(np.float32)
    keys = SPEC.keys[1:]
    for number in range(events):
        label = keys[0] if number % 10 < 8 else keys[1 + number % (len(keys) - 1)]
        begin = 500 + number * (FRAMES - 2000) // max(events, 1)
        stretch = slice(begin, begin + int(generator.integers(8, 60)))
        column = SPEC.keys.index(label)
        values[stretch, column] = np.clip(generator.normal(0.75, 0.1, len(values[stretch])), 0.55, 0.99)
    values[:, 0] = np.clip(1 - values[:, 1:].sum(axis=1), 0, 1)
    frames = [FrameRecord(i, "classified", i, i * 0.5, probabilities=values[i]) for i in range(FRAMES)]
    found = find_events(frames, SPEC, median_distance_s=0.5, time_kind="capture")
    shown = pictures or [_mucosa(np.random.default_rng(seed)) for seed in range(12)]
    facts: dict[str, Any] = {
        "name": "exam 2026-11-24.mp4",
        "duration_s": FRAMES / 2,
        "width": 336,
        "height": 336,
    }
    study = replace(
        base,
        source=replace(base.source, **facts),
        frames=frames,
        events=found,
        ledger=replace(base.ledger, container=FRAMES, classified=FRAMES),
        thumbnails={e.id: shown[e.id % len(shown)] for e in found},
        activations={e.id: _map(np.random.default_rng(e.id)) for e in found},
        strips={e.id: _strip(e, shown) for e in found} if strips else {},
        landmarks=dict(landmarks or {}),
    )
    hue = np.linspace(0, 5, 1000)[:, None]
    colours = (
        np.array([150.0, 95.0, 50.0])
        + 30 * np.sin(hue + np.array([0.0, 0.4, 1.0]))
        + generator.normal(0, 6, (1000, 3))
    )
    return study, colours


def _strip(event: Event, pictures: Sequence[np.ndarray]) -> tuple[StripPicture, ...]:
    """Return ten small pictures of the frames of an event, its peak among them."""
    indices = set(np.linspace(event.start_index, event.end_index, 10).astype(int).tolist())
    chosen = sorted({*sorted(indices - {event.peak_index})[:9], event.peak_index})
    return tuple(StripPicture(index, 128, _small(index % len(pictures), pictures)) for index in chosen)


def _small(number: int, pictures: Sequence[np.ndarray]) -> bytes:
    small = cv2.resize(pictures[number], (128, 128), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()


def _mucosa(generator: np.random.Generator) -> np.ndarray:
    """Draw a round, blotchy picture that JPEG compresses about as well as a frame of a capsule."""
    small = generator.integers(0, 60, (24, 24, 3)).astype(np.float32) + np.array([150, 80, 50], np.float32)
    picture = cv2.resize(small, (288, 288), interpolation=cv2.INTER_CUBIC)
    picture += generator.normal(0, 5, picture.shape)
    inside = np.zeros((288, 288, 1), np.float32)
    cv2.circle(inside, (144, 144), 142, 1.0, -1)
    return np.clip(picture * inside, 0, 255).astype(np.uint8)


def _map(generator: np.random.Generator) -> np.ndarray:
    """Draw an activation map of 7 x 7 patches with one peak."""
    rows, columns = np.mgrid[0:7, 0:7]
    at = generator.uniform(1, 5, 2)
    return np.exp(-((rows - at[0]) ** 2 + (columns - at[1]) ** 2) / 3).astype(np.float32)
