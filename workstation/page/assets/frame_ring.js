// Decoded frames around the current one. A frame is kept only if the answer says that it is the frame asked for, so a
// picture can never stand under another frame's index.

import { URGENCY } from "./api.js";
import { text } from "./texts.js";

// A browser keeps six connections to a host: one is the event stream, one stays free for everything else.
const PARALLEL = 4;
const RING_BYTES = 160 << 20;
const MOST_FRAMES = 240;

// A frame that failed for a reason that passes is asked for again after these waits, milliseconds.
const AGAIN_MS = [500, 1000, 2000, 4000, 8000];

const UNAVAILABLE = new Set(["frame_missing", "frame_corrupt"]);

function numberOf(headers, name) {
  const value = headers.get(name);
  return value === null || value === "" || !Number.isFinite(Number(value)) ? null : Number(value);
}

/** Fetch and decode one frame: {index, bitmap, time_s, bytes}. `onBody()` is called when it only has to be decoded. */
async function fetchFrame(api, studyId, index, { signal, urgency, onBody }) {
  const response = await api.answer(`studies/${studyId}/frames/${index}`, { signal, urgency });
  const answered = numberOf(response.headers, "X-Frame-Index");
  if (answered !== index) throw new RangeError(text("frame.wrong", { wanted: index, answered }));
  const picture = await response.blob();
  onBody();
  const bitmap = await createImageBitmap(picture);
  return { index, bitmap, time_s: numberOf(response.headers, "X-Frame-Time"), bytes: 4 * bitmap.width * bitmap.height, failure: null };
}

/** Return the time of a frame that has no picture, from the table of frames; null where it has none or is not read yet. */
async function timeWithoutPicture(api, studyId, index, signal) {
  try {
    const { rows } = await api.get(`studies/${studyId}/frames?start=${index}&count=1`, { signal });
    return rows[0]?.time_s ?? null;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return null;
  }
}

/** Return what is shown in place of a frame that has no picture. */
function describeFailure(index, error, timeS = null) {
  const lost = UNAVAILABLE.has(error.code);
  const detail = error.body?.current?.detail ?? "";
  return {
    index, bitmap: null, time_s: timeS, bytes: 0,
    failure: { lasting: lost, code: error.code ?? "error", message: error.message ?? String(error), hint: error.hint ?? "", detail },
  };
}

