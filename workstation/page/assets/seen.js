// The record of what a human has seen.
//
// A frame is seen when it was painted in a visible window for at least 1/15 s, in whichever pane. A frame that was
// painted for a shorter time is skimmed. Time is counted between animation frames: the browser runs none while the
// window is hidden or covered, so such time cannot count.

import { hasReader, readerOf } from "./readers.js";
import { addRange, hasFrame, subtractRanges, uniteRanges } from "./ranges.js";

/** Shortest time in ms on the screen for a frame to be seen. */
export const SEEN_MS = 1000 / 15;
// Times of animation frames are rounded by the browser: four frames of a 60 Hz screen may read as 66.6 ms.
const ROUNDING_MS = 0.5;
// A longer pause between two animation frames means that the browser did not paint. It is not counted.
const LONGEST_TICK_MS = 250;
const SEND_EVERY_MS = 5000;
const DRAW_EVERY_MS = 250;
// Without a key, a movement of the mouse or playback for this long, the reader is taken to be away.
const AWAY_MS = 60_000;

/** Measure how long frames are on the screen. Pure: times come in, seen and skimmed frames go out. */
export function createDwell({ onSeen, onSkimmed }) {
  let dwell = new Map();
  let last = null;

  /** Count the time up to `at` (ms) for the frames on the screen; `visible` says whether they could be seen. */
  function tick(at, visible) {
    const passed = last === null ? 0 : at - last;
    last = visible ? at : null;
    if (!visible || passed <= 0 || passed > LONGEST_TICK_MS) return;
    for (const [index, entry] of dwell) {
      entry.ms += passed;
      if (!entry.seen && entry.ms + ROUNDING_MS >= SEEN_MS) {
        entry.seen = true;
        onSeen(index);
      }
    }
  }

  /** The frames `indices` are on the screen from `at` on, and no others. */
  function paint(indices, at, visible) {
    tick(at, visible);
    const next = new Map();
    for (const index of indices) next.set(index, dwell.get(index) ?? { ms: 0, seen: false });
    for (const [index, entry] of dwell) if (!next.has(index) && !entry.seen && entry.ms > 0) onSkimmed(index);
    dwell = next;
    last = visible ? at : null;
  }

  return {
    tick,
    paint,
    /** Nothing is painted: time up to the next tick does not count. */
    interrupt: () => { last = null; },
    /** Count anew what is on the screen: another reading begins. */
    restart: () => { dwell = new Map([...dwell.keys()].map((index) => [index, { ms: 0, seen: false }])); },
    /** Whether a frame on the screen is not seen yet. */
    isPending: () => [...dwell.values()].some((entry) => !entry.seen),
    /** Return the frames on the screen that have been there long enough to be seen. */
    rested: () => [...dwell].filter(([, entry]) => entry.seen).map(([index]) => index),
  };
}

/**
 * Keep what the service has not acknowledged, by reading: ranges of frames and active seconds. One report is sent at a
 * time, so that a report that failed is sent again whole.
 */
function createReports(api, onProgress) {
  const waiting = new Map();
  let last = Promise.resolve();

  function of(id) {
    if (!waiting.has(id)) waiting.set(id, { seen: [], skimmed: [], seconds: 0, held: false });
    return waiting.get(id);
  }

  const isEmpty = ({ seen, skimmed, seconds }) => seconds === 0 && seen.length + skimmed.length === 0;

  async function post(id, keepalive) {
    const report = of(id);
    waiting.delete(id);
    if (isEmpty(report)) return;
    const { seen, skimmed, seconds } = report;
    try {
      onProgress(id, await api.send("POST", `readings/${id}/seen`, { seen, skimmed, seconds: Math.round(seconds * 1000) / 1000, reader: readerOf({ id }) }, { keepalive }));
    } catch (error) {
      if ([404, 422].includes(error.status)) return;
      const now = of(id);
      // A reading that another window has finished takes no more until it is opened again.
      const held = error.status === 409;
      waiting.set(id, { seen: uniteRanges(now.seen, seen), skimmed: uniteRanges(now.skimmed, skimmed), seconds: now.seconds + seconds, held });
    }
  }

  async function sendAll(keepalive) {
    // A page that is being left sends a report that this list still names.
    for (const id of [...waiting.keys()]) if (waiting.has(id) && !waiting.get(id).held) await post(id, keepalive);
  }

  return {
    of,
    /** Send what waits, of every reading, after the report that is on its way. */
    send: (keepalive = false) => (last = last.catch(() => {}).then(() => sendAll(keepalive))),
    /** Send what waits without waiting for the report that is on its way: the page is being left. */
    sendNow: () => sendAll(true),
    hold: (id) => { if (waiting.has(id)) waiting.get(id).held = true; },
    isSent: (id) => !waiting.has(id) || isEmpty(waiting.get(id)),
    release: (id) => { if (waiting.has(id)) waiting.get(id).held = false; },
  };
}

