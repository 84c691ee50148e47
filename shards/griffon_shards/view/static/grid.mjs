// The grid: a page of cards, and what orders and filters them.

import * as api from "./api.mjs";
import { cardId, makeCard } from "./card.mjs";
import { announce, button, counted, element, replace } from "./dom.mjs";
import { makeFilters } from "./filters.mjs";
import { changeState, newSeed } from "./keyboard.mjs";
import { editMark } from "./mark_dialog.mjs";
import { chips, makePager } from "./paging.mjs";
import { setOf } from "./sets.mjs";
import { changed, current, filtered, open, selection } from "./url_state.mjs";

const PAGE = 60;
const SORTS = {
  order: "order in the set",
  key: "key",
  boxes: "number of boxes",
  length: "length",
  smallest: "smallest box, %",
  area: "smallest box, px²",
  iou: "IoU of the prediction",
  verdict: "verdict, worst first",
};
const PREDICTED = ["iou", "verdict"]; // orders of sets with predictions
const SIZES = ["small", "medium", "large"];

export function makeGrid(context) {
  let filters = null; // those of the set that is shown
  let shownSet = null;
  const cards = element("ol", { class: "cards", "aria-label": "samples" });
  const total = element("h1", { class: "total" });
  const chosen = element("div", { class: "chips" });
  const pager = makePager(PAGE);
  const tools = makeTools(context);
  const side = element("details", { class: "side", open: innerWidth > 860 }, element("summary", {}, "Filters"));
  const node = element(
    "div",
    { class: "with-side" },
    side,
    element(
      "section",
      { "aria-label": "samples" },
      element("div", { class: "tools" }, total, tools.node),
      chosen,
      cards,
      pager.node,
    ),
  );
  let shown = [];

  const update = async (params, signal) => {
    const set = setOf(context, params);
    if (set !== shownSet) {
      filters?.node.remove();
      filters = makeFilters(set, context);
      side.append(filters.node);
      tools.offer(set);
      shownSet = set;
    }
    const offset = Number(params.get("offset") ?? 0) || 0;
    const query = changed({ offset: String(offset), limit: String(PAGE) }, selection(params));
    const [answer] = await Promise.all([found(query, signal), filters.update(params, signal)]);
    if (signal.aborted) return "";
    shown = answer.samples;
    tools.update(params);
    total.textContent = counted(answer.total, "sample");
    replace(chosen, chips(params));
    replace(
      cards,
      shown.map((card) => element("li", {}, makeCard(card, params))),
    );
    if (!shown.length) replace(cards, notice(answer.error));
    cards.className = `cards ${params.get("size") ?? "medium"}`;
    cards.classList.toggle("labelled", params.get("labels") === "1");
    pager.update(params, offset, answer.total);
    announce(answer.error ?? counted(answer.total, "sample"));
    return "Samples";
  };
  const focused = () => shown.find((card) => cardId(card) === document.activeElement?.id);
  const keys = [
    [["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"], "move between samples", (event) => move(cards, event.key)],
    [["Enter"], "open the sample", () => false],
    [["m"], "mark the sample, with a note", () => editMark(focused(), context)],
    [["n"], "next page", () => pager.go(1)],
    [["p"], "previous page", () => pager.go(-1)],
    [["l"], "show labels", () => changeState({ labels: current().get("labels") === "1" ? null : "1" })],
    [
      ["f"],
      "show the filters",
      () => {
        side.open = !side.open;
        side.querySelector("summary").focus();
      },
    ],
  ];
  return { node, update, keys };
}

/** A page of samples. What the server refuses, such as a search without a word, shows in their place. */
async function found(query, signal) {
  try {
    return await api.samples(query, signal);
  } catch (error) {
    if (!(error instanceof api.ApiError)) throw error;
    return { total: 0, samples: [], error: error.message };
  }
}

function notice(error) {
  return element("li", { class: error ? "notice error" : "notice" }, error ?? "No sample matches these filters.");
}

function makeTools(context) {
  const sort = element("select", {
    id: "sort",
    onchange: () => changeState({ sort: sort.value, desc: null, random: null, offset: null }),
  });
  const turn = button("", () => changeState({ desc: current().has("desc") ? null : "1", offset: null }), {
    id: "desc",
  });
  const shuffle = button("Random", () => open(filtered({ random: newSeed(), sort: null, desc: null })), {
    id: "shuffle",
    title: "samples in a random order, which the seed in the address names (r)",
  });
  const worst = button("Worst first", () => changeState({ sort: "verdict", desc: null, random: null, offset: null }), {
    id: "worst",
  });
  const size = element(
    "select",
    {
      id: "size",
      "aria-label": "size of images",
      onchange: () => changeState({ size: size.value === "medium" ? null : size.value }),
    },
    SIZES.map((name) => element("option", { value: name }, `${name} images`)),
  );
  const node = element(
    "div",
    { class: "row" },
    element("label", { for: "sort" }, "Sort by"),
    sort,
    turn,
    worst,
    shuffle,
    size,
  );
  const offer = (set) => {
    const sorts = context.sort.filter((name) => set.predictions || !PREDICTED.includes(name));
    replace(
      sort,
      sorts.map((name) => element("option", { value: name }, SORTS[name] ?? name)),
      element("option", { value: "random", hidden: true }, "random"),
    );
    worst.hidden = !set.predictions;
  };
  const update = (params) => {
    const random = params.has("random");
    sort.value = random ? "random" : (params.get("sort") ?? context.sort[0]);
    const descending = params.get("desc") === "1";
    turn.textContent = descending ? "↓" : "↑";
    turn.title = descending ? "descending" : "ascending";
    turn.setAttribute("aria-label", `order: ${turn.title}`);
    turn.hidden = random;
    shuffle.textContent = random ? `Random, seed ${params.get("random")}` : "Random";
    size.value = params.get("size") ?? "medium";
    worst.setAttribute("aria-pressed", String(!random && !descending && params.get("sort") === "verdict"));
  };
  return { node, update, offer };
}

/** Moves the focus between cards, by their place on the screen. */
function move(cards, key) {
  const all = [...cards.querySelectorAll(".card")];
  const place = all.indexOf(document.activeElement);
  if (place < 0) {
    if (document.activeElement !== document.body && document.activeElement?.id !== "main") return false;
    all[0]?.focus();
    return true;
  }
  const columns = all.filter((card) => Math.abs(card.offsetTop - all[0].offsetTop) < 2).length;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
  const next = all[place + step];
  if (!next) return false;
  next.focus();
  return true;
}
