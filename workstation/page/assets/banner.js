// The examination, on every view: who was examined, when and why. A change is logged with the name of who made it.

import { openDialog } from "./dialog.js";
import { button, field, make, showOnce, typed } from "./elements.js";
import { say } from "./messages.js";
import { keepReaderName, readerName } from "./reading.js";
import { text } from "./texts.js";

export const FIELDS = ["patient_name", "patient_id", "birth_date", "accession_number", "procedure_date", "indication", "preparation"];
const DATES = new Set(["birth_date", "procedure_date"]);
const LONG = new Set(["indication", "preparation"]);

/** Show in `root` the way home, the examination of the open study and what holds for the whole page. */
export function createBanner(root, store, api, navigate) {
  const middle = make("div", { class: "banner-study" });
  const goHome = () => navigate({ view: "studies", studyId: null });
  const back = button(text("banner.back"), goHome, { class: "back", data: { act: "list" } });
  root.append(
    make("nav", { "aria-label": text("banner.nav") },
      button(text("app.name"), goHome, { class: "home", data: { act: "home" }, "aria-label": text("banner.home") }), back),
    middle,
    make("p", { class: "intended" }, text("app.intended_use")));
  const draw = () => {
    const { study, studyId } = store.get();
    back.hidden = studyId === null;
    const mark = JSON.stringify([study?.id, study?.title, study?.examination]);
    showOnce(middle, mark, () => (study ? content(study, () => editExamination(store, api)) : []));
  };
  store.subscribe(draw, ["study", "studyId"]);
  draw();
}

function content(study, edit) {
  const examination = study.examination ?? {};
  const shown = FIELDS.filter((name) => examination[name] || name === "patient_name");
  const entry = (name, value) => make("div", { data: { field: name } }, make("dt", {}, text(`banner.${name}`)), make("dd", {}, value));
  return [
    make("dl", { class: "examination" },
      shown.map((name) => entry(name, shownValue(examination[name]))), entry("recording", shownValue(study.title))),
    button(text("banner.edit"), edit, { class: "quiet", data: { act: "edit" } }),
  ];
}

function shownValue(value) {
  return value ? typed(value, { title: value.slice(0, 400) }) : make("span", { class: "empty" }, text("banner.not_entered"));
}

/** Edit the examination of the open study. Another window's change is shown, and nothing that was typed is lost. */
export async function editExamination(store, api) {
  const { study } = store.get();
  const inputs = new Map(FIELDS.map((name) => [name, input(name, study.examination?.[name] ?? "")]));
  const reader = make("input", { name: "reader", value: readerName() || (store.get().reading?.reader ?? ""), maxlength: 200, dir: "auto", autocomplete: "name" });
  const theirs = make("div", { class: "conflict", hidden: true, role: "alert" });
  const edit = { study, inputs, reader, theirs, store, api };
  const dialog = openDialog({
    title: text("banner.edit_title"), name: "examination", wide: true, draft: `examination.${study.id}`, base: study.examination_version ?? 0,
    content: [theirs, make("div", { class: "fields" },
      [...inputs].map(([name, control]) => field(text(`banner.${name}`), control)),
      field(text("banner.reader"), reader, text("banner.reader_hint")))],
    actions: [{ label: text("dialog.cancel") }, { label: text("banner.save"), kind: "primary", run: (close) => saveExamination(edit, close) }],
  });
  edit.dialog = dialog;
  if (await dialog.closed) say(store, "banner.saved");
}

/** Return the date of this computer as the date fields write it. */
function today() {
  const now = new Date();
  const pad = (number) => String(number).padStart(2, "0");
  return `${now.getFullYear()}-${pad(now.getMonth() + 1)}-${pad(now.getDate())}`;
}

function input(name, value) {
  if (LONG.has(name)) {
    const area = make("textarea", { name, rows: 2, maxlength: 4000, dir: "auto" });
    area.value = value;
    return area;
  }
  if (DATES.has(name)) return make("input", { type: "date", name, value, max: name === "birth_date" ? today() : "9999-12-31" });
  return make("input", { name, value, maxlength: 4000, dir: "auto", autocomplete: "off" });
}

async function saveExamination(edit, close) {
  const { study, inputs, reader, store, api } = edit;
  const name = reader.value.trim();
  if (!name) throw new Error(text("reading.no_name"));
  keepReaderName(name);
  const birth = inputs.get("birth_date").value;
  if (birth > today()) throw new Error(text("banner.birth_future", { date: birth }));
  const fields = Object.fromEntries([...inputs].map(([key, control]) => [key, control.value.trim()]));
  try {
    await api.send("PATCH", `studies/${study.id}/examination`, { reader: name, version: edit.dialog.base, ...fields });
  } catch (error) {
    if (error.status !== 409) throw error;
    return showTheirs(edit, error);
  }
  const fresh = await api.get(`studies/${study.id}`);
  if (store.get().studyId === study.id) store.set({ study: fresh });
  return close(true);
}

/** Show what another window saved meanwhile. Saving once more replaces it, and the reader knows what. */
async function showTheirs(edit, error) {
  const fresh = await edit.api.get(`studies/${edit.study.id}`);
  edit.dialog.base = fresh.examination_version;
  const changed = FIELDS.filter((name) => (fresh.examination[name] ?? "") !== edit.inputs.get(name).value.trim());
  edit.theirs.hidden = false;
  edit.theirs.replaceChildren(
    make("p", {}, text("banner.conflict")),
    make("ul", {}, changed.map((name) => make("li", {}, text(`banner.${name}`), ": ", shownValue(fresh.examination[name]), " ",
      button(text("banner.take_theirs"), () => { edit.inputs.get(name).value = fresh.examination[name] ?? ""; }, { data: { act: `theirs-${name}` } })))),
    make("p", {}, text("banner.conflict_hint")));
  return error;
}
