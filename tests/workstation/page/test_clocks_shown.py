"""The clocks of the page follow the service's rule, and durations read as in the report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from page_probe import read_store, set_store, wait_for_frame, wait_until
from page_service import FakeService, make_reading

from capsule_edge.runtime.report import duration

OpenPage = Callable[..., Any]
SECONDS = [0, 0.4, 12.5, 30, 59.4, 59.5, 60, 89, 90, 150, 2699, 3569, 3570, 3600, 3930, 15630, 15629.9]


def test_durations_read_the_same_on_the_page_and_in_the_report(scripts: Any) -> None:
    shown = scripts.evaluate(
        "(values) => import('/page/wording.js').then(({ duration }) => values.map(duration))", SECONDS
    )
    assert shown == [duration(value) for value in SECONDS]


def test_a_clock_that_becomes_known_is_shown_beside_the_frame(open_page: OpenPage) -> None:
    page = open_page(FakeService(recording={"capture_scale": None}))
    assert "Exam clock unknown" in page.inner_text("figcaption")
    recording = read_store(page, "study")[0]["recording"] | {"capture_scale": 1.0}
    page.evaluate(
        "(recording) => import('/page/main.js').then(({ page }) =>"
        " page.store.set({ study: { ...page.store.get().study, recording } }))",
        recording,
    )
    wait_until(page, "!document.querySelector('figcaption').textContent.includes('unknown')")


@pytest.mark.parametrize(
    ("scale", "exam"), [(0.5, "exam 0:00:05"), (1.0, "exam 0:00:10"), (None, "Exam clock unknown")]
)
def test_the_exam_clock_follows_the_scale_that_the_service_sends(
    open_page: OpenPage, scale: float | None, exam: str
) -> None:
    service = FakeService(fps=1.0, frames=60, recording={"time_kind": "capture", "capture_scale": scale})
    page = open_page(service)
    set_store(page, index=10)
    wait_for_frame(page, 10)
    assert exam in page.locator("figcaption").first.inner_text()


@pytest.mark.parametrize(("scale", "words"), [(15.0, "90, exam 0:00:45"), (None, "90, playback 0:00:03")])
def test_a_landmark_names_the_clock_of_its_time(open_page: OpenPage, scale: float | None, words: str) -> None:
    progress = {
        "suggestions": 0,
        "decided": 0,
        "seen_share": 0.0,
        "seen_share_small_bowel": None,
        "seconds": 0,
    }
    marks = {"small-bowel": {"index": 90, "time_s": 3.0, "version": 2}}
    service = FakeService(
        recording={"capture_scale": scale}, reading=make_reading(landmarks=marks, progress=progress)
    )
    page = open_page(service)
    assert page.inner_text(".landmarks [data-act=go]") == words


@pytest.mark.parametrize(
    ("share", "words", "left"),
    [
        (0, "0 %", "100 %"),
        (1 / 810, "<1 %", ">99 %"),
        (67 / 621, "10 %", "90 %"),
        (0.29, "29 %", "71 %"),
        (0.999, "99 %", "1 %"),
        (1, "100 %", "0 %"),
    ],
)
def test_shares_are_rounded_down_and_what_is_left_adds_up(
    scripts: Any, share: float, words: str, left: str
) -> None:
    shown = scripts.evaluate(
        "(share) => import('/page/wording.js').then((words) => [words.percent(share), words.percentLeft(share)])",
        share,
    )
    assert shown == [words, left]
