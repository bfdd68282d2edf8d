// The outbox holds what the reader did until the service has acknowledged it. Actions are sent one at a time, in their
// order. A lost server, a full disk or a busy database leaves them here, and they are sent again. They are kept in
// this tab, so that loading the page anew loses nothing.
//
// An action: { id, readingId, kind, target, method, path, body, state, error, asked }
//   kind: "decision", "finding", "landmark" or "undo".
//   state: "waiting", "sending", "unsaved" (not acknowledged, sent again), "conflict" or "refused" (the reader chooses).
//   asked: whether it was sent before. Its answer may have been lost, so the reading is compared before it is sent again.
//   body: with the version of the decision or landmark that the reader saw. A DELETE sends it in the address.

import { say, sayError } from "./messages.js";
import { sameDecision } from "./verdicts.js";

const KEPT = "capsule-edge.outbox";
const WAITS_MS = [1000, 2000, 4000, 8000, 15000];
// The service cannot store now and may be able to later. 0: no answer at all. 401: a new token may come.
const LATER = new Set([0, 401, 423, 429, 502, 503, 504, 507]);

/** Return the outbox. `onSaved(action, answer)` is called for each acknowledged action. */
export function createOutbox(store, api, onSaved) {
  const outbox = new Outbox(store, api, onSaved);
  addEventListener("online", () => outbox.flush());
  addEventListener("beforeunload", (event) => {
    // Where the session has ended the next page of this tab sends what is kept: nothing is lost by leaving.
    if (outbox.pending().length && !(outbox.isKept && store.get().view === "closed")) event.preventDefault();
  });
  return outbox;
}

class Outbox {
  #actions = [];
  #running = false;
  #timer = 0;
  #failures = 0;

  constructor(store, api, onSaved) {
    Object.assign(this, { store, api, onSaved });
    this.#actions = kept();
    this.#publish();
  }

  // Return the actions that are not acknowledged, of one reading or of all.
  pending(readingId = null) {
    return this.#actions.filter((action) => readingId === null || action.readingId === readingId);
  }

  add(action) {
    this.#actions.push({ id: crypto.randomUUID(), state: "waiting", error: null, asked: false, ...action });
    this.#publish();
    this.flush();
  }

  // Send again what was refused or in conflict, resting on `version` of its target where one is given.
  retry(id, version = null) {
    const action = this.#actions.find((each) => each.id === id);
    if (!action) return;
    const body = version === null ? action.body : { ...action.body, version };
    Object.assign(action, { state: "waiting", error: null, asked: false, body });
    this.#publish();
    this.flush();
  }

  drop(id) {
    this.#actions = this.#actions.filter((each) => each.id !== id);
    this.#publish();
    this.flush();
  }

