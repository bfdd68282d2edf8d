// A list of choices, each with a digit or letter: the second key of "relabel", "add a finding" and "set a landmark".
// A key opens it and keys.js passes it the second key; a button opens it too, and then it has the focus.

import { focusPicture } from "./dialog.js";
import { button, make } from "./elements.js";
import { endChord } from "./keys.js";
import { text } from "./texts.js";

const CHOICE_KEYS = "123456789bdefghijklmnopqrstuvyz";

/**
 * Return a picker that shows its choices in `root`.
 *
 * `open({title, choices, onChoose}, focus)` shows choices {label, value, key?, note?}. `chord(list)` is an action for
 * keys.js: it opens what `list()` returns, or nothing when that is null.
 */
export function createPicker(root) {
  let shown = null;

  function open({ title, choices, onChoose }, focus = false) {
    let next = 0;
    const keyed = choices.map((choice) => ({ ...choice, key: choice.key ?? CHOICE_KEYS[next++] }));
    shown = { keyed, onChoose };
    root.setAttribute("aria-label", title);
    root.replaceChildren(
      make("h3", {}, title),
      make("ul", {}, keyed.map((choice) => make("li", {}, choiceButton(choice)))),
      button(text("picker.cancel"), close, { class: "quiet" }),
    );
    root.hidden = false;
    if (focus) root.querySelector("button").focus();
  }

  function choiceButton({ key, label, note }) {
    const content = [make("kbd", {}, key.toUpperCase()), make("span", {}, label), note && make("small", {}, note)];
    const element = button("", () => choose(key), { "aria-keyshortcuts": key });
    element.append(...content.filter(Boolean));
    return element;
  }

  function choose(key) {
    const choice = shown?.keyed.find((each) => each.key === key);
    if (!choice) return close();
    const { onChoose } = shown;
    close();
    return onChoose(choice.value);
  }

  function close() {
    shown = null;
    endChord();
    const focused = root.contains(document.activeElement);
    root.hidden = true;
    root.replaceChildren();
    if (focused) focusPicture();
  }

  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "Escape") close();
    else if (shown?.keyed.some((choice) => choice.key === event.key.toLowerCase())) choose(event.key.toLowerCase());
    else if (event.key.length > 1 || event.key === " ") return;
    event.preventDefault();
    event.stopPropagation();
  });

  function chord(list) {
    return {
      begin() {
        const content = list();
        if (content) open(content);
        return Boolean(content);
      },
      choose,
      cancel: close,
    };
  }

  return { open, close, chord };
}
