"""Run a recording through the model on all cores.

    closed GOPs: (decode -> near-duplicates -> prepare -> infer), a GOP per thread -> the caller, in order
    otherwise:   decode (one thread) -> near-duplicates -> (prepare -> infer), several threads

A decoder has one thread (``docs/decisions/0002-one-decoding-thread.md``), but closed GOPs have decoders of their own.
Each frame stays in the thread that decoded it, and there is one thread for each core. Only finished answers wait, so
that they come out in order; that takes little memory. A recording without closed GOPs, or from the
first damaged GOP on, is decoded by one thread while others infer.

Several threads run the model at once, each with a batch of its own. On the processors tested, this uses the cores
better than one batch spread over them. No answer depends on the plan.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import chain, dropwhile, islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ..cores import count_cores
from ..events import Candidate, find_candidates
from ..inference import Backend, ModelSpec
from ..preprocessing import (
    FIELD_FRAMES,
    AppearanceDistance,
    Batch,
    FieldOfView,
    PixelBuffers,
    check_sizes,
    find_field_of_view,
    make_batches,
    mark_duplicates,
    mean_colours,
    prepare,
    settle_field_of_view,
)
from ..recording import (
    ClosedGopError,
    Container,
    Frame,
    find_gops,
    gop_numbers,
    gop_of,
    read_closed_gops,
    read_frames,
)
from .parallel import map_ordered, prefetch, run_streams

__all__ = ["BatchResult", "Plan", "RecordingStages", "answer_frames", "count_cores"]

T = TypeVar("T")

# Frames that the decoding thread hands over at once: a hand-over costs as much as a tenth of a frame.
_CHUNK = 4
# A thread decodes this many frames of a GOP, then prepares them all, then runs the model on them, batch by batch:
# switching tasks empties the processor's caches. It gathers fewer if they take more than the bytes.
_MOST_GATHERED = 32
_GATHERED_BYTES = 6 << 20
# ``_DEPTH`` results of the current GOP may wait. The results of later GOPs may hold ``_AHEAD_BYTES`` together, counted
# as their images plus ``_RESULT_BYTES`` each.
_DEPTH = 4
_AHEAD_BYTES = 12 << 20
_RESULT_BYTES = 1 << 16
# Pixels of a batch: 8 frames of 128 x 128, 4 of 176 x 176, 2 of 224 x 224. The activations of so many stay in the
# processor's caches. Larger batches were slower and held more memory (measured, ``docs/log/2026-11.md``).
_BATCH_PIXELS = 1 << 17
_MOST_BATCH = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """Settings with which the model runs: number of threads, and frames per batch. No answer depends on it."""

    workers: int
    batch: int = 16

    @classmethod
    def fit(cls, cores: int, side: int) -> Plan:
        """Return the plan for ``cores`` cores and a model whose input is ``side`` x ``side`` pixels."""
        fitting = max(2, _BATCH_PIXELS // side**2)
        return cls(cores, min(_MOST_BATCH, 1 << (fitting.bit_length() - 1)))


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The model's answers for a batch.

    Attributes:
        frames: in order, without their images.
        rows: for each frame its row in the arrays; None for a frame that has no answer of its own.
        probabilities: float32 (rows, labels).
        colours: mean red, green and blue inside the field of view, float64 (rows, 3), 0..255.
        field_of_view: of the recording; None where the model needs none.
        candidates: by row, the frames that may be the peak of an event.
        unfamiliar: bool (rows,), True for a frame unlike the training frames; all False if the model cannot tell.
    """

    frames: list[Frame]
    rows: list[int | None]
    probabilities: npt.NDArray[np.float32]
    colours: npt.NDArray[np.float64]
    field_of_view: FieldOfView | None
    candidates: dict[int, Candidate]
    unfamiliar: npt.NDArray[np.bool_]

    @property
    def nbytes(self) -> int:
        """Approximate size in bytes."""
        return _RESULT_BYTES + sum(candidate.frame.nbytes for candidate in self.candidates.values())


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
) -> Generator[BatchResult]:
    """Yield the model's answers for the wanted frames of a recording, in order, a batch at a time.

    Close the generator, do not drop it. An error in any stage is raised after the answers of the frames before it.

    Args:
        container: of the recording.
        wanted: indices of the frames to answer.
        backend: the opened model; ``plan.workers`` threads run it at once.
        spec: the model description whose thresholds decide which frames may be peaks; None for the backend's own.
        done: leave out this many of the wanted frames, the first ones. They are decoded all the same, since damage
            in them may reach others.
        gate: threshold of the near-duplicate filter, levels of 255; None for no filter.
        field_of_view: of the recording; None to find it in the first wanted frames.
    """
    if not wanted:
        return
    gops = find_gops(container)
    first_packet = gops[gop_of(gops, container.order[wanted.start])].start
    stages = RecordingStages(container, backend, spec or backend.spec, plan, gate, field_of_view)
    # Keep the generator in a variable and close it here: otherwise a traceback would keep it, and its threads, alive.
    results = stages.results(wanted[done:], first_packet)
    with closing(results):
        yield from results


