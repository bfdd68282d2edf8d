"""Read from the page the frame that the pixels show, against the frame that the caption names."""

from __future__ import annotations

from typing import Any

# The index that page_service.write_index drew, and the one in the caption, of every pane that is shown.
_READ_PANES = """() => [...document.querySelectorAll('.pane:not([hidden])')].map((pane) => {
  const canvas = pane.querySelector('canvas.picture');
  const caption = pane.querySelector('figcaption b').textContent;
  const named = caption ? Number(/Frame ([\\d,]+)/.exec(caption)[1].replace(/,/g, '')) : null;
  if (canvas.hidden) return { drawn: null, named, note: pane.querySelector('.no-picture').textContent };
  const context = canvas.getContext('2d');
  let drawn = 0;
  for (let bit = 0; bit < 16; bit += 1) {
    const x = Math.floor(((bit % 4) + 0.5) * canvas.width / 4);
    const y = Math.floor((Math.floor(bit / 4) + 0.5) * canvas.height / 4);
    if (context.getImageData(x, y, 1, 1).data[0] > 128) drawn |= 1 << bit;
  }
  return { drawn, named, note: '' };
})"""


def read_panes(page: Any) -> list[dict[str, Any]]:
    """Return for each pane: ``drawn`` (index in the pixels, None without a picture), ``named``, ``note``."""
    return page.evaluate(_READ_PANES)


def wait_until(page: Any, condition: str) -> None:
    """Wait until a JavaScript expression is true, looked at in every animation frame; ``store`` is the page's state.

    Playwright's own ``wait_for_function`` evaluates text in the page, which the content policy forbids.
    """
    page.evaluate(
        """async () => {
          const { page } = await import('/page/main.js');
          const holds = (store) => (CONDITION);
          const end = performance.now() + 20000;
          while (!holds(page.store.get())) {
            if (performance.now() > end) throw new Error('never true');
            await new Promise((next) => requestAnimationFrame(next));
          }
        }""".replace("CONDITION", condition)
    )


def pass_frames(page: Any, count: int) -> None:
    """Let the browser draw ``count`` animation frames, 60 a second."""
    page.evaluate(
        """async (count) => {
          for (let passed = 0; passed < count; passed += 1) await new Promise((next) => requestAnimationFrame(next));
        }""",
        count,
    )


def wait_for_frame(page: Any, index: int, *, pane: int = 0) -> None:
    """Wait until a pane's caption names a frame."""
    wait_until(
        page,
        f"document.querySelectorAll('.pane figcaption b')[{pane}].textContent.startsWith("
        f"'Frame ' + ({index}).toLocaleString('en-GB') + ' /')",
    )


# Records, at the end of every animation frame, which frame each pane shows and which it names.
WATCH_PANES = (
    "() => { const read = "
    + _READ_PANES
    + """; window.watched = []; window.watching = true;
  const look = () => { window.watched.push(...read()); if (window.watching) requestAnimationFrame(look); };
  requestAnimationFrame(look); }"""
)
STOP_WATCHING = "() => { window.watching = false; return window.watched; }"


def set_store(page: Any, **patch: Any) -> None:
    """Set keys of the page's store, as the panels do."""
    page.evaluate("(patch) => import('/page/main.js').then(({ page }) => page.store.set(patch))", patch)


def read_store(page: Any, *keys: str) -> Any:
    """Return keys of the page's store."""
    return page.evaluate(
        "(keys) => import('/page/main.js').then(({ page }) => keys.map((key) => page.store.get()[key]))",
        list(keys),
    )


# Ranges [start, end) of the selected suggestion or finding, also of a finding that is not saved yet.
_RANGES = """(store.selectedFinding === null
    ? store.suggestions.filter(({ id }) => id === store.selected)
        .flatMap(({ events }) => events.map((event) => [event.start_index, event.end_index + 1]))
    : [...store.reading.decisions, ...store.unsaved.map(({ target, body }) => ({ target, ...body }))]
        .filter(({ target }) => target === store.selectedFinding).map((each) => [each.start_index, each.end_index]))"""


def wait_until_looked_at(page: Any) -> None:
    """Wait until a picture of the selected suggestion or finding was on the screen long enough to decide on it."""
    is_of = f"{_RANGES}.some(([start, end]) => index >= start && index < end)"
    wait_until(
        page,
        f"page.viewer.shown().some(({{ index }}) => page.seen.hasRested((each) => each === index) && {is_of})",
    )


def decide(page: Any, *keys: str) -> None:
    """Press keys as a reader does, who looks at the picture before each decision, finding and landmark."""
    for key in keys:
        if key in ("c", "x", "r"):
            wait_until_looked_at(page)
        elif key in ("a", "l"):
            wait_until(page, "store.shown?.index === store.index")
        page.keyboard.press(key)
