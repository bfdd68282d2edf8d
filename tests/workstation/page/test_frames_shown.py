"""The picture: the frame that is drawn is the frame that is named, whatever the service does."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from page_probe import (
    STOP_WATCHING,
    WATCH_PANES,
    pass_frames,
    read_panes,
    read_store,
    set_store,
    wait_for_frame,
    wait_until,
)
from page_service import STUDY, FakeService, make_reading, make_suggestion

OpenPage = Callable[..., Any]


def go(page: Any, index: int) -> None:
    set_store(page, index=index, playing=None)


def test_the_picture_is_large_and_names_its_frame_and_both_clocks(open_page: OpenPage) -> None:
    page = open_page(FakeService())
    box = page.locator(".picture").first.bounding_box()
    assert box["width"] >= 512
    assert box["height"] >= 512
    timeline = page.locator("#timeline").bounding_box()
    assert timeline["y"] + timeline["height"] <= 800
    go(page, 90)
    wait_for_frame(page, 90)
    caption = page.locator("figcaption").first.inner_text()
    # 90 frames at 30 a second of playback and two a second of the capsule.
    assert "playback 0:00:03.000" in caption
    assert "exam 0:00:45" in caption


def test_an_exam_clock_that_is_not_known_is_said_to_be_unknown(open_page: OpenPage) -> None:
    page = open_page(FakeService())
    page.evaluate(
        """() => import('/page/main.js').then(({ page }) => {
          const { study } = page.store.get();
          page.store.set({ study: { ...study, recording: { ...study.recording, capture_scale: null } }, index: 30 });
        })"""
    )
    wait_for_frame(page, 30)
    assert "Exam clock unknown" in page.locator("figcaption").first.inner_text()


@pytest.mark.parametrize("dual", [False, True])
def test_playback_never_shows_a_frame_under_the_index_of_another(open_page: OpenPage, dual: bool) -> None:
    page = open_page(FakeService(delay_s=dict.fromkeys(range(0, 600, 7), 0.05)))
    set_store(page, rate=40, dual=dual)
    page.evaluate(WATCH_PANES)
    page.keyboard.press(" ")
    wait_until(page, "store.index > 60")
    page.keyboard.press("Shift+ ")
    page.keyboard.press("Shift+ ")
    wait_until(page, "store.index < 30")
    watched = page.evaluate(STOP_WATCHING)
    assert len({each["drawn"] for each in watched}) > 50
    assert [each for each in watched if each["drawn"] != each["named"]] == []


def test_a_frame_that_failed_for_a_passing_reason_comes_by_itself(open_page: OpenPage) -> None:
    service = FakeService(refuse={f"studies/{STUDY}/frames/300": (503, "busy")})
    page = open_page(service)
    go(page, 300)
    page.wait_for_selector(".pane .no-picture:not([hidden])")
    # The reader may look elsewhere meanwhile: what failed is not kept.
    go(page, 302)
    wait_for_frame(page, 302)
    go(page, 300)
    service.refuse.clear()
    wait_until(page, "store.shown.index === 300 && store.shown.failure === null")
    assert read_panes(page)[0]["drawn"] == 300


def test_a_frame_that_is_damaged_is_asked_for_once(open_page: OpenPage) -> None:
    service = FakeService(lost={300: ("corrupt", "")})
    page = open_page(service)
    go(page, 300)
    page.wait_for_selector(".pane .no-picture:not([hidden])")
    pass_frames(page, 60)
    assert len([path for path in service.requests if path.endswith("/frames/300")]) == 1


def test_jumps_to_and_fro_never_show_a_frame_under_the_index_of_another(open_page: OpenPage) -> None:
    page = open_page(FakeService(delay_s={index: 0.02 * (index % 9) for index in range(600)}))
    page.evaluate(WATCH_PANES)
    for index in (300, 5, 599, 120, 301, 299, 44, 520, 17):
        go(page, index)
        pass_frames(page, 2)
    wait_for_frame(page, 17)
    watched = page.evaluate(STOP_WATCHING)
    assert [each for each in watched if each["drawn"] != each["named"]] == []


def test_an_answer_that_comes_late_is_not_drawn(open_page: OpenPage) -> None:
    service = FakeService(delay_s={300: 0.6})
    page = open_page(service)
    go(page, 300)
    wait_until(page, "document.querySelector('.waiting:not([hidden])')")
    # The caption still names the picture that is on the screen.
    assert read_panes(page)[0]["named"] == read_panes(page)[0]["drawn"] == 0
    go(page, 20)
    wait_for_frame(page, 20)
    pass_frames(page, 54)
    assert read_panes(page)[0] == {"drawn": 20, "named": 20, "note": ""}


def record_urgency(page: Any) -> dict[str, list[str | None]]:
    """Return a dictionary that takes up the urgency of each request for pictures, by the end of its address."""
    found: dict[str, list[str | None]] = {}

    def note(request: Any) -> None:
        place = request.url.rpartition(f"{STUDY}/")[2]
        if place.startswith(("frames/", "strip")):
            found.setdefault(place, []).append(request.headers.get("priority"))

    page.on("request", note)
    return found


def test_the_picture_on_the_screen_is_the_most_urgent(open_page: OpenPage) -> None:
    page = open_page(FakeService())
    found = record_urgency(page)
    go(page, 300)
    wait_for_frame(page, 300)
    box = page.locator(".slider").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 5)
    wait_until(page, "document.querySelector('.preview:not([hidden]) canvas:not([hidden])')")
    while not any(place.startswith("strip") for place in found):
        pass_frames(page, 5)
    assert found["frames/300"] == ["u=1"]
    assert found["frames/301"] == found["frames/299"] == ["u=6"]
    small = [urgency for place, urgency in found.items() if "size=144" in place]
    assert set(map(tuple, small)) == {("u=4",)}
    assert [urgency for place, urgency in found.items() if place.startswith("strip")] == [["u=6"]]


def test_a_frame_that_was_fetched_ahead_and_is_waited_for_becomes_urgent(open_page: OpenPage) -> None:
    page = open_page(FakeService(delay_s={302: 0.5}))
    found = record_urgency(page)
    go(page, 300)
    wait_for_frame(page, 300)
    while "frames/302" not in found:
        pass_frames(page, 1)
    go(page, 302)
    wait_for_frame(page, 302)
    assert found["frames/302"] == ["u=6", "u=1"]
    assert read_panes(page)[0] == {"drawn": 302, "named": 302, "note": ""}


def test_a_click_waits_for_no_picture_that_is_on_its_way(open_page: OpenPage) -> None:
    page = open_page(FakeService(delay_s={300: 30.0}))
    go(page, 300)
    pass_frames(page, 2)
    box = page.locator(".slider").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 4, box["y"] + 5)
    wait_until(page, "store.shown?.index === store.index")
    (index,) = read_store(page, "index")
    assert 140 < index < 160
    assert read_panes(page)[0] == {"drawn": index, "named": index, "note": ""}


def test_a_frame_that_answers_for_another_is_refused(open_page: OpenPage) -> None:
    page = open_page(FakeService(wrong={50: 51}))
    go(page, 50)
    wait_for_frame(page, 50)
    shown = read_panes(page)[0]
    assert shown["drawn"] is None
    assert "sent frame 51 for frame 50" in shown["note"]


@pytest.mark.parametrize(
    ("status", "detail", "said"),
    [
        ("corrupt", "damaged", "damaged in the recording"),
        ("corrupt", "depends_on_damaged", "builds on a damaged one"),
        ("missing", "", "does not hold it"),
    ],
)
def test_a_frame_without_a_picture_is_said_to_have_none(
    open_page: OpenPage, status: str, detail: str, said: str
) -> None:
    page = open_page(FakeService(lost={60: (status, detail)}))
    go(page, 60)
    wait_for_frame(page, 60)
    shown = read_panes(page)[0]
    assert shown["drawn"] is None
    assert said in shown["note"]
    assert "playback 0:00:02.000" in page.locator("figcaption").first.inner_text()
    page.keyboard.press("ArrowRight")
    wait_for_frame(page, 61)
    assert read_panes(page)[0] == {"drawn": 61, "named": 61, "note": ""}


def test_a_frame_that_failed_is_asked_for_again_when_the_service_is_back(open_page: OpenPage) -> None:
    service = FakeService(refuse={})
    page = open_page(service)
    service.refuse["studies/" + "0" * 32 + "/frames/70"] = (503, "database_busy")
    go(page, 70)
    wait_until(page, "document.querySelector('.no-picture:not([hidden])')")
    assert "refused with 503" in read_panes(page)[0]["note"]
    service.refuse.clear()
    set_store(page, connected=False)
    set_store(page, connected=True)
    wait_until(page, "document.querySelector('.pane .picture:not([hidden])')")
    assert read_panes(page)[0]["drawn"] == 70


def test_a_held_key_scrubs_until_it_is_released(open_page: OpenPage) -> None:
    page = open_page(FakeService())
    set_store(page, rate=40)
    page.keyboard.down("ArrowRight")
    wait_until(page, "store.index > 15")
    page.keyboard.up("ArrowRight")
    assert read_store(page, "playing") == [None]
    page.keyboard.press("ArrowLeft")
    before = read_store(page, "index")[0]
    page.keyboard.press("ArrowLeft")
    assert read_store(page, "index")[0] == before - 1


def test_the_strip_shows_twelve_frames_on_each_side_of_the_peak(open_page: OpenPage) -> None:
    page = open_page(
        FakeService(suggestions=[make_suggestion(1, "polyp", 100, 140)], lost={125: ("corrupt", "damaged")})
    )
    page.keyboard.press("j")
    wait_for_frame(page, 120)
    wait_until(page, "document.querySelectorAll('.cell[data-lack]').length === 1")
    cells = page.locator(".cell").evaluate_all("(cells) => cells.map((cell) => Number(cell.dataset.index))")
    assert cells == list(range(108, 133))
    assert page.locator(".cell[data-lack]").get_attribute("data-index") == "125"
    page.locator(".cell").first.click()
    wait_for_frame(page, 108)


def test_the_cells_of_the_strip_have_names_before_their_pictures(open_page: OpenPage) -> None:
    page = open_page(FakeService(refuse={f"studies/{STUDY}/strip": (503, "busy")}))
    assert page.locator(".cell:not([hidden])").count() == 13
    assert page.locator(".cell:not([hidden]):not([aria-label])").count() == 0
    assert page.inner_text(".strip h2") == "Frames 0 to 12"


def test_the_contour_is_drawn_only_while_its_key_is_held(open_page: OpenPage) -> None:
    page = open_page(FakeService())
    assert page.locator(".contour.on").count() == 0
    page.keyboard.down("m")
    wait_until(page, "document.querySelector('.contour.on path')?.getAttribute('d').length > 20")
    page.keyboard.up("m")
    assert page.locator(".contour.on").count() == 0


def test_pictures_are_fetched_while_others_are_decoded(open_page: OpenPage) -> None:
    service = FakeService()
    page = open_page(service)
    # The frames around the first one are there before the decoder stops.
    pass_frames(page, 60)
    # From now on no picture gets decoded, as on a computer that is busy; the next ones are fetched all the same.
    page.evaluate("() => { window.createImageBitmap = () => new Promise(() => {}); }")
    service.requests.clear()
    set_store(page, rate=15)
    page.keyboard.press(" ")
    pass_frames(page, 90)
    assert len({path for path in service.requests if "/frames/" in path}) >= 8


def test_the_line_about_the_pace_is_not_written_with_every_frame(open_page: OpenPage) -> None:
    page = open_page(FakeService(delay_s=dict.fromkeys(range(600), 0.15)))
    set_store(page, rate=40)
    page.evaluate(
        """() => { window.written = [];
        new MutationObserver(() => window.written.push(performance.now()))
          .observe(document.querySelector('.pace'), { childList: true, characterData: true, subtree: true }); }"""
    )
    page.keyboard.press(" ")
    page.locator(".pace", has_text="pictures come no faster").wait_for()
    wait_until(page, "store.index > 60")
    written = page.evaluate("window.written")
    assert all(after - before >= 900 for before, after in pairwise(written[1:]))


def test_what_is_left_is_written_into_the_same_elements(open_page: OpenPage) -> None:
    progress = {
        "suggestions": 0,
        "decided": 0,
        "seen_share": 0.0,
        "seen_share_small_bowel": None,
        "seconds": 0,
    }
    page = open_page(FakeService(reading=make_reading(progress=progress)))
    page.evaluate(
        """() => { window.elements = 0;
        new MutationObserver((changes) => { for (const { addedNodes } of changes)
          window.elements += [...addedNodes].filter((node) => node.nodeType === Node.ELEMENT_NODE).length; })
          .observe(document.querySelector('.after'), { childList: true, subtree: true }); }"""
    )
    set_store(page, coverage={"seen": [[0, 120]], "skimmed": []})
    assert "480 (80 %)" in page.inner_text(".after")
    assert "unseen frame, 120" in page.inner_text(".after button")
    assert page.evaluate("window.elements") == 0
    set_store(page, coverage={"seen": [[0, 600]], "skimmed": []})
    assert "seen every frame" in page.inner_text(".after")
    assert not page.is_visible(".after button")
