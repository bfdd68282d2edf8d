// The open reading: what the service holds, what the reader does, and how the two come together.

import { say, sayError } from "./messages.js";
import { createOutbox } from "./outbox.js";
import { readerOf } from "./readers.js";
import { UNDECIDED, decisionOn, isDecided, targetOf } from "./verdicts.js";

const ADVANCE = "capsule-edge.move-on";

/** Return the session of the open reading: `load`, `decide`, `addFinding`, `undo`, `setLandmark` and the outbox. */
export function createReadingSession(store, api) {
  const session = new ReadingSession(store, api);
  store.set({ unsaved: session.outbox.pending(), moveOn: localStorage.getItem(ADVANCE) !== "off" });
  store.subscribe(() => { session.since = performance.now(); }, ["selected", "selectedFinding"]);
  return session;
}

class ReadingSession {
  constructor(store, api) {
    // Called with the target of an undone action and the decision that it undid.
    Object.assign(this, { store, api, loads: 0, stored: new Map(), since: performance.now(), onUndone: () => {} });
    this.outbox = createOutbox(store, api, (action, answer) => this.#saved(action, answer));
  }

  /** Fetch a reading and show it, unless another one was asked for or another examination opened meanwhile. */
  async load(readingId) {
    const mine = ++this.loads;
    const [reading, labels] = await Promise.all([this.api.get(`readings/${readingId}`), this.#labels()]);
    if (mine === this.loads && this.#isOfOpenStudy(reading)) {
      this.store.set({ labels: labels(reading) });
      this.show(reading);
    }
    this.outbox.flush();
  }

  /**
   * Show a reading that the service has just sent. One of another examination than the open one is left out, and one
   * that is older than what the service has acknowledged by now: its answer took longer.
   */
  show(reading) {
    if (!this.#isOfOpenStudy(reading)) return;
    const { reading: shown } = this.store.get();
    const newest = Math.max(shown?.id === reading.id ? shown.version : 0, this.stored.get(reading.id) ?? 0);
    if (reading.version >= newest) this.store.set({ reading });
  }

  // An answer may come late. Under the pictures of another examination, its log would take what is seen there.
  #isOfOpenStudy(reading) {
    return reading.study_id === this.store.get().studyId;
  }

  /** Fetch the reading again: another window may have changed it. */
  async refresh() {
    const { reading } = this.store.get();
    if (!reading) return;
    try {
      const fresh = await this.api.get(`readings/${reading.id}`);
      if (this.store.get().reading?.id === fresh.id) this.show(fresh);
    } catch (error) {
      sayError(this.store, error);
    }
  }

  /** Decide on a suggestion or on an own finding. `change` holds verdict, label, comment, range. */
  decide(target, change) {
    const { reading, unsaved } = this.store.get();
    const now = decisionOn(target, reading, unsaved);
    const verdict = change.verdict ?? now.verdict;
    // Only another class than the model's is named: a confirmed suggestion has the class of the model.
    const own = verdict === "relabelled" || target.startsWith("finding:");
    const label = own ? change.label ?? now.label : null;
    // Suggestions are numbered within their result: the service refuses a decision on those of another one.
    const seen = target.startsWith("suggestion:") ? { result_id: this.store.get().resultId } : {};
    const body = { ...seen, comment: now.comment, version: now.version, ...change, verdict, label, seconds: this.#seconds() };
    this.#add({ kind: "decision", target, body, method: "PUT", path: `readings/${reading.id}/decisions/${target}` });
  }

  /** Add a finding of the reader's own on the frames [start, end). */
  addFinding(label, start, end, key) {
    const { reading } = this.store.get();
    // The page chooses the id, so that a finding whose answer was lost can be sent again without adding a second one.
    const id = crypto.randomUUID().replaceAll("-", "");
    this.#add({
      kind: "finding", target: `finding:${id}`, method: "POST", path: `readings/${reading.id}/findings`,
      body: { id, label, start_index: start, end_index: end, key_index: key, comment: "", seconds: this.#seconds() },
    });
  }

  /** Undo the last action. An action that was never sent is taken back here. */
  undo() {
    const { reading, unsaved } = this.store.get();
    const last = unsaved.filter((action) => action.readingId === reading.id).at(-1);
    // The service holds neither an action that was never sent nor one that it refused.
    if (last && ((!last.asked && last.state === "waiting") || last.state === "refused")) {
      const before = decisionOn(last.target, reading, unsaved);
      this.outbox.drop(last.id);
      return this.onUndone(last.target, last.kind === "finding" ? { ...before, ...last.body } : before);
    }
    if (last?.state === "conflict") return say(this.store, "undo.conflict");
    if (!last && !reading.undoable) return say(this.store, "undo.nothing");
    return this.#add({ kind: "undo", target: "undo", method: "POST", path: `readings/${reading.id}/undo`, body: {} });
  }

  setLandmark(name, index) {
    this.#changeLandmark("PUT", name, { index });
  }

  removeLandmark(name) {
    this.#changeLandmark("DELETE", name, {});
  }

  /** Change a landmark, resting on the version that the reader sees: 0 where it is not set. */
  #changeLandmark(method, name, change) {
    const { reading } = this.store.get();
    const version = reading.landmarks[name]?.version ?? 0;
    this.#add({ kind: "landmark", target: `landmark:${name}`, method, path: `readings/${reading.id}/landmarks/${name}`, body: { ...change, version } });
  }

  setMoveOn(on) {
    localStorage.setItem(ADVANCE, on ? "on" : "off");
    this.store.set({ moveOn: on });
  }

  /** Return a function that gives the labels of the model whose suggestions a reading shows. */
  async #labels() {
    const { models } = await this.api.get("models").catch(() => ({ models: [] }));
    return (reading) => {
      const { session, study } = this.store.get();
      const result = study?.results.find((each) => each.id === reading.result_id);
      return models.find((each) => each.sha256 === result?.model_sha256)?.labels ?? session?.labels ?? [];
    };
  }

  // Each action goes out under the name of the person who did it, also where another goes on in this tab meanwhile.
  #add(action) {
    const { reading } = this.store.get();
    this.outbox.add({ readingId: reading.id, ...action, body: { ...action.body, reader: readerOf(reading) } });
  }

