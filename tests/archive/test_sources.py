"""Sources of recordings: folders, patterns, lists with wrong rows, addresses."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import threading
from pathlib import Path

import pytest

from capsule_edge.archive.sources import Recording, fetch_recording, list_recordings, listing, look_at
from capsule_edge.archive.sources.addresses import has_password
from capsule_edge.runtime.errors import InputError, PackageError, UsageError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def locations(*sources: object, **options) -> list[str]:
    return [each.location for each in list_recordings([str(each) for each in sources], **options)]


def test_a_folder_is_searched_with_its_subfolders(tmp_path: Path) -> None:
    a, b, series = tmp_path / "a.mp4", tmp_path / "2026" / "ü b.MKV", tmp_path / "pictures"
    touch(a, b, series / "1.png", series / "2.png", tmp_path / "notes.txt", tmp_path / ".hidden.mp4")
    touch(tmp_path / "c.capsule-edge" / "c.mp4", tmp_path / "out" / "results" / "d.mp4")
    found = locations(tmp_path, leave_out=tmp_path / "out")
    assert sorted(found) == sorted(map(str, (a, b, series)))


def test_a_pattern_and_a_file(tmp_path: Path) -> None:
    touch(tmp_path / "x" / "a.mp4", tmp_path / "y" / "b.mp4", tmp_path / "z.bin")
    assert [Path(each).name for each in locations(tmp_path / "*" / "*.mp4", tmp_path / "z.bin")] == [
        *("a.mp4", "b.mp4", "z.bin"),
    ]
    with pytest.raises(InputError, match="no file fits"):
        locations(tmp_path / "*.avi")
    with pytest.raises(InputError, match="is not there"):
        locations(tmp_path / "absent.mp4")


def test_a_file_has_one_name_however_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "rec" / "a.mp4", tmp_path / "rec" / "deep" / "b.mp4", tmp_path / "rec" / "out" / "c.mp4")
    (tmp_path / "list.csv").write_text("path\nrec/deep/../a.mp4\n", "utf-8")
    (tmp_path / "rec" / "list.csv").write_text("path,site\n../rec/a.mp4,Bonn\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    found = list_recordings(
        ["rec", "rec/../rec", "rec/deep/..", "./rec/*/../a.mp4", "list.csv", "rec/list.csv"],
        leave_out=Path("rec/deep/../out"),
    )
    assert sorted(each.location for each in found) == sorted(
        map(str, (tmp_path / "rec" / "a.mp4", tmp_path / "rec" / "deep" / "b.mp4"))
    )
    assert {each.site for each in found} == {"Bonn", None}
    assert {each.source for each in list_recordings(["rec/../rec"])} == {str(tmp_path / "rec")}


@pytest.mark.skipif(os.name == "nt", reason="Windows lets few users make links")
def test_a_way_through_a_link_and_back_is_that_of_the_system(tmp_path: Path) -> None:
    """The parent of a linked folder is the parent of its target."""
    touch(tmp_path / "disk" / "2026" / "a.mp4", tmp_path / "disk" / "b.mp4", tmp_path / "in" / "c.mp4")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "disk" / "2026")
    assert locations(tmp_path / "in" / "link" / ".." / "b.mp4") == [str(tmp_path / "disk" / "b.mp4")]
    # A link that is named keeps its name, so results of earlier runs are found.
    assert locations(tmp_path / "in" / "link") == [str(tmp_path / "in" / "link" / "a.mp4")]
    # The archive's own folder is left out under whatever name it has.
    assert locations(tmp_path / "disk", leave_out=tmp_path / "in" / "link") == [
        str(tmp_path / "disk" / "b.mp4")
    ]


LIST = """path,site,capsule_type,patient,date
a.mp4,Köln,PillCam,p1,2026-11-30
,Köln,,,
b.mp4,,,,30.11.2026
a.mp4,Bonn,,,
c.mp4,,,,
d.mp4,Bonn,,,2026-02-30
e.mp4,Bonn,,,2026-02
f.mp4,Bonn,,,,,,
"""


def test_half_a_list_is_wrong_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("\ufeff" + LIST, "utf-8")
    found = list_recordings([str(path)])
    good = [each for each in found if not each.fault]
    assert good == [
        Recording(str(tmp_path / "a.mp4"), "Köln", "PillCam", "p1", "2026-11-30"),
        Recording(str(tmp_path / "c.mp4")),
        Recording(str(tmp_path / "e.mp4"), "Bonn", date="2026-02"),
    ]
    faults = [each.fault for each in found if each.fault]
    assert len(faults) == 5
    for fault, row in zip(faults, (2, 3, 4, 6, 8), strict=True):
        assert f"list.csv, row {row}: " in fault
    assert "'30.11.2026'" in faults[1]
    assert "row 1" in faults[2]


def test_a_list_adds_its_facts_to_a_folder(tmp_path: Path) -> None:
    touch(tmp_path / "in" / "a.mp4")
    path = tmp_path / "list.csv"
    path.write_text("path,site\nin/a.mp4,Köln\n", "utf-8")
    (found,) = list_recordings([str(tmp_path / "in"), str(path)])
    assert found.site == "Köln"
    other = tmp_path / "other.csv"
    other.write_text("path,site\nin/a.mp4,Bonn\n", "utf-8")
    kept, refused = list_recordings([str(path), str(other)])
    assert kept.site == "Köln"
    assert "listed twice" in refused.fault


def test_a_parquet_list(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    from datetime import date

    rows = {"path": ["/x/a.mp4", None], "date": [date(2026, 1, 2), None], "site": [None, "B"], "more": [1, 2]}
    parquet.write_table(arrow.table(rows), tmp_path / "list.parquet")
    good, wrong = list_recordings([str(tmp_path / "list.parquet")])
    assert good == Recording("/x/a.mp4", date="2026-01-02")
    assert "has no path" in wrong.fault


@pytest.mark.parametrize("text", ["", "file,site\na,b\n", b"path\n\xff\xfe\x00", b"\x00" * 20])
def test_a_list_that_is_none_is_refused(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=r"list\.csv"):
        list_recordings([str(path)])


def test_addresses(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    for name in ("a.mp4", "deep/b.mkv", "notes.txt"):
        store.pipe(f"/exams/{name}", name.encode())
    assert locations("memory://exams") == ["memory:///exams/a.mp4", "memory:///exams/deep/b.mkv"]
    assert locations("memory://exams/*.mp4") == ["memory:///exams/a.mp4"]
    copy = fetch_recording("memory://exams/deep/b.mkv", tmp_path / "work")
    assert (copy.name, copy.read_bytes()) == ("b.mkv", b"deep/b.mkv")
    before = look_at("memory://exams/a.mp4")
    assert before.bytes == 5
    store.pipe("/exams/a.mp4", b"longer now")
    assert look_at("memory://exams/a.mp4") != before
    with pytest.raises(InputError, match="cannot be reached"):
        locations("memory://exams/absent.mp4")


@pytest.fixture
def hosted():
    """A store that keeps the host apart from the path, as those of FTP, SFTP and SMB do."""
    fsspec = pytest.importorskip("fsspec")
    from fsspec.implementations.memory import MemoryFileSystem
    from fsspec.utils import infer_storage_options

    class Hosted(MemoryFileSystem):
        protocol = "hosted"
        store, pseudo_dirs, cachable = {}, [""], False

        def __init__(self, host="", **options):
            assert host == "server", "the address has lost its host"
            super().__init__(**options)

        @classmethod
        def _strip_protocol(cls, path):
            path = infer_storage_options(path)["path"] if "://" in path else path
            return "/" + path.strip("/") if path.strip("/") else ""

        @staticmethod
        def _get_kwargs_from_urls(path):
            return {name: value for name, value in infer_storage_options(path).items() if name == "host"}

    fsspec.register_implementation("hosted", Hosted, clobber=True)
    return Hosted(host="server")


@pytest.mark.parametrize("source", ["", "/", "/in", "/in/", "/in/*/*.mp4", "/in/**"])
def test_recordings_of_a_host_keep_it_in_their_address(hosted, source: str, tmp_path: Path) -> None:
    hosted.pipe("/in/deep/a.mp4", b"four")
    for login in ("", "name@"):
        (found,) = locations(f"hosted://{login}server{source}")
        assert found == f"hosted://{login}server/in/deep/a.mp4"
        assert look_at(found).bytes == 4
        assert fetch_recording(found, tmp_path / "work").read_bytes() == b"four"


def test_a_password_in_an_address_is_refused_and_never_shown(tmp_path: Path, hosted) -> None:
    for address in (
        "hosted://me:secret@server/in",
        "simplecache::sftp://me:sec/ret@server/in",
        "ftp://:secret@h/a",
    ):
        with pytest.raises(UsageError, match=r"\*\*\*@.* holds a password") as refused:
            list_recordings([address])
        assert "sec" not in str(refused.value)
        assert "_PASSWORD" in str(refused.value)
        with pytest.raises(UsageError, match="holds a password"):
            look_at(address)
    path = tmp_path / "list.csv"
    path.write_text(
        "path,date\nsftp://me:secret@server/a.mp4,\nsftp://me:secret@server/b.mp4,soon\n", "utf-8"
    )
    found = list_recordings([str(path)])
    assert [bool(each.fault) for each in found] == [True, True]
    assert "secret" not in str(found)
    for good in (
        "http://host:8080/a@b.mp4",
        "sftp://me@host/a.mp4",
        "github://org:repo@main/a.mp4",
        "/a:b@c/d.mp4",
    ):
        assert not has_password(good)


def test_a_folder_that_cannot_be_listed_is_named_and_the_rest_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(
        tmp_path / "a" / "a.mp4", tmp_path / "b" / "b.mp4", tmp_path / "c" / "c.mp4", tmp_path / "d" / "d.mp4"
    )
    real, real_is_dir = listing.list_folder, Path.is_dir

    def fail(folder: Path):
        if folder.name == "b":
            raise InputError("b cannot be opened: permission denied")
        if folder.name == "c":
            shutil.rmtree(folder)  # it vanishes after its parent was listed
        return real(folder)

    def is_dir(self: Path) -> bool:
        if self.name == "inner":
            raise OSError(errno.ESTALE, "Stale file handle")
        return real_is_dir(self)

    monkeypatch.setattr(listing, "list_folder", fail)
    (tmp_path / "d" / "inner").mkdir()
    monkeypatch.setattr(Path, "is_dir", is_dir)
    found = list_recordings([str(tmp_path)])
    assert [each.location for each in found if not each.fault] == [str(tmp_path / "a" / "a.mp4")]
    faults = {Path(each.location).name: each for each in found if each.fault}
    assert set(faults) == {"b", "c", "d"}
    assert {each.cause for each in faults.values()} == {"source"}
    assert "permission denied" in faults["b"].fault
    assert "stale file handle" in faults["d"].fault


def test_a_source_that_gives_an_error_of_the_system_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "good" / "a.mp4", tmp_path / "bad" / "b.mp4")
    real = Path.exists

    def exists(self: Path) -> bool:
        if self.name == "bad":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(self)

    monkeypatch.setattr(Path, "exists", exists)
    good, bad = list_recordings([str(tmp_path / "good"), str(tmp_path / "bad")])
    assert good.location.endswith("a.mp4")
    assert (bad.location, bad.cause) == (str(tmp_path / "bad"), "source")
    assert "permission denied" in bad.fault


def test_pictures_are_never_left_out_in_silence(tmp_path: Path) -> None:
    """A series with a folder beside it is read. Pictures beside a recording get a warning."""
    touch(
        tmp_path / "series" / "1.png", tmp_path / "series" / "2.png", tmp_path / "series" / "logs" / "x.txt"
    )
    touch(
        tmp_path / "mixed" / "exam.mp4", tmp_path / "mixed" / "1.png", tmp_path / "mixed" / "deep" / "3.jpg"
    )
    found = list_recordings([str(tmp_path)])
    assert sorted(each.location for each in found if not each.fault) == sorted(
        map(str, (tmp_path / "series", tmp_path / "mixed" / "exam.mp4", tmp_path / "mixed" / "deep"))
    )
    (passed,) = [each for each in found if each.fault]
    assert (passed.location, passed.cause) == (str(tmp_path / "mixed"), "passed_over")
    assert "1 picture beside recordings" in passed.fault
    # A list can name the pictures as a recording.
    (tmp_path / "list.csv").write_text("path,site\nmixed,Bonn\n", "utf-8")
    listed = list_recordings([str(tmp_path / "mixed"), str(tmp_path / "list.csv")])
    assert Recording(str(tmp_path / "mixed"), "Bonn") in listed
    assert not [each for each in listed if each.fault]


@pytest.mark.parametrize(("scheme", "package"), [("gs", "gcsfs"), ("abfs", "adlfs")])
def test_an_address_that_needs_a_package_names_it(
    scheme: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Packages that no extra of ours installs: fsspec keeps those that a process has once loaded, as s3fs by test_s3.
    pytest.importorskip("fsspec")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(PackageError, match=f"pip install {package}"):
        locations(f"{scheme}://bucket/exams")


def test_without_fsspec_an_address_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(PackageError, match=r"capsule-edge\[archive\]"):
        locations("memory://exams")


def test_a_share_that_hangs_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "good" / "a.mp4", tmp_path / "hung" / "b.mp4")
    real, never = listing.list_folder, threading.Event()

    def hang(folder: Path):
        if folder.name == "hung":
            never.wait()
        return real(folder)

    monkeypatch.setattr(listing, "list_folder", hang)
    good, hung = list_recordings([str(tmp_path / "good"), str(tmp_path / "hung")], patience_s=0.5)
    never.set()
    assert good.location.endswith("a.mp4")
    assert "did not answer" in hung.fault


def test_a_changed_file_and_a_changed_series_are_seen(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4", tmp_path / "s" / "1.png")
    before = look_at(str(tmp_path / "a.mp4")), look_at(str(tmp_path / "s"))
    os.utime(tmp_path / "a.mp4", ns=(1, 1))
    touch(tmp_path / "s" / "2.png")
    assert look_at(str(tmp_path / "a.mp4")) != before[0]
    assert look_at(str(tmp_path / "s")) != before[1]
    with pytest.raises(InputError, match="cannot be opened"):
        look_at(str(tmp_path / "absent"))
