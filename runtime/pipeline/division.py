"""Divide a recording at closed GOPs into parts that several processes read, and hand their answers back in order.

``run`` reads closed GOPs independently up to the first that is damaged, and from there on in order, with one decoder.
A division keeps that rule. Each part is a stretch of closed GOPs. At the first damaged GOP, the rest of the recording
becomes one part that is read in order, and the answers of later parts are dropped. So the answers do not depend on
the number of parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..inference import Backend, ModelSpec
from ..preprocessing import FieldOfView
from ..recording import ClosedGopError, Container, Frame, count_closed, find_gops, gop_of
from .memory import give_back
from .pipeline import BatchResult, Plan, RecordingStages
from .request import ReadRequest

__all__ = ["Division", "Part", "PartAnswers", "answer_part", "divide"]

# Frames that ``PartAnswers.results`` hands back at once.
_TOGETHER = 256


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a recording.

    Attributes:
        frames: indices of the frames to answer.
        first_packet: decoding begins here, at the start of a closed GOP.
        in_order: one decoder reads from ``first_packet`` to the end of the recording.
    """

    frames: range
    first_packet: int
    in_order: bool = False


@dataclass(frozen=True, eq=False)
class PartAnswers:
    """The answers of one part, in order, without pictures. All arrays can be stored.

    Attributes:
        indices: of the answered frames, int64 (frames,).
        duplicate_of: index of the frame that a near-duplicate repeats, else -1; int64 (frames,).
        details: why a frame is corrupt, else empty; bytes (frames,).
        rows: row of each frame in the arrays below, -1 for a frame without an answer of its own; int64 (frames,).
        probabilities: float32 (rows, labels).
        colours: mean red, green and blue, 0..255; float64 (rows, 3).
        unfamiliar: bool (rows,), as in ``BatchResult``.
        failed_packet: first packet of the damaged GOP where the part ended early; None if all frames are answered.
    """

    indices: npt.NDArray[np.int64]
    duplicate_of: npt.NDArray[np.int64]
    details: npt.NDArray[np.bytes_]
    rows: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]
    colours: npt.NDArray[np.float64]
    unfamiliar: npt.NDArray[np.bool_]
    failed_packet: int | None = None

    def results(self, field_of_view: FieldOfView | None) -> Iterator[BatchResult]:
        """Yield the answers as the pipeline does, without candidates for event peaks.

        Args:
            field_of_view: of the recording.
        """
        for first in range(0, len(self.indices), _TOGETHER):
            span = slice(first, first + _TOGETHER)
            rows = self.rows[span]
            held = rows[rows >= 0]
            least, after = (int(held[0]), int(held[-1]) + 1) if len(held) else (0, 0)
            frames = [
                Frame(index, None, detail.decode(), None if twin < 0 else twin)
                for index, detail, twin in zip(
                    self.indices[span].tolist(),
                    self.details[span].tolist(),
                    self.duplicate_of[span].tolist(),
                    strict=True,
                )
            ]
            yield BatchResult(
                frames,
                [None if row < 0 else row - least for row in rows.tolist()],
                self.probabilities[least:after],
                self.colours[least:after],
                field_of_view,
                {},
                self.unfamiliar[least:after],
            )


@dataclass(frozen=True, eq=False)
class Division:
    """A recording, how it is read, and its parts. It can be sent to other processes.

    Attributes:
        container: lists the recording's frames.
        wanted: indices of the frames to read.
        sha256: of the recording.
        stream_sha256: of the bit stream inside the recording (DICOM); else None.
        landmarks: seconds of container time by name.
        options: what was asked for, as ``study.json`` has it.
        field_of_view: of the recording; None where the model needs none.
        parts: in order; together they hold every wanted frame once.
    """

    container: Container
    wanted: range
    sha256: str
    stream_sha256: str | None
    landmarks: dict[str, float]
    options: dict[str, Any]
    field_of_view: FieldOfView | None
    parts: tuple[Part, ...] = field(default=())

    def request(self) -> ReadRequest:
        """Return the read request that was divided."""
        digest: Future[str] = Future()
        digest.set_result(self.sha256)
        stream_digest: Future[str | None] = Future()
        stream_digest.set_result(self.stream_sha256)
        return ReadRequest(self.container, self.wanted, digest, stream_digest, self.landmarks, self.options)

    def rest(self, part: Part, answers: PartAnswers) -> Part:
        """Return the part that reads on in order behind a part that ended at a damaged GOP.

        Args:
            part: one of ``parts``.
            answers: of that part; its ``failed_packet`` is not None.
        """
        assert answers.failed_packet is not None
        gops = find_gops(self.container)
        done = self.wanted.index(part.frames.start) + len(answers.indices)
        return _in_order(self.container, gops, self.wanted, done, gop_of(gops, answers.failed_packet))

    def join(self, answers: Iterable[PartAnswers]) -> Iterator[BatchResult]:
        """Yield the answers of all parts in order.

        Args:
            answers: of the parts, in order. Those behind a part that ended early are of ``rest``.

        Raises:
            ValueError: they are not the answers of the wanted frames, each once.
        """
        expected = iter(self.wanted)
        for each in answers:
            for result in each.results(self.field_of_view):
                if any(frame.index != next(expected, None) for frame in result.frames):
                    raise ValueError("the answers of the parts are not those of the wanted frames in order")
                yield result
        if next(expected, None) is not None:
            raise ValueError("the parts leave wanted frames unanswered")


