"""Answers that come late, after another examination was opened or something newer was shown, change nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from page_probe import decide, pass_frames, read_store, wait_until
from page_station import PageStation, enter_reading, wait_until_saved

# A second examination: the pictures and results of the demo under another id, never read by a person.
OTHER = "f" * 32


def mirror_demo(page: Any, demo: dict[str, Any]) -> None:
    """Answer for the examination OTHER as the service answers for the demo."""

    def answer(route: Any) -> None:
        place = route.request.url
        if place.endswith(OTHER):
            route.fulfill(json={**demo, "id": OTHER, "readings": []})
        else:
            route.continue_(url=place.replace(OTHER, demo["id"]))

    page.route(f"**/v1/studies/{OTHER}**", answer)


def open_study(page: Any, study_id: str) -> None:
    page.evaluate("(id) => { location.hash = id ? `#/study/${id}` : '#/'; }", study_id)
    wait_until(page, f"store.studyId === {study_id!r}" if study_id else "store.studyId === null")


def hold(page: Any, place: str, method: str) -> list[Any]:
    """Hold requests to a place, and return the list that they come into."""
    held: list[Any] = []

    def take(route: Any) -> None:
        if route.request.method == method and not held:
            held.append(route)
        else:
            route.continue_()

    page.route(place, take)
    return held


def wait_for_request(page: Any, held: list[Any]) -> None:
    while not held:
        pass_frames(page, 1)


def let_go(
    page: Any, held: list[Any], answer: Callable[[Any], Any] = lambda route: route.continue_()
) -> None:
    """Let a request that was held be answered, and wait until the page has worked on the answer."""
    with page.expect_response(held[0].request.url):
        answer(held[0])
    pass_frames(page, 10)


def test_a_reading_that_arrives_late_is_not_shown_under_another_examination(
    station: PageStation, demo: Any, new_page: Any
) -> None:
    reading = station.open_reading(demo["id"], "everything")
    page = new_page(quiet=False)
    mirror_demo(page, demo)
    sent: list[str] = []
    page.on("request", lambda request: request.method == "POST" and sent.append(request.url))
    page.goto(station.address)
    wait_until(page, "store.session")
    page.evaluate(
        "(kept) => { for (const [key, value] of kept) sessionStorage.setItem(`capsule-edge.${key}`, value); }",
        [[f"reading.{demo['id']}", reading["id"]], [f"reader-of.{reading['id']}", "Dr. Test"]],
    )
    held = hold(page, f"**/v1/readings/{reading['id']}", "GET")
    open_study(page, demo["id"])
    wait_for_request(page, held)
    open_study(page, "")
    open_study(page, OTHER)
    page.wait_for_selector("dialog[data-name=reading]")
    let_go(page, held)
    page.evaluate("import('/page/main.js').then(({ page }) => page.seen.flush())")
    assert read_store(page, "studyId", "reading") == [OTHER, None]
    assert sent == []
    # The reading of the first examination is shown as soon as that is opened again.
    page.keyboard.press("Escape")
    open_study(page, demo["id"])
    wait_until(page, f"store.reading?.id === '{reading['id']}'")


def test_a_second_pass_that_begins_late_is_not_shown_under_another_examination(
    station: PageStation, demo: Any, new_page: Any
) -> None:
    reading = station.open_reading(demo["id"], "hidden_first")
    page = new_page(quiet=False)
    mirror_demo(page, demo)
    enter_reading(page, station, reading)
    held = hold(page, f"**/v1/readings/{reading['id']}", "PATCH")
    page.click("[data-act=second]")
    page.click("dialog[data-name=second-pass] [type=submit]")
    wait_for_request(page, held)
    open_study(page, OTHER)
    let_go(page, held)
    assert station.get(f"readings/{reading['id']}")["pass"] == "second"
    assert read_store(page, "studyId", "reading") == [OTHER, None]


@pytest.mark.parametrize("act", ["finish", "way"])
def test_a_dialog_about_a_reading_closes_with_its_examination(
    station: PageStation, demo: Any, new_page: Any, act: str
) -> None:
    page = new_page(quiet=False)
    mirror_demo(page, demo)
    enter_reading(page, station, station.open_reading(demo["id"], "everything"))
    page.click(f".head [data-act={act}]")
    page.wait_for_selector(f"dialog[data-name={act}]")
    open_study(page, OTHER)
    assert page.locator(f"dialog[data-name={act}]").count() == 0


def test_a_finding_that_was_begun_is_not_added_to_another_examination(
    station: PageStation, demo: Any, new_page: Any
) -> None:
    page = new_page(quiet=False)
    mirror_demo(page, demo)
    reading = station.open_reading(demo["id"], "everything")
    enter_reading(page, station, reading)
    decide(page, "a")
    assert page.locator(".picker").is_visible()
    open_study(page, OTHER)
    assert page.locator(".picker").is_hidden()
    open_study(page, demo["id"])
    wait_until(page, "store.reading && store.shown")
    page.keyboard.press("2")
    wait_until_saved(page)
    assert station.get(f"readings/{reading['id']}")["decisions"] == []


def test_a_reading_that_arrives_late_does_not_replace_a_newer_one(
    station: PageStation, demo: Any, new_page: Any
) -> None:
    page = new_page(quiet=False)
    page.route("**/v1/events", lambda route: route.abort())
    reading = station.open_reading(demo["id"], "everything")
    enter_reading(page, station, reading)
    held = hold(page, f"**/v1/readings/{reading['id']}", "GET")
    # Finishing fetches the reading first. That answer is taken from the service now and arrives last.
    page.click("[data-act=finish]")
    wait_for_request(page, held)
    late = held[0].fetch()
    decide(page, "j", "c")
    wait_until_saved(page)
    assert len(read_store(page, "reading")[0]["decisions"]) == 1
    let_go(page, held, lambda route: route.fulfill(response=late))
    assert len(read_store(page, "reading")[0]["decisions"]) == 1


def test_the_question_about_an_examination_does_not_come_over_the_next_one(
    station: PageStation, demo: Any, new_page: Any
) -> None:
    page = new_page(quiet=False)
    mirror_demo(page, demo)
    page.goto(station.address)
    wait_until(page, "store.session")
    open_study(page, demo["id"])
    page.wait_for_selector("dialog[data-name=reading]")
    page.keyboard.press("Escape")
    held = hold(page, f"**/v1/studies/{demo['id']}", "GET")
    page.click("[data-act=begin]")
    wait_for_request(page, held)
    open_study(page, OTHER)
    # The next examination asks its own question, and the late answer brings no second one.
    page.wait_for_selector("dialog[data-name=reading]")
    let_go(page, held)
    assert page.locator("dialog[data-name=reading]").count() == 1
    assert page.locator("dialog .earlier").count() == 0
