// One trace: its tokens, and the attention between them.

import { attentionPart } from "../attention_part.js";
import { choice, followState } from "../controls.js";
import { el } from "../dom.js";
import { figure } from "../figure.js";
import { counted } from "../format.js";
import { headsPart } from "../heads_part.js";
import { register } from "../registry.js";
import { state } from "../state.js";
import { tokenPanel } from "../token_panel.js";
import { tokenStrip } from "../token_strip.js";
import { traceHeading, traceLinks } from "../trace_heading.js";
import { coloring, quantities } from "../trace_quantities.js";
import { traceState } from "../trace_state.js";

const KEYS = "In the tokens: arrow keys move by one or by ten, Home and End jump, Enter pins or unpins, Escape unpins all. Anywhere in this view: [ and ] change the layer.";

let view = null;

register({
  id: "trace",
  title: "Trace",
  order: 30,
  ofOneRun: true,
  needs: ["trace"],
  async render({ source }) {
    const others = source.served ? null : embedded(source);
    const data = await source.get("trace", { trace: state().trace ?? others?.[0] });
    view = traceView(source, data, others);
    return view.element;
  },
  update(now, before) {
    if (!before || now.trace !== before.trace || !view?.element.isConnected) return false;
    view.follow(now, before);
    return true;
  },
});

/** Keys of the traces that the page carries. */
function embedded(source) {
  return source.keys("trace").map((key) => new URLSearchParams(key.slice("trace?".length)).get("trace")).filter(Boolean);
}

function traceView(source, data, others) {
  const texts = Array.from(data.tokens.at, (at) => data.tokens.texts[at]);
  const at = traceState(data), all = quantities(data);
  let hovered = null;
  const hover = (token) => { if (token !== hovered) { hovered = token; drawToken(); } };
  const strip = tokenStrip({ texts, prompt: data.prompt_length, spans: data.texts.spans.items, hover, pin: at.pin, move: at.move });
  const panel = tokenPanel(data);
  const attention = attentionPart({ data, texts, at, source, hover });
  const heads = headsPart({ data, at, source });
  const legend = el("p", { class: "legend" });

  const valueOf = (one, token) => one.of(token, at.layerAt(), attention.graph());

  function drawToken() {
    const token = hovered ?? at.token();
    panel.draw(token, at.layer(), all.map((one) => ({ text: one.text, value: valueOf(one, token) })));
    strip.mark({ current: token, pins: at.pins(), links: attention.links(token).before.slice(0, 64) });
    attention.draw(token);
    heads.draw(token);
  }

  function drawColors() {
    const one = all.find(({ value }) => value === at.color()) ?? all[0];
    const found = coloring(texts.map((_, token) => valueOf(one, token)), one.reversed);
    strip.paint(found.colorOf);
    found.fillLegend(legend, `${one.text}${one.ofLayer ? `, layer ${at.layer()}` : ""}: `);
  }

  function drawLayer() {
    drawColors();
    attention.drawAll();
    drawToken();
  }

  /** Takes a change of the address; what costs more is done only where it is needed. */
  function follow(now, before) {
    const differs = (...names) => names.some((name) => now[name] !== before[name]);
    followState(element);
    if (differs("token")) strip.focusOn(at.token());
    if (differs("trace_marginal")) heads.load();
    if (differs("layer", "head")) attention.load().then((isNewest) => isNewest && drawLayer());
    else if (differs("trace_keep")) { attention.drawAll(); drawToken(); }
    else if (differs("token", "trace_pins")) drawToken();
    if (differs("trace_color")) drawColors();
  }

  const table = () => ({ columns: ["token", "id", "text", "part", ...all.map((one) => one.text)],
    rows: texts.map((text, token) => [token, data.tokens.ids[token], text, token < data.prompt_length ? "prompt" : "answer",
      ...all.map((one) => { const value = valueOf(one, token); return Number.isFinite(value) ? value : null; })]) });
  const element = el("section", { class: "trace", onkeydown: (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || (event.key !== "[" && event.key !== "]")) return;
    at.stepLayer(event.key === "]" ? 1 : -1);
    event.preventDefault();
  } },
  traceLinks(data, others), traceHeading(data),
  figure({ title: "Tokens", sentence: tokenSentence(data, strip.from), name: `tokens-${data.position}`, table, isSaved: false,
    controls: [choice("trace_color", "Colour by", [...all, { value: "none", text: "nothing" }], all[0].value)],
    picture: el("div", {}, legend, strip.element, el("p", { class: "note keys" }, KEYS), panel.element) }),
  attention.element, el("div", { class: "figures" }, attention.edges, heads.element));
  requestAnimationFrame(() => strip.focusOn(at.token())); // now it has a place on the page
  attention.load().then((isNewest) => isNewest && drawLayer());
  heads.load();
  return { element, follow };
}

function tokenSentence(data, from) {
  const texts = data.tokens.are_known ? "" : " The model's tokenizer is not on this machine, so tokens are shown by their ids.";
  const cut = from ? ` The first ${counted(from, "token")} are left out here; the CSV has them.` : "";
  return `${counted(data.prompt_length, "token")} of the prompt, ${counted(data.tokens.ids.length - data.prompt_length, "token")} of the answer. Underlined: the tokens that the current one looked at.${texts}${cut}`;
}
