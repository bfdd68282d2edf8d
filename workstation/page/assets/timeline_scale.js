// The scale of the timeline: frames to pixels and back, zoom, and the marks of its clock. Pure functions.

/** Fewest frames that the timeline may show. */
export const FEWEST = 40;

/** Return the part [from, to) of `frames` after zooming by `factor` (below 1 shows less) around frame `centre`. */
export function zoomView({ from, to }, frames, factor, centre) {
  const span = Math.min(frames, Math.max(Math.min(FEWEST, frames), (to - from) * factor));
  const share = (centre - from) / (to - from);
  return holdView({ from: centre - share * span, to: centre + (1 - share) * span }, frames);
}

/** Return the part moved by `share` of its own span. */
export const panView = ({ from, to }, frames, share) => holdView({ from: from + share * (to - from), to: to + share * (to - from) }, frames);

/** Return the part moved as little as possible so that it lies within the recording. */
export function holdView({ from, to }, frames) {
  const span = Math.min(to - from, frames);
  const start = Math.min(Math.max(0, from), frames - span);
  return { from: start, to: start + span };
}

/** Return the part that shows the frames [start, end) with half as much again on each side. */
export function viewAround(start, end, frames) {
  const span = Math.min(frames, Math.max(FEWEST, 2 * (end - start)));
  const centre = (start + end) / 2;
  return holdView({ from: centre - span / 2, to: centre + span / 2 }, frames);
}

/** Return the part moved on, page by page, so that frame `index` is in it. */
export function follow(view, frames, index) {
  if (index >= view.from && index < view.to) return view;
  const span = view.to - view.from;
  return holdView({ from: index - 0.1 * span, to: index + 0.9 * span }, frames);
}

/**
 * Return the clock of a recording: {timeOf(index), indexOf(seconds)}.
 *
 * `timeline` has bins, frames, duration_s and, where the service sends them, `start_index` and `start_time_s` of each bin;
 * between them the time is interpolated. It is for marks and previews: the frame on the screen brings its own time.
 * `isKnown` is false where no bin has a time: frames are not spaced evenly in time, so none is guessed (times are null).
 */
export function createClock(timeline) {
  const known = timeline?.start_time_s?.map((time, bin) => [timeline.start_index?.[bin] ?? (bin * timeline.frames) / timeline.bins, time]).filter(([, time]) => time !== null);
  if (!known?.length) return { isKnown: false, timeOf: () => null, indexOf: () => null };
  const points = known;
  const end = [timeline?.frames ?? 1, Math.max(timeline?.duration_s ?? 0, points.at(-1)[1])];
  if (end[0] > points.at(-1)[0]) points.push(end);
  const between = (value, key, other) => {
    let [low, high] = [0, points.length - 1];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (points[middle][key] <= value) low = middle;
      else high = middle;
    }
    const [left, right] = [points[low], points[high]];
    const span = right[key] - left[key];
    return span > 0 ? left[other] + ((value - left[key]) / span) * (right[other] - left[other]) : left[other];
  };
  return { isKnown: true, timeOf: (index) => between(index, 0, 1), indexOf: (seconds) => between(seconds, 1, 0) };
}

/** Return the marks of the frame numbers from `start` to `end`: at most `most`, at round numbers. */
export function frameMarks(start, end, most) {
  const least = Math.max(1, (end - start) / most);
  const power = 10 ** Math.floor(Math.log10(least));
  const step = Math.max(1, [1, 2, 5, 10].find((each) => each * power >= least) * power);
  const marks = [];
  for (let at = Math.ceil(start / step) * step; at <= end; at += step) marks.push(at);
  return marks;
}

const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400];

/** Return the marks of the clock between two times: at most `most`, at round times. */
export function clockMarks(start, end, most) {
  const step = STEPS.find((each) => (end - start) / each <= most) ?? STEPS.at(-1);
  const marks = [];
  for (let at = Math.ceil(start / step - 1e-9); at * step <= end; at += 1) marks.push(at * step);
  return { step, marks };
}
