"""``archive read`` on processes: the bytes of ``run``, nothing twice, nothing lost, and what stops nothing."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import damage
import pytest
from archive_samples import misbehave, same_files, write_long
from video_samples import recording

pytest.importorskip("pyarrow")

from capsule_edge.archive.engines import ProcessEngine, TaskLimits
from capsule_edge.archive.manifest import Manifest, Row
from capsule_edge.archive.reading import (
    DriverOptions,
    ReadSetup,
    ResultStore,
    check_worker,
    perform,
    read_archive,
    tool_hash,
)
from capsule_edge.archive.reading.tasks import Done, Failed, OpenTask, PartTask
from capsule_edge.archive.sources import Recording, list_recordings
from capsule_edge.runtime import Reader, write_study
from capsule_edge.runtime.recording.container import StreamPlace

LONG_FRAMES = 480


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A long recording, a damaged long one, a short one in two folders, a copy of it, and one that is cut."""
    folder = tmp_path_factory.mktemp("source")
    long = write_long(folder / "long.mp4", times=12)
    damage.blank(long, folder / "damaged.mp4", 250)
    for place in ("a", "b"):
        (folder / place).mkdir()
    damage.encode(folder / "a" / "exam.mp4", frames=40)
    damage.encode(folder / "b" / "exam.mp4", frames=30)
    shutil.copy(folder / "a" / "exam.mp4", folder / "copy.mp4")
    damage.cut(folder / "a" / "exam.mp4", folder / "broken.mp4", 0.5)
    return folder


def make_setup(out: Path, model: Path | str = "small", **changes) -> ReadSetup:
    with Reader.open(model, threads=1) as reader:
        values = {"options": {}, "split_frames": 100, **changes}
        return ReadSetup(
            out=out, model=str(model), model_sha256=reader.model_sha256, backend=reader.backend_name,
            tool=tool_hash(), **values,
        )  # fmt: skip


def read(
    setup: ReadSetup,
    *sources: Path,
    work=perform,
    workers: int = 2,
    limits: TaskLimits | None = None,
    **options,
):
    return read_archive(
        setup,
        lambda: list_recordings(list(map(str, sources)), leave_out=setup.out),
        lambda: ProcessEngine(work, setup, workers=workers, limits=limits),
        options=DriverOptions(**options),
    )


def rows(out: Path) -> dict[str, Row]:
    return {
        Path(row.recording).name if "exam" not in row.recording else row.recording: row
        for row in Manifest(out).rows()
    }


def check_against_run(out: Path, folder: Path, model: Path | str = "small", **options) -> int:
    """Assert that every result has the bytes that a reader alone writes; return the number of results.

    A result that copies share is that of the first one in the order of the list.
    """
    count = 0
    results = {row.key: row for row in reversed(list(Manifest(out).rows())) if row.key is not None}
    with Reader.open(model, threads=2) as reader:
        for row in results.values():
            alone = folder / row.key
            alone.mkdir(parents=True)
            study = reader.read(row.recording, **options)
            write_study(study, alone, timing={}, colours=study.colours)
            assert same_files(alone, ResultStore(out).folder(row.key)), row.recording
            count += 1
    return count


