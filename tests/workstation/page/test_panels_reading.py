"""The reading as a whole: ways, passes, what is left, finishing, the report, and what happens when the service goes."""

from __future__ import annotations

from typing import Any

import pytest
from page_probe import decide, pass_frames, read_store, wait_until
from page_station import PageStation, enter_reading, wait_until_saved


def open_study(page: Any, station: PageStation, study: dict[str, Any]) -> None:
    page.goto(station.address)
    page.locator(f"tr[data-id='{study['id']}'] [data-act=open]").click()


@pytest.mark.parametrize("way", ["suggestions_first", "everything", "hidden_first"])
def test_a_reading_begins_with_a_name_and_a_way(
    station: PageStation, demo: Any, new_page: Any, way: str
) -> None:
    page = new_page()
    open_study(page, station, demo)
    dialog = page.locator("dialog[data-name=reading]")
    dialog.locator("footer [type=submit]").click()
    assert "No name was typed in" in dialog.locator(".trouble").inner_text()
    dialog.locator("[name=reader]").fill("Dr. Neu")
    dialog.locator(f"[value={way}]").check()
    dialog.locator("footer [type=submit]").click()
    wait_until(page, "store.reading && store.resultId")
    reading = station.get(f"readings/{read_store(page, 'reading')[0]['id']}")
    assert (reading["reader"], reading["way"], reading["state"]) == ("Dr. Neu", way, "open")
    assert page.locator(".suggestion").count() == (0 if way == "hidden_first" else 4)


def test_an_open_reading_goes_on_where_it_was(station: PageStation, demo: Any, new_page: Any) -> None:
    reading = station.open_reading(demo["id"], reader="Dr. Goes-On")
    body = {"verdict": "confirmed", "version": 0, "seconds": 1}
    station.send("PUT", f"readings/{reading['id']}/decisions/suggestion:1", body)
    page = new_page()
    open_study(page, station, demo)
    resume = page.locator("dialog .earlier li").filter(has_text="Dr. Goes-On").locator("button")
    resume.click()
    assert "No name was typed in" in page.inner_text("dialog[data-name=reading] .trouble")
    page.fill("dialog [name=reader]", "Dr. Goes-On")
    resume.click()
    wait_until(page, f"store.reading?.id === '{reading['id']}'")
    page.wait_for_selector(".suggestion[data-verdict=confirmed]")
    assert page.inner_text(".head .progress").startswith("1 of 4 decided")


def test_hidden_suggestions_appear_in_the_second_pass(station: PageStation, demo: Any, new_page: Any) -> None:
    page = new_page()
    enter_reading(page, station, station.open_reading(demo["id"], "hidden_first"))
    assert "Polyp" not in page.inner_text("#panel")
    assert "hidden until the first pass is over" in page.inner_text("#panel")
    assert "decided" not in page.inner_text(".head .progress")
    page.keyboard.press("j")
    assert "hidden until the first pass is over" in page.inner_text("#message")
    assert read_store(page, "selected") == [None]
    page.keyboard.press("c")
    assert read_store(page, "unsaved") == [[]]
    page.click("[data-act=second]")
    page.click("dialog[data-name=second-pass] [type=submit]")
    page.wait_for_selector(".suggestion")
    assert page.locator(".suggestion").count() == 4


def test_after_the_last_suggestion_the_full_recording_remains(
    station: PageStation, demo: Any, new_page: Any
) -> None:
    page = new_page()
    reading = station.open_reading(demo["id"])
    enter_reading(page, station, reading)
    page.keyboard.press("j")
    for _ in range(4):
        decide(page, "x")
    wait_until_saved(page)
    assert "The full recording remains" in page.inner_text("#message")
    after = page.inner_text(".after")
    assert "All 4 suggestions are decided" in after
    assert "Frames that you have not seen" in after
    assert station.get(f"readings/{reading['id']}")["state"] == "open"
    page.click("[data-act=unseen]")
    seen = read_store(page, "coverage")[0]["seen"]
    first = seen[0][1] if seen and seen[0][0] == 0 else 0
    assert read_store(page, "index")[0] <= first


