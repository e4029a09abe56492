// Errors: what the chosen detector misses, and in which parts of the run it, or the model, does worst.

import { CLASSES } from "../colors.js";
import { mark } from "../chart.js";
import { choice, stateLink } from "../controls.js";
import { el, fill, svg } from "../dom.js";
import { figure } from "../figure.js";
import { counted, decimals, interval, line, number, percent } from "../format.js";
import { register } from "../registry.js";
import { onlyChanged, setState, state } from "../state.js";
import { traceTable } from "../trace_table.js";

const PRIORITIES = { 1: "high", 2: "medium", 3: "low" };
const LEVEL = 0.05;
let openPart = null;

register({
  id: "errors",
  title: "Errors",
  order: 60,
  ofOneRun: true,
  needs: ["errors"],
  async render({ source, state: now }) {
    const asked = { label: now.label, detector: now.detector };
    const keys = [asked, { label: now.label }, {}].find((one) => source.has("errors", one));
    const found = await source.get("errors", keys ?? {});
    const isAsked = (now.label ?? found.label) === found.label && (!found.detector || (now.detector ?? found.detector) === found.detector);
    openPart = null;
    return el("section", {},
      el("p", { class: "lead" }, lead(found)),
      isAsked ? null : el("p", { class: "note" }, `These are the errors of ${found.detector ?? "the run"} by ${found.label}, which this page carries; \`hallutrace explore\` shows others.`),
      found.detector && found.trained_on !== found.label ? el("p", { class: "note" }, `The detectors learnt from labels by ${found.trained_on}.`) : null,
      chooser(found, source),
      suggestions(found),
      slices(found),
      worst(found),
      controls(found),
      found.missing.length ? el("div", {}, el("h2", {}, "What is not here"), found.missing.map((one) => el("p", { class: "problem" }, one))) : null);
  },
  update(now, before) {
    if (!openPart || !onlyChanged(now, before, ["slice"])) return false;
    openPart(now.slice, true);
    return true;
  },
});

function lead({ counts, detector, label, alarm_share: allowed }) {
  const share = `${number(counts.hallucinated)} of ${counted(counts.judged, "labelled answer")} are hallucinated, by ${label}.`;
  if (!detector) return share;
  return `${share} Where at most ${percent(allowed, 0)} of right answers may raise an alarm, ${detector} misses ${number(counts.misses)} of the `
    + `${number(counts.hallucinated)} hallucinated ones (${percent(counts.misses / counts.hallucinated)}) and raises ${counted(counts.false_alarms, "false alarm")}.`;
}

function chooser(found, source) {
  const labels = source.served ? found.labels : found.labels.filter((one) => one === found.label || source.has("errors", { label: one }));
  const detectors = source.served ? found.detectors : [];
  if (labels.length < 2 && !detectors.length) return null;
  return el("div", { class: "controls" }, labels.length > 1 ? choice("label", "labels by", labels, found.label) : null,
    detectors.length ? choice("detector", "detector", detectors, found.detector) : null);
}

function suggestions({ suggestions: all, slices: figures }) {
  if (!all.length) return null;
  return el("div", {}, el("h2", {}, "Where to look"),
    el("ol", { class: "suggestions" }, all.map(({ text, priority, part }) => el("li", {},
      el("span", { class: "priority", "data-priority": priority }, PRIORITIES[priority]), el("span", {}, line(text, 600),
        part === null ? null : [" ", stateLink("Show these", { slice: keyOf(figures, part) })])))));
}

// Parts of the run ------------------------------------------------------------------------------------

const keyOf = (figures, row) => `${figures.family[row]}.${figures.part[row]}`;