  // Drop an action because the saved decision holds. Later actions on its target rested on it: the reader chooses anew.
  giveWay(id) {
    const at = this.#actions.findIndex((each) => each.id === id);
    if (at < 0) return;
    const [{ error }] = this.#actions.slice(at);
    for (const later of this.#later(this.#actions[at])) Object.assign(later, { state: "conflict", error });
    this.drop(id);
  }

  // Send what waits, now.
  async flush() {
    clearTimeout(this.#timer);
    if (this.#running) return;
    this.#running = true;
    try {
      for (let action = this.#next(); action; action = this.#next()) {
        if (!(await this.#send(action))) break;
      }
    } finally {
      this.#running = false;
    }
  }

  // An action that the reader must look at first holds back the later ones of its target, and no others.
  #next() {
    const held = new Set();
    for (const action of this.#actions) {
      const place = `${action.readingId}/${action.target}`;
      if (action.state === "conflict" || action.state === "refused") held.add(place);
      else if (!held.has(place)) return action;
    }
    return null;
  }

  // Return whether the next action may be sent at once.
  async #send(action) {
    // What failed once stays "unsaved" while it is tried again, until it is acknowledged.
    if (action.state === "waiting") this.#mark(action, { state: "sending" });
    try {
      const found = action.asked ? await this.#answerOf(action) : null;
      const body = await this.#body(action);
      this.#mark(action, { asked: true });
      const answer = found ?? await this.#request(action, body);
      this.#failures = 0;
      // The reading is brought up to date before the next action is sent, which may rest on it.
      await this.onSaved(action, answer);
      this.#carry(action, answer);
      this.#actions = this.#actions.filter((each) => each !== action);
      this.#publish();
      return true;
    } catch (error) {
      return this.#failed(action, error);
    }
  }

  #request({ method, path }, body) {
    if (method !== "DELETE") return this.api.send(method, path, body);
    return this.api.send(method, `${path}?${new URLSearchParams(body)}`);
  }

  #failed(action, error) {
    const status = error.status ?? 0;
    const plain = { status, code: error.code, message: error.message, hint: error.hint, body: error.body };
    if (status === 409 && action.kind === "undo") {
      this.#actions = this.#actions.filter((each) => each !== action);
      this.#publish();
      // The service names what it would undo now: the answer to an earlier request was lost, or another window acted.
      if (error.body?.current && "undoable" in error.body.current) say(this.store, "undo.newer");
      else sayError(this.store, error);
      this.onSaved(action, null);
    } else if (status === 409) this.#mark(action, { state: "conflict", error: plain });
    else if (LATER.has(status) || status >= 500) {
      this.#mark(action, { state: "unsaved", error: plain });
      // A session that has expired ends the page. The next one, in this tab, sends what is kept.
      if (status === 401) return false;
      const wait = WAITS_MS[Math.min(this.#failures, WAITS_MS.length - 1)];
      this.#failures += 1;
      this.#timer = setTimeout(() => this.flush(), wait);
      return false;
    } else this.#mark(action, { state: "refused", error: plain });
    return true;
  }

  async #body(action) {
    if (action.kind !== "undo" || Number.isInteger(action.body.sequence)) return action.body;
    // What is undone is what the service held last, once everything before is saved. A repetition names the same.
    const { reading } = this.store.get();
    const known = reading?.id === action.readingId ? reading.undoable : null;
    action.body = { ...action.body, sequence: known ?? (await this.api.get(`readings/${action.readingId}`)).undoable };
    return action.body;
  }

  // Return the actions after `action` on `target` of its reading that rest on a version, those on its own target where
  // none is named.
  #later({ id, readingId }, target = null) {
    const at = this.#actions.findIndex((each) => each.id === id);
    const place = target ?? this.#actions[at].target;
    return this.#actions.slice(at + 1).filter((each) => each.readingId === readingId && each.target === place && Number.isInteger(each.body.version));
  }

  // Later actions on the same target rest on the version that an acknowledged action made. No other version is
  // carried over: what another window saved meanwhile, this reader has not seen.
  #carry(action, answer) {
    const target = action.kind === "undo" ? answer?.target : action.target;
    const whole = answer?.reading ?? answer;
    if (target?.startsWith("landmark:")) return this.#carryLandmark(action, target, whole);
    const stored = whole?.decisions?.find((each) => each.target === target) ?? answer;
    if (!target || stored?.target !== target || !Number.isInteger(stored.version)) return;
    for (const { body } of this.#later(action, target)) body.version = Math.max(body.version, stored.version);
  }

  // A landmark that is removed has the version 0. One that was set anew on a version which the reader saw keeps that.
  #carryLandmark(action, target, reading) {
    if (!reading?.landmarks) return;
    const version = markOf(target, reading)?.version ?? 0;
    for (const { body } of this.#later(action, target)) {
      if (action.kind === "undo" || body.version === action.body.version) body.version = version;
    }
  }

  // Return the answer that was lost on the way, or null when the service never stored the action.
  async #answerOf(action) {
    // A finding has an id, an undo names its line: the service takes either once.
    if (action.kind !== "decision" && action.kind !== "landmark") return null;
    const reading = await this.api.get(`readings/${action.readingId}`);
    const isStored = action.kind === "landmark" ? isMarked(action, reading) : isDecidedSo(action, reading);
    return isStored ? reading : null;
  }

  #mark(action, changes) {
    Object.assign(action, changes);
    this.#publish();
  }

  #publish() {
    try {
      sessionStorage.setItem(KEPT, JSON.stringify(this.#actions));
      this.isKept = true;
    } catch {
      this.isKept = false;
      // Storage is full or switched off: the actions stay in memory, and leaving the page asks first.
    }
    this.store.set({ unsaved: this.#actions.map((action) => ({ ...action })) });
  }
}

/** Return a landmark of a reading by the target of its actions, undefined where it is not set. */
const markOf = (target, { landmarks }) => landmarks[target.slice("landmark:".length)];

/** Return whether a landmark stands as an action asked for. One that is gone or that another window set anew is removed. */
function isMarked({ method, target, body }, reading) {
  const mark = markOf(target, reading);
  return method === "DELETE" ? mark?.version !== body.version : mark?.index === body.index;
}

function isDecidedSo({ target, body }, reading) {
  const current = reading.decisions.find((each) => each.target === target);
  return Boolean(current) && sameDecision(current, body);
}

function kept() {
  try {
    const actions = JSON.parse(sessionStorage.getItem(KEPT) ?? "[]");
    return actions.map((action) => ({ ...action, state: action.state === "sending" ? "unsaved" : action.state }));
  } catch {
    return [];
  }
}
