"""Presigned addresses: the token opens the recording, names nothing and is recorded nowhere."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import damage
import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("aiohttp")

from capsule_edge.archive.manifest import Manifest
from capsule_edge.archive.sources import (
    Recording,
    UnreachableError,
    fetch_recording,
    hide_tokens,
    list_recordings,
    public_address,
)
from capsule_edge.archive.tables import run_query

SIGNED = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=KEY%2F20261201&X-Amz-Expires=900&X-Amz-Signature="


class Store:
    """A server that hands a recording over to whoever has the token of the day; HEAD is refused, as S3 does."""

    def __init__(self, recordings: dict[str, bytes]) -> None:
        self.token, self.asked = "first-secret", 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.send_error(403)

            def do_GET(self) -> None:
                outer.asked += 1
                address = urlsplit(self.path)
                data = recordings.get(address.path)
                if data is None or parse_qs(address.query).get("X-Amz-Signature") != [outer.token]:
                    self.send_error(403)
                    return
                part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
                first, last = (int(part[1]), int(part[2] or len(data) - 1)) if part else (0, len(data) - 1)
                last = min(last, len(data) - 1)
                self.send_response(206 if part else 200)
                if part:
                    self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
                self.send_header("Accept-Ranges", "bytes")
                self.send_header("Content-Length", str(last - first + 1))
                self.end_headers()
                self.wfile.write(data[first : last + 1])

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.root = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def address(self, path: str) -> str:
        return f"{self.root}{path}?{SIGNED}{self.token}"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    names = {"/2026/a.mp4": 40, "/2026/b.mp4": 30}
    recordings = {}
    for name, frames in names.items():
        path = tmp_path / Path(name).name
        damage.encode(path, frames=frames)
        recordings[name] = path.read_bytes()
    made = Store(recordings)
    yield made
    made.server.shutdown()
    made.server.server_close()


def shown(out: Path) -> str:
    """Return the rows, the tables and the text of all other files of an archive."""
    texts = [str(row) for row in Manifest(out).rows()]
    texts += [str(run_query(str(out), f"SELECT * FROM {name}").rows) for name in ("recordings", "sources")]
    for path in out.rglob("*"):
        texts += [str(path), "" if path.is_dir() else path.read_bytes().decode("latin-1")]
    return "\n".join(texts)


def test_a_token_is_recorded_nowhere_and_a_new_one_is_no_new_recording(
    store: Store, tmp_path: Path, call
) -> None:
    out, path = tmp_path / "out", tmp_path / "list.csv"

    def read(*more: str):
        path.write_text(f"path,site\n{store.address('/2026/a.mp4')},Köln\n", "utf-8")
        return call("archive", "read", path, store.address("/2026/b.mp4"), "--out", out,
                    "--model", "small", "--workers", "1", "--tries", "1", *more)  # fmt: skip

    first = read("--json")
    assert (first.code, first.json["states"]["read"]) == (0, 2)
    names = {f"{store.root}/2026/a.mp4", f"{store.root}/2026/b.mp4"}
    assert {row.recording for row in Manifest(out).rows()} == names
    assert sorted(run_query(str(out), "SELECT name FROM sources").rows) == [("a.mp4",), ("b.mp4",)]
    before, store.token = list(Manifest(out).rows()), "second-secret"
    second = read("--json")
    assert (second.json["unchanged"], second.json["frames"]) == (2, 0)
    assert list(Manifest(out).rows()) == before
    said = [first.out, first.err, second.out, second.err, shown(out)]
    assert not [text for text in said if "secret" in text or "KEY" in text or "X-Amz" in text]


def test_an_expired_token_is_named_without_it(store: Store, tmp_path: Path, call) -> None:
    out, path = tmp_path / "out", tmp_path / "list.csv"
    path.write_text(f"path\n{store.address('/2026/a.mp4')}\n", "utf-8")
    store.token = "another"
    done = call("archive", "read", path, "--out", out, "--model", "small", "--workers", "1", "--tries", "1")
    assert done.code == 3
    (row,) = Manifest(out).rows()
    assert (row.recording, row.state, row.cause) == (f"{store.root}/2026/a.mp4", "failed", "unreachable")
    assert f"{row.recording} cannot be reached" in row.message
    assert "secret" not in done.out + done.err + shown(out)
    with pytest.raises(UnreachableError) as refused:
        fetch_recording(store.root + f"/2026/a.mp4?{SIGNED}first-secret", tmp_path / "work")
    assert "secret" not in str(refused.value)


def test_a_presigned_source_is_listed_without_a_download(store: Store) -> None:
    (found,) = list_recordings([store.address("/2026/a.mp4")])
    assert (found.location, found.source) == (f"{store.root}/2026/a.mp4",) * 2
    assert found.opened == store.address("/2026/a.mp4")
    assert "secret" not in repr(found)
    assert store.asked == 1


@pytest.mark.parametrize(
    ("address", "public"),
    [
        (f"https://h/a.mp4?{SIGNED}x&versionId=7", "https://h/a.mp4?versionId=7"),
        ("https://h/a.mp4?Expires=1&Signature=x%2B&Key-Pair-Id=K&Policy=p", "https://h/a.mp4"),
        ("https://h/a.mp4?GoogleAccessId=g&Expires=1&Signature=x", "https://h/a.mp4"),
        ("https://h/a.mp4?sv=2024&se=2026&sr=b&sp=r&sig=x%3D", "https://h/a.mp4"),
        ("https://h/get?id=7&access_token=x", "https://h/get?id=7"),
        ("https://h/get?token=x&id=7", "https://h/get?id=7"),
        ("simplecache::https://h/a.mp4?api-key=x", "simplecache::https://h/a.mp4"),
        # Nothing in these gives access.
        ("https://h/get?id=7&expires=never&se=1", "https://h/get?id=7&expires=never&se=1"),
        ("s3://bucket/what?.mp4", "s3://bucket/what?.mp4"),
        ("/folder/a?token=x.mp4", "/folder/a?token=x.mp4"),
    ],
)
def test_the_name_of_an_address_lacks_its_tokens(address: str, public: str) -> None:
    assert public_address(address) == public
    recording = Recording(address)
    assert (recording.location, recording.opened) == (public, address)
    assert recording == Recording(public)


def test_messages_lose_tokens_and_keep_the_rest() -> None:
    text = "403, url='https://h/a.mp4?id=7&X-Amz-Signature=abc&sig=d%3D' (token expired)"
    assert hide_tokens(text) == "403, url='https://h/a.mp4?id=7&X-Amz-Signature=***&sig=***' (token expired)"