/** Record what is seen for the reading in `store` and report it to the service every five seconds. */
export function createSeenRecord(store, api) {
  let readingId = null;
  let active = { at: performance.now(), used: performance.now() };
  let drawn = 0;
  let changed = false;
  const reports = createReports(api, (id, progress) => {
    const { reading } = store.get();
    if (reading?.id === id) store.set({ reading: { ...reading, progress: progress.progress ?? progress } });
  });

  const record = (kind) => (index) => {
    if (readingId === null) return;
    const { coverage } = store.get();
    if (hasFrame(coverage.seen, index) || (kind === "skimmed" && hasFrame(coverage.skimmed, index))) return;
    addRange(reports.of(readingId)[kind], index, index + 1);
    addRange(coverage[kind], index, index + 1);
    if (kind === "seen") coverage.skimmed = subtractRanges(coverage.skimmed, [[index, index + 1]]);
    changed = true;
  };
  const [recordSeen, recordSkimmed] = [record("seen"), record("skimmed")];
  // The frames that rested on the screen since another target of decisions was selected.
  let rested = new Set();
  const dwell = createDwell({ onSeen: (index) => { rested.add(index); recordSeen(index); }, onSkimmed: recordSkimmed });

  function publish(at) {
    if (!changed || at - drawn < DRAW_EVERY_MS) return;
    drawn = at;
    changed = false;
    store.set({ coverage: { ...store.get().coverage } });
  }

  function showCoverage(reading) {
    const { seen, skimmed } = reading?.coverage ?? { seen: [], skimmed: [] };
    store.set({ coverage: { seen: uniteRanges([], seen), skimmed: uniteRanges([], skimmed) } });
  }

  /** Return the seconds in which the reader was active since the last call. */
  function takeSeconds() {
    const now = performance.now();
    const present = document.visibilityState === "visible" && (store.get().playing || now - active.used < AWAY_MS);
    const seconds = present ? (now - active.at) / 1000 : 0;
    active = { at: now, used: active.used };
    return Math.min(seconds, 2 * SEND_EVERY_MS / 1000);
  }

  /** Add the active time to the report of the reading. */
  function closeReport() {
    const seconds = takeSeconds();
    if (readingId !== null) reports.of(readingId).seconds += seconds;
  }

  /** Send all that was seen. Return a promise of whether the service has acknowledged it for the open reading. */
  async function flush() {
    const id = readingId;
    closeReport();
    await reports.send();
    return id === null || reports.isSent(id);
  }

  function sendLeaving() {
    closeReport();
    return reports.sendNow();
  }

  // What was seen is shown of a finished reading too, which takes no more.
  let shownId = null;
  store.subscribe(({ reading }) => {
    if ((reading?.id ?? null) === shownId) return;
    shownId = reading?.id ?? null;
    showCoverage(reading);
  }, ["reading"]);
  store.subscribe(() => { rested = new Set(dwell.rested()); }, ["selected", "selectedFinding", "studyId"]);
  store.subscribe(({ reading }) => {
    // What is seen is logged with a name. Without one this tab only looks, also where another window opens it again.
    const id = reading && reading.state !== "finished" && hasReader(reading.id) ? reading.id : null;
    if (id === readingId) return;
    // A reading that was just finished takes no more until it is opened again.
    if (reading?.id === readingId) reports.hold(readingId);
    else closeReport();
    takeSeconds();
    readingId = id;
    if (id !== null) reports.release(id);
    dwell.restart();
    rested.clear();
    showCoverage(reading);
    reports.send();
  }, ["reading"]);
  const timer = setInterval(flush, SEND_EVERY_MS);
  const used = () => { active.used = performance.now(); };
  for (const name of ["keydown", "pointermove", "pointerdown", "wheel"]) window.addEventListener(name, used, { passive: true, capture: true });
  window.addEventListener("pagehide", sendLeaving);
  document.addEventListener("visibilitychange", () => {
    dwell.interrupt();
    if (document.visibilityState === "hidden") sendLeaving();
    else flush();
  });

  return {
    tick: (at, visible) => { dwell.tick(at, visible); publish(at); },
    paint: (indices, at, visible) => { dwell.paint(indices, at, visible); publish(at); },
    /** Whether a frame for which `isOf(index)` holds rested on the screen since another target was selected. */
    hasRested: (isOf) => [...rested].some(isOf),
    /** Whether a frame on the screen is not seen yet. */
    isUnseen: () => dwell.isPending(),
    /** Whether there is more to count or to publish: a tick is wanted with the next animation frame. */
    isPending: () => dwell.isPending() || changed,
    flush,
    destroy: () => clearInterval(timer),
  };
}
