// The one key map of the page. The report that `run` writes uses the same keys for what it can do.
//
// An action is a function, or for a held key {down, up}, or for a key that a second one completes {begin, choose, cancel}:
// begin() shows the choices, choose(key) gets the second key, cancel() is called by Escape.

import { text } from "./texts.js";

const letters = (action, key, group, more = {}) => ({ action, keys: [key], group, character: true, ...more });

/** Each entry: action, keys (values of KeyboardEvent.key, "Shift+" in front where it matters), group, text key. */
export const KEY_MAP = [
  { action: "next", keys: ["ArrowRight"], group: "picture", hold: true },
  { action: "previous", keys: ["ArrowLeft"], group: "picture", hold: true },
  { action: "next10", keys: ["Shift+ArrowRight"], group: "picture", repeat: true },
  { action: "previous10", keys: ["Shift+ArrowLeft"], group: "picture", repeat: true },
  { action: "first", keys: ["Home"], group: "picture" },
  { action: "last", keys: ["End"], group: "picture" },
  { action: "play", keys: [" "], group: "picture" },
  { action: "play_back", keys: ["Shift+ "], group: "picture" },
  letters("faster", ".", "picture", { repeat: true }),
  letters("slower", ",", "picture", { repeat: true }),
  letters("go", "g", "picture"),
  letters("dual", "d", "picture"),
  letters("contour", "m", "picture", { hold: true }),
  letters("next_suggestion", "j", "suggestions", { repeat: true }),
  letters("previous_suggestion", "k", "suggestions", { repeat: true }),
  { action: "show_selected", keys: ["Enter"], group: "suggestions" },
  letters("confirm", "c", "decisions"),
  letters("reject", "x", "decisions"),
  letters("relabel", "r", "decisions", { then: true }),
  letters("add_finding", "a", "decisions", { then: true }),
  letters("landmark", "l", "decisions", { then: true }),
  letters("comment", "n", "decisions"),
  letters("undo", "u", "decisions"),
  letters("whole", "0", "timeline"),
  letters("pan_left", "[", "timeline", { repeat: true }),
  letters("pan_right", "]", "timeline", { repeat: true }),
  letters("zoom_in", "+", "timeline", { repeat: true }),
  letters("zoom_out", "-", "timeline", { repeat: true }),
  letters("zoom", "z", "timeline"),
  letters("help", "?", "page"),
  { action: "escape", keys: ["Escape"], group: "page" },
];

const BY_KEY = new Map(KEY_MAP.flatMap((entry) => entry.keys.map((key) => [key, entry])));
const actions = {};
let pending = null;

/** Add actions by name; a name that is already there is replaced. */
export function registerActions(more) {
  Object.assign(actions, more);
}

/** Run the action `name`, as its key does. The buttons of the page call this. */
export function runAction(name) {
  const action = actions[name];
  if (!action) return;
  if (action.begin) beginChord(name);
  else action();
}

/** Begin an action that a second key completes; `begin()` returns false where there is nothing to choose. */
function beginChord(name) {
  pending?.cancel?.();
  pending = actions[name].begin() === false ? null : actions[name];
}

/** Forget a key that waits for its second one: the choice was made by another way, for example with the mouse. */
export function endChord() {
  pending = null;
}

/** Return the name of a key as people write it. */
export function keyName(key) {
  const [, shift, rest] = /^(Shift\+)?(.+)$/s.exec(key);
  const name = { " ": "Space", ArrowLeft: "←", ArrowRight: "→", Escape: "Esc" }[rest] ?? (rest.length === 1 ? rest.toUpperCase() : rest);
  return (shift ?? "") + name;
}

/** Return whether the element uses the keys itself: a text field, a list of choices, or for Space and Enter a button. */
function takesKey(target, key) {
  if (!(target instanceof Element)) return false;
  if (target.closest("input:not([type=checkbox], [type=button], [type=range]), textarea, select, [contenteditable]")) return true;
  if (target.closest("input[type=range], [role=radiogroup], [role=listbox], [role=menu]") && /^(Arrow|Home|End)/.test(key)) return true;
  return (key === " " || key === "Enter") && Boolean(target.closest("button, summary, a[href], input, [role=button], [role=option]"));
}

function entryOf(event) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  return (event.shiftKey && BY_KEY.get(`Shift+${key}`)) || BY_KEY.get(key === "=" ? "+" : key);
}

/** Listen to the keys of the page. Return the function that stops. */
export function bindKeys(store, initialActions = {}) {
  registerActions(initialActions);
  let held = null;

  function finishPending(event) {
    const chord = pending;
    if (["Shift", "Control", "Alt", "Meta"].includes(event.key)) return;
    pending = null;
    event.preventDefault();
    if (event.key === "Escape") chord.cancel?.();
    else chord.choose(event.key.toLowerCase());
  }

  function onKeyDown(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing || event.defaultPrevented) return;
    // The reading keys mean nothing in the other views, and a dialog has its own.
    if (document.querySelector("dialog[open]") || takesKey(event.target, event.key)) return;
    if (pending) return finishPending(event);
    const entry = entryOf(event);
    if (!entry || (entry.character && !store.get().lettersOn)) return;
    if (store.get().view !== "reading" && entry.group !== "page") return;
    const action = actions[entry.action];
    if (!action) return;
    event.preventDefault();
    if (event.repeat && !entry.repeat) return;
    if (entry.hold) {
      held = { key: event.key.toLowerCase(), action };
      action.down();
    } else if (entry.then) beginChord(entry.action);
    else action(event);
  }

  function release(event) {
    if (!held || (event?.key && event.key.toLowerCase() !== held.key)) return;
    held.action.up();
    held = null;
  }

  const lost = () => release();
  document.addEventListener("keydown", onKeyDown);
  document.addEventListener("keyup", release);
  window.addEventListener("blur", lost);
  document.addEventListener("visibilitychange", lost);
  return () => {
    document.removeEventListener("keydown", onKeyDown);
    document.removeEventListener("keyup", release);
    window.removeEventListener("blur", lost);
    document.removeEventListener("visibilitychange", lost);
  };
}

/** Return the table rows of the help: [{group, rows: [{keys, what}]}]. */
export function describeKeys() {
  const groups = Map.groupBy(KEY_MAP, (entry) => entry.group);
  return [...groups].map(([group, entries]) => ({
    group: text(`keys.group.${group}`),
    rows: entries.map((entry) => ({
      keys: entry.keys.map(keyName),
      note: entry.hold ? text("keys.hold") : entry.then ? text("keys.then", { choices: text("keys.choices") }) : "",
      what: text(`key.${entry.action}`),
    })),
  }));
}
