// The sets on the command line: one is viewed at a time.

import { ApiError } from "./api.mjs";
import { element, replace } from "./dom.mjs";
import { isolated } from "./text.mjs";
import { changed, open } from "./url_state.mjs";

/** The set that the address names: the first, if it names none. */
export function setOf(context, params) {
  const set = context.sets[Number(params.get("set") ?? 0)];
  if (!set)
    throw new ApiError(
      `there is no set ${params.get("set")}; the sets are numbered from 0 to ${context.sets.length - 1}`,
    );
  return set;
}

/** The numbers of rejected records of a set, by reason and source. */
export const rejectsOf = (context, set) => context.rejects.filter((item) => item.set === set.set);

/** Parameters that name a set and nothing else. */
export const only = (set, changes = {}) => changed({ set: set.set || null, ...changes }, new URLSearchParams());

/** The name of the set or, where there are several, the choice between them. Filters of one set mean nothing in another. */
export function makeSetChoice(context) {
  const [first] = context.sets;
  if (context.sets.length === 1) {
    const name = element("span", { class: "set-name", title: first.name });
    replace(name, isolated(first.name));
    return { node: name, update: () => {} };
  }
  const select = element(
    "select",
    {
      class: "set-name",
      id: "set",
      "aria-label": "set",
      onchange: () => open(only(context.sets[select.value], { view: select.dataset.view })),
    },
    context.sets.map((set) => element("option", { value: set.set }, set.name)),
  );
  const update = (params) => {
    select.value = params.get("set") ?? "0";
    select.dataset.view = params.get("view") ?? "";
  };
  return { node: select, update };
}
