"use strict";
// The page is whole without this script; it adds moving between events, filtering, the curves and the activation maps.
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const cards = all(".card");
  const links = new Map(all(".lane a").map((link) => [link.getAttribute("href").slice(1), link]));
  const filters = all("[data-filter]");
  const status = document.getElementById("status");
  const playhead = document.querySelector(".playhead");
  const mapsButton = document.getElementById("maps");
  const firstCurve = document.querySelector(".curve.on");
  let label = "";
  let current = null;

  document.documentElement.classList.add("js");

  // Blue to pale yellow: colours that mucosa and blood do not have, never so dense that the lesion is hidden. Columns are value, red, green, blue, opacity.
  const stops = [[0, 20, 40, 120, 0], [0.25, 30, 90, 200, 0.24], [0.5, 20, 190, 220, 0.38], [0.75, 150, 240, 200, 0.44], [1, 255, 255, 210, 0.48]];
  const table = new Uint8ClampedArray(256 * 4);
  for (let i = 0; i < 256; i += 1) {
    const upper = Math.max(1, stops.findIndex((stop) => stop[0] >= i / 255));
    const [low, high] = [stops[upper - 1], stops[upper]];
    const share = (i / 255 - low[0]) / (high[0] - low[0]);
    for (let c = 0; c < 4; c += 1) {
      const value = low[c + 1] + share * (high[c + 1] - low[c + 1]);
      table[4 * i + c] = c === 3 ? value * 255 : value;
    }
  }

  function drawMap(view) {
    if (view.querySelector("canvas")) return;
    const frame = view.querySelector("img");
    const source = new Image();
    source.onload = () => {
      const canvas = document.createElement("canvas");
      canvas.width = frame.getAttribute("width");
      canvas.height = frame.getAttribute("height");
      canvas.setAttribute("aria-hidden", "true");
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.imageSmoothingQuality = "high";
      context.drawImage(source, 0, 0, canvas.width, canvas.height);
      const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
      for (let i = 0; i < pixels.data.length; i += 4) {
        const value = 4 * pixels.data[i];
        for (let c = 0; c < 4; c += 1) pixels.data[i + c] = table[value + c];
      }
      context.putImageData(pixels, 0, 0);
      frame.after(canvas);
    };
    source.src = view.dataset.map;
  }

  function showMap(card, on) {
    const button = card.querySelector(".map-toggle");
    if (!button) return;
    button.setAttribute("aria-pressed", String(on));
    button.parentElement.classList.toggle("mapped", on);
    if (on) drawMap(button.parentElement);
  }

  function showAllMaps(on) {
    mapsButton.setAttribute("aria-pressed", String(on));
    cards.forEach((card) => showMap(card, on));
  }

  function showCurve(key) {
    const next = all(".curve").find((curve) => curve.dataset.label === key);
    if (!next) return;
    all(".curve.on").forEach((curve) => curve.classList.remove("on"));
    next.classList.add("on");
    document.getElementById("curve-name").textContent = next.dataset.name;
  }

  function select(card, focus) {
    if (current) {
      current.removeAttribute("aria-current");
      links.get(current.id)?.removeAttribute("aria-current");
    }
    current = card;
    card.setAttribute("aria-current", "true");
    links.get(card.id)?.setAttribute("aria-current", "true");
    playhead.style.setProperty("--at", card.dataset.at);
    playhead.classList.add("on");
    showCurve(card.dataset.label);
    if (focus) {
      card.focus({ preventScroll: true });
      card.scrollIntoView({ block: "center" });
    }
  }

  function filter(key) {
    label = key;
    cards.forEach((card) => { card.hidden = Boolean(key) && card.dataset.label !== key; });
    filters.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.filter === key)));
    const shown = cards.filter((card) => !card.hidden).length;
    if (status) status.textContent = `Showing ${shown} of ${cards.length}`;
    playhead.classList.toggle("on", Boolean(current) && !current.hidden);
    showCurve(key || current?.dataset.label || firstCurve?.dataset.label);
  }

  function step(by) {
    const shown = cards.filter((card) => !card.hidden);
    if (!shown.length) return;
    const at = shown.indexOf(current);
    const next = at < 0 ? (by > 0 ? 0 : shown.length - 1) : Math.min(Math.max(at + by, 0), shown.length - 1);
    select(shown[next], true);
  }

  function openHash() {
    const card = cards.find((entry) => `#${entry.id}` === location.hash);
    if (!card) return;
    if (card.hidden) filter("");
    select(card, true);
  }

  filters.forEach((button) => button.addEventListener("click", () => {
    filter(button.dataset.filter === label ? "" : button.dataset.filter);
  }));
  cards.forEach((card) => {
    card.addEventListener("click", () => select(card, false));
    card.addEventListener("focus", () => { if (card !== current) select(card, false); });
    card.querySelector(".map-toggle")?.addEventListener("click", (event) => {
      showMap(card, event.currentTarget.getAttribute("aria-pressed") !== "true");
    });
  });
  links.forEach((link, id) => link.addEventListener("click", (event) => {
    event.preventDefault();
    const card = document.getElementById(id);
    if (card.hidden) filter("");
    select(card, true);
  }));
  mapsButton?.addEventListener("click", () => showAllMaps(mapsButton.getAttribute("aria-pressed") !== "true"));
  document.getElementById("previous")?.addEventListener("click", () => step(-1));
  document.getElementById("next")?.addEventListener("click", () => step(1));
  window.addEventListener("hashchange", openHash);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !cards.length) return;
    if (event.key === "j" || event.key === "ArrowRight") step(1);
    else if (event.key === "k" || event.key === "ArrowLeft") step(-1);
    else if (event.key === "m" && mapsButton) showAllMaps(mapsButton.getAttribute("aria-pressed") !== "true");
    else if (event.key === "Escape" && label) filter("");
    else return;
    event.preventDefault();
  });
  openHash();
})();
