// The attention of a layer: arcs of the tokens that are looked at, and all edges as a picture.

import { arcs } from "./arcs.js";
import { indexSlider, slider } from "./controls.js";
import { el, fill, problem } from "./dom.js";
import { droppedSummary, graphOf, lookedAt, lookedAtBy, rowSummary } from "./edges.js";
import { figure } from "./figure.js";
import { counted, decimals, number, percent } from "./format.js";
import { raster } from "./raster.js";
import { shown } from "./token_strip.js";
import { WHOLE } from "./trace_state.js";

const MOST_ARCS = 300; // of a token in each direction: the heaviest
const ROWS = "A token looks at itself and at those before it, while the model predicts the token after it. A wider arc is a larger weight; the upright line is where the answer begins.";

/**
 * The part of the page, with `graph()`, `load()`, `draw(token)`, `drawAll()` and `links(token)`.
 *   data, texts, at, source   of the trace
 *   hover                     called with the token under the pointer, or null
 */
export function attentionPart({ data, texts, at, source, hover }) {
  let graph = null, asked = 0, drawn = at.token();
  const told = { row: el("p", { class: "row-told", role: "status" }), layer: el("p", { class: "note" }), left: el("p", { class: "note" }), pointed: el("output", { class: "note" }), problem: el("div") };
  const picture = arcs({ texts, prompt: data.prompt_length, label: "Arcs of attention between the tokens", hover, pin: at.pin });
  const edges = raster({ tokens: texts.length, label: "Edges of the layer, a row for each token that looks", pin: at.pin,
    at: (found) => { told.pointed.textContent = found ? edgeSentence(graph, texts, found) : ""; hover(found?.query ?? null); } });
  const sliders = [indexSlider("layer", "Layer", data.layers, at.layerAt)];
  if (data.combine === "each") sliders.push(indexSlider("head", "Head", [...Array(Math.max(...data.heads)).keys()], at.head));

  const parameters = (place) => ({ trace: data.key, layer: data.layers[place], head: data.combine === "each" ? at.head() : null });

  async function load() {
    const mine = ++asked;
    sliders.forEach((one) => one.sync());
    let found = null, failed = null;
    try { found = graphOf(await source.get("attention", parameters(at.layerAt()))); } catch (error) { failed = error; }
    if (mine !== asked) return false;
    graph = found;
    fill(told.problem, failed ? problem(failed) : null);
    parts.forEach((part) => part.classList.toggle("absent", !graph));
    told.layer.textContent = graph ? layerSentence(graph) : "";
    if (graph) graph.spread = droppedSummary(graph);
    if (graph && source.served) for (const next of [at.layerAt() + 1, at.layerAt() - 1]) if (data.layers[next] !== undefined) source.get("attention", parameters(next)).catch(() => null);
    return true;
  }

  /** What a token looked at and who looked at it, of the edges that carry the share, and the arcs of both. */
  function links(token) {
    const arc = (one, above) => ({ from: token, to: one.token, weight: one.weight, above });
    const [before, after] = graph ? [lookedAt(graph, token, at.share()), lookedAtBy(graph, token, at.share())] : [[], []];
    return { before, after, drawn: [...before.slice(0, MOST_ARCS).map((one) => arc(one, true)), ...after.slice(0, MOST_ARCS).map((one) => arc(one, false))] };
  }

  function draw(token) {
    drawn = token;
    if (!graph) return;
    const strong = [...new Set([token, ...at.pins()])], found = strong.map(links);
    picture.draw({ links: found.flatMap((one) => one.drawn), strong });
    edges.point(token);
    fill(told.row, rowSentence(graph, token, texts, at.share()));
    const hidden = found.reduce((sum, one) => sum + one.before.length + one.after.length - one.drawn.length, 0);
    told.left.textContent = hidden ? `${counted(hidden, "lighter arc")} left out: the heaviest ${MOST_ARCS} of a token in each direction are drawn.` : "";
  }

  const table = () => ({ columns: ["token", "text", "direction", "other token", "text of the other", "weight"],
    rows: [...new Set([at.token(), ...at.pins()])].flatMap((token) => links(token).drawn.map((one) => [token, texts[token], one.above ? "looked at" : "was looked at by", one.to, texts[one.to], one.weight])) });
  const keep = slider("trace_keep", "Keep the edges that carry", { min: 1, max: WHOLE, fallback: WHOLE, show: (value) => `${value}% of the row` });
  const frame = el("div", { class: "arcs-frame" }, picture.element);
  const arcsFigure = figure({ title: "Attention of the token", sentence: ROWS, picture: frame, table, name: `attention-${data.position}` });
  const edgesFigure = figure({ title: "All edges of the layer", sentence: "Down: the token that looks. Across: the one that it looks at. The weight is larger the more a cell stands out; one of several tokens has their largest. The line is the row of the token.",
    picture: el("div", {}, edges.element, told.pointed), name: `edges-${data.position}` });
  const parts = [el("div", {}, told.row, arcsFigure, told.left, told.layer, el("p", { class: "warning" }, notAnExplanation(data))), edgesFigure];
  new ResizeObserver(([entry]) => { picture.size(entry.contentRect.width); draw(drawn); }).observe(frame);
  return { element: el("div", {}, el("div", { class: "controls" }, sliders.map((one) => one.element), keep), told.problem, parts[0]), edges: edgesFigure,
    graph: () => graph, load, draw, links, drawAll: () => graph && edges.draw(graph, at.share()) };
}

