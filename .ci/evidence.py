"""Write docs/evidence/requirements.md and performance.md.

    pytest --junitxml results.xml tests/...
    python .ci/evidence.py --junit results.xml
    python .ci/evidence.py --check

``requirements.md`` says which tests hold each requirement of ``requirements.json``, and what they gave when they last
ran. ``performance.md`` comes from ``models/findings.json``. ``--check`` fails if a named test does not exist or if the
pages name other requirements, tests or figures than their sources.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
EVIDENCE = ROOT / "docs" / "evidence"
NOT_CERTIFIED = "**This is no certification.**"
# Quantile of the normal distribution for 95 %.
Z = 1.959964


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--junit", type=Path, help="results that pytest --junitxml wrote")
    parser.add_argument("--check", action="store_true", help="compare only; write nothing")
    options = parser.parse_args()
    requirements = json.loads((EVIDENCE / "requirements.json").read_text("utf-8"))
    faults = find_absent(requirements)
    performance = performance_page(json.loads((ROOT / "models" / "findings.json").read_text("utf-8")))
    if options.check:
        faults += stale_pages(requirements, performance)
    elif options.junit is None:
        parser.error("--junit FILE or --check is needed")
    else:
        results = read_results(options.junit)
        (EVIDENCE / "requirements.md").write_text(requirements_page(requirements, results), "utf-8")
        (EVIDENCE / "performance.md").write_text(performance, "utf-8")
    if faults:
        sys.exit("\n".join(faults))


def find_absent(requirements: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each named test that does not exist."""
    lines = []
    for each in requirements:
        for test in each["tests"]:
            file, _, name = test.partition("::")
            path = ROOT / file
            known = names_of(path) if path.is_file() else set()
            if not known or (name and name not in known):
                lines.append(f"{each['id']} names {test}, which does not exist")
    return lines


def names_of(path: Path) -> set[str]:
    """Return the names of the tests of a module."""
    tree = ast.parse(path.read_text("utf-8"))
    return {
        each.name for each in tree.body if isinstance(each, ast.FunctionDef) and each.name.startswith("test_")
    }


def read_results(junit: Path) -> dict[str, Counter[str]]:
    """Return the number of outcomes by test, without its parameters, and by module."""
    found: dict[str, Counter[str]] = {}
    for case in ET.parse(junit).iter("testcase"):
        # As "tests.runtime.recording.test_dicom" and "test_x[a]"; with importlib mode the class name is the path.
        parts = case.get("classname", "").split(".")
        module = "/".join(parts[parts.index("tests") :]) + ".py" if "tests" in parts else ""
        name = case.get("name", "").partition("[")[0]
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        for key in (module, f"{module}::{name}"):
            found.setdefault(key, Counter())[outcome] += 1
    return found


def requirements_page(requirements: Sequence[Mapping[str, Any]], results: Mapping[str, Counter[str]]) -> str:
    """Return the page: requirement, tests, result."""
    lines = [
        NOT_CERTIFIED,
        "",
        "# Requirements and their tests",
        "",
        "`.ci/evidence.py` wrote this page from `requirements.json` and the results of the tests.",
        "",
        "| requirement | tests | result |",
        "|---|---|---|",
    ]
    for each in requirements:
        tests = ", ".join(f"`{test}`" for test in each["tests"])
        total: Counter[str] = sum((results.get(test, Counter()) for test in each["tests"]), Counter())
        absent = sum(test not in results for test in each["tests"])
        if absent:
            total["not run"] = absent
        result = ", ".join(f"{count} {outcome}" for outcome, count in sorted(total.items()))
        lines.append(f"| **{each['id']}** {each['text']} | {tests} | {result} |")
    return "\n".join(lines) + "\n"


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson, JASA 1927)."""
    share, z2 = hits / count, Z * Z
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def performance_page(findings: Mapping[str, Any]) -> str:
    """Return the page: findings hit by class, with intervals."""
    lines = [
        NOT_CERTIFIED,
        "",
        "# Performance by class",
        "",
        "`.ci/evidence.py` wrote this page from `models/findings.json`, which says how it was measured:",
        f"{len(findings['data']['recordings'])} recordings, {findings['data']['recorded_frames']:,} frames, of videos"
        " that no model was trained on.",
        "The interval is Wilson's at 95 %, as if each finding were of another patient. Where several come",
        "from one video it is too narrow. The frames of one video are near copies, so frames get no",
        "interval here; [the model cards](../models.md) have intervals over videos.",
    ]
    for name, model in findings["models"].items():
        lines += [
            "",
            f"## {name} ({model['precision']}, {model['version']})",
            "",
            "| class | findings | hit | share hit (95 %) | false events | frames (videos) | frames recognised |",
            "|---|---:|---:|---|---:|---:|---:|",
        ]
        for label, each in model["classes"].items():
            count, frames = each["findings"], each["val_frames"]
            share = "no finding"
            if count:
                low, high = wilson(each["hit"], count)
                share = f"{each['hit'] / count:.2f} ({low:.2f} to {high:.2f})"
            lines.append(
                f"| {label} | {count} | {each['hit']} | {share} | {each['false_events']} |"
                f" {frames['frames']} ({frames['videos']}) | {frames['sensitivity']:.2f} |"
            )
        total = model["totals"]
        low, high = wilson(total["hit"], total["findings"])
        lines.append(
            f"| all | {total['findings']} | {total['hit']} | {total['hit'] / total['findings']:.2f}"
            f" ({low:.2f} to {high:.2f}) | {total['false_events']} | | |"
        )
    return "\n".join(lines) + "\n"


def stale_pages(requirements: Sequence[Mapping[str, Any]], performance: str) -> list[str]:
    """Return a line for each page that does not fit its source. Results are not compared."""
    lines = []
    page = (EVIDENCE / "requirements.md").read_text("utf-8").splitlines()
    rows = [line.rsplit("|", 2)[0] for line in page if line.startswith("| **R-")]
    expected = requirements_page(requirements, {}).splitlines()
    if rows != [line.rsplit("|", 2)[0] for line in expected if line.startswith("| **R-")]:
        lines.append("requirements.md does not fit requirements.json: run .ci/evidence.py --junit RESULTS")
    if any(line.endswith("failed |") or " failed, " in line for line in page):
        lines.append("requirements.md shows failed tests")
    if (EVIDENCE / "performance.md").read_text("utf-8") != performance:
        lines.append("performance.md does not fit models/findings.json: run .ci/evidence.py --junit RESULTS")
    return lines


if __name__ == "__main__":
    main()
