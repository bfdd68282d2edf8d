// Keys of one letter can be switched off: they get in the way of dictation and of some screen readers (WCAG 2.1.4).
(() => {
  const button = byId("keys");
  let on = true;
  button?.addEventListener("click", () => {
    on = !on;
    button.setAttribute("aria-pressed", String(on));
  });
  const actions = {
    ArrowRight: () => events.step(1), j: () => events.step(1),
    ArrowLeft: () => events.step(-1), k: () => events.step(-1),
    m: () => events.toggleMaps(), z: () => events.showOnTimeline(), Escape: () => events.clear(),
    "+": () => timeline.zoom(0.5), "=": () => timeline.zoom(0.5), "-": () => timeline.zoom(2), 0: () => timeline.show(0, 1),
    "[": () => timeline.move(-0.5), "]": () => timeline.move(0.5),
  };
  document.addEventListener("keydown", (event) => {
    const typing = event.target instanceof HTMLInputElement;
    if (!on || typing || event.ctrlKey || event.metaKey || event.altKey || !(event.key in actions)) return;
    if (!events.any && !"+=-0[]".includes(event.key)) return;
    actions[event.key]();
    event.preventDefault();
  });
})();
