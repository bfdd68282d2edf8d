"""Read one recording in a process of its own, and tell the service how it goes.

The process reads as ``capsule-edge run --resume`` does: with a journal, so that a killed process goes on where it
stopped, and into the same files. Messages are tuples of a kind and JSON values:

    ("preview", {...})    length and colours from key frames (of ``preview_order``)
    ("rendered", {})      the demo recording is there now
    ("progress", {...})   frames done and wanted
    ("partial", {...})    events that have closed, and colours, while the recording is read
    ("done", {...})       the columns of the result, facts about the recording
    ("failed", {...})     code, message and hint
"""

from __future__ import annotations

import hashlib
import os
import platform
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capsule_edge.runtime.errors import CapsuleEdgeError, InputError, OutputError

from ..frames import mark_recording
from .limits import Limits, end_with_parent, give_way, limit_memory

if TYPE_CHECKING:
    from capsule_edge.runtime import Event, Reader, Study
    from capsule_edge.runtime.results import Run

    from ..frames import RecordingMark

__all__ = [
    "PreviewOrder",
    "ReadOrder",
    "await_preview_order",
    "check_recording",
    "preview_order",
    "read_order",
    "run_limited",
]

_PROGRESS_S, _PARTIAL_S = 0.25, 1.0
_PREVIEW_BINS = 200
_HELD_S = 5.0


@dataclass(frozen=True, kw_only=True)
class ReadOrder:
    """A recording to read.

    Attributes:
        recording: path of the recording.
        roots: resolved folders in which it may lie.
        title: stands in messages in place of the path.
        folder: of the result.
        model: path of the model file.
        backend: the engine to run it with.
        sha256: SHA-256 that the recording must have; None where it is not known yet.
        options: ``capture_fps`` and ``landmarks`` of ``Reader.read``.
        demo: render the demo recording first, if it is not there.
    """

    recording: Path
    title: str
    folder: Path
    model: Path
    roots: tuple[Path, ...] = ()
    backend: str = "onnxruntime"
    sha256: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    demo: bool = False


@dataclass(frozen=True)
class PreviewOrder:
    """A recording to make a preview of.

    Attributes:
        recording: path of the recording.
        title: stands in messages in place of the path.
        roots: resolved folders in which it may lie.
    """

    recording: Path
    title: str
    roots: tuple[Path, ...]


Send = Callable[[str, dict[str, Any]], None]


def read_order(
    order: ReadOrder, messages: Connection, lifeline: Connection, parent: int, limits: Limits
) -> None:
    """Carry out an order; the main function of the process."""

    def send(kind: str, content: dict[str, Any]) -> None:
        messages.send((kind, content))

    give_way()
    run_limited(lambda: _read(order, send), order.recording, order.title, messages, lifeline, parent, limits)


def await_preview_order(
    orders: Connection, messages: Connection, lifeline: Connection, parent: int, limits: Limits
) -> None:
    """Import what a preview needs, wait for its order, and carry it out; the main function of a process."""
    # Ctrl-C in a terminal goes to all its processes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from ..frames import preview_recording as _imported  # noqa: F401

    try:
        order = orders.recv()
    except EOFError:
        # The service has ended.
        return
    preview_order(order, messages, lifeline, parent, limits)


def preview_order(
    order: PreviewOrder, messages: Connection, lifeline: Connection, parent: int, limits: Limits
) -> None:
    """Send the length of a recording, and then its colours, which get finer for a second; the main function."""

    def work() -> None:
        from ..frames import preview_recording

        mark_recording(order.recording, order.roots)
        for shown in preview_recording(order.recording, bins=_PREVIEW_BINS):
            known = any(colour is not None for colour in shown.colours)
            colours = [None if colour is None else list(colour) for colour in shown.colours]
            preview = {
                "frames": shown.frames,
                "duration_s": shown.duration_s,
                "colours": colours if known else None,
            }
            messages.send(("preview", preview))

    run_limited(work, order.recording, order.title, messages, lifeline, parent, limits)


def check_recording(
    path: Path, title: str, messages: Connection, lifeline: Connection, parent: int, limits: Limits
) -> None:
    """List the frames of a recording and decode the first one; the main function of a process.

    The only message is ``("done", {"frames": ..., "duration_s": ...})`` or ``("failed", {...})``.
    """

    def work() -> None:
        from capsule_edge.runtime.recording import scan

        container = scan(path)
        messages.send(("done", {"frames": container.frames, "duration_s": container.duration_s}))

    run_limited(work, path, title, messages, lifeline, parent, limits)