function edgeSentence(graph, texts, { query, key }) {
  const found = graph ? lookedAt(graph, query).find((one) => one.token === key) : null;
  return `${query} “${shown(texts[query])}” on ${key} “${shown(texts[key])}”: ${found ? number(found.weight) : "no edge kept"}`;
}

function rowSentence(graph, token, texts, share) {
  const { edges, dropped, carried, weight } = rowSummary(graph, token, share);
  if (token < graph.rows_from) return el("strong", {}, `The run kept no edges of this row: it kept rows from token ${graph.rows_from} on.`);
  const isKnown = !Number.isNaN(dropped);
  return [
    el("strong", {}, isKnown ? `Pruning had already dropped ${percent(dropped)} of this row's attention` : "How much of this row's attention pruning had dropped is not known"),
    isKnown ? ` (median of the layer's rows ${percent(graph.spread.median)}, most ${percent(graph.spread.most)}). ` : ". ",
    `“${shown(texts[token])}”: ${number(carried)} of ${counted(edges, "kept edge")} shown, which hold ${isKnown ? `${percent(weight)} of its attention` : `a weight of ${number(weight)}`}.`,
  ];
}

function layerSentence({ rule, combine, head, layer, heads, keys, rows_from: first }) {
  const rules = [rule.top_k ? `the ${rule.top_k} heaviest edges of each row` : null, rule.top_mass ? `edges up to ${percent(rule.top_mass, 0)} of each row` : null, rule.min_weight ? `edges of at least ${number(rule.min_weight)}` : null].filter(Boolean).join(", ");
  const of = combine === "each" ? `head ${head} of layer ${layer}` : `layer ${layer} (${combine === "mean" ? "mean" : "largest"} of ${counted(heads, "head")})`;
  return `${counted(keys.length, "edge")} of ${of}${rules ? `: the run kept ${rules}` : ""}${first ? `, and rows from token ${first} on` : ""}.`;
}

/** What attention is not, with what shuffled edges did in the run's own evaluation. */
function notAnExplanation({ edges_control: found }) {
  const warning = "Attention says where a model looked, not why it answered: no weight here is an explanation.";
  if (!found.length) return `${warning} Whether it matters who looks at whom, hallutrace evaluate shows with edges=shuffled.`;
  const told = found.map(({ model, auroc, shuffled, difference, low, high }) => {
    const verdict = low <= 0 && high >= 0 ? "no difference that could be measured" : difference > 0 ? "who looks at whom told it something" : "the true edges told it less than shuffled ones";
    return `${model} reaches an AUROC of ${decimals(auroc)}, and ${decimals(shuffled)} with its edges shuffled (difference ${decimals(difference)} [${decimals(low)}, ${decimals(high)}]): ${verdict}.`;
  });
  return `${warning} In this run's evaluation ${told.join(" ")}`;
}
