"""Programs of others that check, read, take and give back DICOM objects. A test skips where one is not installed."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

HOST = "127.0.0.1"
START_S = 30


def tool(name: str) -> str:
    """Return the path of a program; skip the test where it is not installed."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def validate(file: Path) -> list[str]:
    """Return the error and warning lines of dciodvfy (dicom3tools) about an object."""
    done = subprocess.run([tool("dciodvfy"), file], capture_output=True, text=True, timeout=60, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if line.startswith(("Error", "Warning"))]


def dump(name: str, file: Path) -> str:
    """Return the output of a program of DCMTK that reads an object."""
    done = subprocess.run([tool(name), file], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode("utf-8", "replace")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        assert process.poll() is None, "the archive ended"
        with socket.socket() as probe:
            # The connection is the event: it succeeds once the archive listens.
            probe.settimeout(0.5)
            if probe.connect_ex((HOST, port)) == 0:
                return
    pytest.fail(f"no archive listens within {START_S} s")


@contextmanager
def running(command: list[Any], port: int, log: Path) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen([str(each) for each in command], stdout=out, stderr=out)
        try:
            wait_for_port(port, process)
            yield
        finally:
            process.terminate()
            process.wait(timeout=30)


def send(port: int, files: list[Path]) -> None:
    """Send objects with storescu (DCMTK), each in the transfer syntax that it has."""
    for file in files:
        # Only the context of this object, and for a video that of H.264.
        options = ["-R", "-xn"] if file.name.startswith("video") else ["-R"]
        command = [tool("storescu"), *options, "-aec", "ARCHIVE", HOST, str(port), str(file)]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr


@contextmanager
def store_scp(folder: Path) -> Iterator[int]:
    """Run storescp (DCMTK), which writes what it takes bit by bit into a folder; yields its port."""
    port = free_port()
    command = [tool("storescp"), "+xa", "-B", "-od", folder, "-aet", "ARCHIVE", port]
    with running(command, port, folder.with_suffix(".log")):
        yield port


@contextmanager
def orthanc(folder: Path) -> Iterator[tuple[int, str]]:
    """Run Orthanc with an empty database in a folder; yields its DICOM port and the address of its REST interface."""
    dicom, http = free_port(), free_port()
    configuration = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "DicomPort": dicom,
        "DicomAet": "ARCHIVE",
        "DicomCheckCalledAet": False,
        "HttpPort": http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "Plugins": [],
    }
    folder.mkdir()
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    with running([tool("Orthanc"), folder / "orthanc.json"], http, folder / "orthanc.log"):
        yield dicom, f"http://{HOST}:{http}"


def fetch_all(address: str) -> dict[str, bytes]:
    """Return every object that an Orthanc holds, by SOP Instance UID, each in its own transfer syntax."""
    found = {}
    for name in json.loads(_get(f"{address}/instances")):
        tags = json.loads(_get(f"{address}/instances/{name}/simplified-tags"))
        found[tags["SOPInstanceUID"]] = _get(f"{address}/instances/{name}/file")
    return found


def put(address: str, file: Path) -> None:
    """Give an object to an Orthanc by its REST interface."""
    request = urllib.request.Request(f"{address}/instances", file.read_bytes(), method="POST")
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200


def _get(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=30) as answer:
        return bytes(answer.read())
