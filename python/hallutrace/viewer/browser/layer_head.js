// One head: its distribution, the mean of its layer beside the others, and its most extreme traces.

import { chart } from "./chart.js";
import { CLASSES, labelText } from "./colors.js";
import { stateLink } from "./controls.js";
import { el, later, Missing } from "./dom.js";
import { figure, plainTable } from "./figure.js";
import { counted, line, number } from "./format.js";

/** The title of a marginal, with its unit. */
export const withUnit = (marginal) => (marginal.unit ? `${marginal.title} (${marginal.unit})` : marginal.title);

/** The figures of a head, by the names of a marginal and of labels (null: without). */
export async function headFigures(source, { marginal, label }, layer, head) {
  const [data, heads] = await Promise.all([source.get("layers", { marginal, label }), source.get("heads", { marginal, label })]);
  const row = data.layers.indexOf(layer);
  if (row < 0 || !(head >= 0 && head < data.marginal.heads[row])) {
    throw new Missing(`${data.marginal.title} has no layer ${layer} with a head ${head} in this run.`);
  }
  const at = row * Math.max(...data.marginal.heads) + head;
  const name = `${data.marginal.by_value_head ? "value head" : "head"} ${head} of layer ${layer}`;
  return el("section", { "aria-label": name },
    el("h2", {}, name[0].toUpperCase() + name.slice(1)),
    el("div", { class: "figures" }, distribution(data, heads, at, name), profile(data, layer)),
    extremes(source, data, heads, at, name));
}

function distribution({ marginal }, heads, at, name) {
  const bins = heads.counts.shape[3];
  const [low, high] = [heads.edges[2 * at], heads.edges[2 * at + 1]];
  const width = (high > low ? high - low : 1) / bins;
  const kinds = [CLASSES[1], CLASSES[0], CLASSES[null]].map((kind, i) => {
    const begin = (3 * at + i) * bins;
    const counts = [...heads.counts.subarray(begin, begin + bins)];
    return { kind, counts, total: counts.reduce((sum, one) => sum + one, 0) };
  }).filter(({ total }) => total);
  const shares = kinds.flatMap(({ counts, total }) => counts.map((one) => one / total));
  const series = kinds.map(({ kind, counts, total }, i) => ({
    kind: "bars", name: kinds.length > 1 ? `${kind.name} (${total})` : null, color: kind.color, dash: i ? "3 2" : null,
    data: counts.map((one, bin) => [low + bin * width, low + (bin + 1) * width, one / total]),
  }));
  const told = kinds.map(({ kind, total }) => `${number(total)} ${kind === CLASSES[null] ? "without a label" : kind.name}`).join(", ");
  return figure({
    title: `${withUnit(marginal)} by label`,
    sentence: `Distribution in ${name}: ${told}. Each class adds up to 1.`,
    picture: chart({
      x: { label: withUnit(marginal), domain: [low, low + bins * width] }, y: { label: "share of the class", domain: [0, Math.max(...shares)] }, series,
      alt: `Histogram of ${marginal.title} in ${name}: ${told}.`,
    }),
    table: { columns: ["from", "to", ...kinds.map(({ kind }) => kind.name)], rows: Array.from({ length: bins }, (_, bin) => [low + bin * width, low + (bin + 1) * width, ...kinds.map(({ counts }) => counts[bin])]) },
    name: `head-${marginal.name}-${name.replaceAll(" ", "-")}`,
  });
}

/** The mean over the heads of each layer. */
function profile({ layers, marginal, ...data }, chosen) {
  const columns = Math.max(...marginal.heads);
  const byLayer = (values) => layers.map((layer, row) => {
    const own = [...values.subarray(row * columns, row * columns + marginal.heads[row])];
    return [layer, own.reduce((sum, one) => sum + one, 0) / own.length];
  });
  const lines = data.mean_right
    ? [{ ...CLASSES[1], data: byLayer(data.mean_hallucinated) }, { ...CLASSES[0], data: byLayer(data.mean_right), dash: "5 3" }]
    : [{ name: "all traces", color: "var(--ink)", data: byLayer(data.mean) }];
  const values = lines.flatMap((one) => one.data.map(([, value]) => value));
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const margin = 0.06 * (high - low || 1);
  return figure({
    title: `${withUnit(marginal)} by layer`,
    sentence: `Mean over the heads of each layer, of ${data.mean_right ? `${data.hallucinated} hallucinated and ${data.right} right answers` : counted(data.traces, "trace")}. The upright line is layer ${chosen}.`,
    picture: chart({
      x: { label: "layer", domain: [Math.min(...layers), Math.max(...layers)], ticks: layers.filter((_, i) => i % Math.ceil(layers.length / 9) === 0) },
      y: { label: marginal.unit || "mean", domain: [low - margin, high + margin] },
      series: [
        { kind: "rule", color: "var(--line)", data: [[chosen, low - margin, chosen, high + margin]] },
        ...lines.map(({ name, color, dash, data: points }) => ({ kind: "line", name, color, dash, data: points })),
        ...lines.map(({ color, shape = "circle", data: points }) => ({ kind: "points", color, shape, data: points })),
      ],
      alt: `${marginal.title} by layer.`,
    }),
    table: { columns: ["layer", ...lines.map((one) => one.name)], rows: layers.map((layer, i) => [layer, ...lines.map((one) => one.data[i][1])]) },
    name: `by-layer-${marginal.name}`,
  });
}

function extremes(source, { marginal }, heads, at, name) {
  const about = textsByKey(source);
  const end = (which) => {
    const kept = heads[which].shape[2];
    return about.then((texts) => el("div", { class: "scroll" }, plainTable({
      columns: ["trace", "label", ...(texts ? ["question", "answer"] : []), marginal.unit || "value"],
      rows: Array.from({ length: kept }, (_, i) => {
        const place = heads[which][at * kept + i];
        const key = heads.traces.keys[place], label = heads.traces.labels[place];
        return [stateLink(line(key, 40), { view: "trace", trace: key }), el("span", { class: "nowrap" }, labelText(label)), ...(texts?.(key) ?? []), heads[`${which}_values`][at * kept + i]];
      }),
    })));
  };
  return el("div", { class: "figures" }, ["highest", "lowest"].map((which) => el("figure", { class: "figure" },
    el("figcaption", {}, el("h3", {}, `Where it is ${which}`), el("p", {}, `Traces with the ${which} ${marginal.title.toLowerCase()} in ${name}.`)), later(end(which)))));
}

/** What gives question and answer of a key; null where the page has none. */
async function textsByKey(source) {
  const list = source.has("traces") ? await source.get("traces").catch(() => null) : null;
  if (!list) return null;
  const places = new Map(list.key.map((key, i) => [key, i]));
  return (key) => [list.question, list.answer].map((texts) => (places.has(key) ? line(texts[places.get(key)], 80) : null));
}
