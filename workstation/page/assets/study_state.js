// The state of the open study in the panel: a recording that is still being read, that could not be read, or that no
// reading is open for.

import { button, make, showOnce } from "./elements.js";
import { jobButtons, jobState } from "./jobs.js";
import { text } from "./texts.js";

/** Show in `root` what stands between the reader and a reading of the open study. */
export function createStudyState(root, store, api, desk) {
  const draw = () => {
    const { study, reading, looking } = store.get();
    const busy = study && (!study.current_result || study.state === "queued" || study.state === "reading" || study.state === "failed");
    root.hidden = !study || (!busy && Boolean(reading));
    if (root.hidden) return;
    const mark = JSON.stringify([study.id, study.state, study.job, study.error, study.current_result?.id ?? study.current_result, reading?.id, looking]);
    showOnce(root, mark, () => [
      busy && make("p", { role: "status" }, jobState(study)),
      busy && make("div", { class: "verbs" }, jobButtons(study, store, api)),
      !reading && study.current_result && make("p", {}, text("reading.none_open")),
      !reading && make("p", { class: "hint" }, text(looking ? "looking.not_blind" : "looking.meaning")),
      !reading && make("div", { class: "verbs" },
        study.current_result && button(text("reading.begin_here"), () => desk.begin(), { class: "primary", data: { act: "begin" } }),
        !looking && button(text("looking.begin"), () => store.set({ looking: true }), { data: { act: "look" } })),
    ]);
  };
  store.subscribe(draw, ["study", "reading", "looking"]);
  draw();
}