class RecordingStages:
    """The stages that the frames of one recording go through, in any thread."""

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
        self._distance = AppearanceDistance(spec.familiarity) if spec.familiarity is not None else None
        self._buffers = PixelBuffers()
        # Frames of two GOPs are not compared, since a GOP is decoded without the one before it.
        self._mark = gate is not None and partial(
            mark_duplicates, threshold=gate, gop_of=gop_numbers(container)
        )

    def results(self, wanted: range, first_packet: int) -> Generator[BatchResult]:
        """Yield the answers of the wanted frames in order. Decoding begins at ``first_packet``."""
        left = wanted
        try:
            results = self.closed(wanted, first_packet)
            with closing(results):
                for result in results:
                    left = left[len(result.frames) :]
                    yield result
            return
        except ClosedGopError as end:
            if self._knows_field_of_view:
                first_packet = end.first_packet
        if not left:
            return
        # Read the answered frames again too: the frames that are left may be duplicates of them.
        results = self.in_order(wanted, first_packet, first=left.start)
        with closing(results):
            yield from results

    def closed(self, wanted: range, first_packet: int) -> Generator[BatchResult]:
        """Yield the answers of the wanted frames by closed GOPs, several at once. May end in ``ClosedGopError``."""
        with (
            read_closed_gops(self._container, wanted, first_packet=first_packet) as gops,
            ExitStack() as begun,
        ):
            results = self._by_gops(self._find_field_of_view(gops, begun))
            with closing(results):
                yield from results

    def find_field_of_view(self, wanted: range, first_packet: int) -> FieldOfView | None:
        """Find the field of view in the first wanted frames, as ``results`` does. May raise ``ClosedGopError``."""
        with (
            read_closed_gops(self._container, wanted, first_packet=first_packet) as gops,
            ExitStack() as begun,
        ):
            self._find_field_of_view(gops, begun)
        return self._field_of_view

    @property
    def _knows_field_of_view(self) -> bool:
        return self._field_of_view is not None or self._spec.input.crop == "none"

    def _find_field_of_view(
        self, gops: Iterator[Generator[Frame]], begun: ExitStack
    ) -> Iterator[Generator[Frame]]:
        """Find the field of view in the first frames; return the same GOPs.

        The GOPs that were begun for it close with ``begun``.
        """
        seen: list[Generator[Frame]] = []
        images: list[npt.NDArray[np.uint8]] = []
        while not self._knows_field_of_view and len(images) < FIELD_FRAMES:
            gop = next(gops, None)
            if gop is None:
                break
            begun.callback(gop.close)
            first = list(islice(gop, FIELD_FRAMES - len(images)))
            images.extend(frame.rgb() for frame in first if frame.image is not None)
            seen.append(_resume(first, gop))
        if images:
            self._field_of_view = find_field_of_view(images)
        return chain(seen, gops)

    def _by_gops(self, gops: Iterator[Generator[Frame]]) -> Generator[BatchResult]:
        """Decode, prepare and answer each GOP in one thread, several GOPs at once."""
        return run_streams(
            map(self._answer_gop, gops),
            threads=self._plan.workers,
            depth=_DEPTH,
            ahead=_AHEAD_BYTES,
            weigh=lambda result: result.nbytes,
            name="read",
        )

    def _answer_gop(self, frames: Generator[Frame]) -> Generator[BatchResult]:
        with closing(frames):
            yield from map(self._answer, self._make_batches(check_sizes(frames), self._gathered))

    def in_order(self, wanted: range, first_packet: int, first: int) -> Generator[BatchResult]:
        """Yield the answers from frame ``first`` on. One thread decodes, several answer."""
        chunks = prefetch(
            _chunks(read_frames(self._container, wanted, first_packet=first_packet)), depth=3, name="decode"
        )
        with closing(chunks):
            self._field_of_view, frames = settle_field_of_view(
                chain.from_iterable(chunks), self._spec.input, self._field_of_view
            )
            results = map_ordered(
                self._answer,
                self._make_batches(frames, self._plan.batch, first),
                threads=self._plan.workers,
                name="infer",
            )
            with closing(results):
                yield from results

    @property
    def _gathered(self) -> int:
        """Number of frames that a thread decodes before it prepares them."""
        fitting = _GATHERED_BYTES // (self._container.width * self._container.height * 3 // 2)
        return max(self._plan.batch, min(_MOST_GATHERED, fitting))

    def _make_batches(self, frames: Iterable[Frame], size: int, first: int = 0) -> Iterator[Batch]:
        if self._mark:
            frames = self._mark(frames, field_of_view=self._field_of_view)
        left = dropwhile(lambda frame: frame.index < first, frames)
        return make_batches(left, size=size, field_of_view=self._field_of_view)

    def _answer(self, batch: Batch) -> BatchResult:
        spec = self._spec
        held = batch.with_image
        numbers = iter(range(len(held)))
        rows = [None if frame.image is None else next(numbers) for frame in batch.frames]
        frames = [frame.without_image() for frame in batch.frames]
        if not held:
            nothing = np.empty((0, len(spec.labels)), np.float32)
            none = np.empty(0, np.bool_)
            return BatchResult(frames, rows, nothing, np.empty((0, 3)), batch.field_of_view, {}, none)
        pixels = prepare(batch, spec.input, self._buffers)
        size = self._plan.batch
        runs = [self._backend.run(pixels[at : at + size]) for at in range(0, len(pixels), size)]
        probabilities = np.concatenate([run.probabilities for run in runs])
        colours = mean_colours(pixels, spec.input)
        unfamiliar = self._find_unfamiliar(pixels)
        self._buffers.give(pixels)
        features = np.concatenate([run.features for run in runs])
        # A frame without probabilities is no candidate, and a frame that is set aside raises no event.
        shown = probabilities
        if unfamiliar.any():
            shown = np.where(unfamiliar[:, None], np.float32(np.nan), probabilities)
        candidates = find_candidates(shown, features, held, spec)
        return BatchResult(frames, rows, probabilities, colours, batch.field_of_view, candidates, unfamiliar)

    def _find_unfamiliar(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        if self._distance is None:
            return np.zeros(len(pixels), np.bool_)
        return self._distance.is_unfamiliar(pixels)


def _chunks(items: Generator[T]) -> Iterator[list[T]]:
    with closing(items):
        while chunk := list(islice(items, _CHUNK)):
            yield chunk


def _resume(first: list[Frame], rest: Generator[Frame]) -> Generator[Frame]:
    with closing(rest):
        yield from first
        yield from rest
