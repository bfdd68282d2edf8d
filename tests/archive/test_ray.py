"""``archive read --ray``: the same results on Ray, whatever dies, and machines that differ get no work."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import damage
import pytest
from archive_samples import misbehave, perform_and_note, same_files, write_long

pytest.importorskip("pyarrow")
pytest.importorskip("ray")

from capsule_edge import runtime
from capsule_edge.archive.engines import ProcessEngine, RayEngine, TaskLimits
from capsule_edge.archive.manifest import Manifest
from capsule_edge.archive.reading import (
    DriverOptions,
    ReadSetup,
    ResultStore,
    check_worker,
    perform,
    read_archive,
    tool_hash,
)
from capsule_edge.archive.sources import list_recordings
from capsule_edge.runtime import Reader
from capsule_edge.runtime.errors import BackendError

TESTS = str(Path(__file__).parents[1])
pytestmark = pytest.mark.skipif(os.name == "nt", reason="Ray on Windows is in beta")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    long = write_long(folder / "long.mp4", times=12)
    damage.blank(long, folder / "damaged.mp4", 250)
    damage.encode(folder / "short.mp4", frames=40)
    return folder


def make_setup(out: Path, split_frames: int = 100) -> ReadSetup:
    with Reader.open("small", threads=1) as reader:
        return ReadSetup(
            out, "small", reader.model_sha256, reader.backend_name, {}, tool_hash(), split_frames
        )


@pytest.fixture(scope="module")
def archive(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources, read on processes."""
    out = tmp_path_factory.mktemp("archive") / "out"
    setup = make_setup(out)
    read_archive(
        setup, lambda: list_recordings([str(source)]), lambda: ProcessEngine(perform, setup, workers=2)
    )
    return out


def check_same(archive: Path, out: Path) -> None:
    """Assert that both archives have one row and one result for each recording, of the same bytes."""
    keys = {row.recording: row.key for row in Manifest(archive).rows()}
    found = [(row.recording, row.key) for row in Manifest(out).rows()]
    assert dict(found) == keys
    assert len(found) == len(keys) == len(list((out / "results").glob("*/*/study.json")))
    for key in filter(None, keys.values()):
        assert same_files(ResultStore(out).folder(key), ResultStore(archive).folder(key))


def test_ray_gives_the_results_of_processes(source: Path, archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["archive", "read", str(source), "--out", str(out), "--model", "small", "--split-frames", "100"]
    done = subprocess.run(
        [sys.executable, "-m", "capsule_edge.cli", *words, "--workers", "2", "--no-tables", "--ray"],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 3, done.stderr  # one is damaged
    check_same(archive, out)
    assert "2 read, 1 not whole" in done.stdout


def test_a_cluster_that_is_not_there_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="cannot be reached"):
        RayEngine(perform, None, address="127.0.0.1:1", workers=1)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch):
    """A cluster of this machine with one node of one core. Its workers find the modules of the tests."""
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([TESTS, *filter(None, [os.environ.get("PYTHONPATH")])]))
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield made
    ray.shutdown()
    made.shutdown()


def read(setup: ReadSetup, source: Path, address: str, *, work=perform, begun=lambda _: None, **limits):
    def open_engine() -> RayEngine:
        engine = RayEngine(
            work,
            setup,
            address=address,
            limits=TaskLimits(**limits),
            check=check_worker,
            notes=setup.out / "work" / "ended",
        )
        begun(engine)
        return engine

    return read_archive(
        setup, lambda: list_recordings([str(source)]), open_engine, options=DriverOptions(tries=2)
    )


class _Killer(threading.Thread):
    """Kill something at a seeded moment of the reading: when some parts of recordings are read, and a bit later.

    Args:
        out: folder of the archive.
        seed: chooses the moment.
        kill: kills, and returns whether there was something to kill. It is called until there is.
    """

    def __init__(self, out: Path, seed: int, kill: Callable[[], bool]) -> None:
        super().__init__(daemon=True)
        chance = random.Random(seed)
        self._out, self._kill = out, kill
        self._parts, self._later_s = chance.randrange(5), chance.uniform(0.0, 0.5)
        self.killed, self.stopped = False, threading.Event()

    def run(self) -> None:
        seen: set[Path] = set()
        while len(seen) < self._parts and not self.stopped.wait(0.02):
            seen.update(self._out.glob("work/*/*-*.npz"))
        self.stopped.wait(self._later_s)
        while not self.killed and not self.stopped.wait(0.02):
            self.killed = self._kill()


