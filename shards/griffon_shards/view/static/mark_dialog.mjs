// The question for a mark's note.

import * as api from "./api.mjs";
import { announce, button, element, replace } from "./dom.mjs";
import { isolated } from "./text.mjs";

/** Asks for the note of a sample's mark, and saves or removes the mark. */
export function editMark(sample, context) {
  if (!sample) return;
  const focus = document.activeElement;
  const text = element("textarea", { id: "note", rows: 3, maxlength: 1000, dir: "auto", "aria-label": "note" });
  text.value = sample.mark ?? "";
  const problem = element("p", { class: "error", role: "alert" });
  const dialog = element("dialog", { class: "mark", "aria-labelledby": "mark-title" });
  const act = async (action, done) => {
    try {
      await action();
    } catch (error) {
      problem.textContent = error.message;
      return;
    }
    dialog.close();
    await context.refresh();
    announce(done);
  };
  const save = () => act(() => api.saveMark(sample.set, sample.row, text.value.trim()), "the mark is saved");
  text.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    save();
  });
  replace(
    dialog,
    element("h2", { id: "mark-title" }, "Mark ", isolated(sample.key)),
    element("p", { class: "soft" }, "What is doubtful about it? Enter saves, Shift+Enter begins a new line."),
    text,
    problem,
    element(
      "p",
      { class: "actions" },
      sample.mark === null
        ? null
        : button("Remove mark", () => act(() => api.removeMark(sample.set, sample.row), "the mark is removed")),
      button("Cancel", () => dialog.close()),
      button("Save", save, { class: "first" }),
    ),
  );
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (focus?.isConnected) focus.focus();
  });
  document.body.append(dialog);
  dialog.showModal();
  text.focus();
}
