"""The driver with engines that answer at once: a lost lease, shares that hang or fail, and rows that go away."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")

import pyarrow.parquet as parquet
from archive_samples import ROW

from capsule_edge.archive.engines import WorkerFailure
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
from capsule_edge.archive.reading.tasks import Failed, Identified, IdentifyTask
from capsule_edge.archive.sources import (
    Recording,
    RecordingState,
    SilentError,
    StateLookup,
    answering,
    list_recordings,
    listing,
    look_at,
)
from capsule_edge.runtime.errors import InputError, OutputError

LEDGER = {
    **{"container": 60, "classified": 60, "duplicate": 0, "corrupt": 0, "missing": 0, "unread": 0},
    "truncated": False,
}


def make_setup(out: Path, version: str = "1") -> ReadSetup:
    return ReadSetup(
        out, "small", "5" * 64, "onnxruntime", {}, "0" * 64, versions={"version": version, "libraries": {}}
    )


class InstantEngine:
    """An engine that has read each recording at once, or does what ``act`` says.

    It counts the recordings that it reads. Each has content of its own, but copies: ``copy-1-a.mp4``, ``copy-1-b.mp4``.
    """

    slots, refusals = 2, ()

    def __init__(self, setup: ReadSetup, act: Callable[[str], Any] | None = None) -> None:
        self.setup, self.act, self.locations = setup, act, []
        self._tasks: list[tuple[int, Any]] = []

    def submit(self, number: int, task: Any) -> None:
        self._tasks.append((number, task))
        if not isinstance(task, IdentifyTask):
            self.locations.append(task.location)

    def wait(self, timeout_s: float) -> list[tuple[int, Any]]:
        tasks, self._tasks = self._tasks, []
        return [(number, self._result(task)) for number, task in tasks]

    def close(self) -> None:
        pass

    def _result(self, task: Any) -> Any:
        location = task.location
        if isinstance(task, IdentifyTask) and Path(location).exists():
            return Identified(key(self.setup, location))
        result = None if self.act is None else self.act(location)
        return done(self.setup, location) if result is None else result


def key(setup: ReadSetup, location: str) -> str:
    name = Path(location).name
    return setup.key(name.rpartition("-")[0] if name.startswith("copy-") else location, ".mp4")


def done(setup: ReadSetup, location: str) -> Done:
    """Return the answer of a worker that has read a recording, and leave the result in its place."""
    status = Path(location).stat()
    folder = ResultStore(setup.out).folder(key(setup, location))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text("{}", "utf-8")
    return Done(
        key(setup, location), RecordingState(status.st_size, status.st_mtime_ns), "9" * 64, LEDGER, 1, 1.5
    )


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


class HungShare:
    """A share below a folder that answers or hangs; it counts who asks it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path, *, mounted: bool) -> None:
        self.root, self.hangs, self.asked = str(root), False, []
        self._never = threading.Event()
        self._look, self._stat = answering.look_at, os.stat
        monkeypatch.setattr(answering, "look_at", self.look_at)
        monkeypatch.setattr(answering.os, "stat", self.stat)
        monkeypatch.setattr(answering, "list_shares", lambda _: [self.root] if mounted else [])
        monkeypatch.setattr(answering, "_PROBE_S", 0.2)
        monkeypatch.setattr(answering, "_LEAST_S", 0.2)
        monkeypatch.setattr(driver, "_PATIENCE_S", 0.2)

    def look_at(self, location: str) -> RecordingState:
        if self.hangs and self._holds(location):
            self.asked.append(location)
            self._never.wait()
        return self._look(location)

    def stat(self, path: Path, **options: Any) -> os.stat_result:
        if self.hangs and self._holds(str(path)) and threading.current_thread().name.endswith("probe"):
            self._never.wait()
        return self._stat(path, **options)

    def _holds(self, location: str) -> bool:
        return Path(self.root) in (Path(location), *Path(location).parents)

    def release(self) -> None:
        self._never.set()


