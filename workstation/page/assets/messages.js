// Messages to the reader: one line where he looks, also for screen readers. An error stays until it is closed; a
// report of success goes by itself.

import { button, make } from "./elements.js";
import { text } from "./texts.js";

const SHOWN_MS = 6000;

/** Return an error as one line: the message and the next step. */
export function errorLine(error) {
  if (!error) return "";
  return [error.message || text("error.unknown"), error.hint].filter(Boolean).map(sentence).join(" ");
}

function sentence(words) {
  const plain = words.replace(/[.\s]+$/, "");
  return `${plain.charAt(0).toUpperCase()}${plain.slice(1)}.`;
}

export function say(store, key, values = {}) {
  sayLine(store, text(key, values));
}

/** Say words that were put together from texts of the catalogue. */
export function sayLine(store, words) {
  store.set({ message: { kind: "info", text: words } });
}

/** Show an error. An aborted request is none: the page gave it up itself. */
export function sayError(store, error, action = null) {
  if (error?.name === "AbortError") return;
  store.set({ message: { kind: "error", text: error.message, hint: error.hint, action } });
}

/**
 * Show the message of the store in `root`, which is a live region. A report of success stands beside an error that was
 * not closed yet, and goes by itself. The height of the messages is given to the style sheet, which leaves it free.
 */
export function createMessages(root, store) {
  let timer = 0;
  let error = null;
  new ResizeObserver(() => document.documentElement.style.setProperty("--message-height", `${root.offsetHeight}px`)).observe(root);

  function line(message, close) {
    const words = message.kind === "error" ? errorLine({ message: message.text, hint: message.hint }) : message.text;
    const act = () => { close(); message.action.run(); };
    return make("div", { class: "message-line", data: { kind: message.kind } }, make("span", {}, words),
      message.action && button(message.action.label, act),
      button("×", close, { class: "quiet", title: text("message.close"), "aria-label": text("message.close") }));
  }

  function draw() {
    const { message } = store.get();
    clearTimeout(timer);
    if (message?.kind === "error") error = message;
    if (!message) error = null;
    const info = message?.kind === "info" ? message : null;
    const closeInfo = () => store.set({ message: error });
    const closeError = () => { error = null; store.set({ message: info }); draw(); };
    root.replaceChildren(...[error && line(error, closeError), info && line(info, closeInfo)].filter(Boolean));
    if (info) timer = setTimeout(closeInfo, SHOWN_MS);
  }
  store.subscribe(draw, ["message"]);
}
