// Numbers and times as the reader sees them.

import { clock, count, examSeconds } from "./clocks.js";
import { text } from "./texts.js";

export { clock, count };

/** Return a share of 0..1 in whole percent, rounded down, as the report does: a little is "<1 %", never 0 % or 1 %. */
export function percent(share) {
  if (share === null || share === undefined || Number.isNaN(share)) return text("number.none");
  // The small addition takes back what 0.29 * 100 loses in binary numbers.
  const whole = Math.floor(share * 100 + 1e-9);
  return whole === 0 && share > 0 ? text("number.under_one") : `${share < 1 ? Math.min(whole, 99) : whole} %`;
}

/** Return what is left of a share, so that both percentages are 100 together. */
export function percentLeft(share) {
  if (share === null || share === undefined || Number.isNaN(share)) return text("number.none");
  const whole = Math.min(Math.floor(share * 100 + 1e-9), share < 1 ? 99 : 100);
  return whole === 0 && share > 0 ? text("number.all_but") : `${100 - whole} %`;
}

/** Return a measured proportion to the nearest whole percent, as the report does. */
export const rate = (share) => `${Math.round(share * 100)} %`;

/** Return a score of 0..1 with two decimals, never as a percentage: it is no probability. A score below 1 never reads 1.00. */
export const scoreText = (score) => (score < 1 ? Math.min(score, 0.99) : score).toFixed(2);

/** Return a duration as "4 h 20 min", "20 min" or "12 s", to the nearest minute or second, as the report does. */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return text("number.none");
  if (seconds < 59.5) return text("time.seconds", { n: Math.round(seconds) });
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return text("time.minutes", { n: minutes });
  return text("time.hours", { h: Math.floor(minutes / 60), m: String(minutes % 60).padStart(2, "0") });
}

/** Return the exam time of a frame in seconds, or null where the recording does not tell it. */
function examTime(index, study, timeS) {
  const distance = study?.recording?.frame_distance_s;
  return examSeconds(study?.recording, timeS ?? (distance ? index * distance : null));
}

/** Return "frame 1,234" and its exam time where it is known. */
export function frameText(index, study, timeS = null) {
  const seconds = examTime(index, study, timeS);
  const frame = text("number.frame", { index: count(index) });
  return seconds === null ? frame : `${frame}, ${clock(seconds)}`;
}

/** Return the frames of an event. Its `end_index` is its last frame, as in study.json. */
export function eventText({ start_index: first, end_index: last, start_s: timeS }, study) {
  return framesText(first, last, study, timeS);
}

/** Return the frames [start, end) of a finding of the reader's own. */
export function findingText({ start_index: start, end_index: end }, study) {
  return framesText(start, end - 1, study, null);
}

function framesText(first, last, study, timeS) {
  if (last <= first) return frameText(first, study, timeS);
  const seconds = examTime(first, study, timeS);
  const frames = text("number.span", { start: count(first), end: count(last) });
  return seconds === null ? frames : `${frames}, ${clock(seconds)}`;
}

/** Return how often suggestions with such a score were right, with its interval and sample. */
export function precisionText(precision) {
  if (!precision) return text("precision.none");
  const { estimate, low, high, n } = precision;
  return text("precision.measured", { estimate: rate(estimate), low: rate(low), high: rate(high), n: count(n) });
}

/** Return a point in time as date and time of this computer. */
export function moment(iso) {
  const date = new Date(iso);
  return Number.isNaN(date.getTime()) ? "" : date.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}

export function bytes(number) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = number;
  let unit = 0;
  for (; value >= 1000 && unit < units.length - 1; unit += 1) value /= 1000;
  return `${unit && value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}