@pytest.fixture(scope="module")
def archive(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources, read once."""
    out = tmp_path_factory.mktemp("archive") / "out"
    outcome = read(make_setup(out), source)
    assert (outcome.listed, outcome.read, outcome.incomplete, outcome.set_aside) == (6, 4, 1, 1)
    return out


def test_results_have_the_bytes_of_run(archive: Path, tmp_path: Path) -> None:
    assert check_against_run(archive, tmp_path) == 4


def test_long_recordings_were_read_in_parts(archive: Path) -> None:
    store, parts = ResultStore(archive), {}
    for name, row in rows(archive).items():
        if row.key is not None:
            timing = json.loads((store.folder(row.key) / "timing.json").read_text("utf-8"))
            parts[name] = timing["parts"]
    assert parts["long.mp4"] == 4
    assert 1 < parts["damaged.mp4"] < 5
    assert not any((archive / "work").iterdir())


def test_the_manifest_says_what_became_of_each(archive: Path) -> None:
    found = rows(archive)
    assert Counter(row.state for row in found.values()) == {"read": 4, "incomplete": 1, "set_aside": 1}
    damaged, broken = found["damaged.mp4"], found["broken.mp4"]
    assert (damaged.cause, damaged.corrupt, damaged.frames) == ("damaged", 30, LONG_FRAMES)
    assert (broken.cause, broken.tries, broken.key) == ("input", 3, None)
    assert "index" in broken.message
    # Two recordings of one name have results of their own; one recording of two names has one.
    exams = [row for row in found.values() if row.recording.endswith("exam.mp4")]
    assert len({row.key for row in exams}) == 2
    copies = [row for row in found.values() if row.sha256 == found["copy.mp4"].sha256]
    assert (len(copies), len({row.key for row in copies})) == (2, 1)


def test_read_again_reads_what_is_new_or_changed(source: Path, tmp_path: Path) -> None:
    mine, out = tmp_path / "in", tmp_path / "out"
    mine.mkdir()
    for name in ("one", "two"):
        shutil.copy(source / "copy.mp4", mine / f"{name}.mp4")
    setup = make_setup(out)
    assert read(setup, mine).frames == 40  # they are copies
    again = read(setup, mine)
    assert (again.unchanged, again.frames, again.read) == (2, 0, 2)
    shutil.copy(source / "b" / "exam.mp4", mine / "two.mp4")
    shutil.copy(source / "copy.mp4", mine / "three.mp4")
    third = read(setup, mine)
    assert (third.unchanged, third.frames, third.read) == (1, 30, 3)
    # Other options are another result; the earlier one stays.
    fourth = read(make_setup(out, options={"every": 2}), mine)
    assert (fourth.unchanged, fourth.read) == (0, 3)
    assert len(list((out / "results").glob("*/*"))) == 4
    # A result that was removed is made again, for both recordings that share it.
    (row,) = (row for row in Manifest(out).rows() if row.recording.endswith("one.mp4"))
    shutil.rmtree(ResultStore(out).folder(row.key))
    assert read(make_setup(out, options={"every": 2}), mine).unchanged == 1


def test_a_gate_and_every_give_the_bytes_of_run(source: Path, tmp_path: Path) -> None:
    options = {"gate": 0.5, "every": 3}
    read(
        make_setup(tmp_path / "out", options=options, split_frames=30),
        source / "long.mp4",
        source / "damaged.mp4",
    )
    assert check_against_run(tmp_path / "out", tmp_path / "alone", **options) == 2


def test_a_real_recording_has_the_bytes_of_run(tmp_path: Path) -> None:
    path = recording("131368cc17e44240")
    read(make_setup(tmp_path / "out", split_frames=200), path)
    assert check_against_run(tmp_path / "out", tmp_path / "alone") == 1


def test_poisonous_recordings_are_set_aside_and_stop_nothing(source: Path, tmp_path: Path) -> None:
    mine, out = tmp_path / "in", tmp_path / "out"
    mine.mkdir()
    for name in ("crash", "memory", "hang", "good"):
        shutil.copy(source / "copy.mp4", mine / f"{name}.mp4")
    limits = TaskLimits(memory_bytes=600 << 20, seconds=15.0)
    outcome = read(make_setup(out), mine, work=misbehave, limits=limits, tries=2)
    assert (outcome.read, outcome.set_aside) == (1, 3)
    found = rows(out)
    assert {name: row.cause for name, row in found.items()} == {
        **{"crash.mp4": "crashed", "memory.mp4": "memory", "hang.mp4": "time", "good.mp4": ""},
    }
    assert {row.tries for row in found.values()} == {0, 2}
    assert "SIGSEGV" in found["crash.mp4"].message
    # They stay aside until they change or the user says so.
    assert read(make_setup(out), mine, work=perform).unchanged == 4
    assert read(make_setup(out), mine, work=perform, retry_set_aside=True).read == 4


def test_a_recording_that_changes_is_read_again(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    shutil.copy(source / "long.mp4", path)
    setup = make_setup(tmp_path / "out")
    (tmp_path / "out").mkdir()
    divided = perform(setup, OpenTask(str(path)))
    os.utime(path, ns=(1, 1))
    failed = perform(setup, PartTask(divided.ready, divided.ready.division.parts[0]))
    assert isinstance(failed, Failed)
    assert failed.cause == "changed"
    assert isinstance(perform(make_setup(tmp_path / "out", split_frames=0), OpenTask(str(path))), Done)


def test_another_tool_or_model_is_refused_before_any_work(source: Path, tmp_path: Path) -> None:
    for wrong in ({"tool": "0" * 64}, {"model_sha256": "0" * 64}):
        values = {**vars(make_setup(tmp_path / "out")), **wrong}
        failed = perform(ReadSetup(**values), OpenTask(str(source / "copy.mp4")))
        assert isinstance(failed, Failed)
        assert failed.cause == "node"
        assert "0" * 12 in failed.message
    assert not (tmp_path / "out").exists()


def fail_to_open(path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def fail(self: Path, *arguments, **options):
        if self == path:
            raise OSError(number, os.strerror(number))
        return real(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", fail)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE, errno.ENOENT, errno.ETIMEDOUT])
def test_an_error_of_the_system_is_not_blamed_on_the_recording(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    setup, path = make_setup(tmp_path / "out"), source / "copy.mp4"
    with monkeypatch.context() as broken:
        fail_to_open(path, number, broken)
        failed = perform(setup, OpenTask(str(path)))
    assert isinstance(failed, Failed)
    assert failed.cause == "unreachable"
    assert os.strerror(number).lower() in failed.message
    assert isinstance(perform(setup, OpenTask(str(path))), Done)


def test_a_share_that_fails_behind_the_first_bytes_is_not_blamed_on_the_recording(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file opens and its head can be read; FFmpeg meets the error."""

    class Failing(io.FileIO):
        def read(self, size=-1):
            if self.tell() > 0:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(size)

    monkeypatch.setattr(StreamPlace, "open_bytes", lambda _, path: Failing(path))
    failed = perform(make_setup(tmp_path / "out"), OpenTask(str(source / "copy.mp4")))
    assert isinstance(failed, Failed)
    assert failed.cause == "unreachable"


def test_damaged_content_is_blamed_on_the_recording(source: Path, tmp_path: Path) -> None:
    setup = make_setup(tmp_path / "out")
    (tmp_path / "text.mp4").write_bytes(b"no recording" * 100)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "1.png").write_bytes(b"no picture")
    for path in (source / "broken.mp4", tmp_path / "text.mp4", tmp_path / "pictures"):
        failed = perform(setup, OpenTask(str(path)))
        assert isinstance(failed, Failed)
        assert failed.cause == "input", failed.message


