// Build elements from names and texts. Text never becomes HTML here, so a name or a comment that holds a script is
// shown as it was typed.

const PROPERTIES = new Set(["value", "checked", "disabled", "hidden", "selected", "open", "tabIndex", "required"]);

// Return a new element. `properties` holds attributes, DOM properties, `data` and listeners such as `onclick`.
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (PROPERTIES.has(name)) element[name] = value;
    else if (value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter(isShown));
  return element;
}

const isShown = (child) => child !== null && child !== undefined && child !== false;

// Return typed text with its own direction, so that a right-to-left name does not turn the line around it.
export function typed(text, properties = {}) {
  return make("bdi", { dir: "auto", class: "typed", ...properties }, text);
}

/** Return a button. `label` is a text, an element or a list of them. */
export function button(label, onclick, properties = {}) {
  return make("button", { type: "button", onclick, ...properties }, label);
}

// Return a label with its control. Pressing the label focuses the control.
export function field(label, control, hint) {
  const described = hint ? make("small", { class: "hint", id: newId("hint") }, hint) : null;
  if (described) control.setAttribute("aria-describedby", described.id);
  return make("label", { class: "field" }, make("span", {}, label), control, described);
}

let ids = 0;

export function newId(prefix) {
  ids += 1;
  return `${prefix}-${ids}`;
}

// Show `items` as children of `parent`. A child is built anew only when its item changed, and keeps the focus then.
//   keyOf(item): identity. build(item): element. signature(item): text that changes when the element must.
export function showList(parent, items, { keyOf, build, signature = JSON.stringify }) {
  const known = parent.shownItems ?? new Map();
  const shown = new Map();
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    const mark = signature(item);
    let entry = known.get(key);
    if (!entry || entry.mark !== mark) {
      const old = entry?.element;
      entry = { mark, element: renew(old, build(item)) };
      if (old && old === place) place = entry.element;
    }
    shown.set(key, entry);
    if (entry.element === place) place = place.nextElementSibling;
    else parent.insertBefore(entry.element, place);
  }
  for (const [key, entry] of known) if (shown.get(key)?.element !== entry.element) entry.element.remove();
  parent.shownItems = shown;
}

// Put `fresh` in the place of `old` and the focus on the control of the same name.
function renew(old, fresh) {
  if (!old?.isConnected) return fresh;
  const act = old.contains(document.activeElement) ? document.activeElement.dataset.act ?? "" : null;
  old.replaceWith(fresh);
  if (act !== null) {
    const same = act && fresh.querySelector(`[data-act="${CSS.escape(act)}"]:not(:disabled)`);
    (same || fresh.querySelector("button:not(:disabled)") || fresh).focus({ preventScroll: true });
  }
  return fresh;
}

// Replace what `parent` shows, unless it shows the same already.
export function showOnce(parent, mark, build) {
  if (parent.shownMark === mark) return;
  parent.shownMark = mark;
  const act = parent.contains(document.activeElement) ? document.activeElement.dataset.act : undefined;
  parent.replaceChildren(...[build()].flat().filter(Boolean));
  if (act) parent.querySelector(`[data-act="${CSS.escape(act)}"]:not(:disabled)`)?.focus({ preventScroll: true });
}
