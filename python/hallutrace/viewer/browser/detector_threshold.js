// What a threshold does: counts at it, and where two detectors disagree at theirs.

import { el, fill, later } from "./dom.js";
import { countsAt } from "./detector_curves.js";
import { labelText } from "./colors.js";
import { choice } from "./controls.js";
import { counted, decimals, line, number, percent } from "./format.js";
import { plainTable } from "./figure.js";
import { setState, state } from "./state.js";
import { virtualTable } from "./table.js";

const PRESETS = [["fpr5", "5% false alarms"], ["f1", "best F1"], ["youden", "best Youden"]];

/** The cut that the address names: a preset, or a number; the first preset without one. */
export function cutOf(curve) {
  const named = state().detectors_at ?? "fpr5";
  if (named in curve.presets) return curve.presets[named];
  const index = Math.round(Number(named));
  return Number.isFinite(index) ? Math.min(Math.max(index, 0), curve.hits.length - 1) : curve.presets.fpr5;
}

/** The other detector's cut that goes with it: the same preset, else at most as many false alarms. */
function cutBeside(curve, other) {
  const named = state().detectors_at ?? "fpr5";
  if (named in other.presets) return other.presets[named];
  const most = curve.alarms[cutOf(curve)];
  let found = 0;
  while (found + 1 < other.alarms.length && other.alarms[found + 1] <= most) found++;
  return found;
}

/** The slider with its presets, and a place that `show()` fills with the counts. */
export function thresholdControls(curve) {
  const counts = el("div", { class: "counts", "aria-live": "polite" });
  const slider = el("input", {
    type: "range", min: 0, max: curve.hits.length - 1, step: 1, class: "threshold", "aria-label": "Threshold, from strict to loose",
    oninput: () => setState({ detectors_at: slider.value }, { replace: true }),
  });
  const buttons = PRESETS.map(([name, text]) => el("button", { type: "button", "data-preset": name, onclick: () => setState({ detectors_at: name }) }, text));
  const show = () => {
    const index = cutOf(curve), at = countsAt(curve, index);
    if (document.activeElement !== slider || Number(slider.value) !== index) slider.value = index;
    slider.setAttribute("aria-valuetext", `${at.flagged} of ${at.positives + at.negatives} flagged`);
    for (const one of buttons) one.setAttribute("aria-pressed", String(one.dataset.preset === (state().detectors_at ?? "fpr5")));
    fill(counts, countsText(at), plainTable({
      columns: ["label", "flagged", "not flagged"],
      rows: [[labelText(1), at.hits, at.misses], [labelText(0), at.alarms, at.passed]],
    }));
  };
  show();
  return { element: el("div", {}, el("div", { class: "controls" }, el("label", { class: "control" }, "strict", slider, "loose"), buttons), counts), show };
}

function countsText(at) {
  const begin = Number.isFinite(at.threshold) ? `Flagging scores of at least ${number(at.threshold, 4)}` : "Flagging nothing";
  return el("p", {}, `${begin} flags ${number(at.flagged)} of ${counted(at.positives + at.negatives, "answer")}: precision ${decimals(at.precision)}, `
    + `recall ${decimals(at.recall)}, false-alarm rate ${decimals(at.fpr)}, F1 ${decimals(at.f1)}.`);
}

/** Where two detectors disagree, with a list that opens the traces. */
export function disagreement(source, data, chosen) {
  const others = data.rows.filter((row) => row.status === "done" && row.label !== chosen).map((row) => row.label);
  if (!others.length) return el("p", { class: "note" }, "There is no other detector to compare it with.");
  const best = data.best_control !== chosen ? data.best_control : null;
  const other = others.includes(state().detectors_other) ? state().detectors_other : best ?? others[0];
  return [
    el("div", { class: "controls" }, choice("detectors_other", `${line(chosen, 40)} and`, others, other)),
    later(source.get("traces").then((traces) => compared(traces, data, chosen, other))),
  ];
}

function compared(traces, data, chosen, other) {
  const cuts = [countsAt(data.curves[chosen], cutOf(data.curves[chosen])), countsAt(data.curves[other], cutBeside(data.curves[chosen], data.curves[other]))];
  const scores = [traces.scores?.[chosen], traces.scores?.[other]], labels = traces.labels?.[data.about.label];
  if (!labels || !scores[0] || !scores[1]) return el("p", { class: "problem", role: "note" }, "This page carries no scores of single traces; `hallutrace explore` shows them.");
  const rows = [], counts = [[0, 0, 0, 0], [0, 0, 0, 0]];
  for (let i = 0; i < labels.length; i++) {
    if (labels[i] < 0 || Number.isNaN(scores[0][i]) || Number.isNaN(scores[1][i])) continue;
    const flags = [scores[0][i] >= cuts[0].threshold, scores[1][i] >= cuts[1].threshold];
    counts[labels[i]][flags[0] ? (flags[1] ? 0 : 1) : flags[1] ? 2 : 3]++;
    if (flags[0] !== flags[1]) rows.push({ i, label: labels[i], by: flags[0] ? chosen : other });
  }
  const total = counts.flat().reduce((sum, one) => sum + one, 0);
  const columns = [
    { name: "question", value: ({ i }) => line(traces.question[i], 160) },
    { name: "answer", value: ({ i }) => line(traces.answer[i], 160) },
    { name: "label", value: ({ label }) => label, cell: ({ label }) => labelText(label), width: "8.5em" },
    { name: "flagged by", value: ({ by }) => by, text: ({ by }) => line(by, 40), width: "minmax(9em, .6fr)" },
    { name: "score", number: true, value: ({ i }) => scores[0][i], text: ({ i }) => number(scores[0][i]), width: "5em" },
    { name: "of other", number: true, value: ({ i }) => scores[1][i], text: ({ i }) => number(scores[1][i]), width: "5em" },
  ];
  const rate = (at) => percent(at.fpr);
  return el("div", {},
    el("p", {}, `At thresholds with false-alarm rates of ${rate(cuts[0])} and ${rate(cuts[1])} they disagree on ${number(rows.length)} of ${counted(total, "trace")}${traces.key.length < (traces.total ?? 0) ? ` that this page carries (the run has ${number(traces.total)})` : ""}.`),
    el("div", { class: "scroll crossed" }, plainTable({
      columns: ["label", "flagged by both", `only ${line(chosen, 30)}`, `only ${line(other, 30)}`, "by neither"],
      rows: [[labelText(1), ...counts[1]], [labelText(0), ...counts[0]]],
    })),
    rows.length ? virtualTable({ columns, rows, open: ({ i }) => setState({ view: "trace", trace: traces.key[i] }), label: `Traces on which ${chosen} and ${other} disagree`, height: 320 }) : null);
}