def kill_a_worker(seed: int) -> bool:
    """Kill a worker of this machine that works. Return whether there was one."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        workers = [
            each for each in psutil.Process().children(recursive=True) if each.name().startswith("ray::_run")
        ]
        if workers:
            random.Random(seed).choice(workers).kill()
            return True
    return False


def read_with(killer: _Killer, setup: ReadSetup, source: Path, archive: Path, address: str) -> None:
    """Read while something is killed, and assert that nothing is lost and nothing is there twice."""
    outcome = read(setup, source, address, begun=lambda _: killer.start())
    killer.stopped.set()
    killer.join()
    assert killer.killed
    assert (outcome.read, outcome.incomplete) == (2, 1)
    check_same(archive, setup.out)


@pytest.mark.kills
@pytest.mark.parametrize("seed", range(10))
def test_a_killed_worker_of_ray(source: Path, archive: Path, tmp_path: Path, cluster, seed: int) -> None:
    cluster.add_node(num_cpus=1)
    setup = make_setup(tmp_path / "out")
    killer = _Killer(setup.out, seed, lambda: kill_a_worker(seed))
    read_with(killer, setup, source, archive, cluster.address)


@pytest.mark.kills
@pytest.mark.parametrize("seed", range(10))
def test_a_killed_raylet(source: Path, archive: Path, tmp_path: Path, cluster, seed: int) -> None:
    raylet = cluster.add_node(num_cpus=1).all_processes["raylet"][0].process

    def kill() -> bool:
        raylet.kill()
        return True

    setup = make_setup(tmp_path / "out")
    read_with(_Killer(setup.out, seed, kill), setup, source, archive, cluster.address)


@pytest.mark.kills
def test_poison_on_ray_is_set_aside_with_its_cause(source: Path, tmp_path: Path, cluster) -> None:
    cluster.add_node(num_cpus=1)
    mine = tmp_path / "in"
    mine.mkdir()
    for name in ("crash", "memory", "hang", "good"):
        shutil.copy(source / "short.mp4", mine / f"{name}.mp4")
    setup = make_setup(tmp_path / "out")
    # Notes of a driver that was killed are on tasks of its own.
    stale = setup.out / "work" / "ended"
    stale.mkdir(parents=True)
    for number in range(50):
        (stale / f"{number}.txt").write_text("time", "ascii")
    outcome = read(setup, mine, cluster.address, work=misbehave, memory_bytes=700 << 20, seconds=30.0)
    assert outcome.read == 1
    causes = {Path(row.recording).stem: row.cause for row in Manifest(setup.out).rows()}
    # Ray does not tell a crash from a kill.
    assert causes == {"crash": "killed", "memory": "memory", "hang": "time", "good": ""}


def copy_packages(folder: Path) -> Path:
    """Copy the packages that read, as another machine has them, and return the copy of ``runtime``."""
    for place in map(Path, runtime.__path__):
        for package in ("runtime", "archive", "evaluation"):
            shutil.copytree(
                place.parent / package,
                folder / "capsule_edge" / package,
                ignore=shutil.ignore_patterns("__pycache__"),
            )
    return folder / "capsule_edge" / "runtime"


def make_other_machines(folder: Path) -> dict[str, Path]:
    """Make folders that come first in the path of a machine: it differs in its tool, its model or a library."""
    tool = copy_packages(folder / "tool")
    with (tool / "cores.py").open("a", encoding="utf-8") as file:
        file.write("# another version\n")
    models = copy_packages(folder / "model") / "models"
    small = models / "capsule-edge-small.int8.onnx"
    before = hashlib.sha256(small.read_bytes()).hexdigest()
    with small.open("ab") as file:
        file.write(b"\xc0\x3e\x00")  # a field that ONNX does not know: another file with the same answers
    after = hashlib.sha256(small.read_bytes()).hexdigest()
    for path in (models / "SHA256SUMS", models / "golden.json"):
        path.write_text(path.read_text("utf-8").replace(before, after), "utf-8")
    library = folder / "library" / "onnxruntime-0.0.1.dist-info"
    library.mkdir(parents=True)
    (library / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime\nVersion: 0.0.1\n", "utf-8")
    return {name: folder / name for name in ("tool", "model", "library")}


@pytest.mark.kills
def test_machines_that_differ_are_refused_by_name_before_any_work(
    source: Path, archive: Path, tmp_path: Path, cluster
) -> None:
    (head,) = {node.node_id for node in cluster.list_all_nodes()}
    for folder in make_other_machines(tmp_path / "others").values():
        path = os.pathsep.join([str(folder), os.environ["PYTHONPATH"]])
        cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": path})
    setup = make_setup(tmp_path / "out")
    at_start = []

    def note(engine: RayEngine) -> None:
        at_start.extend(each.message for each in engine.refusals)

    outcome = read(setup, source, cluster.address, work=perform_and_note, begun=note)
    assert [each.message for each in outcome.refusals] == at_start
    tool, model, library = sorted(at_start)
    assert tool.startswith("the code of capsule-edge has the hash")
    assert tool_hash()[:12] in tool
    assert model.startswith("the model small has the hash")
    assert setup.model_sha256[:12] in model
    assert "onnxruntime 0.0.1 (driver: " in library
    # Whatever is read, is read by the first machine.
    assert {path.name for path in (setup.out / "nodes").iterdir()} == {head}
    assert (outcome.read, outcome.incomplete) == (2, 1)
    check_same(archive, setup.out)


@pytest.mark.kills
def test_without_a_machine_that_may_read_nothing_is_read(source: Path, tmp_path: Path, cluster) -> None:
    setup = replace(make_setup(tmp_path / "out"), tool="0" * 64)
    with pytest.raises(
        BackendError, match=r"no machine .*the code of capsule-edge has the hash .* 000000000000"
    ):
        read(setup, source, cluster.address, work=perform_and_note)
    assert not (setup.out / "nodes").exists()
    assert list(Manifest(setup.out).rows()) == []


@pytest.mark.kills
@pytest.mark.parametrize("seed", range(4))
def test_a_driver_of_ray_that_is_killed(source: Path, archive: Path, tmp_path: Path, seed: int) -> None:
    out = tmp_path / "out"
    words = ["archive", "read", str(source), "--out", str(out), "--model", "small", "--split-frames", "100"]
    command = [sys.executable, "-m", "capsule_edge.cli", *words, "--workers", "2", "--no-tables", "--ray"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as driver:

        def kill() -> bool:
            begun = (out / "lease.json").exists()
            if begun:
                driver.kill()
            return begun

        killer = _Killer(out, seed, kill)
        killer.start()
        driver.wait(timeout=300)
        killer.stopped.set()
    assert driver.returncode == -signal.SIGKILL
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 3, done.stderr
    check_same(archive, out)
