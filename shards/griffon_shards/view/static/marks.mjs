// The list of marked samples.

import * as api from "./api.mjs";
import { announce, button, counted, element, replace } from "./dom.mjs";
import { editMark } from "./mark_dialog.mjs";
import { isolated, visible } from "./text.mjs";
import { changed, href } from "./url_state.mjs";

export function makeMarks(context) {
  const title = element("h1", {});
  const list = element("ul", { class: "marks", "aria-label": "marked samples" });
  const where = element(
    "div",
    { class: "soft prose" },
    element("p", {}, "Key ", element("kbd", {}, "m"), " marks a sample as doubtful. Marks are kept in a file beside the set, never in it. ",
      "To leave marked samples out of the next set, give that file to the build (docs/view.md, Marks):"),
    context.sets.map((set) => element("pre", { class: "text" }, element("code", {}, "griffon-prep build … --exclude-keys ", isolated(set.marks_file ?? "FILE")))),
  );
  const node = element("section", { class: "page" }, title, where, context.marks_error ? element("p", { class: "error" }, visible(context.marks_error)) : null, list);
  const update = async (params, signal) => {
    const marks = await api.marks(signal);
    if (signal.aborted) return "";
    title.textContent = counted(marks.length, "mark");
    replace(list, marks.map((mark) => item(mark, context)));
    announce(title.textContent);
    return "Marks";
  };
  return { node, update, keys: [] };
}

function item(mark, context) {
  const target = changed({ sample: `${mark.set}/${mark.row}` }, new URLSearchParams());
  const known = mark.row !== null && mark.row !== undefined;
  const image = known ? element("img", { src: api.thumbnailPath(mark.set, mark.row), alt: "", loading: "lazy" }) : null;
  image?.addEventListener("error", () => image.remove()); // a sample without an image
  const sample = { ...mark, mark: mark.note };
  return element(
    "li",
    {},
    element("div", { class: "thumb" }, image),
    element(
      "div",
      {},
      known ? element("a", { href: href(target) }, isolated(mark.key)) : isolated(mark.key),
      element("p", { class: "text", dir: "auto" }, visible(mark.note || "without a note")),
      known && context.marks_writable !== false
        ? element(
            "p",
            { class: "row" },
            button("Edit", () => editMark(sample, context), { "aria-label": `edit the mark of ${mark.key}` }),
            button("Remove", () => remove(mark, context), { "aria-label": `remove the mark of ${mark.key}` }),
          )
        : null,
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