def test_finishing_states_what_is_left_and_opens_the_report(
    station: PageStation, demo: Any, new_page: Any
) -> None:
    page = new_page(quiet=False)
    reading = station.open_reading(demo["id"])
    enter_reading(page, station, reading)
    decide(page, "j", "c")
    wait_until_saved(page)
    page.click("[data-act=finish]")
    words = page.inner_text("dialog[data-name=finish]")
    assert "Suggestions without a decision: 3 of 4." in words
    assert "of the recording." in words
    assert station.get(f"readings/{reading['id']}")["state"] == "open"
    page.click("dialog[data-name=finish] [type=submit]")
    wait_until(page, "store.view === 'report'")
    assert station.get(f"readings/{reading['id']}")["state"] == "finished"
    page.click("#report-view [data-act=back]")
    page.click("[data-act=reopen]")
    wait_until(page, "store.reading.state === 'open'")


def test_a_reading_with_unsaved_decisions_is_not_finished(
    station: PageStation, demo: Any, new_page: Any
) -> None:
    page = new_page(quiet=False)
    reading = station.open_reading(demo["id"])
    enter_reading(page, station, reading)
    page.route("**/v1/readings/*/decisions/*", lambda route: route.abort())
    decide(page, "j", "c")
    wait_until(page, "store.unsaved[0]?.state === 'unsaved'")
    page.click("[data-act=finish]")
    page.click("dialog[data-name=finish] [type=submit]")
    assert "not saved yet" in page.inner_text("dialog[data-name=finish] .trouble")
    assert station.get(f"readings/{reading['id']}")["state"] == "open"


def test_a_finished_reading_takes_no_decision(station: PageStation, demo: Any, new_page: Any) -> None:
    reading = station.open_reading(demo["id"])
    station.send("POST", f"readings/{reading['id']}/finish")
    page = new_page()
    enter_reading(page, station, reading)
    decide(page, "j", "c")
    assert "finished" in page.inner_text("#message")
    assert read_store(page, "unsaved") == [[]]
    assert page.locator(".verb").count() == 0 or not page.locator(".verb").first.is_visible()


def test_the_report_is_shown_in_a_frame_that_reaches_nothing(
    station: PageStation, demo: Any, new_page: Any
) -> None:
    page = new_page(quiet=False)
    enter_reading(page, station, station.open_reading(demo["id"]))
    hostile = (
        "<!doctype html><title>r</title><h1>Report</h1><p id=out></p><script>"
        "const out = document.getElementById('out'); const tries = [];"
        "try { tries.push(parent.sessionStorage.length); } catch (error) { tries.push('no storage'); }"
        "try { tries.push(String(origin)); } catch (error) { tries.push('no origin'); }"
        "fetch('/v1/health').then(() => tries.push('fetched'), () => tries.push('no network'))"
        ".finally(() => { out.textContent = tries.join(', '); });</script>"
    )
    page.route("**/v1/readings/*/report", lambda route: route.fulfill(body=hostile, content_type="text/html"))
    page.click(".head [data-act=report]")
    frame = page.frame_locator("iframe.report")
    frame.locator("#out", has_text="no network").wait_for()
    assert frame.locator("#out").inner_text() == "no storage, null, no network"


def test_the_report_of_the_ai_is_shown_too(station: PageStation, demo: Any, new_page: Any) -> None:
    page = new_page(quiet=False)
    enter_reading(page, station, station.open_reading(demo["id"]))
    body = "<!doctype html><h1>AI report</h1>"
    page.route(
        "**/exports/report.html?result=*", lambda route: route.fulfill(body=body, content_type="text/html")
    )
    page.click(".head [data-act=report]")
    page.click("#report-view [data-act=run]")
    page.frame_locator("iframe.report").locator("h1", has_text="AI report").wait_for()


def test_a_pdf_that_cannot_be_made_is_said_in_one_line(
    station: PageStation, demo: Any, new_page: Any
) -> None:
    page = new_page(quiet=False)
    enter_reading(page, station, station.open_reading(demo["id"]))
    error = {
        "error": {"code": "package", "message": "Pango is not installed", "hint": "install libpango-1.0-0"}
    }
    held: list[Any] = []
    page.route("**/report.pdf", lambda route: held.append(route))
    page.click(".head [data-act=report]")
    page.click("#report-view [data-act=pdf]")
    button = page.locator("#report-view [data-act=pdf]")
    assert button.is_disabled()
    assert button.inner_text() == "The file is being made …"
    while not held:
        pass_frames(page, 1)
    held[0].fulfill(status=501, json=error)
    trouble = page.locator("#report-view > .trouble")
    trouble.wait_for()
    assert trouble.inner_text() == "Pango is not installed. Install libpango-1.0-0."
    assert button.inner_text() == "Download PDF"


