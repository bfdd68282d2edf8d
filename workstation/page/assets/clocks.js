// Times of frames. The playback clock is the recording's own time. The exam clock is time in the patient; it is known
// where the service sends `capture_scale`: the recording is in capture time, or the rate of the capsule was given.

import { text } from "./texts.js";

/** Return seconds as "h:mm:ss", with `digits` decimals. */
export function clock(seconds, digits = 0) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return text("clock.unknown");
  const scale = 10 ** digits;
  const whole = Math.floor(seconds * scale + 1e-6);
  const [ticks, fraction] = [Math.floor(whole / scale), whole % scale];
  const pad = (value) => String(value).padStart(2, "0");
  const plain = `${Math.floor(ticks / 3600)}:${pad(Math.floor(ticks / 60) % 60)}:${pad(ticks % 60)}`;
  return digits ? `${plain}.${String(fraction).padStart(digits, "0")}` : plain;
}

/** Return the seconds of the exam clock for a time of the recording, or null where the exam clock is unknown. */
export function examSeconds(recording, timeS) {
  if (!recording || timeS === null || timeS === undefined) return null;
  // The service knows the rule: a given capture rate counts also for a recording in capture time.
  return recording.capture_scale ? timeS * recording.capture_scale : null;
}

/** Return the exam clock of a frame in words: "exam 0:12:30", or that it is unknown. */
export function examText(recording, timeS) {
  const seconds = examSeconds(recording, timeS);
  return seconds === null ? text("caption.exam_unknown") : text("caption.exam", { time: clock(seconds) });
}

// A formatter that is made once: toLocaleString makes one for each call.
const WHOLE = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });

/** Return a whole number with separators, as in "57,600". */
export const count = (value) => WHOLE.format(value);
