"""Measure the page of the workstation in Chromium: first picture, steps, jumps, zoom and playback.

    python -m capsule_edge.benchmarks.page_speed exam.mp4 [--model small] [--home FOLDER] [--steps 200]

The command starts ``capsule-edge serve`` on the folder of the recording, lets it read the recording once (``--home``
keeps the result for the next time), and drives the page as a reader does, with key events, wheel and pointer. Needs
the extra ``[serve]``, playwright and Chromium. The last line of output is JSON. The figures:

- ``first_picture_ms``, ``usable_ms``: from the start of the navigation until the first frame is drawn, and until the
  timeline and the suggestions are there too.
- ``main_thread_ms``: what the page's scripts took from a key event to the end of drawing, event handlers and animation
  frame callbacks together.
- ``core_ms_mean``: core time of the page's main thread for a step or a zoom, with style, layout, painting, the frames
  fetched ahead and the watching itself. Other programs hardly influence it, so it holds on a busy machine too.
- ``painted_frames``: display frames from the key event until the picture is handed to the screen.
- ``jump_ms``: from the request for a random frame until it is drawn.
- ``click_ms``: from the press of the mouse button at a random place of the timeline until the frame of that place is
  drawn. The pointer moves there first and rests for a moment, as a hand does.
- ``zoom_ms``: from a turn of the wheel until the timeline is drawn.

Headless Chromium draws without a graphics processor, so a workstation with one is faster.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from capsule_edge.runtime.errors import BackendError, UsageError

from .machine import describe_machine, load_now

__all__ = ["measure_page"]

Figures = dict[str, Any]
# What a reader waits between two steps and between two jumps, seconds.
_LOOK_S, _REST_S = 0.12, 0.4
# What a pointer rests at a place before the press.
_AIM_S = 0.15
_SEED = 4
_CLI = "from capsule_edge.cli.main import main; main()"

# Runs before the page's own scripts. It times every event handler phase and animation frame callback, and notes when
# the caption of the first pane changes: caption and picture are drawn together.
_WATCH = """
window.watch = { first: null, usable: null, spent: 0, from: 0, drawn: null, painted: null, vsync: [] };
const nameOf = () => document.querySelector('.pane figcaption b')?.textContent ?? '';
const ask = window.requestAnimationFrame.bind(window);
window.requestAnimationFrame = (call) => ask((at) => {
  const [before, start] = [nameOf(), performance.now()];
  call(at);
  const end = performance.now();
  window.watch.spent += end - start;
  if (nameOf() === before) return;
  Object.assign(window.watch, { drawn: end, name: nameOf() });
  ask((next) => { window.watch.painted = next; });
});
let began = 0;
window.addEventListener('keydown', (event) => {
  began = performance.now();
  Object.assign(window.watch, { spent: 0, from: event.timeStamp, drawn: null, painted: null });
}, { capture: true });
window.addEventListener('keydown', () => { window.watch.spent += performance.now() - began; });
window.addEventListener('pointerdown', (event) => {
  Object.assign(window.watch, { pressed: event.timeStamp, drawn: null, painted: null, name: '' });
}, { capture: true });
let last = null;
const look = (at) => {
  if (last !== null) window.watch.vsync.push(at - last);
  last = at;
  const picture = document.querySelector('.pane .picture:not([hidden])');
  if (picture && window.watch.first === null) window.watch.first = performance.now();
  const rows = document.querySelectorAll('.names li').length;
  const suggestion = document.querySelector('li.suggestion');
  if (picture && rows > 2 && suggestion && window.watch.usable === null) window.watch.usable = performance.now();
  ask(look);
};
ask(look);
"""
_WAIT_DRAWN = """async (index) => {
  const end = performance.now() + 20000;
  const name = `Frame ${index.toLocaleString('en-GB')} /`;
  while (!(window.watch.painted !== null && window.watch.name?.startsWith(name))) {
    if (performance.now() > end) throw new Error(`frame ${index} was not drawn`);
    await new Promise((next) => setTimeout(next, 4));
  }
  return window.watch;
}"""
_JUMP = """async (index) => {
  const { page } = await import('/page/main.js');
  Object.assign(window.watch, { drawn: null, painted: null, name: '' });
  const from = performance.now();
  page.viewer.show(index);
  const watch = await (WAIT)(index);
  return watch.drawn - from;
}""".replace("WAIT", _WAIT_DRAWN)
_CLICKED = """async () => {
  const { page } = await import('/page/main.js');
  const watch = await (WAIT)(page.store.get().index);
  return watch.drawn - watch.pressed;
}""".replace("WAIT", _WAIT_DRAWN)
_ZOOM = """async ([x, y, turn]) => {
  const slider = document.querySelector('.slider');
  const box = slider.getBoundingClientRect();
  const from = performance.now();
  const place = { clientX: box.left + x * box.width, clientY: box.top + y };
  slider.dispatchEvent(new WheelEvent('wheel', { deltaY: turn, ...place, bubbles: true, cancelable: true }));
  // The second callback runs when what the first one drew is on its way to the screen.
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  return performance.now() - from;
}"""
_SET = "(patch) => import('/page/main.js').then(({ page }) => page.store.set(patch))"
_GET = "(key) => import('/page/main.js').then(({ page }) => page.store.get()[key])"
_CALL = (
    "([method, path, body]) => import('/page/main.js').then(({ page }) => page.api.send(method, path, body))"
)


def measure_page(recording: Path, *, model: str, home: Path, steps: int, jumps: int) -> Figures:
    """Return the figures of the page for one recording.

    Args:
        recording: file to read.
        model: name of a shipped model, for the suggestions.
        home: folder of the workstation; a result that lies there is used again.
        steps: number of key steps.
        jumps: number of jumps to random frames.

    Raises:
        UsageError: playwright or Chromium is not installed.
        BackendError: the service does not start, or it cannot read the recording.
    """
    with _serve(recording.parent, home) as address, _open_browser() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(60_000)
        page.goto(address)
        study = _read_once(page, recording, model)
        _open_reading(page, study)
        page.add_init_script(_WATCH)
        starts = [_time_start(page, study) for _ in range(5)]
        frames = int(study["recording"]["frames"])
        figures = {
            "recording": recording.name,
            "frames": frames,
            "first_picture_ms": _summarise([start["first"] for start in starts]),
            "usable_ms": _summarise([start["usable"] for start in starts]),
            **_time_steps(page, frames, steps),
            "jump_ms": _summarise(_time_jumps(page, frames, jumps)),
            "click_ms": _summarise(_time_clicks(page, jumps)),
            **_time_zoom(page),
            "playback": [_time_playback(page, frames, rate) for rate in (15, 40)],
        }
        return {**figures, "browser": browser.version}


@contextmanager
def _serve(folder: Path, home: Path) -> Iterator[str]:
    """Run the service on a free port; yields the address of the page with its token."""
    words = [sys.executable, "-c", _CLI, "serve", str(folder), "--home", str(home)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        try:
            line = next(iter(child.stdout or ()), "")
            if not line:
                raise BackendError(f"capsule-edge serve ended with exit code {child.wait()}")
            yield line.strip()
        finally:
            child.terminate()


@contextmanager
def _open_browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise UsageError("playwright is not installed", hint="pip install playwright") from None
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        raise UsageError("Chromium is not installed", hint="on Debian: apt-get install chromium")
    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def _read_once(page: Any, recording: Path, model: str) -> Figures:
    """Return the study of the recording, added and read if it is not there yet."""
    known = page.evaluate(_CALL, ["GET", f"studies?search={recording.name}", None])["studies"]
    study = next((each for each in known if each["recording"]["name"] == recording.name), None)
    if study is None:
        folder = page.evaluate(_CALL, ["GET", "folders", None])["folders"][0]["id"]
        models = page.evaluate(_CALL, ["GET", "models", None])["models"]
        chosen = next(each["sha256"] for each in models if each["shipped"] == model)
        body = {"folder": folder, "path": recording.name, "model": chosen}
        study = page.evaluate(_CALL, ["POST", "studies", body])
    while study["state"] in ("queued", "reading"):
        time.sleep(2)
        study = page.evaluate(_CALL, ["GET", f"studies/{study['id']}", None])
    if study["state"] != "read":
        raise BackendError(f"the recording was not read: {study['error'] or study['state']}")
    return dict(study)


def _open_reading(page: Any, study: Figures) -> None:
    """Open a reading and let this tab go on with it: the page shows suggestions only in a reading."""
    body = {"reader": "page_speed", "way": "suggestions_first"}
    reading = page.evaluate(_CALL, ["POST", f"studies/{study['id']}/readings", body])
    kept = {
        f"capsule-edge.reading.{study['id']}": reading["id"],
        f"capsule-edge.reader-of.{reading['id']}": body["reader"],
    }
    page.evaluate("(kept) => { for (const key in kept) sessionStorage.setItem(key, kept[key]); }", kept)


def _time_start(page: Any, study: Figures) -> Figures:
    """Load the page on the study, going on with an open reading; return its marks in ms since the navigation."""
    page.evaluate(f"location.hash = '#/study/{study['id']}'")
    page.reload()
    deadline = time.monotonic() + 30
    while True:
        watch = page.evaluate("window.watch")
        if watch["usable"] is not None:
            break
        if time.monotonic() > deadline:
            raise BackendError("the page did not become usable within 30 s")
        time.sleep(0.1)
    return {"first": watch["first"], "usable": watch["usable"]}


def _time_steps(page: Any, frames: int, steps: int) -> Figures:
    """Step forward and backward by key, with a look at each frame."""
    spent, painted, late = [], [], []
    core = _watch_core(page)
    place = min(frames // 3, frames - 1)
    page.evaluate(_JUMP, place)
    time.sleep(2 * _REST_S)
    began = core()
    for number in range(steps):
        key, move = ("ArrowRight", 1) if number % 40 < 20 else ("ArrowLeft", -1)
        place += move
        page.keyboard.press(key)
        watch = page.evaluate(_WAIT_DRAWN, place)
        vsync = float(np.median(watch["vsync"]))
        spent.append(watch["spent"])
        painted.append((watch["painted"] - watch["from"]) / vsync)
        late.append(watch["painted"] - watch["from"])
        time.sleep(_LOOK_S)
    return {
        "display_frame_ms": round(vsync, 2),
        "main_thread_ms": _summarise(spent),
        "core_ms_mean": round((core() - began) / steps, 2),
        "painted_frames": _summarise(painted),
        "painted_ms": _summarise(late),
    }


def _time_jumps(page: Any, frames: int, jumps: int) -> list[float]:
    places = np.random.default_rng(_SEED).choice(frames, min(jumps, frames), replace=False).tolist()
    times = []
    for place in places:
        times.append(page.evaluate(_JUMP, place))
        time.sleep(_REST_S)
    return times


def _time_clicks(page: Any, clicks: int) -> list[float]:
    """Click on the timeline of the whole recording at random places, above the rows of its marks."""
    page.keyboard.press("0")
    box = page.locator(".slider").bounding_box()
    times = []
    for share in np.random.default_rng(_SEED).uniform(0.01, 0.99, clicks).tolist():
        page.mouse.move(box["x"] + share * box["width"], box["y"] + 5, steps=8)
        time.sleep(_AIM_S)
        page.mouse.down()
        times.append(page.evaluate(_CLICKED))
        page.mouse.up()
        time.sleep(_REST_S)
    return times


def _watch_core(page: Any) -> Callable[[], float]:
    """Return a function that returns the core time of the page's main thread so far, ms."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def read() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return 1000 * float(next(each["value"] for each in metrics if each["name"] == "TaskDuration"))

    return read


