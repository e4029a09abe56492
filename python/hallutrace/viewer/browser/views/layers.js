// Layers and heads: where in the model hallucinated and right answers differ.

import { CLASSES, diverging, sequential } from "../colors.js";
import { choice, stateLink } from "../controls.js";
import { el, fill, later, Missing, problem } from "../dom.js";
import { figure } from "../figure.js";
import { counted, decimals, line, number, pText } from "../format.js";
import { headGrid } from "../head_grid.js";
import { headFigures, withUnit } from "../layer_head.js";
import { keepingFocus } from "../redraw.js";
import { register } from "../registry.js";
import { setState, state } from "../state.js";

const OURS = ["marginal", "shown", "label", "trace"];
const OUTER = 0.025; // share of traces beyond which a head of one trace is marked
let shown = null; // what is on the page: {source, choices, controls, grid, detail, picture}
let renders = 0; // begun so far; only the newest one becomes what is shown

register({
  id: "layers",
  title: "Layers and heads",
  order: 20,
  ofOneRun: true,
  needs: ["layer_choices"],
  async render({ source }) {
    const number = ++renders;
    shown = null;
    const choices = await source.get("layer_choices");
    if (number !== renders) return el("section");
    shown = { source, choices, grid: el("div"), detail: el("div"), controls: el("div", { class: "controls" }), picture: null };
    drawControls();
    drawGrid();
    drawHead();
    return el("section", {}, shown.controls, shown.grid, shown.detail);
  },
  update(now, before) {
    if (!shown) return false;
    if (!before) return true;
    const changed = (names) => names.some((name) => now[name] !== before[name]);
    if (changed(OURS)) {
      if (!shown.controls.contains(document.activeElement) || changed(["shown"])) drawControls();
      drawGrid();
    }
    if (changed([...OURS, "layer", "head"])) drawHead();
    return true;
  },
});

/** What the address asks for, where it says nothing what answers most. */
function asked() {
  const { choices, source } = shown;
  const label = choices.labels.includes(state().label) ? state().label : choices.label;
  const marginal = (choices.marginals.find((one) => one.name === state().marginal) ?? choices.marginals[0]).name;
  const carried = source.served || source.has("layers", { marginal, label });
  const what = state().shown ?? (label ? "difference" : "mean");
  return { marginal, label: carried ? label : choices.label, what };
}

function drawControls() {
  const { source, choices, controls } = shown;
  const { label, what } = asked();
  const options = [{ value: "mean", text: "mean of the run" }, { value: "trace", text: "one trace" }];
  if (label) options.unshift({ value: "difference", text: "hallucinated less right" }, { value: "auroc", text: "AUROC of each head" });
  keepingFocus(controls, () => fill(controls,
    choice("marginal", "Marginal", choices.marginals.map((one) => ({ value: one.name, text: one.title }))),
    choice("shown", "Shown", options, what),
    source.served && choices.labels.length > 1 ? choice("label", "Labels", choices.labels, label) : null,
    what === "trace" ? traceChoice() : null));
}

function traceChoice() {
  const { source } = shown;
  if (!source.served) {
    const keys = source.keys("trace_heads").map((key) => new URLSearchParams(key.split("?")[1]).get("trace"));
    return choice("trace", "Trace", [...new Set(keys)], carriedTrace());
  }
  const input = el("input", { type: "text", "data-key": "trace", value: state().trace ?? "", size: 24, onchange: () => setState({ trace: input.value.trim() }) });
  return el("label", { class: "control" }, "Key of the trace", input);
}

/** The trace of the address if the page has it; else the first that it has. */
function carriedTrace() {
  const { source } = shown;
  const { marginal } = asked();
  if (source.served || source.has("trace_heads", { marginal, trace: state().trace })) return state().trace;
  const first = source.keys("trace_heads")[0];
  return first ? new URLSearchParams(first.split("?")[1]).get("trace") : undefined;
}

// The grid ----------------------------------------------------------------------------------------

function drawGrid() {
  const place = shown.grid;
  const height = place.offsetHeight;
  if (height) place.style.minHeight = `${height}px`; // so that the page does not jump
  fill(place, later(gridFigure().finally(() => { place.style.minHeight = ""; })));
}

