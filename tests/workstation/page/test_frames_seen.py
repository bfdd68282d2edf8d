"""Frames count as seen after 1/15 s on a visible screen. The rule with exact times, and the whole page in a browser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from page_probe import pass_frames, read_store, set_store, wait_for_frame, wait_until
from page_service import READING, FakeService, make_reading

OpenPage = Callable[..., Any]

# Runs a script of [method, arguments...] on the rule of seen.js and returns what it reported.
_RUN_DWELL = """(calls) => import('/page/seen.js').then(({ createDwell }) => {
  const [seen, skimmed] = [[], []];
  const dwell = createDwell({ onSeen: (index) => seen.push(index), onSkimmed: (index) => skimmed.push(index) });
  for (const [method, ...values] of calls) dwell[method](...values);
  return { seen, skimmed };
})"""
VSYNC = 1000 / 60


def painted(at: float, *indices: int) -> list[Any]:
    return ["paint", list(indices), at, True]


def ticks(start: float, count: int, *, visible: bool = True) -> list[list[Any]]:
    return [["tick", start + VSYNC * number, visible] for number in range(1, count + 1)]


@pytest.mark.parametrize(
    ("calls", "seen", "skimmed"),
    [
        pytest.param([painted(0, 7), *ticks(0, 4)], [7], [], id="four frames of a 60 Hz screen are 1/15 s"),
        pytest.param([painted(0, 7), *ticks(0, 3), painted(4 * VSYNC - 5, 8)], [], [7], id="three are not"),
        pytest.param([painted(0, 7), painted(66.7, 8)], [7], [], id="without a tick in between"),
        pytest.param([painted(0, 7), *ticks(0, 30, visible=False)], [], [], id="hidden"),
        pytest.param([painted(0, 7), ["tick", 2000, True]], [], [], id="the browser painted nothing for 2 s"),
        pytest.param([painted(0, 7), ["interrupt"], ["tick", 90, True]], [], [], id="interrupted"),
        pytest.param([painted(0, 7, 8), painted(40, 8, 9), painted(80, 9, 10)], [8], [7], id="8 moved to another pane"),
        pytest.param([painted(0, 7), *ticks(0, 9), painted(200, 8), painted(210, 7)], [7], [8], id="reported once"),
        pytest.param([painted(0, 7), painted(0, 8)], [], [], id="never on the screen"),
    ],
)  # fmt: skip
def test_a_frame_is_seen_after_a_fifteenth_of_a_second(
    scripts: Any, calls: list[Any], seen: list[int], skimmed: list[int]
) -> None:
    assert scripts.evaluate(_RUN_DWELL, calls) == {"seen": seen, "skimmed": skimmed}


def posted(service: FakeService, kind: str) -> set[int]:
    return {index for body in service.posted for start, end in body[kind] for index in range(start, end)}


def flush(page: Any) -> None:
    page.evaluate("() => import('/page/main.js').then(({ page }) => page.seen.flush())")


def test_frames_that_rest_on_the_screen_are_reported_as_seen(open_page: OpenPage) -> None:
    service = FakeService(reading=make_reading())
    page = open_page(service)
    for index in (0, 1, 2, 3):
        if index:
            page.keyboard.press("ArrowRight")
        wait_for_frame(page, index)
        wait_until(page, "document.querySelector('.pane[data-seen=true]')")
    flush(page)
    assert posted(service, "seen") == {0, 1, 2, 3}
    assert page.locator("figcaption .mark").first.inner_text() == "seen"
    assert sum(body["seconds"] for body in service.posted) > 0


def test_both_panes_count(open_page: OpenPage) -> None:
    service = FakeService(reading=make_reading())
    page = open_page(service)
    page.keyboard.press("d")
    set_store(page, index=10)
    wait_for_frame(page, 11, pane=1)
    wait_until(page, "document.querySelectorAll('.pane[data-seen=true]').length === 2")
    flush(page)
    assert {10, 11} <= posted(service, "seen")


def test_fast_playback_is_skimmed_and_not_seen(open_page: OpenPage) -> None:
    service = FakeService(reading=make_reading())
    page = open_page(service)
    set_store(page, rate=40)
    page.keyboard.press(" ")
    wait_until(page, "store.index > 80")
    page.keyboard.press(" ")
    flush(page)
    seen, skimmed = posted(service, "seen"), posted(service, "skimmed")
    # At 40 a second a frame stays for a third of the time. A busy machine may hold many of them longer, not all.
    assert len(skimmed) > 8
    assert max(seen | skimmed) >= 80
    assert not seen & skimmed


def test_playback_at_fifteen_a_second_is_seen(open_page: OpenPage) -> None:
    service = FakeService(reading=make_reading())
    page = open_page(service)
    set_store(page, rate=15)
    page.keyboard.press(" ")
    wait_until(page, "store.index > 20")
    page.keyboard.press(" ")
    flush(page)
    assert set(range(21)) <= posted(service, "seen")
    assert posted(service, "skimmed") <= {read_store(page, "index")[0]}


def test_nothing_is_seen_behind_a_dialog_or_without_a_picture(open_page: OpenPage) -> None:
    service = FakeService(reading=make_reading(), lost={5: ("corrupt", "damaged")})
    page = open_page(service)
    wait_until(page, "document.querySelector('.pane[data-seen=true]')")
    set_store(page, index=5)
    wait_for_frame(page, 5)
    page.keyboard.press("?")
    assert page.locator("#keys-dialog[open]").count() == 1
    set_store(page, index=40)
    wait_for_frame(page, 40)
    pass_frames(page, 18)
    flush(page)
    assert posted(service, "seen") == {0}
    page.keyboard.press("Escape")
    wait_until(page, "document.querySelector('.pane[data-seen=true]')")
    flush(page)
    assert posted(service, "seen") == {0, 40}


def test_what_the_service_did_not_take_is_sent_again(open_page: OpenPage) -> None:
    service = FakeService(reading=make_reading())
    page = open_page(service)
    wait_until(page, "document.querySelector('.pane[data-seen=true]')")
    page.route("**/seen", lambda route: route.abort())
    flush(page)
    assert service.posted == []
    page.unroute("**/seen")
    flush(page)
    assert posted(service, "seen") == {0}


def test_what_was_seen_is_sent_when_the_page_is_left(open_page: OpenPage) -> None:
    service = FakeService(reading=make_reading())
    page = open_page(service)
    wait_until(page, "document.querySelector('.pane[data-seen=true]')")
    page.goto("about:blank")
    assert service.post_arrived.wait(10)
    assert posted(service, "seen") == {0}


def test_without_a_reading_nothing_is_reported(open_page: OpenPage) -> None:
    service = FakeService()
    page = open_page(service)
    pass_frames(page, 18)
    flush(page)
    assert service.posted == []
    assert page.locator("figcaption .mark").first.inner_text() == ""


def read_other(page: Any) -> None:
    """Open another reading, under a name."""
    other = make_reading(id="7" * 32)
    page.evaluate("(id) => sessionStorage.setItem(`capsule-edge.reader-of.${id}`, 'Dr. Test')", other["id"])
    set_store(page, reading=other)


def test_a_report_that_was_sent_while_another_was_on_its_way_stops_no_later_one(open_page: OpenPage) -> None:
    service = FakeService(reading=make_reading())
    page = open_page(service)
    wait_until(page, "document.querySelector('.pane[data-seen=true]')")
    page.route("**/seen", lambda route: route.abort())
    flush(page)
    read_other(page)
    wait_until(page, "store.coverage.seen.length")
    held: list[Any] = []
    page.unroute("**/seen")
    page.route(f"**/{READING}/seen", lambda route: held.append(route))
    page.evaluate("() => { import('/page/main.js').then(({ page }) => page.seen.flush().catch(() => {})); }")
    while not held:
        pass_frames(page, 1)
    # Leaving the page sends the second report, which the first sending has still on its list.
    with page.expect_response(f"**/{'7' * 32}/seen"):
        page.evaluate("() => { dispatchEvent(new Event('pagehide')); }")
    held[0].continue_()
    page.keyboard.press("ArrowRight")
    wait_until(page, "store.shown.index === 1 && document.querySelector('.pane[data-seen=true]')")
    flush(page)
    assert posted(service, "seen") == {0, 1}


def test_nothing_is_recorded_before_the_reader_has_a_name(open_page: OpenPage) -> None:
    service = FakeService(reading=make_reading(state="finished"))
    page = open_page(service)
    page.evaluate("(id) => sessionStorage.removeItem(`capsule-edge.reader-of.${id}`)", READING)
    # Another window opens the reading again that this one only looks at.
    set_store(page, reading=make_reading(version=2))
    wait_until(page, "document.querySelector('.pane[data-seen]')")
    pass_frames(page, 18)
    flush(page)
    assert service.posted == []
    page.evaluate("(id) => sessionStorage.setItem(`capsule-edge.reader-of.${id}`, 'Dr. Here')", READING)
    set_store(page, reading=make_reading(version=2))
    wait_until(page, "document.querySelector('.pane[data-seen=true]')")
    flush(page)
    assert {body["reader"] for body in service.posted} == {"Dr. Here"}
    assert posted(service, "seen") == {0}


def test_what_was_not_taken_is_sent_for_the_reading_it_was_seen_in(open_page: OpenPage) -> None:
    service = FakeService(reading=make_reading())
    page = open_page(service)
    wait_until(page, "document.querySelector('.pane[data-seen=true]')")
    page.route("**/seen", lambda route: route.abort())
    flush(page)
    read_other(page)
    wait_until(page, "store.coverage.seen.length")
    page.unroute("**/seen")
    flush(page)
    paths = [path.split("/")[3] for path in service.requests if path.endswith("/seen")]
    by_reading = {name: body["seen"] for name, body in zip(paths, service.posted, strict=True)}
    assert by_reading[READING] == [[0, 1]]
    assert by_reading["7" * 32] == [[0, 1]]


def test_a_finished_reading_shows_what_was_seen(open_page: OpenPage) -> None:
    coverage = {"seen": [[0, 600]], "skimmed": []}
    page = open_page(FakeService(reading=make_reading(state="finished", coverage=coverage)))
    wait_until(page, "document.querySelector('.pane[data-seen=true]')")
    assert read_store(page, "coverage") == [coverage]
    assert page.locator("figcaption .mark").first.inner_text() == "seen"