def test_an_expired_token_loses_nothing(station: PageStation, demo: Any, new_page: Any) -> None:
    page = new_page(quiet=False)
    reading = station.open_reading(demo["id"])
    enter_reading(page, station, reading)
    expired = {"error": {"code": "token", "message": "the token has expired", "hint": ""}}
    page.route("**/v1/readings/**", lambda route: route.fulfill(status=401, json=expired))
    decide(page, "j", "c")
    wait_until(page, "store.view === 'closed'")
    assert "Session expired" in page.inner_text("#closed-view")
    page.unroute("**/v1/readings/**")
    page.on("dialog", lambda dialog: dialog.accept())
    # The new token comes with a new address, opened in the same tab.
    page.goto("about:blank")
    enter_reading(page, station, reading)
    wait_until_saved(page)
    assert [each["verdict"] for each in station.get(f"readings/{reading['id']}")["decisions"]] == [
        "confirmed"
    ]


def test_a_lost_service_is_said_and_noticed_when_it_is_back(
    station: PageStation, demo: Any, new_page: Any
) -> None:
    page = new_page(quiet=False)
    page.route("**/v1/events", lambda route: route.abort())
    enter_reading(page, station, station.open_reading(demo["id"]))
    page.wait_for_selector(".connection:not(:empty)")
    assert "The service does not answer" in page.inner_text(".connection")
    page.unroute("**/v1/events")
    wait_until(page, "store.connected")
    assert page.inner_text(".connection") == ""


def test_a_first_result_interrupts_nobody(station: PageStation, demo: Any, new_page: Any) -> None:
    page = new_page()
    unread = {**demo, "current_result": None, "results": [], "readings": [], "state": "reading"}
    page.route(f"**/v1/studies/{demo['id']}", lambda route: route.fulfill(json=unread))
    page.goto(station.address)
    wait_until(page, "store.session && store.connected")
    page.evaluate("(id) => { location.hash = `#/study/${id}`; }", demo["id"])
    page.wait_for_selector(".study-state .job[data-state=reading], .study-state .job")
    page.unroute(f"**/v1/studies/{demo['id']}")
    page.evaluate(
        "(study) => import('/page/main.js').then(({ page }) => page.store.set({ study }))",
        station.get(f"studies/{demo['id']}"),
    )
    page.wait_for_selector(".study-state [data-act=begin]")
    assert page.locator("dialog[data-name=reading]").count() == 0
    page.click(".study-state [data-act=begin]")
    page.wait_for_selector("dialog[data-name=reading]")


def test_an_examination_that_another_window_deletes_is_closed(station: PageStation, new_page: Any) -> None:
    study = station.add_short()
    page = new_page(quiet=False)
    page.goto(station.address)
    wait_until(page, "store.session && store.connected")
    page.evaluate("(id) => { location.hash = `#/study/${id}`; }", study["id"])
    wait_until(page, "store.study")
    station.send("DELETE", f"studies/{study['id']}")
    wait_until(page, "store.view === 'studies'")
    assert "deleted in another window" in page.inner_text("#message")


def test_no_suggestion_is_shown_before_a_way_is_chosen(
    station: PageStation, demo: Any, new_page: Any
) -> None:
    page = new_page()
    open_study(page, station, demo)
    page.wait_for_selector("dialog[data-name=reading]")
    wait_until(page, "store.suggestions.length === 4 && store.timeline")
    assert page.locator(".suggestion").count() == 0
    assert "Polyp" not in page.inner_text("#timeline")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    assert "when a way to read is chosen" in page.inner_text("#message")
    assert "cannot read blind any more" in page.inner_text(".study-state")
    page.click("[data-act=look]")
    assert page.locator(".suggestion").count() == 4
    assert "is not blind" in page.inner_text(".study-state")


