// The open examination: its document, suggestions and timeline, loaded when it is opened and kept up to date.
//
// Without a reading, they are those of the newest result, or of the job that makes the first one. A reading is about one
// result: while it is open, only the suggestions of that result are shown, whatever has been read since.

import { askPatiently } from "./api.js";
import { say, sayError } from "./messages.js";
import { isBlind } from "./state.js";
import { text } from "./texts.js";
import { count } from "./wording.js";

const BINS = 2400;
// Suggestions and timeline wait this long at most for the first picture.
const PICTURE_MS = 1000;
const NOTHING = Object.freeze({ study: null, suggestions: [], partial: false, timeline: null, resultId: null, limits: null, looking: false, reading: null, coverage: { seen: [], skimmed: [] }, shown: null, playing: null, selected: null, hovered: null, index: 0 });

/** Return the end of a path that names the result of the open reading, empty without one; `mark` is "?" or "&". */
export function resultQuery({ reading }, mark) {
  return reading?.result_id ? `${mark}result=${reading.result_id}` : "";
}

/**
 * Wait until the first picture of the open examination is on the screen, or is not to be expected.
 *
 * The service works out a timeline for as long as it decodes the first picture, and a reader looks for the picture.
 */
function firstPicture(store) {
  return new Promise((done) => {
    const isDue = ({ view, shown }) => view === "reading" && shown === null && document.visibilityState === "visible";
    if (!isDue(store.get())) return done();
    const end = () => { stop(); clearTimeout(timer); done(); };
    const stop = store.subscribe((state) => isDue(state) || end(), ["view", "shown"]);
    const timer = setTimeout(end, PICTURE_MS);
  });
}

/** Load what `store.studyId` names and follow its events. */
export function followStudy(store, api, events) {
  const isOpen = (id) => id !== null && store.get().studyId === id;
  let asked = 0;
  // The result that is on its way, null where none is or it is not known which one the service will answer with.
  let wanted = null;
  // The document of an examination that is being opened, while it is on its way.
  let opening = null;

  /** Say the error of a promise. The page that a refused token ends says so itself. */
  const report = (promise) => promise.catch((error) => error.status === 401 || sayError(store, error));

  /** Load suggestions and timeline. Each is shown when it comes: a timeline that fails hides no suggestion. */
  async function loadResult(id) {
    const mine = ++asked;
    const isMine = () => isOpen(id) && mine === asked;
    await firstPicture(store);
    // Whoever asked again meanwhile loads it.
    if (!isMine()) return;
    const { reading, study } = store.get();
    // Named, so that a reading of the same result that arrives meanwhile need not ask for it once more.
    wanted = reading?.result_id ?? study?.current_result ?? null;
    const result = wanted === null ? "" : `result=${wanted}`;
    const get = (path) => askPatiently(() => api.get(path), isMine);
    const none = (error) => {
      if ([404, 409].includes(error.status)) return { partial: true, result_id: null, suggestions: [] };
      throw error;
    };
    const show = ({ suggestions, partial, result_id: resultId }) => {
      store.set({ suggestions, partial, resultId });
      report(loadLimits(id, resultId));
    };
    try {
      await Promise.all([
        get(`studies/${id}/timeline?bins=${BINS}${result && `&${result}`}`).then((timeline) => isMine() && store.set({ timeline })),
        get(`studies/${id}/suggestions${result && `?${result}`}`).catch(none).then((found) => isMine() && show(found)),
      ]);
    } catch (error) {
      // What is not wanted any more may fail.
      if (isMine()) throw error;
    } finally {
      // A load that failed must not keep the next change of the reading from loading again.
      if (mine === asked) wanted = null;
    }
  }

  /** Fetch the limits of a result. They come after its suggestions: nothing waits for them. */
  async function loadLimits(id, result) {
    if (result === null || store.get().limits?.result_id === result) return;
    const isMine = () => isOpen(id) && store.get().resultId === result;
    const limits = await askPatiently(() => api.get(`studies/${id}/limits?result=${result}`), isMine);
    if (isMine()) store.set({ limits });
  }

  /** Show the suggestions of the reading's own result. Those of another one must not stay on the screen meanwhile. */
  async function onReading({ studyId, reading, resultId, timeline }) {
    if (!reading || reading.study_id !== studyId || reading.result_id === resultId) return;
    if (wanted === reading.result_id) return;
    wanted = reading.result_id;
    store.set({ suggestions: [], partial: false, resultId: null, selected: null, timeline: resultId === null ? timeline : null });
    await loadResult(studyId);
  }

  async function open({ studyId }) {
    if (store.get().study?.id === studyId) return;
    asked += 1;
    wanted = null;
    store.set(NOTHING);
    if (studyId === null) return;
    const result = loadResult(studyId);
    result.catch(() => {});
    const mine = opening = api.get(`studies/${studyId}`);
    try {
      const study = await mine;
      if (!isOpen(studyId)) return;
      store.set({ study });
    } finally {
      if (opening === mine) opening = null;
    }
    await result;
  }

  /** Ask again for everything that may have changed: after a reading job, or when the service is back. */
  async function refresh(id) {
    const study = await api.get(`studies/${id}`).catch((error) => {
      if (error.status !== 404) throw error;
      return null;
    });
    if (!isOpen(id)) return;
    if (study === null) return leave(id);
    const before = store.get().study?.state;
    store.set({ study });
    await loadResult(id);
    if (isOpen(id) && ["queued", "reading"].includes(before) && study.state === "read") sayRead();
  }

  /** Say that the AI has finished, and how many suggestions there are where they may be known. */
  function sayRead() {
    const state = store.get();
    const number = state.suggestions.length;
    if (isBlind(state) || state.reading) say(store, "study.done");
    else say(store, number === 1 ? "study.done_one" : "study.done_count", { count: count(number) });
  }

  store.subscribe((state) => report(open(state)), ["studyId"]);
  store.subscribe((state) => report(onReading(state)), ["reading"]);
  report(open(store.get()));
  /** Close a study that another window has deleted. */
  function leave(id) {
    if (!isOpen(id)) return;
    location.hash = "#/";
    store.set({ message: { kind: "info", text: text("studies.gone") } });
  }

  /** Ask again when the service is back, also for an examination that was opened while it did not answer. */
  function onConnected() {
    const { studyId } = store.get();
    if (studyId === null) return;
    const again = () => isOpen(studyId) && report(refresh(studyId));
    if (opening) opening.catch(again);
    else again();
  }

  events.on("study", ({ id, state }) => isOpen(id) && (state === "deleted" ? leave(id) : report(refresh(id))));
  events.on("connected", onConnected);
  events.on("job", (job) => isOpen(job.study_id) && store.get().study && store.set({ study: { ...store.get().study, job } }));
  events.on("partial", (part) => {
    const state = store.get();
    // A study that was read before keeps the suggestions of that result until the new one is whole.
    if (!isOpen(part.study_id) || state.reading || state.resultId) return;
    const patch = { partial: true };
    if (part.suggestions) patch.suggestions = part.suggestions;
    if (part.colours) patch.timeline = { ...state.timeline, ...part, bins: part.colours.length, preview: true };
    store.set(patch);
  });
}
