// What is known of a sample beside its image: its conversation, predictions, origin and JSON.

import * as api from "./api.mjs";
import { announce, button, element, svg } from "./dom.mjs";
import { paint } from "./colours.mjs";
import { linkedGroup } from "./linked.mjs";
import { isolated, textWithBoxes, visible } from "./text.mjs";
import { changed, href } from "./url_state.mjs";
import { verdictBadge } from "./verdict.mjs";

const MOST_CHIPS = 40;
const ROLES = { human: "question", gpt: "answer" };

export function details(sample, variant, params) {
  const shown = sample.variants[variant];
  return [
    sample.variants.length > 1 ? variantLinks(sample.variants, variant, params) : null,
    shown ? conversation(shown) : null,
    shown ? categories(shown) : null,
    shown?.region ? crop(sample, variant) : null,
    predictions(sample, variant),
    sample.command ? command(sample.command) : null,
    section("Origin", facts(sample)),
    sample.json &&
      section(
        "JSON",
        element(
          "details",
          { class: "json" },
          element("summary", {}, "as stored in the shard"),
          scrolled(JSON.stringify(sample.json, null, 1), "JSON"),
        ),
      ),
  ];
}

function section(title, ...children) {
  return element("section", { "aria-label": title }, element("h2", {}, title), children);
}

function variantLinks(variants, shown, params) {
  const links = variants.map((_, i) =>
    element(
      "a",
      {
        class: "button",
        id: `variant-${i}`,
        href: href(changed({ variant: i || null, box: null }, params)),
        "aria-current": i === shown ? "true" : null,
      },
      String(i),
    ),
  );
  return element(
    "nav",
    { class: "row variants", "aria-label": "variants" },
    element("span", { class: "soft" }, "Variant"),
    links,
  );
}

function conversation({ turns }) {
  return element(
    "ol",
    { class: "turns", "aria-label": "conversation" },
    turns.map((turn, t) =>
      element(
        "li",
        { class: `turn ${turn.from}` },
        element("h3", {}, ROLES[turn.from] ?? visible(turn.from)),
        linkedText(turn.value, turn.boxes, `t${t}`, `${ROLES[turn.from] ?? "text"} ${1 + Math.floor(t / 2)}`),
      ),
    ),
  );
}

/** A text that scrolls if it is long, and whose boxes are one stop of the tab key. */
function linkedText(text, boxes, prefix, name) {
  const node = textWithBoxes(
    text,
    boxes.map((box, i) => ({ ...box, link: `${prefix}.${i}` })),
  );
  linkedGroup(node, ".box-text");
  if (text.length > 150 || text.split("\n").length > 4)
    for (const [key, value] of [
      ["tabindex", "0"],
      ["role", "region"],
      ["aria-label", name],
    ])
      node.setAttribute(key, value);
  return node;
}

function scrolled(text, name) {
  return element("pre", { class: "text", tabindex: "0", role: "region", "aria-label": name }, visible(text));
}

/** The categories of the answer; each lights up all of its boxes. */
function categories({ turns }) {
  const words = new Map();
  turns.forEach((turn, t) =>
    turn.boxes.forEach((box, i) => {
      if (!words.has(box.label)) words.set(box.label, []);
      words.get(box.label).push(`t${t}.${i}`);
    }),
  );
  words.delete("");
  if (!words.size) return null;
  const ordered = [...words].sort((a, b) => b[1].length - a[1].length);
  const chips = ordered.slice(0, MOST_CHIPS).map(([name, links]) => {
    const chip = element(
      "button",
      { type: "button", class: "category", "data-link": links.join(" "), title: visible(name) },
      element("bdi", {}, visible(name)),
      links.length > 1 ? ` × ${links.length.toLocaleString("en")}` : null,
    );
    paint(chip, name);
    return chip;
  });
  const left = ordered.length - chips.length;
  return section(
    `Categories`,
    element("div", { class: "chips" }, chips, left > 0 ? element("span", { class: "soft" }, `and ${left} more`) : null),
  );
}

function crop(sample, variant) {
  const image = element("img", {
    src: api.cropPath(sample.set, sample.row, variant),
    alt: "the region that the question points at",
    "data-link": "region",
  });
  return section("Region", element("div", { class: "crop" }, image));
}

function predictions(sample, variant) {
  const own = (sample.predictions ?? [])
    .map((item, p) => [item, p])
    .filter(([item]) => (item.variant ?? 0) === variant);
  if (!own.length) return null;
  const items = own.map(([item, p]) =>
    element(
      "li",
      { class: "turn predicted" },
      element(
        "h3",
        {},
        own.length > 1 ? `round ${Number(item.round ?? p) + 1} ` : null,
        verdictBadge(item),
        item.why ? element("span", { class: "soft" }, " ", isolated(item.why)) : null,
      ),
      linkedText(item.answer ?? "", withPlaces(item), `p${p}`, "predicted answer"),
    ),
  );
  const legend = element("p", { class: "soft legend" }, line("solid"), " true ", line("dashed"), " predicted");
  return section("Prediction", legend, element("ol", { class: "turns" }, items));
}

/** The boxes of a prediction; those that were read leniently may have no place in its text. */
function withPlaces(item) {
  return item.boxes.map((box) => ({ start: -1, end: -1, ...box }));
}

function line(kind) {
  return svg(
    "svg",
    { class: `key-line ${kind}`, viewBox: "0 0 26 8", "aria-hidden": "true" },
    svg("path", { d: "M1 4h24" }),
  );
}

function command(text) {
  const code = element("code", {}, isolated(text));
  const copied = () => announce("the command is copied");
  return element(
    "section",
    { class: "command", "aria-label": "command" },
    element("h2", {}, "On the terminal"),
    element(
      "div",
      { class: "row" },
      element("pre", { class: "text", tabindex: "0", role: "region", "aria-label": "command" }, code),
      button(
        "Copy",
        (event) =>
          copy(text, code).then(() => {
            event.target.textContent = "Copied";
            copied();
          }),
        { id: "copy", title: "copy the command (c)" },
      ),
    ),
  );
}

/** Copies a text; a page that is not on this machine may only copy what is selected. */
async function copy(text, node) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  getSelection().selectAllChildren(node);
  document.execCommand("copy");
}

function facts(sample) {
  const rows = { shard: sample.shard ?? "unknown", offset: sample.offset.toLocaleString("en") };
  for (const [name, value] of Object.entries(sample.origin ?? {})) rows[name] = String(value);
  return element(
    "dl",
    {},
    Object.entries(rows).map(([name, value]) => [
      element("dt", {}, visible(name)),
      element("dd", {}, isolated(value ?? "")),
    ]),
  );
}
