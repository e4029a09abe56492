// Training: how detectors learn, while they do and afterwards, and how far evaluations are.

import { el, fill } from "../dom.js";
import { counted, duration, line, number } from "../format.js";
import { historyCharts, merged, networks, summary } from "../histories.js";
import { keepingFocus } from "../redraw.js";
import { register } from "../registry.js";
import { onlyChanged, setState, state } from "../state.js";

const SECONDS = 2; // between two looks
const STALE = 600; // seconds without news after which a training is looked after no longer
let redraw = null;

register({
  id: "training",
  title: "Training",
  order: 70,
  ofOneRun: true,
  needs: ["training"],
  async render({ source }) {
    const data = source.served ? await source.fresh("training") : await source.get("training");
    const known = new Map();
    merged(known, data);
    const place = el("div", {}), fits = el("div", { "data-part": "fits" });
    redraw = () => keepingFocus(place, () => draw(place, known));
    redraw();
    drawFits(fits, data.evaluations);
    const section = el("section", {}, fits, place);
    if (source.served) follow(source, section, known, data, fits);
    return section;
  },
  update(now, before) {
    if (!redraw || !onlyChanged(now, before, ["training_of"])) return false;
    redraw();
    return true;
  },
});

/** Looks again and again as long as the view is shown and something goes on. */
function follow(source, section, known, first, fits) {
  let data = first, wasShown = false;
  const isLive = () => data.evaluations.some((one) => one.idle_seconds < STALE) || data.trainings.some((one) => !one.is_done && one.idle_seconds < STALE);
  const look = async () => {
    wasShown ||= section.isConnected;
    if (wasShown && !section.isConnected) return;
    if (isLive() && !document.hidden) {
      try {
        data = await source.fresh("training", { cursor: data.cursor });
        if (!section.isConnected) return;
        if (merged(known, data)) redraw();
        drawFits(fits, data.evaluations);
      } catch {
        // The server stopped or is busy: the figures stay, and the next look may reach it.
      }
    }
    setTimeout(look, 1000 * SECONDS);
  };
  setTimeout(look, 1000 * SECONDS);
}

function drawFits(place, evaluations) {
  keepingFocus(place, () => fill(place, evaluations.map((one) => {
    const quiet = one.idle_seconds < STALE ? `the last ${duration(one.idle_seconds)} ago` : `none for ${duration(one.idle_seconds)}: the same command goes on`;
    return el("div", {},
      el("h2", {}, `Evaluation ${line(one.name, 60)}`),
      el("p", { "aria-live": "polite" }, el("progress", { value: one.done, max: one.total, "aria-label": `fits of ${one.name}` }), ` ${number(one.done)} of ${counted(one.total, "fit")}, ${quiet}.`),
      el("details", {}, el("summary", {}, "By detector"), el("table", { class: "plain" }, el("tbody", {},
        one.rows.map(([label, done, total]) => el("tr", {}, el("th", { scope: "row" }, line(label, 60)), el("td", { class: "number" }, `${number(done)} of ${number(total)}`)))))));
  })));
}

function draw(place, known) {
  const all = [...known.values()];
  const drawable = all.filter((one) => networks(one).length || !one.is_done);
  const named = state().training_of?.split("|");
  const chosen = named ? drawable.filter((one) => named.includes(one.id)) : drawable.slice(0, 1);
  const boxes = drawable.length > 1 ? el("fieldset", { class: "controls" }, el("legend", {}, "Show"), drawable.map((one) => el("label", { class: "control" },
    el("input", { type: "checkbox", "data-key": one.id, checked: chosen.includes(one), onchange: () => setState({ training_of: toggled(chosen, one) }) }), line(one.name, 40)))) : null;
  const notes = chosen.flatMap((one) => one.parts.flatMap((part) => part.notes.map((text) => [part.name ? `${one.name} ${part.name}` : one.name, text])));
  fill(place,
    all.length ? el("h2", {}, "Trainings") : null,
    all.map((one) => el("p", { class: one.problem ? "problem" : null }, summary(one))),
    boxes,
    chosen.length ? historyCharts(chosen) : drawable.length ? el("p", { class: "note" }, "Choose a training to show.") : null,
    notes.length ? [el("h2", {}, "Notes"), el("ul", {}, notes.map(([name, text]) => el("li", {}, `${line(name, 60)}: ${line(text, 600)}`)))] : null);
}

function toggled(chosen, one) {
  const ids = chosen.includes(one) ? chosen.filter((other) => other !== one) : [...chosen, one];
  return ids.map((other) => other.id).join("|") || "none";
}
