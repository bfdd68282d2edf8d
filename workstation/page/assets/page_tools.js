// What every view offers at the top right: the colours and the list of keys.

import { button } from "./elements.js";
import { runAction } from "./keys.js";
import { text } from "./texts.js";

/** Fill the navigation `root`. */
export function createPageTools(root, store) {
  const other = (theme) => (theme === "dark" ? "light" : "dark");
  const theme = button("", () => store.set({ theme: other(store.get().theme) }), { title: text("tools.theme") });
  const name = ({ theme: current }) => { theme.textContent = text(`tools.${other(current)}`); };
  store.subscribe(name, ["theme"]);
  name(store.get());
  root.replaceChildren(theme, button(text("keys.open"), () => runAction("help")));
}
