// Two kinds of sensitivity, never mixed: what the score of a trace reads, and what the model does.

import { css, diverging, ink } from "../colors.js";
import { savedDetectors, stateLink } from "../controls.js";
import { el, fill, later, Missing, problem, svg } from "../dom.js";
import { plainTable, region } from "../figure.js";
import { decimals, duration, line, number } from "../format.js";
import { register } from "../registry.js";
import { fetched } from "../source.js";
import { state } from "../state.js";
import { toldIn } from "../stream.js";

register({
  id: "sensitivity",
  title: "Sensitivity",
  order: 35,
  ofOneRun: true,
  servedOnly: true,
  async render({ state: now, settings }) {
    const run = now.run ?? settings.run;
    if (!now.trace) {
      throw new Missing("This is about one trace: open one from the tab Run, Errors or Map, or ask a question, and come back to this tab.");
    }
    const about = await fetched(`ask/${encodeURIComponent(run)}`);
    const chosen = about.detectors.find((one) => one.id === now.asked_by) ?? about.detectors[0];
    return el("section", {},
      el("div", { class: "controls" },
        el("span", { class: "control" }, "trace ", stateLink(line(now.trace, 60), { view: "trace" })), chosen ? savedDetectors(about.detectors, chosen.id).element : null),
      el("h2", {}, "What the score reads"),
      chosen ? later(reading(run, now.trace, chosen)) : problem(new Missing("No detector of this run was found: `hallutrace train RUN --detector lookback-lens --label NAME --out DIR` makes one; name DIR when you start the explorer.")),
      el("h2", {}, "What the model does"), causal(run, now.trace, about, chosen));
  },
});

/** From the trace alone, at once. */
async function reading(run, trace, detector) {
  const address = `sensitivity/${encodeURIComponent(run)}/${encodeURIComponent(detector.id)}?trace=${encodeURIComponent(trace)}`;
  const { linear, edges } = await fetched(address);
  return el("div", {}, linear ? ofLinear(linear, detector) : null, edges ? ofEdges(edges, detector) : null);
}

function ofLinear(found, detector) {
  const of = found.is_training ? "training traces" : "traces of this run (those that it was trained on are elsewhere)";
  const sentence = `The score of ${detector.name} is ${number(found.score)}. Values of this trace become their mean over ${number(found.traces)} ${of}; what is shown is how the score changes then. `
    + `With all of them replaced it changes by ${signed(found.all)}. This is about the detector, not about the model.`;
  const rows = found.features.map((one) => [one.feature, one.value, one.mean, ...shown(one.change, Math.abs(found.features[0].change))]);
  return [el("p", {}, sentence), found.heads ? grid(found) : null,
    el("h3", {}, `The ${found.features.length} features that move it most`),
    tight("Features", plainTable({ columns: ["feature", "here", "mean", "change of the score", ""], rows }))];
}

/** Layers x heads; orange where the head, as it is here, raises the risk: without it the score falls. */
function grid({ heads, layers, names }) {
  const [rows, columns] = heads.shape;
  const reach = Math.max(...heads.map(Math.abs)) || 1;
  const cell = (row, column) => {
    const change = heads[row * columns + column], ground = diverging(-change / reach);
    return el("td", { class: "cell", title: `layer ${names[row]}, head ${column}: ${signed(change)}`, style: { background: css(ground), color: ink(ground) } }, decimals(change, 2));
  };
  const order = Array.from({ length: columns }, (_, i) => i);
  return [el("h3", {}, "A head, or a layer, replaced"),
    el("p", { class: "note" }, "Orange: without what this head shows here the score would fall, so it speaks for a hallucination. Blue: it speaks against."),
    tight("Change of the score by layer and head", el("table", { class: "plain reading" },
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "layer"), order.map((one) => el("th", { scope: "col" }, `h${one}`)), el("th", { scope: "col" }, "whole layer"))),
      el("tbody", {}, Array.from({ length: rows }, (_, row) => el("tr", {}, el("th", { scope: "row" }, names[row]), order.map((one) => cell(row, one)), el("td", { class: "number" }, signed(layers[row])))))))];
}

