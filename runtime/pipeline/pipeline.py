"""A recording through the model, on all cores: each thread decodes, prepares and infers a group of pictures.

    groups -> (decode -> gate -> prepare -> infer) (several threads) -> the caller, in order
    else: decode (one thread) -> gate -> prepare, infer (several threads) -> the caller, in order

A decoder has one thread (``docs/decisions/0002-one-decoding-thread.md``), but groups of pictures that stand apart have
decoders of their own. So a picture stays with the thread that decoded it, no thread waits for another's, and
there are as many as there are cores. Only the answers wait for their turn, which takes no memory to speak of. What
cannot be parted so, or holds damage, is decoded by one thread while others infer. The model is run by several threads
at once, each with a batch of its own: on the processors that capsules are read on this uses the cores better than one
batch spread over them. No answer depends on the plan.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import chain, dropwhile, islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ..events import Sight, candidates, mean_colours
from ..inference import Backend, ModelSpec
from ..preprocessing import (
    FIELD_FRAMES,
    Buffers,
    Collected,
    FieldOfView,
    Prepared,
    Sighted,
    collect,
    find_field_of_view,
    locate,
    mark_duplicates,
    prepare,
)
from ..recording import Container, NotApartError, find_groups, group_numbers, group_of, sight, sight_apart
from .parallel import map_ordered, prefetch, run_streams

__all__ = ["Answered", "Plan", "answer_frames", "count_cores"]

T = TypeVar("T")

# Pictures that are handed from a decoder's own thread to the next at once: a hand-over costs as much as a
# tenth of a picture.
_CHUNK = 4
# Pictures of a group that are decoded before they are prepared, and these before the model is run on them, batch by
# batch: going from one to the other costs what the caches held. No more bytes of them, whatever their size.
_MOST_GATHERED = 32
_GATHERED_BYTES = 6 << 20
# Batches of the group whose turn it is that may wait, and what those of the groups behind it may weigh: the pictures
# in them, and something for each batch.
_DEPTH = 4
_AHEAD_BYTES = 12 << 20
_BATCH_BYTES = 1 << 16
# Pixels of a batch: 8 pictures of 128 x 128, 4 of 176 x 176, 2 of 224 x 224. The activations of so many stay in the
# processor's caches. Larger batches were slower and held more memory (measured, ``docs/log/2026-11.md``).
_BATCH_PIXELS = 1 << 17
_MOST_BATCH = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """How the model is run: number of threads, and frames per batch. No answer depends on it."""

    workers: int
    batch: int = 16

    @classmethod
    def fit(cls, cores: int, side: int) -> Plan:
        """Return the plan for ``cores`` cores and a model whose input is ``side`` x ``side`` pixels."""
        fitting = max(2, _BATCH_PIXELS // side**2)
        return cls(cores, min(_MOST_BATCH, 1 << (fitting.bit_length() - 1)))


@dataclass(frozen=True, slots=True)
class Answered:
    """Frames that the model has seen. ``row`` of a frame is its place in the arrays.

    ``probabilities`` is float32 (rows, labels), ``colours`` float64 (rows, 3) the mean red, green and blue
    inside the field of view, 0..255; ``sights`` holds the rows that may be the peak of an event.
    """

    frames: list[Prepared]
    probabilities: npt.NDArray[np.float32]
    colours: npt.NDArray[np.float64]
    field_of_view: FieldOfView | None
    sights: dict[int, Sight]

    @property
    def weight(self) -> int:
        """Bytes, roughly."""
        return _BATCH_BYTES + sum(one.picture.weight for one in self.sights.values())


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
    spec: ModelSpec | None = None,
    done: int = 0,
    gate: float | None = None,
    field_of_view: FieldOfView | None = None,
) -> Generator[Answered]:
    """What the model says of the wanted frames of a recording, in order, a batch at a time. Close it.

    Args:
        backend: run by ``plan.workers`` threads at once.
        spec: by whose operating points a frame may be the peak of an event; the backend's own where it is None.
        done: so many of the wanted frames, the first, are passed over; they are decoded, since damage in them may
            reach others.
        gate: frames nearer than this to the last that passed are not prepared (``gate``); None: every one is.
        field_of_view: of the recording, where it is known; else it is found in the first wanted pictures.

    An error in any stage is raised here, behind the answers of the frames that came before it.
    """
    if not wanted:
        return
    groups = find_groups(container)
    since = groups[group_of(groups, container.order[wanted.start])].start
    work = _Work(container, backend, spec or backend.spec, plan, gate, field_of_view)
    answers = work.answers(wanted[done:], since)
    # Each generator by name: an error holds those that it went through, and with them their threads.
    with closing(answers):
        yield from answers


class _Work:
    """What is done with the frames of one recording, by whichever threads."""

    def __init__(
        self,
        container: Container,
        backend: Backend,
        spec: ModelSpec,
        plan: Plan,
        gate: float | None,
        field_of_view: FieldOfView | None,
    ) -> None:
        self._container, self._backend, self._spec, self._plan = container, backend, spec, plan
        self._field_of_view = field_of_view
        self._buffers = Buffers()
        # A group knows nothing of the one before it.
        self._mark = gate is not None and partial(
            mark_duplicates, threshold=gate, stretch=group_numbers(container)
        )

    def answers(self, wanted: range, since: int) -> Generator[Answered]:
        """Of the wanted frames, in order; decoding begins with the sample ``since``."""
        left = wanted
        try:
            with sight_apart(self._container, wanted, since=since) as stretches, ExitStack() as begun:
                answers = self._apart(self._settle_field(stretches, begun))
                with closing(answers):
                    for answered in answers:
                        left = left[len(answered.frames) :]
                        yield answered
                return
        except NotApartError as end:
            if self._knows_field:
                since = end.begin
        if not left:
            return
        # With those that are answered already: what is left may be duplicates of them.
        answers = self._in_order(wanted, since, first=left.start)
        with closing(answers):
            yield from answers

    @property
    def _knows_field(self) -> bool:
        return self._field_of_view is not None or self._spec.input.crop == "none"

    def _settle_field(
        self, stretches: Iterator[Generator[Sighted]], begun: ExitStack
    ) -> Iterator[Generator[Sighted]]:
        """The same stretches; the field of view is known then. The first have begun, and close with ``begun``."""
        seen: list[Generator[Sighted]] = []
        pictures: list[npt.NDArray[np.uint8]] = []
        while not self._knows_field and len(pictures) < FIELD_FRAMES:
            stretch = next(stretches, None)
            if stretch is None:
                break
            begun.callback(stretch.close)
            first = list(islice(stretch, FIELD_FRAMES - len(pictures)))
            pictures.extend(rgb for one in first if (rgb := one.rgb()) is not None)
            seen.append(_go_on(first, stretch))
        if pictures:
            self._field_of_view = find_field_of_view(pictures)
        return chain(seen, stretches)

    def _apart(self, stretches: Iterator[Generator[Sighted]]) -> Generator[Answered]:
        """Each stretch decoded, prepared and answered by one thread, several stretches at once."""
        return run_streams(
            map(self._answers, stretches),
            threads=self._plan.workers,
            depth=_DEPTH,
            ahead=_AHEAD_BYTES,
            weigh=lambda answered: answered.weight,
            name="read",
        )

    def _in_order(self, wanted: range, since: int, first: int) -> Generator[Answered]:
        """From the frame ``first`` on; decoded by one thread, from the sample ``since`` on, and answered by several."""
        frames = prefetch(_chunks(sight(self._container, wanted, since=since)), depth=3, name="decode")
        answers = map_ordered(
            self._answer,
            self._collect(_flat(frames), self._plan.batch, first),
            threads=self._plan.workers,
            name="infer",
        )
        with closing(frames), closing(answers):
            yield from answers

    def _answers(self, frames: Generator[Sighted]) -> Generator[Answered]:
        with closing(frames):
            yield from map(self._answer, self._collect(frames, self._gathered))

    @property
    def _gathered(self) -> int:
        fitting = _GATHERED_BYTES // (self._container.width * self._container.height * 3 // 2)
        return max(self._plan.batch, min(_MOST_GATHERED, fitting))

    def _collect(self, frames: Iterable[Sighted], batch: int, first: int = 0) -> Iterator[Collected]:
        located = locate(frames, self._spec.input, self._field_of_view)
        if self._mark:
            located = self._mark(located)
        left = dropwhile(lambda placed: placed[0].index < first, located)
        return collect(left, batch=batch)

    def _answer(self, collected: Collected) -> Answered:
        spec = self._spec
        batch = prepare(collected, spec.input, self._buffers)
        if not len(batch.pixels):
            nothing = np.empty((0, len(spec.labels)), np.float32)
            return Answered(batch.frames, nothing, np.empty((0, 3)), batch.field_of_view, {})
        size = self._plan.batch
        runs = [self._backend.run(batch.pixels[at : at + size]) for at in range(0, len(batch.pixels), size)]
        probabilities = np.concatenate([found.probabilities for found in runs])
        colours = mean_colours(batch.pixels, spec.input)
        self._buffers.give(batch.pixels)
        features = np.concatenate([found.features for found in runs])
        sights = candidates(probabilities, features, batch.pictures, spec)
        return Answered(batch.frames, probabilities, colours, batch.field_of_view, sights)


def _chunks(items: Generator[T]) -> Iterator[list[T]]:
    with closing(items):
        while chunk := list(islice(items, _CHUNK)):
            yield chunk


def _go_on(first: list[Sighted], stretch: Generator[Sighted]) -> Generator[Sighted]:
    with closing(stretch):
        yield from first
        yield from stretch


def _flat(chunks: Generator[list[T]]) -> Iterator[T]:
    with closing(chunks):
        for chunk in chunks:
            yield from chunk
