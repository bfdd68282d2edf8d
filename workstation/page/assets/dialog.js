// Dialogs: modal, named, closed by Escape, with the focus returned to where it was. What is typed into one is kept in
// this tab until it is saved or cancelled, so that a lost server or an expired session costs no text. It is kept with
// the state that it was typed over: text that comes back must not replace what another window saved meanwhile.

import { button, make, newId } from "./elements.js";
import { errorLine } from "./messages.js";
import { text } from "./texts.js";

const open = new Set();

/**
 * Open a dialog and return { element, close, closed, attempt }. `closed` is a promise of the value passed to close,
 * and `attempt(run)` runs what an action would.
 *   actions: [{label, kind: "primary" | "second" | "danger" | "plain", run}]. `run` gets close; what it throws is shown in the
 *     dialog, which stays open. An action without `run` closes the dialog.
 *   draft: name under which the fields that were changed are kept until an action succeeds or the reader cancels.
 *   base: what the fields rest on, such as a version. The dialog has it as `base`; a draft brings back its own.
 */
export function openDialog({ title, content, actions = [], draft = null, base = null, wide = false, name = "" }) {
  const opener = document.activeElement;
  const heading = make("h2", { id: newId("dialog") }, title);
  const trouble = make("p", { class: "trouble", role: "alert", hidden: true });
  const form = make("form", { method: "dialog", novalidate: true });
  const element = make("dialog", { "aria-labelledby": heading.id, class: wide ? "wide" : null, data: { name } }, form);
  let settle;
  const closed = new Promise((resolve) => { settle = resolve; });
  const dialog = { element, closed, close: (value) => finish(dialog, value) };
  Object.assign(dialog, { opener, settle, form, trouble, draft, base });
  form.append(
    make("header", {}, heading, button(text("dialog.close"), () => dialog.close(), { class: "quiet", "aria-label": text("dialog.close") })),
    make("div", { class: "dialog-body" }, draft && draftLine(dialog), content), trouble,
    make("footer", {}, actions.map((action) => actionButton(dialog, action))),
  );
  dialog.attempt = (run) => attempt(dialog, run);
  listen(dialog);
  if (draft) restoreDraft(dialog);
  document.body.append(element);
  open.add(dialog);
  element.showModal();
  firstField(form)?.focus();
  return dialog;
}

/** Close every open dialog as its Cancel does. Drafts are kept. */
export function closeDialogs() {
  for (const dialog of [...open]) dialog.close();
}

/** Ask for a yes before something that cannot be taken back. Return a promise of true or false. */
export async function confirmFirst({ title, lines, label, kind = "danger", name = "confirm" }) {
  const dialog = openDialog({
    title, name, content: lines.map((line) => make("p", {}, line)),
    actions: [{ label: text("dialog.cancel") }, { label, kind, run: (close) => close(true) }],
  });
  return (await dialog.closed) === true;
}

function actionButton(dialog, { label, kind = "plain", run, act }) {
  const main = kind !== "plain" && Boolean(run);
  const element = make("button", { type: main ? "submit" : "button", class: kind, data: { act: act ?? kind } }, label);
  const start = () => (run ? attempt(dialog, run) : cancel(dialog));
  if (main) element.startAction = start;
  else element.addEventListener("click", start);
  return element;
}

function cancel(dialog) {
  if (dialog.draft) dropDraft(dialog.draft);
  dialog.close();
}

async function attempt(dialog, run) {
  const buttons = [...dialog.form.querySelectorAll("button")].filter((each) => !each.disabled);
  for (const each of buttons) each.disabled = true;
  dialog.trouble.hidden = true;
  try {
    await run((value) => {
      if (dialog.draft) dropDraft(dialog.draft);
      dialog.close(value);
    });
  } catch (error) {
    dialog.trouble.textContent = errorLine(error);
    dialog.trouble.hidden = false;
  } finally {
    for (const each of buttons) each.disabled = false;
  }
}

function listen(dialog) {
  dialog.form.addEventListener("submit", (event) => {
    event.preventDefault();
    const pressed = event.submitter?.startAction ? event.submitter : dialog.form.querySelector("footer [type=submit]");
    if (pressed && !pressed.disabled) pressed.startAction();
  });
  dialog.form.addEventListener("input", () => dialog.draft && keepDraft(dialog));
  dialog.element.addEventListener("cancel", (event) => {
    event.preventDefault();
    dialog.close();
  });
  // The page's key map must not act on what is typed here.
  dialog.element.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) dialog.form.requestSubmit();
  });
}

function finish(dialog, value) {
  if (!dialog.element.isConnected) return;
  open.delete(dialog);
  dialog.element.close();
  dialog.element.remove();
  dialog.settle(value);
  // An action may have opened the next dialog, which has the focus then.
  if (document.querySelector("dialog[open]")) return;
  if (dialog.opener?.isConnected && dialog.opener !== document.body) dialog.opener.focus({ preventScroll: true });
  else focusPicture();
}

/** Put the focus back on the picture, where the keys of reading are pressed. */
export function focusPicture() {
  const picture = document.getElementById("viewer");
  if (!picture || picture.closest("[hidden]")) return;
  picture.tabIndex = -1;
  picture.focus({ preventScroll: true });
}

function firstField(form) {
  return form.querySelector("[autofocus]") ?? form.querySelector(".dialog-body :is(input, textarea, select, button):not(:disabled)")
    ?? form.querySelector("footer .primary, footer button");
}

const DRAFT = "capsule-edge.draft.";

function fields(form) {
  return [...form.querySelectorAll("input[name]:not([type=file], [type=radio]), textarea[name], select[name]")];
}

/** Keep the fields that say something else than what was shown: of the others, what is saved by then holds. */
function keepDraft({ draft, form, base, shown }) {
  const values = fields(form).filter((each) => each.value !== shown.get(each.name)).map((each) => [each.name, each.value]);
  try {
    if (values.length) sessionStorage.setItem(DRAFT + draft, JSON.stringify({ base, values }));
    else dropDraft(draft);
  } catch {
    // Storage is full or switched off: the dialog still holds the text.
  }
}

function keptDraft(name) {
  try {
    const { base, values } = JSON.parse(sessionStorage.getItem(DRAFT + name));
    return { base, values: new Map(values) };
  } catch {
    return null;
  }
}

/** Return the line that says that an earlier text is back, with the way to what is saved. */
function draftLine(dialog) {
  const forget = () => {
    dropDraft(dialog.draft);
    dialog.base = dialog.newBase;
    for (const each of fields(dialog.form)) each.value = dialog.shown.get(each.name);
    dialog.line.hidden = true;
    firstField(dialog.form)?.focus();
  };
  dialog.line = make("p", { class: "hint", role: "status", hidden: true }, text("dialog.draft"), " ", button(text("dialog.forget"), forget, { data: { act: "forget" } }));
  return dialog.line;
}

function restoreDraft(dialog) {
  const { form, draft, base } = dialog;
  Object.assign(dialog, { newBase: base, shown: new Map(fields(form).map((each) => [each.name, each.value])) });
  const kept = keptDraft(draft);
  const changed = fields(form).filter(({ name, value }) => kept?.values.has(name) && kept.values.get(name) !== value);
  if (changed.length === 0) return;
  for (const each of changed) each.value = kept.values.get(each.name);
  dialog.base = kept.base;
  dialog.line.hidden = false;
}

function dropDraft(name) {
  sessionStorage.removeItem(DRAFT + name);
}
