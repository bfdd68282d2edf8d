// The picture: one or two panes, stepping, playback, and the record of what was on the screen.
//
// All drawing happens in one animation frame callback, so the time at which a picture was drawn is the time that counts
// for what was seen. The callback runs only while something moves or a frame on the screen is not seen yet.

import { createContours } from "./contour.js";
import { createControls } from "./controls.js";
import { make } from "./elements.js";
import { createFrameRing, planFrames } from "./frame_ring.js";
import { createPane } from "./pane.js";
import { createMeter, createPace, nextRate, SEEN_RATE } from "./playback.js";
import { hasFrame } from "./ranges.js";
import { isBlind } from "./state.js";
import { createStrip } from "./strip.js";
import { peakOf } from "./suggestions.js";

// A key that is held for longer scrubs: it plays at the chosen rate until it is released.
const HOLD_MS = 280;
// A frame that takes longer is announced as being on its way; a shorter note would only flicker.
const WAIT_MS = 150;

const now = () => performance.now();

/** Return whether the picture could be seen: the window is visible, the view is open and nothing covers it. */
function createSight(stage, store) {
  let onScreen = true;
  const observer = new IntersectionObserver((entries) => { onScreen = entries.at(-1).intersectionRatio >= 0.5; }, { threshold: [0, 0.5, 1] });
  observer.observe(stage);
  // A live list: asking it in every animation frame searches nothing.
  const dialogs = document.getElementsByTagName("dialog");
  const isCovered = () => [...dialogs].some((dialog) => dialog.open);
  return {
    isVisible: () => onScreen && document.visibilityState === "visible" && store.get().view === "reading" && !isCovered(),
    destroy: () => observer.disconnect(),
  };
}

