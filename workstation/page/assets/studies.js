// The examinations in the store: search, open, delete, and what their jobs do, live.

import { addFromFolder, addUpload } from "./add_study.js";
import { confirmFirst } from "./dialog.js";
import { button, make, showList, typed } from "./elements.js";
import { jobButtons, jobState } from "./jobs.js";
import { errorLine, say, sayError } from "./messages.js";
import { openModels } from "./models.js";
import { text } from "./texts.js";
import { clock, count, moment } from "./wording.js";

const PAGE = 50;
const READINGS = 3;
const SEARCH_WAIT_MS = 200;

/** Show the studies in `root`. `open(study)` opens one. Return {refresh, onStudy, onJob} for the event stream. */
export function createStudies(root, store, api, open) {
  const panel = { store, api, open, studies: [], total: 0, search: "", limit: PAGE, error: null, asked: 0, loaded: false };
  panel.refresh = () => refresh(panel);
  build(panel, root);
  store.subscribe(({ view } = store.get()) => view === "studies" && panel.refresh(), ["view"]);
  return {
    refresh: panel.refresh,
    onStudy: (study) => onStudy(panel, study),
    onJob: (job) => onJob(panel, job),
  };
}

function build(panel, root) {
  const search = make("input", { type: "search", "aria-label": text("studies.search"), placeholder: text("studies.search"), dir: "auto" });
  let timer = 0;
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => { Object.assign(panel, { search: search.value, limit: PAGE }); panel.refresh(); }, SEARCH_WAIT_MS);
  });
  panel.body = make("tbody");
  panel.table = make("table", { class: "studies" }, make("thead", {}, make("tr", {}, ["title", "patient", "length", "state", "readings", "do"].map(
    (column) => make("th", { scope: "col" }, text(`studies.${column}`))))), panel.body);
  panel.empty = make("div", { class: "welcome", hidden: true });
  panel.more = button(text("studies.more"), () => { panel.limit += PAGE; panel.refresh(); }, { hidden: true });
  panel.trouble = make("p", { class: "trouble", role: "alert", hidden: true });
  root.append(make("div", { class: "studies-head" }, make("h1", {}, text("studies.heading")), search, make("div", { class: "verbs" }, addButtons(panel))),
    panel.trouble, panel.table, panel.empty, panel.more);
}

function addButtons(panel) {
  const added = (study) => { panel.refresh(); if (study) say(panel.store, "studies.added", { title: short(study.title) }); };
  return [
    button(text("add.folder"), () => addFromFolder(panel.store, panel.api).then((study) => study && added(study)), { data: { act: "folder" } }),
    button(text("add.upload"), () => addUpload(panel.store, panel.api).then((study) => study && added(study)), { data: { act: "upload" } }),
    button(text("add.demo"), () => addDemo(panel, added), { data: { act: "demo" } }),
    button(text("models.open"), () => openModels(panel.store, panel.api), { data: { act: "models" } }),
  ];
}

async function addDemo(panel, added) {
  try {
    added(await panel.api.send("POST", "studies/demo"));
  } catch (error) {
    sayError(panel.store, error);
  }
}

const short = (title) => (title.length > 80 ? `${title.slice(0, 80)}…` : title);

async function refresh(panel) {
  const asked = ++panel.asked;
  const query = new URLSearchParams({ search: panel.search, limit: panel.limit, offset: 0 });
  try {
    const answer = await panel.api.get(`studies?${query}`);
    // A slower answer to an earlier search must not replace this one.
    if (asked !== panel.asked) return;
    Object.assign(panel, { studies: answer.studies, total: answer.total, error: null, loaded: true });
  } catch (error) {
    if (asked !== panel.asked) return;
    panel.error = error;
  }
  draw(panel);
}

function draw(panel) {
  panel.trouble.hidden = !panel.error;
  panel.trouble.textContent = panel.error ? errorLine(panel.error) : "";
  const none = panel.loaded && panel.studies.length === 0;
  panel.table.hidden = panel.studies.length === 0;
  panel.empty.hidden = !none;
  if (none) panel.empty.replaceChildren(...emptyContent(panel));
  panel.more.hidden = panel.studies.length >= panel.total;
  showList(panel.body, panel.studies, { keyOf: (study) => study.id, build: (study) => row(panel, study) });
}

