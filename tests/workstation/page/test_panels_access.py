"""Access for everybody: axe finds nothing in any state, and the keyboard alone leads from the start to the report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from page_probe import decide, read_store, wait_until, wait_until_looked_at
from page_station import PageStation, enter_reading, wait_until_saved

axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
)


def complaints(page: Any) -> list[str]:
    """Return what axe finds, each with its place. Parts inside the frame of a report are not the page's."""
    found = axe.Axe().run(page, options={"iframes": False}).response["violations"]
    return [
        f"{rule['id']}: {node['target']} {node['failureSummary'][:300]}"
        for rule in found
        for node in rule["nodes"]
    ]


Prepare = Callable[[Any, PageStation, dict[str, Any]], None]


def in_reading(page: Any, station: PageStation, demo: dict[str, Any], way: str = "suggestions_first") -> None:
    enter_reading(page, station, station.open_reading(demo["id"], way))


def empty_store(page: Any, station: PageStation, demo: dict[str, Any]) -> None:
    page.route("**/v1/studies?*", lambda route: route.fulfill(json={"studies": [], "total": 0}))
    page.goto(station.address)
    page.wait_for_selector(".welcome:not([hidden])")


def examinations(page: Any, station: PageStation, demo: dict[str, Any]) -> None:
    error = {"code": "input", "message": "the recording is gone", "hint": "put it back"}
    running = {**demo["job"], "state": "running", "frames_done": 120, "frames_total": 600}
    rows = [
        demo,
        {
            **demo,
            "id": "1" * 32,
            "state": "failed",
            "job": {**demo["job"], "state": "failed"},
            "error": error,
        },
        {**demo, "id": "2" * 32, "state": "reading", "job": running},
    ]
    page.route("**/v1/studies?*", lambda route: route.fulfill(json={"studies": rows, "total": 3}))
    page.goto(station.address)
    page.wait_for_selector(".job[data-state=failed]")


def dialog_of(act: str) -> Prepare:
    def prepare(page: Any, station: PageStation, demo: dict[str, Any]) -> None:
        page.goto(station.address)
        page.click(f"[data-act={act}]")
        page.wait_for_selector("dialog[open] li, dialog[open] [type=file]")

    return prepare


def choosing_a_reading(page: Any, station: PageStation, demo: dict[str, Any]) -> None:
    page.goto(station.address)
    page.locator(f"tr[data-id='{demo['id']}'] [data-act=open]").click()
    page.wait_for_selector("dialog[data-name=reading]")


def editing_the_examination(page: Any, station: PageStation, demo: dict[str, Any]) -> None:
    in_reading(page, station, demo)
    page.click("#banner [data-act=edit]")


def decided(page: Any, station: PageStation, demo: dict[str, Any]) -> None:
    in_reading(page, station, demo)
    decide(page, "j", "c", "x", "r", "3", "a", "2", "l", "1")
    wait_until_saved(page)
    page.keyboard.press("k")


def choosing_a_class(page: Any, station: PageStation, demo: dict[str, Any]) -> None:
    in_reading(page, station, demo)
    decide(page, "j", "r")
    page.wait_for_selector(".picker:not([hidden])")


def in_conflict(page: Any, station: PageStation, demo: dict[str, Any]) -> None:
    reading = station.open_reading(demo["id"])
    page.route("**/v1/events", lambda route: route.abort())
    enter_reading(page, station, reading)
    body = {"verdict": "rejected", "version": 0, "seconds": 1.0}
    station.send("PUT", f"readings/{reading['id']}/decisions/suggestion:1", body)
    decide(page, "j", "c")
    page.wait_for_selector(".conflict")


def without_service(page: Any, station: PageStation, demo: dict[str, Any]) -> None:
    in_reading(page, station, demo)
    page.keyboard.press("j")
    wait_until_looked_at(page)
    page.route("**/v1/**", lambda route: route.abort())
    page.keyboard.press("c")
    page.wait_for_selector(".unsaved:not([hidden])")


def finishing(page: Any, station: PageStation, demo: dict[str, Any]) -> None:
    in_reading(page, station, demo)
    page.click("[data-act=finish]")
    page.wait_for_selector("dialog[data-name=finish]")


