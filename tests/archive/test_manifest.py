"""The manifest: the newest row of each recording, files that never change, and one driver at a time."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")

from archive_samples import ROW

from capsule_edge.archive.manifest import Manifest, hold_lease
from capsule_edge.archive.manifest.segments import Segment, list_segments, publish, remove_leftovers
from capsule_edge.runtime.errors import InputError, OutputError


def begun(folder: Path) -> Manifest:
    manifest = Manifest(folder)
    manifest.begin()
    return manifest


def test_an_empty_manifest_has_no_rows(tmp_path: Path) -> None:
    assert list(Manifest(tmp_path).rows()) == []
    assert begun(tmp_path).summary().recordings == 0


def test_the_newest_row_of_a_recording_counts(tmp_path: Path) -> None:
    manifest = begun(tmp_path)
    failed = replace(
        ROW, state="failed", cause="changed", key=None, frames=None, seconds=None, suggestions=None
    )
    other = replace(ROW, recording="/b.mp4", site="Köln", key="8" * 64)
    manifest.append([failed, other])
    manifest.append([ROW])
    rows = {row.recording: row for row in Manifest(tmp_path).rows()}
    assert rows == {"/a.mp4": ROW, "/b.mp4": other}
    found = manifest.summary()
    assert (found.states, found.causes, found.frames, found.suggestions) == ({"read": 2}, {}, 120, 4)
    assert manifest.keys() == {ROW.key, other.key}


def test_many_files_are_merged_and_keep_every_row(tmp_path: Path) -> None:
    manifest = begun(tmp_path)
    for number in range(200):
        manifest.append([replace(ROW, recording=f"/{number % 150}.mp4", tries=number)])
    files = list_segments(manifest.folder)
    assert len(files) < 64
    assert [segment.last + 1 for segment in files[:-1]] == [segment.first for segment in files[1:]]
    assert len(list(manifest.folder.iterdir())) == len(files)
    tries = {row.recording: row.tries for row in manifest.rows()}
    assert tries == {f"/{number % 150}.mp4": number for number in range(200)}
    manifest.compact()
    assert [segment.name for segment in list_segments(manifest.folder)] == ["00000001-00000200.parquet"]
    assert {row.recording: row.tries for row in manifest.rows()} == tries
    again = begun(tmp_path)
    again.append([ROW])
    assert list_segments(manifest.folder)[-1] == Segment(201, 201)


def test_a_second_writer_of_a_number_is_refused(tmp_path: Path) -> None:
    first, second = begun(tmp_path), begun(tmp_path)
    first.append([ROW])
    with pytest.raises(OutputError, match="another driver writes"):
        second.append([replace(ROW, state="failed")])
    assert [row.state for row in first.rows()] == ["read"]


def test_what_a_killed_driver_left_is_ignored_and_removed(tmp_path: Path) -> None:
    manifest = begun(tmp_path)
    manifest.append([ROW])
    manifest.append([replace(ROW, recording="/b.mp4")])
    (manifest.folder / ".00000003.parquet.0123456789ab.tmp").write_bytes(b"half")
    # It died after a merged file was in place, before the files that it replaces were removed.
    kept = (manifest.folder / "00000001.parquet").read_bytes()
    manifest.compact()
    (manifest.folder / "00000001.parquet").write_bytes(kept)
    assert len(list(manifest.rows())) == 2
    again = begun(tmp_path)
    assert sorted(path.name for path in manifest.folder.iterdir()) == ["00000001-00000002.parquet"]
    again.append([replace(ROW, recording="/c.mp4")])
    assert len(list(again.rows())) == 3


def write_empty_segment(manifest: Manifest, name: str = "00000002.parquet") -> Path:
    """Leave what a driver leaves that dies between taking a name and filling the file."""
    path = manifest.folder / name
    path.write_bytes(b"")
    return path


@pytest.mark.parametrize("name", ["00000002.parquet", "00000001-00000002.parquet"])
def test_an_empty_file_is_ignored_and_removed(tmp_path: Path, name: str) -> None:
    manifest = begun(tmp_path)
    manifest.append([ROW])
    empty = write_empty_segment(manifest, name)
    assert list(Manifest(tmp_path).rows()) == [ROW]
    assert Manifest(tmp_path).summary().states == {"read": 1}
    again = begun(tmp_path)
    assert not empty.exists()
    again.append([replace(ROW, recording="/b.mp4")])
    again.compact()
    assert [row.recording for row in again.rows()] == ["/a.mp4", "/b.mp4"]


def without_hard_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)


@pytest.mark.skipif(os.name == "nt", reason="Windows needs no hard links")
def test_without_hard_links_a_name_is_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_hard_links(monkeypatch)
    first, second = begun(tmp_path), begun(tmp_path)
    first.append([ROW])
    with pytest.raises(OutputError, match="another driver writes"):
        second.append([replace(ROW, state="failed")])
    assert list(first.rows()) == [ROW]


@pytest.mark.skipif(os.name == "nt", reason="Windows needs no hard links")
def test_a_move_that_fails_leaves_no_empty_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_hard_links(monkeypatch)
    manifest = begun(tmp_path)

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", fail)
        with pytest.raises(OutputError, match="input/output error"):
            manifest.append([ROW])
    assert list(manifest.folder.iterdir()) == []
    manifest.append([ROW])
    assert list(manifest.rows()) == [ROW]


@pytest.mark.skipif(os.name == "nt", reason="Windows needs no hard links")
def test_a_staged_file_that_another_driver_removes_is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, link = begun(tmp_path), os.link

    def remove_first(source: Path, target: Path) -> None:
        remove_leftovers(manifest.folder)
        link(source, target)

    monkeypatch.setattr(os, "link", remove_first)
    with pytest.raises(OutputError, match="no such file"):
        manifest.append([ROW])
    assert list(manifest.folder.iterdir()) == []


def test_a_manifest_that_cannot_be_listed_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "manifest").write_bytes(b"a file in the place of the folder")
    with pytest.raises(InputError, match="cannot be listed"):
        Manifest(tmp_path).summary()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    manifest = begun(tmp_path)
    manifest.append([ROW])
    (manifest.folder / "00000001.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(InputError, match=r"00000001\.parquet cannot be read"):
        manifest.summary()


def test_a_full_disk_writes_no_row(tmp_path: Path) -> None:
    manifest = begun(tmp_path)
    manifest.append([ROW])
    with pytest.raises(OutputError, match="cannot be written"):
        publish(manifest.folder / "absent", Segment(2, 2), b"")
    assert len(list(manifest.rows())) == 1


def test_a_hundred_thousand_rows_need_few_files(tmp_path: Path) -> None:
    manifest = begun(tmp_path)
    for first in range(0, 100_000, 10_000):
        manifest.append(
            [
                replace(
                    ROW,
                    recording=f"/archive/{n}.mp4",
                    key=f"{n:064x}",
                    state="read" if n % 10 else "set_aside",
                )
                for n in range(first, first + 10_000)
            ]
        )
    found = manifest.summary()
    assert found.states == {"read": 90_000, "set_aside": 10_000}
    assert found.frames == 6_000_000
    # Each row is some 500 bytes as JSON; columns repeat little.
    assert sum(path.stat().st_size for path in manifest.folder.iterdir()) < 100_000 * 100


@pytest.mark.latency
def test_the_status_of_a_hundred_thousand_rows_takes_less_than_a_second(tmp_path: Path) -> None:
    test_a_hundred_thousand_rows_need_few_files(tmp_path)
    begun_s = time.perf_counter()
    Manifest(tmp_path).summary()
    assert time.perf_counter() - begun_s < 1.0


def test_a_second_driver_on_this_machine_is_refused(tmp_path: Path) -> None:
    with (
        hold_lease(tmp_path),
        pytest.raises(OutputError, match="another run is writing"),
        hold_lease(tmp_path),
    ):
        pass
    with hold_lease(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def lease_of_another(folder: Path, *, lasts_s: float) -> None:
    document = {"holder": "x", "host": "ws-2", "machine": "ws-2 boot", "until": time.time() + lasts_s}
    (folder / "lease.json").write_text(json.dumps(document), "utf-8")


def test_a_driver_on_another_machine_is_refused_until_its_lease_runs_out(tmp_path: Path) -> None:
    lease_of_another(tmp_path, lasts_s=50)
    with pytest.raises(OutputError, match="on ws-2"), hold_lease(tmp_path):
        pass
    assert (tmp_path / "lease.json").exists()
    lease_of_another(tmp_path, lasts_s=-1)
    with hold_lease(tmp_path):
        assert json.loads((tmp_path / "lease.json").read_text("utf-8"))["host"] == socket.gethostname()


def test_the_lease_of_a_dead_driver_of_this_machine_is_taken_over_at_once(tmp_path: Path) -> None:
    with hold_lease(tmp_path):
        left = (tmp_path / "lease.json").read_bytes()
    (tmp_path / "lease.json").write_bytes(left)
    with hold_lease(tmp_path):
        pass


def test_a_driver_whose_machine_slept_looks_at_its_lease(tmp_path: Path) -> None:
    """The monotonic clock stands still while a machine sleeps, so it says that the lease is fresh."""
    with hold_lease(tmp_path) as lease:
        lease_of_another(tmp_path, lasts_s=50)
        lease.renew()  # not due yet
        lease._renewed_at -= 3600
        with pytest.raises(OutputError, match="taken over"):
            lease.renew()
        with pytest.raises(OutputError, match="taken over"):
            lease.check()


def test_a_driver_whose_lease_was_taken_stops(tmp_path: Path) -> None:
    with hold_lease(tmp_path) as lease:
        lease._renewed = -1e9
        lease.renew()
        lease_of_another(tmp_path, lasts_s=50)
        lease.renew()  # not due yet
        lease._renewed = -1e9
        with pytest.raises(OutputError, match="taken over"):
            lease.renew()
    # It is not this driver's to remove.
    assert (tmp_path / "lease.json").exists()
