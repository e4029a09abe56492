// What is known of one token: its numbers, and the likeliest tokens in its place.

import { el, fill } from "./dom.js";
import { NONE, line, number, percent } from "./format.js";
import { shown } from "./token_strip.js";

/** A panel of fixed height with `draw(token, layer, quantities)`; quantities are [{text, value}]. */
export function tokenPanel(data) {
  const { texts, at, ids } = data.tokens;
  const prompt = data.prompt_length;
  const element = el("aside", { class: "token-panel", "aria-label": "The token", "aria-live": "off" });

  function alternatives(answer) {
    if (answer < 0) return null;
    if (!data.alternatives) return el("p", { class: "note" }, "This run kept no alternatives: extract with --alternatives 10.");
    const { token, logprob } = data.alternatives, most = token.shape[1];
    const places = Array.from({ length: most }, (_, i) => answer * most + i);
    return [
      el("p", { class: "note" }, "Likeliest tokens in this place, at temperature 1:"),
      el("table", { class: "alternatives" }, el("tbody", {}, places.map((place) => {
        const probability = Math.exp(logprob[place]);
        return el("tr", { class: token[place] === at[prompt + answer] ? "chosen" : null },
          el("td", { class: "mono" }, shown(texts[token[place]])), el("td", { class: "number" }, percent(probability)),
          el("td", {}, el("span", { class: "bar", style: { width: `${(100 * probability).toFixed(1)}%` } })));
      })))];
  }

  function draw(token, layer, quantities) {
    const answer = token - prompt;
    const where = answer < 0 ? `token ${token + 1} of ${prompt} of the prompt` : `token ${answer + 1} of ${ids.length - prompt} of the answer`;
    const spans = data.texts.spans.items.filter(({ tokens: [begin, end] }) => answer >= begin && answer < end).map((one) => one.label);
    fill(element,
      el("div", {}, el("p", { class: "token-name mono" }, shown(texts[at[token]])), el("p", { class: "note" }, `${where}, at ${token}, id ${ids[token]}`),
        spans.length ? el("p", {}, `In a span labelled ${line(spans.join(", "), 120)}.`) : null, alternatives(answer)),
      el("div", {}, el("p", { class: "note" }, `Attention: means over the heads of layer ${layer}.`), el("dl", { class: "numbers-of-token" },
        answer >= 0 ? [el("dt", {}, "probability"), el("dd", {}, percent(Math.exp(data.logprob[answer]), 2))] : null,
        quantities.map(({ text, value }) => [el("dt", {}, text), el("dd", {}, Number.isFinite(value) ? number(value) : NONE)]))));
  }

  return { element, draw };
}
