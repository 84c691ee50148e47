// The large image of a sample with its boxes, and the buttons under it.

import * as api from "./api.mjs";
import { overlay } from "./boxes.mjs";
import { button, element, replace } from "./dom.mjs";
import { linkedGroup } from "./linked.mjs";
import { visible } from "./text.mjs";
import { changed, current, note } from "./url_state.mjs";
import { Zoom } from "./zoom.mjs";

const MOST_LABELS = 25; // that are shown unasked
const NOTE_WAIT_MS = 200; // browsers limit how often the address changes
const LAYERS = { boxes: "Boxes", predicted: "Predictions", labels: "Labels" };

export function makeImageView() {
  const stage = element("div", { class: "stage" });
  const frame = element(
    "div",
    { class: "viewport", tabindex: "0", role: "group", "aria-label": "image; plus and minus zoom, arrows move it" },
    stage,
  );
  const size = element("output", { class: "percent", "aria-label": "zoom" });
  const layers = Object.fromEntries(
    Object.entries(LAYERS).map(([name, text]) => [
      name,
      button(text, () => toggle(name), { "aria-pressed": "true", id: `layer-${name}` }),
    ]),
  );
  let timer = 0;
  const moved = () => {
    clearTimeout(timer);
    const sample = current().get("sample");
    timer = setTimeout(() => current().get("sample") === sample && note(changed({ zoom: zoom.state })), NOTE_WAIT_MS);
  };
  const drawn = () => {
    size.textContent = `${zoom.percent} %`;
  };
  const zoom = new Zoom(frame, stage, { moved, drawn });
  const show = () => {
    for (const [name, control] of Object.entries(layers)) {
      frame.classList.toggle(`with-${name}`, control.getAttribute("aria-pressed") === "true");
    }
  };
  const toggle = (name) => {
    const control = layers[name];
    if (control.hidden) return;
    const on = control.getAttribute("aria-pressed") !== "true";
    control.setAttribute("aria-pressed", String(on));
    show();
    note(changed(name === "labels" ? { labels: on ? "1" : "0" } : { hide: hidden(layers) }));
  };
  const node = element(
    "div",
    { class: "image-view" },
    frame,
    element(
      "div",
      { class: "row image-tools" },
      button("−", () => zoom.out(), { "aria-label": "zoom out", title: "zoom out (-)", id: "zoom-out" }),
      size,
      button("+", () => zoom.in(), { "aria-label": "zoom in", title: "zoom in (+)", id: "zoom-in" }),
      button("Fit", () => zoom.fit(), { title: "fit the image (0)", id: "zoom-fit" }),
      button("1:1", () => zoom.to(1), { title: "one pixel of the image for one of the screen (1)", id: "zoom-actual" }),
      Object.values(layers),
    ),
  );

  const update = (sample, boxes, params) => {
    const hide = (params.get("hide") ?? "").split(",");
    const labels = params.has("labels") ? params.get("labels") === "1" : boxes.length <= MOST_LABELS;
    for (const name of ["boxes", "predicted"]) layers[name].setAttribute("aria-pressed", String(!hide.includes(name)));
    layers.labels.setAttribute("aria-pressed", String(labels));
    layers.predicted.hidden = !boxes.some((box) => box.kind === "predicted");
    show();
    node.hidden = !sample.image;
    if (!sample.image) return replace(stage);
    const path = api.imagePath(sample.set, sample.row);
    const image =
      reused(stage, path) ?? element("img", { src: path, alt: `image of ${visible(sample.key)}`, draggable: "false" });
    image.onerror = async () => replace(stage, element("p", { class: "error" }, visible(await api.imageError(path))));
    const layer = overlay(boxes, sample.width, sample.height);
    linkedGroup(layer.querySelector("svg"), "g.box");
    replace(stage, image, layer);
    zoom.begin(sample.width, sample.height, params.get("zoom"));
  };
  return { node, update, zoom, toggle };
}

function reused(stage, path) {
  const image = stage.querySelector("img");
  return image?.getAttribute("src") === path ? image : null;
}

function hidden(layers) {
  return ["boxes", "predicted"].filter((name) => layers[name].getAttribute("aria-pressed") === "false").join(",");
}
