"""The keys: one map without conflicts, silent while text is typed or letters are off, and the help that lists them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from page_probe import read_store, set_store, wait_for_frame, wait_until
from page_service import STUDY, FakeService, make_suggestion
from paths import ROOT

OpenPage = Callable[..., Any]

KEY_MAP = "() => import('/page/keys.js').then(({ KEY_MAP }) => KEY_MAP)"
KEY_NAMES = """() => import('/page/keys.js').then(
  ({ KEY_MAP, keyName }) => KEY_MAP.flatMap((entry) => entry.keys.map(keyName)))"""


def test_no_key_has_two_meanings_and_each_has_a_text(scripts: Any) -> None:
    entries = scripts.evaluate(KEY_MAP)
    keys = [key for entry in entries for key in entry["keys"]]
    assert len(keys) == len(set(keys))
    texts = set(scripts.evaluate("() => import('/page/texts.js').then(({ textKeys }) => textKeys())"))
    assert {f"key.{entry['action']}" for entry in entries} <= texts
    # Whatever prints a character must fall silent when letters are switched off (WCAG 2.1.4).
    assert all(
        entry.get("character") for entry in entries for key in entry["keys"] if len(key) == 1 and key != " "
    )


def test_the_document_for_readers_lists_every_key(scripts: Any) -> None:
    document = (ROOT / "docs" / "workstation.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"`([^`\n]+)`", document.partition("## Keys")[2]))
    names = scripts.evaluate(KEY_NAMES)
    assert [name for name in names if name not in listed] == []


def test_every_key_of_the_picture_does_what_it_says(open_page: OpenPage) -> None:
    page = open_page(
        FakeService(
            suggestions=[make_suggestion(1, "polyp", 100, 140), make_suggestion(2, "ulcer", 300, 320)]
        )
    )
    for key, index in (
        ("ArrowRight", 1), ("Shift+ArrowRight", 11), ("ArrowLeft", 10), ("Shift+ArrowLeft", 0), ("End", 599),
        ("Home", 0), ("j", 120), ("j", 310), ("k", 120),
    ):  # fmt: skip
        page.keyboard.press(key)
        assert read_store(page, "index") == [index], key
    page.keyboard.press(".")
    page.keyboard.press(".")
    page.keyboard.press(",")
    page.keyboard.press("D")
    assert read_store(page, "rate", "dual") == [10, True]
    page.keyboard.press("g")
    page.keyboard.type("55")
    assert read_store(page, "index") == [120]
    page.keyboard.press("Enter")
    wait_for_frame(page, 55)
    page.keyboard.press(" ")
    assert read_store(page, "playing")[0]["direction"] == 1
    page.keyboard.press("Shift+ ")
    assert read_store(page, "playing") == [None]


def test_a_frame_that_there_is_not_is_refused_in_one_line(open_page: OpenPage) -> None:
    page = open_page(FakeService())
    for typed in ("600", "-1", "x", ""):
        page.locator("#go-frame").fill(typed)
        page.locator("#go-frame").press("Enter")
        wait_until(page, "store.message?.kind === 'error'")
        message = read_store(page, "message")[0]["text"]
        assert "allowed is 0 to 599" in message
        assert "\n" not in message
        set_store(page, message=None)
    assert read_store(page, "index") == [0]


def test_letters_can_be_switched_off_and_stay_off(open_page: OpenPage) -> None:
    page = open_page(FakeService())
    page.keyboard.press("?")
    page.locator("#keys-letters").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("d")
    page.keyboard.press(".")
    assert read_store(page, "dual", "rate", "lettersOn") == [False, 8, False]
    page.keyboard.press("ArrowRight")
    assert read_store(page, "index") == [1]
    page.reload()
    wait_until(page, "store.lettersOn === false")
    # The button beside the picture still leads to the switch.
    page.get_by_role("button", name="Keys").click()
    page.locator("#keys-letters").check()
    page.keyboard.press("Escape")
    page.keyboard.press("d")
    assert read_store(page, "dual") == [True]


def test_the_help_names_every_key(open_page: OpenPage) -> None:
    page = open_page(FakeService())
    page.keyboard.press("?")
    shown = page.locator("#keys-dialog kbd").all_inner_texts()
    names = page.evaluate(KEY_NAMES)
    assert sorted(shown) == sorted(names)
    page.keyboard.press("ArrowRight")
    assert read_store(page, "index") == [0]


def test_theme_and_token_are_kept_where_they_belong(open_page: OpenPage) -> None:
    service = FakeService()
    page = open_page(service)
    assert "token" not in page.url
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.get_by_role("button", name="Light").click()
    page.reload()
    wait_until(page, "document.documentElement.dataset.theme === 'light'")
    assert page.evaluate("Object.values(localStorage).some((value) => value.includes('aaaa'))") is False
    assert page.context.cookies() == []
    assert [path for path in service.requests if "aaaa" in path] == []


def test_other_software_opens_the_page_on_one_study(open_page: OpenPage) -> None:
    service = FakeService()
    page = open_page(service, study=False)
    page.goto("about:blank")
    page.goto(f"{service.start}&study={STUDY}")
    wait_until(page, "document.querySelector('.pane .picture:not([hidden])')")
    assert page.evaluate("location.hash") == f"#/study/{STUDY}"
    page.goto("about:blank")
    page.goto(f"{service.start}&study=../x")
    wait_until(page, "!document.querySelector('#studies-view').hidden")
    assert page.evaluate("location.href") == f"{service.address}/"


def test_a_refused_token_ends_in_a_page_that_says_what_to_do(open_page: OpenPage) -> None:
    page = open_page(FakeService())
    page.evaluate("sessionStorage.setItem('capsule-edge.token', 'wrong')")
    page.keyboard.press("End")
    page.get_by_role("heading", name="Session expired").wait_for()
    assert "capsule-edge serve" in page.locator("#closed-view").inner_text()


def test_an_address_without_its_token_is_opened_with_it_in_the_same_tab(open_page: OpenPage) -> None:
    service = FakeService()
    page = open_page(service, study=False)
    page.evaluate("sessionStorage.clear()")
    page.goto("about:blank")
    page.goto(f"{service.address}/")
    page.get_by_role("heading", name="The full address is needed").wait_for()
    # The browser changes only the fragment of an address that is otherwise the same.
    page.goto(service.start)
    page.wait_for_selector("tr[data-id]")
    assert "token" not in page.url


@pytest.mark.parametrize("height", [800, 500])
def test_the_list_of_keys_can_be_closed_with_the_mouse(open_page: OpenPage, height: int) -> None:
    page = open_page(FakeService(), height=height)
    page.keyboard.press("?")
    close = page.locator("#keys-dialog").get_by_role("button", name="Close")
    page.evaluate("document.getElementById('keys-dialog').scrollTo(0, 9999)")
    box = close.bounding_box()
    assert 0 <= box["y"] <= height - box["height"]
    close.click()
    assert page.locator("#keys-dialog[open]").count() == 0