function slices(found) {
  const figures = found.slices;
  const rows = figures.name.map((_, row) => row);
  if (!rows.length) return el("p", { class: "note" }, "No part of the run has ten labelled traces of five groups.");
  const scored = Boolean(found.detector);
  const whole = figures.all;
  const grid = el("div", { class: scored ? "slices scored" : "slices" }, head(scored));
  const places = new Map();
  const aurocs = scored ? rows.flatMap((row) => [figures.auroc_low[row]]).filter(Number.isFinite) : [];
  const least = Math.max(0, Math.min(0.4, ...aurocs));
  const draw = (row) => {
    const key = keyOf(figures, row);
    const place = el("div", { class: "examples" });
    const button = el("button", {
      type: "button", class: "quiet", "aria-expanded": "false", title: `Show traces ${figures.clause[row]}`,
      onclick: () => setState({ slice: state().slice === key ? null : key }, { replace: true }),
    }, line(figures.name[row], 90));
    places.set(key, { row, place, button });
    const at = (name) => ({ value: figures[name][row], low: figures[`${name}_low`][row], high: figures[`${name}_high`][row], p: figures[`${name}_p`][row] });
    // Not a table to those who hear it: the numbers below the figure are one.
    grid.append(el("div", { class: "part", role: "group", "aria-label": figures.name[row] },
      el("div", {}, button), el("div", { class: "number" }, number(figures.traces[row])),
      shareCell(at("share"), whole.share),
      scored ? [aurocCell(at("auroc"), whole.auroc, least),
        el("div", { class: "number" }, number(figures.misses[row])), el("div", { class: "number" }, number(figures.false_alarms[row]))] : null), place);
  };
  figures.families.forEach((name, family) => {
    const parts = rows.filter((row) => figures.family[row] === family);
    if (!parts.length) return;
    grid.append(el("h3", { class: "family" }, name));
    parts.forEach(draw);
  });
  openPart = (key, scroll) => {
    for (const [one, { row, place, button }] of places) {
      const isOpen = one === key;
      if (isOpen === (button.getAttribute("aria-expanded") === "true")) continue;
      button.setAttribute("aria-expanded", String(isOpen));
      fill(place, isOpen ? examples(found, row) : null);
      if (isOpen && scroll) button.scrollIntoView({ block: "center" });
    }
  };
  openPart(state().slice, false);
  const frame = figure({
    title: "Parts of the run", name: "errors-parts",
    sentence: `${counted(rows.length, "part")} with at least ten labelled traces of five groups, of ${counted(whole.traces, "labelled trace")}`
      + `${figures.left_out ? `; ${counted(figures.left_out, "smaller one")} left out` : ""}. Lines are 95% bootstrap intervals over groups; the thin rule is the whole run. `
      + "Bold: differs from the whole run, p below 0.05 after Holm over all parts.",
    table: () => ({
      columns: ["family", "part", "traces", "groups", "hallucinated", ...named("share"), ...(scored ? [...named("auroc"), "misses", "false alarms"] : [])],
      rows: rows.map((row) => [figures.families[figures.family[row]], figures.name[row], figures.traces[row], figures.groups[row], figures.hallucinated[row],
        ...values(figures, "share", row), ...(scored ? [...values(figures, "auroc", row), figures.misses[row], figures.false_alarms[row]] : [])]),
    }),
  });
  frame.querySelector(".below").before(grid);
  return frame;
}

const named = (name) => [name, `${name} low`, `${name} high`, `${name} p (Holm)`];
const values = (figures, name, row) => [figures[name][row], figures[`${name}_low`][row], figures[`${name}_high`][row], figures[`${name}_p`][row]];

function head(scored) {
  const names = ["part", "traces", "share hallucinated", ...(scored ? ["AUROC within", "misses", "false alarms"] : [])];
  return el("div", { class: "part head", "aria-hidden": "true" }, names.map((name) => el("div", { class: ["traces", "misses", "false alarms"].includes(name) ? "number" : null }, name)));
}

function shareCell({ value, low, high, p }, whole) {
  const text = `${percent(value)} [${decimals(100 * low, 0)}, ${decimals(100 * high, 0)}]`;
  return rangeCell(text, p, picture({ value, low, high }, whole, [0, 1], CLASSES[1].shape, CLASSES[1].color));
}

