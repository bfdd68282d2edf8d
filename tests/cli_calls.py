"""Helpers for tests of the command line: the result of a call, and checks that hold for every call."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from capsule_edge.runtime import FrameRecord, Reader
from capsule_edge.runtime.results.files import FILES
from capsule_edge.runtime.study import STATUSES

FAST_START = {"movflags": "faststart"}


LABELS = (
    *("normal", "angioectasia", "bleeding", "erosion", "erythema"),
    *("foreign_body", "lymphangiectasia", "polyp", "ulcer", "worms"),
)


@dataclass(frozen=True)
class Called:
    """Exit code, stdout and stderr of a call."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.out)
        return document


def check_files(folder: Path) -> dict[str, Any]:
    """Check that a results folder holds its four files alone and that they agree. Return ``study.json``."""
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    study: dict[str, Any] = json.loads((folder / "study.json").read_text("utf-8"))
    schema = json.loads(
        (resources.files("capsule_edge.runtime") / "schema" / "study.schema.json").read_text("utf-8")
    )
    jsonschema.validate(study, schema)
    with (folder / "frames.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    ledger = study["ledger"]
    assert [int(row["index"]) for row in rows] == list(range(ledger["container"]))
    assert {status: ledger[status] for status in STATUSES} == {
        status: sum(row["status"] == status for row in rows) for status in STATUSES
    }
    assert json.loads((folder / "timing.json").read_text("utf-8"))["read_s"] > 0
    return study


def check_refused(called: Called, code: int, says: str) -> None:
    """Check that a call failed with one line on stderr, nothing on stdout and nothing in the working folder."""
    assert called.code == code
    assert called.out == ""
    assert called.err.count("\n") == 1
    assert called.err.startswith("error: ")
    assert says in called.err
    assert "Traceback" not in called.err
    assert list(Path.cwd().iterdir()) == []


def interrupt_reading(
    monkeypatch: pytest.MonkeyPatch, *, at_frame: int, number: signal.Signals = signal.SIGINT
) -> None:
    """Send a signal, by default that of Ctrl-C, when ``Reader.read`` reports the frame of that index."""
    read = Reader.read

    def interrupted(self: Reader, path: Path, **options: Any) -> Any:
        def on_frame(record: FrameRecord) -> None:
            if record.index == at_frame:
                signal.raise_signal(number)

        return read(self, path, **{**options, "on_frame": on_frame})

    monkeypatch.setattr(Reader, "read", interrupted)


def process(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    """Start the command line in a process of its own."""
    command = [sys.executable, "-m", "capsule_edge.cli"]
    return subprocess.Popen(
        [*command, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )
