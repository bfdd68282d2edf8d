"""A workstation with one study that was really read, for the tests of routes and exports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from read_station import ReadExam, ReadStation


@pytest.fixture(scope="session")
def read(tmp_path_factory: pytest.TempPathFactory, exam: Path, red_model: Path) -> ReadExam:
    from read_station import read_exam

    return read_exam(exam, red_model, tmp_path_factory.mktemp("read") / "result")


@pytest.fixture
def station(tmp_path: Path, read: ReadExam) -> Iterator[ReadStation]:
    from read_station import read_station

    with read_station(tmp_path / "home", read) as running:
        yield running
