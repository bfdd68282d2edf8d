"""Perform a task in a worker. A worker holds one reader, opened once."""

from __future__ import annotations

import errno
import hashlib
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from capsule_edge.runtime import Reader, study_document
from capsule_edge.runtime.errors import CapsuleEdgeError, InputError
from capsule_edge.runtime.pipeline import Part, PartAnswers, resolve_request, tool_versions
from capsule_edge.runtime.recording import hash_recording
from capsule_edge.runtime.results import open_run, write_study

from ..sources import RecordingState, fetch_recording, hide_tokens, is_address, look_at
from .setup import ReadSetup, describe_other_versions, open_reader, tool_hash
from .store import ResultStore
from .tasks import (
    Divided,
    Done,
    Failed,
    Identified,
    IdentifyTask,
    JoinTask,
    OpenTask,
    PartDone,
    PartTask,
    Ready,
    Task,
)

__all__ = ["check_worker", "perform"]

# By the hash of the tool, the identity of the reading, and the hash of the model.
_readers: dict[tuple[str, str, str], Reader] = {}
# Errors of the system that a damaged file or a wrong path causes, such as a seek to a place that there is not.
_OF_THE_FILE = frozenset({errno.EINVAL, errno.EOVERFLOW, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG})


class _ChangedError(InputError):
    """The recording changed while it was read."""

    code = "changed"


class _NodeError(CapsuleEdgeError):
    """This machine has another tool, other libraries or another model."""

    code = "node"


def perform(setup: ReadSetup, task: Task) -> Identified | Done | Divided | PartDone | Failed:
    """Return the result of a task. Errors become ``Failed``, so that a worker goes on."""
    try:
        reader = _reader(setup)
        if isinstance(task, IdentifyTask):
            return _identify(setup, task)
        if isinstance(task, OpenTask):
            return _open(setup, reader, task)
        if isinstance(task, PartTask):
            return _read_part(setup, reader, task)
        return _join(setup, reader, task)
    except CapsuleEdgeError as error:
        return Failed("unreachable" if _is_of_the_system(error) else error.code, str(error))
    except MemoryError:
        return Failed("memory", "there was no memory left")
    except OSError as error:
        return Failed(
            "unreachable", f"the recording cannot be read: {(error.strerror or str(error)).lower()}"
        )
    except Exception as error:
        return Failed("internal", f"{type(error).__name__}: {hide_tokens(str(error))}")


def _is_of_the_system(error: CapsuleEdgeError) -> bool:
    """Return whether an error says that a disk or share failed, and nothing of the content of the recording."""
    if error.code != InputError.code:
        return False
    cause = error.__cause__
    while cause is not None:
        # FFmpeg reports damaged content with the numbers of the system, too. Pillow's errors have no number.
        ours = not type(cause).__module__.startswith("av.")
        if isinstance(cause, OSError) and ours and cause.errno is not None:
            return cause.errno not in _OF_THE_FILE
        cause = cause.__cause__
    return False


def check_worker(setup: ReadSetup, _task: Any) -> str:
    """Return why this machine may not read, or an empty string. It opens the model."""
    try:
        _reader(setup)
    except CapsuleEdgeError as error:
        return str(error)
    return ""


def _reader(setup: ReadSetup) -> Reader:
    """Return the reader of this process. Refuse another tool, library or model before any work."""
    known = setup.tool, setup.identity, setup.model_sha256
    if known not in _readers:
        if tool_hash() != setup.tool:
            raise _NodeError(
                f"the code of capsule-edge has the hash {tool_hash()[:12]}, that of the driver {setup.tool[:12]}",
                hint="install the same version on all machines",
            )
        if other := describe_other_versions(setup.versions, tool_versions()):
            raise _NodeError(other, hint="install the same versions on all machines")
        try:
            reader = open_reader(setup)
        except CapsuleEdgeError as error:  # it says nothing of the recording
            raise _NodeError(error.message, hint=error.hint) from error
        if reader.model_sha256 != setup.model_sha256:
            raise _NodeError(
                f"the model {setup.model} has the hash {reader.model_sha256[:12]}, "
                f"that of the driver {setup.model_sha256[:12]}",
                hint="copy the same model file to all machines",
            )
        _readers[known] = reader
    return _readers[known]


def _identify(setup: ReadSetup, task: IdentifyTask) -> Identified:
    path = _local_copy(setup, task)
    try:
        return Identified(_key(setup, path, hash_recording(path)))
    finally:
        _remove_copy(setup, task.location)


