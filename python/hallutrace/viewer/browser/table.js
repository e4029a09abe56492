// A table that is sorted by a click and draws only the rows that are seen.

import { el, fill } from "./dom.js";

const ROW = 28; // pixels, as in the style
const SPARE = 8; // rows above and below what is seen

/**
 * A virtual table.
 *   columns  [{name, value: (row) => sorted by, text?: (row) => shown, number?: true, cell?: (row) => element, width?}]
 *   rows     any values
 *   open     called with the row that is clicked, or on which Enter is pressed
 *   label    what it lists
 *   height   pixels
 * Returns an element with `setRows(rows)`.
 */
export function virtualTable({ columns, rows, open, label, height = 420, sortBy = null, descending = true }) {
  let shown = [...rows], order = { column: sortBy, descending };
  const body = el("div", { class: "rows" });
  const scroll = el("div", { class: "virtual", tabindex: "0", role: "grid", "aria-label": label, style: { maxHeight: `${height}px` }, onscroll: () => draw() });
  const grid = columns.map((one) => one.width ?? (one.number ? "7.5em" : "minmax(8em, 1fr)")).join(" ");
  const heads = columns.map((column) => el("button", { type: "button", class: column.number ? "number" : null, onclick: () => sort(column) }, column.name));
  const head = el("div", { class: "head", role: "row", style: { gridTemplateColumns: grid } },
    heads.map((one) => el("div", { role: "columnheader" }, one)));
  scroll.append(head, body);

  function sort(column) {
    order = { column, descending: order.column === column ? !order.descending : Boolean(column.number) };
    arrange();
  }

  function arrange() {
    const { column } = order;
    if (column) {
      const sign = order.descending ? -1 : 1;
      const absent = (value) => value === null || value === undefined || Number.isNaN(value);
      shown.sort((a, b) => {
        const [one, other] = [column.value(a), column.value(b)];
        if (absent(one) || absent(other)) return absent(one) - absent(other);
        return sign * (one < other ? -1 : one > other ? 1 : 0);
      });
    }
    heads.forEach((one, i) => {
      const sorted = columns[i] === column ? (order.descending ? "descending" : "ascending") : "none";
      one.parentNode.setAttribute("aria-sort", sorted);
    });
    draw();
  }

  function draw() {
    const first = Math.max(0, Math.floor(scroll.scrollTop / ROW) - SPARE);
    const count = Math.ceil((scroll.clientHeight || height) / ROW) + 2 * SPARE;
    body.style.height = `${shown.length * ROW}px`;
    fill(body, shown.slice(first, first + count).map((row, i) => drawRow(row, first + i)));
  }

  function drawRow(row, place) {
    const cells = columns.map((column) => el("div", { role: "gridcell", class: column.number ? "number" : null },
      column.cell ? column.cell(row) : column.text ? column.text(row) : column.value(row)));
    return el("div", {
      role: "row", class: open ? "openable" : null, tabindex: open ? "0" : null, "aria-rowindex": place + 2, "data-key": `row ${place}`,
      style: { gridTemplateColumns: grid, top: `${place * ROW}px` },
      onclick: open ? () => open(row) : null,
      onkeydown: open ? (event) => event.key === "Enter" && open(row) : null,
    }, cells);
  }

  scroll.setAttribute("aria-rowcount", shown.length + 1);
  scroll.setRows = (more) => { shown = [...more]; scroll.setAttribute("aria-rowcount", shown.length + 1); arrange(); };
  arrange();
  requestAnimationFrame(draw); // now its height is known
  return scroll;
}
