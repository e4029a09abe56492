// The table of an evaluation: every detector with the controls beside it, sorted by a click.

import { el } from "./dom.js";
import { decimals, differenceText, duration, interval, line, number, pText } from "./format.js";
import { forest } from "./forest.js";
import { figure, region } from "./figure.js";
import { setState, state } from "./state.js";

const figureText = (one) => interval({ mean: one.value, low: one.low, high: one.high });

const COLUMNS = [
  { id: "auroc", name: "AUROC", value: (row) => row.auroc.value, text: (row) => figureText(row.auroc) },
  { id: "auprc", name: "AUPRC", value: (row) => row.auprc.value, text: (row) => figureText(row.auprc) },
  { id: "tpr5", name: "TPR at 5% FPR", value: (row) => row.tpr5.value, text: (row) => figureText(row.tpr5) },
  { id: "ece", name: "ECE", value: (row) => row.ece, text: (row) => decimals(row.ece), rising: true },
  { id: "p", name: "p", value: (row) => row.against?.p, text: (row) => pText(row.against?.p), rising: true },
  { id: "fit", name: "a fit", value: (row) => row.fit_seconds, text: (row) => (row.fit_seconds < 0.01 ? "<0.01 s" : duration(row.fit_seconds)), rising: true },
  { id: "ms", name: "a trace", value: (row) => row.trace_ms, text: (row) => (row.trace_ms < 0.01 ? "<0.01 ms" : `${number(row.trace_ms, 2)} ms`), rising: true },
];

/** Rows as they are shown: a graph model and its controls stay together; rows without figures come last. */
function sorted(rows, by) {
  const column = COLUMNS.find((one) => one.id === by?.replace("-", "")) ?? COLUMNS[0];
  const rising = Boolean(column.rising) !== Boolean(by?.startsWith("-"));
  const models = rows.filter((row) => !rows.some((one) => one.label === row.control_of));
  const value = (row) => (row.status === "done" ? column.value(row) ?? null : undefined);
  const place = (row) => [row.status === "done" ? 0 : 1, value(row) === null ? 1 : 0];
  const order = models.map((row, i) => ({ row, i })).sort((a, b) => {
    const [one, other] = [place(a.row), place(b.row)];
    if (one[0] !== other[0] || one[1] !== other[1]) return one[0] - other[0] || one[1] - other[1];
    const difference = (value(a.row) ?? 0) - (value(b.row) ?? 0);
    return (rising ? difference : -difference) || a.i - b.i;
  });
  return order.flatMap(({ row }) => [row, ...rows.filter((one) => one.control_of === row.label)]);
}

/** The table; the chosen row and those compared with it are in the address. */
export function detectorTable(data, chosen, compared) {
  const by = state().detectors_by ?? "auroc";
  const level = `${number(100 * data.about.level)}%`;
  const heads = COLUMNS.map((column) => {
    const isBy = by.replace("-", "") === column.id;
    const rising = Boolean(column.rising) !== by.startsWith("-");
    const name = ["auroc", "auprc", "tpr5"].includes(column.id) ? `${column.name} [${level}]` : column.name;
    return el("th", { scope: "col", class: "number", "aria-sort": isBy ? (rising ? "ascending" : "descending") : null },
      el("button", {
        type: "button", class: "quiet", "data-key": column.id,
        onclick: () => setState({ detectors_by: isBy && !by.startsWith("-") ? `-${column.id}` : column.id }),
      }, name, isBy ? (rising ? " ▲" : " ▼") : ""));
  });
  return region("Table of detectors", el("table", { class: "plain detectors" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "detector"), heads)),
    el("tbody", {}, sorted(data.rows, by).map((row) => tableRow(row, chosen, compared)))), "tall");
}

const kindOf = (row) => (row.control_of !== null ? `control of ${row.control_of}` : row.is_control ? "control" : "");