def _key(setup: ReadSetup, path: Path, sha256: str) -> str:
    return setup.key(sha256, "" if path.is_dir() else path.suffix)


def _open(setup: ReadSetup, reader: Reader, task: OpenTask) -> Done | Divided:
    started = time.process_time()
    store = ResultStore(setup.out)
    state = look_at(task.address or task.location)
    path = _local_copy(setup, task)
    divided = False
    try:
        request = resolve_request(path, **setup.options)
        key = _key(setup, path, request.sha256)
        if store.has(key) and (known := store.document(key)) is not None:
            return _done(key, state, known, 0.0)
        if task.divide and setup.split_frames:
            division = reader.divide(path, frames=setup.split_frames, request=request)
            if division is not None:
                divided = True
                ready = Ready(task.location, str(path), state, key, division)
                return Divided(ready, time.process_time() - started)
        with open_run(store.folder(key), resume=True) as run, _unchanged(path, state, task.location):
            study = reader.read(path, journal=run.journal, request=request)
            seconds = time.process_time() - started
            write_study(study, run.folder, timing=_timing(task.location, seconds, 1), colours=study.colours)
            run.journal.discard()
        return _done(key, state, study_document(study), seconds)
    finally:
        if not divided:
            _remove_copy(setup, task.location)


def _read_part(setup: ReadSetup, reader: Reader, task: PartTask) -> PartDone:
    started = time.process_time()
    store, ready, part = ResultStore(setup.out), task.ready, task.part
    answers = store.read_part(ready.key, part)
    if answers is None:
        with _unchanged(Path(ready.path), ready.state, ready.location):
            answers = reader.read_part(ready.division, part)
        store.write_part(ready.key, part, answers)
    rest = None if answers.failed_packet is None else ready.division.rest(part, answers)
    return PartDone(rest, time.process_time() - started)


def _join(setup: ReadSetup, reader: Reader, task: JoinTask) -> Done:
    started = time.process_time()
    store, ready = ResultStore(setup.out), task.ready
    with _unchanged(Path(ready.path), ready.state, ready.location):
        study = reader.join(ready.division, _stored(store, ready.key, task.parts))
    seconds = task.seconds + time.process_time() - started
    store.write(ready.key, study, _timing(ready.location, seconds, len(task.parts)))
    store.forget(ready.key)
    _remove_copy(setup, ready.location)
    return _done(ready.key, ready.state, study_document(study), seconds)


def _stored(store: ResultStore, key: str, parts: tuple[Part, ...]) -> Iterator[PartAnswers]:
    for part in parts:
        answers = store.read_part(key, part)
        if answers is None:
            raise _ChangedError(f"the answers of frames {part.frames.start} to {part.frames.stop} went away")
        yield answers


def _done(key: str, state: RecordingState, document: dict[str, Any], seconds: float) -> Done:
    return Done(
        key,
        state,
        document["source"]["sha256"],
        dict(document["ledger"]),
        len(document.get("suggestions") or ()),
        seconds,
    )


def _timing(location: str, seconds: float, parts: int) -> dict[str, Any]:
    return {"recording": location, "core_s": round(seconds, 3), "parts": parts}


@contextmanager
def _unchanged(path: Path, state: RecordingState, location: str) -> Iterator[None]:
    """Raise an error if the recording is not as it was when it was opened, before or after the block."""
    if is_address(location):  # a copy is read, which nobody changes
        yield
        return
    _check_state(path, state)
    yield
    _check_state(path, state)


def _check_state(path: Path, state: RecordingState) -> None:
    if look_at(str(path)) != state:
        raise _ChangedError(
            f"{path} changed while it was read", hint="it is read again when it no longer changes"
        )


def _local_copy(setup: ReadSetup, task: IdentifyTask | OpenTask) -> Path:
    if not is_address(task.location):
        return Path(task.location)
    return fetch_recording(task.address or task.location, _copy_folder(setup, task.location))


def _remove_copy(setup: ReadSetup, location: str) -> None:
    if is_address(location):
        with suppress(OSError):
            shutil.rmtree(_copy_folder(setup, location))


def _copy_folder(setup: ReadSetup, location: str) -> Path:
    return setup.out / "work" / f"fetched-{hashlib.sha256(location.encode()).hexdigest()[:16]}"
