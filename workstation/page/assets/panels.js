// The panels of the page: everything but the picture and its timeline.

import { createBanner } from "./banner.js";
import { createConflicts } from "./conflicts.js";
import { createDecisions } from "./decisions.js";
import { closeDialogs } from "./dialog.js";
import { make } from "./elements.js";
import { createFindings } from "./findings.js";
import { registerActions } from "./keys.js";
import { createLandmarks } from "./landmarks.js";
import { createMessages, sayError } from "./messages.js";
import { createPicker } from "./picker.js";
import { hasReader } from "./readers.js";
import { chooseReading, createAfterLast, createReadingHead } from "./reading.js";
import { createReadingSession } from "./reading_session.js";
import { createReport } from "./report.js";
import { createStudies } from "./studies.js";
import { createStudyState } from "./study_state.js";
import { text } from "./texts.js";

const PARTS = ["connection", "head", "conflicts-box", "study-state", "suggestions-box", "after", "findings-box", "landmarks-box"];
const LAST_READING = "capsule-edge.reading.";

/**
 * Connect the panels.
 *
 * `context` has store, api, events (event_bus.js: one stream for the page), viewer, timeline,
 * seen (seen.js) and navigate({view, studyId}). Panels draw into #banner, #message, #studies-view, #panel and #report-view, and add their
 * keys with registerActions (keys.js).
 */
export function createPanels(context) {
  const { store, api, events, navigate, seen } = context;
  const session = createReadingSession(store, api);
  createMessages(document.getElementById("message"), store);
  createBanner(document.getElementById("banner"), store, api, navigate);
  const studies = createStudies(document.getElementById("studies-view"), store, api, (study) => navigate({ view: "reading", studyId: study.id }));
  const openReport = () => navigate({ view: "report", studyId: store.get().studyId });
  createReport(document.getElementById("report-view"), store, api, {
    goBack: () => navigate({ view: "reading", studyId: store.get().studyId }), beforeReport: () => seen.flush(),
  });
  const desk = createDesk(context, session, openReport);
  closeWithStudy(store, desk.picker);
  desk.begin = createEntrance(store, api, session);
  events.on("study", studies.onStudy);
  events.on("job", studies.onJob);
  events.on("reading", ({ reading_id: id, version }) => {
    const { reading } = store.get();
    if (reading?.id === id && version > reading.version) session.refresh();
  });
  events.on("connected", () => { session.outbox.flush(); session.refresh(); studies.refresh(); });
}

/** Close what asks about an examination when it is left: an answer would be taken for the next one. */
function closeWithStudy(store, picker) {
  let before = store.get().studyId;
  store.subscribe(({ studyId }) => {
    if (before !== null) {
      closeDialogs();
      picker.close();
    }
    before = studyId;
  }, ["studyId"]);
}

/** Build the panel beside the picture and register its keys. Return {session, picker, show, pause, panes, openReport, api, seen}. */
function createDesk({ store, api, viewer, seen }, session, openReport) {
  const section = (name) => make("section", { class: name });
  const parts = Object.fromEntries(PARTS.map((name) => [name, section(name)]));
  const pickerBox = make("div", { class: "picker", role: "group", "aria-live": "polite", hidden: true });
  const scroll = make("div", { class: "panel-scroll", tabindex: "0", role: "region", "aria-label": text("decisions.list") },
    parts["study-state"], parts["suggestions-box"], parts.after, parts["findings-box"], parts["landmarks-box"]);
  document.getElementById("panel").append(parts.connection, parts.head, parts["conflicts-box"], scroll, pickerBox);
  const picker = createPicker(pickerBox);
  const desk = { session, picker, openReport, api, seen, show: (index) => viewer.show(index), pause: () => viewer.pause(), panes: () => viewer.shown().map(({ index }) => index), begin: null };
  showConnection(parts.connection, store);
  createReadingHead(parts.head, store, desk);
  createConflicts(parts["conflicts-box"], store, session);
  createStudyState(parts["study-state"], store, api, desk);
  const decisions = createDecisions(parts["suggestions-box"], store, desk);
  createAfterLast(parts.after, store, desk);
  const findings = createFindings(parts["findings-box"], store, desk, decisions);
  const landmarks = createLandmarks(parts["landmarks-box"], store, desk);
  const { confirm, reject, comment, undo, next_suggestion, previous_suggestion, show_selected } = decisions;
  registerActions({
    confirm, reject, comment, undo, next_suggestion, previous_suggestion, show_selected,
    relabel: picker.chord(decisions.relabelList), add_finding: picker.chord(findings.choicesToAdd), landmark: picker.chord(landmarks.choices),
  });
  return desk;
}

function showConnection(root, store) {
  root.setAttribute("role", "status");
  const draw = ({ connected } = store.get()) => {
    root.textContent = connected === false ? text("connection.lost") : "";
  };
  store.subscribe(draw, ["connected"]);
  draw();
}

/** Open a reading when a study is opened: the one that this tab had open, or the one that the reader chooses. */
function createEntrance(store, api, session) {
  let asking = null;

  const isOpen = (id) => store.get().studyId === id;

  async function choose() {
    const { study } = store.get();
    if (!study || asking === study.id) return;
    asking = study.id;
    try {
      const fresh = await api.get(`studies/${study.id}`);
      const chosen = isOpen(study.id) && await chooseReading(store, api, fresh);
      if (chosen && isOpen(study.id)) await open(study.id, chosen.id);
    } catch (error) {
      if (isOpen(study.id)) sayError(store, error);
    } finally {
      if (asking === study.id) asking = null;
    }
  }

  async function open(studyId, readingId) {
    await session.load(readingId);
    sessionStorage.setItem(LAST_READING + studyId, readingId);
  }

  async function enter({ study, view, reading }) {
    if (!study || reading || asking === study.id || view === "studies" || entered === study.id) return undefined;
    // A study whose first result comes while its pictures are looked at gets a button: a dialog would interrupt.
    entered = study.id;
    if (!study.current_result) return undefined;
    const last = sessionStorage.getItem(LAST_READING + study.id);
    const known = study.readings.find((each) => each.id === last);
    // A reading that this tab has only looked at asks for a name before anyone goes on with it.
    if (known && (known.state !== "open" || hasReader(last))) {
      try {
        return await open(study.id, last);
      } catch (error) {
        if (!isOpen(study.id)) return undefined;
        sayError(store, error);
      }
    }
    if (view === "reading") await choose();
    return undefined;
  }

  let entered = null;
  store.subscribe(enter, ["study", "view"]);
  store.subscribe(() => { entered = null; }, ["studyId"]);
  enter(store.get());
  return choose;
}
