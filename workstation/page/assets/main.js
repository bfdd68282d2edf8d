// The start of the page: token, session, views by the hash of the address, and what all views share.
//
// Addresses: "#/" examinations, "#/study/ID" reading, "#/study/ID/report" report of the reading or of the run.

import { createApi, takeToken } from "./api.js";
import { createEventBus } from "./event_bus.js";
import { bindKeys } from "./keys.js";
import { createKeyHelp } from "./key_help.js";
import { createPanels } from "./panels.js";
import { createPageTools } from "./page_tools.js";
import { createSeenRecord } from "./seen.js";
import { INITIAL, createStore } from "./state.js";
import { followStudy } from "./study_data.js";
import { fillTexts, text } from "./texts.js";
import { createTimeline } from "./timeline.js";
import { createViewer } from "./viewer.js";

const THEME_KEY = "capsule-edge.theme";
const LETTERS_KEY = "capsule-edge.letters";
const VIEWS = ["studies", "reading", "report", "closed"];

/** Return the view that an address names. */
export function viewOf(hash) {
  const match = /^#\/study\/([0-9a-f]{32})(\/report)?$/.exec(hash);
  return match ? { view: match[2] ? "report" : "reading", studyId: match[1] } : { view: "studies", studyId: null };
}

/** Return the address of a view. */
export function hashOf({ view, studyId }) {
  if (view === "studies" || !studyId) return "#/";
  return `#/study/${studyId}${view === "report" ? "/report" : ""}`;
}

function showView(state) {
  for (const name of VIEWS) document.getElementById(`${name}-view`).hidden = state.view !== name;
  document.documentElement.dataset.theme = state.theme;
  const title = state.studyId && state.study ? state.study.title : "";
  document.title = title ? `${title} · ${text("app.name")}` : text("app.name");
}

function showClosed(store, key, titleKey = "closed.title") {
  const title = Object.assign(document.createElement("h1"), { textContent: text(titleKey) });
  const body = Object.assign(document.createElement("p"), { textContent: text(key) });
  document.getElementById("closed-view").replaceChildren(title, body);
  store.set({ view: "closed", playing: null });
}

/** Keep theme and keys as chosen on this computer. */
function keepChoices(store) {
  store.set({ theme: localStorage.getItem(THEME_KEY) ?? "dark", lettersOn: localStorage.getItem(LETTERS_KEY) !== "off" });
  store.subscribe(({ theme, lettersOn }) => {
    localStorage.setItem(THEME_KEY, theme);
    localStorage.setItem(LETTERS_KEY, lettersOn ? "on" : "off");
  }, ["theme", "lettersOn"]);
}

/** An error that nothing caught is said in one line, never swallowed. */
function reportErrors(store) {
  const say = (error) => {
    if (error?.name === "AbortError" || error?.status === 401) return;
    store.set({ message: { kind: "error", text: error?.status === undefined ? text("error.unexpected", { message: error?.message ?? error }) : error.message, hint: error?.hint ?? "" } });
  };
  window.addEventListener("unhandledrejection", (event) => say(event.reason));
  window.addEventListener("error", (event) => say(event.error ?? event.message));
}

/** Open the demo where it is all that there is: no folder was named, and no other examination added. */
async function openLoneDemo(api, { folders }, navigate) {
  if (folders.length > 0) return;
  const { studies, total } = await api.get("studies?limit=1&offset=0");
  // Whoever went on meanwhile is not called back.
  if (location.hash === "" && total === 1 && studies[0].origin === "demo") navigate({ view: "reading", studyId: studies[0].id });
}

/** Start anew with the token of an address that is opened in this tab: the browser itself only changes the fragment. */
function followNewToken() {
  window.addEventListener("hashchange", () => location.hash.startsWith("#token=") && location.reload());
}

async function start(page) {
  followNewToken();
  const arriving = location.hash.startsWith("#token=");
  const token = takeToken();
  const { store } = page;
  keepChoices(store);
  fillTexts(document);
  store.subscribe(showView, ["view", "theme", "study", "studyId"]);
  showView(store.get());
  if (!token) return showClosed(store, "closed.no_token", "closed.no_token_title");
  reportErrors(store);
  const api = createApi({ onExpired: () => showClosed(store, "closed.body") });
  const navigate = (target) => { location.hash = hashOf(target); };
  const route = () => {
    if (store.get().view !== "closed" && !location.hash.startsWith("#token=")) store.set(viewOf(location.hash));
  };
  window.addEventListener("hashchange", route);
  route();
  const events = createEventBus(store, api);
  followStudy(store, api, events);
  const seen = createSeenRecord(store, api);
  const viewer = createViewer(document.getElementById("viewer"), store, api, { seen });
  const timeline = createTimeline(document.getElementById("timeline"), store, api, { viewer, toolsRoot: viewer.toolsRoot });
  createKeyHelp(document.getElementById("keys-dialog"), store);
  createPageTools(document.getElementById("tools"), store);
  bindKeys(store, { ...viewer.actions, ...timeline.actions });
  createPanels({ store, api, events, viewer, timeline, seen, navigate });
  Object.assign(page, { api, events, viewer, timeline, seen });
  const session = await api.get("session");
  store.set({ session });
  if (arriving) await openLoneDemo(api, session, navigate);
}

/** The parts of the page, for its tests and for the console of a developer. */
export const page = { store: createStore(INITIAL) };

await start(page);
