// The list of suggestions, best rank first, and the decisions on them. The focus stays on the picture: keys decide.

import { focusPicture, openDialog } from "./dialog.js";
import { button, field, make, showList, showOnce, typed } from "./elements.js";
import { errorLine, say, sayLine } from "./messages.js";
import { nextUndecided } from "./reading_session.js";
import { hasReader } from "./readers.js";
import { isBlind } from "./state.js";
import { labelSlot } from "./suggestions.js";
import { OTHER, decisionLine, findingOf, frameTest, keyFrame, labelName, suggestionOf, targetName, targetWords, undoneLine } from "./targets.js";
import { text } from "./texts.js";
import { decisionOn, isDecided, ownFindings, targetOf } from "./verdicts.js";
import { count, eventText, frameText, precisionText, scoreText } from "./wording.js";

const KEYS = ["suggestions", "reading", "unsaved", "selected", "selectedFinding", "partial", "resultId", "limits", "looking", "order", "filter", "study", "moveOn"];

/**
 * Show the suggestions in `root` and return the actions of the keys.
 *
 * `desk` connects the panel: {session (of reading_session.js), picker, show(index), panes(), seen, pause()}.
 */
export function createDecisions(root, store, desk) {
  store.set({ order: "rank", filter: "all", selectedFinding: null });
  const list = make("ol", { class: "suggestions", "aria-label": text("decisions.list") });
  const bar = make("div", { class: "toolbar" });
  const none = make("p", { class: "empty" });
  const heading = make("h3", {});
  const hides = make("div", { class: "verbs hides", hidden: true });
  const limits = make("div", { class: "limits", hidden: true });
  root.append(heading, limits, bar, list, none, hides);
  const panel = { store, desk, list, root, heading, limits, hides, of: "" };
  const actions = createActions(panel);
  panel.actions = actions;
  const draw = () => drawList(panel, bar, none);
  store.subscribe((state, changed) => dropFinding(store, changed), ["selected", "reading", "unsaved"]);
  store.subscribe(() => resetList(panel), ["studyId", "reading"]);
  store.subscribe(draw, KEYS);
  store.subscribe(() => keepInView(list), ["selected"]);
  draw();
  return actions;
}

/** Let go of the chosen finding when a suggestion is selected or the finding is gone: keys act on what is marked. */
function dropFinding(store, changed) {
  const { selectedFinding, selected, reading, unsaved } = store.get();
  if (!selectedFinding) return;
  const isNew = changed.includes("selected") && selected !== null && !changed.includes("selectedFinding");
  const isThere = ownFindings(reading, unsaved).some((each) => each.target === selectedFinding);
  if (isNew) store.set({ selectedFinding: null });
  // The next key must not fall back to a suggestion that was selected earlier.
  else if (!isThere) store.set({ selectedFinding: null, selected: null });
}

/** Show the list as it begins, by time where everything is read: another reading takes over no filter of the last one. */
function resetList(panel) {
  const { studyId, reading } = panel.store.get();
  const of = [studyId, reading?.id, reading?.way].join(" ");
  if (of === panel.of) return;
  panel.of = of;
  panel.store.set({ order: reading?.way === "everything" ? "time" : "rank", filter: "all", rangeStart: null });
}

/** Show the limits of the suggestions where one decides on them: what matters at once, and the rest on demand. */
function drawLimits({ limits: root, store }) {
  const { limits, resultId } = store.get();
  root.hidden = isBlind(store.get()) || limits === null || limits.result_id !== resultId;
  if (root.hidden) return;
  const { not_new: notNew, blind_spots: spots } = limits;
  showOnce(root, JSON.stringify(limits), () => [
    notNew.length > 0 && make("p", { class: "not-new" }, text("limits.not_new")),
    make("details", {}, make("summary", {}, text("limits.title")),
      make("ul", {}, [...notNew.map(asSentence), ...(spots ?? [text("limits.no_model")]), text("limits.always")].map((line) => make("li", {}, line)))),
  ]);
}

const asSentence = (words) => errorLine({ message: words });

/** Say how many suggestions the filter hides, with the way back to all of them. */
function drawHidden({ hides, store }, number) {
  hides.hidden = number === 0;
  if (number > 0) showOnce(hides, String(number), () => [
    make("span", { class: "hint" }, text(number === 1 ? "decisions.hides_one" : "decisions.hides", { count: count(number) })),
    button(text("decisions.show_all"), () => store.set({ filter: "all" }), { data: { act: "show-all" } }),
  ]);
}