# Counts every card of a suggestion that the page ever shows.
_COUNT_CARDS = """window.cards = 0;
new MutationObserver(() => { window.cards += document.querySelectorAll('li.suggestion').length; })
  .observe(document, { childList: true, subtree: true });"""


def test_a_blind_reading_stays_blind_when_the_page_is_loaded_anew(
    station: PageStation, demo: Any, new_page: Any
) -> None:
    page = new_page()
    enter_reading(page, station, station.open_reading(demo["id"], "hidden_first"))
    page.add_init_script(_COUNT_CARDS)
    page.reload()
    wait_until(page, "store.reading && store.suggestions.length === 4")
    wait_until(page, "document.querySelector('.head .progress')")
    assert page.evaluate("window.cards") == 0


def test_the_report_of_the_ai_is_refused_in_the_first_pass(
    station: PageStation, demo: Any, new_page: Any
) -> None:
    page = new_page()
    enter_reading(page, station, station.open_reading(demo["id"], "hidden_first"))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.click("[data-act=report]")
    page.wait_for_selector("#report-view iframe")
    page.click("#report-view [data-act=run]")
    assert "hidden until the first pass is over" in page.inner_text("#report-view .report-stage")
    assert page.locator("#report-view iframe").count() == 0
    assert page.locator("#report-view [data-act=html]").count() == 0
    assert not [url for url in asked if "exports/report.html" in url]


@pytest.mark.parametrize("way", ["everything", "hidden_first"])
def test_a_report_is_shown_again_when_the_page_is_loaded_anew(
    station: PageStation, demo: Any, new_page: Any, way: str
) -> None:
    page = new_page()
    enter_reading(page, station, station.open_reading(demo["id"], way))
    page.click("[data-act=report]")
    page.wait_for_selector("#report-view iframe")
    page.reload()
    page.wait_for_selector("#report-view iframe[title='Report of the reading']")
    assert page.inner_text("#report-view [aria-pressed=true]") == "Report of the reading"


def test_the_frames_seen_last_are_in_a_finished_reading(
    station: PageStation, demo: Any, new_page: Any
) -> None:
    page = new_page()
    reading = station.open_reading(demo["id"], "everything")
    enter_reading(page, station, reading)
    for index in (1, 2, 3):
        page.keyboard.press("ArrowRight")
        wait_until(page, f"store.shown.index === {index} && document.querySelector('.pane[data-seen=true]')")
    page.click("[data-act=finish]")
    page.click("dialog[data-name=finish] [type=submit]")
    wait_until(page, "store.reading.state === 'finished'")
    stored = station.get(f"readings/{reading['id']}")
    assert stored["coverage"]["seen"] == [[0, 4]]
    assert stored["progress"]["seconds"] > 0


def test_a_reading_is_not_finished_while_seen_frames_are_not_saved(
    station: PageStation, demo: Any, new_page: Any
) -> None:
    page = new_page(quiet=False)
    reading = station.open_reading(demo["id"], "everything")
    enter_reading(page, station, reading)
    page.route("**/v1/readings/*/seen", lambda route: route.abort())
    page.keyboard.press("ArrowRight")
    wait_until(page, "store.shown.index === 1 && document.querySelector('.pane[data-seen=true]')")
    page.click("[data-act=finish]")
    page.click("dialog[data-name=finish] [type=submit]")
    page.wait_for_selector("dialog[data-name=finish] .trouble:not([hidden])")
    assert "saw last are not saved yet" in page.inner_text("dialog[data-name=finish] .trouble")
    page.unroute("**/v1/readings/*/seen")
    page.click("dialog[data-name=finish] [type=submit]")
    wait_until(page, "store.reading.state === 'finished'")
    assert station.get(f"readings/{reading['id']}")["coverage"]["seen"] == [[0, 2]]


