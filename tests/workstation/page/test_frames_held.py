"""Findings and landmarks are set on the frame that was on the screen; keys act on what is marked."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from page_probe import decide, pass_frames, read_store, set_store, wait_for_frame, wait_until
from page_service import FakeService, make_reading, make_suggestion

OpenPage = Callable[..., Any]
LABELS = [{"key": "polyp", "name": "Polyp", "role": "finding"}]
FINDING = {
    "target": "finding:" + "f" * 32, "verdict": "added", "label": "polyp", "start_index": 30, "end_index": 31,
    "key_index": 30, "comment": "", "seconds": None, "decided_at": "2026-11-30T10:00:00.000000Z", "version": 2,
}  # fmt: skip


def open_reading(open_page: OpenPage, service: FakeService, **changes: Any) -> Any:
    progress = {
        "suggestions": 1,
        "decided": 0,
        "seen_share": 0.0,
        "seen_share_small_bowel": None,
        "seconds": 0,
    }
    service.reading = make_reading(progress=progress, **changes)
    page = open_page(service)
    set_store(page, labels=LABELS)
    # Nothing is acknowledged, so that what the page wants to save can be read from its store.
    page.route("**/v1/readings/**", lambda route: route.abort())
    return page


def waiting(page: Any) -> list[dict[str, Any]]:
    return read_store(page, "unsaved")[0]


@pytest.mark.parametrize(("key", "choice", "field"), [("l", "2", "index"), ("a", "1", "key_index")])
def test_what_is_set_during_playback_lands_on_the_frame_that_the_picker_names(
    open_page: OpenPage, key: str, choice: str, field: str
) -> None:
    page = open_reading(open_page, FakeService())
    set_store(page, rate=15)
    page.keyboard.press(" ")
    wait_until(page, "store.index > 5")
    page.keyboard.press(key)
    title = page.inner_text(".picker h3")
    named = int(re.search(r"frame (\d+)", title, re.IGNORECASE).group(1))
    assert read_store(page, "playing") == [None]
    pass_frames(page, 20)
    page.keyboard.press(choice)
    (action,) = waiting(page)
    assert action["body"][field] == named
    assert read_store(page, "index", "shown")[1]["index"] == named


def test_nothing_is_set_on_a_frame_that_is_not_drawn_yet(open_page: OpenPage) -> None:
    page = open_reading(open_page, FakeService(delay_s={300: 1.5}))
    set_store(page, index=300)
    for keys in ("l2", "a1", "a0"):
        for key in keys:
            page.keyboard.press(key)
        assert "frame 300 is not on the screen" in page.inner_text("#message")
    page.click(".landmarks li:first-child [data-act=set]")
    assert waiting(page) == []
    assert read_store(page, "rangeStart") == [None]
    wait_for_frame(page, 300)
    page.keyboard.press("l")
    page.keyboard.press("2")
    assert [action["body"] for action in waiting(page)] == [
        {"index": 300, "version": 0, "reader": "Dr. Test"}
    ]


def test_a_frame_that_was_left_while_the_picker_was_open_is_not_marked(open_page: OpenPage) -> None:
    page = open_reading(open_page, FakeService())
    page.keyboard.press("a")
    set_store(page, index=7)
    wait_for_frame(page, 7)
    page.keyboard.press("1")
    assert "frame 0 is not on the screen" in page.inner_text("#message")
    assert waiting(page) == []


def test_a_suggestion_chosen_on_the_timeline_takes_the_keys_from_a_finding(open_page: OpenPage) -> None:
    service = FakeService(suggestions=[make_suggestion(1, "polyp", 290, 310)])
    page = open_reading(open_page, service, decisions=[FINDING])
    # The suggestion was selected before: choosing it again changes nothing but the finding.
    page.keyboard.press("j")
    page.click(".finding [data-act=select]")
    assert read_store(page, "selectedFinding") == [FINDING["target"]]
    row = page.locator(".names li", has_text="Polyp").bounding_box()
    box = page.locator(".slider").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, row["y"] + row["height"] / 2)
    assert read_store(page, "selected", "selectedFinding") == [1, None]
    decide(page, "x")
    assert [(each["target"], each["body"]["verdict"]) for each in waiting(page)] == [
        ("suggestion:1", "rejected")
    ]


def test_a_finding_that_was_removed_is_let_go(open_page: OpenPage) -> None:
    page = open_reading(open_page, FakeService(), decisions=[FINDING])
    page.click(".finding [data-act=select]")
    decide(page, "x")
    wait_until(page, "store.selectedFinding === null")
    page.keyboard.press("x")
    assert [each["target"] for each in waiting(page)] == [FINDING["target"]]
    assert "Select a suggestion first" in page.inner_text("#message")