def run_limited(
    work: Callable[[], None],
    recording: Path,
    title: str,
    messages: Connection,
    lifeline: Connection,
    parent: int,
    limits: Limits,
) -> None:
    """Do the work of a process under its limits, and send its error."""
    # Ctrl-C in a terminal goes to all its processes. This one is ended by the service.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _silence_libraries()
    end_with_parent(lifeline, parent)
    limit_memory(limits.memory_bytes)
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    _bound_threads()
    try:
        work()
    except CapsuleEdgeError as error:
        messages.send(("failed", _clean(error, recording, title)))
    except MemoryError:
        amount = f"{limits.memory_bytes / 2**30:.1f} GiB"
        messages.send(
            (
                "failed",
                {
                    "code": "memory",
                    "message": f"reading {title} needs more than the {amount} of memory that are allowed",
                    "hint": "raise --job-memory, or convert the recording to a smaller picture size",
                },
            )
        )
    except BrokenPipeError:
        os._exit(1)
    except Exception as error:
        messages.send(
            (
                "failed",
                {
                    "code": "internal",
                    "message": f"reading {title} failed by a fault of this software: {type(error).__name__}",
                    "hint": "read it with 'capsule-edge --debug run' to see the details, and report them",
                },
            )
        )


def _clean(error: CapsuleEdgeError, recording: Path, title: str) -> dict[str, str]:
    """Return an error as JSON values, without the paths of this machine."""
    from capsule_edge.runtime.private_names import PrivateNames

    cleaned = PrivateNames({recording: title}).clean_error(error)
    return {"code": error.code, "message": cleaned.message, "hint": cleaned.hint}


def _silence_libraries() -> None:
    """Close stderr: decoders and engines write there by themselves, and may quote paths and names."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _bound_threads() -> None:
    """Keep the thread pools of OpenCV and NumPy within a CPU quota, as the command line does."""
    from capsule_edge.runtime.cores import bounded_threads

    if cores := bounded_threads():
        for name in ("OPENCV_FOR_THREADS_NUM", "OPENBLAS_NUM_THREADS"):
            os.environ.setdefault(name, str(cores))


def _read(order: ReadOrder, send: Send) -> None:
    if order.demo and not order.recording.exists():
        from capsule_edge.runtime.phantom import DEMO_SEED, Phantom, write_recording

        order.recording.parent.mkdir(parents=True, exist_ok=True)
        write_recording(order.recording, Phantom(DEMO_SEED))
        send("rendered", {})
    from capsule_edge.runtime import Reader

    with Reader.open(order.model, backend=order.backend) as reader, ExitStack() as stack:
        run = _open_run(order.folder, stack)
        document = _study_of(order, reader, run, send)
    send("done", document)


def _open_run(folder: Path, stack: ExitStack) -> Run:
    """Open the folder of the result. The process of a service that was just killed may still hold it for a moment."""
    from capsule_edge.runtime.results import open_run

    ends_at = time.monotonic() + _HELD_S
    while True:
        try:
            return stack.enter_context(open_run(folder, resume=True))
        except OutputError:
            if time.monotonic() > ends_at:
                raise
            time.sleep(_HELD_S / 20)


def _study_of(order: ReadOrder, reader: Reader, run: Run, send: Send) -> dict[str, Any]:
    """Read the recording into the run folder, or take the study that an earlier process wrote there."""
    if run.finished is not None:
        return _take_over(order, reader, run.finished)
    from capsule_edge.runtime.pipeline import resolve_request
    from capsule_edge.runtime.results import study_document, write_study

    before = mark_recording(order.recording, order.roots)
    report = _Report(send)
    started = time.perf_counter()
    request = resolve_request(order.recording, **order.options)
    study = reader.read(
        order.recording,
        progress=report.progress,
        on_event=report.event,
        journal=run.journal,
        request=request,
    )
    _check_unchanged(order, before, run, study.source.sha256)
    write_study(study, run.folder, timing=_timing(reader, study, started), colours=study.colours)
    run.journal.discard()
    preview = {
        "frames": len(study.frames),
        "duration_s": study.source.duration_s,
        "colours": _colours(study),
    }
    # From here on the result is complete: the recording is not needed any more, and may be gone.
    distance = request.container.frame_distance_s
    return _describe(order, reader, study_document(study), preview, before, distance)


def _check_unchanged(order: ReadOrder, before: RecordingMark, run: Run, sha256: str) -> None:
    """Raise ``InputError`` where the recording changed while it was read, or since another model read it."""
    if mark_recording(order.recording, order.roots) != before:
        run.journal.discard()
        raise InputError(
            f"{order.title} was changed while it was read",
            hint="wait until it is complete, then read it again",
        )
    if order.sha256 not in (None, sha256):
        run.journal.discard()
        raise InputError(
            f"{order.title} was changed after it was read before",
            hint="put the earlier file back; add the changed one under another name",
        )


def _take_over(order: ReadOrder, reader: Reader, study: dict[str, Any]) -> dict[str, Any]:
    """Describe the result that an earlier process completed. The recording may be gone since."""
    from capsule_edge.runtime.recording import scan

    try:
        mark = mark_recording(order.recording, order.roots)
        is_same = reader.has_read(study, order.recording, **order.options)
        distance = scan(order.recording).frame_distance_s
    except InputError:
        return _describe(order, reader, study, None, None, None)
    if not is_same:
        raise InputError(
            f"{order.title} was changed after it was read",
            hint="put the earlier file back; add the changed one under another name",
        )
    return _describe(order, reader, study, None, mark, distance)


class _Report:
    """Send progress and events, each a few times a second at most."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._events: list[dict[str, Any]] = []
        self._sent_events = 0
        self._progress_at = self._partial_at = 0.0

    def progress(self, done: int, total: int) -> None:
        """Send the number of frames; called by the reader after each batch."""
        now = time.monotonic()
        if now - self._progress_at >= _PROGRESS_S or done == total:
            self._progress_at = now
            self._send("progress", {"frames_done": done, "frames_total": total})
        if len(self._events) > self._sent_events and now - self._partial_at >= _PARTIAL_S:
            self._partial_at, self._sent_events = now, len(self._events)
            self._send("partial", {"events": list(self._events)})

    def event(self, event: Event) -> None:
        """Keep an event; called by the reader when it has closed."""
        from capsule_edge.runtime.results import event_document

        self._events.append({**event_document(event), "id": len(self._events) + 1})


