// Boxes over an image: an SVG of its size, and labels that keep theirs when the image is zoomed.

import { element, svg } from "./dom.mjs";
import { paint } from "./colours.mjs";
import { visible } from "./text.mjs";

const area = ({ box: [x1, y1, x2, y2] }) => Math.abs(x2 - x1) * Math.abs(y2 - y1);

/**
 * The overlay of an image.
 *
 * @param {{box: number[], label: string, kind?: string, link?: string, name?: string}[]} boxes as fractions of the
 *   image; `kind` is "true", "predicted" or "region". Without a link, a box cannot be focused.
 * @param {number} width of the image in pixels
 * @param {number} height of the image in pixels
 */
export function overlay(boxes, width, height) {
  // Small boxes lie above large ones, so that each can be pointed at.
  const ordered = boxes.filter(({ box }) => box.every(Number.isFinite)).sort((a, b) => area(b) - area(a));
  const focusable = ordered.some((item) => item.link);
  return element(
    "div",
    { class: "overlay" },
    svg(
      "svg",
      {
        viewBox: `0 0 ${width} ${height}`,
        preserveAspectRatio: "none",
        "aria-hidden": focusable ? null : "true",
        role: focusable ? "group" : null,
        "aria-label": focusable ? "boxes" : null,
      },
      ordered.map((item) => shape(item, width, height)),
    ),
    element("div", { class: "labels", "aria-hidden": "true" }, ordered.map(label)),
  );
}

function shape(item, width, height) {
  const { box, kind = "true", link } = item;
  const [left, right] = [box[0] * width, box[2] * width].sort((a, b) => a - b);
  const [top, bottom] = [box[1] * height, box[3] * height].sort((a, b) => a - b);
  const place = { x: left, y: top, width: right - left, height: bottom - top };
  const focus = link ? { role: "button", tabindex: "-1", "aria-label": named(item), "data-link": link } : {};
  const group = svg(
    "g",
    { class: `box ${kind}`, ...focus },
    svg("rect", { class: "casing", ...place }),
    svg("rect", { class: "line", ...place }),
  );
  paint(group, item.label);
  return group;
}

function label(item) {
  const {
    box: [x1, y1, x2, y2],
    kind = "true",
    link,
  } = item;
  const node = element(
    "span",
    { class: `label ${kind}`, "data-link": link ?? null, dir: "auto" },
    item.label || item.name ? named(item) : "",
  );
  paint(node, item.label);
  const [left, right, top] = [Math.min(x1, x2), Math.max(x1, x2), Math.min(y1, y2)];
  if (left > 0.5) node.style.right = `${(1 - right) * 100}%`;
  else node.style.left = `${left * 100}%`;
  node.style.top = `${top * 100}%`;
  if (top < 0.07) node.classList.add("inside");
  return node;
}

function named({ label, kind, name }) {
  return visible(name ?? (label || (kind === "region" ? "region" : "box")));
}

/** Shows the label of the box under the pointer, for overlays whose boxes are not linked. */
export function labelOnHover(node) {
  const shapes = [...node.querySelectorAll("g.box")];
  const labels = node.querySelectorAll(".label");
  const show = (shape) => {
    const place = shapes.indexOf(shape);
    labels.forEach((item, i) => item.classList.toggle("lit", i === place));
    shapes.forEach((item, i) => item.classList.toggle("lit", i === place));
  };
  node.addEventListener("pointerover", (event) => show(event.target.closest("g.box")));
  node.addEventListener("pointerleave", () => show(null));
}
