"""The report in a browser: keys, zoom, filters, print, contrast, screen readers, and no request to the network."""

from __future__ import annotations

import base64
import statistics
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from browser import AVAILABLE, WHY_NOT, Browser, browse
from cool_rule import cool_rule
from exam_samples import make_exam
from paths import TESTS

from capsule_edge.runtime.recording import RecordingWarning
from capsule_edge.runtime.report import render_report

pytestmark = pytest.mark.skipif(not AVAILABLE, reason=WHY_NOT)

HOSTILE = '"><img src=x onerror="window.hacked=1"><script>window.hacked=1</script></title>\' & ü.mp4'
LANDMARKS = {"stomach": 150.0, "small-bowel": 2470.0, "colon": 18120.0}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports of a whole day with 0, 4 and 300 events, and one of a recording with a hostile file name."""
    folder = tmp_path_factory.mktemp("reports")
    exams = {
        "none": make_exam(0),
        "few": make_exam(4, landmarks={"small-bowel": 2470.0}),
        "some": make_exam(30, landmarks={"small-bowel": 2470.0, "colon": 18120.0}),
        "many": make_exam(300, landmarks=LANDMARKS),
    }
    study, colours = exams["few"]
    aside = [replace(frame, detail="unfamiliar") for frame in study.frames[:900]]
    exams["damaged"] = (
        replace(
            study,
            frames=[*aside, *study.frames[900:]],
            model=replace(study.model, familiarity=cool_rule()),
            ledger=replace(study.ledger, classified=57_590, corrupt=10, truncated=True),
            warnings=[
                RecordingWarning("seen_in_training", "the model was trained on it"),
                RecordingWarning("odd", "an odd field"),
            ],
        ),
        colours,
    )
    exams["hostile"] = replace(study, source=replace(study.source, name=HOSTILE)), colours
    paths = {}
    for name, (study, colours) in exams.items():
        paths[name] = folder / f"{name}.html"
        paths[name].write_text(
            render_report(study, tool_version="0.0.test", colours=colours), encoding="utf-8"
        )
    return paths


@pytest.fixture(scope="module")
def shared() -> Iterator[Browser]:
    with browse() as browser:
        yield browser


@pytest.fixture
def browser(shared: Browser) -> Browser:
    shared.size(1400, 1000)
    shared.media()
    shared.complaints()
    shared.requests()
    return shared


def chosen(browser: Browser) -> str:
    return browser.js("return document.querySelector('.card[aria-current]').id")


def shown(browser: Browser) -> list[str]:
    return browser.js(
        "return [...document.querySelectorAll('.card')].filter((c) => !c.hidden).map((c) => c.id)"
    )


def send_keys(browser: Browser, *keys: str) -> None:
    """Send keys inside the page: some hundred, which chromedriver would take seconds for."""
    browser.js(
        """
        for (const key of arguments[0])
          document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));
        """,
        list(keys),
    )
    browser.settle()


def window(browser: Browser) -> str:
    return browser.js("return document.getElementById('window').textContent")


@pytest.mark.parametrize("name", ["none", "few", "many", "hostile"])
def test_nothing_leaves_the_page_and_nothing_complains(
    browser: Browser, pages: dict[str, Path], name: str
) -> None:
    browser.open(pages[name])
    browser.press("ArrowRight", "m", "+", "z", "Escape")
    assert browser.complaints() == []
    addresses = browser.requests()
    assert addresses  # the page itself
    assert {address.split(":")[0] for address in addresses} <= {"file", "data"}
    assert [address for address in addresses if address.startswith("file")] == [
        pages[name].absolute().as_uri()
    ]


def test_a_whole_day_is_small(pages: dict[str, Path]) -> None:
    assert pages["many"].stat().st_size <= 15_000_000


def test_a_hostile_name_is_only_a_name(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["hostile"])
    assert browser.js("return document.querySelector('h1').textContent") == HOSTILE
    assert browser.js("return document.title") == f"{HOSTILE} - capsule-edge"
    assert browser.js("return window.hacked ?? null") is None
    assert browser.js("return document.scripts.length") == 1


def test_every_suggestion_is_reached_by_keys_with_picture_contour_and_times(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages["many"])
    first = shown(browser)
    browser.press("Escape")  # all
    everything = shown(browser)
    assert 0 < len(first) < len(everything)
    # Each of the 300 events is on the timeline, and the events of one place share a card.
    assert browser.js("return document.querySelectorAll('.lane a').length") == 300
    assert 100 < len(everything) < 200
    send_keys(browser, *["k"] * 300)
    # The page records each step: one round trip for each key would take a minute.
    browser.js(
        """
        window.reached = [];
        document.addEventListener('keydown', () => {
          const viewer = document.getElementById('viewer');
          const card = document.querySelector('.card[aria-current]');
          const text = (place, name) => place.querySelector(name).textContent;
          const pictures = viewer.querySelectorAll('#stage img');
          window.reached.push([card.id, text(viewer, '#viewer-title').split(':')[0], pictures.length,
            pictures[0].src === card.querySelector('img').src, text(viewer, '.when') === text(card, '.when')]);
        });
        """
    )
    browser.press("k", *["j"] * 9)
    send_keys(browser, *["j"] * (len(everything) - 10))
    assert browser.js("return window.reached") == [
        [card, f"Suggestion {number}", 1, True, True] for number, card in enumerate(everything, start=1)
    ]


# Waits until the contour is drawn, and returns the width of the picture below it and the share of it that is covered.
PAINTED = """
  const done = arguments[0]; let frames = 0;
  const look = () => { const c = document.querySelector('#stage canvas');
    if (c && 'drawn' in c.dataset) {
      const data = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
      let covered = 0; for (let i = 3; i < data.length; i += 4) covered += data[i] > 0;
      done([document.querySelector('#stage img').naturalWidth, covered / (c.width * c.height)]);
    } else if ((frames += 1) > 600) done('the contour was never drawn'); else requestAnimationFrame(look); };
  look();
