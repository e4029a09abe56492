// Curves of detectors: ROC, precision-recall, scores by label, calibration.

import { labelText } from "./colors.js";
import { svg } from "./dom.js";
import { chart, scale } from "./chart.js";
import { decimals, line, number, percent } from "./format.js";
import { figure } from "./figure.js";

const DASHES = ["7 3", "2 3", "9 3 2 3", "4 2", "1 2", "12 4"];

/** What a cut of a detector gives: counts and rates. */
export function countsAt(curve, index) {
  const last = curve.hits.length - 1;
  const [positives, negatives, hits, alarms] = [curve.hits[last], curve.alarms[last], curve.hits[index], curve.alarms[index]];
  const flagged = hits + alarms;
  return {
    threshold: curve.thresholds[index], hits, alarms, misses: positives - hits, passed: negatives - alarms, flagged, positives, negatives,
    recall: hits / positives, fpr: alarms / negatives, precision: flagged ? hits / flagged : NaN,
    f1: (2 * hits) / (flagged + positives),
  };
}

const points = (curve, pick) => Array.from(curve.hits, (_, i) => pick(countsAt(curve, i)));

/** A figure of curves through the cuts; the first label is the chosen detector, whose cut is marked. */
function curves(data, labels, index, { title, sentence, x, y, area, chance }) {
  const here = countsAt(data.curves[labels[0]], index);
  const lines = labels.map((label, i) => ({
    kind: "line", name: `${line(label, 22)} ${decimals(data.curves[label][area])}`, dash: i ? DASHES[(i - 1) % DASHES.length] : null,
    color: ["var(--accent)", "var(--ink)"][i] ?? "var(--neutral)", data: points(data.curves[label], (at) => [at[x.of], at[y.of]]),
  }));
  const told = `threshold ${number(here.threshold)}`;
  return figure({
    title,
    sentence,
    picture: chart({
      x: { label: x.label, domain: [0, 1] }, y: { label: y.label, domain: [0, 1] }, height: 340, alt: `${title} of ${labels.join(", ")}`,
      series: [
        { kind: "rule", color: "var(--muted)", dash: "1 3", data: [chance] }, ...lines.reverse(),
        { kind: "points", color: "var(--accent)", shape: "circle", data: Number.isFinite(here[y.of]) ? [[here[x.of], here[y.of], told]] : [] },
      ],
    }),
    table: () => ({
      columns: ["detector", "threshold", x.label, y.label],
      rows: labels.flatMap((label) => points(data.curves[label], (at) => [label, at.threshold, at[x.of], at[y.of]])),
    }),
    name: title.toLowerCase().replaceAll(" ", "-"),
  });
}

export function roc(data, labels, index) {
  return curves(data, labels, index, {
    title: "ROC", area: "auroc", chance: [0, 0, 1, 1], x: { label: "false-alarm rate", of: "fpr" }, y: { label: "recall", of: "recall" },
    sentence: `Share of hallucinated answers found against share of right ones flagged, ${number(data.about.traces)} traces, all folds together. The point is the threshold above.`,
  });
}

export function precisionRecall(data, labels, index) {
  const base = data.about.base_rate;
  return curves(data, labels, index, {
    title: "Precision and recall", area: "auprc", chance: [0, base, 1, base], x: { label: "recall", of: "recall" }, y: { label: "precision", of: "precision" },
    sentence: `Share of flagged answers that are hallucinated against share of hallucinated ones found. Flagging by chance gives the base rate, ${percent(base)}.`,
  });
}

/** Scores of the two classes: hallucinated above the line, right below it. */
export function scoreHistogram(data, label, index) {
  const { edges, hallucinated, right } = data.curves[label].histogram;
  const most = Math.max(...hallucinated, ...right, 1);
  const threshold = countsAt(data.curves[label], index).threshold;
  const place = Math.min(Math.max(threshold, edges[0]), edges[edges.length - 1]);
  const bars = (counts, below) => Array.from(counts, (count, i) => [edges[i], edges[i + 1], count, below ? -count : 0]);
  return figure({
    title: "Scores by label",
    sentence: `${number(data.about.hallucinated)} hallucinated answers above the line, ${number(data.about.right)} right ones below it; the outermost bars hold what lies beyond. The dashed line is the threshold above.`,
    picture: chart({
      x: { label: `score of ${line(label, 40)}`, domain: [edges[0], edges[edges.length - 1]] },
      y: { label: "traces", domain: [-most, most], format: (value) => number(Math.abs(value)) },
      series: [
        { kind: "bars", name: labelText(1), color: "var(--hallucinated)", data: bars(hallucinated, false) },
        { kind: "bars", name: labelText(0), color: "var(--right)", data: bars(right, true) },
        { kind: "rule", color: "var(--ink)", data: [[edges[0], 0, edges[edges.length - 1], 0]] },
        { kind: "rule", color: "var(--ink)", dash: "5 3", data: [[place, -most, place, most]] },
      ],
      alt: `Histogram of the scores of ${label} by label`,
    }),
    table: () => ({ columns: ["from", "to", "hallucinated", "right"], rows: Array.from(hallucinated, (count, i) => [edges[i], edges[i + 1], count, right[i]]) }),
    name: "scores",
  });
}

/** Risks against what came true, with the number of traces in each bin. */
export function reliability(data, row) {
  const { count, risk, share } = data.curves[row.label].calibration;
  const most = Math.max(...count), bins = count.length;
  const size = { width: 460, height: 280 };
  const at = { x: scale([0, 1], [52, size.width - 12]), y: scale([0, 1], [size.height - 40, 10]) };
  const known = Array.from(count.keys()).filter((i) => count[i]);
  const picture = chart({
    x: { label: "risk that the detector gives", domain: [0, 1] }, y: { label: "share hallucinated", domain: [0, 1] },
    series: [
      { kind: "bars", color: "var(--line)", data: Array.from(count, (one, i) => [i / bins, (i + 1) / bins, 0.25 * one / most]) },
      { kind: "rule", color: "var(--muted)", dash: "1 3", data: [[0, 0, 1, 1]] },
      { kind: "line", color: "var(--accent)", data: known.map((i) => [risk[i], share[i]]) },
      { kind: "points", color: "var(--accent)", shape: "circle", data: known.map((i) => [risk[i], share[i], `${number(count[i])} traces`]) },
    ],
    alt: `Calibration of ${row.label}: expected calibration error ${decimals(row.ece)}`, legend: false, ...size,
  });
  picture.append(...known.map((i) => svg("text", { class: "tick", x: at.x((i + 0.5) / bins), y: at.y(0.25 * count[i] / most) - 3, "text-anchor": "middle", "font-size": 10 }, number(count[i]))));
  const times = row.seeds > 1 ? `; a trace counts once for each of ${row.seeds} seeds` : "";
  return figure({
    title: "Calibration",
    sentence: `Scores as risks, by a curve fitted on validation traces, against what came true: on the diagonal, risks mean what they say. Expected calibration error ${decimals(row.ece)}. The numbers are traces in each bin${times}.`,
    picture,
    table: () => ({ columns: ["from", "to", "traces", "mean risk", "share hallucinated"], rows: Array.from(count, (one, i) => [i / bins, (i + 1) / bins, one, one ? risk[i] : null, one ? share[i] : null]) }),
    name: "calibration",
  });
}
