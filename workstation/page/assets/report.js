// A report in a frame of its own: its origin is opaque, its policy its own. It can neither read the token nor ask the
// service for anything. The page fetches the report and passes it as text.

import { button, make } from "./elements.js";
import { errorLine, say } from "./messages.js";
import { isBlind } from "./state.js";
import { resultQuery } from "./study_data.js";
import { text } from "./texts.js";

const FRAME = "/page/report_frame.html";

/**
 * Show in `root` the report of the reading, or of the run where no reading is open. The report of the run shows every
 * suggestion, so it is refused while the suggestions are hidden. `beforeReport` is awaited first: what was seen is sent.
 */
export function createReport(root, store, api, { goBack, beforeReport }) {
  const line = make("p", { class: "trouble", role: "alert", hidden: true });
  const stage = make("div", { class: "report-stage" });
  const tabs = make("div", { class: "verbs", role: "group", "aria-label": text("report.which") });
  const view = { store, api, line, stage, tabs, beforeReport, kind: null, asked: 0, mark: null };
  root.append(make("div", { class: "report-head" }, button(text("report.back"), goBack, { data: { act: "back" } }),
    make("h1", {}, text("report.title")), tabs, make("p", { class: "hint" }, text("report.unsigned"))), line, stage);
  store.subscribe(() => follow(view), ["view", "study", "reading", "looking"]);
  // The page may have been loaded in this view, before anyone listened to its changes.
  follow(view);
}

/** Show the report that belongs to the state of the page, unless it is shown already. */
function follow(view) {
  const { view: name, study, reading, looking } = view.store.get();
  const mark = name === "report" && study ? [study.id, study.current_result, reading?.id, reading?.pass, reading?.state, looking].join(" ") : null;
  if (mark === view.mark) return;
  view.mark = mark;
  view.asked += 1;
  if (mark !== null) show(view, reading ? "reading" : "run");
  else view.stage.replaceChildren(...(name === "report" ? [loading()] : []));
}

const loading = () => make("p", { class: "hint", role: "status" }, text("report.loading"));

async function show(view, kind) {
  const asked = ++view.asked;
  view.kind = kind;
  drawTabs(view);
  view.line.hidden = true;
  if (kind === "run" && isBlind(view.store.get())) return view.stage.replaceChildren(...refusal(view.store));
  view.stage.replaceChildren(loading());
  try {
    if (kind === "reading") await view.beforeReport();
    const response = await view.api.blob(pathOf(view, kind));
    const html = await response.text();
    if (asked === view.asked) view.stage.replaceChildren(frame(html, text(`report.${kind}`)));
  } catch (error) {
    if (asked === view.asked) complain(view, error);
  }
  return undefined;
}

/** Say why the report of the run is not shown; without a reading, the reader may choose to look. */
function refusal(store) {
  if (store.get().reading) return [make("p", { class: "refused", role: "status" }, text("report.hidden"))];
  return [make("p", { class: "refused", role: "status" }, text("looking.meaning")),
    button(text("looking.begin"), () => store.set({ looking: true }), { data: { act: "look" } })];
}

function complain(view, error) {
  view.stage.replaceChildren();
  view.line.hidden = false;
  view.line.textContent = errorLine(error);
}

function pathOf({ store }, kind) {
  const { reading, studyId } = store.get();
  return kind === "reading" ? `readings/${reading.id}/report` : `studies/${studyId}/exports/report.html${resultQuery({ reading }, "?")}`;
}

/** Return the frame that shows `html`. It says when it is ready, and gets the text then. */
function frame(html, title) {
  const element = make("iframe", { src: FRAME, title, sandbox: "allow-scripts", class: "report" });
  const give = (event) => {
    if (event.source !== element.contentWindow || event.data !== "ready") return;
    removeEventListener("message", give);
    // The frame's origin is opaque, so no other target can be named. It is the frame that this page has just made.
    element.contentWindow.postMessage({ html }, "*");
  };
  addEventListener("message", give);
  return element;
}

function drawTabs(view) {
  const { reading, study } = view.store.get();
  const hidden = view.kind === "run" && isBlind(view.store.get());
  const tab = (kind) => button(text(`report.${kind}`), () => show(view, kind), { "aria-pressed": String(view.kind === kind), data: { act: kind } });
  view.tabs.replaceChildren(...[
    reading && tab("reading"), study?.current_result && tab("run"),
    // The report of the AI is a page alone.
    reading && view.kind === "reading" && button(text("report.pdf"), (event) => download(view, event.currentTarget, `readings/${reading.id}/report.pdf`, fileName(view, "pdf")), { data: { act: "pdf" } }),
    !hidden && button(text("report.html"), (event) => download(view, event.currentTarget, pathOf(view, view.kind), fileName(view, "html")), { data: { act: "html" } }),
  ].filter(Boolean));
}

/** Return the name of a downloaded report: which report, of which examination, of which day. No patient's name. */
function fileName(view, ending) {
  const { study } = view.store.get();
  const title = (study?.title ?? "").replace(/[^\p{L}\p{N}.-]+/gu, "_").slice(0, 60);
  const day = new Date().toISOString().slice(0, 10);
  return [view.kind === "reading" ? "reading" : "ai", title, day].filter(Boolean).join("_") + `.${ending}`;
}

/** Fetch a report as a file. A PDF takes seconds: its button says so meanwhile and takes no second click. */
async function download(view, pressed, path, name) {
  view.line.hidden = true;
  const words = pressed.textContent;
  pressed.disabled = true;
  pressed.textContent = text("report.making");
  say(view.store, "report.making");
  try {
    await view.beforeReport();
    const address = URL.createObjectURL(await view.api.blob(path));
    make("a", { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60000);
  } catch (error) {
    view.line.hidden = false;
    view.line.textContent = errorLine(error);
  } finally {
    pressed.disabled = false;
    pressed.textContent = words;
  }
}
