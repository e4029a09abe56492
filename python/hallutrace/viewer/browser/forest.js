// A forest plot: a row for each thing, with its value and interval.

import { svg } from "./dom.js";
import { decimals, line } from "./format.js";
import { scale, ticks } from "./chart.js";

const ROW = 20;

/**
 * rows       [{name, value, low, high, text, brief, color?, hollow?, strong?}]; those without a value show their text
 *            alone; on a narrow screen `brief` stands for the text
 * references [{value, name}], vertical lines
 * label      of the axis
 */
export function forest({ rows, references, label, alt }) {
  const narrow = innerWidth < 560, width = narrow ? 350 : 640, limit = narrow ? 18 : 34;
  const known = rows.filter((one) => Number.isFinite(one.value));
  const ends = [...known.flatMap((one) => [one.low, one.high]), ...references.map((one) => one.value)];
  const pad = (Math.max(...ends) - Math.min(...ends) || 0.1) * 0.05;
  const names = Math.min(230, Math.max(90, ...rows.map((one) => 8 + 6.6 * Math.min(one.name.length, limit))));
  const text = (one) => (narrow ? one.brief : one.text);
  const texts = Math.max(...rows.map((one) => (one.value === undefined ? 0 : 6.4 * text(one).length)), 40);
  const inner = { left: names + 8, right: width - texts - 12, top: 22, bottom: 22 + ROW * rows.length };
  const at = scale([Math.min(...ends) - pad, Math.max(...ends) + pad], [inner.left, inner.right]);
  const steps = ticks(...at.domain, narrow ? 2 : 4);
  return svg("svg", { viewBox: `0 0 ${width} ${inner.bottom + 38}`, role: "img", "aria-label": alt, class: "chart wide" },
    steps.map((one) => [
      svg("line", { class: "gridline", x1: at(one), x2: at(one), y1: inner.top, y2: inner.bottom }),
      svg("text", { class: "tick", x: at(one), y: inner.bottom + 15, "text-anchor": "middle" }, decimals(one, 2)),
    ]),
    references.map((one) => [
      svg("line", { x1: at(one.value), x2: at(one.value), y1: inner.top - 4, y2: inner.bottom, stroke: "var(--muted)", "stroke-dasharray": "4 3" }),
      svg("text", { class: "muted", x: at(one.value), y: inner.top - 9, "text-anchor": "middle" }, one.name),
    ]),
    rows.map((one, i) => drawn(one, inner.top + ROW * i + ROW / 2, at, inner, { width, limit, text: text(one) })),
    svg("text", { class: "muted", x: (inner.left + inner.right) / 2, y: inner.bottom + 33, "text-anchor": "middle" }, label));
}

function drawn(one, y, at, inner, { width, limit, text }) {
  const color = one.color ?? "var(--neutral)";
  const name = svg("text", { x: inner.left - 8, y: y + 4, "text-anchor": "end", "font-weight": one.strong ? 700 : null, class: one.value === undefined ? "muted" : null }, line(one.name, limit));
  if (one.value === undefined) return [name, svg("text", { class: "muted", x: inner.left, y: y + 4 }, line(one.text, limit + 10))];
  return [
    name,
    svg("line", { x1: at(one.low), x2: at(one.high), y1: y, y2: y, stroke: color, "stroke-width": 2 }),
    svg(one.hollow ? "rect" : "circle", one.hollow
      ? { x: at(one.value) - 4, y: y - 4, width: 8, height: 8, fill: "var(--paper)", stroke: color, "stroke-width": 2 }
      : { cx: at(one.value), cy: y, r: 4.5, fill: color }),
    svg("text", { x: width - 4, y: y + 4, "text-anchor": "end", "font-weight": one.strong ? 700 : null }, text),
  ];
}