function emptyContent({ search }) {
  if (search) return [make("p", {}, text("studies.not_found"), " ", typed(search))];
  return [make("h2", {}, text("studies.empty")), make("p", {}, text("studies.empty_hint"))];
}

function row(panel, study) {
  const { store, api } = panel;
  const name = button("", () => panel.open(study), { class: "open", data: { act: "open" } });
  name.append(typed(study.title));
  const patient = study.examination?.patient_name || "";
  return make("tr", { data: { id: study.id } },
    make("th", { scope: "row" }, name, make("small", {}, text(`origin.${study.origin}`), " · ", moment(study.added_at))),
    make("td", {}, patient ? typed(patient) : make("span", { class: "empty" }, text("banner.not_entered"))),
    make("td", { class: "number" }, lengthText(study)),
    make("td", {}, jobState(study)),
    make("td", {}, readingsText(study)),
    make("td", { class: "verbs" }, enterButton(panel, study), jobButtons(study, store, api),
      button(text("studies.delete"), () => removeStudy(panel, study), {
        class: "quiet", data: { act: "delete" }, "aria-label": text("studies.delete_one", { title: short(study.title) }),
      })));
}

/** Return the button that leads to the pictures. Where someone has read before, it is the one that stands out. */
function enterButton(panel, study) {
  const readings = study.readings ?? [];
  const verb = readings.some((each) => each.state === "open") ? "reading.go_on" : readings.length ? "reading.look" : "studies.read";
  return button(text(verb), () => panel.open(study), { class: readings.length ? "primary" : "plain", data: { act: "enter" }, "aria-label": text("studies.enter_one", { verb: text(verb), title: short(study.title) }) });
}

function lengthText(study) {
  const frames = study.recording?.frames ?? study.frames;
  const seconds = study.recording?.duration_s ?? study.duration_s;
  if (typeof frames !== "number") return text("number.none");
  if (typeof seconds !== "number") return text("studies.frames", { frames: count(frames) });
  return text("studies.frames_time", { frames: count(frames), time: clock(seconds) });
}

function readingsText(study) {
  const readings = study.readings ?? [];
  if (readings.length === 0) return make("span", { class: "empty" }, text("studies.no_reading"));
  const newest = readings.slice(-READINGS).reverse();
  const left = readings.length - newest.length;
  return [
    ...newest.map((each) => make("div", {}, typed(each.reader), " · ", text(each.state === "open" ? "reading.open" : "reading.finished"))),
    left > 0 && make("small", {}, text("studies.more_readings", { count: left })),
  ];
}

async function removeStudy(panel, study) {
  const readings = study.readings?.length ?? 0;
  const lines = [
    make("span", {}, typed(study.title)),
    study.examination?.patient_name && make("span", {}, text("banner.patient_name"), ": ", typed(study.examination.patient_name)),
    text("delete.all"),
    readings > 0 && text("delete.readings", { count: readings }),
    text(study.origin === "folder" ? "delete.keeps_file" : "delete.file_too"),
  ].filter(Boolean);
  if (!(await confirmFirst({ title: text("delete.title"), lines, label: text("delete.do"), name: "delete" }))) return;
  try {
    await panel.api.send("DELETE", `studies/${study.id}`);
    say(panel.store, "delete.done");
  } catch (error) {
    sayError(panel.store, error);
  }
  await panel.refresh();
}

/** Take a study document of the event stream. A new study belongs where the search puts it, so the list is fetched. */
function onStudy(panel, study) {
  const at = panel.studies.findIndex((each) => each.id === study.id);
  if (at < 0 || study.state === "deleted") return panel.store.get().view === "studies" ? panel.refresh() : null;
  panel.studies = panel.studies.with(at, { ...panel.studies[at], ...study });
  return draw(panel);
}

function onJob(panel, job) {
  const at = panel.studies.findIndex((each) => each.id === job.study_id);
  if (at < 0) return;
  panel.studies = panel.studies.with(at, { ...panel.studies[at], job });
  draw(panel);
}
