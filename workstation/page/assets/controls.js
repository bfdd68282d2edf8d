// The buttons of the picture. Each does what a key does, so that everything works with the mouse and without letters.

import { count } from "./clocks.js";
import { button, make } from "./elements.js";
import { keyName, runAction } from "./keys.js";
import { RATES, SEEN_RATE } from "./playback.js";
import { isBlind } from "./state.js";
import { text } from "./texts.js";

const PACE_EVERY_MS = 1000;

function actionButton(name, label, key, properties = {}) {
  const title = text("control.with_key", { what: text(`key.${name}`), key: keyName(key) });
  return button(label, () => runAction(name), { title, "aria-label": text(`key.${name}`), "aria-keyshortcuts": key === " " ? "Space" : key.replace("+ ", "+Space"), ...properties });
}

/** A button that acts as long as it is pressed, by mouse, touch, Space or Enter. */
function holdButton(name, label, key, action, words = "control.hold_key") {
  const title = text(words, { what: text(`key.${name}`), key: keyName(key) });
  const made = make("button", { type: "button", title, "aria-label": text(`key.${name}`), "aria-keyshortcuts": key }, label);
  let down = false;
  let byKey = false;
  const press = () => { if (!down) { down = true; action.down(); } };
  const release = () => { if (down) { down = false; action.up(); } };
  made.addEventListener("pointerdown", (event) => { if (event.button === 0) { made.setPointerCapture(event.pointerId); press(); } });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture", "blur"]) made.addEventListener(end, release);
  made.addEventListener("keydown", (event) => {
    if (event.key !== " " && event.key !== "Enter") return;
    event.preventDefault();
    byKey = true;
    press();
  });
  made.addEventListener("keyup", () => { release(); byKey = false; });
  // A click by a screen reader comes without any of these events.
  made.addEventListener("click", (event) => { if (event.detail === 0 && !down && !byKey) { action.down(); setTimeout(action.up, 0); } });
  return made;
}

function goForm(store, show) {
  const field = make("input", { type: "text", inputmode: "numeric", size: 7, autocomplete: "off", id: "go-frame" });
  const form = make("form", { class: "go" }, make("label", { for: "go-frame" }, text("control.go")), field, make("button", { type: "submit" }, text("control.go_button")));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const [typed, frames] = [field.value.replace(/[\s,.']/g, ""), store.get().study?.recording?.frames ?? 0];
    if (!/^\d+$/.test(typed) || Number(typed) >= frames) {
      field.setAttribute("aria-invalid", "true");
      store.set({ message: { kind: "error", text: text("control.go_refused", { typed: field.value || text("control.nothing"), last: count(Math.max(0, frames - 1)) }), hint: "" } });
      return;
    }
    field.removeAttribute("aria-invalid");
    show(Number(typed));
    field.blur();
  });
  field.addEventListener("keydown", (event) => event.key === "Escape" && field.blur());
  return { form, field };
}

/** Return the controls: {element, focusGo(), showPace(framesPerSecond), showContour(kept)}. */
export function createControls(store, { actions, contourButton, show, setRate }) {
  const play = actionButton("play", text("control.play"), " ", { class: "primary play" });
  const back = actionButton("play_back", text("control.play_back"), "Shift+ ");
  const rate = make("select", { "aria-label": text("control.rate") }, RATES.map((fps) => make("option", { value: String(fps) }, text("control.fps", { fps }))));
  const pace = make("p", { class: "pace" });
  let saidAt = -PACE_EVERY_MS;
  const dual = actionButton("dual", text("control.dual"), "D");
  const contour = holdButton("contour", text("control.contour"), "M", contourButton, "control.hold_or_click");
  contour.setAttribute("aria-pressed", "false");
  const { form, field } = goForm(store, show);
  const element = make("div", { class: "controls", role: "toolbar", "aria-label": text("control.bar") },
    make("div", { class: "row" }, holdButton("previous", text("control.previous"), "ArrowLeft", actions.previous), back, play, holdButton("next", text("control.next"), "ArrowRight", actions.next)),
    make("div", { class: "row" }, actionButton("slower", "«", ","), rate, actionButton("faster", "»", "."), dual, contour),
    make("div", { class: "row" }, form), pace);
  rate.addEventListener("change", () => { setRate(Number(rate.value)); rate.blur(); });

  /** Say how fast the frames come, but not more than once a second: each new text lays out the page again. */
  function showPace(measured = null) {
    const state = store.get();
    const now = performance.now();
    if (state.playing && measured !== null && now - saidAt < PACE_EVERY_MS) return;
    saidAt = now;
    const slow = state.playing && measured !== null && measured < 0.8 * state.rate;
    const words = slow ? text("control.slowed", { fps: measured.toFixed(0) }) : state.rate > SEEN_RATE ? text("control.skims", { fps: state.rate }) : text("control.sees");
    if (pace.textContent !== words) pace.textContent = words;
    pace.classList.toggle("fast", !slow && state.rate > SEEN_RATE);
  }

  function update(state) {
    const playing = state.playing?.direction ?? 0;
    play.textContent = text(playing > 0 ? "control.pause" : "control.play");
    back.textContent = text(playing < 0 ? "control.pause" : "control.play_back");
    play.setAttribute("aria-pressed", String(playing > 0));
    back.setAttribute("aria-pressed", String(playing < 0));
    dual.setAttribute("aria-pressed", String(state.dual));
    contour.disabled = isBlind(state);
    rate.value = String(state.rate);
    showPace();
  }

  store.subscribe(update, ["playing", "rate", "dual", "reading", "looking"]);
  update(store.get());
  return { element, showPace, showContour: (kept) => contour.setAttribute("aria-pressed", String(kept)), focusGo: () => { field.focus(); field.select(); } };
}