function drawList(panel, bar, none) {
  const state = panel.store.get();
  const shown = orderedSuggestions(state);
  const blind = isBlind(state);
  bar.hidden = blind || state.suggestions.length === 0;
  showOnce(bar, JSON.stringify([state.order, state.filter, state.moveOn]), () => toolbar(panel));
  drawLimits(panel);
  drawHidden(panel, blind ? 0 : state.suggestions.length - shown.length);
  panel.heading.textContent = blind || state.suggestions.length === 0 ? text("decisions.list") : text(state.suggestions.length === 1 ? "decisions.count_one" : "decisions.count", { count: count(state.suggestions.length) });
  none.hidden = !blind && shown.length > 0;
  none.textContent = text(emptyKey(state, blind));
  const rank = new Map(state.suggestions.map((each, n) => [each.id, n + 1]));
  showList(panel.list, blind ? [] : shown, {
    keyOf: (each) => each.id,
    build: (each) => card(panel, each, rank.get(each.id)),
    signature: (each) => JSON.stringify([
      each, rank.get(each.id), state.selected === each.id && !state.selectedFinding, state.reading?.state, state.study?.id,
      decisionOn(targetOf(each), state.reading, state.unsaved),
    ]),
  });
}

function emptyKey(state, blind) {
  if (blind) return state.reading ? "decisions.hidden" : "decisions.no_way";
  if (!showsItsResult(state) || (state.resultId === null && !state.partial)) return "decisions.loading";
  if (state.partial) return "decisions.partial";
  return state.suggestions.length ? "decisions.none_left" : "decisions.none";
}

/** Return whether the suggestions on the screen are those of the open reading. */
const showsItsResult = ({ reading, resultId }) => !reading || reading.result_id === resultId;

/** Return the suggestions in the order and with the filter that the reader chose. */
export function orderedSuggestions({ suggestions, order, filter, reading, unsaved, selected }) {
  const shown = suggestions.filter((each) => filter !== "open" || each.id === selected || !isDecided(each, reading, unsaved));
  const start = (each) => each.events[0]?.start_index ?? 0;
  if (order === "time") return [...shown].sort((a, b) => start(a) - start(b));
  if (order === "class") return [...shown].sort((a, b) => a.name.localeCompare(b.name));
  return shown;
}

function toolbar({ store, desk }) {
  const { order, filter, moveOn } = store.get();
  const option = (kind, value, chosen) => make("option", { value, selected: value === chosen }, text(`decisions.${kind}.${value}`));
  const select = (kind, values, chosen) => make("select", {
    "aria-label": text(`decisions.${kind}`), data: { act: kind },
    onchange: (event) => store.set({ [kind]: event.target.value }),
  }, values.map((value) => option(kind, value, chosen)));
  const box = make("input", { type: "checkbox", checked: moveOn, onchange: (event) => desk.session.setMoveOn(event.target.checked), data: { act: "move" } });
  return [
    select("order", ["rank", "time", "class"], order), select("filter", ["all", "open"], filter),
    make("label", { class: "check" }, box, text("decisions.move_on")),
  ];
}

function card(panel, suggestion, rank) {
  const { store } = panel;
  const state = store.get();
  const selected = state.selected === suggestion.id && !state.selectedFinding;
  const decision = decisionOn(targetOf(suggestion), state.reading, state.unsaved);
  const key = suggestion.events[0];
  const head = button([
    make("span", { class: "rank", "aria-label": text("decisions.rank", { rank }) }, String(rank)),
    swatch(suggestion.label, state),
    make("span", { class: "name" }, shownName(suggestion, decision, state)),
    badge(decision),
    make("span", { class: "facts" }, factsLine(suggestion, key, state)),
  ], () => panel.actions.select(suggestion), { class: "card-head", "aria-current": selected ? "true" : null, data: { act: "select" } });
  return make("li", { class: "suggestion", data: { id: suggestion.id, verdict: decision.verdict, saved: String(decision.saved) } },
    head, selected && details(panel, suggestion, decision));
}

