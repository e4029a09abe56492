// What was asked and answered: texts, labels, scores of a trace. Long texts are cut, and say so.

import { classOf } from "./colors.js";
import { stateLink } from "./controls.js";
import { el } from "./dom.js";
import { counted, line, number, percent } from "./format.js";
import { plainTable } from "./figure.js";

const ENDS = { eos: "the model ended it", stop: "a stop text came", length: "the limit of tokens was reached", given: "the answer was given" };

/** A text of {text, length}; the beginning of a long one, with a word on what is left out. */
function cutText({ text, length }, most = 600) {
  const start = line(text, most);
  return length > most ? [`${start} `, el("span", { class: "muted" }, `(the beginning of ${counted(length, "character")})`)] : start;
}

function cutList({ items, count }, most = 8) {
  const left = count - Math.min(items.length, most);
  return [items.slice(0, most).map((one) => el("div", {}, el("bdi", {}, cutText(one, 200)))), left > 0 ? el("div", { class: "muted" }, `and ${counted(left, "other")}`) : null];
}

/** Links to the traces beside this one; `others` are the keys that the page carries, or null. */
export function traceLinks(data, others) {
  const at = others ? others.indexOf(data.key) : data.position;
  const [previous, next, count] = others ? [others[at - 1], others[at + 1], others.length] : [data.previous, data.next, data.count];
  const link = (text, key) => (key ? stateLink(text, { trace: key, token: null, trace_pins: null }) : el("span", { class: "muted" }, text));
  const place = others && others.length < data.count ? `${at + 1} of the ${count} traces in this page (${number(data.count)} in the run)` : `trace ${number(at + 1)} of ${number(count)}`;
  return el("nav", { class: "trace-links", "aria-label": "Traces" }, link("← previous", previous), el("h2", {}, `${place}: `, el("code", {}, line(data.key, 60))), link("next →", next));
}

function labels(data) {
  const entries = Object.entries(data.labels);
  if (data.labels_problem) return line(data.labels_problem, 400);
  if (!entries.length) return el("span", { class: "muted" }, "none: ", el("code", {}, "hallutrace label RUN --by contains"), " makes them");
  return entries.map(([name, value]) => {
    const known = classOf(value);
    return el("span", { class: "label-of" }, el("span", { style: { color: known.color } }, known.mark), ` ${known.name} by ${name}`);
  });
}

function risk({ risk: found }) {
  if (!found) return el("span", { class: "muted" }, "no detector is shown: give one with --detector");
  if (found.problem) return el("span", { class: "muted" }, line(found.problem, 400));
  const chance = found.probability === null ? "" : `, a probability of ${percent(found.probability)}`;
  const seen = { train: " It was trained on this trace.", validation: " This trace was in its validation part." }[found.part] ?? "";
  return `score ${number(found.score)} by ${found.name}${chance}.${seen}`;
}

function scores({ scores: found, scores_problem: trouble }) {
  if (trouble) return el("p", { class: "note" }, line(trouble, 400));
  const rows = Object.entries(found).filter(([, value]) => Number.isFinite(value));
  if (!rows.length) return null;
  return el("details", {}, el("summary", {}, `Scores by ${counted(rows.length, "detector")} of the evaluation`), plainTable({ columns: ["detector", "score"], rows }));
}

/** The texts of a trace with its labels, risk and scores. */
export function traceHeading(data) {
  const { texts } = data;
  const entries = [
    ["Question", cutText(texts.question)], texts.context ? ["Context", cutText(texts.context)] : null, ["Answer", el("strong", {}, cutText(texts.answer))],
    ["References", texts.references.count ? cutList(texts.references) : el("span", { class: "muted" }, "none in the source")],
    texts.choices.count ? ["Choices", cutList(texts.choices)] : null, texts.incorrect.count ? ["Wrong answers", cutList(texts.incorrect)] : null,
    ["Labels", labels(data)], ["Risk", risk(data)], ["End", ENDS[data.finish_reason] ?? data.finish_reason],
    texts.spans.count ? ["Labelled spans", `${number(texts.spans.count)}, underlined in the answer`] : null,
  ].filter(Boolean);
  return el("div", {}, el("dl", { class: "texts" }, entries.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", { dir: "auto" }, value)))), scores(data));
}
