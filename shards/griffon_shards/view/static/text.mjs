// Text of annotations: shown as it is, whatever it holds.

import { element } from "./dom.mjs";
import { paint } from "./colours.mjs";

const CONTROLS = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/g;

/** The text with control characters as their symbols. Its length in UTF-16 units stays the same. */
export function visible(text) {
  return text.replace(CONTROLS, (c) => (c === "\u007f" ? "\u2421" : String.fromCharCode(0x2400 + c.charCodeAt(0))));
}

/** Text isolated from the direction of the text around it. */
export function isolated(text, attributes = {}) {
  return element("bdi", attributes, visible(text));
}

/**
 * Text in which the writing of each box can be pointed at.
 *
 * @param {string} text
 * @param {{start: number, end: number, label: string, link: string}[]} boxes with positions in UTF-16 units; `link`
 *   connects the text with its box.
 */
export function textWithBoxes(text, boxes) {
  const parts = [];
  let position = 0;
  for (const box of [...boxes].sort((a, b) => a.start - b.start)) {
    if (!(box.start >= position) || !(box.end > box.start) || box.end > text.length) continue;
    parts.push(visible(text.slice(position, box.start)), element("wbr")); // rather there than within a number
    const span = element(
      "bdi",
      { class: "box-text", role: "button", tabindex: "-1", "data-link": box.link },
      visible(text.slice(box.start, box.end)),
    );
    paint(span, box.label);
    parts.push(span);
    position = box.end;
  }
  parts.push(visible(text.slice(position)));
  return element("div", { class: "text", dir: "auto" }, parts);
}
