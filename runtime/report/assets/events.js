// One suggestion is chosen: its card is marked, it is shown large, and the timeline points to it.
const events = (() => {
  const cards = all(".card");
  const links = new Map(cards.map((card) => [card.id, []]));
  all(".lane a").forEach((link) => links.get(link.getAttribute("href").slice(1)).push(link));
  const filters = all("[data-filter]");
  const FIRST = "*";
  const ALL = "";
  let chosen = ALL;
  let current = null;

  const shown = () => cards.filter((card) => !card.hidden);
  const say = (text) => { byId("status").textContent = text; };

  function choose(card, { event, quiet = false } = {}) {
    current?.removeAttribute("aria-current");
    if (current) {
      current.tabIndex = -1; // Tab goes to one card; the keys go through them all
      links.get(current.id).forEach((link) => link.removeAttribute("aria-current"));
    }
    current = card;
    card.setAttribute("aria-current", "true");
    card.tabIndex = 0;
    links.get(card.id).forEach((link) => link.setAttribute("aria-current", "true"));
    timeline.curve(card.dataset.label);
    timeline.mark(card.id);
    viewer.show(card, event);
    if (!quiet) say(`${shown().indexOf(card) + 1} of ${shown().length} shown: ${card.getAttribute("aria-label")}`);
  }

  function filter(key, quiet = false) {
    chosen = key;
    cards.forEach((card) => {
      card.hidden = key === FIRST ? "later" in card.dataset : key !== ALL && card.dataset.label !== key;
      links.get(card.id).forEach((link) => link.setAttribute("tabindex", card.hidden ? "-1" : "0"));
    });
    filters.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.filter === key)));
    if (!quiet) say(`Showing ${shown().length} of ${cards.length} suggestions`);
    if (current && !current.hidden) return;
    if (shown().length) choose(shown()[0], { quiet: true });
  }

  // Show a suggestion in the viewer, and bring the viewer into sight.
  function open(card, options) {
    if (card.hidden) filter(ALL, true);
    choose(card, options);
    viewer.root.scrollIntoView({ block: "nearest" });
  }

  // A suggestion chosen by the keys J and K stays in sight: whoever stood on a card goes on to the viewer.
  function step(by) {
    const list = shown();
    if (!list.length) return;
    const leave = document.activeElement?.closest(".card, .lane a");
    open(list[clamp(list.indexOf(current) + by, 0, list.length - 1)]);
    if (leave) viewer.root.focus({ preventScroll: true });
  }

  function showOnTimeline() {
    const event = viewer.current();
    if (event) timeline.around(Number(event.dataset.from), Number(event.dataset.to));
  }

  function openHash() {
    const card = cards.find((entry) => `#${entry.id}` === location.hash);
    if (card) open(card);
  }

  function listen() {
    filters.forEach((button) => button.addEventListener("click", () => {
      const key = button.dataset.filter;
      if (key !== ALL && key !== FIRST && !cards.some((card) => card.dataset.label === key)) timeline.curve(key);
      else filter(key === chosen ? ALL : key);
    }));
    cards.forEach((card) => {
      card.addEventListener("click", () => open(card));
      card.addEventListener("focus", () => { if (card !== current) choose(card); });
    });
    links.forEach((blocks, id) => blocks.forEach((link) => link.addEventListener("click", (event) => {
      event.preventDefault();
      open(byId(id), { event: link.dataset.event });
    })));
    all(".marks .mark").forEach((mark) => mark.addEventListener("click", () => open(byId(`suggestion-${mark.dataset.card}`))));
    byId("previous").addEventListener("click", () => step(-1));
    byId("next").addEventListener("click", () => step(1));
    byId("show-time").addEventListener("click", showOnTimeline);
    byId("zoom-event").addEventListener("click", showOnTimeline);
    window.addEventListener("hashchange", openHash);
  }

  if (cards.length) {
    listen();
    cards.forEach((card) => { card.tabIndex = -1; });
    filter(cards.some((card) => "later" in card.dataset) ? FIRST : ALL, true);
    openHash();
  } else {
    byId("zoom-event").hidden = true;
    filters.forEach((button) => button.addEventListener("click", () => timeline.curve(button.dataset.filter)));
  }

  return {
    step,
    turn: (by) => say(viewer.step(by)),
    clear: () => filter(ALL),
    hold(on) {
      if (!viewer.hold(on) && on) say("This picture has no contour: only the peak frame of an event has one");
    },
    showOnTimeline,
    any: cards.length > 0,
  };
})();
