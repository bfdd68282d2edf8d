// The frame that a finding or a landmark is set on: the one on the screen when the reader asked for it.
//
// A second key chooses the finding or the landmark. Playback stops at the first one, and the choice counts only while
// the same frame is still on the screen: the reader judges what he sees.

import { count } from "./clocks.js";
import { say } from "./messages.js";

/** Stop playback and return the index of the frame that is held. */
export function holdFrame(store, desk) {
  desk.pause();
  return store.get().index;
}

/** Return whether frame `index` is on the screen, and tell the reader where it is not. */
export function isOnScreen(store, index) {
  const { shown } = store.get();
  const drawn = shown?.index === index && (!shown.failure || shown.failure.lasting);
  if (!drawn) say(store, "frame.not_shown", { index: count(index) });
  return drawn;
}
