"""Reads a recording with a model: the ``Reader``, which turns a video into a ``Study``.

    with Reader.open() as reader:
        study = reader.read("video.mp4")
        for prediction in reader.stream(frames):
            ...

A recording goes through ``pipeline``, on all cores. Neither the batch size nor the number of threads changes
an answer.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from .accounts import choose_frames, count_frames, describe_source, list_frames
from .autotune import SHORTEST, PlanKey, Tuner, load_plan, plans, save_plan
from .backends import Backend, open_model
from .errors import BackendError, InputError, ModelError, UsageError
from .events import find_events, median_frame_distance
from .gallery import Gallery
from .illustration import ColourBar, illustrate
from .landmarks import check_landmarks
from .pipeline import Answered, FixedPlan, Plan, answer_frames, count_cores
from .preprocess import FieldOfView
from .spec import ModelSpec
from .stages import Buffers, Sighted, gather, locate
from .study import FrameRecord, Study
from .video import scan

__all__ = ["DEFAULT_MODEL", "Prediction", "Reader", "default_model"]

DEFAULT_MODEL = "capsule-edge.int8.onnx"

Progress = Callable[[int, int], None]


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


def default_model() -> Path:
    """The model that comes with the package. Raises ``ModelError`` where it does not."""
    path = Path(str(resources.files(__package__) / "models" / DEFAULT_MODEL))
    if not path.is_file():
        raise ModelError(
            f"this installation has no default model, {path.name}",
            hint="name a model file, or install capsule-edge from a release",
        )
    return path


class Reader:
    """A model, opened once, that reads recordings and streams. Close it, or use it in a ``with`` block."""

    def __init__(
        self, backend: Backend, *, threads: int = 0, autotune: bool = True, plan: Plan | None = None
    ) -> None:
        self._backend = backend
        self._threads = threads
        # Recordings are read by several threads with an engine of one thread, streams by one that may use all.
        self._engines = {1: backend}
        self._opening = threading.Lock()
        self._closed = False
        self._autotune = autotune
        self._given = plan
        # How the last recording was run, or the next will be; of interest for ``timing.json`` alone.
        self.plan: Plan = plan or FixedPlan(threads or count_cores())

    @classmethod
    def open(
        cls,
        model: str | Path | None = None,
        *,
        backend: str = "onnxruntime",
        threads: int = 0,
        autotune: bool = True,
        plan: Plan | None = None,
    ) -> Reader:
        """Open a model file, the default one where ``model`` is None.

        Args:
            threads: how many cores inference may use, 0 all of them.
            autotune: fit batch size and workers to the machine while long recordings are read, and keep what was
                found (``autotune``). No answer depends on it.
            plan: use this one instead.

        Raises ``ModelError`` and ``BackendError``.
        """
        if threads < 0:
            raise UsageError(f"threads is {threads}, allowed is 0 (the engine's choice) or more")
        path = default_model() if model is None else model
        return cls(
            open_model(path, backend=backend, threads=1), threads=threads, autotune=autotune, plan=plan
        )

    @property
    def spec(self) -> ModelSpec:
        return self._backend.spec

    @property
    def model_path(self) -> Path:
        return self._backend.path

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
        landmarks: Mapping[str, float] | None = None,
        progress: Progress | None = None,
        cancel: Callable[[], bool] | None = None,
    ) -> Study:
        """Everything the model finds in one recording, with an account of every frame.

        Args:
            capture_fps: frames a second at which the capsule recorded, where it is known.
            start_s, end_s: read ``[start_s, end_s)`` of container time, and of that each ``every``-th frame
            from
                its first on; the other frames are ``skipped``, damaged or not.
            landmarks: seconds of container time by name (``landmarks.LANDMARKS``), set by whoever looked.
            progress: called with (frames done, frames in all) after each batch.
            cancel: asked before each batch; once it says True the rest is ``unread``.

        Raises ``InputError`` for a file that cannot be read and ``UsageError`` for impossible options.
        """
        if capture_fps is not None and not (math.isfinite(capture_fps) and capture_fps > 0):
            raise UsageError(f"capture_fps is {capture_fps}, allowed is a number above 0")
        container = scan(path)
        wanted = choose_frames(container, start_s, end_s, every)
        marks = check_landmarks(
            landmarks or {}, last_s=max(container.times_s[-1], container.duration_s or 0.0)
        )
        with container.path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        records = list_frames(container, wanted)
        colours = ColourBar(frames=container.present, duration_s=container.duration_s)
        gallery = Gallery(self.spec)
        box: FieldOfView | None = None
        done = 0
        self.plan = self._choose_plan(len(wanted))
        with closing(answer_frames(container, wanted, self._engine(1), self.plan)) as answers:
            for answered in answers:
                if cancel is not None and cancel():
                    break
                self._record(answered, records, colours, gallery)
                box = answered.field_of_view
                done += len(answered.frames)
                if progress is not None:
                    progress(done, len(wanted))
        events = find_events(
            records,
            self.spec,
            median_distance_s=median_frame_distance(records),
            time_kind=container.time_kind,
            capture_fps=capture_fps,
        )
        thumbnails, activations = illustrate(container, events, self._engine(1), box, gallery)
        return Study(
            source=describe_source(container, sha256, capture_fps, box),
            model=self.spec,
            model_sha256=self._backend.sha256,
            backend=self._backend.name,
            options={
                "capture_fps": capture_fps,
                "end_s": end_s,
                "every": every,
                "landmarks": marks,
                "start_s": start_s,
            },
            ledger=count_frames(container, records),
            frames=records,
            events=events,
            thumbnails=thumbnails,
            activations=activations,
            colours=colours.means(),
            landmarks=marks,
        )

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
        sighted = (Sighted(index, _checked(index, frame)) for index, frame in enumerate(frames))
        engine, buffers = self._engine(self._threads), Buffers()
        located = locate(sighted, spec, field_of_view)
        for group in gather(located, spec, batch=lambda: batch, buffers=buffers):
            answer = engine.run(group.pixels)
            buffers.give(group.pixels)
            for at, frame in enumerate(group.frames):
                values = answer.probabilities[at].copy()
                best = int(values.argmax())
                yield Prediction(
                    frame.index, keys[best], float(values[best]), values, answer.features[at].copy()
                )

    def _choose_plan(self, frames: int) -> Plan:
        """The plan given, else the one found earlier, else one to look for while so many frames are read."""
        if self._given is not None:
            return self._given
        cores = self._threads or count_cores()
        if self._autotune:
            key = PlanKey(self._backend.sha256, self._backend.name, cores)
            if (plan := load_plan(key)) is not None:
                return plan
            if frames >= SHORTEST:
                return Tuner(plans(cores), settled=lambda plan: save_plan(plan, key))
        return FixedPlan(cores)

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

    def _record(
        self, answered: Answered, records: list[FrameRecord], colours: ColourBar, gallery: Gallery
    ) -> None:
        """What became of each frame of a batch."""
        for frame in answered.frames:
            record = records[frame.index]
            if frame.row is None:
                records[frame.index] = replace(record, status="corrupt", detail=frame.detail)
                continue
            values = answered.probabilities[frame.row]
            records[frame.index] = replace(record, status="classified", probabilities=values)
            colours.add(record.time_s or 0.0, answered.colours[frame.row])
            if (sight := answered.sights.get(frame.row)) is not None:
                gallery.add(frame.index, values, sight, answered.field_of_view)


def _checked(index: int, frame: Any) -> npt.NDArray[np.uint8]:
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        found = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise InputError(f"frame {index} is {found}, needed is a uint8 RGB array of shape (height, width, 3)")
    return frame
