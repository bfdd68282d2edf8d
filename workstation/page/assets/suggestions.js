// Suggestions as the picture and the timeline need them: their order, their peaks and the suggestion nearest a frame.

/** Return the frame at which a suggestion is clearest: the peak of its first event. */
export const peakOf = (suggestion) => suggestion.events[0]?.peak_index ?? 0;

// In study.json and in the suggestions, `end_index` of an event is its last frame. On the timeline, ranges are half-open.

/** Return the number of frames between frame `index` and an event; 0 within it. */
const distanceTo = ({ start_index: first, end_index: last }, index) => Math.max(first - index, 0, index - last);

/** Return the event of a suggestion that is nearest to frame `index`. */
export function nearestEvent(suggestion, index) {
  const distance = (event) => distanceTo(event, index);
  return suggestion.events.reduce((best, event) => (best && distance(best) <= distance(event) ? best : event), null);
}

/** Return the suggestion that covers frame `index`, else the nearest one: {suggestion, distance} or null. */
export function nearestSuggestion(suggestions, index) {
  let best = null;
  for (const suggestion of suggestions) {
    for (const event of suggestion.events) {
      const distance = distanceTo(event, index);
      if (!best || distance < best.distance) best = { suggestion, distance };
    }
  }
  return best;
}

/** Return the labels of all suggestions with their events in time, half-open, in the order of the best suggestion of each. */
export function groupByLabel(suggestions, verdictOf = () => null) {
  const groups = new Map();
  for (const suggestion of suggestions) {
    if (!groups.has(suggestion.label)) groups.set(suggestion.label, { label: suggestion.label, name: suggestion.name ?? suggestion.label, events: [] });
    for (const event of suggestion.events) groups.get(suggestion.label).events.push({ ...event, end_index: event.end_index + 1, suggestion: suggestion.id, verdict: verdictOf(suggestion) });
  }
  for (const group of groups.values()) group.events.sort((left, right) => left.start_index - right.start_index);
  return [...groups.values()];
}

/** Return the slot 0..11 of a label's colour: its place among the labels of the model, so that it never changes. */
export function labelSlot({ timeline, suggestions }, label) {
  const labels = Object.keys(timeline?.labels ?? {});
  const known = labels.length ? labels : [...new Set(suggestions.map((suggestion) => suggestion.label))].sort();
  const place = known.indexOf(label);
  return (place < 0 ? known.length : place) % 12;
}
