"""Made-up requests, and kills amid jobs and decisions. Slow: opt in with ``-m workstation`` or ``-m kills``."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
pytest.importorskip("httpx2", reason="httpx2 is not installed")


@pytest.mark.workstation
@pytest.mark.timeout(3600)
def test_made_up_requests_are_answered_and_none_with_a_fault_of_the_service(tmp_path: Path) -> None:
    pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    from fuzz_routes import fuzz

    counts = fuzz(2000, tmp_path)
    assert counts["first_faults"] == []
    assert counts["requests"] > 1000
    assert counts["health"] == 200


@pytest.mark.kills
@pytest.mark.timeout(3600)
def test_a_service_that_is_killed_loses_no_job_and_no_decision(tmp_path: Path) -> None:
    from kill_service import kill_and_count

    counts = kill_and_count(tmp_path, kills=20, jobs=50, decisions=200)
    assert counts["kills"] == 20
    assert (counts["decisions_lost"], counts["jobs_lost"], counts["results_unlike_run"]) == (0, 0, 0)
    assert counts["log_valid"]
