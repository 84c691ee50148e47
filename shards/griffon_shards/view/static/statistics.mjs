// The figures of a set, of a task or of a source, with plots.

import * as api from "./api.mjs";
import { announce, counted, element, replace } from "./dom.mjs";
import { paint } from "./colours.mjs";
import { heatMap, histogram, rankPlot } from "./plots.mjs";
import { isolated, visible } from "./text.mjs";
import { only, setOf } from "./sets.mjs";
import { changed, current, href, open } from "./url_state.mjs";

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
    const set = setOf(context, params);
    const figures = await counting(set.set, signal);
    if (signal.aborted) return "";
    const groups = new Map([["", figures.total]]);
    for (const group of figures.tasks) groups.set(`task:${group.name}`, group);
    for (const group of figures.sources) groups.set(`source:${group.name}`, group);
    const chosen = groups.has(params.get("group")) ? params.get("group") : "";
    replace(
      node,
      element("h1", {}, "Statistics of ", isolated(set.name)),
      element("p", { class: "soft" }, "digest ", element("code", {}, isolated(figures.digest))),
      choices(groups, chosen),
      figuresOf(groups.get(chosen), chosen, set),
      chosen ? null : [groupTable("task", figures.tasks, set), groupTable("source", figures.sources, set)],
      chosen ? null : categories(figures, set),
      chosen ? null : images(figures),
    );
    announce("the statistics are shown");
    return "Statistics";
  };
  return { node, update, keys: [] };
}

/** The figures, after they are counted; meanwhile the progress is shown. */
async function counting(set, signal) {
  for (;;) {
    const answer = await api.statistics(set, signal);
    if (answer.total) return answer;
    signal.throwIfAborted();
    const bar = element("progress", { max: 1, value: answer.progress ?? 0, "aria-label": "samples counted" });
    replace(
      document.getElementById("main"),
      element("section", { class: "page" }, element("h1", {}, "Counting …"), bar),
    );
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    signal.throwIfAborted();
  }
}

function choices(groups, chosen) {
  const group = element(
    "select",
    { id: "group", onchange: () => open(changed({ group: group.value }, current())) },
    [...groups].map(([value, item]) =>
      element(
        "option",
        { value, selected: value === chosen },
        value ? `${value.split(":")[0]} ${item.name}` : "all samples",
      ),
    ),
  );
  return element("div", { class: "row" }, element("label", { for: "group" }, "Figures of"), group);
}

/** The filter that has the samples of a group. */
function filterOf(chosen) {
  const [kind, ...name] = chosen.split(":");
  return chosen ? { [kind]: name.join(":") } : {};
}

const toGrid = (set, changes) => href(only(set, changes));

function figuresOf(group, chosen, set) {
  const filter = filterOf(chosen);
  const tiles = [
    ["samples", group.samples, toGrid(set, filter)],
    ["with an image", group.images],
    ["different images", group.distinct_images],
    ["boxes", group.boxes],
    ["without a box", group.without_boxes],
    ["categories", group.categories],
  ].map(([name, value, target]) => {
    const count = element(
      "dd",
      {},
      target && value
        ? element("a", { href: target, "aria-label": `${value} ${name}` }, value.toLocaleString("en"))
        : value.toLocaleString("en"),
    );
    return element("div", {}, element("dt", {}, name), count);
  });
  const plots = Object.entries(PLOTS)
    .filter(([name]) => group.distributions[name])
    .map(([name, [title, parameter]]) =>
      figure(
        name,
        title,
        group.distributions[name],
        parameter && ((range) => toGrid(set, { ...filter, [parameter]: range })),
      ),
    );
  if (group.boxes)
    plots.unshift(
      element(
        "figure",
        {},
        element("h3", {}, "Centres of boxes"),
        heatMap(group.name, group.heat),
        element("figcaption", {}, boxSizes(group)),
      ),
    );
  return [element("dl", { class: "tiles" }, tiles), element("div", { class: "plots" }, plots)];
}

function figure(name, title, values, gridWith) {
  const write = (value) => written(name, value);
  const target = gridWith ? (bin) => gridWith(`${bin.start}-${bin.stop - 1}`) : undefined;
  const shown = { median: values.p50, p90: values.p90, p99: values.p99, largest: values.most, mean: values.mean };
  const caption = Object.entries(shown)
    .map(([word, value]) => `${word} ${write(value)}`)
    .join(", ");
  return element(
    "figure",
    {},
    element("h3", {}, title),
    histogram(title, values, write, target),
    element("figcaption", {}, caption),
  );
}

