"""The pages of evidence name tests that exist, fit their sources, and say first that they are no certification."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

EVIDENCE = ROOT / "docs" / "evidence"


def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / ".ci" / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_every_page_of_evidence_says_first_that_it_is_no_certification() -> None:
    pages = sorted(EVIDENCE.glob("*.md"))
    assert len(pages) >= 5
    for page in pages:
        assert page.read_text("utf-8").splitlines()[0] == "**This is no certification.**", page.name


def test_the_tables_of_evidence_fit_their_sources() -> None:
    done = run("evidence.py", "--check")
    assert done.returncode == 0, done.stderr


def test_every_hazard_names_tests_that_exist() -> None:
    rows = [
        line for line in (EVIDENCE / "hazards.md").read_text("utf-8").splitlines() if line.startswith("| **")
    ]
    assert len(rows) >= 7
    for row in rows:
        named = re.findall(r"`tests/([\w/]+\.py)::(\w+)`", row)
        assert named, row
        for file, name in named:
            assert f"def {name}(" in (ROOT / "tests" / file).read_text("utf-8"), name


def test_results_are_counted_by_test_and_module(tmp_path: Path) -> None:
    requirements = json.loads((EVIDENCE / "requirements.json").read_text("utf-8"))
    test = requirements[0]["tests"][0]
    classname = test.removesuffix(".py").replace("/", ".")
    cases = f'<testcase classname="{classname}" name="test_a[1]"/><testcase classname="{classname}" name="test_b">'
    (tmp_path / "results.xml").write_text(
        f"<testsuites><testsuite>{cases}<skipped/></testcase></testsuite></testsuites>"
    )
    sys.path.insert(0, str(ROOT / ".ci"))
    try:
        import evidence
    finally:
        sys.path.pop(0)
    results = evidence.read_results(tmp_path / "results.xml")
    assert results[test] == {"passed": 1, "skipped": 1}
    page = evidence.requirements_page(requirements[:1], results)
    assert "1 not run, 1 passed, 1 skipped |" in page
    low, high = evidence.wilson(3, 4)
    # Wilson's interval of 3 in 4 (Newcombe, Statistics in Medicine 1998, method 3).
    assert (round(low, 3), round(high, 3)) == (0.301, 0.954)


def test_the_bill_of_materials_is_valid_and_holds_the_models(tmp_path: Path) -> None:
    pytest.importorskip("cyclonedx.validation.json")
    done = run("sbom.py", tmp_path / "sbom.json")
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "sbom.json").read_text())
    kinds = {each["name"]: each["type"] for each in document["components"]}
    models = [path.name for folder in ("models", "runtime/models") for path in (ROOT / folder).glob("*.onnx")]
    assert models
    assert all(kinds[name] == "machine-learning-model" for name in models)
    assert kinds["numpy"] == "library"
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
