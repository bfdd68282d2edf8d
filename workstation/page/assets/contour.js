// The activation contour: a thin line around what the model looked at, drawn only while a key is held.

/**
 * Return the contours of an activation map as the data of an SVG path in pixels of the frame, or "" where there are none.
 *
 * `map` has contours (closed lines of points, 0..1 of the box) and box {left, top, width, height} in pixels of the frame.
 */
export function contourPath({ contours, box }) {
  const point = ([x, y]) => `${(box.left + x * box.width).toFixed(1)} ${(box.top + y * box.height).toFixed(1)}`;
  return contours.filter((line) => line.length > 2).map((line) => `M${line.map(point).join("L")}Z`).join("");
}

/** Return the label of a frame that the model gave it, or null for a frame that it did not classify. */
async function labelOf(api, { studyId, resultId }, index, signal) {
  const result = resultId ? `&result=${resultId}` : "";
  const { rows } = await api.get(`studies/${studyId}/frames?start=${index}&count=1${result}`, { signal });
  return rows[0]?.label || null;
}

/** Return a function that fetches the contour of a frame for a label; the last answers are kept. */
export function createContours(api) {
  const known = new Map();

  /** `label` null means the label that the model gave the frame; `resultId` names the result of the reading. */
  return async function contourOf({ studyId, resultId }, index, label, signal) {
    const key = [studyId, resultId, index, label].join(" ");
    if (!known.has(key)) {
      const meant = label ?? (await labelOf(api, { studyId, resultId }, index, signal));
      if (!meant) return "";
      const query = new URLSearchParams({ label: meant, ...(resultId ? { result: resultId } : {}) });
      const map = await api.get(`studies/${studyId}/frames/${index}/map?${query}`, { signal });
      if (known.size >= 64) known.delete(known.keys().next().value);
      known.set(key, contourPath(map));
    }
    return known.get(key);
  };
}
