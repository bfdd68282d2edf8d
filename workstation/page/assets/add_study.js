// Add an examination: a recording in an allowed folder, or an upload with its progress.

import { openDialog } from "./dialog.js";
import { button, field, make, showList, typed } from "./elements.js";
import { errorLine } from "./messages.js";
import { text } from "./texts.js";
import { bytes, count, percent } from "./wording.js";

const SHOWN = 200;

/** Let the reader choose a recording of an allowed folder, from the list or by its path. Return the study or null. */
export async function addFromFolder(store, api) {
  const list = make("ul", { class: "recordings" });
  const hint = make("p", { class: "hint", role: "status" }, text("add.looking"));
  const folder = make("select", { name: "folder" });
  const path = make("input", { name: "path", maxlength: 4096, dir: "auto", autocomplete: "off" });
  const choice = { folders: [] };
  const draw = () => drawRecordings(choice, { list, hint, folder, path });
  const add = async (relative) => {
    try {
      dialog.close(await api.send("POST", "studies", { folder: folder.value, path: relative }));
    } catch (error) {
      if (error.code !== "not_found") throw error;
      throw Object.assign(new Error(text("add.not_there")), { hint: text("add.not_there_hint") });
    }
  };
  // Whoever has typed until one recording is left means that one.
  const meant = () => {
    const found = matches(choice, { folder, path });
    return found.length === 1 ? found[0].path : path.value.trim();
  };
  const dialog = openDialog({
    title: text("add.folder"), name: "folder", wide: true,
    content: [field(text("add.which_folder"), folder), field(text("add.path"), path, text("add.path_hint")), hint, list],
    actions: [{ label: text("dialog.cancel") }, {
      label: text("add.do"), kind: "primary",
      run: async () => {
        if (!path.value.trim()) throw new Error(text("add.no_path"));
        await add(meant());
      },
    }],
  });
  folder.addEventListener("change", draw);
  path.addEventListener("input", draw);
  try {
    choice.folders = (await api.get("folders")).folders;
    folder.replaceChildren(...choice.folders.map((each) => make("option", { value: each.id }, each.name)));
    draw();
  } catch (error) {
    hint.textContent = errorLine(error);
  }
  return (await dialog.closed) ?? null;
}

/** Return the recordings of the chosen folder whose path holds what was typed. A whole path means that one alone. */
function matches(choice, { folder, path }) {
  const recordings = choice.folders.find((each) => each.id === folder.value)?.recordings ?? [];
  const sought = path.value.trim().toLowerCase();
  const whole = recordings.filter((each) => each.path === path.value.trim());
  return whole.length ? whole : recordings.filter((each) => each.path.toLowerCase().includes(sought));
}

function foundLine(choice, found) {
  if (choice.folders.length === 0) return text("add.no_folders");
  if (found.length === 0) return text("add.found_none");
  if (found.length === 1) return text("add.found_one");
  return text("add.found", { count: count(found.length), shown: count(Math.min(found.length, SHOWN)) });
}

function drawRecordings(choice, { list, hint, folder, path }) {
  const found = matches(choice, { folder, path });
  hint.textContent = foundLine(choice, found);
  showList(list, found.slice(0, SHOWN), {
    keyOf: (each) => each.path,
    build: (each) => {
      const element = button("", () => { path.value = each.path; path.form.requestSubmit(); }, { data: { act: each.path } });
      element.append(typed(each.path), make("small", {}, each.study_id ? text("add.known", { size: bytes(each.bytes) }) : bytes(each.bytes)));
      return make("li", {}, element);
    },
  });
}

/** Let the reader choose a file and upload it. Return the study, or null when he gives up. */
export async function addUpload(store, api) {
  const file = make("input", { type: "file", name: "file", required: true });
  const bar = make("progress", { max: 1, value: 0, hidden: true, "aria-label": text("upload.progress") });
  const line = make("p", { class: "hint", role: "status" });
  let running = null;
  const dialog = openDialog({
    title: text("add.upload"), name: "upload", content: [field(text("upload.file"), file, text("upload.hint")), bar, line],
    actions: [{ label: text("dialog.cancel") }, {
      label: text("upload.do"), kind: "primary",
      run: async (close) => {
        const chosen = file.files[0];
        if (!chosen) throw new Error(text("upload.none"));
        bar.hidden = false;
        running = api.upload(`studies/upload?name=${encodeURIComponent(chosen.name)}`, chosen, (share) => showShare(bar, line, share, chosen));
        try {
          close(await running);
        } finally {
          running = null;
          bar.hidden = true;
          line.textContent = "";
        }
      },
    }],
  });
  const study = await dialog.closed;
  running?.catch(() => {});
  running?.cancel?.();
  return study ?? null;
}

function showShare(bar, line, share, file) {
  bar.value = share;
  line.textContent = share < 1 ? text("upload.share", { share: percent(share), size: bytes(file.size) }) : text("upload.checking");
}