@pytest.fixture(params=[True, False], ids=["mounted", "found by asking"])
def share(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[HungShare]:
    made = HungShare(monkeypatch, tmp_path / "share", mounted=request.param)
    yield made
    made.release()


def test_a_share_that_hangs_costs_one_wait_and_no_task_and_keeps_its_results(
    tmp_path: Path, share: HungShare
) -> None:
    setup = make_setup(tmp_path / "out")
    paths = touch(tmp_path / "share", *(f"patient-{number}/{number}.mp4" for number in range(8)))
    (local,) = touch(tmp_path / "local", "local.mp4")
    listed = [Recording(str(path)) for path in (*paths, local)]
    assert read(setup, listed[1:])[0].read == 8  # one of the share is new
    before = rows(setup.out)
    local.write_bytes(b"changed")
    share.hangs = True
    outcome, engine = read(setup, listed)
    assert share.asked == [str(paths[0])]
    assert engine.locations == [str(local)]
    assert (outcome.read, outcome.failed, outcome.set_aside, outcome.whole) == (1, 8, 0, False)
    assert {row.cause for row in outcome.rows} == {"unreachable"}
    assert f"{share.root} does not answer" in outcome.rows[0].message
    now = rows(setup.out)
    assert (now["0.mp4"].state, now["0.mp4"].cause) == ("failed", "unreachable")
    assert {name: row for name, row in now.items() if name in before and name != "local.mp4"} == {
        name: row for name, row in before.items() if name != "local.mp4"
    }
    share.hangs = False
    outcome, engine = read(setup, listed)
    assert (outcome.read, outcome.unchanged, engine.locations) == (9, 8, [str(paths[0])])


def test_a_share_that_begins_to_hang_costs_the_tasks_that_run(tmp_path: Path, share: HungShare) -> None:
    setup = make_setup(tmp_path / "out")
    paths = touch(tmp_path / "share", *(f"{number}.mp4" for number in range(9)))

    def act(_: str) -> WorkerFailure:
        share.hangs = True
        return WorkerFailure("time", "it did not end within 3600 s")

    outcome, engine = read(setup, [Recording(str(path)) for path in paths], act)
    assert len(engine.locations) <= InstantEngine.slots
    assert (outcome.failed, outcome.set_aside) == (9, 0)
    assert {row.cause for row in rows(setup.out).values()} == {"unreachable"}


def test_a_recording_that_takes_too_long_on_a_share_that_answers_is_set_aside(tmp_path: Path) -> None:
    setup = make_setup(tmp_path / "out")
    (path,) = touch(tmp_path / "in", "a.mp4")
    outcome, engine = read(
        setup, [Recording(str(path))], lambda _: WorkerFailure("time", "too long"), tries=2
    )
    assert (outcome.set_aside, len(engine.locations)) == (1, 2)


def test_a_folder_that_hangs_leaves_its_neighbours_alone(tmp_path: Path, share: HungShare) -> None:
    share.root = str(tmp_path / "share" / "hung")
    setup = make_setup(tmp_path / "out")
    paths = touch(tmp_path / "share", "hung/a.mp4", "hung too/b.mp4", "hung/c.mp4", "d.mp4")
    share.hangs = True
    outcome, engine = read(setup, [Recording(str(path)) for path in paths])
    assert sorted(engine.locations) == sorted(map(str, (paths[1], paths[3])))
    assert (outcome.read, outcome.failed) == (2, 2)


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_recording_taken_away_after_it_was_read_keeps_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """The result stays even if another version would have read the recording again."""
    monkeypatch.setattr(driver, "_PAUSE_S", 0.0)
    (path,) = touch(tmp_path / "in", "a.mp4")
    out = tmp_path / "out"
    read(make_setup(out), [Recording(str(path))])
    (before,) = Manifest(out).rows()
    path.unlink()
    outcome, _ = read(
        make_setup(out, version), [Recording(str(path))], lambda _: Failed("unreachable", "no such file")
    )
    assert (outcome.failed, [row.state for row in outcome.rows]) == (1, ["failed"])
    assert list(Manifest(out).rows()) == [before]


def test_a_failure_through_no_fault_of_the_recording_keeps_the_result_of_another_version(
    tmp_path: Path,
) -> None:
    (path,) = touch(tmp_path / "in", "a.mp4")
    out = tmp_path / "out"
    read(make_setup(out), [Recording(str(path))])
    (before,) = Manifest(out).rows()
    listed = [Recording(str(path))]
    outcome, _ = read(make_setup(out, "2"), listed, lambda _: Failed("output", "disk full"), tries=1)
    assert outcome.failed == 1
    assert list(Manifest(out).rows()) == [before]
    # What the recording is to blame for replaces the row: it is set aside for this version.
    outcome, _ = read(make_setup(out, "2"), listed, lambda _: WorkerFailure("crashed", "SIGSEGV"), tries=1)
    assert [row.state for row in Manifest(out).rows()] == ["set_aside"]
    # So does a recording that has changed.
    read(make_setup(out), listed)
    path.write_bytes(b"another recording")
    read(make_setup(out), listed, lambda _: Failed("output", "disk full"), tries=1)
    assert [(row.state, row.bytes) for row in Manifest(out).rows()] == [("failed", 17)]


def test_the_mounted_shares_are_read_from_the_list_of_the_kernel() -> None:
    text = (
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "30 22 0:50 / /mnt/our\\040share rw shared:7 - nfs4 server:/x rw\n"
        "31 22 0:51 / /data rw,relatime - cifs //server/data rw\n"
        "32 22 0:52 / /tmp rw - tmpfs tmpfs rw\n"
        "33 22 0:53 / /s rw - fuse.sshfs host:/ rw\n\n"
    )
    assert answering.list_shares(text) == ["/mnt/our share", "/data", "/s"]


def test_an_address_that_hangs_silences_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()
    monkeypatch.setattr(answering, "look_at", lambda location: never.wait())
    lookup = StateLookup(patience_s=0.1)
    for name in ("a", "b"):
        with pytest.raises(SilentError, match="s3://bucket does not answer"):
            lookup.look(f"s3://bucket/{name}/exam.mp4")
    lookup.check("s3://bucket-2/exam.mp4")
    never.set()


def read_sources(setup: ReadSetup, *sources: Path) -> ReadingOutcome:
    listed = list_recordings(list(map(str, sources)), patience_s=0.3)
    return read(setup, listed, tries=1)[0]


def test_a_corrected_list_leaves_no_row_of_its_faults(tmp_path: Path, call) -> None:
    """A path and a date were wrong, and a recording is listed twice. Another list with a fault is not read again."""
    setup = make_setup(tmp_path / "out")
    touch(tmp_path, "a.mp4", "b.mp4")
    one, other = tmp_path / "one.csv", tmp_path / "other.csv"
    one.write_text("path,date\na.mp4,2026\na.mp4,2025\n,2026\nb.mp4,soon\n", "utf-8")
    other.write_text("path,date\n,2026\n", "utf-8")
    outcome = read_sources(setup, one, other)
    assert (outcome.read, outcome.set_aside) == (1, 4)
    one.write_text("path,date\na.mp4,2026\nb.mp4,2026-11\n", "utf-8")
    assert read_sources(setup, one).whole
    (left,) = [row for row in Manifest(setup.out).rows() if row.state != "read"]
    assert left.listed_in == str(other)
    other.write_text("path,date\na.mp4,2026\n", "utf-8")
    assert read_sources(setup, other).whole
    assert Manifest(setup.out).summary().states == {"read": 2}
    assert call("archive", "status", setup.out, "--json").json["causes"] == {}
    listed = call("archive", "query", setup.out, "SELECT count(*) FROM recordings", "--json").json
    assert listed["rows"] == [[2]]


def test_a_source_that_names_nothing_any_more_ends_its_faults(tmp_path: Path) -> None:
    """A list without rows, a folder without recordings, and a list whose recordings another source names, too."""
    setup = make_setup(tmp_path / "out")
    bad, good, one, other = touch(tmp_path, "in/bad.mp4", "good.mp4", "one.csv", "other.csv")
    one.write_text("path,date\ngood.mp4,soon\n", "utf-8")
    other.write_text("path,date\ngood.mp4,soon\n", "utf-8")
    listed = list_recordings(list(map(str, (one, other, bad.parent))))
    assert read(setup, listed, lambda _: Failed("input", "no video"))[0].set_aside == 3
    bad.unlink()
    one.write_text("path,date\n", "utf-8")
    other.write_text("path\ngood.mp4\n", "utf-8")
    outcome = read_sources(setup, good, one, other, bad.parent)
    assert (outcome.listed, outcome.whole) == (1, True)
    assert outcome.passed_over == [f"{one}: it holds no recording", f"{bad.parent}: it holds no recording"]
    assert [row.recording for row in Manifest(setup.out).rows()] == [str(good)]


def test_two_lists_of_one_name_have_faults_of_their_own(tmp_path: Path) -> None:
    setup = make_setup(tmp_path / "out")
    lists = touch(tmp_path, "köln/list.csv", "bonn/list.csv")
    for path in lists:
        path.write_text('path\n""\n', "utf-8")
    assert read_sources(setup, *lists).set_aside == 2
    found = {row.listed_in: row for row in Manifest(setup.out).rows()}
    assert {str(path): f"{path}, row 1" for path in lists} == {
        source: row.recording for source, row in found.items()
    }
    assert {row.message for row in found.values()} == {"list.csv, row 1: it has no path"}
    # One is corrected; the fault of the other stays.
    touch(tmp_path, "a.mp4")
    lists[0].write_text("path\n../a.mp4\n", "utf-8")
    assert read_sources(setup, lists[0]).whole
    left = [row.listed_in for row in Manifest(setup.out).rows() if row.state == "set_aside"]
    assert left == [str(lists[1])]


def test_copies_wait_for_the_first_and_another_one_is_read_if_it_fails(tmp_path: Path) -> None:
    setup = make_setup(tmp_path / "out")
    paths = touch(tmp_path / "in", *(f"copy-{kind}-{name}.mp4" for kind in "12" for name in "abc"))

    def act(location: str) -> Any:
        if location.endswith("1-a.mp4"):
            return WorkerFailure("crashed", "SIGSEGV")
        state = look_at(location)
        ready = ResultStore(setup.out).has(key(setup, location))
        return replace(done(setup, location), state=state, seconds=0.0 if ready else 1.5)

    outcome, engine = read(setup, [Recording(str(path)) for path in paths], act, tries=1)
    assert (outcome.read, outcome.set_aside, outcome.frames) == (5, 1, 120)
    assert outcome.copies == [
        (str(paths[4]), str(paths[3])),
        (str(paths[5]), str(paths[3])),
        (str(paths[2]), str(paths[1])),
    ]
    # The first of each kind was begun before any other.
    assert engine.locations[:2] == [str(paths[0]), str(paths[3])]


def test_a_recording_that_cannot_be_identified_does_not_keep_the_others_waiting(tmp_path: Path) -> None:
    setup = make_setup(tmp_path / "out")
    paths = touch(tmp_path / "in", "a.mp4", "b.mp4", "c.mp4")
    listed = [Recording(str(path)) for path in paths]

    class Engine(InstantEngine):
        def _result(self, task: Any) -> Any:
            bad = isinstance(task, IdentifyTask) and task.location.endswith("b.mp4")
            return WorkerFailure("crashed", "SIGSEGV") if bad else super()._result(task)

    outcome = read_archive(setup, lambda: listed, lambda: Engine(setup), options=DriverOptions(tries=2))
    assert (outcome.read, outcome.set_aside) == (2, 1)


def test_a_wrong_path_that_was_corrected_leaves_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup, path = make_setup(tmp_path / "out"), tmp_path / "list.csv"
    touch(tmp_path, "a.mp4")
    path.write_text("path\ntypo.mp4\n", "utf-8")
    listed = list_recordings([str(path)])
    assert read(setup, listed, lambda _: Failed("unreachable", "not there"), tries=1)[0].failed == 1
    path.write_text("path\na.mp4\n", "utf-8")
    assert read_sources(setup, path).whole
    assert [Path(row.recording).name for row in Manifest(setup.out).rows()] == ["a.mp4"]
    # A result stays in the archive when the list no longer names its recording.
    touch(tmp_path, "b.mp4")
    path.write_text("path\nb.mp4\n", "utf-8")
    assert read_sources(setup, path).whole
    assert sorted(Path(row.recording).name for row in Manifest(setup.out).rows()) == ["a.mp4", "b.mp4"]


def test_a_source_that_did_not_answer_has_failed_and_its_row_goes_when_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = make_setup(tmp_path / "out")
    bad, _ = touch(tmp_path / "in", "bad.mp4", "good.mp4")
    listed = list_recordings([str(tmp_path / "in")])
    assert (
        read(setup, listed, lambda name: Failed("input", "no video") if "bad" in name else None)[0].set_aside
        == 1
    )
    never, real = threading.Event(), listing.list_folder
    with monkeypatch.context() as hung:
        hung.setattr(listing, "list_folder", lambda folder: never.wait())
        outcome = read_sources(setup, tmp_path / "in")
    never.set()
    assert (outcome.failed, outcome.set_aside) == (1, 0)
    found = {Path(row.recording).name: (row.state, row.cause) for row in Manifest(setup.out).rows()}
    # While it does not answer, what it named before stays.
    assert found == {"in": ("failed", "source"), "bad.mp4": ("set_aside", "input"), "good.mp4": ("read", "")}
    assert real is listing.list_folder
    bad.unlink()
    assert read_sources(setup, tmp_path / "in").whole
    assert {Path(row.recording).name for row in Manifest(setup.out).rows()} == {"good.mp4"}


def test_what_is_gone_stays_gone_in_merged_files_and_can_come_back(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.begin()
    lost = replace(ROW, recording="/lost.mp4", state="set_aside", cause="list", key=None)
    manifest.append([ROW, lost])
    for number in range(70):  # more than are merged at once
        manifest.append([replace(lost, state="gone")] if number == 3 else [replace(ROW, tries=number)])
    assert [row.recording for row in manifest.rows()] == [ROW.recording]
    assert manifest.summary().states == {"read": 1}
    manifest.compact()
    assert [row.recording for row in manifest.rows()] == [ROW.recording]
    manifest.append([lost])
    assert manifest.summary().states == {"read": 1, "set_aside": 1}


def test_a_manifest_of_an_early_version_lacks_the_source(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.begin()
    manifest.append([replace(ROW, listed_in="/list.csv")])
    (path,) = manifest.folder.iterdir()
    table = parquet.read_table(path)
    parquet.write_table(table.drop_columns(["listed_in"]), path)
    assert list(manifest.rows()) == [ROW]
    parquet.write_table(table.drop_columns(["key"]), path)
    with pytest.raises(InputError, match="cannot be read"):
        list(manifest.rows())


def test_pictures_that_are_passed_over_are_a_warning_and_no_row(tmp_path: Path) -> None:
    setup = make_setup(tmp_path / "out")
    touch(tmp_path / "in", "a.mp4", "logo.png")
    outcome = read_sources(setup, tmp_path / "in")
    assert (outcome.listed, outcome.whole) == (1, True)
    assert outcome.passed_over == [
        f"{tmp_path / 'in'}: 1 picture beside recordings; to read pictures, move them to a folder of their own"
    ]
    assert list(rows(setup.out)) == ["a.mp4"]


def test_a_series_whose_folder_cannot_be_listed_keeps_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = make_setup(tmp_path / "out")
    touch(tmp_path / "in", "series/1.png")

    def as_done(location: str) -> Done:
        return replace(done(setup, location), state=look_at(location))

    listed = list_recordings([str(tmp_path / "in")])
    assert read(setup, listed, as_done)[0].whole
    (before,) = Manifest(setup.out).rows()
    real = listing.list_folder

    def fail(folder: Path):
        if folder.name == "series":
            raise InputError("series cannot be opened: input/output error")
        return real(folder)

    monkeypatch.setattr(listing, "list_folder", fail)
    outcome = read_sources(setup, tmp_path / "in")
    assert (outcome.failed, outcome.rows[0].cause) == (1, "source")
    assert list(Manifest(setup.out).rows()) == [before]
