// One suggestion, large: a picture of one of its events, the strip of that event, and the other events of the suggestion.
const viewer = (() => {
  const root = byId("viewer");
  const stage = byId("stage");
  const button = byId("contour");
  let parts = []; // of the suggestion that is shown: the event's element in the card, its pictures, which one is shown
  let part = 0;
  let shot = 0;
  let kept = false; // the contour stays without the key
  let held = false;

  const colourOf = (element) => [...element.classList].find((name) => /^c\d+$/.test(name)) ?? "";

  // The pictures of an event. An event without a strip has its peak frame alone, or no picture at all.
  function read(element, leading) {
    const large = leading ? leading.querySelector("img") : element.querySelector("img.large");
    const { map } = (leading ?? element).dataset;
    const shots = all(".shot", element).map((item) => ({ ...item.dataset, peak: item.classList.contains("peak"), small: item.querySelector("img").src }));
    if (!shots.length) shots.push({ ...element.dataset, peak: true, small: null });
    for (const one of shots) one.src = one.peak && large ? large.src : one.small;
    return { element, shots, map, peak: Math.max(shots.findIndex((one) => one.peak), 0) };
  }

  function drawStage() {
    const current = parts[part].shots[shot];
    const text = `Frame ${Number(current.index).toLocaleString("en")} · exam clock ${current.exam} · playback clock ${current.playback}`;
    const name = parts[part].element.dataset.name;
    let picture = stage.querySelector("img");
    if (current.src) {
      if (!picture) picture = document.createElement("img");
      picture.src = current.src;
      picture.alt = `${text}, event ${parts[part].element.dataset.event}, ${name}`;
      stage.replaceChildren(picture);
    } else {
      const none = document.createElement("span");
      none.className = "none";
      none.textContent = "No picture of this frame was kept";
      stage.replaceChildren(none);
    }
    const small = current.src && current.src === current.small;
    byId("caption").textContent = `${text}${current.peak ? " · peak" : ""}${small ? " · small picture, enlarged" : ""}`;
    drawContour();
    timeline.point(Number(current.at));
  }

  function hasContour() {
    return parts.length > 0 && Boolean(parts[part].map) && parts[part].shots[shot].peak && stage.querySelector("img") !== null;
  }

  function drawContour() {
    const wanted = (kept || held) && hasContour();
    if (wanted && !stage.querySelector("canvas")) stage.append(contour.draw(parts[part].map));
    if (!wanted) stage.querySelector("canvas")?.remove();
    if (button) button.disabled = !hasContour();
  }

  // The events of the suggestion, each a button; the current one shows its strip.
  function drawParts() {
    const list = parts.map((entry, number) => {
      const box = document.createElement("div");
      box.className = `part ${colourOf(entry.element)}`;
      const head = document.createElement("button");
      head.type = "button";
      head.className = "part-name";
      head.append(...entry.element.querySelector(".part-name").cloneNode(true).childNodes);
      if (number === part) head.setAttribute("aria-current", "true");
      head.addEventListener("click", () => select(number, entry.peak));
      box.append(head);
      if (number === part && entry.shots.length > 1) box.append(makeStrip(entry));
      return box;
    });
    const further = parts[0].element.parentElement.querySelector(":scope > p.part-name");
    if (further) list.push(further.cloneNode(true));
    byId("viewer-parts").replaceChildren(...list);
  }

  function makeStrip(entry) {
    const strip = document.createElement("div");
    strip.className = "strip";
    strip.setAttribute("role", "group");
    strip.setAttribute("aria-label", `Pictures of event ${entry.element.dataset.event}`);
    all(".shot", entry.element).forEach((item, number) => {
      const choice = document.createElement("button");
      choice.type = "button";
      choice.className = item.className;
      choice.append(...item.cloneNode(true).childNodes);
      choice.querySelector("img").alt = "";
      choice.querySelector("b").before("Frame ");
      choice.addEventListener("click", () => select(part, number));
      strip.append(choice);
    });
    return strip;
  }

  function markShot() {
    all("#viewer-parts .shot").forEach((item, number) => {
      item.setAttribute("aria-pressed", String(number === shot));
    });
  }

  function select(nextPart, nextShot) {
    const moved = nextPart !== part;
    const inside = byId("viewer-parts").contains(document.activeElement);
    part = nextPart;
    shot = nextShot;
    if (moved) drawParts();
    markShot();
    drawStage();
    if (moved && inside) all("#viewer-parts button.part-name")[part].focus();
  }

  button?.addEventListener("click", () => {
    kept = !kept;
    button.setAttribute("aria-pressed", String(kept));
    drawContour();
  });

  return {
    // Show the card of a suggestion, and in it one of its events: the leading one unless another is named.
    show(card, event) {
      const elements = all(".parts > .part", card);
      parts = elements.map((element, number) => read(element, number ? null : card.querySelector(".view")));
      part = Math.max(elements.findIndex((element) => element.dataset.event === event), 0);
      shot = parts[part].peak;
      byId("viewer-title").textContent = `Suggestion ${card.id.slice("suggestion-".length)}: ${elements[0].dataset.name}`;
      const text = card.querySelector(".text").cloneNode(true);
      text.querySelector("h3").remove();
      text.className = `text ${colourOf(card)}`;
      byId("viewer-text").replaceChildren(text);
      drawParts();
      markShot();
      drawStage();
    },
    // The next picture of the strip, then the first of the next event of the suggestion; and back.
    step(by) {
      if (!parts.length) return "";
      if (shot + by >= 0 && shot + by < parts[part].shots.length) select(part, shot + by);
      else if (part + by >= 0 && part + by < parts.length) select(part + by, by > 0 ? 0 : parts[part + by].shots.length - 1);
      return byId("caption").textContent;
    },
    hold(on) {
      held = on;
      drawContour();
      return hasContour();
    },
    current: () => (parts.length ? parts[part].element : null),
    root,
  };
})();
