// Charts in SVG: lines with bands, bars, points. Pictures of a fixed inner size that scale with the page.

import { svg } from "./dom.js";
import { number } from "./format.js";
import { outline } from "./shapes.js";

/** Round steps that cover [low, high]. */
export function ticks(low, high, count = 5) {
  if (!(high > low)) return [low];
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

/** A linear scale: call it with a value, get a position. */
export function scale([low, high], [from, to]) {
  const factor = high === low ? 0 : (to - from) / (high - low);
  const place = (value) => from + (value - low) * factor;
  place.domain = [low, high];
  return place;
}

/**
 * A chart with two axes.
 *   x, y     {label, domain: [low, high], format?, ticks?: [values], names?: [texts of ticks]}
 *   series   [{kind: "line"|"step"|"band"|"bars"|"points"|"rule", name, color, dash?, data}]
 *            line, step: data [[x, y]...]; band: [[x, low, high]...]; bars: [[x0, x1, height, base?]...];
 *            points: [[x, y, title?]...] with shape; rule: [[x0, y0, x1, y1]...]
 *   alt      the sentence for those who do not see it
 */
export function chart({ x, y, series, alt, width = 460, height = 280, legend = true }) {
  const named = legend ? series.filter((one) => one.name) : [];
  const top = named.length > 1 ? 12 + 16 * Math.ceil(named.length / 2) : 10;
  const inner = { left: 52, right: width - 12, top, bottom: height - 40 };
  const at = { x: scale(x.domain, [inner.left, inner.right]), y: scale(y.domain, [inner.bottom, inner.top]) };
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": alt, class: "chart" },
    gridlines(y, at, inner), series.map((one) => DRAW[one.kind](one, at)),
    axes(x, y, at, inner, width), named.length > 1 ? named.map((one, i) => legendEntry(one, i, inner)) : null);
}

const tickValues = (axis) => axis.ticks ?? ticks(...axis.domain);
const tickText = (axis, value, i) => (axis.names ? axis.names[i] : (axis.format ?? number)(value));

function gridlines(y, at, { left, right }) {
  return tickValues(y).map((value) => svg("line", { class: "gridline", x1: left, x2: right, y1: at.y(value), y2: at.y(value) }));
}

function axes(x, y, at, { left, right, top, bottom }, width) {
  return [
    svg("path", { class: "axis", d: `M${left},${top}V${bottom}H${right}` }),
    tickValues(x).map((value, i) => svg("text", { class: "tick", x: at.x(value), y: bottom + 15, "text-anchor": "middle" }, tickText(x, value, i))),
    tickValues(y).map((value, i) => svg("text", { class: "tick", x: left - 6, y: at.y(value) + 4, "text-anchor": "end" }, tickText(y, value, i))),
    svg("text", { class: "muted", x: (left + right) / 2, y: bottom + 33, "text-anchor": "middle" }, x.label),
    svg("text", { class: "muted", transform: `translate(12,${(top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, y.label),
  ];
}

function legendEntry(one, i, { left, right }) {
  const place = { x: left + (i % 2) * (right - left) / 2, y: 14 + 16 * Math.floor(i / 2) };
  const sign = one.kind === "points"
    ? mark(one.shape, place.x + 9, place.y - 4, 4, one.color)
    : svg("line", { x1: place.x, x2: place.x + 18, y1: place.y - 4, y2: place.y - 4, stroke: one.color, "stroke-width": one.kind === "line" || one.kind === "step" ? 2 : 8, "stroke-dasharray": one.dash });
  return [sign, svg("text", { x: place.x + 24, y: place.y }, one.name)];
}

/** A point in the shape of its class. */
export function mark(shape, x, y, size, color, title = null) {
  return svg("path", { d: outline(shape, x, y, size), fill: color }, title ? svg("title", {}, title) : null);
}

const path = (points) => points.filter(([, y]) => Number.isFinite(y)).map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(2)},${y.toFixed(2)}`).join("");

const DRAW = {
  line: ({ data, color, dash }, at) => svg("path", { d: path(data.map(([x, y]) => [at.x(x), at.y(y)])), fill: "none", stroke: color, "stroke-width": 2, "stroke-dasharray": dash }),
  step: ({ data, color, dash }, at) => svg("path", { d: path(data.flatMap(([x, y], i) => (i ? [[at.x(x), at.y(data[i - 1][1])], [at.x(x), at.y(y)]] : [[at.x(x), at.y(y)]]))), fill: "none", stroke: color, "stroke-width": 2, "stroke-dasharray": dash }),
  band: ({ data, color }, at) => svg("path", { d: `${path([...data.map(([x, low]) => [at.x(x), at.y(low)]), ...[...data].reverse().map(([x, , high]) => [at.x(x), at.y(high)])])}Z`, fill: color, "fill-opacity": 0.18 }),
  bars: ({ data, color, dash }, at) => data.map(([from, to, height, base = 0]) => svg("rect", {
    x: Math.min(at.x(from), at.x(to)), width: Math.max(Math.abs(at.x(to) - at.x(from)) - 1, 0.5), y: at.y(base + height), height: Math.max(at.y(base) - at.y(base + height), 0),
    fill: dash ? "none" : color, stroke: dash ? color : null, "fill-opacity": dash ? null : 0.75, "stroke-dasharray": dash,
  })),
  points: ({ data, color, shape }, at) => data.map(([x, y, title]) => mark(shape, at.x(x), at.y(y), 4, color, title)),
  rule: ({ data, color, dash }, at) => data.map(([x0, y0, x1, y1]) => svg("line", { x1: at.x(x0), y1: at.y(y0), x2: at.x(x1), y2: at.y(y1), stroke: color, "stroke-dasharray": dash })),
};
