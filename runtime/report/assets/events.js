// One suggestion is chosen: its card is marked, it is shown large, and the timeline points to it.
const events = (() => {
  const cards = all(".card");
  const links = new Map(cards.map((card) => [card.id, []]));
  all(".lane a").forEach((link) => links.get(link.getAttribute("href").slice(1)).push(link));
  const filters = all("[data-filter]");
  const status = byId("status");
  const viewer = byId("viewer");
  const mapsButton = byId("maps");
  const FIRST = "*";
  const ALL = "";
  let chosen = ALL;
  let current = null;

  const shown = () => cards.filter((card) => !card.hidden);

  // The card again, larger: its picture, the same with the map, and its text.
  function enlarge(card) {
    byId("viewer-title").textContent = `Suggestion ${card.id.slice("suggestion-".length)}`;
    const text = card.querySelector(".text").cloneNode(true);
    const figure = card.querySelector(".view").cloneNode(true);
    figure.querySelector("canvas")?.remove();
    figure.classList.remove("mapped");
    const parts = [figure];
    if (figure.dataset.map) {
      const mapped = figure.cloneNode(true);
      mapped.querySelector("img").alt = "The same frame with the activation map: where the model sees what speaks for the finding";
      maps.show(mapped, true);
      parts.push(mapped);
    }
    const pictures = document.createElement("div");
    pictures.className = `pair ${[...card.classList].find((name) => /^c\d+$/.test(name)) ?? ""}`;
    pictures.append(...parts);
    text.className = `text ${[...card.classList].find((name) => /^c\d+$/.test(name)) ?? ""}`;
    byId("viewer-body").replaceChildren(pictures, text);
  }

  function choose(card, { focus = false, say = true } = {}) {
    current?.removeAttribute("aria-current");
    if (current) {
      current.tabIndex = -1; // Tab goes to one card and on to what shows it large; arrows move among the cards
      links.get(current.id).forEach((link) => link.removeAttribute("aria-current"));
    }
    current = card;
    card.setAttribute("aria-current", "true");
    card.tabIndex = 0;
    links.get(card.id).forEach((link) => link.setAttribute("aria-current", "true"));
    enlarge(card);
    timeline.curve(card.dataset.label);
    timeline.point(Number(card.dataset.at));
    if (say) status.textContent = `${shown().indexOf(card) + 1} of ${shown().length} shown`;
    if (focus) {
      card.focus({ preventScroll: true });
      card.scrollIntoView({ block: "nearest" });
    }
  }

  function filter(key, say = true) {
    chosen = key;
    cards.forEach((card) => {
      card.hidden = key === FIRST ? "later" in card.dataset : key !== ALL && card.dataset.label !== key;
      links.get(card.id).forEach((link) => link.setAttribute("tabindex", card.hidden ? "-1" : "0"));
    });
    filters.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.filter === key)));
    if (say) status.textContent = `Showing ${shown().length} of ${cards.length} suggestions`;
    if (current && !current.hidden) return;
    if (shown().length) choose(shown()[0], { say: false });
  }

  function open(card, options) {
    if (card.hidden) filter(ALL, false);
    choose(card, options);
  }

  function step(by) {
    const list = shown();
    if (!list.length) return;
    open(list[clamp(list.indexOf(current) + by, 0, list.length - 1)], { focus: true });
  }

  function showMaps(on) {
    mapsButton?.setAttribute("aria-pressed", String(on));
    all(".card .view").forEach((figure) => maps.show(figure, on));
  }

  function showOnTimeline() {
    if (!current) return;
    timeline.around(Number(current.dataset.from), Number(current.dataset.to));
    byId("time").scrollIntoView({ block: "nearest" });
  }

  function openHash() {
    const card = cards.find((entry) => `#${entry.id}` === location.hash);
    if (card) open(card, { focus: true });
  }

  if (cards.length) {
    filters.forEach((button) => button.addEventListener("click", () => {
      const key = button.dataset.filter;
      if (key !== ALL && key !== FIRST && !cards.some((card) => card.dataset.label === key)) timeline.curve(key);
      else filter(key === chosen ? ALL : key);
    }));
    cards.forEach((card) => {
      card.addEventListener("click", () => choose(card));
      card.addEventListener("focus", () => { if (card !== current) choose(card); });
    });
    links.forEach((blocks, id) => blocks.forEach((link) => link.addEventListener("click", (event) => {
      event.preventDefault();
      open(byId(id), { focus: true });
      viewer.scrollIntoView({ block: "nearest" });
    })));
    mapsButton?.addEventListener("click", () => showMaps(mapsButton.getAttribute("aria-pressed") !== "true"));
    byId("previous").addEventListener("click", () => step(-1));
    byId("next").addEventListener("click", () => step(1));
    byId("show-time").addEventListener("click", showOnTimeline);
    byId("zoom-event").addEventListener("click", showOnTimeline);
    window.addEventListener("hashchange", openHash);
    cards.forEach((card) => { card.tabIndex = -1; });
    filter(cards.some((card) => "later" in card.dataset) ? FIRST : ALL, false);
    openHash();
  } else {
    byId("zoom-event").hidden = true;
    filters.forEach((button) => button.addEventListener("click", () => timeline.curve(button.dataset.filter)));
  }

  return {
    step,
    clear: () => filter(ALL),
    toggleMaps: () => { if (mapsButton) showMaps(mapsButton.getAttribute("aria-pressed") !== "true"); },
    showOnTimeline,
    any: cards.length > 0,
  };
})();
