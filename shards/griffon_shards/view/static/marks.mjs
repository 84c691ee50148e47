// The list of marked samples.

import * as api from "./api.mjs";
import { announce, button, counted, element, replace } from "./dom.mjs";
import { editMark } from "./mark_dialog.mjs";
import { isolated, visible } from "./text.mjs";
import { only, setOf } from "./sets.mjs";
import { href } from "./url_state.mjs";

export function makeMarks(context) {
  const title = element("h1", {});
  const list = element("ul", { class: "marks", "aria-label": "marked samples" });
  const file = element("pre", { class: "text" });
  const problem = element("p", { class: "error" });
  const where = element(
    "div",
    { class: "soft prose" },
    element(
      "p",
      {},
      "Key ",
      element("kbd", {}, "m"),
      " marks a sample as doubtful. Marks are kept in a file beside the set, never in it. ",
      "To leave marked samples out of the next set, give that file to the build (docs/view.md, Marks):",
    ),
    file,
  );
  const node = element("section", { class: "page" }, title, where, problem, list);
  const update = async (params, signal) => {
    const marks = await api.marks(signal);
    if (signal.aborted) return "";
    const set = setOf(context, params);
    const own = marks.filter((mark) => mark.set === set.set);
    title.textContent = counted(own.length, "mark");
    replace(file, element("code", {}, "griffon-prep build … --exclude-keys ", isolated(set.marks_file)));
    problem.textContent = visible(set.marks_error ?? "");
    problem.hidden = !set.marks_error;
    replace(
      list,
      own.map((mark) => item(mark, context)),
    );
    announce(title.textContent);
    return "Marks";
  };
  return { node, update, keys: [] };
}

function item(mark, context) {
  const target = only(context.sets[mark.set], { sample: mark.row });
  const image = element("img", { src: api.thumbnailPath(mark.set, mark.row), alt: "", loading: "lazy" });
  image.addEventListener("error", () => image.remove()); // a sample without an image
  const sample = { ...mark, mark: mark.note };
  return element(
    "li",
    {},
    element("div", { class: "thumb" }, image),
    element(
      "div",
      {},
      element("a", { href: href(target) }, isolated(mark.key)),
      element("p", { class: "text", dir: "auto" }, visible(mark.note || "without a note")),
      element(
        "p",
        { class: "row" },
        button("Edit", () => editMark(sample, context), { "aria-label": `edit the mark of ${mark.key}` }),
        button("Remove", () => remove(mark, context), { "aria-label": `remove the mark of ${mark.key}` }),
      ),
    ),
  );
}

async function remove(mark, context) {
  try {
    await api.removeMark(mark.set, mark.row);
  } catch (error) {
    return announce(error.message);
  }
  await context.refresh();
}
