// The run as a whole: what was asked of which model, what came of it, and all its traces.

import { CLASSES } from "../colors.js";
import { chart } from "../chart.js";
import { choice, stateLink } from "../controls.js";
import { el, fill, later, svg } from "../dom.js";
import { figure, plainTable } from "../figure.js";
import { bytes, counted, decimals, differenceText, interval, line, number, pText, percent } from "../format.js";
import { allViews, register } from "../registry.js";
import { onlyChanged, setState, state } from "../state.js";
import { traceTable } from "../trace_table.js";

const ROWS = [1, 0, null]; // labels, in the order of the rows of counts
let filterRows = null;

register({
  id: "run",
  title: "Run",
  order: 10,
  ofOneRun: true,
  needs: ["run"],
  async render({ source }) {
    const run = await source.get("run");
    const protocol = protocolOf(run);
    const distributions = run.traces ? source.get("distributions") : null;
    filterRows = null;
    return el("section", {},
      el("p", { class: "lead" }, asked(run)),
      run.labels.length > 1 ? el("div", { class: "controls" }, choice("label", "labels by", run.labels, protocol)) : null,
      el("div", { class: "asked" }, hallucinated(run, protocol, distributions), detected(run), located(run)),
      warnings(run, distributions),
      facts(run),
      distributions ? later(distributions.then((found) => figures(found, protocol)), "Reading all traces …") : null,
      protocols(run, protocol, distributions),
      failures(run),
      environments(run),
      settingsOf(run),
      run.traces ? later(source.get("traces").then((traces) => list(traces, run, protocol)), "Reading all traces …") : null);
  },
  update(now, before) {
    if (!filterRows || !onlyChanged(now, before, ["show", "find"])) return false;
    filterRows();
    return true;
  },
});

/** The protocol to show, as Python chooses it. */
function protocolOf(run) {
  const named = state().label ?? run.evaluation?.label;
  return run.labels.includes(named) ? named : run.labels[0] ?? null;
}

function asked(run) {
  const { model, source, decoding } = run.identity;
  const precision = [model.dtype, model.quantization !== "none" ? model.quantization : null].filter(Boolean).join(", ");
  const how = !decoding ? "" : decoding.do_sample
    ? `, sampled at temperature ${number(decoding.temperature)}`
    : decoding.num_beams > 1 ? `, by ${decoding.num_beams} beams` : ", greedily";
  const most = decoding?.max_new_tokens ? `, at most ${counted(decoding.max_new_tokens, "token")} each` : "";
  const from = source ? ` of ${line(String(source.spec ?? source.kind))}` : "";
  return [
    `${counted(run.traces, "answer")} to ${counted(run.questions, "question")}${from}, by `,
    el("strong", {}, line(String(model.name))), precision ? ` (${precision})` : "", `${how}${most}.`,
  ];
}

// The three questions --------------------------------------------------------------------------------

const card = (question, answer, ...rest) => el("div", {}, el("h2", {}, question), el("p", { class: "big" }, answer), rest.map((one) => el("p", {}, one)));

function hallucinated(run, protocol, distributions) {
  const question = "How much is hallucinated?";
  if (protocol === null) return card(question, "Not known", "This run has no labels: ", el("code", {}, "hallutrace label RUN --by contains"));
  const counts = run.label_counts[protocol];
  if (counts.problem) return card(question, "Not known", counts.problem);
  const judged = counts.hallucinated + counts.right;
  const none = run.traces - judged;
  const where = el("span", { class: "interval" });
  distributions?.then(({ shares }) => {
    const { low, high, groups } = shares[protocol];
    fill(where, ` 95% interval ${percent(low)} to ${percent(high)}, over ${counted(groups, "group")}.`);
  }, () => null);
  return card(question, judged ? percent(counts.hallucinated / judged) : "Not known",
    [`${number(counts.hallucinated)} of ${counted(judged, "labelled answer")}, by `, el("code", {}, protocol), ".", where],
    none ? `${counted(none, "answer")} (${percent(none / run.traces)}) ${none === 1 ? "has" : "have"} no label, and ${none === 1 ? "counts" : "count"} for neither.` : "Every answer has a label.");
}

