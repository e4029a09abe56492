// All runs of the folders that are explored: where each stands, live, and what differs between two.

import { el, fill, later } from "../dom.js";
import { plainTable, region } from "../figure.js";
import { bytes, counted, decimals, duration, line, NONE, number, percent } from "../format.js";
import { keepingFocus } from "../redraw.js";
import { register } from "../registry.js";
import { fetched } from "../source.js";
import { setState, state } from "../state.js";
import { virtualTable } from "../table.js";

const STATES = { running: "▶ running", stopped: "◼ stopped", finished: "✓ finished", empty: "○ no traces", damaged: "✕ damaged" };
const ORDER = ["running", "stopped", "damaged", "empty", "finished"];
const labelled = (row) => row.labels.map((one) => line(one, 40)).join(", ") || NONE;
const left = (row) => (row.state === "running" && row.rate && row.total ? Math.max(row.total - row.traces, 0) / row.rate : NaN);
const share = (row) => (row.total ? Math.min(row.traces / row.total, 1) : NaN);

const COLUMNS = [
  { name: "Run", value: (row) => row.name, text: (row) => line(row.name, 80), width: "minmax(9em, 1.4fr)" },
  { name: "State", value: (row) => ORDER.indexOf(row.state), text: (row) => STATES[row.state], width: "7.5em" },
  { name: "Traces", value: (row) => row.traces, text: (row) => number(row.traces), number: true, width: "5.5em" },
  { name: "Done", value: share, cell: progress, number: true, width: "8.5em" },
  { name: "Rate", value: (row) => row.rate, text: (row) => (row.rate ? `${number(row.rate)}/s` : NONE), number: true, width: "5em" },
  { name: "Left", value: left, text: (row) => duration(left(row)), number: true, width: "6.5em" },
  { name: "Failures", value: (row) => row.failures, text: (row) => number(row.failures), number: true, width: "5em" },
  { name: "Size", value: (row) => row.bytes, text: (row) => bytes(row.bytes), number: true, width: "5.5em" },
  { name: "Labels", value: labelled, width: "minmax(6em, 1fr)" },
  { name: "Best AUROC", value: (row) => row.best?.[1], text: best, width: "minmax(9em, 1.2fr)" },
  { name: "Model", value: (row) => row.model, text: (row) => line(row.model, 60), width: "minmax(7em, 1fr)" },
];

function best(row) {
  return row.best ? `${decimals(row.best[1])} ${line(row.best[0], 40)}` : NONE;
}

function progress(row) {
  const done = share(row);
  if (row.state === "finished") return "all";
  if (!Number.isFinite(done)) return NONE;
  return [el("progress", { max: 1, value: done, "aria-label": "share of the answers that are done" }), ` ${percent(done, 0)}`];
}

register({
  id: "runs",
  title: "Runs",
  order: 5,
  servedOnly: true,
  async render() {
    const first = await fetched("runs");
    const rows = new Map(first.runs.map((row) => [row.id, row]));
    const head = el("p", {}, sentence(rows));
    const table = virtualTable({
      columns: COLUMNS, rows: [...rows.values()], label: "Runs", height: 520, sortBy: COLUMNS[1], descending: false,
      open: (row) => setState({ view: "run", run: row.id }),
    });
    const status = el("p", { class: "note", role: "status" }, "Live.");
    const section = el("section", {}, head, table, status, comparison(rows));
    follow(section, first.cursor, status, (changes) => {
      take(rows, changes);
      fill(head, sentence(rows));
      keepingFocus(table, () => table.setRows(rows.values()));
    });
    return section;
  },
  // The rows stay as they are while the comparison changes.
  update: (now, before) => before !== undefined && (now.one !== before.one || now.other !== before.other),
});

function sentence(rows) {
  const all = [...rows.values()];
  const count = (name) => all.filter((row) => row.state === name).length;
  const traces = all.reduce((sum, row) => sum + row.traces, 0);
  const parts = ORDER.filter(count).map((name) => `${count(name)} ${name === "empty" ? "without traces" : name}`);
  return `${counted(all.length, "run")} with ${counted(traces, "trace")}: ${parts.join(", ")}. A click opens a run.`;
}

function take(rows, changes) {
  if (changes.whole) rows.clear();
  for (const id of changes.gone) rows.delete(id);
  for (const row of changes.runs) rows.set(row.id, { ...rows.get(row.id), ...row });
}

/** Calls `changed` with what the server tells, until the view is left. */
function follow(section, cursor, status, changed) {
  const events = new EventSource(`events?after=${encodeURIComponent(cursor)}`);
  const leave = new MutationObserver(() => {
    if (section.isConnected) return;
    events.close();
    leave.disconnect();
  });
  setTimeout(() => leave.observe(document.getElementById("view"), { childList: true, subtree: true }), 1000);
  events.addEventListener("runs", (event) => changed(JSON.parse(event.data)));
  events.onopen = () => fill(status, "Live.");
  events.onerror = () => fill(status, "The server does not answer: what is shown may be old.");
}

/** Two runs to choose, and what differs between their manifests. */
function comparison(rows) {
  const all = [...rows.values()].filter((row) => row.state !== "damaged").sort((a, b) => (a.name < b.name ? -1 : 1));
  if (all.length < 2) return null;
  const place = el("div", {});
  const known = (id, other) => (rows.has(id) ? id : other.id);
  const selects = [known(state().one, all[0]), known(state().other, all[1])].map((chosen, i) => el("select",
    { "aria-label": i ? "Second run" : "First run", onchange: draw },
    all.map((row) => el("option", { value: row.id, selected: row.id === chosen }, line(row.name, 60)))));
  function draw() {
    const [one, other] = selects.map((select) => select.value);
    setState({ one, other }, { replace: true });
    fill(place, later(differing(one, other, rows)));
  }
  fill(place, later(differing(...selects.map((select) => select.value), rows)));
  return el("section", {}, el("h2", {}, "What differs between two runs"),
    el("div", { class: "controls" }, selects[0], " and ", selects[1]), place);
}

async function differing(one, other, rows) {
  const found = await fetched(`differences/${encodeURIComponent(one)}/${encodeURIComponent(other)}`);
  if (!found.length) return el("p", {}, "Nothing: both runs have the same settings, model and source.");
  const [first, second] = [rows.get(one), rows.get(other)].map((row) => line(row.name, 40));
  return el("div", {}, el("p", {}, `${counted(found.length, "setting")} ${found.length === 1 ? "differs" : "differ"}.`),
    region("Settings that differ", plainTable({ columns: ["setting", first, second], rows: found.map((row) => row.map((value) => line(value, 300))) })));
}
