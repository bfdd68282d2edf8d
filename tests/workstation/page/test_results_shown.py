"""The page shows the suggestions of the result that the open reading is about, whatever has been read since."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from page_probe import decide, pass_frames, read_store, set_store, wait_until
from page_service import NEWER_RESULT, RESULT, STUDY, FakeService, make_reading, make_suggestion

OpenPage = Callable[..., Any]
PROGRESS = {
    "suggestions": 1, "decided": 0, "seen_share": 0.0, "seen_share_small_bowel": None, "seconds": 0, "version": 1,
}  # fmt: skip


def read_twice() -> FakeService:
    """Return a service with a reading of an older result; both results have a suggestion 1."""
    return FakeService(
        suggestions=[make_suggestion(1, "ulcer", 100, 120)],
        newest=[make_suggestion(1, "polyp", 400, 420)],
        reading=make_reading(progress=PROGRESS),
    )


def test_a_reading_shows_the_suggestions_of_its_own_result(open_page: OpenPage) -> None:
    service = read_twice()
    page = open_page(service)
    wait_until(page, f"store.resultId === '{RESULT}'")
    assert [each["label"] for each in read_store(page, "suggestions")[0]] == ["ulcer"]
    page.keyboard.press("j")
    wait_until(page, "store.index === 110")
    asked = [path for path in service.requests if "/timeline" in path or "/suggestions" in path]
    assert all(f"result={RESULT}" in path for path in asked[-2:])


def test_a_decision_names_the_result_whose_suggestion_it_is_about(open_page: OpenPage) -> None:
    page = open_page(read_twice())
    sent: list[dict[str, Any]] = []

    def take(route: Any) -> None:
        sent.append(json.loads(route.request.post_data))
        route.fulfill(
            status=409, json={"error": {"code": "conflict", "message": "another result", "hint": ""}}
        )

    page.route("**/decisions/*", take)
    wait_until(page, f"store.resultId === '{RESULT}'")
    decide(page, "j", "c")
    wait_until(page, "store.unsaved[0]?.state === 'conflict'")
    assert sent[0]["result_id"] == RESULT


def test_a_job_that_runs_does_not_change_what_an_open_reading_shows(open_page: OpenPage) -> None:
    service = read_twice()
    page = open_page(service)
    wait_until(page, f"store.resultId === '{RESULT}'")
    part = {"study_id": STUDY, "suggestions": [make_suggestion(1, "polyp", 200, 210)], "colours": [[1, 2, 3]]}
    service.tell("partial", part)
    service.tell("job", {"study_id": STUDY, "state": "running"})
    wait_until(page, "store.study.job?.state === 'running'")
    assert [each["label"] for each in read_store(page, "suggestions")[0]] == ["ulcer"]
    assert read_store(page, "partial") == [False]
    assert read_store(page, "timeline")[0]["bins"] == 600
    service.tell("study", {"id": STUDY, "state": "read"})
    wait_until(page, "store.study.job === null")
    wait_until(page, f"store.resultId === '{RESULT}'")
    assert [each["label"] for each in read_store(page, "suggestions")[0]] == ["ulcer"]


def test_without_a_reading_the_newest_result_is_shown(open_page: OpenPage) -> None:
    page = open_page(read_twice(), reading=False)
    wait_until(page, f"store.resultId === '{NEWER_RESULT}'")
    assert [each["label"] for each in read_store(page, "suggestions")[0]] == ["polyp"]


def test_suggestions_that_are_not_loaded_are_not_said_to_be_none(open_page: OpenPage) -> None:
    service = read_twice()
    service.refuse[f"studies/{STUDY}/suggestions"] = (500, "internal")
    page = open_page(service, reading=False)
    wait_until(page, "store.message?.text === 'refused with 500'")
    assert "not loaded yet" in page.inner_text("#panel")
    assert "suggests nothing" not in page.inner_text("#panel")
    page.keyboard.press("j")
    assert "not loaded yet" in page.inner_text("#message")


def test_suggestions_are_shown_without_a_timeline(open_page: OpenPage) -> None:
    service = read_twice()
    service.refuse[f"studies/{STUDY}/timeline"] = (500, "internal")
    page = open_page(service, reading=False)
    wait_until(page, "document.querySelectorAll('.suggestion').length === 1")
    assert read_store(page, "timeline") == [None]


def open_later(service: FakeService, open_page: OpenPage) -> Any:
    """Open a page without an examination, whose first picture will take its time."""
    service.delay_s[0] = 0.6
    return open_page(service, study=False)


def test_a_load_that_another_one_replaced_and_that_failed_is_made_again(open_page: OpenPage) -> None:
    service = read_twice()
    page = open_later(service, open_page)
    service.refuse[f"studies/{STUDY}/suggestions"] = (500, "internal")
    page.evaluate(f"location.hash = '#/study/{STUDY}'")
    wait_until(page, "store.study")
    set_store(page, reading=service.reading)
    # The event comes while the load of the reading waits for the first picture, and loads in its place.
    service.tell("study", {"id": STUDY, "state": "read"})
    wait_until(page, "store.message?.text === 'refused with 500'")
    service.refuse.clear()
    set_store(page, reading=make_reading(progress=PROGRESS, version=2))
    wait_until(page, f"store.resultId === '{RESULT}'")


def test_each_result_is_loaded_once(open_page: OpenPage) -> None:
    service = read_twice()
    page = open_later(service, open_page)
    page.evaluate(f"location.hash = '#/study/{STUDY}'")
    wait_until(page, "store.study")
    set_store(page, reading=service.reading)
    wait_until(page, f"store.resultId === '{RESULT}' && store.timeline?.bins")
    page.keyboard.press("j")
    wait_until(page, "store.shown?.index === 110")
    assert read_store(page, "selected") == [1]
    asked = [path.partition("?")[0].rpartition("/")[2] for path in service.requests]
    assert [asked.count(name) for name in (STUDY, "suggestions", "timeline", "limits")] == [1, 1, 1, 1]


def test_a_reading_that_arrives_after_the_first_picture_asks_for_nothing_again(open_page: OpenPage) -> None:
    service = read_twice()
    service.current_result = RESULT
    page = open_page(service, study=False)
    held: list[Any] = []
    page.route(f"**/v1/studies/{STUDY}/suggestions*", lambda route: held.append(route))
    page.evaluate(f"location.hash = '#/study/{STUDY}'")
    wait_until(page, "store.shown")
    while not held:
        pass_frames(page, 1)
    set_store(page, reading=service.reading)
    pass_frames(page, 5)
    assert len(held) == 1
    held[0].continue_()
    wait_until(page, f"store.resultId === '{RESULT}' && store.timeline?.bins")
    pass_frames(page, 5)
    asked = [path.partition("?")[0].rpartition("/")[2] for path in service.requests]
    assert [asked.count(name) for name in ("suggestions", "timeline", "limits")] == [1, 1, 1]


def test_suggestions_that_cannot_be_had_now_are_asked_for_again(open_page: OpenPage) -> None:
    service = read_twice()
    page = open_page(service, study=False)
    refusal = {"error": {"code": "store_busy", "message": "the database is busy", "hint": ""}}
    page.route(
        f"**/v1/studies/{STUDY}/suggestions*",
        lambda route: route.fulfill(status=503, json=refusal, headers={"Retry-After": "0"}),
        times=2,
    )
    page.evaluate(f"location.hash = '#/study/{STUDY}'")
    wait_until(page, f"store.resultId === '{NEWER_RESULT}'")
    assert read_store(page, "message") == [None]


ASK = """async ({ status, retryAfterMs, fails, leaves }) => {
  const { ApiError, askPatiently } = await import('/page/api.js');
  const [waits, later] = [[], window.setTimeout];
  let asked = 0;
  const ask = async () => {
    asked += 1;
    if (asked <= fails) throw new ApiError({ status, code: 'x', message: 'refused', retryAfterMs });
    return 'found';
  };
  window.setTimeout = (call, ms) => { waits.push(ms); call(); };
  try {
    return [await askPatiently(ask, () => asked < leaves).catch((error) => error.message), asked, waits];
  } finally {
    window.setTimeout = later;
  }
}"""


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ({"fails": 0}, ["found", 1, []]),
        ({"fails": 2}, ["found", 3, [500, 1000]]),
        # The service names the wait, up to a limit.
        ({"fails": 2, "retryAfterMs": 3000}, ["found", 3, [3000, 3000]]),
        ({"fails": 1, "retryAfterMs": 3_600_000}, ["found", 2, [10_000]]),
        # It ends: after five times, for another error, and when nobody wants the answer any more.
        ({"fails": 99}, ["refused", 5, [500, 1000, 2000, 4000]]),
        ({"fails": 99, "status": 500}, ["refused", 1, []]),
        ({"fails": 99, "leaves": 2}, ["refused", 2, [500]]),
    ],
)
def test_a_busy_service_is_asked_again_a_few_times(
    scripts: Any, case: dict[str, int], expected: list[Any]
) -> None:
    usual = {"status": 503, "retryAfterMs": None, "leaves": 99}
    assert scripts.evaluate(ASK, {**usual, **case}) == expected


def test_an_examination_that_was_opened_without_the_service_comes_when_it_is_back(
    open_page: OpenPage,
) -> None:
    service = read_twice()
    page = open_page(service, study=False)
    wait_until(page, "store.session && store.connected")
    page.route("**/v1/**", lambda route: route.abort())
    service.outgoing.put(None)
    wait_until(page, "!store.connected")
    page.evaluate(f"location.hash = '#/study/{STUDY}'")
    wait_until(page, "store.message?.kind === 'error'")
    assert read_store(page, "study") == [None]
    page.unroute("**/v1/**")
    wait_until(page, f"store.study && store.resultId === '{NEWER_RESULT}'")
    page.wait_for_selector(".pane .picture:not([hidden])")
