// The records that the build left out, by reason.

import * as api from "./api.mjs";
import { announce, counted, element, replace } from "./dom.mjs";
import { makePager } from "./paging.mjs";
import { rejectsOf, setOf } from "./sets.mjs";
import { isolated, visible } from "./text.mjs";
import { filtered, href } from "./url_state.mjs";

const PAGE = 40;

export function makeRejects(context) {
  const title = element("h1", {});
  const reasons = element("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "reasons" });
  const list = element("ol", { class: "rejects", "aria-label": "rejected records" });
  const pager = makePager(PAGE);
  const node = element("section", { class: "page" }, title, reasons, list, pager.node);
  const update = async (params, signal) => {
    const offset = Number(params.get("offset") ?? 0) || 0;
    const query = new URLSearchParams({ offset, limit: PAGE });
    for (const name of ["set", "reason", "source"]) if (params.has(name)) query.set(name, params.get(name));
    const answer = await api.rejects(query, signal);
    if (signal.aborted) return "";
    title.textContent = counted(answer.total, "rejected record");
    replace(reasons, reasonTable(rejectsOf(context, setOf(context, params)), params));
    list.start = offset + 1;
    replace(
      list,
      answer.rejects.map((reject) => item(reject, setOf(context, params))),
    );
    pager.update(params, offset, answer.total);
    announce(title.textContent);
    return "Rejects";
  };
  const keys = [
    [["n"], "next page", () => pager.go(1)],
    [["p"], "previous page", () => pager.go(-1)],
  ];
  return { node, update, keys };
}

function reasonTable(rejects, params) {
  const link = (text, changes, count, here) =>
    element(
      "tr",
      { class: here ? "here" : null },
      element(
        "th",
        { scope: "row" },
        element(
          "a",
          { href: href(filtered({ view: "rejects", ...changes }, params)), "aria-current": here ? "true" : null },
          text,
        ),
      ),
      element("td", { class: "name" }, changes.source ? isolated(changes.source) : "all sources"),
      element("td", {}, count.toLocaleString("en")),
    );
  const chosen = [params.get("reason"), params.get("source")];
  const all = rejects.reduce((sum, item) => sum + item.count, 0);
  return element(
    "table",
    {},
    element(
      "thead",
      {},
      element(
        "tr",
        {},
        ["reason", "source", "records"].map((text) =>
          element("th", { scope: "col", class: text === "source" ? "name" : null }, text),
        ),
      ),
    ),
    element(
      "tbody",
      {},
      link("all reasons", { reason: null, source: null }, all, !chosen[0] && !chosen[1]),
      rejects.map((item) =>
        link(
          visible(item.reason),
          { reason: item.reason, source: item.source },
          item.count,
          item.reason === chosen[0] && (!chosen[1] || chosen[1] === item.source),
        ),
      ),
    ),
  );
}

function item(reject, set) {
  const path = api.rejectImagePath(set.set, reject.number);
  const image = reject.image
    ? element("img", { src: path, alt: `image of record ${reject.record}`, loading: "lazy" })
    : null;
  const thumb = element("div", { class: "thumb" }, image ?? element("span", { class: "soft" }, "no image found"));
  image?.addEventListener("error", async () =>
    replace(thumb, element("span", { class: "error" }, visible(await api.imageError(path)))),
  );
  return element(
    "li",
    {},
    thumb,
    element(
      "div",
      {},
      element("p", {}, element("strong", {}, visible(reject.reason))),
      element("p", {}, isolated(reject.source), ", record ", reject.record.toLocaleString("en")),
      element("p", { class: "text", dir: "auto" }, visible(reject.detail ?? "")),
    ),
  );
}
