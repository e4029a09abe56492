// What the tokens of a trace can be coloured by.

import { css, sequential } from "./colors.js";
import { el, fill } from "./dom.js";
import { number } from "./format.js";

const DARKEST = 0.9;

/**
 * All quantities: [{value, text, of: (token, layerAt, graph) => number, ofLayer, reversed}].
 * `of` gives NaN for a token that has none; reversed ones are darker where they are lower.
 */
export function quantities(data) {
  const { prompt_length: prompt, rows_from: first, risk } = data;
  const ofAnswer = (values) => (token) => (token < prompt ? NaN : values[token - prompt]);
  const found = [];
  if (risk?.tokens) found.push({ value: "risk", text: `risk by ${risk.name}`, of: ofAnswer(risk.tokens) });
  found.push({ value: "logprob", text: "log-probability", of: ofAnswer(data.logprob), reversed: true });
  found.push({ value: "token_entropy", text: "entropy of the next token", of: ofAnswer(data.entropy) });
  for (const [name, title] of Object.entries(data.marginals)) {
    const values = data.means[name], rows = values.shape[1];
    const start = rows === data.tokens.ids.length ? 0 : first;
    found.push({ value: name, text: title, ofLayer: true, of: (token, at) => (token < start ? NaN : values[at * rows + token - start]) });
  }
  found.push({ value: "dropped", text: "attention that pruning dropped", ofLayer: true, of: (token, _, graph) => graph?.dropped[token] ?? NaN });
  return found;
}

/**
 * From values to colours: {colorOf(token), fillLegend(element, name)}. With more than twenty values
 * the outermost 3% on either side share a colour. Nothing is coloured where there are none.
 */
export function coloring(values, reversed = false) {
  const known = Float64Array.from(values).filter(Number.isFinite).sort();
  if (!known.length) return { colorOf: () => null, fillLegend: (element) => fill(element) };
  const cut = known.length > 20 ? 0.03 : 0;
  const [low, high] = [cut, 1 - cut].map((share) => known[Math.round(share * (known.length - 1))]);
  const share = (value) => (high > low ? Math.min(Math.max((value - low) / (high - low), 0), 1) : 0.5);
  const colorOf = (token) => (Number.isFinite(values[token]) ? sequential(DARKEST * (reversed ? 1 - share(values[token]) : share(values[token]))) : null);
  const ramp = `linear-gradient(to right, ${[0, 0.25, 0.5, 0.75, 1].map((one) => css(sequential(DARKEST * one))).join(", ")})`;
  const [light, dark] = (reversed ? [high, low] : [low, high]).map((one) => number(one));
  return { colorOf, fillLegend: (element, name) => fill(element, `${name}${light} `, el("span", { class: "ramp", style: { background: ramp } }), ` ${dark}`) };
}