def test_a_model_that_a_machine_cannot_open_is_not_blamed_on_the_recording(
    source: Path, tmp_path: Path
) -> None:
    setup = replace(make_setup(tmp_path / "out"), model=str(tmp_path / "absent.onnx"), model_sha256="1" * 64)
    failed = perform(setup, OpenTask(str(source / "copy.mp4")))
    assert isinstance(failed, Failed)
    assert failed.cause == "node"
    assert "absent.onnx" in failed.message


def other_versions(setup: ReadSetup, library: str, version: str | None) -> ReadSetup:
    """Return the setup of a driver that has another version of a library; None: it lacks the library."""
    libraries = {name: found for name, found in setup.versions["libraries"].items() if name != library}
    if version is not None:
        libraries[library] = version
    return replace(setup, versions={**setup.versions, "libraries": libraries})


@pytest.mark.parametrize("library", ["av", "numpy", "onnxruntime", "opencv-python-headless"])
def test_a_machine_with_another_library_is_refused_and_names_both_versions(
    tmp_path: Path, library: str
) -> None:
    setup = make_setup(tmp_path / "out")
    assert check_worker(setup, None) == ""
    here = setup.versions["libraries"][library]
    refused = check_worker(other_versions(setup, library, "0.0.1"), None)
    assert f"{library} {here} (driver: 0.0.1)" in refused
    assert "install the same versions" in refused
    assert f"{library} {here} (driver: not installed)" in check_worker(
        other_versions(setup, library, None), None
    )
    other = replace(setup, versions={**setup.versions, "version": "0.0.1"})
    assert "capsule-edge" in check_worker(other, None)
    # A library of the driver that this machine lacks.
    assert "absent not installed (driver: 1.0)" in check_worker(other_versions(setup, "absent", "1.0"), None)
    failed = perform(other_versions(setup, library, "0.0.1"), OpenTask(str(tmp_path / "absent.mp4")))
    assert isinstance(failed, Failed)
    assert failed.cause == "node"


def test_the_identity_is_that_of_the_driver_wherever_it_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = make_setup(tmp_path / "out")
    identity, key = setup.identity, setup.key("0" * 64, ".mp4")
    sent = pickle.dumps(setup)
    monkeypatch.setattr("capsule_edge.runtime.pipeline.request._installed", lambda name: "0.0.1")
    moved = pickle.loads(sent)
    assert (moved.identity, moved.key("0" * 64, ".mp4")) == (identity, key)
    assert make_setup(tmp_path / "out").identity != identity
    # Other options are another identity, with the versions of the driver.
    assert replace(moved, options={"every": 2}).identity != identity


