// The reading itself: who reads and in which way, how far it has come, and its end, which is an act of its own.

import { focusPicture, openDialog } from "./dialog.js";
import { button, field, make, showOnce, typed } from "./elements.js";
import { mayChange, verb } from "./decisions.js";
import { runAction } from "./keys.js";
import { say, sayError } from "./messages.js";
import { actAs, hasReader, readerName, readerOf } from "./readers.js";
import { isBlind } from "./state.js";
import { text } from "./texts.js";
import { UNDECIDED, decisionOn, targetOf } from "./verdicts.js";
import { count, duration, moment, percent, percentLeft } from "./wording.js";

export { keepReaderName, readerName } from "./readers.js";
/** The second pass is offered with emphasis when this share of the recording was seen in the first. */
const NEARLY_OVER = 0.9;
export const WAYS = ["suggestions_first", "everything", "hidden_first"];

/** Ask who reads and how, or which reading goes on. Return the reading, or null when the reader gives up. */
export async function chooseReading(store, api, study) {
  const open = study.readings.filter((each) => each.state === "open");
  const name = make("input", { name: "reader", required: true, maxlength: 200, autocomplete: "name", dir: "auto", value: readerName() });
  const ways = make("fieldset", {}, make("legend", {}, text("way.question")), WAYS.map((way) => wayChoice(way)));
  const begin = async (close) => {
    const reader = typedName(name);
    const way = ways.querySelector("input:checked").value;
    const reading = await api.send("POST", `studies/${study.id}/readings`, { reader, way });
    actAs(reading.id, reader);
    close(reading);
  };
  // A finished reading can be looked at by anyone. Whoever goes on with an open one acts under a name of his own.
  const resume = (reading) => dialog.attempt((close) => {
    if (reading.state === "open") actAs(reading.id, typedName(name));
    close(reading);
  });
  const dialog = openDialog({
    title: text("reading.choose"), name: "reading",
    content: [
      field(text("reading.reader"), name, text("reading.reader_hint")),
      study.readings.length > 0 && earlier(study.readings, resume),
      make("h3", {}, text(open.length ? "reading.new_instead" : "reading.new")), ways,
    ],
    actions: [{ label: text("dialog.cancel") }, { label: text("reading.begin"), kind: study.readings.length ? "second" : "primary", run: begin }],
  });
  const chosen = await dialog.closed;
  return chosen ?? null;
}

function typedName(input) {
  const name = input.value.trim();
  if (!name) throw new Error(text("reading.no_name"));
  return name;
}

/** Ask who acts in a reading that this tab has only looked at so far. Return whether a name was given. */
async function askReader(reading) {
  if (hasReader(reading.id)) return true;
  const name = make("input", { name: "reader", required: true, maxlength: 200, autocomplete: "name", dir: "auto", value: readerName() });
  const dialog = openDialog({
    title: text("reading.who"), name: "reader", content: [field(text("reading.reader"), name, text("reading.reader_hint"))],
    actions: [{ label: text("dialog.cancel") }, {
      label: text("reading.go_on"), kind: "primary",
      run: (close) => { actAs(reading.id, typedName(name)); close(true); },
    }],
  });
  return (await dialog.closed) === true;
}

function wayChoice(way) {
  const radio = make("input", { type: "radio", name: "way", value: way, checked: way === WAYS[0] });
  return make("label", { class: "way" }, radio, make("span", {}, make("strong", {}, text(`way.${way}`)), make("small", {}, text(`way.${way}.meaning`))));
}

/** Return the list of the earlier readings. The newest open one, else the newest of all, is what Enter chooses. */
function earlier(readings, choose) {
  const newest = readings.findLast((each) => each.state === "open") ?? readings.at(-1);
  return make("div", { class: "earlier" }, make("h3", {}, text("reading.earlier")),
    make("ul", {}, readings.toReversed().map((each) => earlierItem(each, () => choose(each), each === newest))));
}

function earlierItem(reading, choose, isMain) {
  const open = reading.state === "open";
  const properties = { class: isMain ? "primary" : "plain", type: isMain ? "submit" : "button", data: { act: "resume" } };
  const enter = make("button", properties, text(open ? "reading.resume" : "reading.look"));
  // A dialog starts what belongs to its submit button, also when Enter is pressed in a field.
  if (isMain) enter.startAction = choose;
  else enter.addEventListener("click", choose);
  const facts = [text(open ? "reading.open" : "reading.finished"), text(`way.${reading.way}`), moment(reading.opened_at)];
  return make("li", {}, make("span", {}, typed(reading.reader), " · ", facts.join(" · ")), enter);
}

