"""Reads a recording with a model: the ``Reader``, which turns a video into a ``Study``.

    with Reader.open() as reader:
        study = reader.read("video.mp4")
        for prediction in reader.stream(frames):
            ...

A recording goes through ``pipeline``, on all cores. Neither the batch size nor the number of threads changes
an answer.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable, Mapping
from contextlib import aclosing, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypedDict, Unpack

import numpy as np
import numpy.typing as npt

from .diagnostics import refuse_saturation
from .errors import BackendError, UsageError
from .events import ColourBar, EventStream, Gallery, find_events, illustrate, median_frame_distance
from .inference import Backend, ModelSpec, default_model, most_probable, open_model
from .pipeline import (
    SURVEY_OPTIONS,
    Answered,
    Follower,
    Plan,
    answer_frames,
    count_cores,
    give_back,
    survey_recording,
)
from .preprocessing import Buffers, FieldOfView, Sighted, check_frame, collect, locate, prepare
from .results import Journal, entries
from .study import Event, FrameRecord, FrameTable, Study, count_frames, describe_source, list_frames

__all__ = ["Prediction", "ReadOptions", "Reader"]


Progress = Callable[[int, int], None]

# Frames after which free memory is given back: some ms in more than a second of reading.
_HEAP_FRAMES = 2048


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one frame of a stream.

    ``label`` is the most probable key and ``probability`` its value; ``probabilities`` is float32 (labels,)
    in the order of the model's labels, ``features`` float32 (h, w, labels), the class-activation maps
    before scaling.
    """

    index: int
    label: str
    probability: float
    probabilities: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32]


class ReadOptions(TypedDict, total=False):
    """The options of ``Reader.read``, for what hands them on."""

    capture_fps: float | None
    start_s: float | None
    end_s: float | None
    every: int
    gate: float | None
    landmarks: Mapping[str, float] | None
    progress: Progress | None
    cancel: Callable[[], bool] | None
    on_frame: Callable[[FrameRecord], None] | None
    on_event: Callable[[Event], None] | None
    journal: Journal | None