function aurocCell({ value, low, high, p }, whole, least) {
  if (!Number.isFinite(value)) return el("div", { class: "range muted" }, el("span", {}), el("span", {}, "fewer than five of a class"));
  return rangeCell(interval({ mean: value, low, high }), p, picture({ value, low, high }, whole, [least, 1], "square", "var(--accent)"));
}

function rangeCell(text, p, drawn) {
  return el("div", { class: "range" }, drawn, el("span", { class: p < LEVEL ? "differs" : null, title: `p ${number(p, 2)} after Holm` }, text));
}

function picture({ value, low, high }, whole, [from, to], shape, color) {
  const x = (one) => 6 + 118 * ((Math.min(Math.max(one, from), to) - from) / (to - from));
  return svg("svg", { viewBox: "0 0 130 16", "aria-hidden": "true" },
    svg("line", { class: "gridline", x1: 6, x2: 124, y1: 8, y2: 8 }),
    svg("line", { x1: x(whole), x2: x(whole), y1: 1, y2: 15, stroke: "var(--muted)", "stroke-dasharray": "2 2" }),
    svg("line", { x1: x(low), x2: x(high), y1: 8, y2: 8, stroke: color, "stroke-width": 2 }),
    mark(shape, x(value), 8, 4, color));
}

// Traces ---------------------------------------------------------------------------------------------

function table(found, rows, name, height = 300) {
  const { listed } = found;
  const extra = found.detector ? [{ name: "rank of score", number: true, value: (i) => listed.rank[i], text: (i) => decimals(listed.rank[i]), width: "7.5em" }] : [];
  return traceTable({ traces: listed, rows: [...rows], protocol: found.label, name, extra, height });
}

function examples(found, row) {
  const rows = found.slices.examples[row];
  const what = found.detector ? "Hallucinated answers of the lowest scores, then right ones of the highest" : "Hallucinated answers of the highest mean log-probability";
  return [el("p", { class: "note" }, rows.length ? `${what}, among the traces ${found.slices.clause[row]}:` : "None of them is hallucinated."),
    rows.length ? table(found, rows, `Traces ${found.slices.clause[row]}`, 260) : null];
}

function worst(found) {
  if (!found.detector) {
    return el("div", {}, el("h2", {}, "Hallucinated, and sure of it"),
      el("p", { class: "note" }, `The ${counted(found.confident.length, "hallucinated answer")} of the highest mean log-probability. A row opens the trace.`), table(found, found.confident, "Sure hallucinations"));
  }
  const listing = (title, sentence, rows, total) => el("div", {}, el("h3", {}, title), el("p", { class: "note" }, `${sentence} ${number(rows.length)} of ${number(total)}.`),
    rows.length ? table(found, rows, title) : null);
  return el("div", {}, el("h2", {}, `The worst errors of ${found.detector}`),
    el("p", { class: "note" }, "The rank of a score is the share of the scores of its fold below it. A row opens the trace."),
    el("div", { class: "figures" },
      listing("Misses", "Hallucinated answers of the lowest scores:", found.misses, found.counts.misses),
      listing("False alarms", "Right answers of the highest scores:", found.false_alarms, found.counts.false_alarms)));
}

function controls({ controls: all, detector, slices: figures }) {
  if (!detector) return null;
  const reached = figures.all.auroc;
  const say = ({ label, value, low, high }) => {
    const auroc = interval({ mean: value, low, high });
    if (low > 0.5 && reached > 0.5) return `${label} alone reaches AUROC ${auroc}: ${percent(Math.min((value - 0.5) / (reached - 0.5), 1), 0)} of what ${detector} reaches above chance (${decimals(reached)}).`;
    if (high < 0.5) return `${label} alone reaches AUROC ${auroc}: below chance, so turned around it would tell something.`;
    return `${label} alone reaches AUROC ${auroc}, no more than chance: it explains nothing of what ${detector} reaches (${decimals(reached)}).`;
  };
  return el("div", {}, el("h2", {}, "What text alone explains"),
    all.length ? el("ul", {}, all.map((one) => el("li", {}, say(one)))) : el("p", { class: "note" }, "The evaluation has no control that reads text alone."));
}