def _colours(study: Study) -> list[list[int] | None] | None:
    """Return the colour bar of a study: RGB 0..255 in bins of equal numbers of frames, None where none was decoded.

    The study has it in intervals of equal time; the timeline of the page goes by frames.
    """
    import numpy as np

    from capsule_edge.runtime.study import columns

    if study.colours is None or not len(study.frames):
        return None
    bins = len(study.colours)
    middles = (np.arange(bins) * 2 + 1) * len(study.frames) // (2 * bins)
    times_s = columns(study.frames).times_s[middles]
    places = np.nan_to_num(times_s / (study.source.duration_s or 1.0) * bins).astype(int).clip(0, bins - 1)
    known = np.isfinite(study.colours[places]).all(axis=1) & ~np.isnan(times_s)
    return [
        [round(float(value)) for value in study.colours[place]] if there else None
        for place, there in zip(places.tolist(), known.tolist(), strict=True)
    ]


def _describe(
    order: ReadOrder,
    reader: Reader,
    study: dict[str, Any],
    preview: dict[str, Any] | None,
    mark: RecordingMark | None,
    frame_distance_s: float | None,
) -> dict[str, Any]:
    """Return what the database keeps of a result and its recording.

    Args:
        order: that was carried out.
        reader: with the model.
        study: content of ``study.json``.
        preview: length and colours; None to keep the ones that are known.
        mark: of the recording before it was read; None where it is gone.
        frame_distance_s: usual distance of its frames in seconds, if it is known.
    """
    source, ledger = study["source"], study["ledger"]
    facts = ("name", "codec", "width", "height", "duration_s", "time_kind", "capture_fps", "field_of_view")
    content = (order.folder / "study.json").read_bytes()
    return {
        "result": {
            "model_sha256": reader.model_sha256,
            "model_name": reader.spec.name,
            "model_version": reader.spec.version,
            "precision": reader.spec.precision,
            "tool_version": study["tool"]["version"],
            "document_sha256": hashlib.sha256(content).hexdigest(),
        },
        "sha256": source["sha256"],
        "bytes": None if mark is None else mark.bytes,
        "frames": ledger["container"],
        "recording": {
            **{name: source[name] for name in facts},
            "frame_distance_s": frame_distance_s,
            "sound": not (ledger["corrupt"] or ledger["skipped"] or ledger["unread"]),
            "mark": None if mark is None else mark.digest,
        },
        "preview": preview,
    }


def _timing(reader: Reader, study: Study, started: float) -> dict[str, Any]:
    """Return the content of ``timing.json``: everything that may differ from run to run."""
    seconds = time.perf_counter() - started
    return {
        "recording": study.source.sha256,
        "model": study.model_sha256,
        "read_s": round(seconds, 3),
        "frames_per_s": round(study.ledger.classified / seconds, 1) if seconds > 0 else None,
        "workers": reader.plan.workers,
        "batch": reader.plan.batch,
        "machine": {"system": platform.platform(), "processor": platform.machine(), "cpus": os.cpu_count()},
    }