class Reader:
    """A model, opened once, that reads recordings and streams. Close it, or use it in a ``with`` block."""

    def __init__(self, backend: Backend, *, threads: int = 0, plan: Plan | None = None) -> None:
        self._backend = backend
        self.spec: ModelSpec = backend.spec
        self._threads = threads
        # Recordings are read by several threads with an engine of one thread, streams by one that may use all.
        self._engines = {1: backend}
        self._opening = threading.Lock()
        self._closed = False
        self._plan = plan or Plan.fit(threads or count_cores(), backend.spec.input.size)

    @classmethod
    def open(
        cls,
        model: str | Path | None = None,
        *,
        backend: str = "onnxruntime",
        threads: int = 0,
        plan: Plan | None = None,
        allow_saturation: bool = False,
    ) -> Reader:
        """Open a model file, or ``standard`` or ``small``, which come with the package; None is the standard one.

        Args:
            threads: how many cores inference may use, 0 all of them.
            plan: number of threads and batch size; None chooses them by the cores and the model. No answer depends
                on it.
            allow_saturation: read with a model whose answers would differ on this CPU (``saturation``).

        Raises ``ModelError``, also for such a model, and ``BackendError``.
        """
        if threads < 0:
            raise UsageError(f"threads is {threads}, allowed is 0 (the engine's choice) or more")
        opened = open_model(default_model() if model is None else model, backend=backend, threads=1)
        if not allow_saturation:
            refuse_saturation(opened)
        return cls(opened, threads=threads, plan=plan)

    def use_thresholds(self, thresholds: Mapping[str, float], *, min_frames: int | None = None) -> None:
        """Go by these probabilities instead of the model's operating points from now on; ``study.json`` states them.

        Raises what ``ModelSpec.with_rules`` does.
        """
        self.spec = self.spec.with_rules(thresholds, min_frames=min_frames)

    @property
    def model_path(self) -> Path:
        return self._backend.path

    @property
    def model_sha256(self) -> str:
        return self._backend.sha256

    @property
    def plan(self) -> Plan:
        """Number of threads and batch size with which recordings are read."""
        return self._plan

    @property
    def backend_name(self) -> str:
        return self._backend.name

    def close(self) -> None:
        with self._opening:
            self._closed = True
            for engine in self._engines.values():
                engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(
        self,
        path: str | Path,
        *,
        capture_fps: float | None = None,
        start_s: float | None = None,
        end_s: float | None = None,
        every: int = 1,
        gate: float | None = None,
        landmarks: Mapping[str, float] | None = None,
        progress: Progress | None = None,
        cancel: Callable[[], bool] | None = None,
        on_frame: Callable[[FrameRecord], None] | None = None,
        on_event: Callable[[Event], None] | None = None,
        journal: Journal | None = None,
    ) -> Study:
        """Everything the model finds in one recording, with an account of every frame.

        Args:
            capture_fps: frames a second at which the capsule recorded, where it is known.
            start_s, end_s: read ``[start_s, end_s)`` of container time, and of that each ``every``-th frame from
                its first on; the other frames are ``skipped``, damaged or not.
            gate: pass over frames whose brightness differs from the last answered one's by less than this many
                levels of 255 (``gate``); they take its answer and are ``duplicate``. None: none is.
            landmarks: seconds of container time by name (``landmarks.LANDMARKS``), set by whoever looked.
            progress: called with (frames done, frames in all) after each batch.
            cancel: asked before each batch; once it says True the rest is ``unread``.
            on_frame: called with each container frame in order, once it is known what became of it.
            on_event: called with each event once no later frame can change it; its ``id`` is 0.
            journal: what is answered is entered there, and what it holds of this run is not answered again
                (``runs.open_run``).

        The callbacks are called in the calling thread, and what they raise ends the reading.

        Raises ``InputError`` for a file that cannot be read, ``UsageError`` for impossible options and a journal
        of another run, and ``OutputError`` for a journal that cannot be written.
        """
        survey = survey_recording(
            path,
            capture_fps=capture_fps,
            start_s=start_s,
            end_s=end_s,
            every=every,
            gate=gate,
            landmarks=landmarks,
        )
        container, wanted = survey.container, survey.wanted
        records = list_frames(container, wanted, labels=len(self.spec.labels))
        colours = ColourBar(frames=container.present, duration_s=container.duration_s)
        distance_s = median_frame_distance(records)
        known = None
        if journal is not None:
            known = journal.begin(
                partial(survey.identify, self._backend), labels=len(self.spec.labels), records=records
            )
        gallery = Gallery(self.spec)
        follower = Follower(
            records,
            on_frame=on_frame,
            on_event=on_event,
            events=EventStream(
                self.spec,
                median_distance_s=distance_s,
                time_kind=container.time_kind,
                capture_fps=capture_fps,
            ),
            gallery=gallery,
        )
        box: FieldOfView | None = None
        done = 0
        if known is not None:
            known.enter(records, colours)
            box, done = known.field_of_view, len(known.records)
            follower.settle(known.records[-1].index + 1)
        answers = answer_frames(
            container,
            wanted,
            self._engine(1),
            self._plan,
            spec=self.spec,
            done=done,
            gate=gate,
            field_of_view=box,
        )
        with closing(answers):
            for answered in answers:
                if cancel is not None and cancel():
                    break
                self._record(answered, records, colours, gallery)
                box = answered.field_of_view
                if done // _HEAP_FRAMES != (done + len(answered.frames)) // _HEAP_FRAMES:
                    give_back()
                done += len(answered.frames)
                if journal is not None:
                    journal.enter(entries(answered, records))
                follower.settle(answered.frames[-1].index + 1)
                if progress is not None:
                    progress(done, len(wanted))
        give_back()
        follower.finish()
        events = find_events(
            records,
            self.spec,
            median_distance_s=distance_s,
            time_kind=container.time_kind,
            capture_fps=capture_fps,
        )
        thumbnails, activations = illustrate(container, events, self._engine(1), box, gallery)
        return Study(
            source=describe_source(container, survey.sha256, capture_fps, box),
            model=self.spec,
            model_sha256=self._backend.sha256,
            backend=self._backend.name,
            options=survey.options,
            ledger=count_frames(container, records),
            frames=records,
            events=events,
            thumbnails=thumbnails,
            activations=activations,
            colours=colours.means(),
            landmarks=survey.landmarks,
        )

    async def aread(self, path: str | Path, **options: Unpack[ReadOptions]) -> Study:
        """``read`` in a thread beside the event loop; any number at once.

        The callbacks are called in that thread. When the task is cancelled, reading stops at the next batch,
        and the task ends when it has; what a ``journal`` holds is kept.
        """
        from .pipeline import run

        asked = options.get("cancel")

        def work(stopped: Callable[[], bool]) -> Study:
            options["cancel"] = lambda: stopped() or (asked is not None and asked())
            return self.read(path, **options)

        return await run(work)

    def has_read(self, document: Mapping[str, Any], path: str | Path, **options: Unpack[ReadOptions]) -> bool:
        """Whether ``document``, a ``study.json``, is what reading ``path`` with these options would leave."""
        asked: dict[str, Any] = {name: value for name, value in options.items() if name in SURVEY_OPTIONS}
        return survey_recording(path, **asked).is_told_by(document, self._backend)

    def stream(
        self,
        frames: Iterable[npt.NDArray[np.uint8]],
        *,
        field_of_view: FieldOfView | None = None,
        batch: int = 1,
    ) -> Generator[Prediction]:
        """An answer for each frame (uint8 RGB HxWx3, all of one size), in order, as it is asked for.

        Without ``field_of_view`` it is found in the first frames, so some thirty are taken before the first
        answer comes; with it, ``batch`` are. Raises ``InputError`` for anything that is no such frame.
        """
        if batch < 1:
            raise UsageError(f"batch is {batch}, allowed is 1 or more")
        spec, keys = self.spec.input, self.spec.keys
        sighted = (Sighted(index, check_frame(index, frame)) for index, frame in enumerate(frames))
        engine, buffers = self._engine(self._threads), Buffers()
        located = locate(sighted, spec, field_of_view)
        for collected in collect(located, batch=batch):
            group = prepare(collected, spec, buffers)
            answer = engine.run(group.pixels)
            buffers.give(group.pixels)
            for at, frame in enumerate(group.frames):
                values = answer.probabilities[at].copy()
                best = int(most_probable(values))
                yield Prediction(
                    frame.index, keys[best], float(values[best]), values, answer.features[at].copy()
                )

    async def astream(
        self,
        frames: Iterable[npt.NDArray[np.uint8]] | AsyncIterable[npt.NDArray[np.uint8]],
        *,
        field_of_view: FieldOfView | None = None,
        batch: int = 1,
    ) -> AsyncGenerator[Prediction]:
        """``stream`` for an event loop: ``async for`` over the answers, each worked out in a thread.

        ``frames`` may be asynchronous. When the task is cancelled, it ends when the frame at work is answered.
        """
        from .pipeline import iterate

        answers = iterate(frames, partial(self.stream, field_of_view=field_of_view, batch=batch))
        async with aclosing(answers):
            async for prediction in answers:
                yield prediction

    def _engine(self, threads: int) -> Backend:
        """The model, opened with so many threads; 0 leaves the number to the engine."""
        with self._opening:
            if threads not in self._engines:
                if self._closed:
                    raise BackendError(f"{self._backend.path.name} is closed", hint="open it again")
                self._engines[threads] = open_model(
                    self._backend.path, backend=self._backend.name, threads=threads
                )
            return self._engines[threads]

    def _record(self, answered: Answered, records: FrameTable, colours: ColourBar, gallery: Gallery) -> None:
        """What became of each frame of a batch."""
        for frame in answered.frames:
            time_s = records.time_s(frame.index)
            if frame.duplicate_of is not None:
                same = records[frame.duplicate_of].probabilities
                records.settle(frame.index, "duplicate", duplicate_of=frame.duplicate_of, probabilities=same)
                colours.again(time_s)
                continue
            if frame.row is None:
                records.settle(frame.index, "corrupt", detail=frame.detail)
                continue
            values = answered.probabilities[frame.row]
            records.settle(frame.index, "classified", probabilities=values)
            colours.add(time_s, answered.colours[frame.row])
            if (sight := answered.sights.get(frame.row)) is not None:
                gallery.add(frame.index, values, sight, answered.field_of_view)
