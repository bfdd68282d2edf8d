"""The folders in which the tests find files."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = Path(__file__).parent
