// The timeline of the whole recording: colour bar, suggestions by class, landmarks, familiarity, frames without a
// picture, and what was seen. It is a slider for the keyboard and for screen readers.

import { clock, count, examSeconds, examText } from "./clocks.js";
import { button, make } from "./elements.js";
import { runAction } from "./keys.js";
import { isBlind } from "./state.js";
import { resultQuery } from "./study_data.js";
import { groupByLabel, labelSlot, nearestSuggestion } from "./suggestions.js";
import { labelName } from "./targets.js";
import { text } from "./texts.js";
import { colourStrip, drawMoving, drawRow, NARROWEST, readColours, WITHOUT_PICTURE } from "./timeline_layers.js";
import { createPreview } from "./timeline_preview.js";
import { createClock, follow, holdView, panView, viewAround, zoomView } from "./timeline_scale.js";
import { decisionOn, ownFindings, targetOf } from "./verdicts.js";

const LANDMARKS = ["stomach", "small-bowel", "colon", "end"];
const ROW_GAP = 2;
// With more classes than this the rows are lower, so that the picture keeps its size on a small screen.
const CROWDED = 6;
const HIT_PX = 4;
const WHEEL_ZOOM = 1.0015;
const SPOKEN_EVERY_MS = 400;
// Most frames whose status is asked for one by one, and how long the view must rest before.
const EXACT_FRAMES = 2000;
const EXACT_REST_MS = 150;

/** Return the segments between landmarks, and the landmarks with their names. */
function segmentsOf(landmarks, frames) {
  const known = LANDMARKS.filter((name) => landmarks?.[name]).map((name) => ({ name, index: landmarks[name].index, words: text(`landmark.name.${name}`) }));
  const segments = known.filter(({ name }) => name !== "end").map(({ name, index }, place) => ({ name, start: index, end: known[place + 1]?.index ?? frames }));
  return { segments, landmarks: known };
}

/** Return the rows of the timeline for a state: {kind, name, height, slot, facts}. Rows without content are left out. */
export function rowsOf(state) {
  const { timeline, suggestions, reading, study, unsaved } = state;
  const frames = study?.recording?.frames ?? timeline?.frames ?? 0;
  const blind = isBlind(state);
  const groups = blind ? [] : groupByLabel(suggestions, (suggestion) => decisionOn(targetOf(suggestion), reading, unsaved).verdict);
  const own = ownFindings(reading, unsaved).filter(({ start_index: start }) => Number.isInteger(start)).map((finding) => ({
    start_index: finding.start_index, end_index: finding.end_index, peak_index: finding.key_index ?? finding.start_index, finding: finding.target, verdict: finding.verdict,
    name: labelName(finding.label, state),
  }));
  const crowded = groups.length > CROWDED;
  const [lane, gap] = crowded ? [9, 1] : [12, ROW_GAP];
  const some = (list, test) => (list ?? []).some(test);
  const rows = [
    { kind: "axis", name: text("timeline.clock"), height: 16 },
    { kind: "colours", name: text("timeline.colours"), height: crowded ? 24 : 28 },
  ];
  const marks = segmentsOf(reading?.landmarks, frames);
  if (marks.landmarks.length) rows.push({ kind: "segments", name: text("timeline.landmarks"), height: 14, facts: marks });
  for (const group of groups) rows.push({ kind: "events", name: group.name, height: lane, gap, crowded, slot: labelSlot(state, group.label), label: group.label, facts: { events: group.events } });
  if (own.length) rows.push({ kind: "events", name: text("timeline.own"), height: lane, gap, facts: { events: own, own: true } });
  if (!blind && some(timeline?.unfamiliar, (number) => number > 0)) rows.push({ kind: "unfamiliar", name: text("timeline.unfamiliar"), height: 10 });
  if (WITHOUT_PICTURE.some((name) => some(timeline?.status?.[name], (number) => number > 0))) rows.push({ kind: "status", name: text("timeline.status"), height: 10 });
  rows.push({ kind: "coverage", name: text("timeline.coverage"), height: 10 });
  let top = 0;
  for (const row of rows) {
    row.top = top;
    top += row.height + (row.gap ?? ROW_GAP);
  }
  return rows;
}