"""


def test_the_contour_is_there_only_while_its_key_is_held(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["few"])
    there = "return document.querySelector('#stage canvas') !== null"
    assert not browser.js(there)
    browser.hold("m")
    width, covered = browser.js_later(PAINTED)
    assert width == 288
    assert 0.002 < covered < 0.05  # a line, which hides hardly anything
    browser.release("m")
    assert not browser.js(there)
    browser.hold("m")
    browser.js("window.dispatchEvent(new Event('blur'))")  # the release goes to another window
    assert not browser.js(there)
    browser.release("m")
    browser.js("document.getElementById('contour').click()")  # for those who cannot hold a key
    assert browser.js(there)
    browser.press("ArrowRight")  # a picture that is not the peak has no map
    assert not browser.js(there)
    assert browser.js("return document.getElementById('contour').disabled")
    browser.press("m")
    assert "no contour" in browser.js("return document.getElementById('status').textContent")


def test_arrows_lead_through_the_pictures_of_all_events_of_a_suggestion(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages["many"])
    card = browser.js(
        "return [...document.querySelectorAll('.card')]"
        ".find((card) => !card.hidden && card.querySelectorAll('.part').length > 1).id"
    )
    browser.js("document.getElementById(arguments[0]).click()", card)
    browser.settle()
    expected = browser.js(
        """
        return [...document.querySelectorAll(`#${arguments[0]} .part`)].flatMap((part) => {
          const shots = [...part.querySelectorAll('.shot')];
          return (shots.length ? shots : [part]).map(({ dataset }) =>
            [part.dataset.event, dataset.index, dataset.exam, dataset.playback]);
        });
        """,
        card,
    )
    assert len(expected) >= 16
    browser.js(
        """
        window.seen = [];
        window.look = () => {
          const [frame, exam, playback] = document.getElementById('caption').textContent.split(' · ');
          const strip = [...document.querySelectorAll('#viewer-parts .shot')];
          const part = document.querySelector('#viewer-parts [aria-current]').textContent;
          window.seen.push([part.split(':')[0].replace('Event ', ''), frame.replace('Frame ', '').replaceAll(',', ''),
            exam.replace('exam clock ', ''), playback.replace('playback clock ', '')]);
          return strip.filter((shot) => shot.getAttribute('aria-pressed') === 'true').length;
        };
        """
    )
    send_keys(browser, *["ArrowLeft"] * 12)  # to the first
    for _ in expected:
        assert browser.js("return window.look()") == 1
        send_keys(browser, "ArrowRight")
    assert browser.js("return window.seen") == expected
    assert chosen(browser) == card  # the last picture is the end
    before = browser.js("return document.getElementById('caption').textContent")
    send_keys(browser, "ArrowRight")
    assert browser.js("return document.getElementById('caption').textContent") == before


def test_a_picture_of_the_strip_and_another_event_are_chosen_by_pointer(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages["few"])
    browser.js("document.querySelectorAll('#viewer-parts .shot')[2].click()")
    index = browser.js("return document.querySelectorAll('.card[aria-current] .shot')[2].dataset.index")
    caption = browser.js("return document.getElementById('caption').textContent")
    assert caption.startswith(f"Frame {int(index):,} · exam clock ")
    assert caption.endswith("small picture, enlarged")
    mark = "document.querySelector('.marks .mark:not(.chosen)')"
    wanted = browser.js(
        f"const mark = {mark}; mark.dispatchEvent(new MouseEvent('click')); return mark.dataset.card"
    )
    assert chosen(browser) == f"suggestion-{wanted}"
    assert browser.js("return document.querySelectorAll('.marks .mark.chosen').length") == 1


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (1920, 1080)])
@pytest.mark.parametrize("name", ["few", "many"])
def test_the_first_picture_is_large_and_in_sight_and_the_timeline_stays(
    browser: Browser, pages: dict[str, Path], name: str, width: int, height: int
) -> None:
    browser.size(width, height)
    browser.open(pages[name])
    box = browser.js(
        """
        const picture = document.querySelector('#stage img').getBoundingClientRect();
        const strip = document.querySelector('#viewer-parts .strip').getBoundingClientRect();
        return [picture.top, picture.bottom, picture.width, strip.left - picture.right, strip.top];
        """
    )
    assert box[0] < 260
    assert box[1] <= height
    assert box[2] >= 512
    assert box[3] > 0
    assert box[4] < height / 2
    browser.js("window.scrollTo(0, 1500)")
    browser.settle()
    assert browser.js("return document.querySelector('.colour').getBoundingClientRect().top") < 60


def test_keys_can_be_switched_off(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["few"])
    before = chosen(browser)
    browser.js("document.getElementById('keys').click()")
    browser.press("j", "+")
    assert (chosen(browser), window(browser)) == (before, "00:00:00 to 08:00:00")
    browser.hold("m")
    assert not browser.js("return document.querySelector('#stage canvas') !== null")
    browser.release("m")
    browser.js("document.getElementById('keys').click()")
    browser.press("j")
    assert chosen(browser) != before


def test_events_are_reached_by_tab_alone(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["few"])
    # The event's blocks on the timeline, which choose it; one card, since arrows move among cards; and the controls.
    needed = {*(f"#suggestion-{number}" for number in range(1, 5)), "suggestion-1"}
    needed |= {"zoom-in", "next", "previous", "contour", "show-time", "keys"}
    for _ in range(60):
        browser.press("Tab")
        needed.discard(
            browser.js(
                "const a = document.activeElement; return a.id || a.getAttribute('href') || a.textContent"
            )
        )
        if not needed:
            break
    assert needed == set()
    browser.js("document.querySelector('.lane a[href=\"#suggestion-3\"]').focus()")
    browser.press("Enter")
    assert chosen(browser) == "suggestion-3"
    browser.press("j")  # the link may be out of sight now: whoever steps on goes to the large picture
    assert chosen(browser) == "suggestion-4"
    assert browser.js("return document.activeElement.id") == "viewer"


def test_filters_show_one_finding_the_first_or_all(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["many"])
    first = shown(browser)
    labels = (
        "return [...document.querySelectorAll('.card')].filter((c) => !c.hidden).map((c) => c.dataset.label)"
    )
    scores = browser.js("return [...document.querySelectorAll('.card .score')].map((p) => p.textContent)")
    assert first == [f"suggestion-{number}" for number in range(1, 25)]
    assert scores == sorted(scores, reverse=True)
    assert "polyp" in browser.js(labels)
    browser.js("document.querySelector('.toolbar [data-filter=polyp]').click()")
    browser.settle()
    assert set(browser.js(labels)) == {"polyp"}
    assert browser.js("return document.getElementById('curve-name').textContent") == "Polyp"
    assert "Showing" in browser.js("return document.getElementById('status').textContent")
    assert chosen(browser) in shown(browser)
    browser.js("document.querySelector('.toolbar [data-filter=\"*\"]').click()")
    browser.settle()
    assert shown(browser) == first


def test_the_timeline_zooms_by_keys_buttons_and_wheel(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["many"])
    assert window(browser) == "00:00:00 to 08:00:00"
    assert browser.js("return document.getElementById('pan').disabled")
    browser.press("+")
    browser.press("+")
    seconds = browser.js(
        "return document.getElementById('window').textContent.split(' to ').map((t) => "
        "t.split(':').reduce((a, b) => 60 * a + Number(b), 0))"
    )
    assert abs(seconds[1] - seconds[0] - 7200) <= 1  # a quarter of eight hours, each end cut to a second
    browser.press("]")
    moved = window(browser)
    browser.js("document.getElementById('zoom-out').click()")
    browser.settle()
    assert window(browser) != moved
    browser.press("0")
    assert window(browser) == "00:00:00 to 08:00:00"
    wheel = """
      const axis = document.getElementById('axis'); const box = axis.getBoundingClientRect();
      const event = new WheelEvent('wheel', {deltaY: arguments[0], ctrlKey: arguments[1],
        clientX: box.left + box.width / 2, clientY: box.top, bubbles: true, cancelable: true});
      axis.dispatchEvent(event); return event.defaultPrevented;
    """
    assert not browser.js(wheel, -100, False)  # without Ctrl the page scrolls, as everywhere
    browser.settle()
    assert window(browser) == "00:00:00 to 08:00:00"
    assert browser.js(wheel, -100, True)
    browser.settle()
    begin, end = window(browser).split(" to ")
    assert "00:00:00" < begin < "02:00:00"
    assert "06:00:00" < end < "08:00:00"


def test_the_timeline_is_drawn_along_and_zoomed_once_pressed(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages["few"])
    act = """
      const axis = document.getElementById('axis'); const box = axis.getBoundingClientRect();
      const [kind, at, more] = arguments;
      const Type = kind === 'wheel' ? WheelEvent : PointerEvent;
      const event = new Type(kind, {clientX: box.left + at * box.width, clientY: box.top,
        bubbles: kind !== 'pointerleave', cancelable: true, ...more});
      (kind === 'pointerleave' ? document.getElementById('timeline') : axis).dispatchEvent(event);
      return event.defaultPrevented;
    """
    browser.js(act, "pointerdown", 0.5, {"button": 0})
    browser.js(act, "pointerup", 0.5, {})
    for _ in range(3):
        assert browser.js(act, "wheel", 0.5, {"deltaY": -100})
    browser.settle()
    before = window(browser)
    assert before != "00:00:00 to 08:00:00"
    browser.js(act, "pointerdown", 0.5, {"button": 0})
    browser.js(act, "pointermove", 0.25, {"buttons": 1})
    browser.js(act, "pointerup", 0.25, {})
    browser.settle()
    # Drawn to the left by a quarter of the width: what is shown begins that much later.
    assert window(browser).split(" to ")[0] > before.split(" to ")[0]
    browser.js(act, "pointerleave", 0.5, {})
    assert not browser.js(act, "wheel", 0.5, {"deltaY": -100})


def test_a_zoomed_timeline_shows_the_chosen_event_where_it_is(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages["many"])
    browser.press("Escape")
    send_keys(browser, *["j"] * 40)
    browser.press("z")
    begin, end = window(browser).split(" to ")
    label = browser.js("return document.querySelector('.card[aria-current]').getAttribute('aria-label')")
    start = label.split(", ")[1].split(" to ")[0]
    assert begin <= start <= end
    drawn = browser.js(
        """
        const block = document.querySelector('.lane a[aria-current][data-lead] .block').getBoundingClientRect();
        const lane = document.getElementById('axis').getBoundingClientRect();
        return {inside: block.left >= lane.left && block.right <= lane.right, width: block.width, lane: lane.width,
          head: document.getElementById('playhead').classList.contains('on'),
          curve: document.querySelector('.curve.on path').getAttribute('d')};
        """
    )
    assert drawn["inside"]
    assert drawn["head"]
    # A fifth of the part shown; 8 frames, the shortest here, are 4 % of the 200 that are shown at least.
    assert drawn["width"] > drawn["lane"] / 30
    # Frame by frame now: fewer frames than points, so each is drawn, and the peak is the event's.
    assert 20 < drawn["curve"].count(",") < 1100
    send_keys(browser, *["j"] * 30)
    assert browser.js("return document.getElementById('playhead').classList.contains('on')")
    # The timeline follows the event that is chosen now.
    begin, end = window(browser).split(" to ")
    label = browser.js("return document.querySelector('.card[aria-current]').getAttribute('aria-label')")
    assert begin <= label.split(", ")[1].split(" to ")[0] <= end


def test_the_pointer_reads_time_frame_and_probability(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["few"])
    browser.js(
        """
        const axis = document.getElementById('axis'); const box = axis.getBoundingClientRect();
        axis.dispatchEvent(new PointerEvent('pointermove',
          {clientX: box.left + box.width / 2, clientY: box.top, bubbles: true}));
        """
    )
    text = browser.js("return document.getElementById('readout').textContent")
    time, frame, probability = text.split(" · ")
    # Half of the width within a pixel: 28,800 s over some 1,000 pixels.
    assert abs(sum(int(v) * w for v, w in zip(time.split(":"), (3600, 60, 1), strict=True)) - 14400) <= 30
    assert abs(int(frame.removeprefix("frame ").replace(",", "")) - 28800) <= 60
    assert 0 <= float(probability.split()[-1]) <= 1


@pytest.mark.parametrize("name", ["none", "few", "many"])
@pytest.mark.parametrize("width", [360, 820, 1400])
def test_nothing_is_wider_than_the_window(
    browser: Browser, pages: dict[str, Path], name: str, width: int
) -> None:
    browser.size(width, 900)
    browser.open(pages[name])
    assert browser.js("return document.documentElement.scrollWidth") <= width


AXE = find_spec("axe_playwright_python")
STATES = {
    "opened": "",
    "contour": "document.getElementById('contour')?.click()",
    "another event": "document.querySelectorAll('#viewer-parts button.part-name')[1]?.click()",
    "zoomed": "document.getElementById('zoom-in').click()",
    "filtered": "document.querySelector('.toolbar [data-filter=polyp]')?.click()",
    "keys off": "document.getElementById('keys')?.click()",
}


@pytest.mark.skipif(AXE is None, reason="axe-core is not installed (pip install axe-playwright-python)")
@pytest.mark.parametrize(("width", "scheme"), [(400, "light"), (1280, "light"), (1280, "dark")])
@pytest.mark.parametrize("name", ["none", "some", "damaged"])
def test_axe_finds_nothing_in_any_state(
    browser: Browser, pages: dict[str, Path], name: str, scheme: str, width: int
) -> None:
    assert AXE is not None
    assert AXE.origin is not None
    axe = (Path(AXE.origin).parent / "axe.min.js").read_text("utf-8")
    browser.size(width, 900)
    browser.media(scheme=scheme)
    browser.open(pages[name])
    browser.js(axe + "\nwindow.axe = axe;")
    for state, act in STATES.items():
        browser.js(act)
        browser.settle()
        found = browser.js_later(
            """
            const done = arguments[0];
            window.axe.run({ resultTypes: ['violations'] }).then((result) => done(result.violations.map((one) =>
              `${one.id}: ${one.nodes.slice(0, 3).map((node) => node.target.join(' ')).join('; ')}`)));
            """
        )
        assert found == [], state


CONTRAST = (TESTS / "contrast.js").read_text("utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["none", "many"])
def test_every_text_has_contrast(browser: Browser, pages: dict[str, Path], name: str, scheme: str) -> None:
    browser.media(scheme=scheme)
    browser.open(pages[name])
    dark = browser.js("return getComputedStyle(document.body).backgroundColor.match(/[0-9]+/)[0] < 60")
    assert dark == (scheme == "dark")
    assert browser.js(CONTRAST) == []  # WCAG 2.2 AA: 4.5 to 1, disabled controls and pictures excepted


def test_whatever_can_be_used_has_a_name_for_those_who_hear_it(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages["few"])
    roles: dict[str, list[str]] = {}
    for _ in range(100):  # The browser builds this tree some time after the page.
        roles = {}
        for node in browser.cdp("Accessibility.getFullAXTree")["nodes"]:
            if not node["ignored"]:
                roles.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
        if "article" in roles:
            break
        browser.settle()
    for role in ("button", "link", "slider", "image", "article", "heading", "region", "group"):
        assert "" not in roles.get(role, []), role
    assert len(roles["article"]) == 4
    assert {"banner", "main", "contentinfo"} <= set(roles)
    assert [name for name in roles["article"] if ", score 0." not in name] == []


def test_it_prints_what_is_shown(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["many"])
    browser.media(kind="print", scheme="dark")
    hidden = browser.js(
        "return ['.viewer', '.toolbar', '.zoom', '.keys'].filter((s) => document.querySelector(s).checkVisibility())"
    )
    assert hidden == []
    assert browser.js("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    pdf = base64.b64decode(browser.cdp("Page.printToPDF", printBackground=True)["data"])
    # 24 events in rows of four, and the texts: no page a card.
    assert 2 <= pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page/") <= 8


def test_it_is_whole_without_a_script(browser: Browser, pages: dict[str, Path]) -> None:
    browser.cdp("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(pages["few"])
        # Asked before scripts are allowed again: the page's own would still run then.
        cards, controls = browser.js(
            "return [[...document.querySelectorAll('.card')].filter((c) => c.checkVisibility()).length, "
            "[...document.querySelectorAll('.js-only')].filter((c) => c.checkVisibility()).length]"
        )
    finally:
        browser.cdp("Emulation.setScriptExecutionDisabled", value=False)
    assert (cards, controls) == (4, 0)


@pytest.mark.latency
def test_a_whole_day_is_usable_within_two_seconds(pages: dict[str, Path]) -> None:
    """From the address to an answered key, in a browser that has just started."""
    seconds = []
    for _ in range(3):
        with browse() as browser:
            browser.open(pages["many"])
            browser.press("ArrowRight")
            seconds.append(
                browser.js(
                    "const t = performance.getEntriesByType('navigation')[0]; return t.loadEventEnd / 1000"
                )
            )
            assert chosen(browser) != "event-1"
    assert statistics.median(seconds) <= 2.0, seconds


def test_a_study_without_an_answer_has_a_page(browser: Browser, tmp_path: Path) -> None:
    study, _ = make_exam(0)
    bare = replace(study, frames=[], ledger=replace(study.ledger, container=0, classified=0), landmarks={})
    page = tmp_path / "bare.html"
    page.write_text(render_report(bare, tool_version="0.0.test"), encoding="utf-8")
    browser.open(page)
    browser.press("+", "0", "j")
    assert browser.complaints() == []
