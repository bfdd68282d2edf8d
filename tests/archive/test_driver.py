"""The driver with engines that answer at once: a lost lease, shares that hang or fail, and rows that go away."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")

from archive_samples import ROW

from capsule_edge.archive.manifest import Manifest, Row, hold_lease
from capsule_edge.archive.reading import (
    Done,
    Driver,
    DriverOptions,
    ReadingOutcome,
    ReadSetup,
    ResultStore,
    driver,
    read_archive,
)
from capsule_edge.archive.reading.tasks import Failed
from capsule_edge.archive.sources import Recording, RecordingState
from capsule_edge.runtime.errors import OutputError

LEDGER = {
    **{"container": 60, "classified": 60, "duplicate": 0, "corrupt": 0, "missing": 0, "unread": 0},
    "truncated": False,
}


def make_setup(out: Path, version: str = "1") -> ReadSetup:
    return ReadSetup(
        out, "small", "5" * 64, "onnxruntime", {}, "0" * 64, versions={"version": version, "libraries": {}}
    )


class InstantEngine:
    """An engine that has read each recording at once, or does what ``act`` says; it counts its tasks."""

    slots, refusals = 2, ()

    def __init__(self, setup: ReadSetup, act: Callable[[str], Any] | None = None) -> None:
        self.setup, self.act, self.locations = setup, act, []
        self._tasks: list[tuple[int, Any]] = []

    def submit(self, number: int, task: Any) -> None:
        self._tasks.append((number, task))
        self.locations.append(task.location)

    def wait(self, timeout_s: float) -> list[tuple[int, Any]]:
        tasks, self._tasks = self._tasks, []
        return [(number, self._result(task.location)) for number, task in tasks]

    def close(self) -> None:
        pass

    def _result(self, location: str) -> Any:
        result = None if self.act is None else self.act(location)
        return done(self.setup, location) if result is None else result


def done(setup: ReadSetup, location: str) -> Done:
    """Return the answer of a worker that has read a recording, and leave the result in its place."""
    status = Path(location).stat()
    key = setup.key("9" * 64, location)
    folder = ResultStore(setup.out).folder(key)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text("{}", "utf-8")
    return Done(key, RecordingState(status.st_size, status.st_mtime_ns), "9" * 64, LEDGER, 1, 1.5)


def touch(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return paths


def read(
    setup: ReadSetup, recordings: Sequence[Recording], act: Callable[[str], Any] | None = None, **options: Any
) -> tuple[ReadingOutcome, InstantEngine]:
    engine = InstantEngine(setup, act)
    outcome = read_archive(setup, lambda: recordings, lambda: engine, options=DriverOptions(**options))
    return outcome, engine


def rows(out: Path) -> dict[str, Row]:
    return {Path(row.recording).name: row for row in Manifest(out).rows()}


def take_over(folder: Path) -> None:
    """Do what a driver on another machine does that takes the lease."""
    document = {"holder": "x", "host": "ws-2", "machine": "ws-2 boot", "until": time.time() + 60}
    (folder / "lease.json").write_text(json.dumps(document), "utf-8")


@pytest.mark.parametrize("how", ["interrupted", "at the end"])
def test_a_driver_that_lost_its_lease_takes_no_number_of_the_rightful_one(tmp_path: Path, how: str) -> None:
    out, setup = tmp_path / "out", make_setup(tmp_path / "out")
    out.mkdir()
    paths = touch(tmp_path / "in", "a.mp4", "b.mp4", "c.mp4")

    def act(location: str) -> None:
        if location.endswith("c.mp4"):
            take_over(out)
            if how == "interrupted":
                raise KeyboardInterrupt

    manifest, rightful = Manifest(out), Manifest(out)
    manifest.begin()
    rightful.begin()
    with hold_lease(out) as lease:
        reading = Driver(setup, InstantEngine(setup, act), manifest, lease)
        with pytest.raises(KeyboardInterrupt if how == "interrupted" else OutputError):
            reading.read([Recording(str(path)) for path in paths])
    assert reading.outcome.read >= 2
    assert list(Manifest(out).rows()) == []
    rightful.append([ROW])
    assert list(Manifest(out).rows()) == [ROW]


def test_a_driver_that_is_interrupted_and_holds_its_lease_records_what_is_read(tmp_path: Path) -> None:
    out, setup = tmp_path / "out", make_setup(tmp_path / "out")
    paths = touch(tmp_path / "in", "a.mp4", "b.mp4", "c.mp4")

    def act(location: str) -> None:
        if location.endswith("c.mp4"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read(setup, [Recording(str(path)) for path in paths], act)
    assert {name: row.state for name, row in rows(out).items()} == {"a.mp4": "read", "b.mp4": "read"}


def test_what_fails_through_no_fault_of_the_recording_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The share fails for two tries, or the whole run long; the next run reads the recording."""
    monkeypatch.setattr(driver, "_PAUSE_S", 0.0)
    setup = make_setup(tmp_path / "out")
    (path,) = touch(tmp_path / "in", "a.mp4")
    errors = [Failed("unreachable", "input/output error")] * 5
    outcome, engine = read(setup, [Recording(str(path))], lambda _: errors.pop())
    assert (outcome.failed, len(engine.locations)) == (1, 3)
    assert (rows(setup.out)["a.mp4"].state, rows(setup.out)["a.mp4"].cause) == ("failed", "unreachable")
    outcome, engine = read(setup, [Recording(str(path))], lambda _: errors.pop() if errors else None)
    assert (outcome.read, len(engine.locations)) == (1, 3)
    assert rows(setup.out)["a.mp4"].tries == 2


def test_a_recording_that_changes_while_it_fails_is_not_unchanged_later(tmp_path: Path) -> None:
    """It is still copied when it is tried. The state that is recorded is the one before the tries."""
    setup = make_setup(tmp_path / "out")
    (path,) = touch(tmp_path / "in", "a.mp4")
    before = path.stat().st_mtime_ns

    def act(_: str) -> Failed:
        path.write_bytes(b"the whole recording")
        os.utime(path, ns=(before + 5_000_000_000,) * 2)
        return Failed("input", "the file was cut")

    outcome, _ = read(setup, [Recording(str(path))], act)
    assert outcome.set_aside == 1
    assert (rows(setup.out)["a.mp4"].bytes, rows(setup.out)["a.mp4"].modified_ns) == (1, before)
    outcome, _ = read(setup, [Recording(str(path))])
    assert (outcome.unchanged, outcome.read) == (0, 1)


def test_a_recording_that_cannot_be_read_stays_aside_until_it_changes(tmp_path: Path) -> None:
    setup = make_setup(tmp_path / "out")
    (path,) = touch(tmp_path / "in", "a.mp4")
    assert read(setup, [Recording(str(path))], lambda _: Failed("input", "no video"))[0].set_aside == 1
    outcome, engine = read(setup, [Recording(str(path))])
    assert (outcome.unchanged, outcome.set_aside, engine.locations) == (1, 1, [])
