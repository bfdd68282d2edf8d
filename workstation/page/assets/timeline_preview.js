// The preview over the timeline: a small picture of the frame under the pointer, with its index and clocks.

import { URGENCY } from "./api.js";
import { clock, count, examText } from "./clocks.js";
import { make } from "./elements.js";
import { text } from "./texts.js";

const SIZE = 144;
const KEPT = 200;
// A picture that did not come for a reason that passes is asked for again after this wait.
const AGAIN_MS = 1000;
// A pointer that has been still for so long rests: its picture comes first, also that of a click that follows.
const REST_MS = 40;
const LASTING = new Set(["frame_missing", "frame_corrupt"]);

/** Return both clocks of a frame, nothing where its time is not known yet. */
function clockWords(recording, timeS) {
  return timeS === null ? "" : ` · ${examText(recording, timeS)} · ${text("caption.playback", { time: clock(timeS) })}`;
}

/** Return the preview: {element, show(index, x, width, words), hide(), open()}. */
export function createPreview(store, api) {
  const canvas = make("canvas", { width: SIZE, height: SIZE });
  const words = make("p", {});
  const element = make("div", { class: "preview", hidden: true, "aria-hidden": "true" }, canvas, words);
  const context = canvas.getContext("2d");
  const kept = new Map();
  let wanted = null;
  // The picture that is on its way: {index, controller}.
  let loading = null;
  let [again, rest] = [0, 0];

  function draw(bitmap) {
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
    context.drawImage(bitmap, 0, 0);
    canvas.hidden = false;
  }

  /** Fetch one picture at a time, always the one under the pointer: requests never pile up behind a fast hand. */
  async function load() {
    if (loading) return;
    while (wanted !== null && !kept.has(wanted)) {
      const [index, studyId] = [wanted, store.get().studyId];
      loading = { index, controller: new AbortController() };
      let bitmap = null;
      let passes = false;
      try {
        const response = await api.answer(`studies/${studyId}/frames/${index}?size=${SIZE}`, { urgency: URGENCY.pointer, signal: loading.controller.signal });
        if (response.headers.get("X-Frame-Index") === String(index)) bitmap = await createImageBitmap(await response.blob());
      } catch (error) {
        if (error.name === "AbortError") continue;
        // A frame without a picture has none in its preview. Its status row and the pane say why.
        passes = !LASTING.has(error.code);
      }
      if (studyId !== store.get().studyId) break;
      if (passes) {
        if (index !== wanted) continue;
        canvas.hidden = true;
        clearTimeout(again);
        again = setTimeout(load, AGAIN_MS);
        break;
      }
      if (kept.size >= KEPT) kept.delete(kept.keys().next().value);
      kept.set(index, bitmap);
      if (index === wanted) bitmap ? draw(bitmap) : (canvas.hidden = true);
    }
    loading = null;
  }

  /** Give up the picture of a place that the pointer has left: it would hold up the one that it rests on. */
  function giveUpOther() {
    if (loading !== null && loading.index !== wanted) loading.controller.abort();
  }

  function show(index, x, width, { timeS, note }) {
    const { study } = store.get();
    wanted = index;
    words.textContent = text("preview.words", { index: count(index), clocks: clockWords(study?.recording, timeS), note: note ? ` · ${note}` : "" });
    element.hidden = false;
    const half = element.offsetWidth / 2;
    element.style.setProperty("left", `${Math.min(Math.max(half, x), Math.max(half, width - half))}px`);
    const bitmap = kept.get(index);
    if (bitmap) draw(bitmap);
    else canvas.hidden = true;
    clearTimeout(rest);
    rest = setTimeout(giveUpOther, REST_MS);
    load();
  }

  return {
    element, show,
    hide: () => { wanted = null; element.hidden = true; },
    open: () => { wanted = null; kept.clear(); },
  };
}
