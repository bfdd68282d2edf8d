// The one store of the page: a flat record that calls its subscribers when keys of it change.
//
// Keys: session, view ("studies" | "reading" | "report" | "closed"), studyId, study, suggestions, partial, timeline,
// resultId (of what suggestions and timeline show), limits (of that result: {result_id, not_new, blind_spots}),
// looking (the reader asked for the suggestions without a reading), reading, coverage {seen, skimmed} (ranges of frames, the page's own additions included), index (current frame),
// shown {index, time_s, failure} (what is on the screen), playing {direction, rate} | null, rate (frames a second),
// selected (suggestion id | null), hovered (frame | null), dual, connected, message, theme, lettersOn.

/** Return a store of `initial`. Subscribers run once for each `set`, after all of its keys have changed. */
export function createStore(initial) {
  let state = { ...initial };
  const subscribers = new Set();

  function set(patch) {
    const changed = Object.keys(patch).filter((key) => !Object.is(state[key], patch[key]));
    if (changed.length === 0) return;
    state = { ...state, ...patch };
    for (const subscriber of [...subscribers]) {
      if (subscriber.keys && !changed.some((key) => subscriber.keys.includes(key))) continue;
      // A fault in one part of the page is reported and must not keep the others from the change.
      try {
        subscriber.call(state, changed);
      } catch (error) {
        reportError(error);
      }
    }
  }

  /** Call `call(state, changedKeys)` when one of `keys` changes (any key without `keys`). Return the unsubscribing function. */
  function subscribe(call, keys) {
    const subscriber = { call, keys };
    subscribers.add(subscriber);
    return () => subscribers.delete(subscriber);
  }

  return { get: () => state, set, subscribe };
}

export const INITIAL = Object.freeze({
  session: null, view: "studies", studyId: null, study: null, suggestions: [], partial: false, timeline: null, resultId: null, limits: null, looking: false,
  reading: null, coverage: { seen: [], skimmed: [] }, index: 0, shown: null, playing: null, rate: 8, selected: null,
  hovered: null, dual: false, connected: true, message: null, theme: "dark", lettersOn: true,
});

/**
 * Return whether suggestions and all that comes from the model must not be shown now: in the first pass of
 * `hidden_first`, and before a way to read is chosen, unless the reader asked to look without a reading.
 */
export function isBlind({ reading, looking }) {
  if (!reading) return !looking;
  return reading.way === "hidden_first" && reading.pass === "first" && reading.state !== "finished";
}
