// Keys. Each view lists its own as [keys, text, action]; the list is also what `?` shows.

import { button, element, replace } from "./dom.mjs";
import { filtered, open, changed, current } from "./url_state.mjs";

const COMMON = [
  [["/"], "search", () => document.getElementById("search").focus()],
  [["g"], "all samples of the filter", () => open(filtered({}))],
  [["r"], "samples in a random order", () => open(filtered({ random: newSeed(), sort: null, desc: null }))],
  [["?"], "show the keys", null],
];
const SHOWN = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", " ": "space" };

export const newSeed = () => 1 + Math.floor(Math.random() * 99_999);

export const changeState = (changes) => open(changed(changes, current()));

export function listenToKeys(context) {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.defaultPrevented) return;
    if (document.querySelector("dialog[open]") || isTyping(event.target)) {
      if (event.key === "Escape" && event.target.id === "search") event.target.blur();
      return;
    }
    if (event.key === "?") return void showKeys(context);
    const all = [...(context.view()?.keys ?? []), ...COMMON];
    const match = all.find(([keys, , action]) => action && keys.includes(event.key));
    if (match && match[2](event) !== false) event.preventDefault();
  });
}

/** Whether keys belong to a control. Check boxes and buttons have no use for letters. */
function isTyping(node) {
  if (node.matches?.("textarea, select, [contenteditable]")) return true;
  return Boolean(node.matches?.("input:not([type=checkbox], [type=radio])"));
}

export function showKeys(context) {
  document.getElementById("keys")?.remove();
  const rows = [...(context.view()?.keys ?? []), ...COMMON].map(([keys, text]) =>
    element(
      "tr",
      {},
      element(
        "th",
        { scope: "row" },
        keys.map((key, i) => [i ? " " : null, element("kbd", {}, SHOWN[key] ?? key)]),
      ),
      element("td", {}, text),
    ),
  );
  const dialog = element("dialog", { id: "keys", "aria-labelledby": "keys-title" });
  replace(
    dialog,
    element("h2", { id: "keys-title" }, "Keys"),
    element("table", {}, element("tbody", {}, rows)),
    element("p", { class: "soft" }, "Tab reaches every control. Inside an answer and between boxes, arrow keys move."),
    element(
      "p",
      { class: "actions" },
      button("Close", () => dialog.close()),
    ),
  );
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