@pytest.mark.parametrize("workers", [1, 2])
def test_copies_are_read_once_under_the_first_name(source: Path, tmp_path: Path, workers: int) -> None:
    mine, out = tmp_path / "in", tmp_path / "out"
    for name in ("a/long.mp4", "b/long.mp4", "c/other.MP4"):
        (mine / name).parent.mkdir(parents=True)
        shutil.copy(source / "long.mp4", mine / name)
    outcome = read(make_setup(out), mine, workers=workers)
    assert (outcome.read, outcome.whole, outcome.frames) == (3, True, LONG_FRAMES)
    first = str(mine / "a" / "long.mp4")
    assert outcome.copies == [
        (str(mine / "b" / "long.mp4"), first),
        (str(mine / "c" / "other.MP4"), first),
    ]
    found = list(Manifest(out).rows())
    assert len({row.key for row in found}) == 1
    assert [row.tries for row in found] == [0, 0, 0]
    # Only one of them took time.
    assert [row.seconds == 0 for row in found] == [False, True, True]
    assert check_against_run(out, tmp_path / "alone") == 1
    # Under a new name, the recording has a result. With another ending, FFmpeg could open it otherwise.
    shutil.move(mine / "c" / "other.MP4", mine / "c" / "moved.mp4")
    shutil.copy(source / "long.mp4", mine / "d.mkv")
    outcome = read(make_setup(out), mine, workers=workers)
    assert (outcome.unchanged, outcome.read, outcome.frames) == (2, 4, LONG_FRAMES)
    assert outcome.copies == [(str(mine / "c" / "moved.mp4"), first)]