def _time_zoom(page: Any, turns: int = 60) -> Figures:
    """Zoom in and out with the wheel at different places."""
    page.keyboard.press("0")
    generator = np.random.default_rng(_SEED)
    turns_made = [-150 if number % 30 < 15 else 150 for number in range(turns)]
    core = _watch_core(page)
    began = core()
    times = [page.evaluate(_ZOOM, [float(generator.uniform(0.1, 0.9)), 30, turn]) for turn in turns_made]
    return {"zoom_ms": _summarise(times), "zoom_core_ms_mean": round((core() - began) / turns, 2)}


def _time_playback(page: Any, frames: int, rate: int, seconds: float = 4.0) -> Figures:
    """Play forward; return the frames a second that were drawn."""
    page.evaluate(_JUMP, frames // 2)
    time.sleep(_REST_S)
    page.evaluate(_SET, {"rate": rate})
    page.keyboard.press(" ")
    time.sleep(0.5)
    begin, at = page.evaluate(_GET, "index"), time.monotonic()
    time.sleep(seconds)
    end, passed = page.evaluate(_GET, "index"), time.monotonic() - at
    page.keyboard.press(" ")
    return {"asked_fps": rate, "shown_fps": round((end - begin) / passed, 1)}


def _summarise(values: Sequence[float]) -> Figures:
    found = np.asarray(values, float)
    quantiles = {f"p{share}": round(float(np.percentile(found, share)), 2) for share in (50, 90, 95)}
    return {"count": len(found), **quantiles, "most": round(float(found.max()), 2)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m capsule_edge.benchmarks.page_speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recording", type=Path, help="recording to read and to show")
    parser.add_argument("--model", default="small", help="shipped model that reads it (default: %(default)s)")
    parser.add_argument("--home", type=Path, help="keep the workstation's folder here")
    parser.add_argument("--steps", type=int, default=200, help="key steps (default: %(default)s)")
    parser.add_argument("--jumps", type=int, default=100, help="random jumps (default: %(default)s)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        home = options.home or Path(scratch)
        before = load_now()
        found = measure_page(
            options.recording.resolve(),
            model=options.model,
            home=home,
            steps=options.steps,
            jumps=options.jumps,
        )
    machine = describe_machine()
    print(json.dumps({"benchmark": "page_speed", **found, "load_before": before, "machine": machine}))


if __name__ == "__main__":
    main()