def finished(page: Any, station: PageStation, demo: dict[str, Any]) -> None:
    reading = station.open_reading(demo["id"])
    station.send("POST", f"readings/{reading['id']}/finish")
    enter_reading(page, station, reading)


def report(page: Any, station: PageStation, demo: dict[str, Any]) -> None:
    in_reading(page, station, demo)
    body = "<!doctype html><html lang=en><title>Report</title><h1>Report</h1></html>"
    page.route("**/v1/readings/*/report", lambda route: route.fulfill(body=body, content_type="text/html"))
    page.click(".head [data-act=report]")
    page.frame_locator("iframe.report").locator("h1").wait_for()


def expired(page: Any, station: PageStation, demo: dict[str, Any]) -> None:
    page.goto(f"{station.origin}/")
    wait_until(page, "store.view === 'closed'")


STATES: dict[str, Prepare] = {
    "empty store": empty_store,
    "examinations": examinations,
    "add from a folder": dialog_of("folder"),
    "upload": dialog_of("upload"),
    "models": dialog_of("models"),
    "choosing a reading": choosing_a_reading,
    "editing the examination": editing_the_examination,
    "suggestions first": in_reading,
    "everything": lambda page, station, demo: in_reading(page, station, demo, "everything"),
    "suggestions hidden": lambda page, station, demo: in_reading(page, station, demo, "hidden_first"),
    "decided": decided,
    "choosing a class": choosing_a_class,
    "conflict": in_conflict,
    "without service": without_service,
    "finishing": finishing,
    "finished": finished,
    "report": report,
    "expired": expired,
}


@pytest.mark.parametrize("state", STATES)
def test_axe_finds_nothing(station: PageStation, demo: Any, new_page: Any, state: str) -> None:
    """Dark on the smaller screen, light on the larger one. axe is injected by the driver, past the content policy."""
    page = new_page(quiet=False, bypass_csp=True)
    STATES[state](page, station, demo)
    for theme, width, height in (("dark", 1280, 800), ("light", 1920, 1080)):
        page.evaluate("(theme) => { document.documentElement.dataset.theme = theme; }", theme)
        page.set_viewport_size({"width": width, "height": height})
        assert complaints(page) == [], theme
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_axe_finds_what_is_wrong(station: PageStation, demo: Any, new_page: Any) -> None:
    page = new_page(quiet=False, bypass_csp=True)
    empty_store(page, station, demo)
    page.evaluate("document.getElementById('studies-view').append(document.createElement('button'))")
    assert any(found.startswith("button-name") for found in complaints(page))


def test_the_keyboard_alone_leads_from_the_start_to_the_report(
    station: PageStation, demo: Any, new_page: Any
) -> None:
    page = new_page(quiet=False)
    page.goto(station.address)
    page.wait_for_selector(f"tr[data-id='{demo['id']}']")
    press_tab_until(
        page, f"active.closest('tr')?.dataset.id === '{demo['id']}' && active.dataset.act === 'open'"
    )
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[data-name=reading]")
    press_tab_until(page, "active.name === 'reader'")
    page.keyboard.type("Dr. Keys")
    press_tab_until(page, "active.closest('footer') && active.type === 'submit'")
    page.keyboard.press("Enter")
    page.wait_for_selector(".head .progress")
    assert page.evaluate("document.activeElement.id") == "viewer"
    decide(page, "j", "c", "x", "r", "1", "l", "1")
    wait_until_saved(page)
    press_tab_until(page, "active.dataset.act === 'finish'")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[data-name=finish]")
    press_tab_until(page, "active.type === 'submit'")
    page.keyboard.press("Enter")
    wait_until(page, "store.view === 'report'")
    reading = station.get(f"readings/{read_store(page, 'reading')[0]['id']}")
    assert (reading["state"], reading["reader"], len(reading["decisions"])) == ("finished", "Dr. Keys", 3)


def press_tab_until(page: Any, condition: str, most: int = 120) -> None:
    """Press Tab until a JavaScript expression on ``active``, the element in focus, is true."""
    for _ in range(most):
        if page.evaluate(f"() => {{ const active = document.activeElement; return Boolean({condition}); }}"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not lead to {condition}")
