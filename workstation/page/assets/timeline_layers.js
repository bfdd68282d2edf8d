// The drawing of the timeline. Each row has a function that draws it for a part of the recording; the rows that change
// seldom are drawn once into a canvas off the screen.

import { clock, count } from "./clocks.js";
import { clockMarks, frameMarks } from "./timeline_scale.js";

/** Narrowest mark in pixels: a finding of one frame among 57,600 must not vanish. */
export const NARROWEST = 3;
/** The statuses of frames without a picture, in the order in which they are drawn. */
export const WITHOUT_PICTURE = ["skipped", "unread", "corrupt", "missing"];

/** Return the colours of the theme, read once for each theme. */
export function readColours(root) {
  const style = getComputedStyle(root);
  const names = ["ink", "muted", "line", "raised", "panel", "paper", "accent", "focus", "seen", "skimmed", "corrupt", "missing", "skipped", "unread", "unfamiliar", "stomach", "small-bowel", "colon", ...Array.from({ length: 12 }, (_, slot) => `c${slot}`)];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

/** Return the colour bar as a picture of one pixel a bin. Bins without a picture stay transparent. */
export function colourStrip(colours) {
  const canvas = new OffscreenCanvas(Math.max(1, colours.length), 1);
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, 1);
  colours.forEach((colour, bin) => colour && pixels.data.set([...colour, 255], 4 * bin));
  context.putImageData(pixels, 0, 0);
  return canvas;
}

const atX = ({ from, to, width }, frame) => ((frame - from) / (to - from)) * width;

/** Fill the frames [start, end) of a row, at least NARROWEST wide. */
function fillFrames(context, scale, { top, height }, start, end) {
  if (end <= scale.from || start >= scale.to) return;
  const [left, right] = [atX(scale, start), atX(scale, end)];
  const wide = Math.max(NARROWEST, right - left);
  context.fillRect(right - left < NARROWEST ? (left + right - wide) / 2 : left, top, wide, height);
}

function drawColours(context, scale, row, { strip, frames, colours }) {
  const bins = strip.width;
  context.fillStyle = colours.raised;
  context.fillRect(0, row.top, scale.width, row.height);
  // A browser blurs what it enlarges, and a blurred bar would show colours that no frame has.
  context.imageSmoothingEnabled = bins > scale.width * (frames / (scale.to - scale.from));
  const [first, last] = [(scale.from / frames) * bins, (scale.to / frames) * bins];
  context.drawImage(strip, first, 0, last - first, 1, 0, row.top, scale.width, row.height);
}

/** Return the marks of the axis: {index, words}. They name times where those are known, and frame numbers otherwise. */
function axisMarks({ from, to, width }, { clockOf, examScale }) {
  const most = Math.max(2, width / 90);
  if (!clockOf.isKnown) return frameMarks(from, to, most).map((index) => ({ index, words: count(index) }));
  const { step, marks } = clockMarks(clockOf.timeOf(from) * examScale, clockOf.timeOf(to) * examScale, most);
  return marks.map((mark) => ({ index: clockOf.indexOf(mark / examScale), words: clock(mark, step < 1 ? 1 : 0) }));
}

function drawAxis(context, scale, row, { clockOf, examScale, colours }) {
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "middle";
  let free = -Infinity;
  for (const { index, words } of axisMarks(scale, { clockOf, examScale })) {
    const x = atX(scale, index);
    context.fillStyle = colours.muted;
    context.fillRect(Math.round(x), row.top + row.height - 4, 1, 4);
    const wide = context.measureText(words).width;
    const left = Math.min(Math.max(0, x + 3), scale.width - wide);
    // Where the recording has gaps, marks lie close together: a label that would touch the last one is left out.
    if (left < free) continue;
    context.fillText(words, left, row.top + row.height / 2 - 1);
    free = left + wide + 8;
  }
}

function drawEvents(context, scale, row, { events, colour, colours }) {
  context.fillStyle = colours.line;
  context.fillRect(0, row.top + row.height / 2, scale.width, 1);
  const inner = { top: row.top + 1, height: row.height - 2 };
  for (const { start_index: start, end_index: end, verdict } of events) {
    // A rejected event is faint; a confirmed or relabelled one has a line on top.
    context.globalAlpha = verdict === "rejected" ? 0.3 : 1;
    context.fillStyle = colour;
    fillFrames(context, scale, inner, start, end);
    if (verdict !== "confirmed" && verdict !== "relabelled") continue;
    context.fillStyle = colours.ink;
    fillFrames(context, scale, { top: row.top, height: 2 }, start, end);
  }
}

