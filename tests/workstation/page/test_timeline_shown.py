"""The timeline: its scale, its rows, seeking with mouse and keys, and what a screen reader hears."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from page_probe import pass_frames, read_panes, read_store, set_store, wait_for_frame, wait_until
from page_service import STUDY, FakeService, make_reading, make_suggestion

OpenPage = Callable[..., Any]
SUGGESTIONS = [
    make_suggestion(1, "bleeding", 100, 140, more=((300, 304),)),
    make_suggestion(2, "polyp", 250, 251, score=0.7),
]

# Calls a function of a module of the page.
CALL = "([module, name, ...values]) => import(`/page/${module}`).then((script) => script[name](...values))"
VIEW = "() => import('/page/main.js').then(({ page }) => page.timeline.view())"
# Colours of one row of the timeline: the pixels in the middle of its height, as [red, green, blue] for each column.
ROW_PIXELS = """(name) => {
  const item = [...document.querySelectorAll('.names li')].find((each) => each.textContent.startsWith(name));
  const canvas = document.querySelector('.track canvas');
  const pixels = canvas.width / canvas.clientWidth;
  const y = Math.floor((parseFloat(item.style.top) + parseFloat(item.style.height) / 2 + 1) * pixels);
  const data = canvas.getContext('2d').getImageData(0, y, canvas.width, 1).data;
  return Array.from({ length: canvas.width }, (_, x) => [...data.slice(4 * x, 4 * x + 3)]);
}"""


def names_of(page: Any) -> list[str]:
    return page.locator(".names li").all_inner_texts()


def click_at(page: Any, frame: int, *, frames: int = 600, row: str = "Colour") -> None:
    box = page.locator(".slider").bounding_box()
    item = page.locator(".names li", has_text=row).bounding_box()
    page.mouse.click(box["x"] + (frame + 0.5) / frames * box["width"], item["y"] + item["height"] / 2)


def test_zoom_keeps_the_frame_under_the_pointer_and_stays_inside(scripts: Any) -> None:
    view = scripts.evaluate(
        CALL, ["timeline_scale.js", "zoomView", {"from": 0, "to": 57600}, 57600, 0.5, 14400]
    )
    assert view == {"from": 7200, "to": 36000}
    share = (14400 - view["from"]) / (view["to"] - view["from"])
    assert share == 14400 / 57600
    edge = scripts.evaluate(CALL, ["timeline_scale.js", "zoomView", view, 57600, 4, 7200])
    assert edge == {"from": 0, "to": 57600}
    closest = scripts.evaluate(CALL, ["timeline_scale.js", "zoomView", view, 57600, 1e-9, 20000])
    assert closest["to"] - closest["from"] == 40


def test_a_view_moves_and_follows_within_the_recording(scripts: Any) -> None:
    assert scripts.evaluate(CALL, ["timeline_scale.js", "panView", {"from": 10, "to": 110}, 600, -0.5]) == {
        "from": 0, "to": 100,
    }  # fmt: skip
    assert scripts.evaluate(CALL, ["timeline_scale.js", "follow", {"from": 0, "to": 100}, 600, 50]) == {
        "from": 0, "to": 100,
    }  # fmt: skip
    moved = scripts.evaluate(CALL, ["timeline_scale.js", "follow", {"from": 0, "to": 100}, 600, 100])
    assert moved["from"] <= 100 < moved["to"]


def test_the_clock_follows_a_variable_rate(scripts: Any) -> None:
    # Frames 0 to 9 take one second each, frames 10 to 19 a tenth.
    timeline = {
        "frames": 20, "bins": 4, "duration_s": 11.0, "start_index": [0, 5, 10, 15], "start_time_s": [0, 5, 10, 10.5],
    }  # fmt: skip
    times = scripts.evaluate(
        "(timeline) => import('/page/timeline_scale.js').then(({ createClock }) => {"
        " const clock = createClock(timeline);"
        " return [clock.timeOf(3), clock.timeOf(12), clock.indexOf(5), clock.indexOf(10.25)]; })",
        timeline,
    )
    assert times == pytest.approx([3, 10.2, 5, 12.5])


@pytest.mark.parametrize(
    ("start", "end", "most"), [(0, 28800, 9), (0, 20, 10), (13.2, 13.9, 5), (100, 100.01, 4)]
)
def test_marks_of_the_clock_are_round_and_few(scripts: Any, start: float, end: float, most: int) -> None:
    found = scripts.evaluate(CALL, ["timeline_scale.js", "clockMarks", start, end, most])
    assert len(found["marks"]) <= most + 1
    assert all(start - 1e-6 <= mark <= end + 1e-6 for mark in found["marks"])


def test_ranges_are_added_united_and_subtracted(scripts: Any) -> None:
    def call(name: str, *values: Any) -> Any:
        return scripts.evaluate(CALL, ["ranges.js", name, *values])

    assert call("addRange", [[0, 2], [5, 7], [9, 10]], 2, 5) == [[0, 7], [9, 10]]
    assert call("addRange", [[5, 7]], 0, 2) == [[0, 2], [5, 7]]
    assert call("addRange", [], 3, 3) == []
    assert call("uniteRanges", [[0, 4]], [[2, 6], [8, 9]]) == [[0, 6], [8, 9]]
    assert call("subtractRanges", [[0, 10]], [[2, 3], [5, 7], [9, 12]]) == [[0, 2], [3, 5], [7, 9]]
    assert [call("hasFrame", [[2, 4], [6, 7]], index) for index in range(1, 8)] == [
        False, True, True, False, False, True, False,
    ]  # fmt: skip
    assert call("countFrames", [[2, 4], [6, 7]]) == 3


def test_classes_without_suggestions_take_no_row(open_page: OpenPage) -> None:
    page = open_page(FakeService(suggestions=SUGGESTIONS))
    assert names_of(page) == ["By frame: exam clock", "Colour", "Bleeding", "Polyp", "Seen by you"]


def test_hidden_first_shows_nothing_of_the_model_before_the_second_pass(open_page: OpenPage) -> None:
    reading = make_reading(way="hidden_first", **{"pass": "first"})
    page = open_page(FakeService(suggestions=SUGGESTIONS, reading=reading))
    wait_until(page, "document.querySelectorAll('.names li').length === 3")
    assert names_of(page) == ["By frame: exam clock", "Colour", "Seen by you"]
    page.keyboard.press("j")
    assert read_store(page, "selected", "index") == [None, 0]
    page.keyboard.down("m")
    pass_frames(page, 12)
    assert page.locator(".contour.on").count() == 0
    page.keyboard.up("m")
    assert "leeding" not in page.locator(".slider").get_attribute("aria-valuetext")
    set_store(page, reading={**reading, "pass": "second"})
    wait_until(page, "document.querySelectorAll('.names li').length === 5")


def test_a_click_shows_the_frame_and_a_drag_scrubs(open_page: OpenPage) -> None:
    page = open_page(FakeService(suggestions=SUGGESTIONS))
    click_at(page, 420)
    wait_for_frame(page, 420)
    box = page.locator(".slider").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 30, steps=12)
    wait_until(page, "store.index > 530 && store.shown.index === store.index")
    page.mouse.up()
    assert read_panes(page)[0]["drawn"] == read_panes(page)[0]["named"]


def test_a_click_on_a_narrow_mark_leads_to_the_peak_of_its_event(open_page: OpenPage) -> None:
    page = open_page(FakeService(suggestions=SUGGESTIONS))
    click_at(page, 252, row="Polyp")
    wait_for_frame(page, 250)
    assert read_store(page, "selected") == [2]


def test_keys_zoom_and_move_the_timeline(open_page: OpenPage) -> None:
    page = open_page(FakeService(suggestions=SUGGESTIONS))
    assert page.evaluate(VIEW) == {"from": 0, "to": 600}
    set_store(page, selected=2)
    page.keyboard.press("z")
    near = page.evaluate(VIEW)
    assert near["from"] <= 250 < near["to"]
    assert near["to"] - near["from"] == 40
    page.keyboard.press("]")
    assert page.evaluate(VIEW)["from"] == near["from"] + 20
    page.keyboard.press("[")
    assert page.evaluate(VIEW) == near
    page.keyboard.press("0")
    assert page.evaluate(VIEW) == {"from": 0, "to": 600}
    box = page.locator(".slider").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 20)
    page.mouse.wheel(0, -400)
    wait_until(page, "document.querySelector('.tools output').textContent !== ''")
    zoomed = page.evaluate(VIEW)
    assert zoomed["from"] < 150 < zoomed["to"]
    assert zoomed["to"] - zoomed["from"] < 400


def test_the_slider_tells_frame_clocks_and_the_nearest_suggestion(open_page: OpenPage) -> None:
    page = open_page(FakeService(suggestions=SUGGESTIONS))
    page.locator(".slider").focus()
    page.keyboard.press("ArrowRight")
    wait_for_frame(page, 1)
    slider = page.locator(".slider")
    assert slider.get_attribute("aria-valuenow") == "1"
    assert slider.get_attribute("aria-valuemax") == "599"
    assert slider.get_attribute("aria-valuetext") == (
        "Frame 1, exam 0:00:00, playback 0:00:00, 99 frames from Bleeding"
    )
    set_store(page, index=120)
    wait_for_frame(page, 120)
    assert slider.get_attribute("aria-valuetext").endswith(", in Bleeding")


def test_a_preview_that_failed_for_a_passing_reason_comes_by_itself(open_page: OpenPage) -> None:
    service = FakeService()
    page = open_page(service)
    service.refuse[f"studies/{STUDY}/frames/"] = (503, "busy")
    box = page.locator(".slider").bounding_box()
    with page.expect_response(lambda answer: "size=144" in answer.url and answer.status == 503):
        page.mouse.move(box["x"] + 300, box["y"] + 20)
    service.refuse.clear()
    wait_until(page, "document.querySelector('.preview:not([hidden]) canvas:not([hidden])')")


def test_the_preview_of_a_place_that_the_pointer_has_left_is_given_up(open_page: OpenPage) -> None:
    service = FakeService(delay_s=dict.fromkeys(range(200, 400), 30.0))
    page = open_page(service)
    box = page.locator(".slider").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 5)
    while not any("size=144" in path for path in service.requests):
        pass_frames(page, 1)
    page.mouse.move(box["x"] + box["width"] / 6, box["y"] + 5)
    wait_until(page, "document.querySelector('.preview:not([hidden]) canvas:not([hidden])')")
    assert page.locator(".preview p").inner_text().startswith("100 ")


def test_the_preview_shows_the_frame_under_the_pointer(open_page: OpenPage) -> None:
    page = open_page(FakeService(suggestions=SUGGESTIONS))
    box = page.locator(".slider").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 30)
    wait_until(page, "document.querySelector('.preview:not([hidden]) canvas:not([hidden])')")
    named = read_store(page, "hovered")[0]
    drawn = page.evaluate(
        """() => {
          const canvas = document.querySelector('.preview canvas');
          const context = canvas.getContext('2d');
          let index = 0;
          for (let bit = 0; bit < 16; bit += 1) {
            const x = Math.floor(((bit % 4) + 0.5) * canvas.width / 4);
            const y = Math.floor((Math.floor(bit / 4) + 0.5) * canvas.height / 4);
            if (context.getImageData(x, y, 1, 1).data[0] > 128) index |= 1 << bit;
          }
          return index;
        }"""
    )
    assert drawn == named
    assert page.locator(".preview p").inner_text().startswith(f"{named} · exam")
    page.mouse.move(5, 5)
    wait_until(page, "document.querySelector('.preview').hidden")
    assert read_store(page, "hovered") == [None]


def test_one_frame_without_a_picture_among_many_has_a_visible_mark(open_page: OpenPage) -> None:
    page = open_page(FakeService(frames=57_600, lost={30_000: ("corrupt", "damaged")}))
    wait_until(page, "document.querySelectorAll('.names li').length === 4")
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    pixels = page.evaluate(ROW_PIXELS, "No picture")
    ground = max(map(tuple, pixels), key=[tuple(each) for each in pixels].count)
    marked = [x for x, colour in enumerate(pixels) if tuple(colour) != ground]
    assert 3 <= len(marked) <= 6
    assert abs(sum(marked) / len(marked) / len(pixels) - 30_000 / 57_600) < 0.005


def test_seen_and_skimmed_frames_are_drawn_differently(open_page: OpenPage) -> None:
    coverage = {"seen": [[0, 200]], "skimmed": [[400, 600]]}
    page = open_page(FakeService(reading=make_reading(coverage=coverage)))
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    pixels = page.evaluate(ROW_PIXELS, "Seen by you")
    seen, unseen, skimmed = (pixels[int(len(pixels) * share)] for share in (0.15, 0.5, 0.9))
    assert seen != unseen
    # Skimmed frames have a thin line at the bottom of the row; its middle stays as where nothing was seen.
    assert skimmed == unseen
    assert page.locator(".names li", has_text="Seen by you").count() == 1


def test_zoomed_in_the_mark_of_a_frame_without_a_picture_is_as_wide_as_the_frame(open_page: OpenPage) -> None:
    service = FakeService(frames=57_600, lost={30_000: ("corrupt", "damaged")})
    page = open_page(service)
    page.evaluate(
        "() => import('/page/main.js').then(({ page }) => page.timeline.setView({ from: 29950, to: 30050 }))"
    )
    wait_until(
        page,
        "performance.getEntriesByType('resource').some(({ name }) => name.includes('/frames?start=29950'))",
    )
    pass_frames(page, 24)
    pixels = page.evaluate(ROW_PIXELS, "No picture")
    ground = max(map(tuple, pixels), key=[tuple(each) for each in pixels].count)
    marked = [x for x, colour in enumerate(pixels) if tuple(colour) != ground]
    # A hundred frames are shown; a bin of the timeline has 24.
    assert 0.8 <= len(marked) / len(pixels) * 100 <= 1.3
    assert abs(marked[0] / len(pixels) * 100 - 50) <= 1


def test_an_axis_without_known_times_names_frames(open_page: OpenPage) -> None:
    page = open_page(FakeService())
    timeline = read_store(page, "timeline")[0]
    set_store(page, timeline={**timeline, "start_time_s": [None] * timeline["bins"]})
    wait_until(page, "document.querySelector('.names li').textContent === 'By frame: number'")
    box = page.locator(".slider").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 30)
    # No time is guessed for the frame under the pointer.
    assert page.locator(".preview p").inner_text() == "300"


@pytest.mark.parametrize(
    ("start", "end", "most"), [(0, 57_600, 8), (0, 20, 10), (130.5, 170.5, 4), (0, 1, 4)]
)
def test_marks_of_frames_are_round_and_few(scripts: Any, start: float, end: float, most: int) -> None:
    marks = scripts.evaluate(CALL, ["timeline_scale.js", "frameMarks", start, end, most])
    assert 1 <= len(marks) <= most + 1
    assert all(start <= mark <= end and mark == int(mark) for mark in marks)


def test_own_findings_and_decisions_are_on_the_timeline(open_page: OpenPage) -> None:
    target = f"finding:{'9' * 32}"
    finding = {"target": target, "verdict": "added", "label": "polyp", "start_index": 400, "end_index": 421,
               "key_index": 410, "comment": "", "version": 3}  # fmt: skip
    rejected = {"target": "suggestion:1", "verdict": "rejected", "label": None, "comment": "", "version": 4}
    page = open_page(FakeService(suggestions=SUGGESTIONS, reading=make_reading(decisions=[finding])))
    wait_until(
        page, "[...document.querySelectorAll('.names li')].some((li) => li.textContent === 'Your findings')"
    )
    pass_frames(page, 4)
    bright = page.evaluate(ROW_PIXELS, "Bleeding")[
        int(120 / 600 * len(page.evaluate(ROW_PIXELS, "Bleeding")))
    ]
    click_at(page, 410, row="Your findings")
    wait_for_frame(page, 410)
    assert read_store(page, "selectedFinding") == [target]
    set_store(page, reading=make_reading(version=2, decisions=[finding, rejected]))
    pass_frames(page, 4)
    pixels = page.evaluate(ROW_PIXELS, "Bleeding")
    assert sum(pixels[int(120 / 600 * len(pixels))]) < sum(bright)


def test_the_keys_of_suggestions_reach_own_findings_too(open_page: OpenPage) -> None:
    finding = {"target": f"finding:{'9' * 32}", "verdict": "added", "label": "polyp", "start_index": 400,
               "end_index": 421, "key_index": 410, "comment": "", "version": 3}  # fmt: skip
    page = open_page(FakeService(suggestions=SUGGESTIONS, reading=make_reading(decisions=[finding])))
    wait_until(page, "store.resultId")
    for index in (120, 250, 410):
        page.keyboard.press("j")
        wait_for_frame(page, index)
    assert read_store(page, "selectedFinding") == [finding["target"]]
    page.keyboard.press("k")
    wait_for_frame(page, 250)
    assert read_store(page, "selected", "selectedFinding") == [2, None]
