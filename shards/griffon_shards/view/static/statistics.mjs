// The figures of a set, of a task or of a source, with plots.

import * as api from "./api.mjs";
import { announce, counted, element, replace } from "./dom.mjs";
import { paint } from "./colours.mjs";
import { heatMap, histogram, rankPlot } from "./plots.mjs";
import { isolated, visible } from "./text.mjs";
import { changed, current, filtered, href, open } from "./url_state.mjs";

const POLL_MS = 500;
const CATEGORIES = 25;
const PLOTS = {
  boxes_per_sample: ["Boxes a sample", "boxes"],
  box_area_share: ["Box area, share of the image", null],
  box_aspect: ["Box width / height", null],
  question_chars: ["Question, characters", null],
  answer_chars: ["Answer, characters", null],
  question_tokens: ["Question, tokens", null],
  answer_tokens: ["Answer, tokens", null],
  turns: ["Turns a sample", null],
  image_width_px: ["Image width, px", "width"],
  image_height_px: ["Image height, px", "height"],
  image_bytes: ["Image file, bytes", null],
};

export function makeStatistics(context) {
  const node = element("section", { class: "page statistics" });
  const update = async (params, signal) => {
    const set = Number(params.get("of") ?? 0);
    if (!context.sets[set]) throw new api.ApiError(`no set ${params.get("of")}`);
    const figures = await counting(set, node, signal);
    if (signal.aborted) return "";
    const groups = new Map([["", figures.total]]);
    for (const group of figures.tasks) groups.set(`task:${group.name}`, group);
    for (const group of figures.sources) groups.set(`source:${group.name}`, group);
    const chosen = groups.has(params.get("group")) ? params.get("group") : "";
    replace(
      node,
      element("h1", {}, "Statistics of ", isolated(context.sets[set].name)),
      element("p", { class: "soft" }, "digest ", element("code", {}, isolated(figures.digest))),
      choices(context, set, groups, chosen),
      figuresOf(groups.get(chosen), chosen, set, context),
      chosen ? null : [groupTable("task", figures.tasks, set, context), groupTable("source", figures.sources, set, context)],
      chosen ? null : categories(figures, set, context),
      chosen ? null : images(figures),
    );
    announce("the statistics are shown");
    return "Statistics";
  };
  return { node, update, keys: [] };
}

/** The figures, after they are counted; meanwhile the progress is shown. */
async function counting(set, node, signal) {
  for (;;) {
    const answer = await api.statistics(set, signal);
    if (answer.total) return answer;
    signal.throwIfAborted();
    const bar = element("progress", { max: 1, value: answer.progress ?? 0, "aria-label": "samples counted" });
    replace(document.getElementById("main"), element("section", { class: "page" }, element("h1", {}, "Counting …"), bar));
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    signal.throwIfAborted();
  }
}

function choices(context, set, groups, chosen) {
  const group = element(
    "select",
    { id: "group", onchange: () => open(changed({ group: group.value }, current())) },
    [...groups].map(([value, item]) => element("option", { value, selected: value === chosen }, value ? `${value.split(":")[0]} ${item.name}` : "all samples")),
  );
  const sets = context.sets.length < 2 ? null : element(
    "select",
    { id: "of", "aria-label": "Set", onchange: () => open(changed({ of: sets.value === "0" ? null : sets.value, group: null }, current())) },
    context.sets.map((item) => element("option", { value: item.set, selected: item.set === set }, item.name)),
  );
  return element("div", { class: "row" }, sets, element("label", { for: "group" }, "Figures of"), group);
}

/** The filter that has the samples of a group. */
function filterOf(chosen, set, context) {
  const [kind, ...name] = chosen.split(":");
  const own = { set: context.sets.length > 1 ? set : null };
  return chosen ? { ...own, [kind]: name.join(":") } : own;
}

const toGrid = (changes) => href(filtered(changes, new URLSearchParams()));

function figuresOf(group, chosen, set, context) {
  const filter = filterOf(chosen, set, context);
  const tiles = [
    ["samples", group.samples, toGrid(filter)],
    ["with an image", group.images],
    ["different images", group.distinct_images],
    ["boxes", group.boxes],
    ["without a box", group.without_boxes, toGrid({ ...filter, boxes: "0-0" })],
    ["categories", group.categories],
  ].map(([name, value, target]) => {
    const count = element("dd", {}, target && value ? element("a", { href: target, "aria-label": `${value} ${name}` }, value.toLocaleString("en")) : value.toLocaleString("en"));
    return element("div", {}, element("dt", {}, name), count);
  });
  const plots = Object.entries(PLOTS)
    .filter(([name]) => group.distributions[name])
    .map(([name, [title, parameter]]) => figure(name, title, group.distributions[name], parameter, filter));
  if (group.boxes) plots.push(element("figure", {}, element("h3", {}, "Centres of boxes"), heatMap(group.name, group.heat),
    element("figcaption", {}, boxSizes(group))));
  return [element("dl", { class: "tiles" }, tiles), element("div", { class: "plots" }, plots)];
}

