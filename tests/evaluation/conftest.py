"""Fixtures that several test modules of the evaluation share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from capsule_edge.evaluation.datasets import Listing, list_samples


def data_folder(name: str, holds: str) -> Path:
    """Return a folder of the shared data; skip the test without it."""
    folder = Path(os.environ.get("CAPSULE_EDGE_DATA", "../shared/data")) / name
    if not folder.is_dir():
        pytest.skip(f"the {holds} are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def published_tables() -> Path:
    """The folder of Kvasir-Capsule's published tables."""
    return data_folder("kvasir-capsule", "published tables")


@pytest.fixture(scope="session")
def labelled_frames() -> Path:
    """The folder of the labelled frames."""
    return data_folder("capsule-vision", "labelled frames")


@pytest.fixture(scope="session")
def published_listing(published_tables: Path) -> Listing:
    """The 47,000 rows of the published tables, read once for all tests."""
    return list_samples(published_tables)