/** Show the head of the panel in `root`: progress, way and the buttons that belong to the reading as a whole. */
export function createReadingHead(root, store, desk) {
  const draw = () => {
    const { reading, suggestions, unsaved } = store.get();
    root.hidden = !reading;
    if (!reading) return;
    const mark = JSON.stringify([reading.state, reading.way, reading.pass, reading.readers, readerOf(reading), progressLine(reading, suggestions), waiting(unsaved, reading)]);
    showOnce(root, mark, () => headOf(store, desk));
  };
  store.subscribe(draw, ["reading", "suggestions", "unsaved"]);
  draw();
}

const waiting = (unsaved, reading) => unsaved.filter((action) => action.readingId === reading.id).length;

/** Return "17 of 60 decided, 96 % of the small bowel seen, 14 min", of what the service has acknowledged. */
export function progressLine(reading) {
  const { suggestions, decided, seen_share: seen, seen_share_small_bowel: bowel, seconds } = reading.progress;
  const decidedText = suggestions === null ? "" : text("progress.decided", { decided, suggestions });
  const whole = bowel === null || bowel === undefined;
  const seenText = whole ? text("progress.seen", { share: percent(seen) }) : text("progress.seen_bowel", { share: percent(bowel) });
  return [decidedText, seenText, text("progress.time", { time: duration(seconds) })].filter(Boolean).join(", ");
}

function headOf(store, desk) {
  const { reading, unsaved } = store.get();
  const open = reading.state === "open";
  const acts = open && hasReader(reading.id);
  const left = waiting(unsaved, reading);
  return [
    make("p", { class: "progress" }, progressLine(reading)),
    left > 0 && make("p", { class: "hint" }, text("progress.saving", { count: left })),
    make("p", { class: "who" }, whoReads(reading), " · ", text(`way.${reading.way}`), open ? "" : ` · ${text("reading.finished")}`),
    make("div", { class: "verbs" },
      open && !acts && button(text("reading.resume"), () => goOn(store), { class: "primary", data: { act: "go-on" } }),
      acts && isBlind(store.get()) && button(text("reading.second_pass"), () => secondPass(store, desk), { class: reading.progress.seen_share >= NEARLY_OVER ? "primary" : "plain", data: { act: "second" } }),
      acts && !isBlind(store.get()) && button(text("reading.change_way"), () => changeWay(store, desk), { data: { act: "way" } }),
      acts && verb("undo", "U", () => runAction("undo")),
      acts && button(text("reading.finish_short"), () => finishReading(store, desk), { data: { act: "finish" } }),
      !open && button(text("reading.reopen"), () => reopen(store, desk), { data: { act: "reopen" } }),
      button(text("reading.report"), desk.openReport, { data: { act: "report" } })),
  ];
}

/** Return the names of all who acted in a reading, and of the person who goes on with it now. */
function whoReads(reading) {
  const now = hasReader(reading.id) ? [readerOf(reading)] : [];
  const names = [...new Set([...(reading.readers ?? [reading.reader]), ...now])];
  return names.flatMap((name, n) => [n > 0 && ", ", typed(name)]).filter(Boolean);
}

/** Ask who goes on with a reading that another window has opened again. */
async function goOn(store) {
  const { reading } = store.get();
  if ((await askReader(reading)) && isShown(store, reading)) store.set({ reading: { ...store.get().reading } });
}

async function reopen(store, desk) {
  const { reading } = store.get();
  if (!(await askReader(reading))) return;
  try {
    await apply(desk, reading, "POST", "/reopen", {});
  } catch (error) {
    sayError(store, error);
  }
}

/** Return whether the page still shows a reading: while its dialog was open, another one may have been opened. */
const isShown = (store, reading) => store.get().reading?.id === reading.id;

/** Change the reading that the reader was asked about. */
async function apply(desk, reading, method, path, body) {
  const answer = await desk.api.send(method, `readings/${reading.id}${path}`, { ...body, reader: readerOf(reading) });
  if (answer?.decisions) desk.session.show(answer);
  else await desk.session.refresh();
}

async function secondPass(store, desk) {
  const { reading } = store.get();
  const dialog = openDialog({
    title: text("reading.second_pass"), name: "second-pass",
    content: [make("p", {}, text("reading.second_pass_meaning", { share: percent(reading.progress.seen_share) }))],
    actions: [{ label: text("dialog.cancel") }, {
      label: text("reading.second_pass_begin"), kind: "primary",
      run: async (close) => { await apply(desk, reading, "PATCH", "", { pass: "second" }); close(true); },
    }],
  });
  if (await dialog.closed) focusPicture();
}

function changeWay(store, desk) {
  const { reading } = store.get();
  const ways = make("fieldset", {}, make("legend", {}, text("way.question")),
    WAYS.filter((way) => way !== "hidden_first" || reading.way === way).map(wayChoice));
  for (const radio of ways.querySelectorAll("input")) radio.checked = radio.value === reading.way;
  openDialog({
    title: text("reading.change_way"), name: "way", content: [ways],
    actions: [{ label: text("dialog.cancel") }, {
      label: text("way.save"), kind: "primary",
      run: async (close) => { await apply(desk, reading, "PATCH", "", { way: ways.querySelector("input:checked").value }); close(); },
    }],
  });
}