async function gridFigure() {
  const { source } = shown;
  const { marginal, label, what } = asked();
  if (what === "trace") return traceGrid(marginal);
  const data = await source.get("layers", { marginal, label });
  const compared = what !== "mean" && data.difference;
  const made = compared ? (what === "auroc" ? aurocGrid(data) : differenceGrid(data)) : meanGrid(data);
  const told = [
    what !== "mean" && data.untested ? problem(new Missing(data.untested)) : null,
    data.damaged ? problem(new Missing(`${counted(data.damaged, "trace")} could not be read and ${data.damaged === 1 ? "is" : "are"} left out; \`hallutrace verify\` says why.`)) : null,
  ];
  return el("div", {}, told, framed(data, made));
}

/** The figure of a grid, with the line that reads out a cell. */
function framed(data, { title, sentence, values, scale, color, sign, pale, text, note = null, table = gridTable(data) }) {
  const { layers, marginal } = data;
  const kind = marginal.by_value_head ? "value head" : "head";
  const columns = Math.max(...marginal.heads);
  const words = (at) => `Layer ${layers[Math.floor(at / columns)]}, ${kind} ${at % columns}: ${text(at)}`;
  const hint = `Point at a ${kind}, or go with the arrow keys; a click or Enter opens it.`;
  const readout = el("p", { class: "readout" }, hint);
  const picture = headGrid({
    layers, heads: marginal.heads, values, scale, color, sign, pale, text: words,
    show: (at) => { readout.textContent = words(at); },
    open: (layer, head) => setState({ layer, head }),
    chosen: chosenCell(layers, columns), label: `${title}, ${counted(layers.length, "layer")}. Arrow keys move, Enter opens a ${kind}.`,
  });
  shown.picture = { picture, layers, columns };
  return figure({ title, sentence, picture: el("div", {}, picture, readout, note), table, name: `layers-${marginal.name}` });
}

function chosenCell(layers, columns) {
  const row = layers.indexOf(Number(state().layer ?? -1));
  return row < 0 || state().head === undefined ? -1 : row * columns + Number(state().head);
}

const finite = (values) => [...values].filter(Number.isFinite);

function meanGrid(data) {
  const { marginal, mean, deviation, traces } = data;
  const [low, high] = [Math.min(...finite(mean)), Math.max(...finite(mean))];
  return {
    title: withUnit(marginal),
    sentence: `Each head's mean of ${counted(traces, "trace")}; of a trace the ${marginal.over}.`,
    values: mean,
    scale: { low, high, color: (value) => sequential((value - low) / (high - low || 1)), label: `${withUnit(marginal)}, mean of the run` },
    text: (at) => `${number(mean[at])} ${marginal.unit}, standard deviation over traces ${number(deviation[at])}.`,
  };
}

const isMarked = (data) => (at) => data.corrected[at] < 1 - data.level;

function differenceGrid(data) {
  const { marginal, difference, low, high, corrected } = data;
  const most = Math.max(...finite(difference).map(Math.abs)) || 1;
  const marked = isMarked(data), signed = signs(most);
  const count = finite(difference).length;
  const order = [...difference.keys()].filter(marked).sort((a, b) => corrected[a] - corrected[b]);
  return {
    title: `${withUnit(marginal)}: hallucinated less right`,
    sentence: `${data.hallucinated} hallucinated answers less ${data.right} right ones (labels ${data.label}, ${counted(data.groups, "group")}); of a trace the ${marginal.over}. `
      + `${order.length} of ${count} ${marginal.by_value_head ? "value heads" : "heads"} differ: ${CLASSES[1].mark} higher when hallucinated, ${CLASSES[0].mark} lower. Pale ones may differ by chance. `
      + `Intervals (${Math.round(100 * data.level)}%) and p are by group, and corrected for ${count} heads by Holm.`,
    values: difference,
    scale: { low: -most, high: most, middle: 0, color: (value) => diverging(value / most), label: "hallucinated answers: lower  ·  higher", format: signed },
    pale: true,
    sign: (at) => (marked(at) ? (difference[at] > 0 ? CLASSES[1] : CLASSES[0]).shape : null),
    text: (at) => `${signed(difference[at])} ${marginal.unit} [${signed(low[at])}, ${signed(high[at])}], p ${pText(corrected[at])}`
      + `${marked(at) ? "" : ", which may be chance"}; AUROC ${decimals(data.auroc[at])}.`,
    note: order.length ? strongest(data, order.slice(0, 5), (at) => signed(difference[at])) : null,
  };
}

