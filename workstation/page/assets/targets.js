// The target of a decision: the selected suggestion or a finding of the reader's own. Its name, its frames, and whether
// the picture on the screen is one of them.

import { text } from "./texts.js";
import { decisionOn, ownFindings } from "./verdicts.js";

/** A class in the reader's own words begins with this. */
export const OTHER = "other: ";

/** Return the display name of a class, or the reader's own words for one that the model does not know. */
export function labelName(key, { labels }) {
  if (key?.startsWith(OTHER)) return key.slice(OTHER.length);
  return labels?.find((each) => each.key === key)?.name ?? key ?? "";
}

/** Return the suggestion of a target with its rank: {suggestion, rank}; null for another target. */
export function suggestionOf(target, { suggestions }) {
  const at = suggestions.findIndex((each) => `suggestion:${each.id}` === target);
  return at < 0 ? null : { suggestion: suggestions[at], rank: at + 1 };
}

/**
 * Return the name of a target: "7 Erosion", "your finding Polyp" or the name of a landmark; "a suggestion" for one whose
 * name and rank are not known, because the suggestions have not come yet.
 */
export function targetName(target, state) {
  const [kind, id] = target.split(":");
  if (kind === "landmark") return text(`landmark.name.${id}`);
  const found = suggestionOf(target, state);
  if (found) return text("target.suggestion", { rank: found.rank, name: found.suggestion.name });
  if (kind === "suggestion") return text("target.unknown");
  const own = findingOf(target, state);
  return own?.label ? text("target.finding", { name: labelName(own.label, state) }) : text("findings.one");
}

/** Return the name of a target within a sentence: "suggestion 7, Erosion". */
export function targetWords(target, state) {
  const found = suggestionOf(target, state);
  return found ? text("decisions.one", { rank: found.rank, name: found.suggestion.name }) : targetName(target, state);
}

/** Return a finding of the reader's own, undefined where it is not there. */
export const findingOf = (target, { reading, unsaved }) => ownFindings(reading, unsaved).find((each) => each.target === target);

/** Return the ranges of frames [start, end) that belong to a target. */
function rangesOf(target, state) {
  const found = suggestionOf(target, state);
  if (found) return found.suggestion.events.map((event) => [event.start_index, event.end_index + 1]);
  const own = findingOf(target, state);
  return own ? [[own.start_index, own.end_index]] : [];
}

/** Return a function that says whether frame `index` belongs to a target. */
export function frameTest(target, state) {
  const ranges = rangesOf(target, state);
  return (index) => ranges.some(([start, end]) => index >= start && index < end);
}

/** Return the frame that shows a target best, null where it has none. */
export function keyFrame(target, state) {
  const event = suggestionOf(target, state)?.suggestion.events[0];
  if (event) return event.peak_index ?? event.start_index;
  const own = findingOf(target, state);
  return own ? own.key_index ?? own.start_index : null;
}

/** Return what was decided, in one sentence, and what it replaces. */
export function decisionLine(target, before, state) {
  const [name, now] = [targetName(target, state), decisionOn(target, state.reading, state.unsaved)];
  const verdict = text(`verdict.${now.verdict}`);
  if (target.startsWith("finding:")) return text("decided.finding", { name });
  const line = now.verdict === "relabelled" ? text("decided.relabelled", { name, label: labelName(now.label, state) }) : text("decided.verdict", { verdict, name });
  const replaced = before.verdict !== now.verdict && ["confirmed", "rejected", "relabelled"].includes(before.verdict);
  return replaced ? `${line} ${text("decided.before", { verdict: text(`verdict.${before.verdict}`).toLowerCase() })}` : line;
}

/** Return what an undo took back, in one sentence. `before` is the decision that it undid. */
export function undoneLine(target, before, state) {
  const [kind] = target.split(":");
  if (kind === "landmark") return text("undone.landmark", { name: targetName(target, state) });
  const now = decisionOn(target, state.reading, state.unsaved);
  if (kind === "finding") {
    const name = labelName(before.label ?? now.label, state);
    return text(findingOf(target, state) ? "undone.finding" : "undone.added", { name });
  }
  const name = targetName(target, state);
  if (before.verdict === now.verdict) return text("undone.comment", { name });
  return text("undone.verdict", { name, was: text(`verdict.${before.verdict}`), now: text(`verdict.${now.verdict}`).toLowerCase() });
}
