// A grid of layers x heads in SVG: colours with their scale, marks, arrow keys.

import { mark } from "./chart.js";
import { css, ink } from "./colors.js";
import { svg } from "./dom.js";
import { number } from "./format.js";

const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
const LEFT = 46, TOP = 34, SCALE = 62, NAMED = 46; // pixels; cells as wide as NAMED show their number

/**
 * The grid. A cell is layer * columns + head; one without a value is blank.
 *   layers   their numbers, from the top
 *   heads    how many each has
 *   values   one a cell
 *   scale    {low, high, middle?, color: value => [r, g, b], label, format?}
 *   color    optional cell => [r, g, b], where it is not the value that is coloured
 *   sign     optional cell => "triangle" | "circle" | "square" of a cell that is marked, else null
 *   pale     whether cells without a mark are pale
 *   text     cell => what it holds, in words
 *   show     called with the cell that is pointed at or has the focus
 *   open     called with layer and head
 *   chosen   cell, or -1
 *   label    for those who do not see it
 */
export function headGrid({ layers, heads, values, scale, color = (at) => scale.color(values[at]), sign = null, pale = false, text, show, open, chosen = -1, label }) {
  const columns = Math.max(...heads);
  const room = Math.min(832, document.documentElement.clientWidth - LEFT - 40);
  const size = { width: Math.max(9, Math.min(64, Math.floor(room / columns))), height: Math.max(13, Math.min(30, Math.floor(600 / layers.length))) };
  const right = LEFT + columns * size.width, bottom = TOP + layers.length * size.height;
  const cells = [];
  const rows = layers.map((_, row) => svg("g", { role: "row" }, Array.from({ length: heads[row] }, (_, head) => {
    const at = row * columns + head;
    cells[at] = cell(at, LEFT + head * size.width, TOP + row * size.height, size, { values, scale, color: color(at), sign, pale, text });
    return cells[at];
  })));
  const picture = svg("svg", {
    viewBox: `0 0 ${Math.max(right + 8, 326)} ${bottom + SCALE}`, class: "chart headgrid", role: "grid", "aria-label": label,
    style: { maxWidth: `${Math.max(right + 8, 326)}px` },
  }, names(layers, columns, size, bottom), rows, legend(scale, bottom));
  let focused = cells[chosen] ? chosen : cells.findIndex(Boolean);

  function choose(at) {
    cells[chosen]?.classList.remove("chosen");
    cells[chosen]?.removeAttribute("aria-selected");
    chosen = at;
    cells[at]?.classList.add("chosen");
    cells[at]?.setAttribute("aria-selected", "true");
  }

  function focus(at) {
    cells[focused].setAttribute("tabindex", "-1");
    focused = at;
    cells[at].setAttribute("tabindex", "0");
    cells[at].focus();
  }

  const of = (event) => Number(event.target.closest("[data-cell]")?.dataset.cell ?? -1);
  const opened = (at) => { choose(at); open(layers[Math.floor(at / columns)], at % columns); };
  picture.addEventListener("pointerover", (event) => of(event) >= 0 && show(of(event)));
  picture.addEventListener("focusin", (event) => of(event) >= 0 && show(of(event)));
  picture.addEventListener("click", (event) => { if (of(event) >= 0) { focus(of(event)); opened(of(event)); } });
  picture.addEventListener("keydown", (event) => {
    const at = of(event);
    if (at < 0) return;
    const [row, head] = [Math.floor(at / columns), at % columns];
    let next = null;
    if (STEPS[event.key]) next = (row + STEPS[event.key][0]) * columns + Math.min(Math.max(head + STEPS[event.key][1], 0), columns - 1);
    else if (event.key === "Home") next = row * columns;
    else if (event.key === "End") next = row * columns + heads[row] - 1;
    else if (event.key === "Enter" || event.key === " ") opened(at);
    else return;
    event.preventDefault();
    if (next !== null && cells[next]) focus(next);
  });
  if (focused >= 0) cells[focused].setAttribute("tabindex", "0");
  choose(chosen);
  picture.choose = choose;
  return picture;
}

function cell(at, x, y, { width, height }, { values, scale, color, sign, pale, text }) {
  const shape = sign ? sign(at) : null;
  const faint = pale && !shape;
  const written = width >= NAMED ? svg("text", {
    x: x + width / 2 + (shape ? 5 : 0), y: y + height / 2 + 4, "text-anchor": "middle", class: faint ? "muted" : null,
    style: faint ? {} : { fill: ink(color) },
  }, (scale.format ?? number)(values[at])) : null;
  const place = written ? [x + 9, y + height / 2, 3.5] : [x + width / 2, y + height / 2, Math.min(width, height) / 5];
  return svg("g", { role: "gridcell", tabindex: "-1", "data-cell": at, "aria-label": text(at), class: "cell" },
    svg("rect", { x: x + 0.5, y: y + 0.5, width: width - 1, height: height - 1, fill: css(color), "fill-opacity": faint ? 0.28 : 1 }),
    shape ? mark(shape, ...place, ink(color)) : null, written);
}

/** Numbers of layers and heads; of many every other, or every fourth. */
function names(layers, columns, { width, height }, bottom) {
  const every = (step, size) => (size >= step ? 1 : 2 * size >= step ? 2 : 4);
  const [rows, heads] = [every(13, height), every(22, width)];
  return svg("g", { "aria-hidden": "true" },
    svg("text", { class: "muted", x: LEFT, y: 12 }, "head"),
    svg("text", { class: "muted", transform: `translate(12,${(TOP + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, "layer"),
    Array.from({ length: columns }, (_, head) => (head % heads ? null
      : svg("text", { class: "tick", x: LEFT + (head + 0.5) * width, y: TOP - 5, "text-anchor": "middle" }, head))),
    layers.map((layer, row) => (row % rows ? null
      : svg("text", { class: "tick", x: LEFT - 6, y: TOP + (row + 0.5) * height + 4, "text-anchor": "end" }, layer))));
}

/** The colours with their numbers. */
function legend({ low, high, middle, color, label, format = number }, bottom) {
  const count = 48, width = 5, y = bottom + 14;
  const step = (i) => low + ((high - low) * (i + 0.5)) / count;
  const marks = [[low, "start"], ...(middle === undefined ? [] : [[middle, "middle"]]), [high, "end"]];
  return svg("g", { "aria-hidden": "true" },
    Array.from({ length: count }, (_, i) => svg("rect", { x: LEFT + i * width, y, width: width + 0.3, height: 10, fill: css(color(step(i))) })),
    marks.map(([value, anchor]) => svg("text", {
      class: "tick", y: y + 23, "text-anchor": anchor, x: LEFT + (high > low ? ((value - low) / (high - low)) * count * width : 0),
    }, format(value))),
    svg("text", { class: "muted", x: LEFT, y: y + 39 }, label));
}
