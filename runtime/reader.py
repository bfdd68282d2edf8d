"""Read recordings and streams with a model: the ``Reader``.

    with Reader.open() as reader:
        study = reader.read("video.mp4")
        for prediction in reader.stream(frames):
            ...

A recording is read on all cores (``pipeline``). Neither the batch size nor the number of threads changes an answer.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypedDict, TypeVar, Unpack

import numpy as np
import numpy.typing as npt

from .diagnostics import refuse_saturation
from .errors import BackendError, CapsuleEdgeError, InputError, UsageError
from .events import EventStream, PeakFrames, capture_scale, median_frame_distance, rank_events, suggest
from .inference import Backend, ModelSpec, default_model, most_probable, open_model, seen_before
from .pipeline import (
    REQUEST_OPTIONS,
    BatchResult,
    Callbacks,
    Division,
    FrozenPictures,
    Part,
    PartAnswers,
    Plan,
    ReadRequest,
    answer_frames,
    answer_part,
    count_cores,
    divide,
    give_back,
    illustrate,
    make_strips,
    resolve_request,
)
from .preprocessing import (
    AppearanceDistance,
    FieldOfView,
    PixelBuffers,
    check_frame,
    make_batches,
    mean_colours,
    prepare,
    settle_field_of_view,
)
from .private_names import PrivateNames
from .recording import Frame, RecordingWarning, hash_recording
from .results import Journal, entries
from .study import (
    UNFAMILIAR,
    ColourBar,
    Event,
    FrameRecord,
    StripPicture,
    Study,
    count_frames,
    describe_source,
    list_frames,
)

__all__ = ["Prediction", "ReadOptions", "Reader"]


T = TypeVar("T")
Progress = Callable[[int, int], None]

# Return unused memory to the system after this many frames: some ms for each second or more of reading.
_MEMORY_FRAMES = 2048


@dataclass(frozen=True, slots=True)
class Prediction:
    """The model's answer for one frame of a stream.

    Attributes:
        index: of the frame, from 0.
        label: key of the most probable label.
        probability: of that label, 0..1.
        probabilities: float32 (labels,), in the order of the model's labels.
        features: float32 (h, w, labels), the class-activation maps before scaling; (0, 0, labels) from a model that has
            none.
        unfamiliar: True if the frame resembles nothing in the training data or repeats a frozen picture: its answer
            is no evidence. Always False for a model that cannot tell.
    """

    index: int
    label: str
    probability: float
    probabilities: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32]
    unfamiliar: bool = False


class ReadOptions(TypedDict, total=False):
    """The options of ``Reader.read``, as a type for code that passes them on."""

    capture_fps: float | None
    start_s: float | None
    end_s: float | None
    every: int
    gate: float | None
    landmarks: Mapping[str, float] | None
    stream: int | None
    anonymous: bool
    progress: Progress | None
    cancel: Callable[[], bool] | None
    on_frame: Callable[[FrameRecord], None] | None
    on_event: Callable[[Event], None] | None
    journal: Journal | None


class Reader:
    """A model that is opened once and reads recordings and streams.

    Use it in a ``with`` block or close it. Several threads may use one reader at once.

    Examples:
        >>> with Reader.open("small") as reader:
        ...     study = reader.read("video.mp4")
        ...     print(study.ledger.classified, [event.label for event in study.events])
    """

    def __init__(self, backend: Backend, *, threads: int = 0, plan: Plan | None = None) -> None:
        """Most callers use ``open``.

        Args:
            backend: the opened model.
            threads, plan: as in ``open``.
        """
        self._backend = backend
        self.spec: ModelSpec = backend.spec
        self._threads = threads
        # By number of threads. For recordings several threads call one engine of one thread; for streams one engine may
        # use all cores.
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
        """Open a model.

        Args:
            model: a model file, or the name of an installed model, ``standard`` or ``small``; None for ``standard``.
            backend: inference engine: ``onnxruntime``, ``openvino`` or ``litert``.
            threads: number of cores that inference may use; 0 for all.
            plan: number of threads and batch size; None chooses them by the cores and the model. No answer depends
                on it.
            allow_saturation: open the model even if its 8-bit sums saturate on this CPU, which changes its answers.

        Raises:
            ModelError: the file is no model, or its 8-bit sums saturate on this CPU.
            BackendError: the engine is not installed or cannot run the file.
            UsageError: ``threads`` is negative.
        """
        if threads < 0:
            raise UsageError(f"threads is {threads}, allowed is 0 (all cores) or more")
        opened = open_model(default_model() if model is None else model, backend=backend, threads=1)
        if not allow_saturation:
            refuse_saturation(opened)
        return cls(opened, threads=threads, plan=plan)

    def use_thresholds(self, thresholds: Mapping[str, float], *, min_frames: int | None = None) -> None:
        """Use these thresholds from now on instead of the model's operating points; ``study.json`` states them.

        Args:
            thresholds: probability by label key, 0..1.
            min_frames: the least number of frames of an event; None leaves the model's.

        Raises:
            UsageError: a label is unknown or a value impossible (``ModelSpec.with_rules``).
        """
        self.spec = self.spec.with_rules(thresholds, min_frames=min_frames)

    @property
    def model_path(self) -> Path:
        """Path of the model file."""
        return self._backend.path

    @property
    def model_sha256(self) -> str:
        """SHA-256 of the model file, hexadecimal."""
        return self._backend.sha256

    @property
    def plan(self) -> Plan:
        """Number of threads and batch size with which recordings are read."""
        return self._plan

    @property
    def backend_name(self) -> str:
        """Name of the inference engine."""
        return self._backend.name

    def close(self) -> None:
        """Close the inference engines. Do not call it while a recording or a stream is read."""
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
        stream: int | None = None,
        anonymous: bool = False,
        progress: Progress | None = None,
        cancel: Callable[[], bool] | None = None,
        on_frame: Callable[[FrameRecord], None] | None = None,
        on_event: Callable[[Event], None] | None = None,
        journal: Journal | None = None,
        request: ReadRequest | None = None,
    ) -> Study:
        """Read a recording: find its events and account for every frame.

        The callbacks run in the calling thread. An exception that they raise ends the reading.

        Args:
            path: a video file, a folder of images, a TIFF, a DICOM file or a DICOMDIR folder.
            capture_fps: frames per second at which the capsule recorded; None where unknown.
            start_s, end_s: read ``[start_s, end_s)``, seconds of container time.
            every: read each ``every``-th of the frames between ``start_s`` and ``end_s``. The others are ``skipped``.
            gate: threshold of the near-duplicate filter, mean difference of brightness in levels (0..255). A frame that
                differs by less from the last answered frame takes that frame's answer and is ``duplicate``. None: no
                filter.
            landmarks: seconds of container time by name (``stomach``, ``small-bowel``, ``colon``, ``end``), set by
                hand.
            stream: number of the video stream in a file with several, as ffprobe shows it; None for the one with most
                pictures.
            anonymous: leave the recording's path and file names out of the study and of every error that this package
                raises. The SHA-256 stands in their place, ``the recording`` where the file cannot be read.
            progress: called with (frames done, frames wanted) after each batch.
            cancel: called before each batch; when it returns True, the remaining frames are ``unread``.
            on_frame: called with each container frame in order, when its status is final.
            on_event: called with each event when no later frame can change it; its ``id`` is 0.
            journal: stores the answers, so that an interrupted run can be resumed (``open_run``). Answers that are in
                it already are not computed again.
            request: the read request of ``path``, if the caller has resolved it already (``resolve_request``). It
                holds ``capture_fps``, ``start_s``, ``end_s``, ``every``, ``gate``, ``landmarks`` and ``stream``, so
                these are not used.

        Returns:
            The study, also when the recording is damaged: ask its ``ledger``.

        Raises:
            InputError: the file cannot be read as a recording.
            UsageError: an option is impossible, or the journal is of another run.
            OutputError: the journal cannot be written.
        """

        def work() -> Study:
            asked = request or resolve_request(
                path,
                capture_fps=capture_fps,
                start_s=start_s,
                end_s=end_s,
                every=every,
                gate=gate,
                landmarks=landmarks,
                stream=stream,
            )
            reading = _Reading(self, asked, on_frame, on_event, anonymous=anonymous)
            if journal is not None:
                reading.resume(journal)
            with closing(reading.answer(self._plan)) as results:
                for result in results:
                    if cancel is not None and cancel():
                        break
                    reading.record(result, journal)
                    if progress is not None:
                        progress(reading.done, len(asked.wanted))
            return reading.finish()

        return _without_names(work, path, journal) if anonymous else work()

    def divide(
        self,
        path: str | Path,
        *,
        frames: int,
        request: ReadRequest | None = None,
        **options: Unpack[ReadOptions],
    ) -> Division | None:
        """Divide a long recording into parts that several processes can read; None if it has to be read as a whole.

        ``read_part`` reads a part and ``join`` makes the study, which is the same as that of ``read``.

        Args:
            path: the recording.
            frames: a part ends at the first closed GOP that brings it to so many frames.
            request: the read request of ``path``, if the caller has resolved it.
            options: those of ``read``. Callbacks and the journal are not used.

        Raises:
            InputError: the file cannot be read as a recording.
            UsageError: an option is impossible.
        """
        if request is None:
            asked: dict[str, Any] = {
                name: value for name, value in options.items() if name in REQUEST_OPTIONS
            }
            request = resolve_request(path, **asked)
        return divide(request, self._engine(1), self._plan, spec=self.spec, frames=frames)

    def read_part(self, division: Division, part: Part) -> PartAnswers:
        """Return the answers of one part of a recording.

        Args:
            division: from ``divide``, of a reader with the same model and thresholds.
            part: one of its ``parts``, or its ``rest``.
        """
        return answer_part(division, part, self._engine(1), self._plan, spec=self.spec)

    def join(self, division: Division, answers: Iterable[PartAnswers], *, anonymous: bool = False) -> Study:
        """Return the study of a recording whose parts were read one by one.

        Args:
            division: from ``divide``.
            answers: of its parts, in order, as ``Division.join`` takes them.
            anonymous: as in ``read``.

        Raises:
            ValueError: the answers are not those of the wanted frames, each once.
        """
        reading = _Reading(self, division.request(), None, None, anonymous=anonymous)
        for result in division.join(answers):
            reading.record(result, None)
        return reading.finish()

    async def aread(self, path: str | Path, **options: Unpack[ReadOptions]) -> Study:
        """Read a recording in a thread, for an event loop. Any number may run at once.

        The callbacks run in that thread. When the task is cancelled, reading stops at the next batch and then the task
        ends; a ``journal`` keeps its answers.

        Args:
            path: as in ``read``.
            options: those of ``read``.
        """
        from .pipeline import run

        asked = options.get("cancel")

        def work(stopped: Callable[[], bool]) -> Study:
            options["cancel"] = lambda: stopped() or (asked is not None and asked())
            return self.read(path, **options)

        return await run(work)

    def has_read(self, document: Mapping[str, Any], path: str | Path, **options: Unpack[ReadOptions]) -> bool:
        """Return whether a ``study.json`` is the complete result of reading ``path`` with these options.

        Args:
            document: the content of the file.
        """
        asked: dict[str, Any] = {name: value for name, value in options.items() if name in REQUEST_OPTIONS}
        anonymous = options.get("anonymous", False)

        def work() -> bool:
            request = resolve_request(path, **asked)
            return request.is_answered_by(document, self._backend, anonymous=anonymous)

        return _without_names(work, path) if anonymous else work()

    def stream(
        self,
        frames: Iterable[npt.NDArray[np.uint8]],
        *,
        field_of_view: FieldOfView | None = None,
        batch: int = 1,
    ) -> Generator[Prediction]:
        """Yield the answer for each frame of a stream, in order, as it is asked for.

        Args:
            frames: uint8 RGB (height, width, 3), all of one size.
            field_of_view: box of the field of view; None to find it in the first 32 frames, which are then taken
                before the first answer comes.
            batch: number of frames that the model answers at once.

        Raises:
            InputError: an item is no such frame.
            UsageError: ``batch`` is below 1.
        """
        if batch < 1:
            raise UsageError(f"batch is {batch}, allowed is 1 or more")
        spec, keys = self.spec.input, self.spec.keys
        engine, buffers = self._engine(self._threads), PixelBuffers()
        checked = (Frame(index, check_frame(index, frame)) for index, frame in enumerate(frames))
        box, located = settle_field_of_view(checked, spec, field_of_view)
        judge = _StreamJudge(self.spec)
        for group in make_batches(located, size=batch, field_of_view=box):
            pixels = prepare(group, spec, buffers)
            answer = engine.run(pixels)
            unfamiliar = judge.find_unfamiliar(group.frames, pixels)
            buffers.give(pixels)
            for at, frame in enumerate(group.frames):
                values = answer.probabilities[at].copy()
                best = int(most_probable(values))
                yield Prediction(
                    frame.index,
                    keys[best],
                    float(values[best]),
                    values,
                    answer.features[at].copy(),
                    unfamiliar[at],
                )

    async def astream(
        self,
        frames: Iterable[npt.NDArray[np.uint8]] | AsyncIterable[npt.NDArray[np.uint8]],
        *,
        field_of_view: FieldOfView | None = None,
        batch: int = 1,
    ) -> AsyncGenerator[Prediction]:
        """Yield the answers of ``stream`` in an event loop; each is computed in a thread.

        When the task is cancelled, it ends after the frame in progress.

        Args:
            frames: as in ``stream``; may be asynchronous.
            field_of_view, batch: as in ``stream``.
        """
        from .pipeline import iterate

        answers = iterate(frames, partial(self.stream, field_of_view=field_of_view, batch=batch))
        async with aclosing(answers):
            async for prediction in answers:
                yield prediction

    def _engine(self, threads: int) -> Backend:
        """Return the model, opened with this number of threads; 0 leaves the number to the engine."""
        with self._opening:
            if threads not in self._engines:
                if self._closed:
                    raise BackendError(f"{self._backend.path.name} is closed", hint="open it again")
                self._engines[threads] = open_model(
                    self._backend.path, backend=self._backend.name, threads=threads
                )
            return self._engines[threads]


def _without_names(work: Callable[[], T], path: str | Path, journal: Journal | None = None) -> T:
    """Return ``work()``. An error of the package names neither the recording nor the folder of the journal."""
    try:
        return work()
    except CapsuleEdgeError as error:
        found = error
    try:
        word = hash_recording(path)
    except CapsuleEdgeError:
        word = "the recording"
    folders: dict[Path | str, str] = {} if journal is None else {journal.path.parent: "the results folder"}
    # Not inside the except block: the error that was caught would go along, and its text with it.
    raise PrivateNames({Path(path): word}, folders).clean_error(found)


class _StreamJudge:
    """Find the frames of one stream that have to be set aside, as ``_Reading`` does for a recording."""

    def __init__(self, spec: ModelSpec) -> None:
        rule, self._input = spec.familiarity, spec.input
        self._distance = None if rule is None else AppearanceDistance(rule)
        self._frozen = FrozenPictures(rule)

    def find_unfamiliar(self, frames: Sequence[Frame], pixels: npt.NDArray[np.uint8]) -> list[bool]:
        """Return for each frame whether it is set aside; ``pixels`` are the frames as model input."""
        if self._distance is None:
            return [False] * len(frames)
        odd, colours = self._distance.is_unfamiliar(pixels), mean_colours(pixels, self._input)
        return [
            self._frozen.add(frame.index, colour) or bool(one)
            for frame, colour, one in zip(frames, colours, odd, strict=True)
        ]


class _Reading:
    """One recording on its way to a ``Study``. Several may be read at once, so each holds its own state."""

    def __init__(
        self,
        reader: Reader,
        request: ReadRequest,
        on_frame: Callable[[FrameRecord], None] | None,
        on_event: Callable[[Event], None] | None,
        *,
        anonymous: bool,
    ) -> None:
        container = request.container
        capture_fps: float | None = request.options["capture_fps"]
        self._request, self._capture_fps, self._anonymous = request, capture_fps, anonymous
        self._spec, self._backend = reader.spec, reader._engine(1)
        self._threads = reader.plan.workers
        self._records = list_frames(container, request.wanted, labels=len(self._spec.labels))
        self._colours = ColourBar(frames=container.present, duration_s=container.duration_s)
        self._peaks = PeakFrames(self._spec)
        self._frozen = FrozenPictures(self._spec.familiarity)
        distance_s = median_frame_distance(self._records)
        stream = EventStream(
            self._spec,
            median_distance_s=distance_s,
            time_kind=container.time_kind,
            capture_fps=capture_fps,
        )
        self._scale = capture_scale(
            self._spec.events,
            median_distance_s=distance_s,
            time_kind=container.time_kind,
            capture_fps=capture_fps,
        )
        self._callbacks = Callbacks(
            self._records, on_frame=on_frame, on_event=on_event, stream=stream, peaks=self._peaks
        )
        self._field_of_view: FieldOfView | None = None
        # Number of wanted frames answered so far.
        self.done = 0

    def resume(self, journal: Journal) -> None:
        """Begin the journal and take over the answers that it holds of an interrupted run."""
        known = journal.begin(
            partial(self._request.identify, self._backend),
            labels=len(self._spec.labels),
            records=self._records,
        )
        if known is not None:
            known.enter(self._records, self._colours)
            for record, colour in zip(known.records, known.colours, strict=True):
                if record.status == "classified":
                    self._frozen.add(record.index, colour)
            self._field_of_view, self.done = known.field_of_view, len(known.records)
            self._callbacks.settle(known.records[-1].index + 1)

    def answer(self, plan: Plan) -> Generator[BatchResult]:
        """Return the answers of the frames that are left, in order."""
        return answer_frames(
            self._request.container,
            self._request.wanted,
            self._backend,
            plan,
            spec=self._spec,
            done=self.done,
            gate=self._request.options["gate"],
            field_of_view=self._field_of_view,
        )

    def record(self, result: BatchResult, journal: Journal | None) -> None:
        """Enter a batch's result in the records and the journal, and call the callbacks."""
        for frame, row in zip(result.frames, result.rows, strict=True):
            self._record(frame, row, result)
        self._field_of_view = result.field_of_view
        before, self.done = self.done, self.done + len(result.frames)
        if before // _MEMORY_FRAMES != self.done // _MEMORY_FRAMES:
            give_back()
        if journal is not None:
            journal.enter(entries(result, self._records))
        self._callbacks.settle(result.frames[-1].index + 1)

    def _record(self, frame: Frame, row: int | None, result: BatchResult) -> None:
        records, index = self._records, frame.index
        time_s = records.time_s(index)
        if frame.duplicate_of is not None:
            same = records[frame.duplicate_of]
            records.settle(
                index,
                "duplicate",
                detail=same.detail,
                duplicate_of=frame.duplicate_of,
                probabilities=same.probabilities,
            )
            self._colours.again(time_s)
        elif row is None:
            records.settle(index, "corrupt", detail=frame.detail)
        else:
            values = result.probabilities[row]
            set_aside = self._frozen.add(index, result.colours[row]) or bool(result.unfamiliar[row])
            records.settle(index, "classified", detail=UNFAMILIAR if set_aside else "", probabilities=values)
            self._colours.add(time_s, result.colours[row])
            if not set_aside and (candidate := result.candidates.get(row)) is not None:
                self._peaks.add(index, values, candidate, result.field_of_view)

    def finish(self) -> Study:
        """Report what is pending and return the study."""
        give_back()
        self._callbacks.finish()
        request, container, box = self._request, self._request.container, self._field_of_view
        events = self._callbacks.events
        suggestions = suggest(events, self._records, self._spec, scale=self._scale)
        shown = rank_events(events, suggestions)
        thumbnails, activations = illustrate(container, shown, self._backend, box, self._peaks)
        strips, unmade = self._make_strips(shown)
        return Study(
            source=describe_source(
                container,
                request.sha256,
                self._capture_fps,
                box,
                anonymous=self._anonymous,
                stream_sha256=request.stream_sha256,
            ),
            model=self._spec,
            model_sha256=self._backend.sha256,
            backend=self._backend.name,
            options=request.options,
            ledger=count_frames(container, self._records),
            frames=self._records,
            events=events,
            thumbnails=thumbnails,
            activations=activations,
            strips=strips,
            colours=self._colours.means(),
            landmarks=request.landmarks,
            warnings=(*self._warnings(), *unmade),
            suggestions=suggestions,
        )

    def _make_strips(
        self, shown: Sequence[Event]
    ) -> tuple[Mapping[int, Sequence[StripPicture]], list[RecordingWarning]]:
        """Return the strips of events, and a warning in their place if the recording can no longer be read.

        The answers are complete by now, and small pictures are no reason to lose them.
        """
        try:
            strips = make_strips(
                self._request.container,
                shown,
                self._records.columns(),
                self._spec.input,
                self._field_of_view,
                gap_s=self._spec.events.max_gap_s / self._scale,
                threads=self._threads,
            )
        except InputError:
            message = "the recording changed or vanished while it was read: events have no strips of pictures"
            return {}, [RecordingWarning("strips_not_made", message)]
        return strips, []

    def _warnings(self) -> tuple[RecordingWarning, ...]:
        """Return the warnings about the recording, without file names if they are to be left out."""
        container = self._request.container
        # A video inside a DICOM file is known by its own hash.
        sha256 = self._request.stream_sha256 or self._request.sha256
        seen = seen_before(self._spec, container.path.stem, sha256)
        known = (RecordingWarning(code, message) for code, message in seen.items())
        found = (*known, *container.warnings, *container.growth())
        if not (self._anonymous and found):
            return found
        names = PrivateNames({container.path: self._request.sha256})
        return tuple(replace(each, message=names.clean(each.message)) for each in found)
