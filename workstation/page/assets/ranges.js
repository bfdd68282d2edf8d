// Sets of frames as ordered, disjoint, half-open ranges [[start, end], ...].

/** Return the position of the first range that ends at or after `index`. */
function find(ranges, index) {
  let low = 0;
  let high = ranges.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ranges[middle][1] < index) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Add [start, end) to `ranges` in place. */
export function addRange(ranges, start, end) {
  if (end <= start) return ranges;
  const first = find(ranges, start);
  let last = first;
  let [from, to] = [start, end];
  while (last < ranges.length && ranges[last][0] <= to) {
    from = Math.min(from, ranges[last][0]);
    to = Math.max(to, ranges[last][1]);
    last += 1;
  }
  ranges.splice(first, last - first, [from, to]);
  return ranges;
}

/** Return whether `index` lies in one of the ranges. */
export function hasFrame(ranges, index) {
  const at = find(ranges, index + 1);
  return at < ranges.length && ranges[at][0] <= index;
}

/** Return a new list: the frames of `left` or `right`. */
export function uniteRanges(left, right) {
  const united = left.map((range) => [...range]);
  for (const [start, end] of right) addRange(united, start, end);
  return united;
}

/** Return a new list: the frames of `left` that are not in `right`. */
export function subtractRanges(left, right) {
  const rest = [];
  for (const [start, end] of left) {
    let from = start;
    for (let at = find(right, start + 1); at < right.length && right[at][0] < end; at += 1) {
      if (right[at][0] > from) rest.push([from, right[at][0]]);
      from = Math.max(from, right[at][1]);
    }
    if (from < end) rest.push([from, end]);
  }
  return rest;
}

/** Return the number of frames. */
export const countFrames = (ranges) => ranges.reduce((sum, [start, end]) => sum + end - start, 0);
