// One pane: a frame, its index and clocks, and in place of a frame that has no picture a plain note that says why.

import { clock, count, examText } from "./clocks.js";
import { make } from "./elements.js";
import { text } from "./texts.js";

const SVG = "http://www.w3.org/2000/svg";

function failureText(failure) {
  if (failure.code === "frame_missing") return text("frame.missing");
  if (failure.code === "frame_corrupt") return text(failure.detail === "depends_on_damaged" ? "frame.depends" : "frame.corrupt");
  return [failure.message, failure.hint].filter(Boolean).join(". ");
}

function setHidden(element, hidden) {
  if (element.hidden !== hidden) element.hidden = hidden;
}

/** Return a pane: {element, draw(entry, facts), name(facts), contour(path, size, label), shown()}. */
export function createPane() {
  const canvas = make("canvas", { class: "picture", role: "img", width: 336, height: 336 });
  const outline = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  outline.setAttribute("class", "contour");
  outline.setAttribute("aria-hidden", "true");
  outline.append(path);
  const note = make("p", { class: "no-picture", hidden: true });
  const wait = make("p", { class: "waiting", hidden: true });
  const caption = {
    index: make("b", {}), exam: make("span", {}), playback: make("span", {}), mark: make("span", { class: "mark" }),
  };
  const element = make("figure", { class: "pane" },
    make("div", { class: "glass" }, canvas, outline, note, wait),
    make("figcaption", {}, make("div", { class: "caption" }, caption.index, caption.exam, caption.playback, caption.mark)));
  const context = canvas.getContext("2d", { alpha: false });
  let current = null;

  function drawPicture({ bitmap }) {
    if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
      canvas.width = bitmap.width;
      canvas.height = bitmap.height;
    }
    context.drawImage(bitmap, 0, 0);
  }

  /** Draw a frame and its caption together. `facts` has recording, frames and seen. */
  function draw(entry, { recording, frames, seen }) {
    current = entry;
    setHidden(canvas, !entry.bitmap);
    setHidden(note, Boolean(entry.bitmap));
    setHidden(wait, true);
    contour(null);
    if (entry.bitmap) drawPicture(entry);
    else note.textContent = text("frame.none", { index: count(entry.index), why: failureText(entry.failure) });
    name({ recording, frames });
    mark(seen);
  }

  /** Name the frame that is on the screen. Its clocks can become known while it is shown. */
  function name({ recording, frames }) {
    if (!current) return;
    const exam = examText(recording, current.time_s);
    caption.index.textContent = text("caption.index", { index: count(current.index), last: count(frames - 1) });
    caption.exam.textContent = exam;
    caption.playback.textContent = text("caption.playback", { time: clock(current.time_s, 3) });
    canvas.setAttribute("aria-label", text("frame.name", { index: count(current.index), exam }));
  }

  function mark(seen) {
    if (element.dataset.seen === String(seen)) return;
    element.dataset.seen = String(seen);
    caption.mark.textContent = seen === null ? "" : text(seen ? "caption.seen" : "caption.unseen");
  }

  /** Show that frame `index` is on its way. The caption stays with the picture that is on the screen. */
  function waitFor(index) {
    wait.textContent = text("frame.loading", { index: count(index) });
    wait.hidden = false;
  }

  /** Draw an outline: an SVG path in pixels of the frame, or nothing for null. */
  function contour(data, { width, height } = {}) {
    // Writing what is there already would lay out the page again with every frame.
    if ((data ?? "") === (path.getAttribute("d") ?? "")) return;
    path.setAttribute("d", data ?? "");
    if (data) outline.setAttribute("viewBox", `0 0 ${width} ${height}`);
    outline.classList.toggle("on", Boolean(data));
  }

  function clear() {
    current = null;
    canvas.hidden = true;
    note.hidden = wait.hidden = true;
    contour(null);
    for (const part of Object.values(caption)) part.textContent = "";
  }

  clear();
  return { element, draw, name, mark, waitFor, contour, clear, shown: () => current };
}
