"""Workers that crash, grow, hang or are killed: the task fails with its cause, and the others go on."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from archive_samples import act

from capsule_edge.archive.engines import ProcessEngine, TaskLimits, WorkerFailure

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the tests send POSIX signals")
PATIENCE_S = 120


@pytest.fixture
def hasty():
    made = ProcessEngine(act, None, workers=1, limits=TaskLimits(seconds=1.0))
    yield made
    made.close()


@pytest.fixture
def engine():
    made = ProcessEngine(act, "setup", workers=2, limits=TaskLimits(memory_bytes=400 << 20, seconds=20.0))
    yield made
    made.close()


def run(engine: ProcessEngine, *tasks) -> list:
    """Return the results of tasks in order; at most ``slots`` at once."""
    found: dict[int, object] = {}
    begun = iter(enumerate(tasks))
    running = 0
    until = time.monotonic() + PATIENCE_S
    while len(found) < len(tasks) and time.monotonic() < until:
        while running < engine.slots and (task := next(begun, None)) is not None:
            engine.submit(*task)
            running += 1
        for number, result in engine.wait(1.0):
            found[number] = result
            running -= 1
    return [found[number] for number in range(len(tasks))]


def test_workers_serve_one_task_after_the_other(engine: ProcessEngine) -> None:
    results = run(engine, *(("value", number) for number in range(8)))
    assert [(setup, value) for setup, _, value in results] == [("setup", number) for number in range(8)]
    assert len({pid for _, pid, _ in results}) <= 2
    assert os.getpid() not in {pid for _, pid, _ in results}


@pytest.mark.parametrize(
    ("task", "cause", "word"),
    [
        (("kill", signal.SIGSEGV), "crashed", "SIGSEGV"),
        (("kill", signal.SIGKILL), "killed", "SIGKILL"),
        (("grow", 0), "memory", "400 MB"),
    ],
)
def test_a_task_that_ends_its_worker_fails_and_the_others_go_on(
    engine: ProcessEngine, task, cause, word
) -> None:
    first, failed, last = run(engine, ("value", 1), task, ("value", 2))
    assert (first[2], last[2]) == (1, 2)
    assert isinstance(failed, WorkerFailure)
    assert failed.cause == cause
    assert word in failed.message


def test_a_stopped_worker_is_ended_by_the_driver(
    engine: ProcessEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped process cannot end itself, as one that hangs in the kernel."""
    monkeypatch.setattr("capsule_edge.archive.engines.processes._GRACE_S", 0.2)
    monkeypatch.setattr("capsule_edge.archive.engines.processes._START_S", 10.0)
    (failed,) = run(engine, ("kill", signal.SIGSTOP))
    assert failed.cause == "time"


def test_closing_ends_workers_that_work(engine: ProcessEngine) -> None:
    run(engine, ("value", 1))
    engine.submit(5, ("sleep", 600))
    pids = engine.pids
    engine.close()
    assert pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs the process descriptors of Linux")
def test_workers_die_with_their_driver(tmp_path: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from archive_samples import act\n"
        "from capsule_edge.archive.engines import ProcessEngine\n"
        "if __name__ == '__main__':\n"
        "    engine = ProcessEngine(act, None, workers=1)\n"
        "    engine.submit(0, ('value', 1))\n"
        "    while not engine.wait(1.0): pass\n"
        "    engine.submit(1, ('sleep', 600))\n"
        "    print(*engine.pids, flush=True)\n"
        "    engine.wait(600)\n"
    )
    script = tmp_path / "program.py"
    script.write_text(program, "utf-8")
    tests = str(Path(__file__).parents[1])
    with subprocess.Popen([sys.executable, str(script), tests], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        pid = int(driver.stdout.readline())
        worker = os.pidfd_open(pid)
        driver.kill()
        driver.wait()
    # The file descriptor of a process can be read when the process has ended.
    assert select.select([worker], [], [], PATIENCE_S)[0], f"worker {pid} outlived its driver"
    os.close(worker)
