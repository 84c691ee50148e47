// How a prediction did, in a few words.

import { element } from "./dom.mjs";

export function verdict({ verdict: word, iou }) {
  return iou === null || iou === undefined ? word : `${word} · IoU ${iou.toFixed(2)}`;
}

export const verdictBadge = (prediction) => element("span", { class: `badge ${prediction.verdict}` }, verdict(prediction));
