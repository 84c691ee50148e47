// Plots as SVG, with the shapes and classes of the page that `griffon-shards stats --html` writes.

import { counted, svg } from "./dom.mjs";

const [WIDTH, HEIGHT, SIDE, TOP, BOTTOM] = [320, 150, 6, 8, 20];
const MOST_LABELS = 6;
const HEAT_LEVELS = 8;
const RANKS_PER_DECADE = 24;

/**
 * A histogram. The bins widen with the values.
 *
 * @param {string} title
 * @param {{bins: {start: number, stop: number, count: number}[]}} values
 * @param {(value: number) => string} write writes a value
 * @param {(bin: object) => string | null} [target] the address of the samples in a bin
 */
export function histogram(title, values, write, target = () => null) {
  const { bins } = values;
  const highest = Math.max(...bins.map((bin) => bin.count));
  const step = (WIDTH - 2 * SIDE) / bins.length;
  const [bottom, room] = [HEIGHT - BOTTOM, HEIGHT - BOTTOM - TOP];
  const every = Math.ceil(bins.length / MOST_LABELS);
  const bars = bins.map((bin, i) => {
    const height = Math.max((bin.count / highest) * room, bin.count ? 1 : 0);
    const x = SIDE + i * step;
    const label = `${write(bin.start)} to below ${write(bin.stop)}: ${bin.count.toLocaleString("en")}`;
    const bar = svg(
      "rect",
      { class: "bar", x, y: bottom - height, width: Math.max(step - 1, 0.5), height },
      svg("title", {}, label),
    );
    const link = bin.count ? target(bin) : null;
    return [
      link
        ? svg(
            "a",
            { href: link, "aria-label": label },
            svg("rect", { class: "hit", x, y: TOP, width: step, height: room }, svg("title", {}, label)),
            bar,
          )
        : bar,
      i % every ? null : svg("text", { x, y: HEIGHT - 5 }, write(bin.start)),
    ];
  });
  const label = `${title}: median ${write(values.p50)}, largest ${write(values.most)}`;
  return plot(
    label,
    "plot",
    WIDTH,
    HEIGHT,
    bars,
    svg("path", { class: "axis", d: `M${SIDE} ${bottom + 0.5}H${WIDTH - SIDE}` }),
  );
}

/** A map of box centres: the stronger a cell, the more. @param {number[][]} heat rows from the top */
export function heatMap(name, heat) {
  const highest = Math.max(...heat.flat());
  const paths = Array.from({ length: HEAT_LEVELS }, () => []);
  heat.forEach((row, y) =>
    row.forEach(
      (count, x) => count && paths[Math.floor((count * HEAT_LEVELS - 1) / highest)].push(`M${x} ${y}h1v1h-1z`),
    ),
  );
  const [width, height] = [heat[0].length, heat.length];
  return plot(
    `box centres of ${name}; the fullest cell has ${highest.toLocaleString("en")}`,
    "map",
    width,
    height,
    svg("rect", { class: "field", width, height }),
    paths.map((path, i) => (path.length ? svg("path", { class: `heat${i + 1}`, d: path.join("") }) : null)),
  );
}

/** Boxes of each category by its rank, both axes logarithmic. @param {{boxes: number}[]} categories descending */
export function rankPlot(categories) {
  const [most, fewest] = [categories[0].boxes, categories.at(-1).boxes];
  const [widest, highest] = [Math.max(Math.log10(categories.length), 0.01), Math.max(Math.log10(most), 0.01)];
  const [left, right, bottom] = [34, WIDTH - SIDE - 20, HEIGHT - BOTTOM];
  const x = (rank) => (left + ((right - left) * Math.log10(rank)) / widest).toFixed(1);
  const y = (boxes) => (bottom - ((bottom - TOP) * Math.log10(boxes)) / highest).toFixed(1);
  const decades = (last) => Array.from({ length: Math.floor(last) + 1 }, (_, i) => 10 ** i);
  return plot(
    `boxes of ${counted(categories.length, "category", "categories")} by rank, from ${most.toLocaleString("en")} to ${fewest.toLocaleString("en")}`,
    "plot",
    WIDTH,
    HEIGHT,
    svg("path", { class: "axis", d: `M${left} ${TOP}V${bottom}H${right}` }),
    svg("polyline", {
      class: "curve",
      points: ranks(categories.length)
        .map((rank) => `${x(rank)},${y(categories[rank - 1].boxes)}`)
        .join(" "),
    }),
    svg("circle", { class: "bar", cx: x(1), cy: y(most), r: 2.5 }),
    decades(widest).map((power) => svg("text", { x: x(power), y: HEIGHT - 5 }, power.toLocaleString("en"))),
    decades(highest).map((power) => svg("text", { class: "left", x: left - 4, y: Number(y(power)) + 3 }, short(power))),
  );
}

/** Ranks from 1 to the last, about equally far apart on a logarithmic axis. */
function ranks(last) {
  const chosen = [];
  for (let rank = 1; rank < last; rank = Math.max(rank + 1, rank * 10 ** (1 / RANKS_PER_DECADE)))
    chosen.push(Math.floor(rank));
  return [...chosen, last];
}

const short = (value) => new Intl.NumberFormat("en", { notation: "compact" }).format(value);

function plot(label, kind, width, height, ...parts) {
  const linked = kind === "plot" && parts.flat(Infinity).some((part) => part?.tagName === "a");
  return svg(
    "svg",
    { class: kind, viewBox: `0 0 ${width} ${height}`, role: linked ? "group" : "img", "aria-label": label },
    parts,
  );
}
