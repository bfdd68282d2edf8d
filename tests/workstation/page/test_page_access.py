"""The picture and the timeline for everyone: axe finds nothing, and the layout holds at both sizes."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from page_probe import pass_frames, set_store, wait_for_frame, wait_until
from page_service import FakeService, make_reading, make_suggestion

OpenPage = Callable[..., Any]

SUGGESTIONS = [
    make_suggestion(1, "bleeding", 100, 140),
    make_suggestion(2, "polyp", 250, 251),
    make_suggestion(3, "ulcer", 400, 460),
]


def find_faults(page: Any) -> list[str]:
    """Return what axe finds: its rule and the elements."""
    spec = find_spec("axe_playwright_python")
    if spec is None or spec.origin is None:
        pytest.skip("axe_playwright_python is not installed")
    axe = (Path(spec.origin).parent / "axe.min.js").read_text(encoding="utf-8")
    page.evaluate(axe)
    found = page.evaluate("() => axe.run(document)")
    return [
        f"{rule['id']}: {node['target']} {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_axe_finds_nothing_while_a_recording_is_read(open_page: OpenPage, theme: str) -> None:
    reading = make_reading(
        landmarks={"stomach": {"index": 40, "time_s": 1.3}, "small-bowel": {"index": 90, "time_s": 3.0}}
    )
    service = FakeService(suggestions=SUGGESTIONS, reading=reading, lost={200: ("corrupt", "damaged")})
    page = open_page(service)
    set_store(page, theme=theme)
    page.keyboard.press("j")
    wait_for_frame(page, 120)
    assert find_faults(page) == []
    set_store(page, dual=True, index=200, rate=40)
    wait_for_frame(page, 200)
    box = page.locator(".slider").bounding_box()
    page.mouse.move(box["x"] + 300, box["y"] + 30)
    wait_until(page, "!document.querySelector('.preview').hidden")
    assert find_faults(page) == []
    page.keyboard.press("?")
    assert find_faults(page) == []


@pytest.mark.parametrize(("width", "height", "least"), [(1280, 800, 512), (1920, 1080, 720)])
@pytest.mark.parametrize("classes", [0, 6, 9])
def test_the_picture_stays_large_with_the_timeline_beside_it(
    open_page: OpenPage, width: int, height: int, least: int, classes: int
) -> None:
    suggestions = [
        make_suggestion(number, f"class{number}", 40 * number, 40 * number + 9) for number in range(classes)
    ]
    landmarks = {name: {"index": 100, "time_s": 3.3} for name in ("stomach", "small-bowel")}
    service = FakeService(
        suggestions=suggestions, lost={5: ("missing", "")}, reading=make_reading(landmarks=landmarks)
    )
    page = open_page(service, width=width, height=height)
    pass_frames(page, 2)
    picture = page.locator(".picture").first.bounding_box()
    timeline = page.locator("#timeline").bounding_box()
    assert min(picture["width"], picture["height"]) >= least
    assert picture["y"] + picture["height"] <= timeline["y"]
    assert timeline["y"] + timeline["height"] <= height
    assert page.evaluate("document.scrollingElement.scrollWidth <= window.innerWidth")


@pytest.mark.parametrize(("width", "height"), [(1010, 900), (1024, 768), (1280, 800)])
def test_the_picture_covers_no_control_in_a_narrow_window(
    open_page: OpenPage, width: int, height: int
) -> None:
    page = open_page(FakeService(suggestions=SUGGESTIONS), width=width, height=height)
    pass_frames(page, 2)
    glass, beside = (page.locator(part).first.bounding_box() for part in (".glass", ".beside"))
    assert glass["width"] > 250
    assert glass["x"] + glass["width"] <= beside["x"]
    assert beside["width"] >= 220
