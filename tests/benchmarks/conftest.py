"""Fixtures of the benchmarks' tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bench_samples import measure, write_models


@pytest.fixture(autouse=True)
def all_cores() -> Iterator[None]:
    """Undo what ``--cores`` does to this process, so that later tests have all cores again."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, allowed)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two model files, ``a.onnx`` and ``b.onnx``."""
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def result(files: list[Path]) -> dict[str, Any]:
    """The document of ``bench`` about both files, without cold starts. Tests must not change it."""
    return measure(files)
