// The job that reads a recording: its state in words and its buttons, live.

import { button, make } from "./elements.js";
import { errorLine, sayError } from "./messages.js";
import { text } from "./texts.js";
import { count, percent } from "./wording.js";

const RUNNING = new Set(["queued", "running"]);

/** Return the state of a study in words: its job's while that runs, or why it failed. */
export function jobState(study) {
  const { job } = study;
  if (job && RUNNING.has(job.state)) return runningText(job);
  const state = study.state ?? job?.state ?? "unknown";
  const error = study.error ?? job?.error;
  const before = study.current_result && state !== "read" ? `${text("study.read_before")} ` : "";
  return make("span", { class: "job", data: { state } }, before, text(`study.${state}`), error && state !== "read" ? `: ${errorLine(error)}` : "");
}

function runningText(job) {
  if (job.state === "queued") return make("span", { class: "job", data: { state: "queued" } }, text("study.queued"));
  const total = job.frames_total;
  const words = total ? text("study.reading_share", { share: percent(job.frames_done / total), frames: count(total) })
    : text("study.reading_count", { frames: count(job.frames_done ?? 0) });
  const bar = total ? make("progress", { max: total, value: job.frames_done, "aria-label": text("study.reading") }) : null;
  return make("span", { class: "job", data: { state: "reading" } }, words, bar);
}

/** Return the buttons that a job allows: cancel while it runs, retry after it failed. */
export function jobButtons(study, store, api) {
  const { job } = study;
  if (!job) return [];
  const act = async (verb) => {
    try {
      await api.send("POST", `jobs/${job.id}/${verb}`);
    } catch (error) {
      sayError(store, error);
    }
  };
  if (RUNNING.has(job.state)) return [button(text("job.cancel"), () => act("cancel"), { data: { act: "cancel" } })];
  if (job.state === "failed" || job.state === "cancelled") return [button(text("job.retry"), () => act("retry"), { data: { act: "retry" } })];
  return [];
}
