"""No test skips for want of a Python package where every extra is installed."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator

import pytest
from paths import ROOT

# What no extra installs: PyTorch has several builds to choose from, and Schemathesis serves one test.
_BY_HAND = {"torch", "schemathesis"}


def _wanted_packages() -> Iterator[tuple[str, str]]:
    """Yield the module that a test needs and the file of the test, for each ``importorskip``."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "importorskip":
                yield ast.literal_eval(node.args[0]), path.relative_to(ROOT).as_posix()


def test_no_test_waits_for_a_package_that_no_extra_installs() -> None:
    pytest.importorskip("playwright.sync_api", reason="the extra [dev-full] is not installed")
    wanted = list(_wanted_packages())
    assert len(wanted) > 100
    absent = {
        (module, path)
        for module, path in wanted
        if module.partition(".")[0] not in _BY_HAND and importlib.util.find_spec(module) is None
    }
    assert not absent