function ofEdges(found, detector) {
  const all = [...found.top_k, ...found.layers].map(([, change]) => Math.abs(change));
  const reach = Math.max(...all) || 1;
  const rows = [
    ...found.top_k.map(([k, change]) => [`only the ${k} largest weights of each row`, ...shown(change, reach)]),
    ...found.layers.map(([layer, change]) => [`no edges of layer ${layer}`, ...shown(change, reach)]),
  ];
  return [el("h3", {}, "Fewer edges"),
    el("p", {}, `The score of ${detector.name} is ${number(found.score)}; with fewer edges of this trace it changes as follows. This is about the detector, not about the model.`),
    tight("Change of the score with fewer edges", plainTable({ columns: ["edges", "change of the score", ""], rows }))];
}

/** Forward passes again, one for each layer or head. */
function causal(run, trace, about, detector) {
  const place = el("div", {}), layer = el("input", { type: "number", min: 0, value: state().ablated ?? 0, "aria-label": "layer" });
  const stop = el("button", { type: "button", hidden: true, onclick: () => going?.abort() }, "Stop");
  const starts = [
    el("button", { type: "button", onclick: () => start(null) }, "Without each layer"),
    el("button", { type: "button", onclick: () => start(Number(layer.value)) }, "Without each head of layer"),
  ];
  let going = null;
  async function start(of) {
    going = new AbortController();
    starts.forEach((one) => { one.disabled = true; });
    stop.hidden = false;
    await ablated(place, { run, trace, detector: detector?.id ?? null, layer: of }, going.signal);
    starts.forEach((one) => { one.disabled = false; });
    stop.hidden = true;
  }
  return [
    el("p", {}, `Causal: ${line(about.model, 80)} reads the answer again while a layer or a head gives nothing. What is shown is how much less likely it finds its own answer then`,
      detector ? `, and how the score of ${detector.name} changes` : "", ". Each is a forward pass, with its time."),
    el("div", { class: "controls" }, starts[0], el("span", { class: "control" }, starts[1], layer), stop), place];
}

async function ablated(place, body, signal) {
  const status = el("p", { class: "note", role: "status" }, "Asking …"), table = el("div", {}), rows = [];
  fill(place, status, table);
  let whole = null;
  const told = {
    whole: (found) => { whole = found; fill(status, begun(found)); },
    ablated: (found) => { rows.push(found); fill(table, passes(rows, whole)); fill(status, `${begun(whole)} ${rows.length} of ${whole.passes} passes done.`); },
  };
  await toldIn(status, "ablate", body, told, signal, () => `Stopped after ${rows.length} of ${whole?.passes ?? "the"} passes.`);
}

function begun({ logprob, score, seconds }) {
  return `As it is: log-probability of the answer ${number(logprob)}${score === null ? "" : `, score ${number(score)}`} (${duration(seconds)} a pass).`;
}

function passes(rows, whole) {
  const reach = Math.max(...rows.map((one) => Math.abs(one.logprob))) || 1;
  const has = whole.score !== null;
  return tight("Passes", plainTable({
    columns: ["without", "change of log-probability", "", ...(has ? ["change of the score"] : []), "time"],
    rows: rows.map((one) => [
      one.head === null ? `layer ${one.layer}` : `layer ${one.layer}, head ${one.head}`, ...shown(one.logprob, reach),
      ...(has ? [el("span", { class: "short" }, signed(one.score))] : []), duration(one.seconds)]),
  }));
}

const signed = (value) => (value > 0 ? `+${number(value)}` : number(value).replace("-", "−"));
const tight = (label, content) => region(label, content, "tight");

/** A change as text, and as a bar to the left or right of the middle. */
function shown(change, reach) {
  const half = 50, length = (Math.min(Math.abs(change) / reach, 1) || 0) * half;
  const bar = svg("svg", { viewBox: `0 0 ${2 * half} 12`, width: 2 * half, height: 12, "aria-hidden": "true" },
    svg("rect", { x: change < 0 ? half - length : half, width: length, y: 1, height: 10, fill: change < 0 ? "var(--right)" : "var(--hallucinated)" }),
    svg("line", { x1: half, x2: half, y1: 0, y2: 12, stroke: "var(--muted)" }));
  return [el("span", { class: "short" }, signed(change)), bar];
}