function detected(run) {
  const question = "Detected beyond the controls?";
  const verdict = run.evaluation;
  if (!verdict) return card(question, "Not known", ["No evaluation is shown: ", el("code", {}, `hallutrace evaluate RUN --label ${run.labels[0] ?? "contains"}`), " makes one."]);
  if (verdict.problem) return card(question, "Not known", verdict.problem);
  const { best, control, difference, above, tested } = verdict;
  const auroc = (one) => `${one.label}, reaches AUROC ${interval({ mean: one.value, ...one })}`;
  const link = linkTo("detectors", "All detectors");
  if (!best || !control || !difference) return card(question, "Not known", best ? `The best, ${auroc(best)}; no control was scored.` : "No detector was scored but controls.", link);
  return card(question, above.length ? "Yes" : "No evidence",
    `Of ${counted(tested, "detector")}, ${above.length ? `${above.length} ${above.length === 1 ? "is" : "are"}` : "none is"} above the best control, corrected for their number.`,
    `The best, ${auroc(best)}; the best control, ${auroc(control)}. Difference ${differenceText(difference)}, p ${pText(difference.p_corrected)} after Holm.`,
    verdict.edges.length ? `${verdict.edges.map((one) => `${one.one} less itself with ${one.other.slice(one.one.length).trim()}: ${differenceText(one)}`).join("; ")}.` : null,
    link);
}

const linkTo = (view, text) => (allViews().some((one) => one.id === view) ? stateLink(text, { view }) : null);

function located(run) {
  const question = "Where in the model does it show?";
  const layers = run.evaluation?.layers ?? [];
  const link = linkTo("layers", "Layers and heads");
  if (!layers.length) return card(question, "See the layers", "Differences of hallucinated and right answers stand in each layer and head.", link);
  const best = layers.reduce((one, other) => (other.auroc > one.auroc ? other : one));
  return card(question, `Layer ${best.layer}`,
    `There a linear probe on hidden states reaches AUROC ${decimals(best.auroc)} on validation traces; in layer ${layers[0].layer}, ${decimals(layers[0].auroc)}.`,
    layers.length > 2 ? sparkline(layers) : null, link);
}

function sparkline(layers) {
  const x = (i) => 3 + (234 * i) / (layers.length - 1);
  const y = (auroc) => 33 - 60 * Math.min(Math.max(auroc - 0.5, 0), 0.5);
  const points = layers.map(({ auroc }, i) => `${x(i).toFixed(1)},${y(auroc).toFixed(1)}`).join(" ");
  const text = layers.map(({ layer, auroc }) => `layer ${layer}: ${decimals(auroc)}`).join("; ");
  return svg("svg", { viewBox: "0 0 240 36", role: "img", "aria-label": `AUROC of the probe by layer. ${text}`, class: "spark" },
    svg("line", { class: "gridline", x1: 0, x2: 240, y1: 33, y2: 33 }),
    svg("polyline", { points, fill: "none", stroke: "var(--accent)", "stroke-width": 2 }),
    layers.map(({ layer, auroc }, i) => svg("circle", { cx: x(i), cy: y(auroc), r: 2.5, fill: "var(--accent)" }, svg("title", {}, `layer ${layer}: ${decimals(auroc)}`))));
}

// What one must know ---------------------------------------------------------------------------------

const warning = (...text) => el("p", { class: "warning" }, text);

function warnings(run, distributions) {
  const place = el("div", {});
  if (!run.traces) place.append(warning("This run has no traces yet."));
  if (run.environments.length > 1) place.append(warning(`Shards were made in ${run.environments.length} environments, so the last bits of traces may differ.`));
  if (run.failures.total) place.append(warning(`${counted(run.failures.total, "question")} or answers failed and have no trace: see Failures below.`));
  distributions?.then((found) => {
    const { names, all } = found.finish_reasons;
    const cut = names.includes("length") ? all[names.indexOf("length")] : 0;
    const most = run.identity.decoding?.max_new_tokens;
    if (cut > found.traces / 2) {
      place.append(warning(`Most answers were cut: ${number(cut)} of ${number(found.traces)} (${percent(cut / found.traces)}) ended by length${most ? `, at ${most} tokens` : ""}. `
        + "Labels of cut answers say little; extract again with a larger --max-new-tokens, or check whether the model's end-of-sequence token is known."));
    }
    if (found.damaged.count) place.append(warning(`${counted(found.damaged.count, "trace")} cannot be read, and ${found.damaged.count === 1 ? "is" : "are"} left out: ${found.damaged.message}`));
  }, () => null);
  return place;
}