/** A value of a distribution, as the page that can be mailed writes it. */
function written(name, value) {
  if (name === "box_area_share") return `${Number((value * 100).toPrecision(3))} %`;
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return Math.abs(value) < 1000 ? String(Number(value.toPrecision(3))) : Math.round(value).toLocaleString("en");
}

function boxSizes(group) {
  const shares = Object.entries(group.box_sizes).map(
    ([size, count]) => `${size} ${count.toLocaleString("en")} (${((100 * count) / group.boxes).toFixed(1)} %)`,
  );
  return `${counted(group.boxes, "box", "boxes")} by area, with limits at 32² and 96² px: ${shares.join(", ")}`;
}

function table(label, head, rows) {
  return element(
    "div",
    { class: "wide", role: "region", "aria-label": label, tabindex: "0" },
    element(
      "table",
      {},
      element(
        "thead",
        {},
        element(
          "tr",
          {},
          head.map((text) => element("th", { scope: "col" }, text)),
        ),
      ),
      element(
        "tbody",
        {},
        rows.map(([name, ...cells]) =>
          element(
            "tr",
            {},
            element("th", { scope: "row" }, name),
            cells.map((cell) => element("td", {}, cell)),
          ),
        ),
      ),
    ),
  );
}

function groupTable(kind, groups, set) {
  const head = [
    kind,
    "samples",
    "images",
    "different images",
    "boxes",
    "boxes, median",
    "without a box",
    "categories",
    "question characters, median",
    "answer characters, median",
  ];
  const median = (group, name) => (group.distributions[name] ? written(name, group.distributions[name].p50) : "–");
  const rows = groups.map((group) => [
    element("a", { href: toGrid(set, filterOf(`${kind}:${group.name}`)) }, isolated(group.name)),
    ...[group.samples, group.images, group.distinct_images, group.boxes].map((value) => value.toLocaleString("en")),
    median(group, "boxes_per_sample"),
    group.without_boxes.toLocaleString("en"),
    group.categories.toLocaleString("en"),
    median(group, "question_chars"),
    median(group, "answer_chars"),
  ]);
  return [element("h2", {}, `By ${kind}`), table(`figures by ${kind}`, head, rows)];
}

function categories({ categories: all, long_tail: tail }, set) {
  if (!all.length) return null;
  const few = Object.entries(tail.at_most)
    .map(([most, count]) => `${count.toLocaleString("en")} with at most ${most}`)
    .join(", ");
  const rows = (items) =>
    items.map((item) => [
      element(
        "a",
        { href: toGrid(set, { category: item.name }), class: "category-link" },
        swatch(item.name),
        isolated(item.name),
      ),
      item.boxes.toLocaleString("en"),
      item.samples.toLocaleString("en"),
    ]);
  const tables =
    all.length <= 2 * CATEGORIES
      ? [table("categories", ["category", "boxes", "samples"], rows(all))]
      : [
          table("most frequent categories", ["most frequent", "boxes", "samples"], rows(all.slice(0, CATEGORIES))),
          table("least frequent categories", ["least frequent", "boxes", "samples"], rows(all.slice(-CATEGORIES))),
        ];
  return [
    element("h2", {}, "Categories"),
    element(
      "p",
      {},
      `${counted(all.length, "category", "categories")} of DET and RANDDET: half of all boxes are in the ${tail.half.toLocaleString("en")} most frequent, ` +
        `nine tenths in the ${tail.nine_tenths.toLocaleString("en")} most frequent; ${few}.`,
    ),
    element(
      "div",
      { class: "plots" },
      element("figure", {}, element("h3", {}, "Boxes by rank"), rankPlot(all)),
      tables,
    ),
  ];
}

function swatch(name) {
  const node = element("span", { class: "swatch" });
  paint(node, name);
  return node;
}

function images({ repeated_images: repeated, shared_images: shared }) {
  const parts = [];
  if (repeated.length)
    parts.push(
      table(
        "most repeated images",
        ["most repeated image, first in", "samples"],
        repeated.map((item) => [isolated(item.first_key), item.samples.toLocaleString("en")]),
      ),
    );
  if (shared.length)
    parts.push(
      table(
        "images in several sources",
        ["in both", "images"],
        shared
          .slice(0, CATEGORIES)
          .map((item) => [visible(item.sources.join(" and ")), item.images.toLocaleString("en")]),
      ),
    );
  return parts.length ? [element("h2", {}, "Repeated images"), element("div", { class: "plots" }, parts)] : null;
}
