"""A recording through the model, on all cores: threads that decode, and threads that prepare and infer.

    decode (several) -> gate -> prepare, infer (several) -> the caller, in order

Between the stages lie a few items, so memory does not grow with the recording. A decoder has one thread, and
groups of pictures that stand apart have decoders of their own (``docs/decisions/0002-one-decoding-thread.md``).
The model is run by several threads at once, each with a batch of its own: on the processors that capsules are
read on this uses the cores better than one batch spread over them. No answer depends on the plan.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from .backends import Backend
from .containers import Container
from .gallery import Sight, candidates
from .gate import mark_duplicates
from .illustration import mean_colours
from .preprocess import FieldOfView
from .sources import sight
from .stages import Buffers, Collected, Prepared, collect, locate, prepare
from .threads import prefetch, spread

__all__ = ["Answered", "FixedPlan", "Plan", "answer_frames", "count_cores"]

T = TypeVar("T")

# Pictures that are handed from the decoder's thread to the next at once: a hand-over costs as much as a
# tenth of a picture.
_CHUNK = 4
# Groups of pictures decoded at once, each with its decoder's memory.
_MOST_LANES = 4


class Plan(Protocol):
    """How the model is run. May change its mind while a recording is read; no answer depends on it."""

    @property
    def most_workers(self) -> int:
        """Threads that run the model, never more."""
        ...

    def workers(self) -> int:
        """How many of them may run now."""
        ...

    def batch(self) -> int:
        """Pictures in the next batch."""
        ...

    def answered(self, frames: int) -> None:
        """Told by the caller's thread that so many more frames are answered."""
        ...


@dataclass(frozen=True)
class FixedPlan:
    """The same from the first frame to the last."""

    most_workers: int
    size: int = 16

    def workers(self) -> int:
        return self.most_workers

    def batch(self) -> int:
        return self.size

    def answered(self, frames: int) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Answered:
    """A batch that the model has seen. ``row`` of a frame is its place in the arrays.

    ``probabilities`` is float32 (rows, labels), ``colours`` float64 (rows, 3) the mean red, green and blue
    inside the field of view, 0..255; ``sights`` holds the rows that may be the peak of an event.
    """

    frames: list[Prepared]
    probabilities: npt.NDArray[np.float32]
    colours: npt.NDArray[np.float64]
    field_of_view: FieldOfView | None
    sights: dict[int, Sight]


def count_cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


def answer_frames(
    container: Container,
    wanted: range,
    backend: Backend,
    plan: Plan,
    *,
    gate: float | None = None,
    field_of_view: FieldOfView | None = None,
    cores: int = 1,
) -> Generator[Answered]:
    """What the model says of the wanted frames of a recording, in order, a batch at a time. Close it.

    Args:
        backend: run by ``plan.workers()`` threads at once.
        gate: frames nearer than this to the last that passed are not prepared (``gate``); None: every one is.
        field_of_view: of the recording, where it is known; else it is found in the first wanted frames.
        cores: that decoding may use.

    An error in any stage is raised here, behind the answers of the frames that came before it.
    """
    spec, buffers = backend.spec.input, Buffers()
    lanes = min(cores, _MOST_LANES)

    def answer(collected: Collected) -> Answered:
        batch = prepare(collected, spec, buffers)
        if not len(batch.pixels):
            nothing = np.empty((0, len(backend.spec.labels)), np.float32)
            return Answered(batch.frames, nothing, np.empty((0, 3)), batch.field_of_view, {})
        found = backend.run(batch.pixels)
        colours = mean_colours(batch.pixels, spec)
        buffers.give(batch.pixels)
        sights = candidates(found.probabilities, found.features, batch.pictures, backend.spec)
        return Answered(batch.frames, found.probabilities.copy(), colours, batch.field_of_view, sights)

    pictures = prefetch(_chunks(sight(container, wanted, lanes=lanes)), depth=2, name="decode")
    located = locate(_flat(pictures), spec, field_of_view)
    passed = located if gate is None else mark_duplicates(located, gate)
    batches = collect(passed, batch=plan.batch)
    answers = spread(answer, batches, workers=plan.most_workers, allowed=plan.workers, name="infer")
    # Each by name: an error holds the generators that it went through, and with them their threads.
    with closing(pictures), closing(answers):
        for answered in answers:
            yield answered
            plan.answered(len(answered.frames))


def _chunks(items: Generator[T]) -> Iterator[list[T]]:
    with closing(items):
        while chunk := list(islice(items, _CHUNK)):
            yield chunk


def _flat(chunks: Generator[list[T]]) -> Iterator[T]:
    with closing(chunks):
        for chunk in chunks:
            yield from chunk
