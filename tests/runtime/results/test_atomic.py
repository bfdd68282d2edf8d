"""Files are whole or absent, whatever fails and whenever the process dies; and one run at a time holds a folder."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from capsule_edge.runtime.errors import OutputError
from capsule_edge.runtime.results import atomic, commit_files, whole_file, write_whole
from capsule_edge.runtime.results.atomic import clear_abandoned, clear_leftovers
from capsule_edge.runtime.results.lock import LOCK, lock_folder

NAMES = ("frames.csv", "report.html", "study.json")
# Moves of a commit: the sign aside, each other file aside and in, the sign in.
MOVES = 2 * len(NAMES)


def contents(run: str) -> dict[str, bytes]:
    return {name: f"{name} of the {run} run\n".encode() for name in NAMES}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write(folder: Path, run: str) -> dict[str, Path]:
    return commit_files(folder, contents(run), sign="study.json")


@pytest.mark.quick
def test_commit_files_writes_all_files_and_leaves_no_other(tmp_path: Path) -> None:
    for run in ("first", "second"):
        paths = write(tmp_path, run)
        assert files(tmp_path) == contents(run) == {path.name: path.read_bytes() for path in paths.values()}


def replace_until(count: int, error: BaseException):
    """Return an ``os.replace`` whose call number ``count`` raises ``error``; the other calls work."""
    true, calls = os.replace, iter(range(99))

    def replace(source: object, target: object) -> None:
        if next(calls) == count:
            raise error
        true(source, target)  # type: ignore[arg-type]

    return replace


@pytest.mark.quick
@pytest.mark.parametrize("earlier", [True, False])
@pytest.mark.parametrize("at", range(MOVES))
@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "In use"), KeyboardInterrupt()])
def test_a_failed_move_undoes_the_moves_before_it(
    at: int, earlier: bool, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if earlier:
        write(tmp_path, "first")
    before = files(tmp_path)
    monkeypatch.setattr(atomic.os, "replace", replace_until(at, error))
    with pytest.raises(OutputError if isinstance(error, OSError) else KeyboardInterrupt):
        write(tmp_path, "second")
    assert files(tmp_path) == before


@pytest.mark.quick
def test_whole_file_replaces_the_earlier_file_and_leaves_no_other(tmp_path: Path) -> None:
    target = tmp_path / "Köhler 検査.mp4"
    for data in (b"first", b"second"):
        with whole_file(target) as temporary:
            assert (temporary.parent, temporary.suffix) == (tmp_path, ".mp4")
            temporary.write_bytes(data)
            assert target.exists() == (data == b"second")  # the earlier file stays until the new one is whole
        assert files(tmp_path) == {target.name: data}
    assert write_whole(str(target), b"third") == target
    assert files(tmp_path) == {target.name: b"third"}


@pytest.mark.quick
@pytest.mark.parametrize("earlier", [True, False])
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left"), ValueError("x"), KeyboardInterrupt()]
)
def test_whole_file_keeps_the_earlier_file_when_the_block_fails(
    earlier: bool, error: BaseException, tmp_path: Path
) -> None:
    target = tmp_path / "a.json"
    if earlier:
        target.write_bytes(b"first")
    before = files(tmp_path)

    def fail() -> None:
        with whole_file(target) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(OutputError if isinstance(error, OSError) else type(error)) as caught:
        fail()
    assert files(tmp_path) == before
    if isinstance(error, OSError):
        assert caught.value.message == f"{target} cannot be written: no space left"


@pytest.mark.quick
def test_only_temporary_files_that_nobody_writes_any_more_are_cleared(tmp_path: Path) -> None:
    kept = [
        tmp_path / name
        for name in ("weights.npz", ".weights.0123456789ab.tmp.npz", ".other.0123456789ab.tmp.npz")
    ]
    abandoned = tmp_path / ".weights.abababababab.tmp.npz"
    for path in (*kept, abandoned):
        path.write_bytes(b"part")
    hour_ago = time.time() - 3600
    for path in (kept[0], kept[2], abandoned):
        os.utime(path, (hour_ago, hour_ago))
    clear_abandoned(tmp_path / "weights.npz")
    assert sorted(tmp_path.iterdir()) == sorted(kept)
    clear_abandoned(tmp_path / "no" / "such" / "folder.npz")


def test_write_whole_reports_what_is_in_the_way_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"kept")
    (tmp_path / "folder").mkdir()
    for target in (
        tmp_path / "folder",
        tmp_path / "file" / "a",
        tmp_path / "absent" / "a",
        tmp_path / ("x" * 300),
    ):
        with pytest.raises(OutputError, match="cannot be written") as caught:
            write_whole(target, b"new", hint="choose another --plot")
        assert "\n" not in str(caught.value)
        assert caught.value.hint == "choose another --plot"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_bytes() == b"kept"


@pytest.mark.quick
def test_write_whole_keeps_the_earlier_file_when_the_move_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_whole(tmp_path / "a", b"first")
    monkeypatch.setattr(atomic.os, "replace", replace_until(0, PermissionError(errno.EACCES, "In use")))
    with pytest.raises(OutputError, match="in use"):
        write_whole(tmp_path / "a", b"second")
    assert files(tmp_path) == {"a": b"first"}


DIE = """
import os, signal, sys
from pathlib import Path
from capsule_edge.runtime.results.atomic import commit_files
from capsule_edge.runtime.results.lock import lock_folder
folder, at, names = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
true, calls = os.replace, iter(range(99))
def replace(source, target):
    if next(calls) == at:
        os.kill(os.getpid(), signal.SIGKILL)
    true(source, target)
