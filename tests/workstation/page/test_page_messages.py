"""Messages that cover nothing, limits where one decides, and lists that begin anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from page_probe import pass_frames, read_store, set_store, wait_for_frame, wait_until
from page_service import STUDY, FakeService, make_reading, make_suggestion

OpenPage = Callable[..., Any]
PROGRESS = {
    "suggestions": 2, "decided": 0, "seen_share": 0.0, "seen_share_small_bowel": None, "seconds": 0, "version": 1,
}  # fmt: skip
SUGGESTIONS = [
    make_suggestion(1, "bleeding", 100, 140, more=((300, 304),)),
    make_suggestion(2, "polyp", 50, 51),
]


def read(**changes: Any) -> FakeService:
    return FakeService(suggestions=SUGGESTIONS, reading=make_reading(progress=PROGRESS, **changes))


def overlap(page: Any, first: str, second: str) -> bool:
    """Return whether two elements share a point of the screen."""
    one, two = (page.locator(each).first.bounding_box() for each in (first, second))
    return all(
        one[edge] < two[edge] + two[size] and two[edge] < one[edge] + one[size]
        for edge, size in (("x", "width"), ("y", "height"))
    )


def test_messages_cover_neither_picture_nor_controls_nor_search(open_page: OpenPage) -> None:
    page = open_page(read())
    set_store(page, message={"kind": "info", "text": "Confirmed: 1 Bleeding. " * 6})
    for part in (".stage", ".controls", ".strip", "#timeline", "#top", ".panel-scroll"):
        assert not overlap(page, "#message", part), part
    page.click("[data-act=list]")
    page.wait_for_selector("tr[data-id]")
    set_store(page, message={"kind": "info", "text": "Added."})
    for part in (".studies-head", "table.studies", "#top"):
        assert not overlap(page, "#message", part), part


def test_an_error_stays_beside_a_report_of_success_until_it_is_closed(open_page: OpenPage) -> None:
    page = open_page(read())
    page.clock.install()
    set_store(page, message={"kind": "error", "text": "the disk is full", "hint": ""})
    set_store(page, message={"kind": "info", "text": "Confirmed: 1 Bleeding."})
    said = page.locator(".message-line > span").all_inner_texts()
    assert said == ["The disk is full.", "Confirmed: 1 Bleeding."]
    page.clock.fast_forward(6100)
    assert page.locator(".message-line").count() == 1
    assert "disk" in page.inner_text("#message")
    page.locator(".message-line button").click()
    assert page.locator(".message-line").count() == 0
    assert read_store(page, "message") == [None]


def test_the_end_of_the_ai_is_said_with_the_number_of_suggestions(open_page: OpenPage) -> None:
    service = FakeService(suggestions=SUGGESTIONS)
    page = open_page(service)
    wait_until(page, "store.study && store.connected && store.resultId")
    set_store(page, study={**service.study, "state": "reading"})
    service.tell("study", {"id": STUDY, "state": "read"})
    wait_until(page, "store.message")
    assert read_store(page, "message")[0]["text"] == "The AI has read the recording: 2 suggestions."
    assert page.inner_text(".suggestions-box h3").lower() == "2 suggestions"


def test_the_limits_stand_over_the_suggestions_and_not_before_they_are_shown(open_page: OpenPage) -> None:
    service = FakeService(suggestions=SUGGESTIONS, not_new=["the model was trained on frames of this video"])
    page = open_page(service, looking=False)
    wait_until(page, "store.limits")
    assert page.locator(".limits").is_hidden()
    set_store(page, looking=True)
    assert "not new to the model" in page.inner_text(".limits .not-new")
    page.click(".limits summary")
    assert "The model was trained on frames of this video." in page.inner_text(".limits ul")


def test_order_and_filter_begin_anew_with_another_reading(open_page: OpenPage) -> None:
    decision = {"target": "suggestion:2", "verdict": "rejected", "label": None, "comment": "", "version": 2}
    page = open_page(read(decisions=[decision]))
    wait_until(page, "store.resultId && store.suggestions.length")
    page.select_option("[data-act=order]", "class")
    page.select_option("[data-act=filter]", "open")
    assert page.locator(".suggestion").count() == 1
    assert "hides 1 decided suggestion" in page.inner_text(".hides")
    page.click("[data-act=show-all]")
    assert page.locator(".suggestion").count() == 2
    assert page.locator(".hides").is_hidden()
    page.select_option("[data-act=filter]", "open")
    set_store(page, reading=make_reading(id="7" * 32, way="everything", progress=PROGRESS))
    assert read_store(page, "order", "filter") == ["time", "all"]
    names = page.locator(".suggestion .name").all_inner_texts()
    assert names == ["Polyp", "Bleeding"]


def test_a_chip_names_the_class_of_an_event_that_has_another(open_page: OpenPage) -> None:
    first = make_suggestion(1, "bleeding", 0, 7, more=((0, 7),))
    first["events"][1]["label"] = "polyp"
    page = open_page(FakeService(suggestions=[first], reading=make_reading(progress=PROGRESS)))
    labels = [{"key": "polyp", "name": "Polyp", "role": "finding"}]
    set_store(page, labels=labels)
    wait_until(page, "store.resultId && store.suggestions.length")
    page.keyboard.press("j")
    assert page.locator(".chips button").all_inner_texts() == [
        "frames 0 to 6, 0:00:00",
        "Polyp: frames 0 to 6, 0:00:00",
    ]


@pytest.mark.parametrize("width", [1024, 1280, 1920])
def test_rows_of_landmarks_keep_their_words_whole(open_page: OpenPage, width: int) -> None:
    names = ("stomach", "small-bowel", "colon", "end")
    marks = {
        name: {"index": 51_000 + at, "time_s": 7000.0 + at, "version": 1} for at, name in enumerate(names)
    }
    transit = {"unknown_for_lack_of": "capture_fps"}
    service = FakeService(
        frames=57_600, reading=make_reading(landmarks=marks, transit=transit, progress=PROGRESS)
    )
    page = open_page(service, width=width)
    for row in page.locator(".landmarks li").all():
        assert row.bounding_box()["height"] <= 60
        assert row.evaluate("(row) => row.scrollWidth <= row.clientWidth")
        for control in row.locator("button").all():
            assert control.evaluate("(each) => each.scrollWidth <= each.clientWidth + 1")
    assert page.locator(".transit dt").bounding_box()["height"] < 30


def test_a_click_on_contour_keeps_it_and_another_takes_it_away(open_page: OpenPage) -> None:
    page = open_page(FakeService())
    contour = page.get_by_role("button", name="Show what the model looked at")
    contour.click()
    page.wait_for_selector(".contour.on", state="attached")
    assert contour.get_attribute("aria-pressed") == "true"
    page.keyboard.press("ArrowRight")
    wait_for_frame(page, 1)
    page.wait_for_selector(".contour.on", state="attached")
    contour.click()
    assert page.locator(".contour.on").count() == 0
    assert contour.get_attribute("aria-pressed") == "false"
    page.keyboard.down("m")
    page.wait_for_selector(".contour.on", state="attached")
    page.keyboard.up("m")
    assert page.locator(".contour.on").count() == 0


def test_the_strip_says_whose_frames_it_shows_and_when_the_picture_is_elsewhere(open_page: OpenPage) -> None:
    page = open_page(read())
    wait_until(page, "store.resultId && store.suggestions.length")
    page.keyboard.press("j")
    wait_for_frame(page, 120)
    assert page.inner_text(".strip h2") == "Frames 108 to 132 (suggestion 1)"
    page.keyboard.press("End")
    wait_for_frame(page, 599)
    # Nearest the end is the second event of the suggestion.
    assert page.inner_text(".strip h2") == "Frames 290 to 314 (suggestion 1); the picture is elsewhere"
    page.hover(".cell >> nth=0")
    pass_frames(page, 2)
    assert (
        page.locator(".cell").first.evaluate("(cell) => getComputedStyle(cell, '::before').content")
        == '"290"'
    )
