// The keys are those of the reading page, as far as both have the same to do. Keys of one letter can be switched off: they
// get in the way of dictation and of some screen readers (WCAG 2.1.4).
(() => {
  const button = byId("keys");
  let on = true;
  button?.addEventListener("click", () => {
    on = !on;
    button.setAttribute("aria-pressed", String(on));
  });
  const actions = {
    ArrowRight: () => events.turn(1), ArrowLeft: () => events.turn(-1),
    j: () => events.step(1), k: () => events.step(-1),
    m: () => events.hold(true), z: () => events.showOnTimeline(), Escape: () => events.clear(),
    "+": () => timeline.zoom(0.5), "=": () => timeline.zoom(0.5), "-": () => timeline.zoom(2), 0: () => timeline.show(0, 1),
    "[": () => timeline.move(-0.5), "]": () => timeline.move(0.5),
  };
  const named = (event) => (event.key.length === 1 ? event.key.toLowerCase() : event.key);
  document.addEventListener("keydown", (event) => {
    const key = named(event);
    const typing = event.target instanceof HTMLInputElement;
    if (!on || typing || event.ctrlKey || event.metaKey || event.altKey || !(key in actions)) return;
    if (!events.any && !"+=-0[]".includes(key)) return;
    event.preventDefault();
    if (!(key === "m" && event.repeat)) actions[key]();
  });
  const release = () => { if (events.any) events.hold(false); };
  document.addEventListener("keyup", (event) => { if (named(event) === "m") release(); });
  window.addEventListener("blur", release);
})();
