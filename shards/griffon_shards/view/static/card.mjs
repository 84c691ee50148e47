// A card of the grid.

import * as api from "./api.mjs";
import { labelOnHover, overlay } from "./boxes.mjs";
import { counted, element, replace } from "./dom.mjs";
import { isolated, visible } from "./text.mjs";
import { changed, href } from "./url_state.mjs";
import { verdict, verdictBadge } from "./verdict.mjs";

export const cardId = (card) => `sample-${card.set}-${card.row}`;

/** A sample as a link: its image with the boxes of its answer, and its first words. */
export function makeCard(card, params) {
  const target = changed({ sample: card.row, view: null }, params);
  return element(
    "a",
    { class: "card", href: href(target), id: cardId(card), "aria-label": describe(card), draggable: "false" },
    element("div", { class: "top" }, face(card), element("div", { class: "badges" }, badges(card))),
    element(
      "div",
      { class: "caption" },
      element(
        "span",
        { class: "line" },
        element("span", { class: "task" }, card.task),
        isolated(card.key, { class: "key" }),
      ),
      card.image && !card.error ? element("span", { class: "words", dir: "auto" }, visible(card.answer)) : null,
    ),
  );
}

/** The image with its boxes, or what stands in its place. */
function face(card) {
  if (card.error) return element("div", { class: "face text error" }, visible(card.error));
  if (!card.image) {
    return element(
      "div",
      { class: "face text" },
      element("span", { class: "question", dir: "auto" }, visible(card.question)),
      element("span", { class: "answer", dir: "auto" }, visible(card.answer)),
    );
  }
  const image = element("img", {
    src: api.thumbnailPath(card.set, card.row),
    alt: "",
    loading: "lazy",
    decoding: "async",
    draggable: "false",
  });
  const boxes = card.boxes.map((box) => ({ ...box, kind: "true" }));
  for (const box of card.prediction?.boxes ?? [])
    boxes.push({ ...box, kind: "predicted", name: `${box.label || "box"}, predicted` });
  const drawn = overlay(boxes, card.width, card.height);
  const frame = element("div", { class: "frame" }, image, drawn);
  frame.style.aspectRatio = `${card.width} / ${card.height}`;
  frame.style.setProperty("--ratio", String(card.width / card.height));
  image.addEventListener("error", async () => {
    replace(frame, element("span", { class: "error" }, visible(await api.imageError(image.src))));
  });
  labelOnHover(drawn);
  return element("div", { class: "face" }, frame);
}

function badges(card) {
  const { prediction } = card;
  const hidden = card.boxes_total - card.boxes.length;
  return [
    hidden > 0
      ? element(
          "span",
          { class: "badge", title: `${hidden.toLocaleString("en")} more boxes are not drawn here` },
          `+${hidden.toLocaleString("en")}`,
        )
      : null,
    prediction ? verdictBadge(prediction) : null,
    card.mark === null ? null : element("span", { class: "badge marked", title: visible(card.mark) }, "marked"),
  ];
}

function describe(card) {
  const parts = [
    card.key,
    card.task,
    card.error ?? (card.image ? counted(card.boxes_total, "box", "boxes") : "text only"),
  ];
  if (card.prediction) parts.push(`prediction ${verdict(card.prediction)}`);
  if (card.mark !== null) parts.push(`marked ${card.mark}`);
  return visible(parts.join(", "));
}