function aurocGrid(data) {
  const { marginal, auroc } = data;
  const most = Math.max(0.05, ...finite(auroc).map((one) => Math.abs(one - 0.5)));
  const marked = isMarked(data);
  return {
    title: `${withUnit(marginal)}: AUROC of each head`,
    sentence: `Chance that a hallucinated answer has the larger value than a right one, of ${data.hallucinated} and ${data.right} (labels ${data.label}); .5 is no difference. `
      + "Marked heads differ in their mean (by group, corrected by Holm). The best of many heads is better here than on new traces.",
    values: auroc,
    scale: { low: 0.5 - most, high: 0.5 + most, middle: 0.5, color: (value) => diverging((value - 0.5) / most), label: "AUROC", format: (value) => decimals(value, 2) },
    pale: true,
    sign: (at) => (marked(at) ? (auroc[at] > 0.5 ? CLASSES[1] : CLASSES[0]).shape : null),
    text: (at) => `AUROC ${decimals(auroc[at])}${marked(at) ? "" : ", which may be chance"}.`,
  };
}

async function traceGrid(marginal) {
  const trace = carriedTrace();
  if (!trace) throw new Missing("No trace is chosen: give the key of one above, or open a head and follow one of its traces.");
  const data = await shown.source.get("trace_heads", { marginal, trace });
  const { value, below, traces, marginal: about } = data;
  return framed(data, {
    title: `${withUnit(about)} in ${line(trace, 60)}`,
    sentence: `Numbers are this trace's, colours its place among all ${counted(traces, "trace")} of the run: the share with a smaller value. Marked: the outer ${100 * OUTER}% on either side.`,
    values: value,
    scale: { low: 0, high: 1, color: (share) => sequential(share), label: "share of traces with a smaller value" },
    color: (at) => sequential(below[at]),
    sign: (at) => (Math.abs(below[at] - 0.5) > 0.5 - OUTER ? "square" : null),
    text: (at) => `${number(value[at])} ${about.unit}; ${Math.round(100 * below[at])}% of traces have a smaller value.`,
    note: el("p", {}, stateLink("Open this trace", { view: "trace", trace })),
    table: () => rowsOf(data, { value, below }),
  });
}

/** Numbers with a sign, as many decimals as the largest needs. */
function signs(most) {
  const places = Math.min(6, Math.max(0, 2 - Math.floor(Math.log10(most))));
  return (value) => `${value > 0 ? "+" : ""}${decimals(value, places)}`;
}

function strongest({ layers, marginal }, cells, text) {
  const columns = Math.max(...marginal.heads);
  return el("p", {}, "Clearest: ", cells.map((at, i) => {
    const [layer, head] = [layers[Math.floor(at / columns)], at % columns];
    return [i ? ", " : "", stateLink(`layer ${layer} head ${head}`, { layer, head }), ` ${text(at)}`];
  }), ".");
}

/** A row for each head, of arrays [layers, heads]. */
function rowsOf({ layers, marginal }, arrays) {
  const columns = Math.max(...marginal.heads);
  const rows = layers.flatMap((layer, row) => Array.from({ length: marginal.heads[row] }, (_, head) => (
    [layer, head, ...Object.values(arrays).map((one) => one[row * columns + head])])));
  return { columns: ["layer", "head", ...Object.keys(arrays).map((one) => one.replaceAll("_", " "))], rows };
}

function gridTable(data) {
  const names = ["mean", "deviation", "mean_hallucinated", "mean_right", "difference", "low", "high", "corrected", "auroc"];
  return () => rowsOf(data, Object.fromEntries(names.filter((name) => data[name]).map((name) => [name === "corrected" ? "p_corrected" : name, data[name]])));
}

// One head ----------------------------------------------------------------------------------------

function drawHead() {
  const { picture } = shown;
  if (picture) picture.picture.choose(chosenCell(picture.layers, picture.columns));
  if (state().layer === undefined || state().head === undefined) fill(shown.detail);
  else fill(shown.detail, later(headFigures(shown.source, asked(), Number(state().layer), Number(state().head))));
}
