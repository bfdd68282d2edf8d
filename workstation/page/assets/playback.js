// When the next frame is due. Every frame is shown: where pictures come more slowly than asked, playback slows down.

import { SEEN_MS } from "./seen.js";

export const RATES = [1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40];
/** Fastest rate at which every frame stays long enough to be seen. */
export const SEEN_RATE = Math.round(1000 / SEEN_MS);
// Times of animation frames are rounded: a step may come this much early in ms without showing a frame too briefly.
const EARLY_MS = 0.4;

/** Return the timing of one playback at `rate` frames a second. */
export function createPace(rate, startMs) {
  const distance = 1000 / rate;
  let due = startMs + distance;
  return {
    /** Return whether the next frame is due at `at`, when the current one has been on the screen since `paintedMs`. */
    isDue(at, paintedMs) {
      // Up to 15 a second each frame gets its whole time on the screen. Faster, the mean rate is kept instead.
      if (rate <= SEEN_RATE) return at - paintedMs >= distance - EARLY_MS;
      return at >= due - EARLY_MS;
    },
    advance(at) {
      due = Math.max(due + distance, at - 2 * distance);
    },
  };
}

/** Return a meter of the frames a second that were really shown, over the last second. */
export function createMeter() {
  let times = [];
  return {
    add(at) {
      times = [...times.filter((time) => at - time <= 1000), at];
    },
    rate: () => (times.length < 3 ? null : ((times.length - 1) * 1000) / (times.at(-1) - times[0])),
    clear: () => { times = []; },
  };
}

/** Return the next rate up (`step` 1) or down (-1). */
export function nextRate(rate, step) {
  const place = RATES.findIndex((each) => each >= rate);
  return RATES[Math.min(RATES.length - 1, Math.max(0, (place < 0 ? RATES.length - 1 : place) + step))];
}
