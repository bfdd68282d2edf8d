// The verdicts of a reading, as the service and the actions that are not saved yet give them together.

export const UNDECIDED = "undecided";
export const REMOVED = "removed";

/**
 * Return the decision on a target: what the service holds, and what waits to be saved on top of it.
 *   Returns { verdict, label, comment, version, saved } and the other fields of the service's decision.
 */
export function decisionOn(target, reading, unsaved = []) {
  const stored = reading?.decisions?.find((each) => each.target === target);
  const decision = { verdict: UNDECIDED, label: null, comment: "", version: 0, saved: true, ...stored };
  for (const action of unsaved) {
    if (action.readingId !== reading?.id || action.target !== target || action.kind !== "decision") continue;
    Object.assign(decision, pick(action.body), { saved: false, action });
  }
  return decision;
}

function pick({ verdict, label, comment, reader, start_index, end_index, key_index }) {
  const given = { verdict, label, comment, reader, start_index, end_index, key_index };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}

export function targetOf(suggestion) {
  return `suggestion:${suggestion.id}`;
}

export function isDecided(suggestion, reading, unsaved) {
  return decisionOn(targetOf(suggestion), reading, unsaved).verdict !== UNDECIDED;
}

/** Return the reader's own findings, with those that are not saved yet. */
export function ownFindings(reading, unsaved = []) {
  const saved = (reading?.decisions ?? []).filter((each) => each.target.startsWith("finding:"))
    .map((each) => decisionOn(each.target, reading, unsaved));
  const known = new Set(saved.map((each) => each.target));
  const waiting = unsaved.filter((action) => action.readingId === reading?.id && action.kind === "finding" && !known.has(action.target))
    .map((action) => ({ ...decisionOn(action.target, withAdded(reading, action), unsaved), saved: false, action }));
  return [...saved, ...waiting].filter((each) => each.verdict !== REMOVED)
    .sort((a, b) => a.start_index - b.start_index);
}

function withAdded(reading, { target, body }) {
  return { ...reading, decisions: [{ ...body, target, verdict: "added" }] };
}

/** Return whether a stored decision says what an action asked for. */
export function sameDecision(stored, body) {
  return stored.verdict === body.verdict && (!body.label || stored.label === body.label)
    && (stored.comment ?? "") === (body.comment ?? "");
}
