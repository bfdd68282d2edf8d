// The part of the recording from view.from to view.to (shares of its length) fills the width of the lanes. The timeline has
// two pieces, which always show the same part: the colours, pinned to the top of the page, and the lanes of the findings.
const timeline = (() => {
  const root = byId("timeline");
  const pieces = all(".timeline");
  const within = (selector) => pieces.flatMap((piece) => all(selector, piece));
  const total = Number(root.dataset.total);
  const gap = Number(root.dataset.gap);
  const fine = root.dataset.tenths === "1";
  // Milliseconds of each frame that has a time. More than 49.7 days of them do not fit in 32 bits.
  const times = decode(root.dataset.times, root.dataset.wide ? Float64Array : Uint32Array);
  const spans = within("[data-from]");
  const pictures = within("svg.zoomed");
  const curves = within(".curve").map((group) => ({
    group, path: group.querySelector("path"), box: group.querySelector("svg"), whole: group.querySelector("path").getAttribute("d"),
    levels: null,
  }));
  const axes = within(".axis").map((axis) => ({ axis, whole: [...axis.childNodes] }));
  const heads = within(".playhead.at");
  const hovers = within(".playhead.hover");
  const marks = within(".marks .mark");
  const pan = byId("pan");
  const hint = byId("readout").textContent;
  const NONE = 255;
  // Twenty usual frames are the least that fills the width.
  const least = clamp(20 / Math.max(times.length, 1), 1e-6, 1);
  const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
  const view = { from: 0, to: 1 };
  let mark = null;
  let waiting = false;

  const width = () => view.to - view.from;
  const place = (share) => (share - view.from) / width();
  const isWhole = () => width() > 0.9999;

  function drawSpans() {
    for (const element of spans) {
      const from = place(Number(element.dataset.from));
      const to = place(Number(element.dataset.to));
      const out = to < 0 || from > 1;
      element.classList.toggle("out", out);
      if (out) continue;
      const left = clamp(from, -0.01, 1.01);
      element.setAttribute("x", `${100 * left}%`);
      element.setAttribute("width", `${Math.max(100 * (clamp(to, -0.01, 1.01) - left), 0)}%`);
    }
    pictures.forEach((picture) => picture.setAttribute("viewBox", `${view.from} 0 ${width()} 1`));
  }

  function drawAxis({ axis, whole }) {
    if (isWhole()) { axis.replaceChildren(...whole); return; }
    const shown = total * width();
    const step = STEPS.find((size) => shown / size <= 8) || shown / 8;
    axis.replaceChildren();
    const add = (parent, name, attributes, text) => {
      const element = document.createElementNS(axis.namespaceURI, name);
      Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
      if (text) element.textContent = text;
      parent.append(element);
      return element;
    };
    for (let n = Math.ceil(total * view.from / step); n * step <= total * (view.from + 0.95 * width()); n += 1) {
      const x = `${100 * place(n * step / total)}%`;
      const group = add(axis, "g", n % 2 ? { class: "odd" } : {});
      add(group, "line", { x1: x, x2: x, y1: 0, y2: 5 });
      add(group, "text", { x, y: 17 }, clock(n * step, step < 1));
    }
  }

  // First frame at or after a time in milliseconds.
  function frameAt(ms) {
    let low = 0;
    let high = times.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (times[middle] < ms) low = middle + 1; else high = middle;
    }
    return low;
  }

  function drawCurve(curve) {
    const { group, path, box } = curve;
    if (isWhole()) {
      box.setAttribute("viewBox", "0 0 2000 100");
      path.setAttribute("d", curve.whole);
      return;
    }
    curve.levels ??= decode(group.dataset.levels, Uint8Array);
    const from = 1000 * total * view.from;
    const length = 1000 * total * width();
    const first = Math.max(frameAt(from) - 1, 0);
    const after = Math.min(frameAt(from + length) + 1, times.length);
    const step = Math.max(1, Math.ceil((after - first) / 1000));
    const x = (frame) => (1000 * (times[frame] - from) / length).toFixed(2);
    let drawn = "";
    let last = -1; // the frame before, -1 at the start of a piece
    for (let begin = first; begin < after;) {
      let end = begin; // frames of one point: no peak is lost, and none reaches across a gap
      let best = -1;
      while (end < after && end - begin < step) {
        if (end > begin && times[end] - times[end - 1] > 1000 * gap) break;
        if (curve.levels[end] !== NONE) best = Math.max(best, curve.levels[end]);
        end += 1;
      }
      if (last >= 0 && times[begin] - times[last] > 1000 * gap) { drawn += ` ${x(last)},100`; last = -1; }
      if (best >= 0) {
        const y = (100 - 100 * best / 254).toFixed(1);
        drawn += last < 0 ? `M${x(begin)},100L${x(begin)},${y}` : ` ${x(begin)},${y}`;
        last = end - 1;
      }
      begin = end;
    }
    if (last >= 0) drawn += ` ${x(last)},100`;
    box.setAttribute("viewBox", "0 0 1000 100");
    path.setAttribute("d", drawn);
  }

  function drawMark() {
    const at = mark === null ? -1 : place(mark);
    for (const head of heads) {
      head.classList.toggle("on", at >= 0 && at <= 1);
      head.style.setProperty("--at", at);
    }
  }

  function draw() {
    waiting = false;
    drawSpans();
    axes.forEach(drawAxis);
    curves.filter((curve) => curve.group.classList.contains("on")).forEach(drawCurve);
    drawMark();
    pieces.forEach((piece) => piece.classList.toggle("part", !isWhole()));
    byId("window").textContent = `${clock(total * view.from, fine)} to ${clock(total * view.to, fine)}`;
    byId("zoom-all").disabled = byId("zoom-out").disabled = isWhole();
    byId("zoom-in").disabled = width() <= least * 1.0001;
    pan.disabled = isWhole();
    pan.value = isWhole() ? 0 : 1000 * view.from / (1 - width());
    pan.setAttribute("aria-valuetext", byId("window").textContent);
  }

  function show(from, to) {
    const span = clamp(to - from, least, 1);
    view.from = clamp(from, 0, 1 - span);
    view.to = view.from + span;
    if (!waiting) { waiting = true; requestAnimationFrame(draw); }
  }

  // Zoom by a factor around a share of the recording: what is there stays where it is.
  function zoom(factor, about) {
    const span = clamp(width() * factor, least, 1);
    const centre = about ?? (mark !== null && mark >= view.from && mark <= view.to ? mark : view.from + width() / 2);
    show(centre - (centre - view.from) / width() * span, centre + (view.to - centre) / width() * span);
  }

  // The box that the time fills in a piece of the timeline.
  function lanes(piece) {
    return piece.querySelector(".axis").getBoundingClientRect();
  }

  function shareAt(event) {
    const box = lanes(event.currentTarget);
    return view.from + width() * (event.clientX - box.left) / box.width;
  }

  function hover(event) {
    const share = shareAt(event);
    const inside = share >= view.from && share <= view.to && times.length > 0;
    hovers.forEach((line) => line.classList.toggle("on", inside));
    byId("readout").textContent = hint;
    if (!inside) return;
    hovers.forEach((line) => line.style.setProperty("--at", place(share)));
    const ms = 1000 * total * share;
    let frame = Math.min(frameAt(ms), times.length - 1);
    if (frame > 0 && ms - times[frame - 1] < times[frame] - ms) frame -= 1;
    let text = clock(total * share, fine);
    if (Math.abs(times[frame] - ms) <= 1000 * Math.max(gap, total * width() / 500)) {
      const curve = curves.find((entry) => entry.group.classList.contains("on"));
      text += ` · frame ${frame.toLocaleString("en")}`;
      if (curve) {
        curve.levels ??= decode(curve.group.dataset.levels, Uint8Array);
        const level = curve.levels[frame];
        text += level === NONE ? " · no answer" : ` · ${curve.group.dataset.name} ${(level / 254).toFixed(2)}`;
      }
    }
    byId("readout").textContent = text;
  }

  byId("zoom-in").addEventListener("click", () => zoom(0.5));
  byId("zoom-out").addEventListener("click", () => zoom(2));
  byId("zoom-all").addEventListener("click", () => show(0, 1));
  pan.addEventListener("input", () => {
    const from = pan.value / 1000 * (1 - width());
    show(from, from + width());
  });
  // A wheel scrolls the page, as everywhere. It zooms with Ctrl (two fingers on a trackpad), or once the timeline was
  // pressed, until the pointer leaves; sideways it moves. Pressed and drawn, the part that is shown moves along.
  let pressed = false;
  let held = null;
  const inLanes = (event) => { const box = lanes(event.currentTarget); return event.clientX >= box.left && event.clientX <= box.right; };
  for (const piece of pieces) {
    piece.addEventListener("wheel", (event) => {
      if (!inLanes(event)) return;
      if (event.ctrlKey || event.metaKey || (pressed && Math.abs(event.deltaY) > Math.abs(event.deltaX))) {
        event.preventDefault();
        zoom(Math.exp(clamp(event.deltaY, -100, 100) / 250), shareAt(event));
      } else if (!isWhole() && Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        event.preventDefault();
        const by = event.deltaX / lanes(piece).width * width();
        show(view.from + by, view.to + by);
      }
    }, { passive: false });
    piece.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !inLanes(event) || event.target.closest("a, button, .mark")) return;
      pressed = true;
      held = { x: event.clientX, from: view.from };
    });
    piece.addEventListener("pointermove", (event) => {
      if (held && event.buttons && !isWhole()) {
        const from = held.from - (event.clientX - held.x) / lanes(piece).width * width();
        show(from, from + width());
      }
      hover(event);
    });
    piece.addEventListener("pointerup", () => { held = null; });
    piece.addEventListener("pointerleave", () => {
      pressed = false;
      held = null;
      hovers.forEach((line) => line.classList.remove("on"));
      byId("readout").textContent = hint;
    });
    piece.addEventListener("dblclick", (event) => {
      if (event.clientX >= lanes(piece).left) zoom(0.25, shareAt(event));
    });
  }

  return {
    show,
    zoom,
    move: (by) => show(view.from + by * width(), view.to + by * width()),
    // Where the chosen event is; a part of the recording that does not show it moves there.
    point(share) {
      mark = share;
      if (share !== null && (share < view.from || share > view.to)) show(share - width() / 2, share + width() / 2);
      else drawMark();
    },
    // The marks of a suggestion among those of all.
    mark(card) {
      marks.forEach((element) => element.classList.toggle("chosen", `suggestion-${element.dataset.card}` === card));
    },
    around(from, to) {
      const span = Math.max(5 * (to - from), 10 * least);
      const middle = (from + to) / 2;
      show(middle - span / 2, middle + span / 2);
    },
    curve(key) {
      const next = curves.find((curve) => curve.group.dataset.label === key);
      if (!next) return;
      curves.forEach((curve) => curve.group.classList.toggle("on", curve === next));
      byId("curve-name").textContent = next.group.dataset.name;
      drawCurve(next);
    },
  };
})();