/** Return the viewer in `root`. `seen` is the record of seen.js. */
export function createViewer(root, store, api, { seen }) {
  const panes = [createPane(), createPane()];
  const stage = make("div", { class: "stage" }, panes.map((pane) => pane.element));
  const ring = createFrameRing(api, () => schedule());
  const sight = createSight(stage, store);
  const contourOf = createContours(api);
  const meter = createMeter();
  const stops = [];
  const me = { scheduled: 0, paintedAt: 0, wantedAt: 0, pace: null, contour: null, keptContour: false, pressedAt: 0, scrubTarget: null, direction: 1, hold: 0, holding: false };

  const frameCount = () => store.get().study?.recording?.frames ?? 0;
  const paneCount = () => (store.get().dual ? 2 : 1);
  const inPane = (pane) => store.get().index + pane;

  function schedule() {
    if (!me.scheduled) me.scheduled = requestAnimationFrame(onFrame);
  }

  function onFrame(at) {
    me.scheduled = 0;
    seen.tick(at, sight.isVisible());
    advance(at);
    const waiting = paint(at);
    const shown = panes.slice(0, paneCount()).some((pane) => pane.shown()?.bitmap);
    // While a frame is awaited the ring calls; only the note that it is on its way needs the clock.
    if (store.get().playing || (waiting && at - me.wantedAt < 2 * WAIT_MS) || (shown && sight.isVisible() && seen.isPending())) schedule();
  }

  function advance(at) {
    const { playing, index } = store.get();
    if (!playing) return;
    const next = index + playing.direction;
    if (next < 0 || next + paneCount() > Math.max(frameCount(), paneCount())) return pause();
    const drawn = panes[0].shown()?.index === index;
    const ready = Array.from({ length: paneCount() }, (_, pane) => ring.get(next + pane)).every(Boolean);
    if (!drawn || !me.pace.isDue(at, me.paintedAt) || !ready) return;
    // Up to 15 a second every frame is seen, also where the computer is too busy to paint in time.
    if (playing.rate <= SEEN_RATE && sight.isVisible() && seen.isUnseen()) return;
    me.pace.advance(at);
    store.set({ index: next });
  }

  /** Draw what is ready and not on the screen yet. Return whether a frame is still awaited. */
  function paint(at) {
    const state = store.get();
    if (!state.study || state.view !== "reading" || !frameCount()) return false;
    const facts = { recording: state.study.recording, frames: frameCount() };
    let [waiting, drawn] = [false, false];
    panes.slice(0, paneCount()).forEach((pane, place) => {
      const index = inPane(place);
      const entry = index < frameCount() ? ring.get(index) : undefined;
      if (index >= frameCount()) pane.clear();
      else if (!entry) waiting = true;
      else if (pane.shown() !== entry) {
        pane.draw(entry, { ...facts, seen: seenMark(entry) });
        drawn = true;
      }
      if (!entry && index < frameCount() && at - me.wantedAt > WAIT_MS) pane.waitFor(index);
    });
    if (drawn) afterDrawing(at);
    return waiting;
  }

  function afterDrawing(at) {
    const shown = panes.slice(0, paneCount()).map((pane) => pane.shown()).filter(Boolean);
    seen.paint(shown.filter((entry) => entry.bitmap).map((entry) => entry.index), at, sight.isVisible());
    me.paintedAt = at;
    meter.add(at);
    const { index, time_s: timeS, failure } = panes[0].shown() ?? {};
    store.set({ shown: { index, time_s: timeS, failure } });
    controls.showPace(store.get().playing ? meter.rate() : null);
    if (me.contour) drawContours();
    if (me.scrubTarget !== null && index === store.get().index) {
      const target = me.scrubTarget;
      me.scrubTarget = null;
      show(target);
    }
  }

  function seenMark(entry) {
    const { reading, coverage } = store.get();
    return reading && entry.bitmap ? hasFrame(coverage.seen, entry.index) : null;
  }

  function fetchAround() {
    const { index, playing, rate } = store.get();
    if (!frameCount()) return;
    const ahead = playing ? Math.min(48, Math.ceil(1.5 * rate) + 6) : 8;
    ring.want(planFrames({ index, frames: frameCount(), shown: paneCount(), direction: me.direction, ahead, behind: playing ? 3 : 8 }), paneCount());
  }

  function onIndex() {
    me.wantedAt = now();
    // Whoever goes elsewhere has let go of the place that a pointer was dragged to.
    me.scrubTarget = null;
    fetchAround();
    schedule();
  }

  /** Show frame `index`, held within the recording. */
  function show(index) {
    const wanted = Math.min(Math.max(0, Math.round(index)), Math.max(0, frameCount() - 1));
    const before = store.get().index;
    if (wanted === before) return;
    me.direction = wanted > before ? 1 : -1;
    store.set({ index: wanted });
  }

  /** Show a frame that was clicked, at once: a picture that is still on its way is not waited for. */
  function jumpTo(index) {
    pause();
    me.scrubTarget = null;
    show(index);
  }

  /** Follow a pointer that is dragged: the next frame is asked for when the last one is on the screen. */
  function scrubTo(index) {
    pause();
    if (panes[0].shown()?.index === store.get().index) show(index);
    else me.scrubTarget = index;
  }

  function play(direction) {
    if (!frameCount()) return;
    me.direction = direction;
    me.scrubTarget = null;
    me.pace = createPace(store.get().rate, now());
    meter.clear();
    store.set({ playing: { direction, rate: store.get().rate } });
  }

  function pause() {
    if (store.get().playing) store.set({ playing: null });
  }

  function setRate(fps) {
    const playing = store.get().playing;
    store.set({ rate: fps });
    if (playing) play(playing.direction);
  }

  function step(frames) {
    pause();
    show(store.get().index + frames);
  }

  /** A held key or button: one step at once, and after a moment playback until it is released. */
  const holdable = (direction) => ({
    down() {
      step(direction);
      clearTimeout(me.hold);
      me.hold = setTimeout(() => { me.holding = true; play(direction); }, HOLD_MS);
    },
    up() {
      clearTimeout(me.hold);
      if (me.holding) pause();
      me.holding = false;
    },
  });

  const toggle = (direction) => () => (store.get().playing ? pause() : play(direction));

  function toggleDual() {
    store.set({ dual: !store.get().dual });
  }

  async function drawContours() {
    const state = store.get();
    if (!me.contour || isBlind(state) || state.playing) return;
    const chosen = state.suggestions.find(({ id }) => id === state.selected);
    await Promise.all(panes.slice(0, paneCount()).map(async (pane) => {
      const entry = pane.shown();
      if (!entry?.bitmap) return;
      const from = { studyId: state.studyId, resultId: state.reading?.result_id ?? null };
      const path = await contourOf(from, entry.index, chosen?.label ?? null, me.contour.signal);
      // The key may have been released, or another frame drawn, while the map was on its way.
      if (me.contour && pane.shown() === entry) pane.contour(path || null, entry.bitmap);
    }));
  }

  /** Show the activation contour while `held` is true. */
  async function holdContour(held) {
    me.contour?.abort();
    me.contour = held ? new AbortController() : null;
    if (!held) return panes.forEach((pane) => pane.contour(null));
    try {
      await drawContours();
    } catch (error) {
      if (error.name !== "AbortError") store.set({ message: { kind: "error", text: error.message, hint: error.hint ?? "" } });
    }
  }

  /** Keep the contour on or switch it off again, as a click on its button does. */
  function keepContour(kept) {
    me.keptContour = kept;
    controls.showContour(kept);
    return holdContour(kept);
  }

  /** The button of the contour: held, it shows the line until it is let go; a click keeps the line or takes it away. */
  const contourButton = {
    down() {
      me.pressedAt = now();
      if (!me.keptContour) holdContour(true);
    },
    up() {
      const isClick = now() - me.pressedAt < HOLD_MS;
      keepContour(isClick && !me.keptContour);
    },
  };

  function onSelected(state, changed) {
    const chosen = state.suggestions.find(({ id }) => id === state.selected);
    if (!chosen || isBlind(state) || changed.includes("index")) return;
    pause();
    show(peakOf(chosen));
  }

  function onView({ view }) {
    if (view !== "reading") pause();
    fetchAround();
    schedule();
  }

  function openRing({ studyId, index }) {
    ring.open(studyId);
    // The picture is asked for together with the document of the examination, not after it.
    if (studyId !== null) ring.want([index]);
    me.scrubTarget = null;
    for (const pane of panes) pane.clear();
    if (me.keptContour) keepContour(false);
  }

  function layOut({ dual }) {
    root.classList.toggle("dual", dual);
    panes[1].element.hidden = !dual;
    if (!dual) panes[1].clear();
    fetchAround();
    schedule();
  }

  const actions = {
    next: holdable(1), previous: holdable(-1),
    next10: () => step(10), previous10: () => step(-10),
    first: () => { pause(); show(0); }, last: () => { pause(); show(frameCount() - 1); },
    play: toggle(1), play_back: toggle(-1),
    faster: () => setRate(nextRate(store.get().rate, 1)), slower: () => setRate(nextRate(store.get().rate, -1)),
    go: () => controls.focusGo(), dual: toggleDual,
    contour: { down: () => holdContour(true), up: () => (me.keptContour ? undefined : holdContour(false)) },
  };
  const controls = createControls(store, { actions, contourButton, show: (index) => { pause(); show(index); }, setRate });
  const strip = createStrip(store, api, { show: (index) => { pause(); show(index); } });
  root.replaceChildren(stage, make("div", { class: "beside" }, controls.element, strip.element));

  stops.push(
    store.subscribe(openRing, ["studyId"]),
    store.subscribe(onIndex, ["index", "study"]),
    store.subscribe(({ study }) => study && panes.forEach((pane) => pane.name({ recording: study.recording, frames: frameCount() })), ["study"]),
    store.subscribe(layOut, ["dual"]),
    store.subscribe(onSelected, ["selected"]),
    store.subscribe(onView, ["playing", "view", "reading", "looking"]),
    store.subscribe(() => panes.forEach((pane) => pane.shown() && pane.mark(seenMark(pane.shown()))), ["coverage"]),
    store.subscribe(({ connected }) => connected && ring.retry(), ["connected", "study"]),
  );
  openRing(store.get());
  layOut(store.get());
  onIndex();

  return {
    /** Where the tools of the timeline stand: among the controls of the picture. */
    toolsRoot: controls.element,
    actions, show, step, jumpTo, scrubTo, play, pause, setRate, toggleDual, holdContour,
    /** Return the entries on the screen: [{index, bitmap, failure}]. */
    shown: () => panes.map((pane) => pane.shown()).filter(Boolean),
    destroy() {
      cancelAnimationFrame(me.scheduled);
      for (const stop of stops) stop();
      ring.open(null);
      sight.destroy();
      strip.destroy();
    },
  };
}
