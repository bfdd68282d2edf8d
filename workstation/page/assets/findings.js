// The findings that the reader adds, on a frame or on a range of frames.

import { focusPicture } from "./dialog.js";
import { button, make, showList, typed } from "./elements.js";
import { findingChoices, mayChange, namedLabel, swatch, verb } from "./decisions.js";
import { holdFrame, isOnScreen } from "./held_frame.js";
import { say } from "./messages.js";
import { labelName } from "./targets.js";
import { text } from "./texts.js";
import { ownFindings } from "./verdicts.js";
import { count, findingText } from "./wording.js";

const RANGE = "range";

/** Show the reader's own findings in `root`. Return {list}: the choices of the key that adds one. */
export function createFindings(root, store, desk, decisions) {
  store.set({ rangeStart: null });
  const list = make("ol", { class: "findings" });
  const none = make("p", { class: "empty" }, text("findings.none"));
  const range = make("p", { class: "range", role: "status" });
  const add = verb("add", "A", () => { const choices = choicesToAdd(); if (choices) desk.picker.open(choices, true); });
  root.append(make("h3", {}, text("findings.title")), list, none, range, add);

  function choicesToAdd() {
    if (!mayChange(store)) return null;
    const index = holdFrame(store, desk);
    const { rangeStart } = store.get();
    const title = rangeStart === null ? text("findings.on_frame", { index: count(index) })
      : text("findings.on_range", { start: count(Math.min(rangeStart, index)), end: count(Math.max(rangeStart, index)) });
    const first = rangeStart === null ? { key: "0", value: RANGE, label: text("findings.begin_range") }
      : { key: "0", value: RANGE, label: text("findings.drop_range") };
    return { title, choices: [first, ...findingChoices(store.get())], onChoose: (choice) => choose(choice, index) };
  }

  async function choose(choice, index) {
    if (!isOnScreen(store, index)) return;
    const { rangeStart } = store.get();
    if (choice === RANGE) store.set({ rangeStart: rangeStart === null ? index : null });
    else addHere(await namedLabel(choice), rangeStart ?? index, index);
    focusPicture();
  }

  function addHere(label, from, to) {
    if (!label) return;
    desk.session.addFinding(label, Math.min(from, to), Math.max(from, to) + 1, to);
    store.set({ rangeStart: null });
    say(store, "findings.added", { name: labelName(label, store.get()) });
  }

  function draw() {
    const state = store.get();
    const findings = ownFindings(state.reading, state.unsaved);
    none.hidden = findings.length > 0;
    add.hidden = state.reading?.state !== "open";
    range.textContent = state.rangeStart === null ? "" : text("findings.range", { start: count(state.rangeStart) });
    showList(list, findings, {
      keyOf: (each) => each.target, build: (each) => row(each, store, desk, decisions),
      signature: (each) => JSON.stringify([each, state.selectedFinding === each.target, state.reading?.state]),
    });
  }
  store.subscribe(draw, ["reading", "unsaved", "selectedFinding", "rangeStart"]);
  draw();
  return { choicesToAdd };
}

function row(finding, store, desk, decisions) {
  const state = store.get();
  const chosen = state.selectedFinding === finding.target;
  const choose = () => {
    store.set({ selectedFinding: finding.target });
    desk.show(finding.key_index ?? finding.start_index);
  };
  const head = button([
    swatch(finding.label, state),
    make("span", { class: "name" }, labelName(finding.label, state)),
    !finding.saved && make("span", { class: "badge", data: { saving: finding.action.state } }, text(`saving.${finding.action.state}`)),
    make("span", { class: "facts" }, findingText(finding, state.study)),
  ], choose, { class: "card-head", "aria-current": chosen ? "true" : null, data: { act: "select" } });
  const details = chosen && finding.target.startsWith("finding:") && make("div", { class: "details" },
    finding.comment && make("p", { class: "comment" }, typed(finding.comment)),
    state.reading.state === "open" && make("div", { class: "verbs" },
      verb("relabel", "R", decisions.clicked.relabel), verb("comment", "N", decisions.clicked.comment),
      verb("remove", "X", decisions.clicked.reject)));
  return make("li", { class: "finding", data: { saved: String(finding.saved) } }, head, details);
}
