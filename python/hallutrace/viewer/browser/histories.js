// Histories of trainings: what the server tells, put together, and drawn.

import { el } from "./dom.js";
import { chart } from "./chart.js";
import { decimals, line, number } from "./format.js";
import { figure } from "./figure.js";

const LEAST = 1e-6; // gain of the monitored value that counts, as the training has it
const MOST_NAMED = 6;
const DASHES = [null, "7 3", "2 3", "9 3 2 3", "4 2", "1 2"];

const plainly = (value) => String(Number(value.toPrecision(3)));

const CHARTS = [
  { column: "loss", title: "Loss", sentence: "Mean over the training part, after each epoch." },
  { column: "validation_auroc", title: "Validation AUROC", sentence: "On the validation part, after each epoch; the weights of the best epoch are taken.", marked: true },
  { column: "learning_rate", title: "Learning rate", sentence: "In each epoch.", fromZero: true, format: (value) => (value ? Number(value.toPrecision(2)).toExponential() : "0") },
  { column: "gradient", title: "Norm of the gradient", sentence: "Median over the batches of an epoch, before clipping.", fromZero: true },
  { column: "seconds", title: "Time", sentence: "Seconds of an epoch, validation included.", fromZero: true, label: "seconds" },
];

/** Adds what is new to what is known; returns whether anything changed. */
export function merged(known, news) {
  let changed = known.size !== news.trainings.length;
  const trainings = new Map();
  for (const one of news.trainings) {
    const before = known.get(one.id);
    const parts = one.parts === null ? before?.parts ?? [] : one.parts.map((part) => mergedPart(before?.parts.find((old) => old.id === part.id), part));
    changed ||= !before || before.is_done !== one.is_done || before.problem !== one.problem || (one.parts ?? []).some((part) => part.columns.epoch.length || part.notes.length || !part.notes_kept);
    trainings.set(one.id, { ...one, parts });
  }
  known.clear();
  for (const [id, one] of trainings) known.set(id, one);
  return changed;
}

function mergedPart(before, news) {
  const columns = Object.fromEntries(Object.entries(news.columns).map(([name, values]) => [name, [...(before?.columns[name].slice(0, news.kept) ?? []), ...values]]));
  return { id: news.id, name: news.name, columns, notes: [...(news.notes_kept ? before?.notes ?? [] : []), ...news.notes] };
}

/** Place of the best epoch of a part; -1 before the first. */
function bestEpoch({ columns: { monitored } }) {
  let best = -1;
  for (let i = 0; i < monitored.length; i++) if (best < 0 || monitored[i] > monitored[best] + LEAST) best = i;
  return best;
}

/** All networks of a training with an epoch, the best first. */
export function networks(training) {
  return training.parts.filter((part) => part.columns.epoch.length)
    .map((part) => ({ part, best: bestEpoch(part), name: part.name ? `${training.name} ${part.name}` : training.name }))
    .sort((a, b) => b.part.columns.monitored[b.best] - a.part.columns.monitored[a.best]);
}

/** A chart for each column: of one training all networks, of several the best network of each. */
export function historyCharts(trainings) {
  const lines = trainings.length === 1
    ? networks(trainings[0]).map((one) => ({ ...one, name: one.part.name || one.name }))
    : trainings.flatMap((one) => networks(one).slice(0, 1));
  if (!lines.length) return el("p", { class: "note" }, "No epoch is finished yet.");
  const about = lines.length === 1 ? "" : trainings.length === 1
    ? `The best of ${number(lines.length)} networks is in colour; points mark the best epochs.`
    : "Of each training the best network; points mark the best epochs.";
  return [
    about ? el("p", { class: "note" }, about) : null,
    el("div", { class: "figures" }, CHARTS.map((one) => historyChart(one, lines))),
  ];
}

function historyChart({ column, title, sentence, fromZero, format = plainly, label = title.toLowerCase().replace("auroc", "AUROC") }, lines) {
  const values = lines.flatMap(({ part }) => part.columns[column]).filter(Number.isFinite);
  const last = Math.max(...lines.map(({ part }) => part.columns.epoch[part.columns.epoch.length - 1]));
  const high = values.length ? Math.max(...values) : 1, low = fromZero ? Math.min(0, ...values) : values.length ? Math.min(...values) : 0;
  const pad = (high - low || Math.abs(high) || 1) * 0.06;
  const styled = lines.map((one, i) => ({ ...one, color: i ? "var(--neutral)" : "var(--accent)", dash: DASHES[i % DASHES.length], isNamed: i === 0 || lines.length <= MOST_NAMED }));
  const drawn = [...styled].reverse().map(({ name, isNamed, color, dash, part }) => ({
    kind: "line", name: isNamed ? line(name, 24) : "", color, dash, data: part.columns.epoch.map((epoch, i) => [epoch, part.columns[column][i]]),
  }));
  const best = styled.filter(({ isNamed, part, best: at }) => isNamed && Number.isFinite(part.columns[column][at])).map(({ name, color, part, best: at }) => ({
    kind: "points", color, shape: "circle",
    data: [[part.columns.epoch[at], part.columns[column][at], `${name}, best epoch ${part.columns.epoch[at]}: ${number(part.columns[column][at])}`]],
  }));
  return figure({
    title,
    sentence,
    picture: chart({
      x: { label: "epoch", domain: [last > 1 ? 1 : 0, Math.max(last, 1)], format: (value) => (Number.isInteger(value) ? String(value) : "") },
      y: { label, domain: [fromZero ? low : low - pad, high + pad], format },
      series: [...drawn, ...best], alt: `${title} by epoch of ${lines.length} networks`,
    }),
    table: () => ({
      columns: ["network", "epoch", title, "best epoch"],
      rows: lines.flatMap(({ name, part, best: at }) => part.columns.epoch.map((epoch, i) => [name, epoch, part.columns[column][i], i === at ? "yes" : ""])),
    }),
    name: `training-${column}`,
  });
}

/** What a training reached, in a sentence. */
export function summary(training) {
  const found = networks(training);
  const about = `${line(training.name, 60)}${training.name === training.detector ? "" : ` (${line(training.detector, 40)})`}, labels ${line(training.label, 40)}`;
  if (training.problem) return `${about}: ${training.problem}`;
  const state = training.is_done ? "done" : training.idle_seconds < 120 ? "being trained" : `not finished, and nothing was written for ${Math.round(training.idle_seconds / 60)} minutes: the same command goes on`;
  if (!found.length) return `${about}: ${state}${training.is_done ? `, validation AUROC ${decimals(training.validation_auroc)}. It is not trained in epochs.` : "."}`;
  const { part, best } = found[0];
  const epochs = found.reduce((sum, one) => sum + one.part.columns.epoch.length, 0);
  const last = part.columns.epoch.length - 1;
  return `${about}: ${state}, ${number(epochs)} epochs${found.length > 1 ? ` of ${number(found.length)} networks` : ""}. `
    + `Best${part.name ? ` in ${part.name}` : ""}: epoch ${part.columns.epoch[best]}, validation AUROC ${decimals(part.columns.validation_auroc[best])}, loss ${number(part.columns.loss[best])}`
    + (training.is_done ? "." : `; last epoch ${part.columns.epoch[last]}, loss ${number(part.columns.loss[last])}.`);
}
