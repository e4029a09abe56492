// Detectors: does anything detect hallucination beyond the controls, and how well.

import { aurocForest, detectorTable, differences } from "../detector_table.js";
import { choice } from "../controls.js";
import { disagreement, cutOf, thresholdControls } from "../detector_threshold.js";
import { el, fill } from "../dom.js";
import { counted, number, percent } from "../format.js";
import { precisionRecall, reliability, roc, scoreHistogram } from "../detector_curves.js";
import { keepingFocus } from "../redraw.js";
import { register } from "../registry.js";
import { onlyChanged, state } from "../state.js";

const MOST_CURVES = 6;
const OWN = ["detector", "detectors_by", "detectors_with", "detectors_at", "detectors_other", "trace", "label"];
let redraw = null;

register({
  id: "detectors",
  title: "Detectors",
  order: 50,
  ofOneRun: true,
  needs: ["detectors"],
  async render({ source }) {
    const data = await source.get("detectors");
    const places = Object.fromEntries(["table", "forest", "chosen", "curves", "threshold", "scores", "pairs", "disagree"].map((name) => [name, el("div", { "data-part": name })]));
    redraw = (before) => draw(source, data, places, before);
    redraw(null);
    return el("section", {}, head(data), el("h2", {}, "All detectors"), places.table, places.forest, places.chosen, places.threshold, places.curves, places.scores,
      el("h2", {}, "Paired differences"), places.pairs,
      el("h2", {}, "Where two detectors disagree"), places.disagree);
  },
  update(now, before) {
    if (!redraw || !onlyChanged(now, before, OWN)) return false;
    redraw(before);
    return true;
  },
});

function head(data) {
  const { about } = data;
  const seeds = about.seeds > 1 ? `, mean over up to ${about.seeds} seeds` : "";
  return [
    data.verdicts.map((text, i) => el("p", { class: i ? null : "lead" }, text)),
    el("p", { class: "note" }, `${counted(about.traces, "trace")} of ${counted(about.groups, "group")}, labels ${about.label}: ${number(about.hallucinated)} hallucinated (${percent(about.base_rate)}).`),
    el("details", {}, el("summary", {}, "What the figures mean"), el("p", { class: "note" },
      `A score is out of fold${seeds}: the detector that gave it did not see the trace's group, in ${counted(about.folds, "fold")}. `
      + `Figures of the table are means over folds, with ${number(100 * about.level)}% intervals from ${number(about.draws)} bootstrap draws of groups. `
      + `The curves are of all traces together, so their areas may differ a little from the table. `
      + `p: AUROC against the best control${data.best_control ? `, ${data.best_control}` : ""}, corrected by Holm. Times are of one thread.`)),
    about.trained_on ? el("p", { class: "note" }, `Detectors learnt from another run, ${about.trained_on}.`) : null,
    about.relabelled ? el("p", { class: "warning" }, `${counted(about.relabelled, "trace")} ${about.relabelled === 1 ? "has" : "have"} another label now than in this evaluation: evaluate again with --overwrite.`) : null,
  ];
}

/** The chosen row, and those whose curves are beside it: the best control, and a graph model's own. */
function chosenOf(data) {
  const done = data.rows.filter((row) => row.status === "done");
  const asked = done.find((row) => row.label === state().detector);
  const byAuroc = [...done].sort((a, b) => b.auroc.value - a.auroc.value);
  const row = asked ?? byAuroc.find((one) => !one.is_control && one.control_of === null) ?? byAuroc[0];
  if (!row) return null;
  const own = done.filter((one) => one.control_of === row.label || one.label === row.control_of).map((one) => one.label);
  const named = state().detectors_with?.split("|").filter((label) => done.some((one) => one.label === label));
  const compared = named ?? [...(data.best_control ? [data.best_control] : []), ...own];
  return { row, done, compared: compared.filter((label) => label !== row.label).slice(0, MOST_CURVES - 1) };
}

function draw(source, data, places, before) {
  const changed = (...names) => !before || names.some((name) => state()[name] !== before[name]);
  const chosen = chosenOf(data);
  if (changed("detector", "detectors_by", "detectors_with")) {
    keepingFocus(places.table, () => fill(places.table, detectorTable(data, chosen?.row.label, chosen?.compared ?? [])));
    if (chosen) fill(places.forest, aurocForest(data, chosen.row.label));
  }
  if (!chosen) return;
  const { row, done, compared } = chosen, curve = data.curves[row.label];
  if (changed("detector")) {
    const select = choice("detector", "Detector", done.map((one) => one.label), row.label);
    keepingFocus(places.chosen, () => fill(places.chosen, el("h2", {}, "One detector"), el("div", { class: "controls" }, select)));
    const controls = thresholdControls(curve);
    places.threshold.show = controls.show;
    fill(places.threshold, controls.element);
    fill(places.pairs, differences(data, row.label));
  }
  const index = cutOf(curve);
  if (!changed("detector")) places.threshold.show();
  const labels = [row.label, ...compared];
  fill(places.curves, el("div", { class: "figures" }, roc(data, labels, index), precisionRecall(data, labels, index)));
  fill(places.scores, el("div", { class: "figures" }, scoreHistogram(data, row.label, index), curve.calibration
    ? reliability(data, row)
    : el("p", { class: "problem", role: "note" }, "This evaluation did not write its calibration curves: `hallutrace evaluate` with --overwrite does.")));
  if (changed("detector", "detectors_other", "detectors_at")) later(places, () => fill(places.disagree, disagreement(source, data, row.label)));
}

/** A slider that moves fast redraws its list once. */
function later(places, action) {
  clearTimeout(places.timer);
  if (!places.disagree.firstChild) action();
  else places.timer = setTimeout(action, 120);
}