function figure(name, title, values, parameter, filter) {
  const write = (value) => written(name, value);
  const target = parameter ? (bin) => toGrid({ ...filter, [parameter]: `${bin.start}-${bin.stop - 1}` }) : undefined;
  const shown = { median: values.p50, p90: values.p90, p99: values.p99, largest: values.most, mean: values.mean };
  const caption = Object.entries(shown).map(([word, value]) => `${word} ${write(value)}`).join(", ");
  return element("figure", {}, element("h3", {}, title), histogram(title, values, write, target), element("figcaption", {}, caption));
}

/** A value of a distribution, as the page that can be mailed writes it. */
function written(name, value) {
  if (name === "box_area_share") return `${Number((value * 100).toPrecision(3))} %`;
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return Math.abs(value) < 1000 ? String(Number(value.toPrecision(3))) : Math.round(value).toLocaleString("en");
}

function boxSizes(group) {
  const shares = Object.entries(group.box_sizes).map(([size, count]) => `${size} ${count.toLocaleString("en")} (${((100 * count) / group.boxes).toFixed(1)} %)`);
  return `${counted(group.boxes, "box", "boxes")} by area, with limits at 32² and 96² px: ${shares.join(", ")}`;
}

function table(label, head, rows) {
  return element(
    "div",
    { class: "wide", role: "region", "aria-label": label, tabindex: "0" },
    element("table", {},
      element("thead", {}, element("tr", {}, head.map((text) => element("th", { scope: "col" }, text)))),
      element("tbody", {}, rows.map(([name, ...cells]) => element("tr", {}, element("th", { scope: "row" }, name), cells.map((cell) => element("td", {}, cell)))))),
  );
}

function groupTable(kind, groups, set, context) {
  const head = [kind, "samples", "images", "different images", "boxes", "boxes, median", "without a box", "categories", "question characters, median", "answer characters, median"];
  const median = (group, name) => (group.distributions[name] ? written(name, group.distributions[name].p50) : "–");
  const rows = groups.map((group) => [
    element("a", { href: toGrid(filterOf(`${kind}:${group.name}`, set, context)) }, isolated(group.name)),
    ...[group.samples, group.images, group.distinct_images, group.boxes].map((value) => value.toLocaleString("en")),
    median(group, "boxes_per_sample"), group.without_boxes.toLocaleString("en"), group.categories.toLocaleString("en"),
    median(group, "question_chars"), median(group, "answer_chars"),
  ]);
  return [element("h2", {}, `By ${kind}`), table(`figures by ${kind}`, head, rows)];
}

function categories({ categories: all, long_tail: tail }, set, context) {
  if (!all.length) return null;
  const few = Object.entries(tail.at_most).map(([most, count]) => `${count.toLocaleString("en")} have at most ${most}`).join(", ");
  const own = filterOf("", set, context);
  const rows = (items) => items.map((item) => [
    element("a", { href: toGrid({ ...own, category: item.name }), class: "category-link" }, swatch(item.name), isolated(item.name)),
    item.boxes.toLocaleString("en"), item.samples.toLocaleString("en"),
  ]);
  const tables = all.length <= 2 * CATEGORIES
    ? [table("categories", ["category", "boxes", "samples"], rows(all))]
    : [table("most frequent categories", ["most frequent", "boxes", "samples"], rows(all.slice(0, CATEGORIES))),
       table("least frequent categories", ["least frequent", "boxes", "samples"], rows(all.slice(-CATEGORIES)))];
  return [
    element("h2", {}, "Categories"),
    element("p", {}, `${all.length.toLocaleString("en")} categories of DET and RANDDET: the ${tail.half.toLocaleString("en")} most frequent have half of all boxes, `
      + `the ${tail.nine_tenths.toLocaleString("en")} most frequent nine tenths; of boxes, ${few}.`),
    element("div", { class: "plots" }, element("figure", {}, element("h3", {}, "Boxes by rank"), rankPlot(all)), tables),
  ];
}

function swatch(name) {
  const node = element("span", { class: "swatch" });
  paint(node, name);
  return node;
}

function images({ repeated_images: repeated, shared_images: shared }) {
  const parts = [];
  if (repeated.length) parts.push(table("most repeated images", ["most repeated image, first in", "samples"],
    repeated.map((item) => [isolated(item.first_key), item.samples.toLocaleString("en")])));
  if (shared.length) parts.push(table("images in several sources", ["in both", "images"],
    shared.slice(0, CATEGORIES).map((item) => [visible(item.sources.join(" and ")), item.images.toLocaleString("en")])));
  return parts.length ? [element("h2", {}, "Repeated images"), element("div", { class: "plots" }, parts)] : null;
}