function shownName(suggestion, decision, state) {
  if (decision.verdict !== "relabelled") return suggestion.name;
  return text("decisions.relabelled", { from: suggestion.name, to: labelName(decision.label, state) });
}

function badge(decision) {
  const { verdict, saved, action } = decision;
  if (verdict === "undecided" && saved) return null;
  const words = [verdict === "undecided" ? "" : text(`verdict.${verdict}`), saved ? "" : text(`saving.${action.state}`)];
  return make("span", { class: "badge", data: { verdict, saving: saved ? "" : action.state } }, words.filter(Boolean).join(", "));
}

function factsLine(suggestion, event, state) {
  const where = event ? frameText(event.peak_index, state.study, event.peak_s) : "";
  const count = suggestion.events.length > 1 ? text("decisions.events", { count: suggestion.events.length }) : "";
  return [where, count, text("decisions.score", { score: scoreText(suggestion.score) })].filter(Boolean).join(" · ");
}

function details(panel, suggestion, decision) {
  const open = panel.store.get().reading?.state === "open";
  const { confirm, reject, relabel, comment } = panel.actions.clicked;
  return make("div", { class: "details" },
    make("p", { class: "precision" }, precisionText(suggestion.precision)),
    alternatives(suggestion, panel.store.get()),
    suggestion.events.length > 1 && eventChips(panel, suggestion),
    decision.comment && make("p", { class: "comment" }, typed(decision.comment)),
    decision.verdict !== "undecided" && make("p", { class: "by" }, text("decisions.by"), " ", typed(decision.reader ?? "")),
    open && make("div", { class: "verbs" }, [
      verb("confirm", "C", confirm), verb("reject", "X", reject), verb("relabel", "R", relabel), verb("comment", "N", comment),
    ]));
}

/** Return a patch in the colour that the timeline gives to a class. */
export function swatch(label, state) {
  const element = make("span", { class: "swatch", "aria-hidden": "true" });
  element.style.setProperty("--class-colour", `var(--c${labelSlot(state, label)})`);
  return element;
}

/** Return a button of a decision with its key. */
export function verb(name, key, onclick, properties = {}) {
  const element = button("", onclick, { class: `verb ${name}`, data: { act: name }, "aria-keyshortcuts": key, ...properties });
  element.append(text(`verb.${name}`), make("kbd", { "aria-hidden": "true" }, key));
  return element;
}

function alternatives(suggestion, state) {
  const others = (suggestion.alternatives ?? []).slice(0, 3).map((each) => `${labelName(each.label, state)} ${scoreText(each.score)}`);
  return others.length > 0 && make("p", { class: "alternatives" }, text("decisions.alternatives", { list: others.join(", ") }));
}

/** Return the frames of an event, with its class where that is not the suggestion's own. */
function chipText(event, suggestion, state) {
  const frames = eventText(event, state.study);
  return event.label && event.label !== suggestion.label ? text("decisions.event_of", { name: labelName(event.label, state), frames }) : frames;
}

function eventChips(panel, suggestion) {
  const state = panel.store.get();
  return make("ul", { class: "chips", "aria-label": text("decisions.its_events") }, suggestion.events.map((event, n) => make("li", {},
    button(chipText(event, suggestion, state), () => { panel.desk.show(event.peak_index); focusPicture(); }, { data: { act: `event-${n}` } }))));
}

function keepInView(list) {
  list.querySelector("[aria-current]")?.closest("li").scrollIntoView({ block: "nearest" });
}

/**
 * Return the actions. Those by key act on what the reader looks at; those of `clicked` on the target of their button.
 *   by key: confirm, reject, relabelList, comment, undo, next_suggestion, previous_suggestion, show_selected.
 */
