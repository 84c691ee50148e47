// The filter by category: the most frequent ones of what is shown, or those that begin with what is typed.

import * as api from "./api.mjs";
import { element, replace } from "./dom.mjs";
import { paint } from "./colours.mjs";
import { visible } from "./text.mjs";
import { changed, current, filtered, open, selection } from "./url_state.mjs";

const SHOWN = 12;
const TYPING_WAIT_MS = 120;

export function makeCategories() {
  const input = element("input", {
    type: "search",
    id: "category-search",
    placeholder: "Find a category",
    "aria-label": "Find a category",
    "aria-controls": "category-list",
    autocomplete: "off",
    spellcheck: "false",
    maxlength: 1000,
  });
  const list = element("div", { class: "checks", id: "category-list" });
  const more = element("p", { class: "soft", role: "status" });
  let asked = new AbortController();
  let timer = 0;

  const load = async (params, signal) => {
    const query = changed(
      { category: null, prefix: input.value.trim(), sort: null, desc: null, random: null },
      selection(params),
    );
    const { categories, total, error } = await offer(query, signal);
    if (signal.aborted) return;
    const chosen = params.getAll("category");
    const counts = new Map(categories);
    const offered = categories.filter(([name]) => !chosen.includes(name)).slice(0, SHOWN);
    const rows = [...chosen.map((name) => [name, counts.get(name) ?? null]), ...offered];
    replace(
      list,
      rows.map(([name, count]) => check(name, count, chosen)),
    );
    const left = total - categories.filter(([name]) => chosen.includes(name)).length - offered.length;
    more.textContent = error ? error : left > 0 ? `and ${left.toLocaleString("en")} more` : rows.length ? "" : "none";
  };
  const type = () => {
    asked.abort();
    asked = new AbortController();
    load(current(), asked.signal).catch((error) => {
      if (error.name !== "AbortError") throw error;
    });
  };
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(type, TYPING_WAIT_MS);
  });
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== "ArrowDown") return;
    event.preventDefault();
    const first = list.querySelector("input:not(:checked)");
    if (event.key === "Enter") first?.click();
    else (first ?? list.querySelector("input"))?.focus();
  });
  const node = element("fieldset", {}, element("legend", {}, "Category"), input, list, more);
  const update = async (params, signal) => {
    asked.abort();
    const focus = list.contains(document.activeElement) ? document.activeElement.value : null;
    await load(params, signal);
    if (focus !== null) [...list.querySelectorAll("input")].find((box) => box.value === focus)?.focus();
  };
  return { node, update };
}

/** The categories of what is shown. What the server refuses shows under the list. */
async function offer(query, signal) {
  try {
    return await api.categories(query, signal);
  } catch (error) {
    if (!(error instanceof api.ApiError)) throw error;
    return { categories: [], total: 0, error: error.message };
  }
}

function check(name, count, chosen) {
  const box = element("input", {
    type: "checkbox",
    value: name,
    onchange: () =>
      open(filtered({ category: box.checked ? [...chosen, name] : chosen.filter((other) => other !== name) })),
  });
  box.checked = chosen.includes(name);
  const swatch = element("span", { class: "swatch" });
  paint(swatch, name);
  return element(
    "label",
    { class: "check", title: visible(name).slice(0, 1000) },
    box,
    swatch,
    element("bdi", { class: "name" }, visible(name)),
    count === null ? null : element("span", { class: "count" }, count.toLocaleString("en")),
  );
}