def divide(
    request: ReadRequest, backend: Backend, plan: Plan, *, spec: ModelSpec, frames: int
) -> Division | None:
    """Divide a recording at closed GOPs, or return None if it has to be read as a whole.

    The scan of the packets and the first frames decide: a recording without closed GOPs, or with damage at its start,
    is not divided.

    Args:
        request: the read request.
        backend: the opened model.
        plan: number of threads and batch size.
        spec: the model description.
        frames: a part ends at the first GOP that brings it to so many wanted frames.
    """
    container, wanted = request.container, request.wanted
    gops = find_gops(container)
    first = gop_of(gops, container.order[wanted.start])
    if len(wanted) <= frames or min(count_closed(container), len(gops)) <= first + 1:
        return None
    stages = RecordingStages(container, backend, spec, plan, request.options["gate"], None)
    try:
        box = stages.find_field_of_view(wanted, gops[first].start)
    except ClosedGopError:
        return None
    if box is None and spec.input.crop != "none":
        return None
    parts = tuple(_list_parts(container, gops, wanted, frames))
    if len(parts) < 2:
        return None
    return Division(
        container,
        wanted,
        request.sha256,
        request.stream_sha256,
        request.landmarks,
        request.options,
        box,
        parts,
    )


def answer_part(
    division: Division, part: Part, backend: Backend, plan: Plan, *, spec: ModelSpec
) -> PartAnswers:
    """Return the answers of one part.

    Args:
        division: of the recording.
        part: one of its parts, or its ``rest``.
        backend: the opened model.
        plan: number of threads and batch size.
        spec: the model description.

    Raises:
        InputError: the recording changed since it was scanned.
    """
    stages = RecordingStages(
        division.container, backend, spec, plan, division.options["gate"], division.field_of_view
    )
    if part.in_order:
        results = stages.in_order(division.wanted, part.first_packet, first=part.frames.start)
    else:
        results = stages.closed(part.frames, part.first_packet)
    found: list[BatchResult] = []
    failed = None
    try:
        with closing(results):
            for result in results:
                # The pictures of candidates would fill the memory.
                found.append(replace(result, candidates={}))
    except ClosedGopError as end:
        failed = end.failed_packet
    give_back()
    answers = _collect(found, labels=len(spec.labels))
    return answers if len(answers.indices) == len(part.frames) else replace(answers, failed_packet=failed)


def _list_parts(container: Container, gops: list[range], wanted: range, frames: int) -> Iterator[Part]:
    first, last = (gop_of(gops, container.order[index]) for index in (wanted.start, wanted[-1]))
    after = min(count_closed(container), last + 1)
    place_of = {packet: index for index, packet in enumerate(container.order)}
    begun, first_packet = 0, gops[first].start
    for gop in range(first + 1, after):
        # ``find_gops`` begins every GOP but the first with a packet that is shown.
        done = len(range(wanted.start, place_of[gops[gop].start], wanted.step))
        if done - begun >= frames:
            yield Part(wanted[begun:done], first_packet)
            begun, first_packet = done, gops[gop].start
    if after > last:
        yield Part(wanted[begun:], first_packet)
        return
    done = len(range(wanted.start, place_of[gops[after].start], wanted.step))
    if done > begun:
        yield Part(wanted[begun:done], first_packet)
    yield _in_order(container, gops, wanted, done, after)


def _in_order(container: Container, gops: list[range], wanted: range, done: int, failed: int) -> Part:
    """Return the part that begins with wanted frame ``done``; decoding starts one GOP before the failed one."""
    first = gop_of(gops, container.order[wanted.start])
    return Part(wanted[done:], gops[max(failed - 1, first)].start, in_order=True)


def _collect(results: list[BatchResult], *, labels: int) -> PartAnswers:
    frames = [frame for result in results for frame in result.frames]
    rows, held = [], 0
    for result in results:
        rows += [-1 if row is None else held + row for row in result.rows]
        held += len(result.probabilities)
    none = np.empty((0, labels), np.float32)
    return PartAnswers(
        np.array([frame.index for frame in frames], np.int64),
        np.array([-1 if frame.duplicate_of is None else frame.duplicate_of for frame in frames], np.int64),
        np.array([frame.detail.encode() for frame in frames], "S30"),
        np.array(rows, np.int64),
        np.concatenate([none, *(result.probabilities for result in results)]),
        np.concatenate([np.empty((0, 3)), *(result.colours for result in results)]),
        np.concatenate([np.empty(0, np.bool_), *(result.unfamiliar for result in results)]),
    )
