// The state of every view is in its address, so that it can be mailed, and the browser's back and forward work.

/** What selects samples: passed on to the server. */
export const FILTERS = [
  "set",
  "source",
  "task",
  "category",
  "boxes",
  "smallest",
  "width",
  "height",
  "length",
  "q",
  "verdict",
  "iou",
  "marked",
  "random",
];
const ORDER = ["sort", "desc"];
/** What belongs to one page of a view, and does not outlast a change of the filters. */
const PLACE = ["view", "sample", "offset", "variant", "box", "zoom", "group", "reason"];

export const current = () => new URLSearchParams(location.search);

/** The parameters with changes: a value, an array of values, or null for none. */
export function changed(changes, params = current()) {
  const made = new URLSearchParams(params);
  for (const [name, value] of Object.entries(changes)) {
    made.delete(name);
    for (const item of Array.isArray(value) ? value : [value]) {
      if (item !== null && item !== undefined && item !== "" && item !== false) made.append(name, String(item));
    }
  }
  return made;
}

/** The parameters of the grid, with changes to the filters: it starts at its first page. */
export function filtered(changes, params = current()) {
  return changed({ ...Object.fromEntries(PLACE.map((name) => [name, null])), ...changes }, params);
}

/** The parameters that choose and order samples, for the server. */
export function selection(params) {
  const chosen = new URLSearchParams();
  for (const name of [...FILTERS, ...ORDER]) for (const value of params.getAll(name)) chosen.append(name, value);
  return chosen;
}

/** `MIN-MAX` as [min, max], each a text that may be empty. */
export function range(text) {
  const match = /^([0-9.]*)-([0-9.]*)$/.exec(text ?? "");
  return match ? [match[1], match[2]] : ["", ""];
}

export const href = (params) => `/${params.size ? `?${params}` : ""}`;

/** Opens a state. The entry that is left keeps where it was scrolled to and what had the focus.
 * `focus` names what is to have it in the new one. */
export function open(params, { replacing = false, focus = "" } = {}) {
  remember();
  // A key that is pressed again before the next view is there asks for the same state.
  if (replacing || href(params) === location.pathname + location.search)
    history.replaceState(history.state, "", href(params));
  else history.pushState(focus ? { focus } : null, "", href(params));
  dispatchEvent(new Event("statechange"));
}

/** Writes a state into the address that the view shows already. */
export function note(params) {
  history.replaceState(history.state, "", href(params));
}

export function remember() {
  history.replaceState({ scroll: scrollY, focus: document.activeElement?.id ?? "" }, "");
}

/** Calls back when the state has changed, by a link of the page, by `open`, or by back and forward. */
export function onChange(callback) {
  history.scrollRestoration = "manual";
  addEventListener("statechange", callback);
  addEventListener("popstate", callback);
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href^='/']");
    if (!link || event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const target = new URL(link.getAttribute("href"), location); // a link in an SVG has no plain `href`
    if (target.pathname !== "/" || link.target) return;
    event.preventDefault();
    open(target.searchParams, { focus: link.dataset.focus ?? link.id });
  });
}
