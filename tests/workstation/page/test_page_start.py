"""The view on which the page opens: the demo where there is nothing else, else the list or the study in the address."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from page_probe import read_store, wait_until
from page_service import STUDY, FakeService

OpenPage = Callable[..., Any]
FOLDER = {"id": "0", "name": "recordings"}


def test_the_demo_opens_by_itself_where_there_is_nothing_else(open_page: OpenPage) -> None:
    page = open_page(FakeService(origin="demo"), study=False)
    wait_until(page, f"store.studyId === '{STUDY}'")
    assert page.url.endswith(f"#/study/{STUDY}")
    # The list stays within reach, also when the page is loaded once more.
    page.evaluate("location.hash = '#/'")
    page.reload()
    wait_until(page, "store.session && store.view === 'studies'")


@pytest.mark.parametrize(
    "service", [FakeService(), FakeService(origin="demo", folders=[FOLDER])], ids=["recording", "folder"]
)
def test_the_list_opens_where_there_is_more(open_page: OpenPage, service: FakeService) -> None:
    page = open_page(service, study=False)
    wait_until(page, "store.session && document.querySelector('tr[data-id]')")
    page.wait_for_timeout(200)
    assert read_store(page, "view")[0] == "studies"


def test_the_study_in_the_address_opens(open_page: OpenPage) -> None:
    service = FakeService()
    page = open_page(service, study=False)
    page.goto("about:blank")
    page.goto(f"{service.start}&study={STUDY}")
    wait_until(page, "store.view === 'reading'")
    assert "token" not in page.url
