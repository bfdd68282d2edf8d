"""A browser for the tests of the page, and the page open on a service of the test's choice."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from page_probe import set_store, wait_until  # noqa: E402
from page_service import STUDY, FakeService, serve_fake  # noqa: E402
from page_station import PageStation, run_station  # noqa: E402

from capsule_edge.runtime.phantom import Phantom, write_recording  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Return a function that serves a fake service and opens the page on its examination."""
    faults: list[str] = []
    with ExitStack() as stack:

        def open_one(
            service: FakeService,
            *,
            width: int = 1280,
            height: int = 800,
            reading: bool = True,
            looking: bool = True,
            study: bool = True,
        ) -> Any:
            stack.enter_context(serve_fake(service))
            context = chromium.new_context(viewport={"width": width, "height": height})
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(20_000)
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.goto(service.start)
            if study:
                page.evaluate(f"location.hash = '#/study/{STUDY}'")
                wait_until(page, "document.querySelector('.pane .picture:not([hidden])')")
            if study and reading and service.reading is not None:
                # The page asks who acts before it lets anyone decide.
                page.evaluate(
                    "(id) => sessionStorage.setItem(`capsule-edge.reader-of.${id}`, 'Dr. Test')",
                    service.reading["id"],
                )
                set_store(page, reading=service.reading)
            elif study and looking:
                set_store(page, looking=True)
            if study and not service.refuse:
                # The suggestions come after the first picture, and those of a reading are of its own result.
                wait_until(page, "store.resultId === (store.reading?.result_id ?? store.resultId ?? '')")
            return page

        yield open_one
    assert not faults, faults


@pytest.fixture(scope="module")
def scripts(chromium: Any) -> Iterator[Any]:
    """Return a page in which a test may import the page's modules and call their pure functions."""
    with serve_fake(FakeService()) as service:
        page = chromium.new_page()
        page.goto(service.start)
        yield page
        page.close()


@pytest.fixture(scope="session")
def station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageStation]:
    """Run the real service, with an allowed folder that holds the recording ``short.mp4``."""
    folder = tmp_path_factory.mktemp("recordings")
    write_recording(folder / "short.mp4", Phantom(3, frames=40, size=128))
    with run_station(tmp_path_factory.mktemp("station") / "home", folder) as running:
        yield running


@pytest.fixture(scope="session")
def demo(station: PageStation) -> Any:
    """Return the demo examination, read by the AI. Each test opens a reading of its own."""
    return station.add_demo()


@pytest.fixture
def new_page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Return a function that makes an empty page. An error that the page does not catch fails the test."""
    faults: list[str] = []
    with ExitStack() as stack:

        def make(*, width: int = 1280, height: int = 800, quiet: bool = True, **options: Any) -> Any:
            context = chromium.new_context(viewport={"width": width, "height": height}, **options)
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(20_000)
            page.on("pageerror", lambda error: faults.append(str(error)))
            if quiet:
                page.on("console", lambda line: line.type == "error" and faults.append(line.text))
            return page

        yield make
    assert not faults, faults
