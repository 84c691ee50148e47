// How a prediction did, in a few words.

import { element } from "./dom.mjs";

/** Verdict and IoU. Some answers, such as long ones of LAZY, have neither: many wordings are right. */
export function verdict({ verdict: word, iou }) {
  const parts = [word ?? "not judged", iou === null ? null : `IoU ${iou.toFixed(2)}`];
  return parts.filter((part) => part !== null).join(" · ");
}

/** The intersection over union of two boxes. An inverted box has no area. */
export function iouOf([ax1, ay1, ax2, ay2], [bx1, by1, bx2, by2]) {
  const shared =
    Math.max(0, Math.min(ax2, bx2) - Math.max(ax1, bx1)) * Math.max(0, Math.min(ay2, by2) - Math.max(ay1, by1));
  const area = (x1, y1, x2, y2) => Math.max(0, x2 - x1) * Math.max(0, y2 - y1);
  return shared / (area(ax1, ay1, ax2, ay2) + area(bx1, by1, bx2, by2) - shared) || 0;
}

export const verdictBadge = (prediction) =>
  element("span", { class: `badge ${prediction.verdict ?? "not-judged"}` }, verdict(prediction));