/** Return the timeline in `root`, its tools in `toolsRoot`: {actions, view(), setView(view), zoom(factor), destroy()}. */
export function createTimeline(root, store, api, { viewer, toolsRoot }) {
  const still = make("canvas", { "aria-hidden": "true" });
  const moving = make("canvas", { "aria-hidden": "true", class: "moving" });
  const slider = make("div", { class: "slider", role: "slider", tabindex: "0", "aria-label": text("timeline.slider"), "aria-valuemin": "0" });
  const names = make("ul", { class: "names" });
  const preview = createPreview(store, api);
  const span = make("output", { class: "muted span" });
  const tools = make("div", { class: "row tools", role: "group", "aria-label": text("timeline.tools") }, make("span", {}, text("timeline.label")),
    button("−", () => zoom(2), { "aria-label": text("timeline.zoom_out"), title: text("timeline.zoom_out") }),
    button("+", () => zoom(0.5), { "aria-label": text("timeline.zoom_in"), title: text("timeline.zoom_in") }),
    button(text("timeline.whole"), () => runAction("whole"), { title: text("key.whole") }), make("div", { class: "span-box" }, span));
  const track = make("div", { class: "track" }, still, moving, slider, preview.element);
  root.replaceChildren(names, track);
  // The tools stand beside the picture: under the timeline they would take height from it.
  toolsRoot.append(tools);
  const me = { view: { from: 0, to: 1 }, rows: [], width: 1, height: 1, colours: {}, strip: null, clock: createClock(null), off: new OffscreenCanvas(1, 1), stale: "all", scheduled: 0, spoken: 0, dragging: false };

  const frameCount = () => store.get().study?.recording?.frames ?? store.get().timeline?.frames ?? 0;
  const scale = () => ({ ...me.view, width: me.width });
  const frameAt = (x) => Math.min(frameCount() - 1, Math.max(0, Math.floor(me.view.from + (x / me.width) * (me.view.to - me.view.from))));

  /** Draw again with the next animation frame: "moving" only what moves, "coverage" what was seen too, "all" everything. */
  function redraw(what) {
    const order = ["", "moving", "coverage", "all"];
    if (order.indexOf(what) > order.indexOf(me.stale)) me.stale = what;
    if (!me.scheduled) me.scheduled = requestAnimationFrame(draw);
  }

  function fit() {
    const pixels = window.devicePixelRatio || 1;
    const [wide, high] = [Math.round(me.width * pixels), Math.round(me.height * pixels)];
    for (const canvas of [still, moving, me.off]) {
      if (canvas.width !== wide) canvas.width = wide;
      if (canvas.height !== high) canvas.height = high;
    }
    return pixels;
  }

  function draw() {
    me.scheduled = 0;
    const stale = me.stale;
    me.stale = "";
    if (store.get().view !== "reading" || !frameCount()) return;
    const pixels = fit();
    if (stale === "all") drawStill(pixels);
    if (stale !== "moving") {
      const context = still.getContext("2d");
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.clearRect(0, 0, still.width, still.height);
      context.drawImage(me.off, 0, 0);
      context.scale(pixels, pixels);
      for (const row of me.rows) if (row.kind === "coverage") drawRow(context, scale(), row, { coverage: store.get().coverage, colours: me.colours });
    }
    const context = moving.getContext("2d");
    context.setTransform(pixels, 0, 0, pixels, 0, 0);
    const { index, hovered } = store.get();
    drawMoving(context, scale(), { height: me.height, index, hovered, selected: selectedMarks, rows: me.rows, colours: me.colours });
  }

  function drawStill(pixels) {
    const { timeline, study } = store.get();
    const context = me.off.getContext("2d");
    context.setTransform(pixels, 0, 0, pixels, 0, 0);
    context.clearRect(0, 0, me.width, me.height);
    const facts = { colours: me.colours, strip: me.strip, frames: frameCount(), bins: timeline?.bins ?? 1, exact: me.exact, status: timeline?.status ?? {}, unfamiliar: timeline?.unfamiliar ?? [], clockOf: me.clock, examScale: examSeconds(study?.recording, 1) ?? 1 };
    for (const row of me.rows) {
      if (row.kind === "coverage" || (row.kind === "colours" && !me.strip)) continue;
      drawRow(context, scale(), row, { ...facts, colour: row.facts?.own ? me.colours.accent : me.colours[`c${row.slot}`] });
    }
  }

  function* selectedMarks(rows) {
    const { selected, selectedFinding } = store.get();
    const isChosen = (event) => (selectedFinding ? event.finding === selectedFinding : selected !== null && event.suggestion === selected);
    for (const row of rows) {
      if (row.kind !== "events") continue;
      for (const event of row.facts.events) if (isChosen(event)) yield { row, start: event.start_index, end: event.end_index };
    }
  }

  function setView(view) {
    me.view = holdView(view, Math.max(1, frameCount()));
    const whole = me.view.to - me.view.from >= frameCount() - 0.5;
    const words = whole ? "" : text("timeline.span", { first: count(Math.floor(me.view.from)), last: count(Math.ceil(me.view.to) - 1) });
    if (span.textContent !== words) span.textContent = words;
    redraw("all");
    clearTimeout(me.rest);
    me.rest = setTimeout(loadExact, EXACT_REST_MS);
  }

  /** Fetch which frames of a narrow view have no picture, if the timeline says that there are some. */
  async function loadExact() {
    const { studyId, timeline } = store.get();
    const [from, to] = [Math.floor(me.view.from), Math.ceil(me.view.to)];
    if (to - from > EXACT_FRAMES || !timeline?.bins || (me.exact?.from <= from && me.exact?.to >= to)) return;
    const [first, last] = [from, to].map((frame) => Math.floor((frame / frameCount()) * timeline.bins));
    if (!WITHOUT_PICTURE.some((name) => timeline.status?.[name]?.slice(first, last + 1).some((number) => number > 0))) return;
    const { rows } = await api.get(`studies/${studyId}/frames?start=${from}&count=${Math.min(EXACT_FRAMES, to - from)}${resultQuery(store.get(), "&")}`);
    // The frames may be those of another examination or result by now.
    if (timeline !== store.get().timeline) return;
    me.exact = { from, to, lost: rows.filter(({ status }) => WITHOUT_PICTURE.includes(status)) };
    redraw("all");
  }

  const zoom = (factor, centre = Math.min(me.view.to, Math.max(me.view.from, store.get().index))) => setView(zoomView(me.view, frameCount(), factor, centre));

  function zoomToSelected() {
    const { suggestions, selected } = store.get();
    const chosen = suggestions.find(({ id }) => id === selected);
    if (!chosen || isBlind(store.get())) return;
    const starts = chosen.events.map((event) => event.start_index);
    const ends = chosen.events.map((event) => event.end_index + 1);
    setView(viewAround(Math.min(...starts), Math.max(...ends), frameCount()));
  }

  /** Take over new data: rows, colours, clock, names. */
  function renew(state, changed = ["timeline", "study"]) {
    if (changed.includes("studyId")) preview.open();
    if (changed.includes("timeline")) {
      me.strip = state.timeline?.colours?.length ? colourStrip(state.timeline.colours) : null;
      me.exact = null;
      me.clock = createClock(state.timeline && { ...state.timeline, frames: frameCount() });
    }
    const frames = frameCount();
    if (frames !== me.frames) {
      me.frames = frames;
      setView({ from: 0, to: Math.max(1, frames) });
    }
    me.colours = readColours(document.documentElement);
    me.rows = rowsOf(state);
    me.height = me.rows.at(-1).top + me.rows.at(-1).height;
    track.style.setProperty("height", `${me.height}px`);
    showNames(state);
    speak(true);
    redraw("all");
  }

  function showNames(state) {
    const exam = examSeconds(state.study?.recording, 1) !== null;
    names.replaceChildren(...me.rows.map((row) => {
      const axis = !me.clock.isKnown ? "frame_axis" : exam ? "exam_clock" : "playback_clock";
      const words = row.kind === "axis" ? text(`timeline.${axis}`) : row.name;
      const item = make("li", { title: row.kind === "axis" ? text("timeline.axis_meaning") : words }, row.slot === undefined ? null : make("span", { class: `dot c${row.slot}` }), make("bdi", {}, words));
      item.classList.toggle("crowded", Boolean(row.crowded));
      item.style.setProperty("top", `${row.top}px`);
      item.style.setProperty("height", `${row.height}px`);
      return item;
    }));
  }

  /** Say where the slider stands. While frames run, only now and then: a screen reader cannot follow forty a second. */
  function speak(now = false) {
    const state = store.get();
    const at = performance.now();
    if (!now && state.playing && at - me.spoken < SPOKEN_EVERY_MS) return;
    me.spoken = at;
    const time = state.shown?.index === state.index ? state.shown.time_s : me.clock.timeOf(state.index);
    const near = isBlind(state) ? null : nearestSuggestion(state.suggestions, state.index);
    const name = near && (near.suggestion.name ?? near.suggestion.label);
    const note = !near ? "" : near.distance === 0 ? text("timeline.inside", { name }) : text("timeline.near", { name, distance: count(near.distance) });
    slider.setAttribute("aria-valuemax", String(Math.max(0, frameCount() - 1)));
    slider.setAttribute("aria-valuenow", String(state.index));
    slider.setAttribute("aria-valuetext", text("timeline.value", { index: count(state.index), exam: examText(state.study?.recording, time), playback: clock(time), note }));
  }

  /** Return the event that was meant by a pointer at x, y: one in the row, not farther than HIT_PX. */
  function eventAt(x, y) {
    const row = me.rows.find((each) => each.kind === "events" && y >= each.top - 1 && y <= each.top + each.height + 1);
    if (!row) return null;
    const reach = ((HIT_PX + NARROWEST / 2) / me.width) * (me.view.to - me.view.from);
    const frame = me.view.from + (x / me.width) * (me.view.to - me.view.from);
    const distance = (event) => Math.max(event.start_index - frame, 0, frame - event.end_index);
    const near = row.facts.events.filter((event) => distance(event) <= reach).sort((left, right) => distance(left) - distance(right))[0];
    return near ? { event: near, inside: distance(near) === 0 && frame < near.end_index, name: hitName(near, row) } : null;
  }

  /** Return the name of an event, with the decision on it. */
  function hitName(event, row) {
    const decided = ["confirmed", "rejected", "relabelled"].includes(event.verdict);
    return decided ? text("timeline.decided", { name: row.name, verdict: text(`verdict.${event.verdict}`).toLowerCase() }) : event.name ?? row.name;
  }

  const place = (event) => {
    const box = track.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };

  function onPointerDown(event) {
    if (event.button !== 0 || !frameCount()) return;
    const { x, y } = place(event);
    const hit = eventAt(x, y);
    const narrow = hit && ((hit.event.end_index - hit.event.start_index) / (me.view.to - me.view.from)) * me.width < 2 * HIT_PX;
    slider.setPointerCapture(event.pointerId);
    me.dragging = true;
    // A mark of a few pixels cannot be hit to the frame: it leads to the event's peak.
    if (hit) store.set({ ...(hit.event.finding ? { selectedFinding: hit.event.finding } : { selected: hit.event.suggestion, selectedFinding: null }), index: narrow ? hit.event.peak_index : frameAt(x), playing: null });
    else viewer.jumpTo(frameAt(x));
  }

  function onPointerMove(event) {
    if (!frameCount()) return;
    const { x, y } = place(event);
    const index = frameAt(x);
    if (me.dragging) viewer.scrubTo(index);
    store.set({ hovered: index });
    preview.show(index, x, me.width, { timeS: me.clock.timeOf(index), note: eventAt(x, y)?.name ?? "" });
  }

  function onPointerLeave() {
    if (me.dragging) return;
    store.set({ hovered: null });
    preview.hide();
  }

  function onWheel(event) {
    if (!frameCount()) return;
    event.preventDefault();
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) return setView(panView(me.view, frameCount(), (event.deltaX || event.deltaY) / me.width));
    const { x } = place(event);
    return setView(zoomView(me.view, frameCount(), WHEEL_ZOOM ** event.deltaY, me.view.from + (x / me.width) * (me.view.to - me.view.from)));
  }

  slider.addEventListener("pointerdown", onPointerDown);
  slider.addEventListener("pointermove", onPointerMove);
  slider.addEventListener("pointerleave", onPointerLeave);
  for (const end of ["pointerup", "pointercancel"]) slider.addEventListener(end, () => { me.dragging = false; });
  slider.addEventListener("wheel", onWheel, { passive: false });
  // Reading the width while drawing would lay out the page in the middle of a step.
  const resized = new ResizeObserver((entries) => {
    me.width = Math.max(1, entries.at(-1).contentRect.width);
    redraw("all");
  });
  resized.observe(track);

  function onIndex({ index, playing }) {
    if (playing) {
      const next = follow(me.view, frameCount(), index);
      if (next !== me.view) setView(next);
    }
    speak();
    redraw("moving");
  }

  const stops = [
    store.subscribe(renew, ["timeline", "study", "studyId", "suggestions", "reading", "unsaved", "labels", "looking", "theme"]),
    store.subscribe(() => redraw("coverage"), ["coverage"]),
    store.subscribe(onIndex, ["index"]),
    store.subscribe(() => { speak(true); redraw("moving"); }, ["selected", "selectedFinding", "hovered", "playing", "shown"]),
    store.subscribe(() => redraw("all"), ["view"]),
  ];
  renew(store.get());
  const actions = {
    whole: () => setView({ from: 0, to: Math.max(1, frameCount()) }),
    pan_left: () => setView(panView(me.view, frameCount(), -0.5)),
    pan_right: () => setView(panView(me.view, frameCount(), 0.5)),
    zoom: zoomToSelected,
    zoom_in: () => zoom(0.5), zoom_out: () => zoom(2),
  };
  return {
    actions, setView, zoom, view: () => me.view,
    destroy() {
      for (const stop of stops) stop();
      resized.disconnect();
      cancelAnimationFrame(me.scheduled);
      clearTimeout(me.rest);
    },
  };
}