  /** Return the seconds that the reader has looked at the target, to one decimal. */
  #seconds() {
    const seconds = (performance.now() - this.since) / 1000;
    this.since = performance.now();
    return Math.round(seconds * 10) / 10;
  }

  async #saved(action, answer) {
    const { reading } = this.store.get();
    if (Number.isInteger(answer?.version)) this.stored.set(action.readingId, Math.max(answer.version, this.stored.get(action.readingId) ?? 0));
    if (reading?.id !== action.readingId) return undefined;
    const whole = answer?.reading ?? answer;
    if (whole?.decisions) {
      this.show(whole);
      if (action.kind === "undo") this.onUndone(answer.target, beforeUndo(answer.target, reading));
      return undefined;
    }
    if (action.kind === "decision" && answer?.target) this.store.set({ reading: withDecision(reading, answer) });
    // The answer says what was stored; the reading says what follows from it: progress, transit times, what undo undoes.
    return this.refresh();
  }
}

/** Return what an undo takes back: the decision on its target, or the place of its landmark. */
function beforeUndo(target, reading) {
  const mark = reading.landmarks?.[target.replace("landmark:", "")];
  return { ...decisionOn(target, reading), ...(mark && target.startsWith("landmark:") ? { key_index: mark.index } : {}) };
}

function withDecision(reading, { progress = reading.progress, ...decision }) {
  const others = reading.decisions.filter((each) => each.target !== decision.target);
  return { ...reading, progress, decisions: [...others, decision] };
}

/** Return the next suggestion without a decision after `selected` in `order`, from the start again at its end; or null. */
export function nextUndecided(order, selected, reading, unsaved) {
  const at = order.findIndex((each) => each.id === selected);
  const turned = [...order.slice(at + 1), ...order.slice(0, at + 1)];
  return turned.find((each) => each.id !== selected && !isDecided(each, reading, unsaved)) ?? null;
}

export { UNDECIDED, targetOf };
