"""Fixtures that several test modules of the evaluation share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from capsule_edge.evaluation.datasets import Listing, list_samples


@pytest.fixture(scope="session")
def published_tables() -> Path:
    """The folder of Kvasir-Capsule's published tables; a test that needs it is skipped without it."""
    folder = Path(os.environ.get("CAPSULE_EDGE_DATA", "../shared/data")) / "kvasir-capsule"
    if not folder.is_dir():
        pytest.skip(f"the published tables are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def published_listing(published_tables: Path) -> Listing:
    """The 47,000 rows of the published tables, read once for all tests."""
    return list_samples(published_tables)
