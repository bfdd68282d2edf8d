"""Recordings, a list and the tables in S3: against moto's server, which the test starts."""

from __future__ import annotations

from pathlib import Path

import damage
import pytest
from archive_samples import same_files, write_long

pytest.importorskip("pyarrow")
pytest.importorskip("moto.server")
pytest.importorskip("s3fs")

from capsule_edge.archive.engines import ProcessEngine
from capsule_edge.archive.manifest import Manifest
from capsule_edge.archive.reading import ReadSetup, ResultStore, perform, read_archive, tool_hash
from capsule_edge.archive.sources import list_recordings
from capsule_edge.archive.tables import run_query, update_tables, write_batch
from capsule_edge.runtime import Reader


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch):
    """An S3 server of this machine with a bucket; workers find it through the environment."""
    import s3fs
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    store = s3fs.S3FileSystem()
    # The server keeps its buckets as long as this process lives.
    store.makedirs("exams", exist_ok=True)
    yield store
    s3fs.S3FileSystem.clear_instance_cache()
    running.stop()


def read(out: Path, source: str):
    with Reader.open("small", threads=1) as reader:
        setup = ReadSetup(out, "small", reader.model_sha256, reader.backend_name, {}, tool_hash(), 100)
    return read_archive(
        setup, lambda: list_recordings([source]), lambda: ProcessEngine(perform, setup, workers=2)
    )


def test_recordings_in_s3_have_the_results_of_files(bucket, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_long(folder / "long.mp4", times=6)
    damage.encode(folder / "short.mp4", frames=40)
    bucket.put(str(folder / "long.mp4"), "exams/2026/long.mp4")
    bucket.put(str(folder / "short.mp4"), "exams/2026/short.mp4")
    remote, local = tmp_path / "remote", tmp_path / "local"
    assert read(remote, "s3://exams/2026").read == 2
    assert read(local, str(folder)).read == 2
    keys = {row.key for row in Manifest(local).rows()}
    assert {row.key for row in Manifest(remote).rows()} == keys
    for key in keys:
        assert same_files(ResultStore(remote).folder(key), ResultStore(local).folder(key))
    assert read(remote, "s3://exams/2026").unchanged == 2
    # A longer recording under one of the names.
    bucket.put(str(folder / "long.mp4"), "exams/2026/short.mp4")
    again = read(remote, "s3://exams/2026")
    assert (again.unchanged, again.read) == (1, 2)


def test_an_archive_in_s3_answers_questions(bucket, tmp_path: Path) -> None:
    damage.encode(tmp_path / "one.mp4", frames=40)
    out = tmp_path / "out"
    assert read(out, str(tmp_path / "one.mp4")).whole
    assert update_tables(out, lambda: ProcessEngine(write_batch, out, workers=1)) == []
    bucket.put(str(out), "exams/archive", recursive=True)
    assert run_query("s3://exams/archive", "SELECT count(*) FROM frames").rows == [(40,)]