function drawStatus(context, scale, row, { status, bins, frames, colours, exact }) {
  context.fillStyle = colours.raised;
  context.fillRect(0, row.top, scale.width, row.height);
  // Zoomed in, a bin is wider than the frame that has no picture: the frames themselves are drawn.
  if (exact && exact.from <= scale.from && exact.to >= scale.to) {
    for (const { index, status: name } of exact.lost) {
      context.fillStyle = colours[name];
      fillFrames(context, scale, row, index, index + 1);
    }
    return;
  }
  for (const name of WITHOUT_PICTURE) {
    context.fillStyle = colours[name];
    status[name]?.forEach((number, bin) => number && fillFrames(context, scale, row, (bin * frames) / bins, ((bin + 1) * frames) / bins));
  }
}

function drawUnfamiliar(context, scale, row, { unfamiliar, bins, frames, colours }) {
  context.fillStyle = colours.raised;
  context.fillRect(0, row.top, scale.width, row.height);
  context.fillStyle = colours.unfamiliar;
  unfamiliar.forEach((number, bin) => number && fillFrames(context, scale, row, (bin * frames) / bins, ((bin + 1) * frames) / bins));
}

function drawSegments(context, scale, row, { segments, landmarks, colours }) {
  for (const { name, start, end } of segments) {
    context.fillStyle = colours[name] ?? colours.raised;
    const [left, right] = [Math.max(0, atX(scale, start)), Math.min(scale.width, atX(scale, end))];
    if (right > left) context.fillRect(left, row.top, right - left, row.height);
  }
  context.font = "10.5px system-ui, sans-serif";
  context.textBaseline = "middle";
  let free = 0;
  for (const { index, words } of landmarks) {
    const x = atX(scale, index);
    if (x < 0 || x > scale.width) continue;
    context.fillStyle = colours.ink;
    context.fillRect(Math.round(x), row.top - 2, 2, row.height + 4);
    const wide = context.measureText(words).width;
    const left = x + 5 + wide > scale.width ? x - 4 - wide : x + 5;
    if (left >= free) context.fillText(words, left, row.top + row.height / 2 + 0.5);
    free = Math.max(free, left + wide + 6);
  }
}

/** Draw what was seen (full height) and what was only skimmed (a thin line at the bottom). */
export function drawCoverage(context, scale, row, { coverage, colours }) {
  context.fillStyle = colours.raised;
  context.fillRect(0, row.top, scale.width, row.height);
  context.fillStyle = colours.skimmed;
  for (const [start, end] of coverage.skimmed) fillSpan(context, scale, { top: row.top + row.height - 3, height: 3 }, start, end);
  context.fillStyle = colours.seen;
  for (const [start, end] of coverage.seen) fillSpan(context, scale, row, start, end);
}

/** Fill [start, end) no wider than it is, but for the one pixel a screen can show: coverage must not look larger. */
function fillSpan(context, scale, { top, height }, start, end) {
  if (end <= scale.from || start >= scale.to) return;
  const left = atX(scale, start);
  context.fillRect(left, top, Math.max(0.75, atX(scale, end) - left), height);
}

const DRAW = { axis: drawAxis, colours: drawColours, segments: drawSegments, events: drawEvents, unfamiliar: drawUnfamiliar, status: drawStatus, coverage: drawCoverage };

/** Draw one row. `facts` has what the row's kind needs, and `colours`. */
export function drawRow(context, scale, row, facts) {
  context.save();
  DRAW[row.kind](context, scale, row, { ...facts, ...row.facts });
  context.restore();
}

/** Draw what moves: the frame on the screen, the frame under the pointer, and the events of the selected suggestion. */
export function drawMoving(context, scale, { height, index, hovered, selected, rows, colours }) {
  context.clearRect(0, 0, scale.width, height);
  context.strokeStyle = colours.focus;
  context.lineWidth = 1.5;
  for (const { row, start, end } of selected(rows)) {
    if (end <= scale.from || start >= scale.to) continue;
    const [left, right] = [atX(scale, start), atX(scale, end)];
    context.strokeRect(left - 2, row.top - 0.5, Math.max(NARROWEST, right - left) + 4, row.height + 1);
  }
  const line = (frame, colour, width) => {
    if (frame === null || frame < scale.from || frame >= scale.to) return;
    context.fillStyle = colour;
    context.fillRect(Math.round(atX(scale, frame + 0.5) - width / 2), 0, width, height);
  };
  line(hovered, colours.muted, 1);
  line(index, colours.focus, 2);
}
