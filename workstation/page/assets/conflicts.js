// Decisions that the service did not take: another window decided otherwise, or it refused them. The reader sees who
// decided what and chooses. Nothing is shown as saved before he has.

import { button, make, showList, showOnce, typed } from "./elements.js";
import { errorLine } from "./messages.js";
import { labelName, targetWords } from "./targets.js";
import { text } from "./texts.js";
import { decisionOn } from "./verdicts.js";
import { frameText, moment } from "./wording.js";

/** Show the conflicts of the open reading in `root`, and what waits to be saved. */
export function createConflicts(root, store, session) {
  const waiting = make("p", { class: "unsaved", role: "status" });
  const list = make("div", { class: "conflicts", role: "alert" });
  root.append(waiting, list);
  let asked = new Set();

  function draw() {
    const { unsaved, reading } = store.get();
    const mine = unsaved.filter((action) => action.readingId === reading?.id);
    drawWaiting(waiting, mine, session);
    const open = mine.filter((action) => action.state === "conflict" || action.state === "refused");
    if (open.some((action) => action.state === "conflict" && !asked.has(action.id))) session.refresh();
    asked = new Set(open.map((action) => action.id));
    showList(list, open, {
      keyOf: (action) => action.id, build: (action) => conflict(action, store, session),
      signature: (action) => JSON.stringify([action, changedElsewhere(action, reading), targetWords(action.target, store.get())]),
    });
  }
  store.subscribe(draw, ["unsaved", "reading", "suggestions"]);
  draw();
}

function drawWaiting(root, actions, session) {
  const stuck = actions.filter((action) => action.state === "unsaved");
  root.hidden = stuck.length === 0;
  const waits = actions.filter((action) => action.state === "unsaved" || action.state === "waiting");
  const line = stuck.length ? `${text("unsaved.count", { count: waits.length })} ${errorLine(stuck[0].error)} ` : "";
  showOnce(root, line, () => line && [
    document.createTextNode(line), button(text("unsaved.retry"), () => session.outbox.flush(), { data: { act: "retry" } }),
  ]);
}

function conflict(action, store, session) {
  const state = store.get();
  const theirs = changedElsewhere(action, state.reading);
  const take = () => (theirs ? session.outbox.giveWay(action.id) : session.outbox.drop(action.id));
  // What is saved replaces what is shown here. If somebody has decided once more, the service refuses it again.
  const mine = () => session.outbox.retry(action.id, theirs ? theirs.version : versionNow(action, store.get()));
  return make("div", { class: "conflict" },
    make("h3", {}, text(theirs ? "conflict.title" : "conflict.refused", { target: targetWords(action.target, state) })),
    theirs ? theirLine(theirs, state) : make("p", {}, errorLine(action.error)),
    make("p", {}, text("conflict.mine"), " ", actionWords(action, state)),
    make("div", { class: "verbs" },
      button(text(theirs ? "conflict.take_theirs" : "conflict.drop"), take, { data: { act: "theirs" } }),
      button(text(theirs ? "conflict.save_mine" : "conflict.again"), mine, { class: "primary", data: { act: "mine" } })));
}

/**
 * Return the newest known decision or landmark of another window that an action is in conflict with: of the answer or of
 * the reading. Null where the service refused it for another reason, such as a reading that was finished elsewhere.
 */
function changedElsewhere({ state, target, error }, reading) {
  const current = error?.body?.current;
  if (state !== "conflict" || current?.target !== target) return null;
  if (!target.startsWith("landmark:")) {
    const stored = decisionOn(target, reading);
    return stored.version > current.version ? stored : current;
  }
  if (reading.version < current.version) return current;
  return { target, ...(markNow(target, reading) ?? { index: null, version: 0 }) };
}

const markNow = (target, { landmarks }) => landmarks[target.slice("landmark:".length)];

/** Return the version on which a landmark rests when it is set again; null for an action that keeps its own. */
function versionNow({ kind, target }, { reading }) {
  return kind === "landmark" ? markNow(target, reading)?.version ?? 0 : null;
}

function theirLine(theirs, state) {
  const isLandmark = theirs.target.startsWith("landmark:");
  if (isLandmark && theirs.index === null) return make("p", {}, text("conflict.gone"));
  const when = moment(isLandmark ? theirs.set_at : theirs.decided_at);
  return make("p", {}, typed(theirs.reader ?? state.reading.reader), " ", text("conflict.theirs", { when }), " ",
    isLandmark ? landmarkWords(theirs, state) : decisionWords(theirs, state));
}

function actionWords({ kind, body, target }, state) {
  if (kind === "landmark") return landmarkWords(body, state);
  if (kind === "decision") return decisionWords(body, state);
  const label = kind === "finding" ? `: ${labelName(body.label, state)}` : "";
  return strong(text(`action.${kind}`) + label, body.comment);
}

function landmarkWords({ index }, state) {
  return strong(Number.isInteger(index) ? frameText(index, state.study) : text("conflict.removal"));
}

function decisionWords(decision, state) {
  const label = decision.verdict === "relabelled" ? `: ${labelName(decision.label, state)}` : "";
  return strong(text(`verdict.${decision.verdict}`) + label, decision.comment);
}

function strong(words, comment = "") {
  return make("strong", {}, words, comment ? make("span", {}, " ", typed(`“${comment}”`)) : "");
}
