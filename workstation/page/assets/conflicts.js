// Decisions that the service did not take: another window decided otherwise, or it refused them. The reader sees who
// decided what and chooses. Nothing is shown as saved before he has.

import { button, make, showList, showOnce, typed } from "./elements.js";
import { errorLine } from "./messages.js";
import { labelName } from "./targets.js";
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
      signature: (action) => JSON.stringify([action, decisionOn(action.target, reading)]),
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
  const theirs = decidedElsewhere(action, state.reading);
  const take = () => (theirs ? session.outbox.giveWay(action.id) : session.outbox.drop(action.id));
  // What is saved replaces what is shown here. If somebody has decided once more, the service refuses it again.
  const mine = () => session.outbox.retry(action.id, theirs ? theirs.version : versionNow(action, store.get()));
  return make("div", { class: "conflict" },
    make("h3", {}, text(theirs ? "conflict.title" : "conflict.refused", { target: targetName(action.target, state) })),
    theirs ? theirLine(theirs, state) : make("p", {}, errorLine(action.error)),
    make("p", {}, text("conflict.mine"), " ", decisionWords(action.body ?? {}, state, action.kind)),
    make("div", { class: "verbs" },
      button(text(theirs ? "conflict.take_theirs" : "conflict.drop"), take, { data: { act: "theirs" } }),
      button(text(theirs ? "conflict.save_mine" : "conflict.again"), mine, { class: "primary", data: { act: "mine" } })));
}

/**
 * Return the newest known decision of another window that an action is in conflict with: of the answer or of the reading.
 * Null where the service refused it for another reason, such as a reading that was finished elsewhere.
 */
function decidedElsewhere({ state, kind, target, error }, reading) {
  const current = error?.body?.current;
  if (state !== "conflict" || kind !== "decision" || current?.target !== target) return null;
  const stored = decisionOn(target, reading);
  return stored.version > current.version ? stored : current;
}

/** Return the version on which a landmark rests when it is set again; null for an action that keeps its own. */
function versionNow({ kind, method, target }, { reading }) {
  if (kind !== "landmark" || method === "DELETE") return null;
  return reading.landmarks[target.slice("landmark:".length)]?.version ?? 0;
}

function theirLine(theirs, state) {
  return make("p", {}, typed(theirs.reader ?? state.reading.reader), " ",
    text("conflict.theirs", { when: moment(theirs.decided_at) }), " ", decisionWords(theirs, state, "decision"));
}

function decisionWords(decision, state, kind) {
  const verdict = text(kind === "decision" ? `verdict.${decision.verdict}` : `action.${kind}`);
  const about = decision.verdict === "relabelled" || kind === "finding" ? labelName(decision.label, state)
    : kind === "landmark" && decision?.index !== undefined ? frameText(decision.index, state.study) : "";
  const label = about ? `: ${about}` : "";
  return make("strong", {}, verdict + label, decision.comment ? make("span", {}, " ", typed(`“${decision.comment}”`)) : "");
}

function targetName(target, state) {
  const [kind, id] = target.split(":");
  if (kind === "landmark") return text(`landmark.name.${id}`);
  if (kind !== "suggestion") return text("findings.one");
  const rank = state.suggestions.findIndex((each) => String(each.id) === id);
  return text("decisions.one", { rank: rank + 1, name: state.suggestions[rank]?.name ?? "" });
}