/** Return the suggestions without an acknowledged decision. */
function undecided({ suggestions, reading }) {
  return suggestions.filter((each) => decisionOn(targetOf(each), reading).verdict === UNDECIDED);
}

/** Ask before the reading ends, and say what is left: suggestions, unseen frames and what is not saved. */
export async function finishReading(store, desk) {
  if (!mayChange(store)) return;
  const { reading } = store.get();
  // The figures of the dialog and of the report include the frames that were seen just now.
  await desk.seen.flush();
  await desk.session.refresh();
  if (!isShown(store, reading)) return;
  const state = store.get();
  const { progress } = state.reading;
  const left = waiting(state.unsaved, state.reading);
  const open = Math.max(0, progress.suggestions - progress.decided);
  const lines = [
    progress.suggestions === null ? text("finish.hidden") : text("finish.suggestions", { open: count(open), all: count(progress.suggestions) }),
    text("finish.unseen", { share: percentLeft(progress.seen_share) }),
    typeof progress.seen_share_small_bowel === "number" && text("finish.unseen_bowel", { share: percentLeft(progress.seen_share_small_bowel) }),
    left > 0 && text("finish.unsaved", { count: left }), text("finish.meaning"),
  ].filter(Boolean);
  const dialog = openDialog({
    title: text("finish.title"), name: "finish", content: lines.map((line) => make("p", {}, line)),
    actions: [{ label: text("finish.go_on") }, {
      label: text("reading.finish"), kind: "primary",
      run: async (close) => {
        if (waiting(store.get().unsaved, reading)) throw new Error(text("finish.unsaved_refused"));
        // A finished reading takes no more frames: those seen last must be stored before.
        if (!(await desk.seen.flush())) throw new Error(text("finish.unsent_refused"));
        await apply(desk, reading, "POST", "/finish", {});
        close(true);
      },
    }],
  });
  if (await dialog.closed) {
    say(store, "finish.done");
    if (isShown(store, reading)) desk.openReport();
  } else focusPicture();
}

/** Show in `root` what is left when the list ends: the way back to the full recording. */
export function createAfterLast(root, store, desk) {
  let first = 0;
  const decided = make("p", { hidden: true });
  const seen = make("p", {});
  const go = button("", () => { desk.show(first); focusPicture(); }, { class: "plain", data: { act: "unseen" } });
  root.append(make("h3", {}, text("after.title")), decided, seen, go, make("p", { class: "hint" }, text("after.not_the_end")));

  // Coverage changes four times a second during playback: only what reads otherwise is written.
  const draw = () => {
    const state = store.get();
    const { reading, study, suggestions } = state;
    const frames = study?.recording?.frames ?? 0;
    write(root, "hidden", !reading || reading.state !== "open" || frames === 0);
    if (root.hidden) return;
    const gaps = unseen(state.coverage?.seen ?? reading.coverage.seen, frames);
    const left = isBlind(state) || suggestions.length === 0 ? null : undecided(state).length;
    first = gaps[0]?.[0] ?? 0;
    write(decided, "hidden", left === null);
    write(decided, "textContent", decidedLine(left, suggestions.length));
    write(seen, "textContent", seenLine(gaps, frames));
    write(go, "hidden", gaps.length === 0);
    write(go, "textContent", text("after.go_on", { index: count(first) }));
    write(go, "className", left === 0 ? "primary" : "plain");
  };
  store.subscribe(draw, ["reading", "suggestions", "coverage", "study", "looking"]);
  draw();
}

/** Set a property of an element unless it has the value: each write makes the browser lay out the page again. */
function write(element, name, value) {
  if (element[name] !== value) element[name] = value;
}

function decidedLine(left, all) {
  if (left === null) return "";
  return left === 0 ? text("after.all_decided", { all: count(all) }) : text("after.left", { left: count(left) });
}

function seenLine(gaps, frames) {
  const missing = gaps.reduce((sum, [start, end]) => sum + end - start, 0);
  return missing === 0 ? text("after.all_seen") : text("after.unseen", { frames: count(missing), share: percentLeft((frames - missing) / frames) });
}

/** Return the half-open ranges of [0, frames) that `seen` leaves out. */
export function unseen(seen, frames) {
  const gaps = [];
  let at = 0;
  for (const [start, end] of seen) {
    if (start > at) gaps.push([at, start]);
    at = Math.max(at, end);
  }
  if (at < frames) gaps.push([at, frames]);
  return gaps;
}
