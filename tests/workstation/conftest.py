"""Fixtures of the workstation: a folder with recordings, and a workstation that reads it with a small model."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

# Without the extra [serve], each test module here is skipped by name.
if importlib.util.find_spec("fastapi") and importlib.util.find_spec("httpx2"):
    from stations import Station, running


@pytest.fixture
def recordings(exam: Path, tmp_path: Path) -> Path:
    """A folder with the recording ``exam.mp4``: 60 frames, 20 to 31 are red."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    shutil.copyfile(exam, folder / "exam.mp4")
    return folder


@pytest.fixture
def station(recordings: Path, red_model: Path, tmp_path: Path) -> Iterator[Station]:
    """A workstation that may open ``recordings`` and reads with the model for which red is bleeding."""
    with running(tmp_path / "home", recordings) as opened:
        opened.workstation.models.use(opened.workstation.models.add(red_model).sha256)
        yield opened


@pytest.fixture
def folder(station: Station) -> str:
    """The id of the allowed folder."""
    identity: str = station.get("session")["folders"][0]["id"]
    return identity
