// Colours of traces by what is known of them: a label, a number, a category. Classes differ in shape too.

import { mark } from "./chart.js";
import { CLASSES, css, rgbOf, sequential, themeColor } from "./colors.js";
import { el, svg } from "./dom.js";
import { decimals, number, percent } from "./format.js";

const LEVELS = 24; // of the colours of a number
const SETS = [["circle", "#0072b2"], ["triangle", "#d55e00"], ["square", "#009e73"], ["diamond", "#cc79a7"], ["plus", "#b58900"], ["cross", "#56b4e9"]];
const NUMBERS = {
  mean_logprob: "mean log-probability (nats)", min_logprob: "smallest log-probability (nats)", mean_entropy: "mean entropy (nats)",
  answer_tokens: "tokens of the answer", prompt_tokens: "tokens of the prompt", index: "row in the source",
};
const CATEGORIES = { finish_reason: "why the answer ended", group: "group", sample: "sample" };

/** What traces can be coloured by: [{value, text}]; the first is the default. `traces` may be null. */
export function colorOptions(labels, traces) {
  const ofLabels = Object.keys(labels).map((name) => ({ value: `label:${name}`, text: `label: ${name}` }));
  if (!traces) return ofLabels.length ? ofLabels : [{ value: "none", text: "nothing" }];
  return [
    ...ofLabels,
    ...Object.keys(traces.scores).map((name) => ({ value: `score:${name}`, text: `score: ${name}` })),
    ...Object.entries(NUMBERS).map(([value, text]) => ({ value, text })),
    ...Object.entries(CATEGORIES).filter(([name]) => (name !== "group" || traces.groups < traces.total) && traces[name].some((one) => one !== traces[name][0])).map(([value, text]) => ({ value, text })),
  ];
}

/**
 * Codes and colours of traces for a scatter plot, by one of `colorOptions`. `labels` are of all traces;
 * `traces` may list some of them only: `rows` has the row in it of each trace, -1 where there is none.
 * Gives {codes, palette, values?, ofMean?, name, of(i) => text, ofBin(bin) => text, aboutBins, legend: [entries]}.
 */
export function coloringBy(value, { labels, traces, rows }) {
  const [kind, ...rest] = value.split(":"), name = rest.join(":");
  if (value === "none") return plain(rows.length);
  if (kind === "label") return byLabel(name, labels[name]);
  if (kind === "score") return byNumber(`score of ${name}`, spread(traces.scores[name], rows));
  if (NUMBERS[value]) return byNumber(NUMBERS[value], spread(traces[value], rows));
  const texts = value === "finish_reason" ? (one) => traces.finish_reasons[one] : (one) => `${value} ${one}`;
  return byCategory(CATEGORIES[value], spread(traces[value], rows), texts);
}

/** A typed array of what `of(value)` gives; several times as fast as `from`. */
function mapped(Type, values, of) {
  const made = new Type(values.length);
  for (let i = 0; i < values.length; i++) made[i] = of(values[i]);
  return made;
}

const spread = (column, rows) => mapped(Float32Array, rows, (row) => (row < 0 ? NaN : column[row]));
const theme = (variable) => rgbOf(themeColor(variable.slice(4, -1)));
const neutral = () => ({ rgb: theme(CLASSES.null.color), shape: CLASSES.null.shape });

function plain(count) {
  const palette = [{ rgb: theme(CLASSES.null.color), shape: "circle" }];
  return { codes: new Uint8Array(count), palette, name: "", aboutBins: "", of: () => "", ofBin: () => "", legend: [] };
}

function byLabel(protocol, labels) {
  const classes = [CLASSES[0], CLASSES[1], CLASSES.null];
  const palette = classes.map(({ color, shape }) => ({ rgb: theme(color), shape }));
  const code = (label) => (label === 1 ? 1 : label === 0 ? 0 : 2);
  const values = mapped(Float32Array, labels, (one) => (code(one) === 2 ? NaN : one));
  const codes = mapped(Uint8Array, labels, code);
  const counts = [0, 0, 0];
  for (const one of codes) counts[one]++;
  return {
    codes, palette, values, name: `label ${protocol}`,
    ofMean: (share) => (Number.isNaN(share) ? palette[2] : { rgb: between(palette[0].rgb, palette[2].rgb, palette[1].rgb, share), shape: share >= 0.5 ? "triangle" : "circle" }),
    of: (i) => classes[codes[i]].name,
    aboutBins: `${CLASSES[1].mark} at least half hallucinated, ${CLASSES[0].mark} fewer, the colour is the share`,
    ofBin: ({ mean, known }) => (known ? `${percent(mean, 0)} of ${number(known)} hallucinated` : "no label"),
    legend: [1, 0, 2].filter((one) => counts[one]).map((one) => ({ ...palette[one], text: `${classes[one].name} (${number(counts[one])})` })),
  };
}

