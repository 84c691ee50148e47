// The line at the top: views, search, and the way to the list of keys.

import { button, element, replace } from "./dom.mjs";
import { showKeys } from "./keyboard.mjs";
import { makeSetChoice, rejectsOf, setOf } from "./sets.mjs";
import { changed, current, filtered, href, open } from "./url_state.mjs";

const SEARCH_WAIT_MS = 250;

export function makeHeader(context) {
  const choice = makeSetChoice(context);
  const links = element("nav", { "aria-label": "views" });
  const { form, input } = makeSearch();
  const node = element(
    "div",
    { class: "bar" },
    element(
      "a",
      { class: "home", href: "/" },
      element("img", { src: "/static/icon.svg", alt: "all samples", width: 24, height: 24 }),
    ),
    choice.node,
    links,
    form,
    button("?", () => showKeys(context), { class: "round", "aria-label": "keys", title: "keys (?)" }),
  );
  const update = (params, view) => {
    if (document.activeElement !== input) input.value = params.get("q") ?? "";
    choice.update(params);
    replace(links, viewLinks(context, params, view));
  };
  return { node, update };
}

function viewLinks(context, params, view) {
  const targets = [["grid", "Samples", filtered({}, params)]];
  for (const [name, text] of [
    ["marks", "Marks"],
    ["rejects", "Rejects"],
    ["statistics", "Statistics"],
  ]) {
    if (name === "rejects" && !hasRejects(context, params)) continue;
    targets.push([name, text, filtered({ view: name }, params)]);
  }
  return targets.map(([name, text, target]) => {
    const here = view === name || (view === "sample" && name === "grid");
    return element("a", { href: href(target), id: `view-${name}`, "aria-current": here ? "page" : null }, text);
  });
}

function hasRejects(context, params) {
  return context.sets[params.get("set") ?? 0] !== undefined && rejectsOf(context, setOf(context, params)).length > 0;
}

function makeSearch() {
  const input = element("input", {
    type: "search",
    id: "search",
    placeholder: "Search questions and answers",
    "aria-label": "Search questions and answers",
    title: 'All words must occur; "quoted words" must stand together (/)',
    autocomplete: "off",
    spellcheck: "false",
    maxlength: 500,
  });
  let timer = 0;
  let typing = false; // one entry of the history for one piece of typing
  const search = () => {
    clearTimeout(timer);
    const text = input.value.trim();
    if (text === (current().get("q") ?? "")) return;
    open(filtered({ q: text }, changed({})), { replacing: typing });
    typing = true;
  };
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(search, SEARCH_WAIT_MS);
  });
  input.addEventListener("change", search);
  input.addEventListener("blur", () => {
    typing = false;
  });
  const form = element(
    "form",
    {
      role: "search",
      onsubmit: (event) => {
        event.preventDefault();
        search();
        typing = false;
      },
    },
    input,
  );
  return { form, input };
}