function createActions(panel) {
  const { store, desk } = panel;

  function select(suggestion) {
    store.set({ selected: suggestion.id, selectedFinding: null });
    const event = suggestion.events[0];
    if (event) desk.show(event.peak_index ?? event.start_index);
  }

  function move(step) {
    const state = store.get();
    if (isBlind(state)) return say(store, state.reading ? "decisions.hidden" : "decisions.no_way");
    const shown = orderedSuggestions(state);
    if (shown.length === 0) return say(store, emptyKey(state, false));
    const stops = [...shown.map(targetOf), ...ownFindings(state.reading, state.unsaved).map((each) => each.target)];
    const at = stops.indexOf(state.selectedFinding ?? `suggestion:${state.selected}`);
    const next = at < 0 ? (step > 0 ? 0 : shown.length - 1) : at + step;
    if (next < 0) return say(store, "decisions.first");
    if (next >= stops.length) return say(store, "decisions.last");
    return goTo(stops[next]);
  }

  /** Select a target and show its picture. */
  function goTo(target) {
    const state = store.get();
    const found = suggestionOf(target, state);
    if (found) store.set({ selected: found.suggestion.id, selectedFinding: null });
    else if (findingOf(target, state)) store.set({ selectedFinding: target });
    const index = keyFrame(target, store.get());
    if (index !== null) desk.show(index);
  }

  function decide(change, target, stay = false) {
    const before = decisionOn(target, store.get().reading, store.get().unsaved);
    const name = targetName(target, store.get());
    desk.session.decide(target, change);
    focusPicture();
    const state = store.get();
    const line = change.verdict === "removed" ? text("decided.removed", { name }) : decisionLine(target, before, state);
    const moves = state.moveOn && !stay && target.startsWith("suggestion:");
    const next = moves ? nextUndecided(orderedSuggestions(state), state.selected, state.reading, state.unsaved) : null;
    if (next) select(next);
    sayLine(store, moves && !next ? `${line} ${text("decisions.all_decided")}` : line);
  }

  /** Decide by key: on the selected target, if the reader looks at it. */
  function decideByKey(change) {
    const target = targetInSight(panel);
    if (target) decide(change(target), target);
  }

  /** Decide by a button of the target's card. Its picture is shown: what was decided stays on the screen. */
  function decideByClick(change) {
    const target = activeTarget(store);
    if (!target) return;
    const stay = !isOnScreen(panel, target);
    if (stay) goTo(target);
    decide(change(target), target, stay);
  }

  async function relabel(choice, target, isMeant) {
    const label = await namedLabel(choice);
    if (!label || activeTarget(store) !== target || !isMeant()) return;
    const own = suggestionOf(target, store.get())?.suggestion.label === label;
    decide(target.startsWith("finding:") ? { label } : own ? { verdict: "confirmed" } : { verdict: "relabelled", label }, target);
  }

  function relabelList(target, isMeant) {
    if (!target) return null;
    desk.pause();
    return {
      title: text("picker.relabel", { name: targetWords(target, store.get()) }), choices: findingChoices(store.get()),
      onChoose: (choice) => relabel(choice, target, isMeant),
    };
  }

  function openRelabel() {
    const target = activeTarget(store);
    if (target && !isOnScreen(panel, target)) goTo(target);
    const list = relabelList(target, () => true);
    if (list) desk.picker.open(list, true);
  }

  function showSelected() {
    const { selectedFinding, selected, suggestions } = store.get();
    const known = selectedFinding ?? (suggestions.some((each) => each.id === selected) ? `suggestion:${selected}` : null);
    if (isBlind(store.get()) && !selectedFinding) say(store, store.get().reading ? "decisions.hidden" : "decisions.no_way");
    else if (known) goTo(known);
    else say(store, "decisions.select_first");
  }

  const rejection = (target) => ({ verdict: target.startsWith("finding:") ? "removed" : "rejected" });
  const comment = () => activeTarget(store) && openComment(panel, activeTarget(store));
  desk.session.onUndone = (target, before) => {
    const state = store.get();
    goTo(target);
    const index = state.reading?.landmarks?.[target.replace("landmark:", "")]?.index ?? before.key_index;
    if (keyFrame(target, state) === null && Number.isInteger(index)) desk.show(index);
    return sayLine(store, undoneLine(target, before, store.get()));
  };
  return {
    select, goTo, comment,
    confirm: () => (store.get().selectedFinding ? say(store, "findings.are_yours") : decideByKey(() => ({ verdict: "confirmed" }))),
    reject: () => decideByKey(rejection),
    relabelList: () => { const target = targetInSight(panel); return relabelList(target, () => isLookedAt(panel, target)); },
    undo: () => mayChange(store) && desk.session.undo(),
    next_suggestion: () => move(1),
    previous_suggestion: () => move(-1),
    show_selected: showSelected,
    clicked: {
      confirm: () => decideByClick(() => ({ verdict: "confirmed" })), reject: () => decideByClick(rejection),
      relabel: openRelabel, comment,
    },
  };
}

