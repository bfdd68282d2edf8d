// The dialog that lists the keys, built from the key map, with the switch that turns letters and digits off.

import { describeKeys, registerActions } from "./keys.js";
import { text } from "./texts.js";

const element = (name, properties = {}, children = []) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};

function groupOf({ group, rows }) {
  const body = rows.map(({ keys, note, what }) => element("tr", {}, [
    element("td", {}, [...keys.map((key) => element("kbd", { textContent: key })), note && ` ${note}`].filter(Boolean)),
    element("td", { textContent: what }),
  ]));
  return element("section", {}, [element("h3", { textContent: group }), element("table", {}, [element("tbody", {}, body)])]);
}

/** Fill the dialog and register the action `help`. */
export function createKeyHelp(dialog, store) {
  const title = element("h2", { id: "keys-title", textContent: text("keys.title") });
  const letters = element("input", { type: "checkbox", id: "keys-letters" });
  const label = element("label", {}, [letters, ` ${text("keys.letters")}`]);
  const close = element("button", { type: "button", textContent: text("keys.close") });
  dialog.setAttribute("aria-labelledby", title.id);
  dialog.replaceChildren(
    element("header", {}, [title, close]), element("div", { className: "key-groups" }, describeKeys().map(groupOf)),
    element("p", {}, [label]), element("p", { className: "muted", textContent: text("keys.letters_hint") }),
  );
  letters.addEventListener("change", () => store.set({ lettersOn: letters.checked }));
  close.addEventListener("click", () => dialog.close());
  registerActions({
    help: () => {
      letters.checked = store.get().lettersOn;
      dialog.showModal();
    },
  });
}