function facts(run) {
  const environment = run.environments.at(-1)?.values ?? {};
  const entries = [
    ["traces", number(run.traces)], ["failures", number(run.failures.total)], ["shards", number(run.shards)],
    ["size", bytes(run.bytes)], ["a trace", run.traces ? bytes(run.bytes / run.traces) : "–"],
    ["answer tokens", number(run.counts.answer_tokens)],
    ["layers, heads", run.facts.layers ? `${run.facts.layers}, ${run.facts.heads?.[0] ?? "–"}` : "–"],
    ["device", environment.device ? line(String(environment.device), 40) : "–"],
  ];
  return el("dl", { class: "facts" }, entries.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

// Figures --------------------------------------------------------------------------------------------

function figures(found, protocol) {
  return el("div", {},
    el("h2", {}, "Answers by label"),
    el("div", { class: "figures" }, found.quantities.map((one) => histogram(one, found, protocol)), ends(found, protocol)));
}

function histogram(quantity, { traces }, protocol) {
  const { name, title, unit, edges, medians, beyond, missing } = quantity;
  const counts = quantity.counts[protocol];
  const bins = edges.length - 1;
  const sum = (row) => row.reduce((total, one) => total + one, 0);
  const rows = counts ? ROWS.map((label, i) => ({ ...CLASSES[label], counts: [...counts.subarray(i * bins, (i + 1) * bins)], median: medians[protocol][i] })) : [{ ...CLASSES.null, name: "all", counts: [...quantity.all] }];
  const shown = rows.filter((row) => sum(row.counts));
  const share = (row, i) => row.counts[i] / sum(row.counts);
  const highest = Math.max(...shown.flatMap((row) => row.counts.map((_, i) => share(row, i))), 0.01);
  const series = shown.flatMap((row, which) => [
    { kind: "step", color: row.color, dash: [null, "6 3", "2 2"][which], data: [...row.counts.map((_, i) => [edges[i], share(row, i)]), [edges[bins], share(row, bins - 1)]] },
    { kind: "points", name: `${row.name} (${number(sum(row.counts))})`, color: row.color, shape: row.shape, data: row.counts.map((_, i) => [(edges[i] + edges[i + 1]) / 2, share(row, i)]).filter(([, y]) => y > 0) },
  ]);
  const middle = shown.filter((row) => Number.isFinite(row.median)).map((row) => `${row.name} ${number(row.median)}`).join(", ");
  const sentence = `${counted(traces - missing, "trace")}; the height is the share of each class.${middle ? ` Medians: ${middle}.` : ""}`
    + (beyond ? ` ${counted(beyond, "value")} beyond the axis ${beyond === 1 ? "is" : "are"} in the first or last bin.` : "");
  return figure({
    title: `${title} (${unit})`, sentence, name: `run-${name}`,
    picture: chart({
      x: { label: unit, domain: [edges[0], edges[bins]] }, y: { label: "share of its class", domain: [0, highest * 1.05], format: (value) => percent(value, 0) },
      series, alt: `${title}. ${sentence}`, height: 240,
    }),
    table: () => ({ columns: ["from", "to", ...rows.map((row) => row.name)], rows: rows[0].counts.map((_, i) => [edges[i], edges[i + 1], ...rows.map((row) => row.counts[i])]) }),
  });
}

function ends(found, protocol) {
  const { names, all, counts } = found.finish_reasons;
  const known = counts[protocol];
  const columns = ["end", "answers", "share", ...(known ? ["hallucinated", "right", "no label"] : [])];
  const rows = names.map((name, i) => [name, all[i], percent(all[i] / found.traces), ...(known ? ROWS.map((_, row) => known[row * names.length + i]) : [])]);
  return figure({
    title: "How answers ended", name: "run-ends", table: { columns, rows },
    sentence: `${counted(found.traces, "answer")}: ${names.map((name, i) => `${number(all[i])} by ${line(name, 30)}`).join(", ") || "none"}.`,
  });
}

function protocols(run, protocol, distributions) {
  if (!run.labels.length) return null;
  const place = el("div", { class: "scroll" });
  const draw = (shares) => fill(place, plainTable({
    columns: ["protocol", "hallucinated", "right", "no label", "share right", "95% interval", "made with"],
    rows: run.labels.map((name) => {
      const counts = run.label_counts[name];
      const link = name === protocol ? name : stateLink(name, { label: name });
      if (counts.problem) return [name, null, null, null, null, null, counts.problem];
      const judged = counts.hallucinated + counts.right;
      const share = shares?.[name];
      const parameters = Object.entries(counts.parameters ?? {}).filter(([, value]) => value !== null).map(([key, value]) => `${key} ${JSON.stringify(value)}`).join(", ");
      return [link, counts.hallucinated, counts.right, run.traces - judged, judged ? percent(counts.right / judged) : "–",
        share ? `${percent(1 - share.high)} to ${percent(1 - share.low)}` : "…", line(parameters, 120)];
    }),
  }));
  draw(null);
  distributions?.then(({ shares }) => draw(shares), () => null);
  return el("div", {}, el("h2", {}, "Right by protocol"),
    el("p", { class: "note" }, "Answers without a label count for neither side: the share is of the labelled ones."), place);
}

function failures(run) {
  const { total, kinds } = run.failures;
  if (!total) return null;
  return el("div", {}, el("h2", {}, "Failures"),
    el("p", { class: "note" }, `${counted(total, "failure")}, by stage and kind of error.`),
    el("div", { class: "scroll" }, plainTable({
      columns: ["stage", "kind", "count", "another attempt", "first one"],
      rows: kinds.map((one) => [one.stage, line(one.kind, 80), one.count, one.retried ? "may help" : "will not help", `${one.id === null ? `row ${one.index}` : line(one.id, 60)}: ${line(one.error, 400)}`]),
    })));
}

function environments(run) {
  const names = [...new Set(run.environments.flatMap(({ values }) => Object.keys(values)))].sort();
  if (!names.length) return null;
  return details("Environment", plainTable({
    columns: ["", ...run.environments.map(({ shards }) => counted(shards, "shard"))],
    rows: [...names.map((name) => [name, ...run.environments.map(({ values }) => line(String(values[name] ?? "–")))]),
      ["batches halved (memory)", ...run.environments.map((_, i) => (i ? "" : String(run.halved)))]],
  }));
}

function settingsOf(run) {
  const flat = (value, name) => (value && typeof value === "object" && !Array.isArray(value)
    ? Object.entries(value).flatMap(([key, one]) => flat(one, name ? `${name}.${key}` : key)) : [[name, JSON.stringify(value) ?? ""]]);
  const rows = [...flat(run.identity, ""), ...flat(run.facts, "")].map(([name, value]) => [name, line(value, 300)]);
  return details("All settings", plainTable({ columns: ["setting", "value"], rows }));
}

const details = (title, content) => el("details", { class: "numbers" }, el("summary", {}, title), el("div", { class: "scroll" }, content));

// Traces ---------------------------------------------------------------------------------------------

const SHOWN = [{ value: "", text: "all" }, { value: "1", text: "hallucinated" }, { value: "0", text: "right" }, { value: "none", text: "no label" }];

function list(traces, run, protocol) {
  const labels = traces.labels[protocol];
  const best = run.evaluation?.best?.label ?? run.evaluation?.control?.label;
  const scores = traces.scores[best];
  const texts = traces.key.map((key, i) => `${key}\n${traces.question[i]}\n${traces.answer[i]}`.toLowerCase());
  const note = el("p", { class: "note", role: "status" });
  const rows = () => {
    const { show = "", find = "" } = state();
    const sought = find.toLowerCase();
    const fits = (i) => !show || (labels && (show === "none" ? labels[i] < 0 : labels[i] === Number(show)));
    return texts.map((_, i) => i).filter((i) => fits(i) && (!sought || texts[i].includes(sought)));
  };
  const table = traceTable({
    traces, rows: [], protocol, name: "Traces of the run",
    extra: scores ? [{ name: `score of ${best}`, number: true, value: (i) => scores[i], text: (i) => decimals(scores[i]), width: "9em" }] : [],
  });
  const search = el("input", { type: "search", value: state().find ?? "", "aria-label": "Find in question, answer or key", oninput: () => setState({ find: search.value || null }, { replace: true }) });
  filterRows = () => {
    const found = rows();
    table.setRows(found);
    const part = traces.total > traces.key.length ? ` This page carries ${number(traces.key.length)} of ${number(traces.total)}.` : "";
    note.textContent = `${counted(found.length, "trace")} of ${number(traces.key.length)}; a row opens the trace.${part}`;
  };
  filterRows();
  return el("div", {}, el("h2", {}, "All traces"),
    el("div", { class: "controls" }, labels ? choice("show", "label", SHOWN, "") : null, el("label", { class: "control" }, "find", search)),
    note, table);
}
