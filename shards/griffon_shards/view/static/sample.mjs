// One sample: its image at the left, and what is known of it at the right.

import * as api from "./api.mjs";
import { announce, button, counted, element, replace } from "./dom.mjs";
import { makeImageView } from "./image_view.mjs";
import { changeState } from "./keyboard.mjs";
import { Links } from "./linked.mjs";
import { editMark } from "./mark_dialog.mjs";
import { details } from "./sample_details.mjs";
import { only, setOf } from "./sets.mjs";
import { isolated, visible } from "./text.mjs";
import { iouOf } from "./verdict.mjs";
import { changed, current, href, note, open, selection } from "./url_state.mjs";
import { cardId } from "./card.mjs";

const STEP_PARTS = { variant: null, box: null, zoom: null };

/** The page of the grid that the sample was opened from. */
const allOf = (params) => changed({ sample: null, hide: null, ...STEP_PARTS }, params);

export function makeSample(context) {
  const imageView = makeImageView();
  const title = element("h1", { class: "key" });
  const facts = element("p", { class: "facts" });
  const steps = makeSteps();
  const panel = element("div", { class: "panel" });
  const mark = button("Mark", () => editMark(shown, context), {
    id: "mark",
    title: "mark this sample, with a note (m)",
  });
  const node = element(
    "article",
    { class: "sample" },
    element("div", { class: "sample-head" }, steps.node, title, facts, mark),
    element("div", { class: "sample-body" }, imageView.node, panel),
  );
  const links = new Links(node, (pinned) => note(changed({ box: pinned })));
  let shown = null;

  const update = async (params, signal) => {
    const [set, row] = [setOf(context, params), params.get("sample")];
    if (!/^\d+$/.test(row)) throw new api.ApiError(`no sample ${row}; expected the number of its row`);
    const same = shown?.set === set.set && String(shown?.row) === row;
    shown = await api.sample(set.set, row, selection(params), signal);
    if (signal.aborted) return "";
    const variant = Math.min(Number(params.get("variant") ?? 0) || 0, Math.max(0, shown.variants.length - 1));
    replace(title, isolated(shown.key));
    replace(facts, factsOf(shown, set));
    mark.textContent = shown.mark === null ? "Mark" : "Edit mark";
    mark.hidden = Boolean(set.marks_error);
    steps.update(shown, params);
    const boxes = boxesOf(shown, variant);
    imageView.update(shown, boxes, params);
    replace(
      panel,
      shown.error ? element("p", { class: "notice error", role: "alert" }, visible(shown.error)) : null,
      details(shown, variant, params),
    );
    node.classList.toggle("text-only", !shown.image);
    links.update(params.get("box") ?? "");
    if (!same) announce(`${shown.key}, ${counted(shown.boxes_total, "box", "boxes")}`);
    preload(shown, params, signal);
    return visible(shown.key);
  };
  const pan = (right, down) => imageView.zoom.pan(right, down);
  const keys = [
    [
      ["ArrowRight", "n"],
      "next sample (arrows move a zoomed image)",
      (event) => (event.key === "n" || !pan(1, 0)) && steps.go("next"),
    ],
    [["ArrowLeft", "p"], "previous sample", (event) => (event.key === "p" || !pan(-1, 0)) && steps.go("previous")],
    [["ArrowUp"], "move up in a zoomed image", () => pan(0, -1)],
    [["ArrowDown"], "move down in a zoomed image", () => pan(0, 1)],
    [["Escape"], "back to the samples", () => open(allOf(current()), { focus: cardId(shown) })],
    [["m"], "mark the sample, with a note", () => editMark(shown, context)],
    [["+", "="], "zoom in", () => imageView.zoom.in()],
    [["-"], "zoom out", () => imageView.zoom.out()],
    [["0"], "fit the image", () => imageView.zoom.fit()],
    [["1"], "one pixel of the image for one of the screen", () => imageView.zoom.to(1)],
    [["b"], "show or hide boxes", () => imageView.toggle("boxes")],
    [["l"], "show or hide labels", () => imageView.toggle("labels")],
    [["o"], "show or hide predicted boxes", () => imageView.toggle("predicted")],
    [["v"], "next variant", () => nextVariant(shown)],
    [["c"], "copy the command that shows this on the terminal", () => node.querySelector(".command button")?.click()],
  ];
  return { node, update, keys };
}

function nextVariant(sample) {
  const count = sample.variants.length;
  if (count > 1) changeState({ variant: (Number(current().get("variant") ?? 0) + 1) % count || null, box: null });
}

/** The boxes of a variant's texts and of the predictions, each with the word that links it to its text. */
function boxesOf(sample, variant) {
  const shown = sample.variants[variant];
  if (!shown) return [];
  const boxes = shown.turns.flatMap((turn, t) =>
    turn.boxes.map((box, i) => ({ ...box, kind: "true", link: `t${t}.${i}` })),
  );
  const answered = [...boxes];
  if (shown.region) boxes.push({ box: shown.region, label: "region", kind: "region", link: "region" });
  (sample.predictions ?? []).forEach((prediction, p) => {
    if ((prediction.variant ?? 0) !== variant) return;
    prediction.boxes.forEach((box, i) => {
      const iou = Math.max(0, ...answered.map((other) => iouOf(box.box, other.box)));
      boxes.push({
        ...box,
        kind: "predicted",
        link: `p${p}.${i}`,
        name: `${box.label || "box"}, predicted, IoU ${iou.toFixed(2)}`,
      });
    });
  });
  return boxes;
}

function factsOf(sample, set) {
  const all = (changes, ...text) => element("a", { href: href(only(set, changes)) }, text);
  return [
    all({ task: sample.task }, sample.task),
    all({ source: sample.source }, isolated(sample.source)),
    sample.image ? `${sample.width} × ${sample.height} px` : "text only",
    counted(sample.boxes_total, "box", "boxes"),
    sample.mark === null
      ? null
      : element("span", { class: "badge marked" }, "marked: ", isolated(sample.mark || "without a note")),
  ]
    .filter(Boolean)
    .flatMap((part, i) => [i ? " · " : null, part]);
}

/** The links to the grid and to the neighbours. */
function makeSteps() {
  const node = element("nav", { class: "steps", "aria-label": "samples" });
  let targets = {};
  const update = (sample, params) => {
    const to = (row) => (row === null || row === undefined ? null : changed({ sample: row, ...STEP_PARTS }, params));
    targets = { previous: to(sample.previous), next: to(sample.next) };
    const link = (name, text) =>
      targets[name]
        ? element("a", { class: "button", id: name, href: href(targets[name]), "aria-label": `${name} sample` }, text)
        : element("span", { class: "button off", id: name, "aria-hidden": "true" }, text);
    replace(
      node,
      element("a", { class: "button", id: "back", href: href(allOf(params)), "data-focus": cardId(sample) }, "Samples"),
      link("previous", "←"),
      link("next", "→"),
    );
  };
  const go = (name) => targets[name] && open(targets[name]);
  return { node, update, go };
}

/** Loads the image of the next sample, if it has one, before it is asked for. */
async function preload(sample, params, signal) {
  if (sample.next === null) return;
  try {
    const next = await api.sample(sample.set, sample.next, selection(params), signal);
    if (next.image && !next.error) new Image().src = api.imagePath(next.set, next.row);
  } catch (error) {
    if (error.name !== "AbortError" && !(error instanceof api.ApiError)) throw error; // it will show when it is opened
  }
}
