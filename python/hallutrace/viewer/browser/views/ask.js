// A question to the run's own model: the answer as it comes, its risk, its trace, its neighbours.

import { classOf, css, ink, sequential } from "../colors.js";
import { savedDetectors, stateLink } from "../controls.js";
import { el, fill, problem } from "../dom.js";
import { plainTable, region } from "../figure.js";
import { counted, decimals, duration, line, number, percent } from "../format.js";
import { register } from "../registry.js";
import { fetched } from "../source.js";
import { state } from "../state.js";
import { toldIn } from "../stream.js";

const kept = new Map(); // by run: what was asked last, so that it is there when one comes back

register({
  id: "ask",
  title: "Ask",
  order: 32,
  ofOneRun: true,
  servedOnly: true,
  async render({ state: now, settings }) {
    const about = await fetched(`ask/${encodeURIComponent(now.run ?? settings.run)}`);
    const asked = kept.get(about.run) ?? kept.set(about.run, { question: "", context: "", events: [], place: el("div", { "aria-live": "polite" }) }).get(about.run);
    return el("section", {},
      el("p", {}, `Ask ${line(about.model, 80)} as the run asked it. The answer is traced, scored, and shown beside the traces of the run that it is nearest to.`),
      form(about, asked), asked.place);
  },
  // What is being written stays while another detector is chosen.
  update: (now, before) => before !== undefined && now.asked_by !== before.asked_by,
});

function form(about, asked) {
  const question = el("textarea", { rows: 2, maxlength: 8000, required: true, "aria-label": "Question", placeholder: "A question" }, asked.question);
  const context = el("textarea", { rows: 4, maxlength: 200000, "aria-label": "Context" }, asked.context);
  const detector = savedDetectors(about.detectors, state().asked_by, el("option", { value: "", selected: state().asked_by === "none" }, "no detector"));
  const ask = el("button", { type: "submit" }, "Ask");
  const stop = el("button", { type: "button", hidden: true, onclick: () => asked.abort?.abort() }, "Stop");
  const busy = (is) => { ask.disabled = is; stop.hidden = !is; };
  busy(Boolean(asked.abort));
  const send = async (event) => {
    event.preventDefault();
    if (!question.value.trim() || asked.abort) return;
    Object.assign(asked, { question: question.value, context: context.value, abort: new AbortController() });
    busy(true);
    await answer(asked, { run: about.run, question: question.value, context: context.value, detector: detector.select.value });
    asked.abort = null;
    busy(false);
  };
  question.addEventListener("keydown", (event) => { if (event.key === "Enter" && !event.shiftKey) send(event); });
  return el("form", { class: "ask", onsubmit: send }, question,
    el("details", { open: Boolean(asked.context) }, el("summary", {}, "A text that the question is about"), context),
    el("div", { class: "controls" }, ask, stop, detector.element),
    about.detectors.length ? null : el("p", { class: "note" }, "No detector of this run was found: `hallutrace train RUN --detector linear-probe --label NAME --out DIR` makes one; name DIR when you start the explorer."));
}

/** Asks, and draws what comes. */
async function answer(asked, body) {
  const tokens = [], status = el("p", { class: "note", role: "status" }, "Asking …"), text = el("p", { class: "said mono" });
  const after = el("div", {}), beside = el("div", {});
  fill(asked.place, status, text, after, beside);
  const draw = {
    token: (token) => { tokens.push(token); fill(text, coloured(tokens)); },
    done: (found) => {
      const exact = found.tokens.map((one, i) => ({ text: one, logprob: found.logprob[i], entropy: found.entropy[i], risk: found.risk_by_token?.[i] }));
      fill(text, coloured(exact));
      fill(status, verdict(found));
      fill(after, traced(found, exact));
      fill(beside, el("p", { class: "note" }, "Looking for its neighbours …"));
    },
    neighbors: (found) => fill(beside, neighbours(found, body.run)),
  };
  await toldIn(status, "ask", body, draw, asked.abort.signal, () => "Stopped; no trace was made.");
}

/** Tokens on a ground that is darker where the risk is greater, within this answer. */
function coloured(tokens) {
  const risks = tokens.map((one) => one.risk).filter((one) => Number.isFinite(one));
  const [low, high] = [Math.min(...risks), Math.max(...risks)];
  return tokens.map((one) => {
    const share = high > low ? (one.risk - low) / (high - low) : 0;
    const ground = Number.isFinite(one.risk) ? sequential(share * 0.85) : null;
    const told = `log-probability ${number(one.logprob)}, entropy ${number(one.entropy)}${ground ? `, risk ${number(one.risk)}` : ""}`;
    return el("span", { class: "piece", title: told, style: ground ? { background: css(ground), color: ink(ground) } : {} }, line(one.text, 200));
  });
}

function verdict(found) {
  const took = `${counted(found.tokens.length, "token")} in ${duration(found.seconds)}`;
  if (found.score === null) return `${took}; no detector scored it.`;
  const risk = found.risk === null ? "" : `, which is a risk of ${percent(found.risk, 0)} on the answers that it was validated on`;
  const scale = found.risk_by_token ? " Darker tokens are riskier than the others of this answer." : ` ${found.detector} has no risk by token.`;
  return `${took}; ${found.detector} scores it ${number(found.score)}${risk}.${scale}`;
}

function traced(found, tokens) {
  const rows = tokens.map((one, i) => [i, line(one.text, 60), one.logprob, one.entropy, one.risk ?? NaN]);
  return [
    el("p", {}, stateLink("Open its trace", { view: "trace", run: found.run, trace: found.trace }), ": attention, alternatives and marginals of every token. ",
      stateLink("What its score reads, and what the model does without a layer", { view: "sensitivity", run: found.run, trace: found.trace }), "."),
    el("details", { class: "numbers" }, el("summary", {}, "Numbers"),
      region("Numbers of the tokens", plainTable({ columns: ["#", "token", "log-probability", "entropy", "risk"], rows }))),
  ];
}

function neighbours(found, run) {
  if (found.message) return problem(new Error(found.message));
  const judged = found.nearest.filter((one) => one.label !== null);
  const wrong = judged.filter((one) => one.label === 1).length;
  const sentence = `The nearest of ${counted(found.traces, "trace")} by the cosine of the last answer token's state in layer ${found.layer}`
    + (judged.length ? `; ${wrong} of ${judged.length} are hallucinated by “${line(found.label, 40)}”.` : "; the run has no labels for them.");
  const rows = found.nearest.map((one) => {
    const kind = classOf(one.label);
    return [el("span", { class: "short" }, decimals(one.cosine)), el("span", { class: "short", style: { color: kind.color } }, `${kind.mark} ${kind.name}`),
      stateLink(line(one.question, 160), { view: "trace", run, trace: one.key }), line(one.answer, 160)];
  });
  return [el("h2", {}, "Neighbours in the run"), el("p", { class: "note" }, sentence),
    region("Neighbours", plainTable({ columns: ["cosine", "label", "question", "answer"], rows }))];
}
