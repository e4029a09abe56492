// The frame of every chart: a title, a sentence that says what it shows, the picture, its numbers.

import { el, fill, svg } from "./dom.js";
import { number } from "./format.js";

const CANVAS_STYLE = ["--ink", "--muted", "--line", "--paper", "--right", "--hallucinated", "--neutral", "--accent"];

/**
 * A chart with all that belongs to it.
 *   title     short
 *   sentence  what it shows, and with how many traces
 *   picture   an <svg> or <canvas>, or any element that holds one
 *   table     {columns: [names], rows: [[values]]}, or a function that gives it when it is opened
 *   name      of the files that are saved
 *   controls  elements above the picture
 *   isSaved   whether the picture can be saved: it is, or has, an <svg> or a <canvas>
 *   drawing   gives what is saved as the picture, where that is not the first <svg> or <canvas>
 */
export function figure({ title, sentence, picture, table, name, controls = [], isSaved = true, drawing = null }) {
  const saves = [];
  const drawn = () => drawing?.() ?? (picture.matches("svg, canvas") ? picture : picture.querySelector("svg, canvas"));
  if (picture && isSaved) saves.push(el("button", { type: "button", class: "quiet", onclick: () => savePicture(drawn(), name) }, "Save picture"));
  if (table) saves.push(el("button", { type: "button", class: "quiet", onclick: () => saveTable(given(table), name) }, "Save CSV"));
  return el("figure", { class: "figure" },
    el("figcaption", {}, el("h3", {}, title), el("p", {}, sentence)),
    controls.length ? el("div", { class: "controls" }, controls) : null,
    picture,
    el("div", { class: "below" }, table ? numbers(table) : null, el("div", { class: "saves" }, saves)));
}

const given = (table) => (typeof table === "function" ? table() : table);

function numbers(table) {
  const place = region("Numbers of the figure");
  const details = el("details", { class: "numbers", ontoggle: () => details.open && fill(place, plainTable(given(table))) },
    el("summary", {}, "Numbers"), place);
  return details;
}

/** A part that scrolls, by keys too; `kind` is a class of the style. */
export const region = (label, content = null, kind = "") => el("div", { class: `scroll ${kind}`, tabindex: "0", role: "region", "aria-label": label }, content);

/** A small table; numbers are aligned right. At most `limit` rows, and a word on the others. */
export function plainTable({ columns, rows }, limit = 500) {
  const cell = (value) => (typeof value === "number"
    ? el("td", { class: "number" }, number(value, 4))
    : el("td", {}, value instanceof Node ? value : String(value ?? "–")));
  return [
    el("table", { class: "plain" },
      el("thead", {}, el("tr", {}, columns.map((one) => el("th", { scope: "col" }, one)))),
      el("tbody", {}, rows.slice(0, limit).map((row) => el("tr", {}, row.map(cell))))),
    rows.length > limit ? el("p", { class: "note" }, `${number(rows.length - limit)} more rows are in the CSV.`) : null,
  ];
}

/** A table as CSV; text that a spreadsheet would run as a formula gets an apostrophe before it. */
function toCsv({ columns, rows }) {
  const text = (value) => {
    let written = value === null || value === undefined ? "" : String(value instanceof Node ? value.textContent : value);
    if (typeof value !== "number" && /^[=+\-@\t\r]/.test(written)) written = `'${written}`;
    return /[",\n\r]/.test(written) ? `"${written.replaceAll('"', '""')}"` : written;
  };
  return [columns, ...rows].map((row) => row.map(text).join(",")).join("\n") + "\n";
}

const saveTable = (table, name) => download(new Blob([toCsv(table)], { type: "text/csv" }), `${name}.csv`);

function savePicture(element, name) {
  if (element instanceof HTMLCanvasElement) element.toBlob((blob) => download(blob, `${name}.png`));
  else download(new Blob([standalone(element)], { type: "image/svg+xml" }), `${name}.svg`);
}

/** An SVG that stands alone: sizes, fonts and colours of the page in it. */
function standalone(element) {
  const copy = element.cloneNode(true);
  const style = getComputedStyle(document.documentElement);
  const variables = CANVAS_STYLE.map((one) => `${one}:${style.getPropertyValue(one).trim()}`).join(";");
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.prepend(svg("style", {}, `svg{${variables};font:12px system-ui,sans-serif;background:var(--paper)}${PICTURE_STYLE}`));
  return new XMLSerializer().serializeToString(copy);
}

/** The rules that pictures need; the page's style has the same. */
const PICTURE_STYLE = "text{fill:var(--ink)}.muted{fill:var(--muted)}.axis{stroke:var(--muted);fill:none}.gridline{stroke:var(--line)}.looks{stroke:var(--accent)}.seen{stroke:var(--muted)}.strong{font-weight:bold}";

export function download(blob, name) {
  const link = el("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