def test_a_result_that_cannot_be_written_is_named_and_the_rest_is_read(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    setup = make_setup(out)
    with Reader.open("small", threads=1) as reader:
        digest = reader.read(source / "copy.mp4").source.sha256
    key = setup.key(digest, ".mp4")
    (out / "results").mkdir(parents=True)
    (out / "results" / key[:2]).write_bytes(b"a file in the place of the folder")
    outcome = read(setup, source / "copy.mp4", source / "b")
    assert (outcome.read, outcome.failed) == (1, 1)
    assert rows(out)["copy.mp4"].cause == "output"
    (out / "results" / key[:2]).unlink()
    again = read(setup, source / "copy.mp4", source / "b")
    assert (again.unchanged, again.read) == (1, 2)


def test_wrong_rows_of_a_list_are_in_the_manifest(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(f"path,site\n{source / 'copy.mp4'},Köln\n,Bonn\n{tmp_path / 'absent.mp4'},\n", "utf-8")
    outcome = read(make_setup(tmp_path / "out"), path, tries=1)
    assert (outcome.read, outcome.set_aside, outcome.failed) == (1, 1, 1)
    causes = {row.cause: row for row in Manifest(tmp_path / "out").rows()}
    assert set(causes) == {"", "list", "unreachable"}
    assert causes[""].site == "Köln"
    assert "row 2" in causes["list"].message
    # A corrected list changes the facts without reading again.
    path.write_text(f"path,site\n{source / 'copy.mp4'},Bonn\n", "utf-8")
    assert read(make_setup(tmp_path / "out"), path).unchanged == 1
    # The wrong rows are gone with it.
    assert [(row.site, row.state) for row in Manifest(tmp_path / "out").rows()] == [("Bonn", "read")]


def test_recordings_behind_an_address(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    out = tmp_path / "out"
    address = f"file://{source / 'long.mp4'}"
    outcome = read_archive(
        make_setup(out),
        lambda: [Recording(address)],
        lambda: ProcessEngine(perform, make_setup(out), workers=2),
    )
    assert outcome.whole
    (row,) = Manifest(out).rows()
    assert row.recording == address
    assert not any((out / "work").iterdir())
    alone = make_setup(tmp_path / "alone")
    read(alone, source / "long.mp4")
    (local,) = Manifest(alone.out).rows()
    assert local.key == row.key
    assert same_files(ResultStore(out).folder(row.key), ResultStore(alone.out).folder(row.key))


def command(source: Path, out: Path) -> list[str]:
    options = ["--model", "small", "--workers", "2", "--split-frames", "100", "--no-tables", "--json"]
    return [
        sys.executable,
        "-m",
        "capsule_edge.cli",
        "archive",
        "read",
        str(source),
        "--out",
        str(out),
        *options,
    ]


def lost_and_double(out: Path, source: Path) -> tuple[list[str], list[str]]:
    """Return the recordings without a row or a whole result, and those with two rows or two results."""
    expected = {str(path) for path in source.rglob("*.mp4")}
    found = Counter(row.recording for row in Manifest(out).rows())
    store = ResultStore(out)
    lost = [name for name in expected if name not in found]
    lost += [row.recording for row in Manifest(out).rows() if row.state == "failed"]
    lost += [row.recording for row in Manifest(out).rows() if row.key and not store.has(row.key)]
    double = [name for name, count in found.items() if count > 1]
    results = Counter(
        json.loads(path.read_text("utf-8"))["source"]["sha256"]
        for path in (out / "results").glob("*/*/study.json")
    )
    return lost, double + [sha256 for sha256, count in results.items() if count > 1]


class _Killer(threading.Thread):
    """Kill a worker of an engine at given moments after its start, each a worker that lives then."""

    def __init__(self, engine: ProcessEngine, moments: list[float]) -> None:
        super().__init__(daemon=True)
        self.killed = 0
        self._engine, self._moments, self.stopped = engine, moments, threading.Event()

    def run(self) -> None:
        begun = time.monotonic()
        for moment in self._moments:
            if self.stopped.wait(max(0.0, begun + moment - time.monotonic())):
                return
            for pid in self._engine.pids[:1]:
                os.kill(pid, signal.SIGKILL)
                self.killed += 1


def kill_workers(source: Path, out: Path, seed: int, *, kills: int) -> int:
    """Read with workers that are killed; return how many were."""
    rng = random.Random(seed)
    setup = make_setup(out)
    engine = ProcessEngine(perform, setup, workers=2)
    killer = _Killer(engine, sorted(rng.uniform(0.5, 8.0) for _ in range(kills)))

    def begin() -> ProcessEngine:
        killer.start()
        return engine

    outcome = read_archive(setup, lambda: list_recordings([str(source)]), begin)
    killer.stopped.set()
    killer.join()
    assert (outcome.read, outcome.incomplete, outcome.set_aside, outcome.failed) == (4, 1, 1, 0)
    return killer.killed


def kill_driver(source: Path, out: Path, seed: int) -> bool:
    """Kill the driver at a seeded moment and run the command again; return whether it was killed while it read."""
    moment_s = random.Random(seed).uniform(1.5, 8.0)
    with subprocess.Popen(command(source, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as driver:
        try:
            driver.wait(moment_s)
        except subprocess.TimeoutExpired:
            driver.kill()
    done = subprocess.run(command(source, out), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 3, done.stderr
    document = json.loads(done.stdout)
    assert document["states"] == {"read": 4, "incomplete": 1, "failed": 0, "set_aside": 1}
    return driver.returncode == -signal.SIGKILL


@pytest.mark.skipif(os.name == "nt", reason="the tests send POSIX signals")
def test_killed_workers_lose_nothing(source: Path, archive: Path, tmp_path: Path) -> None:
    assert kill_workers(source, tmp_path / "out", 1, kills=3) > 0
    check_nothing_lost(source, archive, tmp_path / "out")


@pytest.mark.skipif(os.name == "nt", reason="the tests send POSIX signals")
def test_a_killed_driver_loses_nothing(source: Path, archive: Path, tmp_path: Path) -> None:
    kill_driver(source, tmp_path / "out", 2)
    check_nothing_lost(source, archive, tmp_path / "out")


def check_nothing_lost(source: Path, archive: Path, out: Path) -> None:
    assert lost_and_double(out, source) == ([], [])
    keys = {row.recording: row.key for row in Manifest(archive).rows()}
    assert {row.recording: row.key for row in Manifest(out).rows()} == keys
    for key in filter(None, keys.values()):
        assert same_files(ResultStore(out).folder(key), ResultStore(archive).folder(key))


@pytest.mark.kills
@pytest.mark.parametrize("seed", range(10))
def test_ten_killed_workers(source: Path, archive: Path, tmp_path: Path, seed: int) -> None:
    kill_workers(source, tmp_path / "out", seed, kills=1)
    check_nothing_lost(source, archive, tmp_path / "out")


@pytest.mark.kills
@pytest.mark.parametrize("seed", range(10))
def test_ten_killed_drivers(source: Path, archive: Path, tmp_path: Path, seed: int) -> None:
    kill_driver(source, tmp_path / "out", seed)
    check_nothing_lost(source, archive, tmp_path / "out")
