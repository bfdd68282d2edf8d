// The landmarks of the reading and the transit times that follow from them.

import { focusPicture } from "./dialog.js";
import { button, make, showList } from "./elements.js";
import { mayChange } from "./decisions.js";
import { holdFrame, isOnScreen } from "./held_frame.js";
import { text } from "./texts.js";
import { examSeconds } from "./clocks.js";
import { clock, count, duration } from "./wording.js";

/** The names of the landmarks, in the order in which a capsule passes them. */
export const LANDMARKS = ["stomach", "small-bowel", "colon", "end"];
const TRANSITS = ["gastric_s", "small_bowel_s", "colon_s"];

/** Show the landmarks in `root`. Return {choices}: the list of the key that sets one. */
export function createLandmarks(root, store, desk) {
  const list = make("ol", { class: "landmarks" });
  const transit = make("dl", { class: "transit" });
  root.append(make("h3", {}, text("landmarks.title")), list, transit);

  const setAt = (name, index) => {
    if (mayChange(store) && isOnScreen(store, index)) desk.session.setLandmark(name, index);
    focusPicture();
  };
  const setHere = (name) => setAt(name, holdFrame(store, desk));

  function draw() {
    const state = store.get();
    showList(list, LANDMARKS, {
      keyOf: (name) => name, build: (name) => row(name, store, desk, setHere),
      signature: (name) => JSON.stringify([name, place(name, state), state.reading?.state, state.study?.recording.capture_scale]),
    });
    drawTransit(transit, state.reading);
  }
  store.subscribe(draw, ["reading", "unsaved", "study"]);
  draw();
  return {
    choices() {
      if (!mayChange(store)) return null;
      const index = holdFrame(store, desk);
      return {
        title: text("landmarks.here", { index: count(index) }),
        choices: LANDMARKS.map((name) => ({ value: name, label: text(`landmark.name.${name}`), note: text(`landmark.meaning.${name}`) })),
        onChoose: (name) => setAt(name, index),
      };
    },
  };
}

/** Return where a landmark stands: {index, time_s, saved, removed}, or null where it is not set. */
function place(name, { reading, unsaved }) {
  const stored = reading?.landmarks?.[name];
  const waiting = (unsaved ?? []).filter((action) => action.readingId === reading?.id && action.target === `landmark:${name}`).at(-1);
  if (!waiting) return stored ? { ...stored, saved: true } : null;
  return { index: waiting.body?.index ?? null, time_s: null, saved: false, state: waiting.state };
}

function row(name, store, desk, setHere) {
  const state = store.get();
  const at = place(name, state);
  const open = state.reading?.state === "open";
  const title = text(`landmark.name.${name}`);
  const go = at && at.index !== null && button(
    placeText(at, state.study),
    () => { desk.show(at.index); focusPicture(); }, { data: { act: "go" }, "aria-label": text("landmarks.go", { name: title }) });
  return make("li", {}, make("span", { class: "name", title: text(`landmark.meaning.${name}`) }, title),
    make("span", { class: "place" }, go || make("span", { class: "empty" }, text("landmarks.unset")),
      at && !at.saved && make("span", { class: "badge", data: { saving: at.state } }, text(`saving.${at.state}`))),
    make("span", { class: "verbs" }, open && button(text("landmarks.set"), () => setHere(name), { data: { act: "set" }, "aria-label": text("landmarks.set_here", { name: title }) }),
    open && at?.saved && button("×", () => desk.session.removeLandmark(name), {
      class: "quiet", data: { act: "remove" }, title: text("landmarks.remove_one", { name: title }), "aria-label": text("landmarks.remove_one", { name: title }) })));
}

/** Return the frame of a landmark and its time, with the name of the clock: exam where it is known, else playback. */
function placeText({ index, time_s: timeS }, study) {
  if (timeS === null) return count(index);
  const exam = examSeconds(study?.recording, timeS);
  const [name, seconds] = exam === null ? ["caption.playback", timeS] : ["caption.exam", exam];
  return `${count(index)}, ${text(name, { time: clock(seconds) })}`;
}

function drawTransit(root, reading) {
  const transit = reading?.transit ?? {};
  const rows = TRANSITS.filter((part) => typeof transit[part] === "number");
  const unknown = Boolean(transit.unknown_for_lack_of) && Object.keys(reading.landmarks).length > 1;
  root.hidden = rows.length === 0 && !unknown;
  root.replaceChildren(...rows.map((part) => make("div", {}, make("dt", {}, text(`transit.${part}`)), make("dd", {}, duration(transit[part])))));
  // A sentence needs the whole width.
  root.classList.toggle("wide", unknown);
  if (unknown) root.replaceChildren(make("div", {}, make("dt", {}, text("transit.title")), make("dd", {}, text("transit.unknown"))));
}
