// The pages of a list, and the chips that name what it is filtered by.

import { button, element, replace } from "./dom.mjs";
import { visible } from "./text.mjs";
import { changed, current, filtered, href, open } from "./url_state.mjs";

const NAMES = {
  source: "source",
  task: "task",
  category: "category",
  boxes: "boxes",
  smallest: "smallest box %",
  width: "width",
  height: "height",
  length: "characters",
  q: "search",
  verdict: "prediction",
  iou: "IoU",
  marked: "marked",
  random: "random seed",
};
const RANGES = ["boxes", "smallest", "width", "height", "length", "iou"];

/** Links to the pages of a list. `go(step)` opens another one. */
export function makePager(size) {
  const node = element("nav", { class: "pager", "aria-label": "pages" });
  let place = { offset: 0, total: 0 };
  const at = (offset, params) => href(changed({ offset: offset > 0 ? offset : null }, params));
  const update = (params, offset, total) => {
    place = { offset, total };
    const last = Math.max(0, Math.ceil(total / size) - 1) * size;
    const link = (text, target, label) =>
      target === null
        ? element("span", { class: "button off", "aria-hidden": "true" }, text)
        : element(
            "a",
            { class: "button", href: at(target, params), "aria-label": label, id: `page-${label.split(" ")[0]}` },
            text,
          );
    const first = Math.min(offset + 1, total).toLocaleString("en");
    replace(
      node,
      link("⇤", offset > 0 ? 0 : null, "first page"),
      link("← Previous", offset > 0 ? Math.max(0, offset - size) : null, "previous page"),
      element(
        "span",
        { class: "where" },
        `${first}–${Math.min(offset + size, total).toLocaleString("en")} of ${total.toLocaleString("en")}`,
      ),
      link("Next →", offset + size < total ? offset + size : null, "next page"),
      link("⇥", offset + size < total ? last : null, "last page"),
    );
    node.hidden = total <= size && offset === 0;
  };
  const go = (step) => {
    const offset = place.offset + step * size;
    if (step < 0 ? place.offset > 0 : offset < place.total)
      open(changed({ offset: offset > 0 ? offset : null }, current()));
  };
  return { node, update, go };
}

/** A button for each filter, which removes it. */
export function chips(params) {
  return Object.entries(NAMES).flatMap(([name, title]) =>
    params.getAll(name).map((value) => {
      const others = params.getAll(name).filter((other) => other !== value);
      const said = RANGES.includes(name)
        ? value.replace(/^-/, "at most ").replace(/-$/, " or more").replace("-", " to ")
        : value;
      const text = visible(name === "marked" ? "marked" : `${title}: ${said}`);
      return button(
        [element("bdi", {}, text), element("span", { "aria-hidden": "true" }, " ×")],
        () => open(filtered({ [name]: others })),
        {
          class: "chip",
          "aria-label": `remove the filter ${text}`,
          title: text,
        },
      );
    }),
  );
}
