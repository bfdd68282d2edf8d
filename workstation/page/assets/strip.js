// The strip: the twelve frames before and after the peak of a suggestion, or of the frame on the screen where none is
// selected. One request brings them all. Small pictures never count as seen.

import { URGENCY, askPatiently } from "./api.js";
import { count } from "./clocks.js";
import { button, make } from "./elements.js";
import { isBlind } from "./state.js";
import { nearestEvent } from "./suggestions.js";
import { text } from "./texts.js";

/** Frames on each side of the peak. */
export const STRIP_SIDE = 12;
const CELLS = 2 * STRIP_SIDE + 1;
const SIZE = 96;
// Without a suggestion the strip follows the frame on the screen once it rests, not each step.
const REST_MS = 350;

/** Return the frame in the middle of the strip and the suggestion it belongs to. */
export function stripCentre(state) {
  const chosen = isBlind(state) ? null : state.suggestions.find(({ id }) => id === state.selected);
  if (!chosen) return { centre: state.index, suggestion: null };
  return { centre: nearestEvent(chosen, state.index)?.peak_index ?? state.index, suggestion: chosen };
}

function createCell(show) {
  const canvas = make("canvas", { width: SIZE, height: SIZE, "aria-hidden": "true" });
  const element = button("", () => show(Number(element.dataset.index)), { class: "cell" });
  element.append(canvas);
  const context = canvas.getContext("2d");
  return {
    element,
    set(index, centre) {
      const name = text("strip.frame", { index: count(index) });
      element.dataset.index = index;
      element.hidden = index < 0;
      element.classList.toggle("centre", index === centre);
      element.title = name;
      element.setAttribute("aria-label", name);
    },
    mark(current) {
      const here = Number(element.dataset.index) === current;
      if (here === element.hasAttribute("aria-current")) return;
      if (here) element.setAttribute("aria-current", "true");
      else element.removeAttribute("aria-current");
    },
    clear: () => context.clearRect(0, 0, SIZE, SIZE),
    draw: (sprite, place, side) => {
      canvas.width = side;
      canvas.height = sprite.height;
      context.drawImage(sprite, place * side, 0, side, sprite.height, 0, 0, side, sprite.height);
    },
    lack: (why) => { element.dataset.lack = why; },
    whole: () => { delete element.dataset.lack; },
  };
}

/** Return the strip: {element, destroy()}. */
export function createStrip(store, api, { show }) {
  const cells = Array.from({ length: CELLS }, () => createCell(show));
  const title = make("h2", {});
  const element = make("section", { class: "strip", "aria-label": text("strip.name") }, title, make("div", { class: "cells-box" }, make("div", { class: "cells" }, cells.map((cell) => cell.element))));
  let loaded = "";
  let named = null;
  let request = null;
  let rest = 0;

  /** Name the strip and its cells, and bring the middle into sight. */
  function arrange(state, { centre, suggestion }) {
    const frames = state.study?.recording?.frames ?? 0;
    cells.forEach((cell, place) => {
      const index = centre - STRIP_SIDE + place;
      cell.set(index >= 0 && index < frames ? index : -1, centre);
    });
    const box = element.querySelector(".cells");
    const middle = cells[STRIP_SIDE].element;
    box.scrollTo({ left: middle.offsetLeft - box.offsetLeft - (box.clientWidth - middle.clientWidth) / 2 });
    nameStrip(state, { centre, suggestion });
  }

  /** Say which frames the strip shows, whose they are, and that the picture is another one where it is. */
  function nameStrip(state, { centre, suggestion }) {
    const frames = state.study?.recording?.frames ?? 0;
    const [start, last] = [Math.max(0, centre - STRIP_SIDE), Math.max(0, Math.min(frames - 1, centre + STRIP_SIDE))];
    const away = state.index < start || state.index > last;
    const rank = suggestion && state.suggestions.indexOf(suggestion) + 1;
    const words = text(!suggestion ? "strip.around" : away ? "strip.elsewhere" : "strip.of", { start: count(start), end: count(last), rank });
    if (title.textContent === words) return;
    title.textContent = words;
    title.title = words;
  }

  async function load(state, middle) {
    const { centre } = middle;
    const frames = state.study?.recording?.frames ?? 0;
    const [start, end] = [Math.max(0, centre - STRIP_SIDE), Math.min(frames, centre + STRIP_SIDE + 1)];
    const key = `${state.studyId} ${start} ${end} ${middle.suggestion?.id}`;
    if (key === loaded || end <= start) return;
    loaded = key;
    arrange(state, middle);
    request?.abort();
    const { signal } = request = new AbortController();
    const path = `studies/${state.studyId}/strip?start=${start}&end=${end}&size=${SIZE}`;
    for (const cell of cells) {
      cell.clear();
      cell.whole();
      cell.mark(state.index);
    }
    try {
      const response = await askPatiently(() => api.answer(path, { signal, urgency: URGENCY.ahead }), () => !signal.aborted);
      const numbers = (name) => (response.headers.get(name) ?? "").split(",").filter(Boolean).map(Number);
      const [indices, lost] = [numbers("X-Strip-Indices"), new Set(numbers("X-Strip-Unavailable"))];
      const sprite = await createImageBitmap(await response.blob());
      if (loaded !== key) return sprite.close();
      draw({ indices, lost }, sprite, start, end, centre);
    } catch (error) {
      if (signal.aborted) return;
      loaded = "";
      for (const cell of cells) cell.lack(error.message);
    }
  }

  function draw({ indices, lost }, sprite, start, end, centre) {
    const side = sprite.width / Math.max(1, indices.length);
    for (let index = start; index < end; index += 1) {
      const cell = cells[index - centre + STRIP_SIDE];
      const place = indices.indexOf(index);
      if (place < 0 || lost.has(index)) cell.lack(text("strip.lack"));
      else cell.draw(sprite, place, side);
    }
    sprite.close();
  }

  function update() {
    const state = store.get();
    if (state.view !== "reading" || !state.study) return;
    const middle = stripCentre(state);
    if (named !== state.study.id) {
      // The cells have names before their pictures come, so that nobody meets buttons without one.
      named = state.study.id;
      arrange(state, middle);
    }
    clearTimeout(rest);
    for (const cell of cells) cell.mark(state.index);
    if (middle.suggestion) {
      nameStrip(state, middle);
      load(state, middle);
    } else rest = setTimeout(() => {
      if (!store.get().playing && store.get().index === middle.centre) load(store.get(), middle);
    }, REST_MS);
  }

  const stopDual = store.subscribe(() => loaded && arrange(store.get(), stripCentre(store.get())), ["dual"]);
  const stop = store.subscribe(update, ["index", "selected", "study", "reading", "view", "playing", "suggestions", "looking"]);
  update();
  return { element, destroy: () => { stop(); stopDual(); clearTimeout(rest); request?.abort(); } };
}