const isOnScreen = ({ desk, store }, target) => desk.panes().some(frameTest(target, store.get()));

/**
 * Return whether the reader looks at a target, and say where he does not: a frame of it is on the screen, and one was
 * there long enough to be seen since it was selected.
 */
function isLookedAt(panel, target) {
  const { store, desk } = panel;
  const state = store.get();
  const isOf = frameTest(target, state);
  const name = targetWords(target, state);
  const panes = desk.panes();
  if (!panes.some(isOf) && !isOf(state.index)) say(store, "decisions.elsewhere", { name, index: count(panes[0] ?? state.index) });
  else if (!panes.some(isOf) || !desk.seen.hasRested(isOf)) say(store, "decisions.too_soon", { name });
  else return true;
  return false;
}

/** Return the target of a decision by key, or null where the reader does not look at it. */
function targetInSight(panel) {
  const target = activeTarget(panel.store);
  return target && isLookedAt(panel, target) ? target : null;
}

/** Return whether the reading can be changed, and tell the reader where it cannot. */
export function mayChange(store) {
  const { reading } = store.get();
  if (!reading) say(store, "reading.none_open");
  else if (reading.state !== "open") say(store, "reading.is_finished");
  else if (!hasReader(reading.id)) say(store, "reading.who_first");
  return reading?.state === "open" && hasReader(reading.id);
}

/** Return the target that a decision is for: the chosen finding or the selected suggestion; or null, and say why. */
function activeTarget(store) {
  const state = store.get();
  if (!mayChange(store)) return null;
  if (state.selectedFinding) return state.selectedFinding;
  if (isBlind(state)) say(store, "decisions.hidden");
  else if (!showsItsResult(state)) say(store, "decisions.loading");
  else if (!state.suggestions.some((each) => each.id === state.selected)) say(store, "decisions.select_first");
  else return `suggestion:${state.selected}`;
  return null;
}

/** Return the classes that a reader can choose: the findings of the model in its order, and words of his own. */
export function findingChoices({ labels }) {
  const known = (labels ?? []).filter((each) => each.role === "finding").map((each) => ({ value: each.key, label: each.name }));
  return [...known, { value: OTHER, key: "w", label: text("picker.other") }];
}

/** Return the class for a choice: words of the reader's own are asked for. Null when he gives up. */
export async function namedLabel(choice) {
  if (choice !== OTHER) return choice;
  const words = make("input", { name: "label", maxlength: 200, required: true, dir: "auto", autocomplete: "off" });
  const dialog = openDialog({
    title: text("picker.other"), name: "other", content: [field(text("picker.other_words"), words)],
    actions: [{ label: text("dialog.cancel") }, {
      label: text("picker.other_take"), kind: "primary",
      run: (close) => {
        if (!words.value.trim()) throw new Error(text("picker.other_none"));
        close(OTHER + words.value.trim());
      },
    }],
  });
  return (await dialog.closed) ?? null;
}

function openComment({ store, desk }, target) {
  const { reading, unsaved } = store.get();
  const decision = findingOf(target, store.get()) ?? decisionOn(target, reading, unsaved);
  const { version = 0, comment = "" } = decision;
  const area = make("textarea", { name: "comment", rows: 5, dir: "auto", maxlength: 4000, "aria-label": text("comment.title") });
  area.value = comment ?? "";
  const dialog = openDialog({
    title: text("comment.of", { name: targetWords(target, store.get()) }), content: [area, make("p", { class: "hint" }, text("comment.hint"))],
    name: "comment", draft: `comment.${reading.id}.${target}`, base: { version, comment: comment ?? "" },
    actions: [{ label: text("dialog.cancel") }, {
      label: text("comment.save"), kind: "primary",
      run: (close) => {
        desk.session.decide(target, { comment: area.value, ...commentBase(dialog.base, target, store.get()) });
        close();
        say(store, "comment.saved", { name: targetName(target, store.get()) });
      },
    }],
  });
}

/**
 * Return the version that a comment rests on where another comment was saved since it was begun: the service refuses it,
 * and the reader chooses. Nothing where the comment on the target is still the one that was shown.
 */
function commentBase({ version, comment }, target, { reading, unsaved }) {
  const now = decisionOn(target, reading, unsaved);
  return (now.comment ?? "") === comment ? {} : { version };
}
