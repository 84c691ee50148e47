// Starts the page, and shows the view that the address names.

import * as api from "./api.mjs";
import { announce, element, replace } from "./dom.mjs";
import { makeHeader } from "./header.mjs";
import { makeGrid } from "./grid.mjs";
import { listenToKeys } from "./keyboard.mjs";
import { makeMarks } from "./marks.mjs";
import { makeRejects } from "./rejects.mjs";
import { makeSample } from "./sample.mjs";
import { makeStatistics } from "./statistics.mjs";
import { current, onChange } from "./url_state.mjs";

const VIEWS = {
  grid: makeGrid,
  sample: makeSample,
  marks: makeMarks,
  rejects: makeRejects,
  statistics: makeStatistics,
};

const viewName = (params) =>
  params.has("sample") ? "sample" : Object.hasOwn(VIEWS, params.get("view")) ? params.get("view") : "grid";

/** Shows views in `main`. Each is made once, so that its controls keep their focus from one state to the next. */
class Page {
  #made = {};
  #shown = "";
  #running = new AbortController();

  constructor(main, context) {
    this.main = main;
    this.context = { ...context, refresh: () => this.show({ again: true }), view: () => this.#made[this.#shown] };
    this.header = makeHeader(this.context);
    replace(document.getElementById("header"), this.header.node);
    listenToKeys(this.context);
  }

  async show({ again = false } = {}) {
    this.#running.abort();
    this.#running = new AbortController();
    const { signal } = this.#running;
    const params = current();
    const name = viewName(params);
    const view = (this.#made[name] ??= VIEWS[name](this.context));
    const staying = again || (name === "sample" && this.#shown === name);
    const kept = again ? { scroll: scrollY, focus: document.activeElement?.id } : (history.state ?? {});
    this.header.update(params, name);
    this.main.setAttribute("aria-busy", "true");
    try {
      const title = await view.update(params, signal);
      if (signal.aborted) return;
      this.#put(name, view.node);
      document.title = `${title} · griffon-shards`;
    } catch (error) {
      if (signal.aborted) return;
      this.#put("", element("p", { class: "notice error", role: "alert" }, error.message));
      announce(error.message);
      if (!(error instanceof api.ApiError)) throw error;
    }
    this.main.removeAttribute("aria-busy");
    this.#resume(kept, staying);
  }

  #put(name, node) {
    if (node.parentNode !== this.main) replace(this.main, node);
    this.#shown = name;
  }

  /** Scrolls to where the state was left, and gives the focus back to what had it, if nothing else has it by now. */
  #resume({ scroll, focus }, staying) {
    const node = focus ? document.getElementById(focus) : null;
    if (scroll !== undefined || !staying) scrollTo(0, scroll ?? 0);
    if (node && !this.main.contains(document.activeElement)) node.focus({ preventScroll: scroll !== undefined });
  }
}

async function start() {
  const main = document.getElementById("main");
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    main.focus();
  });
  try {
    const page = new Page(main, { ...(await api.sets()) });
    onChange(() => page.show());
    await page.show();
  } catch (error) {
    replace(main, element("p", { class: "notice error", role: "alert" }, error.message));
    if (!(error instanceof api.ApiError)) throw error;
  }
}

start();