/** Return the entry of a frame: its picture, or why it has none. Raises AbortError only. */
async function loadEntry(api, studyId, index, request) {
  try {
    return await fetchFrame(api, studyId, index, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const timeS = UNAVAILABLE.has(error.code) ? await timeWithoutPicture(api, studyId, index, request.signal) : null;
    return describeFailure(index, error, timeS);
  }
}

/** Return a ring of frames. `onFrame(entry)` is called when a frame that was wanted has arrived or failed. */
export function createFrameRing(api, onFrame) {
  let study = null;
  let wanted = [];
  let shown = 1;
  const frames = new Map();
  const loading = new Map();
  const failures = new Map();

  function open(studyId) {
    for (const { timer } of failures.values()) clearTimeout(timer);
    failures.clear();
    for (const { controller } of loading.values()) controller.abort();
    for (const { bitmap } of frames.values()) bitmap?.close();
    loading.clear();
    frames.clear();
    wanted = [];
    study = studyId;
  }

  /** Drop the frames farthest from the one wanted first until the ring fits. */
  function trim() {
    let bytes = 0;
    for (const entry of frames.values()) bytes += entry.bytes;
    if (bytes <= RING_BYTES && frames.size <= MOST_FRAMES) return;
    const centre = wanted[0] ?? 0;
    const keep = new Set(wanted.slice(0, 4));
    for (const index of [...frames.keys()].sort((left, right) => Math.abs(right - centre) - Math.abs(left - centre))) {
      if (bytes <= RING_BYTES * 0.9 && frames.size <= MOST_FRAMES * 0.9) break;
      if (keep.has(index)) continue;
      const entry = frames.get(index);
      bytes -= entry.bytes;
      entry.bitmap?.close();
      frames.delete(index);
    }
  }

  async function load(index) {
    const controller = new AbortController();
    const urgency = wanted.indexOf(index) < shown ? URGENCY.screen : URGENCY.ahead;
    const [mine, id] = [{ controller, urgency, isArriving: true }, study];
    // While one picture is decoded, its connection fetches the next.
    const onBody = () => {
      mine.isArriving = false;
      if (loading.get(index) === mine) fill();
    };
    loading.set(index, mine);
    let entry;
    try {
      entry = await loadEntry(api, id, index, { signal: controller.signal, urgency, onBody });
    } catch (error) {
      if (error.name !== "AbortError") throw error;
    }
    if (loading.get(index) === mine) loading.delete(index);
    // An answer that comes after its request was given up, or after another examination was opened, is dropped.
    if (id !== study || controller.signal.aborted || !entry) return entry?.bitmap?.close();
    frames.set(index, entry);
    if (entry.failure && !entry.failure.lasting) askAgainLater(entry);
    else failures.delete(index);
    trim();
    onFrame(entry);
    return fill();
  }

  /** Forget an entry that failed after a short wait, so that it is asked for again while it is wanted. */
  function askAgainLater(entry) {
    const before = failures.get(entry.index);
    clearTimeout(before?.timer);
    const count = (before?.count ?? 0) + 1;
    const timer = setTimeout(() => {
      if (frames.get(entry.index) === entry) frames.delete(entry.index);
      fill();
    }, AGAIN_MS[Math.min(count, AGAIN_MS.length) - 1]);
    failures.set(entry.index, { timer, count });
  }

  function fill() {
    // While the reader waits for a frame, nothing is fetched ahead that would compete with it.
    const waiting = wanted.slice(0, shown).some((index) => !frames.has(index));
    let arriving = [...loading.values()].filter(({ isArriving }) => isArriving).length;
    for (const index of waiting ? wanted.slice(0, shown) : wanted) {
      if (arriving >= PARALLEL && !waiting) return;
      if (loading.has(index) || frames.has(index)) continue;
      arriving += 1;
      load(index);
    }
  }

  /**
   * Fetch `indices` in this order, the first `count` before all others, and give up every other request. A frame that
   * was fetched ahead and is waited for now is asked for anew, as an urgent one.
   */
  function want(indices, count = 1) {
    [wanted, shown] = [indices, count];
    const [list, first] = [new Set(indices), new Set(indices.slice(0, count))];
    for (const [index, { controller, urgency, isArriving }] of loading) {
      const isLate = first.has(index) && isArriving && urgency !== URGENCY.screen;
      if (list.has(index) && !isLate) continue;
      loading.delete(index);
      controller.abort();
    }
    fill();
  }

  /** Forget frames that failed for a reason that passes, so that they are asked for again. */
  function retry() {
    for (const [index, entry] of frames) if (entry.failure && !entry.failure.lasting) frames.delete(index);
    fill();
  }

  return { open, want, retry, get: (index) => frames.get(index), size: () => frames.size };
}

/** Return the frames to hold for the current one: those shown, then ahead in the direction of travel, then behind. */
export function planFrames({ index, frames, shown, direction, ahead, behind }) {
  const plan = [];
  const add = (frame) => { if (frame >= 0 && frame < frames && !plan.includes(frame)) plan.push(frame); };
  for (let pane = 0; pane < shown; pane += 1) add(index + pane);
  const front = direction > 0 ? index + shown - 1 : index;
  const back = direction > 0 ? index : index + shown - 1;
  for (let step = 1; step <= Math.max(ahead, behind); step += 1) {
    if (step <= ahead) add(front + step * direction);
    if (step <= behind) add(back - step * direction);
  }
  return plan;
}