os.replace = replace
with lock_folder(folder):
    commit_files(folder, {name: f"{name} of the second run\\n".encode() for name in names}, sign="study.json")
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a signal that cannot be caught")
@pytest.mark.parametrize("at", range(MOVES + 1))
def test_after_a_kill_between_two_moves_study_json_is_never_beside_files_of_another_run(
    at: int, tmp_path: Path
) -> None:
    write(tmp_path, "first")
    died = subprocess.run([sys.executable, "-c", DIE, str(tmp_path), str(at), *NAMES], timeout=60)
    assert died.returncode == (-signal.SIGKILL if at < MOVES else 0)
    left = {name: data for name, data in files(tmp_path).items() if not name.startswith(".")}
    if "study.json" in left:
        assert left == contents("first") or left == contents("second")
        assert at in (0, MOVES)
    # A dead process holds no lock, and the next run cleans up.
    with lock_folder(tmp_path):
        clear_leftovers(tmp_path, NAMES)
        write(tmp_path, "third")
    assert files(tmp_path) == contents("third")


HOLD = """
import sys
from capsule_edge.runtime.results.lock import lock_folder
with lock_folder(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_cannot_lock_the_folder_until_the_first_has_died(tmp_path: Path) -> None:
    folder = tmp_path / "Köhler 検査"
    folder.mkdir()
    first = hold(folder)
    try:
        with pytest.raises(OutputError, match=r"another run is writing to .*検査"), lock_folder(folder):
            pass
    finally:
        first.kill()
        first.communicate()
    with lock_folder(folder):
        pass
    assert list(folder.iterdir()) == []


@pytest.mark.quick
def test_one_process_cannot_lock_a_folder_twice(tmp_path: Path) -> None:
    with lock_folder(tmp_path):
        with pytest.raises(OutputError, match="another run"), lock_folder(tmp_path):
            pass
        assert (tmp_path / LOCK).exists()
    assert not (tmp_path / LOCK).exists()


def test_of_many_threads_one_at_a_time_holds_the_lock(tmp_path: Path) -> None:
    """Each run removes the lock's file, so another run may open a file that is removed before it is locked."""
    holding, most, taken = 0, 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal holding, most, taken
        for _ in range(200):
            try:
                with lock_folder(tmp_path):
                    with guard:
                        holding, taken = holding + 1, taken + 1
                        most = max(most, holding)
                    with guard:
                        holding -= 1
            except OutputError:
                continue

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert taken > 0


@pytest.mark.quick
def test_an_impossible_lock_is_an_error_in_one_line(tmp_path: Path) -> None:
    (tmp_path / LOCK).mkdir()
    with pytest.raises(OutputError, match="cannot be locked") as caught, lock_folder(tmp_path):
        pass
    assert "\n" not in str(caught.value)
