// The filters at the side of the grid: made once, and set from the address.

import { button, element } from "./dom.mjs";
import { makeCategories } from "./categories.mjs";
import { isolated } from "./text.mjs";
import { current, filtered, open, range } from "./url_state.mjs";

const RANGES = [
  ["boxes", "Number of boxes", "1"],
  ["smallest", "Smallest box, % of the image", "any"],
  ["width", "Image width, px", "1"],
  ["height", "Image height, px", "1"],
  ["length", "Question and answer, characters", "1"],
];
const IOU = ["iou", "IoU of the prediction", "any"];
const VERDICTS = { right: "Right", wrong: "Wrong", unparsed: "Unparsed" };

/** The form for a set, and `update(params, signal)`, which sets it from the address. */
export function makeFilters(set, context) {
  const { sources } = set;
  const tasks = context.tasks.filter((task) => sources.some((item) => item.task === task));
  const samplesOf = (task) => sources.reduce((sum, item) => sum + (item.task === task ? item.samples : 0), 0);
  const parts = [
    set.predictions ? makeVerdict(context.verdicts) : null,
    set.predictions ? makeRange(...IOU) : null,
    tasks.length > 1
      ? makeChecks(
          "task",
          "Task",
          tasks.map((task) => [task, samplesOf(task)]),
        )
      : null,
    makeCategories(),
    sources.length > 1
      ? makeChecks(
          "source",
          "Source",
          sources.map((item) => [item.source, item.samples]),
        )
      : null,
    ...RANGES.map((item) => makeRange(...item)),
    makeMarked(),
  ].filter(Boolean);
  const clear = button("Clear filters", () => open(cleared()), { class: "clear", id: "clear-filters" });
  const node = element(
    "form",
    { class: "filters", "aria-label": "filters", onsubmit: (event) => event.preventDefault() },
    parts.map((part) => part.node),
    clear,
  );
  const update = (params, signal) => Promise.all(parts.map((part) => part.update(params, signal)));
  return { node, update };
}

const apply = (changes) => open(filtered(changes));

function cleared() {
  const params = current();
  const kept = new URLSearchParams();
  for (const name of ["set", "sort", "desc", "random", "size", "labels"])
    if (params.has(name)) kept.set(name, params.get(name));
  return kept;
}

function group(title, ...children) {
  return element("fieldset", {}, element("legend", {}, title), children);
}

function makeChecks(name, title, items) {
  const inputs = items.map(([value]) =>
    element("input", {
      type: "checkbox",
      id: `${name}-${value}`,
      value,
      onchange: () => apply({ [name]: inputs.filter((input) => input.checked).map((input) => input.value) }),
    }),
  );
  const rows = items.map(([value, count], i) =>
    element(
      "label",
      { class: "check" },
      inputs[i],
      isolated(value, { class: "name", title: value }),
      count === null ? null : element("span", { class: "count" }, count.toLocaleString("en")),
    ),
  );
  const update = (params) => {
    const chosen = new Set(params.getAll(name));
    for (const input of inputs) input.checked = chosen.has(input.value);
  };
  return { node: group(title, element("div", { class: "checks" }, rows)), update };
}

function makeRange(name, title, step) {
  const input = (end) =>
    element("input", {
      type: "number",
      id: `${name}-${end}`,
      min: 0,
      step,
      placeholder: end,
      "aria-label": `${title}: ${end === "min" ? "at least" : "at most"}`,
      onchange: () => {
        const [min, max] = [least.value, most.value];
        if (least.validity.valid && most.validity.valid) apply({ [name]: min || max ? `${min}-${max}` : null });
      },
    });
  const [least, most] = [input("min"), input("max")];
  const update = (params) => {
    [least.value, most.value] = range(params.get(name));
  };
  return { node: group(title, element("div", { class: "range" }, least, element("span", {}, "to"), most)), update };
}

function makeVerdict(verdicts) {
  const select = element(
    "select",
    { id: "verdict", "aria-label": "Prediction", onchange: () => apply({ verdict: select.value }) },
    element("option", { value: "" }, "any"),
    verdicts.map((verdict) => element("option", { value: verdict }, VERDICTS[verdict] ?? verdict)),
  );
  return {
    node: group("Prediction", select),
    update: (params) => {
      select.value = params.get("verdict") ?? "";
    },
  };
}

function makeMarked() {
  const input = element("input", {
    type: "checkbox",
    id: "marked",
    onchange: () => apply({ marked: input.checked ? "1" : null }),
  });
  const node = group(
    "Marks",
    element("label", { class: "check" }, input, element("span", { class: "name" }, "only marked samples")),
  );
  return {
    node,
    update: (params) => {
      input.checked = params.get("marked") === "1";
    },
  };
}