function tableRow(row, chosen, compared) {
  const kind = kindOf(row);
  const isDone = row.status === "done";
  const short = line(row.control_of !== null ? row.label.slice(row.control_of.length).trim() || row.label : row.label, 60);
  const name = isDone
    ? el("button", { type: "button", class: "quiet name", "aria-pressed": String(row.label === chosen), "data-key": `name ${row.label}`, title: row.label, onclick: () => setState({ detector: row.label }) }, short)
    : el("span", { class: "name", title: row.label }, short);
  const box = isDone && el("input", {
    type: "checkbox", checked: compared.includes(row.label), "aria-label": `compare ${row.label}`, "data-key": `box ${row.label}`,
    onchange: () => setState({ detectors_with: toggled(compared, row.label).join("|") || "none" }),
  });
  const cells = isDone
    ? COLUMNS.map((column) => el("td", { class: "number" }, column.text(row)))
    : [el("td", { colspan: COLUMNS.length, class: "muted" }, `${row.status === "missing" ? "not applicable" : "failed"}: ${line(row.reason ?? "no reason was written", 1000)}`)];
  return el("tr", { "data-label": row.label, class: [row.control_of !== null && "under", row.label === chosen && "chosen"].filter(Boolean).join(" ") || null },
    el("th", { scope: "row" }, el("span", { class: "pick" }, box || null), name, kind ? el("span", { class: "muted kind" }, ` ${row.control_of !== null ? "control" : kind}`) : null), cells);
}

const toggled = (labels, label) => (labels.includes(label) ? labels.filter((one) => one !== label) : [...labels, label]);

/** AUROC of all rows with intervals, the best control and chance as lines. */
export function aurocForest(data, chosen) {
  const rows = sorted(data.rows, state().detectors_by);
  const best = data.rows.find((row) => row.label === data.best_control);
  const level = `${number(100 * data.about.level)}%`;
  const references = [{ value: 0.5, name: "chance" }, ...(best ? [{ value: best.auroc.value, name: "best control" }] : [])];
  const drawn = rows.map((row) => (row.status === "done"
    ? { name: row.label, ...row.auroc, text: figureText(row.auroc), brief: decimals(row.auroc.value), hollow: kindOf(row) !== "", strong: row.label === chosen, color: row.label === chosen ? "var(--accent)" : null }
    : { name: row.label, text: row.status === "missing" ? "not applicable" : "failed" }));
  return figure({
    title: "AUROC with intervals",
    sentence: `How well each detector separates ${number(data.about.hallucinated)} hallucinated from ${number(data.about.right)} right answers; ${level} intervals. Squares are controls.`,
    picture: forest({ rows: drawn, references, label: "AUROC", alt: `AUROC of ${rows.length} detectors with ${level} intervals` }),
    table: {
      columns: ["detector", "control", "AUROC", "low", "high"],
      rows: rows.map((row) => [row.label, kindOf(row) || "no", ...(row.auroc ? [row.auroc.value, row.auroc.low, row.auroc.high] : ["–", "–", "–"])]),
    },
    name: "auroc-forest",
  });
}

/** Differences of one detector from every other, paired. */
export function differences(data, chosen) {
  const mine = data.rows.findIndex((row) => row.label === chosen);
  const { one, other, value, low, high, p } = data.pairs;
  const found = [];
  for (let i = 0; i < value.length; i++) {
    if (one[i] !== mine && other[i] !== mine) continue;
    const sign = one[i] === mine ? 1 : -1;
    const rest = data.rows[sign === 1 ? other[i] : one[i]];
    found.push({ row: rest, value: sign * value[i], low: sign === 1 ? low[i] : -high[i], high: sign === 1 ? high[i] : -low[i], p: p[i] });
  }
  if (!found.length) return el("p", { class: "note" }, "There is no other detector to compare it with.");
  found.sort((a, b) => b.value - a.value);
  const level = `${number(100 * data.about.level)}%`;
  return figure({
    title: `${line(chosen, 50)} less each other`,
    sentence: `Difference of AUROC on the same traces and draws, ${level} intervals; p after Holm for all ${number(value.length)} pairs. Right of zero, ${line(chosen, 50)} is better. Squares are controls.`,
    picture: forest({
      rows: found.map((row) => ({ name: row.row.label, ...row, text: `${differenceText(row)}, p ${pText(row.p)}`, brief: `p ${pText(row.p)}`, hollow: kindOf(row.row) !== "", color: row.p < 1 - data.about.level ? "var(--ink)" : null })),
      references: [{ value: 0, name: "no difference" }], label: "difference of AUROC", alt: `Differences of AUROC between ${chosen} and ${found.length} others`,
    }),
    table: { columns: ["other", "difference", "low", "high", "p (Holm)"], rows: found.map((row) => [row.row.label, row.value, row.low, row.high, row.p]) },
    name: "auroc-differences",
  });
}