def test_whoever_goes_on_with_a_reading_acts_under_a_name_of_their_own(
    station: PageStation, demo: Any, new_page: Any
) -> None:
    reading = station.open_reading(demo["id"], reader="Dr. Opens")
    page = new_page()
    open_study(page, station, demo)
    page.fill("dialog [name=reader]", "Dr. Next")
    page.locator("dialog .earlier li").filter(has_text="Dr. Opens").locator("button").click()
    wait_until(page, f"store.reading?.id === '{reading['id']}' && store.suggestions.length")
    decide(page, "j", "c", "a", "1", "l", "2", "k", "x", "u")
    wait_until_saved(page)
    page.reload()
    wait_until(page, "store.reading && store.suggestions.length")
    decide(page, "j", "j", "x")
    wait_until_saved(page)
    now = station.get(f"readings/{reading['id']}")
    assert (now["reader"], now["readers"]) == ("Dr. Opens", ["Dr. Opens", "Dr. Next"])
    assert {each["reader"] for each in now["decisions"]} == {"Dr. Next"}
    assert page.inner_text(".head .who").startswith("Dr. Opens, Dr. Next")
    page.keyboard.press("k")
    assert page.inner_text(".suggestion p.by") == "Decided by Dr. Next"


def test_a_conflict_names_the_person_who_decided_otherwise(
    station: PageStation, demo: Any, new_page: Any
) -> None:
    reading = station.open_reading(demo["id"], reader="Dr. Opens")
    page = new_page(quiet=False)
    page.route("**/v1/events", lambda route: route.abort())
    enter_reading(page, station, reading)
    body = {"verdict": "rejected", "version": 0, "reader": "Dr. Other"}
    station.send("PUT", f"readings/{reading['id']}/decisions/suggestion:1", body)
    decide(page, "j", "c")
    page.wait_for_selector(".conflict")
    assert "Dr. Other" in page.inner_text(".conflict")


def test_looking_at_a_finished_reading_needs_no_name_and_reopening_it_does(
    station: PageStation, demo: Any, new_page: Any
) -> None:
    reading = station.open_reading(demo["id"], reader="Dr. Finished")
    station.send("POST", f"readings/{reading['id']}/finish")
    page = new_page()
    open_study(page, station, demo)
    page.locator("dialog .earlier li").filter(has_text="Dr. Finished").locator("button").click()
    page.click(".head [data-act=reopen]")
    page.fill("dialog[data-name=reader] input", "Dr. Reopens")
    page.click("dialog[data-name=reader] [type=submit]")
    wait_until(page, "store.reading.state === 'open'")
    assert station.get(f"readings/{reading['id']}")["readers"] == ["Dr. Finished", "Dr. Reopens"]


def test_a_reading_that_another_window_reopens_asks_for_a_name_before_a_decision(
    station: PageStation, demo: Any, new_page: Any
) -> None:
    reading = station.open_reading(demo["id"], reader="Dr. Looked-At")
    station.send("POST", f"readings/{reading['id']}/finish")
    page = new_page()
    open_study(page, station, demo)
    page.locator("dialog .earlier li").filter(has_text="Dr. Looked-At").locator("button").click()
    wait_until(page, "store.reading && store.connected && store.suggestions.length")
    station.send("POST", f"readings/{reading['id']}/reopen", {"reader": "Dr. Elsewhere"})
    wait_until(page, "store.reading.state === 'open'")
    decide(page, "j", "c")
    assert "Say first who goes on" in page.inner_text("#message")
    assert read_store(page, "unsaved") == [[]]
    page.click(".head [data-act=go-on]")
    page.fill("dialog[data-name=reader] input", "Dr. Here")
    page.click("dialog[data-name=reader] [type=submit]")
    decide(page, "c")
    wait_until_saved(page)
    assert [each["reader"] for each in station.get(f"readings/{reading['id']}")["decisions"]] == ["Dr. Here"]


def test_an_earlier_reading_is_what_enter_goes_on_with(
    station: PageStation, demo: Any, new_page: Any
) -> None:
    reading = station.open_reading(demo["id"], "hidden_first", reader="Dr. Newest")
    page = new_page()
    open_study(page, station, demo)
    rows = page.locator("dialog .earlier li")
    assert "Dr. Newest · open · Suggestions hidden at first" in rows.first.inner_text()
    assert page.locator("dialog[data-name=reading] button.primary").all_inner_texts() == ["Go on reading"]
    page.fill("dialog [name=reader]", "Dr. Newest")
    page.press("dialog [name=reader]", "Enter")
    wait_until(page, f"store.reading?.id === '{reading['id']}'")
    # Nothing urges on to the second pass while most of the recording is unseen.
    assert page.get_attribute("[data-act=second]", "class") == "plain"