function byNumber(name, values) {
  const sorted = values.filter((one) => Number.isFinite(one)).sort();
  const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
  const [low, high] = sorted.length ? [at(0.02), at(0.98)] : [0, 1];
  const share = (one) => (high > low ? Math.min(1, Math.max(0, (one - low) / (high - low))) : 0.5);
  const isDark = rgbOf(themeColor("--paper"))[0] < 128;
  // The colours next to the paper's are left out; larger is farther from the paper.
  const color = (part) => sequential(isDark ? 0.75 - 0.75 * part : 0.15 + 0.85 * part);
  const palette = [...Array.from({ length: LEVELS }, (_, level) => ({ rgb: color(level / (LEVELS - 1)), shape: "circle" })), neutral()];
  const missing = values.length - sorted.length;
  return {
    codes: mapped(Uint8Array, values, (one) => (Number.isFinite(one) ? Math.round(share(one) * (LEVELS - 1)) : LEVELS)),
    palette, values, name,
    ofMean: (mean) => (Number.isFinite(mean) ? { rgb: color(share(mean)), shape: "circle" } : palette[LEVELS]),
    of: (i) => `${name} ${Number.isInteger(values[i]) ? number(values[i]) : decimals(values[i])}`,
    aboutBins: "the colour is their mean",
    ofBin: ({ mean, known }) => (known ? `mean ${name} ${decimals(mean)}` : "no value"),
    legend: [
      ...[0, 0.25, 0.5, 0.75, 1].map((part) => ({ rgb: color(part), shape: "circle", text: `${part === 0 ? "≤ " : part === 1 ? "≥ " : ""}${number(low + part * (high - low))}` })),
      ...(missing ? [{ ...neutral(), text: `none (${number(missing)})` }] : []),
    ],
  };
}

function byCategory(name, values, textOf) {
  const counts = new Map();
  for (const one of values) counts.set(one, (counts.get(one) ?? 0) + 1);
  const known = [...counts].filter(([one]) => !Number.isNaN(one)).sort((a, b) => b[1] - a[1] || a[0] - b[0]);
  const chosen = known.slice(0, SETS.length).map(([one]) => one);
  const code = new Map(chosen.map((one, i) => [one, i]));
  const palette = [...chosen.map((_, i) => ({ shape: SETS[i][0], rgb: rgbOf(SETS[i][1]) })), neutral()];
  const codes = mapped(Uint8Array, values, (one) => code.get(one) ?? chosen.length);
  const others = values.length - chosen.reduce((sum, one) => sum + counts.get(one), 0);
  return {
    codes, palette, name,
    of: (i) => (Number.isNaN(values[i]) ? "unknown" : textOf(values[i])),
    aboutBins: "the colour is the most frequent",
    ofBin: ({ most }) => `mostly ${most < chosen.length ? textOf(chosen[most]) : "others"}`,
    legend: [
      ...chosen.map((one, i) => ({ ...palette[i], text: `${textOf(one)} (${number(counts.get(one))})` })),
      ...(others ? [{ ...neutral(), text: `others (${number(others)})` }] : []),
    ],
  };
}

/** A colour between three, which stand for 0, 0.5 and 1. */
function between(low, middle, high, share) {
  const [from, to, part] = share < 0.5 ? [low, middle, 2 * share] : [middle, high, 2 * share - 1];
  return from.map((one, i) => Math.round(one + (to[i] - one) * part));
}

/** The legend in the page. */
export function legendList(coloring) {
  return el("ul", { class: "map-legend", "aria-label": `Colours: ${coloring.name}` }, coloring.legend.map(({ rgb, shape, text }) => el("li", {},
    svg("svg", { viewBox: "0 0 14 14", width: 14, height: 14, "aria-hidden": "true" }, mark(shape, 7, 7, 5, css(rgb))), text)));
}

/** The legend below a picture, as rows of SVG elements from a height on. */
export function legendBelow(coloring, top, width) {
  const across = Math.max(1, Math.floor(width / 190));
  const rows = [];
  coloring.legend.forEach(({ rgb, shape, text }, i) => {
    const row = Math.floor(i / across), x = 8 + 190 * (i % across), y = top + 18 * row;
    (rows[row] ??= svg("g", {})).append(mark(shape, x, y - 4, 5, css(rgb)), svg("text", { x: x + 12, y }, text));
  });
  return rows;
}
