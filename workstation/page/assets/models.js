// The models of the store: which one reads new recordings, add one, use another, go back to the one before.

import { openDialog } from "./dialog.js";
import { button, field, make, typed } from "./elements.js";
import { errorLine } from "./messages.js";
import { text } from "./texts.js";
import { moment } from "./wording.js";

/** Show the models in a dialog. */
export async function openModels(store, api) {
  const list = make("div", { class: "models" });
  const line = make("p", { class: "trouble", role: "alert" });
  const file = make("input", { type: "file", accept: ".onnx,.tflite", name: "model" });
  const bar = make("progress", { max: 1, value: 0, hidden: true, "aria-label": text("upload.progress") });
  const panel = { api, list, line, bar, file };
  file.addEventListener("change", () => file.files[0] && addModel(panel, file.files[0]));
  const dialog = openDialog({
    title: text("models.title"), name: "models", wide: true,
    content: [make("p", { class: "hint" }, text("models.hint")), line, list, field(text("models.add"), file, text("models.add_hint")), bar],
    actions: [
      { label: text("models.rollback"), act: "rollback", run: () => attempt(panel, () => api.send("POST", "models/rollback")) },
      { label: text("dialog.close") },
    ],
  });
  await attempt(panel, () => Promise.resolve());
  await dialog.closed;
}

async function addModel(panel, file) {
  panel.bar.hidden = false;
  await attempt(panel, () => panel.api.upload("models", file, (share) => { panel.bar.value = share; }));
  panel.bar.hidden = true;
  panel.file.value = "";
}

/** Do something with the models, then show them as they are. */
async function attempt(panel, act) {
  panel.line.textContent = "";
  try {
    await act();
  } catch (error) {
    panel.line.textContent = errorLine(error);
  }
  try {
    const { models, history } = await panel.api.get("models");
    panel.list.replaceChildren(make("ul", {}, models.map((model) => item(panel, model))), historyOf(history ?? [], models));
  } catch (error) {
    panel.line.textContent = errorLine(error);
  }
}

function item(panel, model) {
  const use = () => attempt(panel, () => panel.api.send("POST", `models/${model.sha256}/use`));
  return make("li", { data: { sha256: model.sha256, inUse: String(model.in_use) } },
    make("div", {}, make("strong", {}, typed(model.name)), " ", typed(model.version), " · ", model.precision, " · ",
      text(model.shipped ? "models.shipped" : "models.added", { when: moment(model.added_at) }),
      make("small", {}, make("code", {}, model.sha256.slice(0, 12)))),
    model.in_use ? make("span", { class: "badge", data: { verdict: "confirmed" } }, text("models.in_use"))
      : button(text("models.use"), use, { data: { act: `use-${model.sha256}` } }));
}

function historyOf(history, models) {
  if (history.length === 0) return "";
  const name = (sha256) => {
    const model = models.find((each) => each.sha256 === sha256);
    return typed(model ? `${model.name} ${model.version}, ${model.precision}` : sha256.slice(0, 12));
  };
  return make("details", {}, make("summary", {}, text("models.history")), make("ol", {}, history.map(({ at, before, after }) =>
    make("li", {}, moment(at), ": ", name(before), " → ", name(after)))));
}
