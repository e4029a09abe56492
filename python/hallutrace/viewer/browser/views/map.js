// Hidden states of all traces as a map.

import { colorOptions, coloringBy, legendBelow, legendList } from "../coloring.js";
import { classOf } from "../colors.js";
import { choice } from "../controls.js";
import { Missing, el, fill, later, problem } from "../dom.js";
import { figure } from "../figure.js";
import { counted, line, number, percent } from "../format.js";
import { METHODS, TOKENS, availableMaps, chosenMap, distinct, methodOf, parameters } from "../maps.js";
import { Plane } from "../plane.js";
import { keepingFocus } from "../redraw.js";
import { register } from "../registry.js";
import { MOST_POINTS, scatter } from "../scatter.js";
import { setState, state } from "../state.js";
import { virtualTable } from "../table.js";

const HELP = "Drag moves, the wheel or + and − zoom, arrows move, 0 shows all. Shift and drag selects, S selects what is seen, Escape ends that. A click opens the trace.";
const PATIENCE = 100; // milliseconds
let shown = null;

register({
  id: "map",
  title: "Map",
  order: 40,
  ofOneRun: true,
  needs: ["projections"],
  async render({ source }) {
    const about = await source.get("projections");
    if (about.missing) throw new Missing(about.missing);
    const maps = availableMaps(about, source);
    if (!maps.length) throw new Missing(`No map is stored and this run is large: \`${about.command}\` makes one.`);
    const loading = source.has("traces") ? source.get("traces").catch(() => null) : Promise.resolve(null);
    // Of a large run the points are drawn first, and coloured when the traces are there.
    const traces = await Promise.race([loading, new Promise((ready) => setTimeout(ready, PATIENCE, null))]);
    const view = (shown = new MapView(source, about, maps, traces));
    if (!traces) {
      view.element.setAttribute("aria-busy", "true");
      loading.then((found) => {
        if (found) view.setTraces(found);
        view.element.removeAttribute("aria-busy");
      });
    }
    return view.element;
  },
  update(now, before) {
    return Boolean(before && shown?.element.isConnected && shown.update(now, before));
  },
});

class MapView {
  constructor(source, about, maps, traces) {
    Object.assign(this, { source, about, maps, labels: about.labels });
    this.rows = new Int32Array(about.traces).fill(-1);
    this.takeTraces(traces);
    this.controls = el("div", { class: "controls" });
    this.place = el("div", {});
    this.list = el("div", { "aria-live": "polite" });
    this.element = el("section", {}, this.controls, this.place, this.list);
    this.onTheme = () => (this.element.isConnected ? this.recolor() : stop());
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const stop = () => { dark.removeEventListener("change", this.onTheme); removeEventListener("beforeprint", this.onPrint); };
    this.onPrint = () => this.element.isConnected && this.onPaper();
    dark.addEventListener("change", this.onTheme);
    addEventListener("beforeprint", this.onPrint);
    addEventListener("afterprint", this.onTheme);
    this.show();
  }

  takeTraces(traces) {
    this.traces = traces;
    traces?.position.forEach((position, row) => { this.rows[position] = row; });
  }

  /** What is known of the traces, once it has come. */
  setTraces(traces) {
    this.takeTraces(traces);
    this.drawControls();
    if (!this.scatter) return;
    this.tellFacts();
    this.recolor();
    this.scatter.setMarked(this.marked());
  }

  /** Position of the trace that the address names; -1 if there is none. */
  marked() {
    const row = this.traces && state().trace !== undefined ? this.traces.key.indexOf(state().trace) : -1;
    return row < 0 ? -1 : this.traces.position[row];
  }

  colorBy() {
    const options = colorOptions(this.labels, this.traces).map((one) => one.value);
    const now = state(), ofLabel = `label:${now.label}`;
    return [now.mapcolor, ofLabel, options[0]].find((one) => options.includes(one));
  }

  drawControls() {
    const one = chosenMap(this.maps, this.about), { maps } = this;
    const ofLayer = maps.filter((other) => other.layer === one.layer), ofToken = ofLayer.filter((other) => other.token === one.token);
    const seeds = distinct(ofToken.map((other) => other.method)).length < ofToken.length;
    const picker = (name, label, options, value) => {
      const control = choice(name, label, options);
      control.querySelector("select").value = value;
      return control;
    };
    keepingFocus(this.controls, () => fill(this.controls,
      picker("layer", "Hidden state after layer", distinct(maps.map((other) => String(other.layer))).sort((a, b) => a - b), String(one.layer)),
      picker("token", "of the", distinct(ofLayer.map((other) => other.token)).map((value) => ({ value, text: TOKENS[value] ?? value })), one.token),
      picker("mapmethod", "by", ofToken.map((other) => ({ value: methodOf(other), text: METHODS[other.method] + (seeds && other.method !== "pca" ? `, seed ${other.seed}` : "") })), methodOf(one)),
      picker("mapcolor", "Colour", colorOptions(this.labels, this.traces), this.colorBy())));
  }

  show() {
    this.drawControls();
    const one = chosenMap(this.maps, this.about);
    this.key = JSON.stringify(one);
    fill(this.list);
    fill(this.place, later(this.source.get("map", parameters(one)).then((map) => (map.x.length === this.about.traces ? this.draw(map) : problem(new Error("the run has grown since; load the page again"))))));
  }

  draw(map) {
    this.map = map;
    this.plane = new Plane(map.x, map.y, map.range);
    this.coloring = coloringBy(this.colorBy(), this);
    this.tip = el("div", { class: "map-tip", role: "status", hidden: true });
    this.legend = el("div", {}, legendList(this.coloring));
    this.bins = el("p", { class: "note", hidden: true });
    this.note = el("div", { class: "map-facts" });
    this.scatter = scatter({
      plane: this.plane, coloring: this.coloring, window: windowOf(state().mapwindow), label: `Map of ${counted(this.plane.count, "trace")}. ${HELP}`,
      marked: this.marked(),
      onWindow: (window) => this.keepWindow(window),
      onHover: (what, x, y) => this.tell(what, x, y),
      onOpen: (i) => this.open(i),
      onSelect: (points) => this.select(points),
      onBins: (are) => this.tellBins(are),
    });
    const picture = el("div", {}, this.legend, this.bins, el("div", { class: "map-over" }, this.scatter.element, this.tip), this.note);
    this.tellFacts();
    return figure({
      title: `${METHODS[map.method]} of the hidden states after layer ${map.layer}`, sentence: this.sentence(), picture, name: `map-${map.method}-layer${map.layer}-${map.token}`,
      controls: this.buttons(), table: () => this.table(),
      drawing: () => this.scatter.toSvg((top, width) => legendBelow(this.coloring, top, width), this.sentence()),
    });
  }

  sentence() {
    const { map } = this, { share, chance, k, traces } = map.preservation;
    const axes = map.explained?.length === 2 ? ` The axes hold ${percent(map.explained[0])} and ${percent(map.explained[1])} of the variance.` : "";
    const kept = share === null ? "" : ` Of the ${k} nearest neighbours of a trace, ${percent(share)} stay among the nearest here (${percent(chance)} by chance${traces < this.plane.count ? `; among ${number(traces)} traces drawn at random` : ""}).`;
    return `${counted(this.plane.count, "trace")}, each a point: the hidden state of its ${TOKENS[map.token] ?? map.token}.${axes}${kept}`;
  }

  buttons() {
    const button = (text, onclick, more = {}) => el("button", { type: "button", onclick, ...more }, text);
    const lasso = button("Lasso", () => {
      const on = lasso.getAttribute("aria-pressed") !== "true";
      lasso.setAttribute("aria-pressed", on);
      this.scatter.setLasso(on);
    }, { "aria-pressed": "false" });
    return [lasso, button("Select what is seen", () => this.scatter.select(this.scatter.seen())),
      button("+", () => this.scatter.zoomAt(1.4), { "aria-label": "Zoom in" }), button("−", () => this.scatter.zoomAt(1 / 1.4), { "aria-label": "Zoom out" }),
      button("Show all", () => this.scatter.setWindow({ x: 0.5, y: 0.5, zoom: 1 }))];
  }

  tellFacts() {
    const { map } = this;
    const versions = Object.entries(map.versions).filter(([, version]) => version).map(([name, version]) => `${name} ${version}`);
    const settings = Object.entries(map.parameters).map(([name, value]) => `${name.replaceAll("_", " ")} ${[value].flat().map((one) => number(one)).join(" + ")}`);
    const facts = [`seed ${map.seed}`, ...settings, ...versions, map.stored ? "stored in the run" : "made for this page"].join(", ");
    const beware = map.method === "pca" ? "" : " Sizes of clusters and distances between them mean nothing here.";
    const listed = this.traces && this.traces.position.length < this.plane.count ? ` This page knows ${number(this.traces.position.length)} of the traces by name.` : "";
    const others = this.maps.some((one) => one.method !== "pca") ? null
      : el("p", { class: "note" }, "t-SNE and UMAP are shown once they are stored: ", el("code", {}, this.about.command));
    fill(this.note, el("p", { class: "note" }, `${METHODS[map.method]}: ${facts}.${beware}${listed}`), el("p", { class: "note keys" }, HELP), others);
  }

  tellBins(are) {
    this.bins.hidden = !are;
    if (are) fill(this.bins, [`More than ${number(MOST_POINTS)} traces are seen: each mark is a bin, a larger one holds more`, this.coloring.aboutBins].filter(Boolean).join("; "), ".");
  }

  keepWindow({ x, y, zoom }) {
    clearTimeout(this.keeping);
    const text = zoom === 1 ? null : [x, y, zoom].map((one) => Number(one.toFixed(4))).join(",");
    this.keeping = setTimeout(() => { this.kept = text; setState({ mapwindow: text }, { replace: true }); }, 200);
  }

  /** Protocol of the labels that are told: that of the colour, of the address, or the first. */
  protocol() {
    const names = Object.keys(this.labels);
    return [this.colorBy().startsWith("label:") && this.colorBy().slice(6), state().label, names[0]].find((name) => names.includes(name));
  }

  labelOf(i) {
    const labels = this.labels[this.protocol()];
    return labels && classOf(labels[i]).name;
  }

  row(i) {
    return this.rows[i];
  }

  tell(what, x, y) {
    this.tip.hidden = !what;
    if (!what) return;
    const { traces } = this;
    if (what.point === undefined) fill(this.tip, el("p", {}, counted(what.count, "trace")), el("p", {}, this.coloring.ofBin(what)));
    else {
      const row = this.row(what.point);
      fill(this.tip, row < 0 ? el("p", {}, `trace ${number(what.point)}`) : [el("p", {}, line(traces.question[row], 100)), el("p", { class: "mono" }, line(traces.answer[row], 100) || "(no answer)")],
        el("p", { class: "muted" }, distinct([this.labelOf(what.point), this.coloring.of(what.point)]).filter(Boolean).join(" · ")));
    }
    const wide = this.scatter.element.clientWidth, toLeft = x > wide / 2;
    Object.assign(this.tip.style, { left: toLeft ? "auto" : `${x + 14}px`, right: toLeft ? `${wide - x + 14}px` : "auto", top: `${y + 14}px` });
  }

  open(i) {
    const row = this.row(i);
    if (row >= 0) setState({ view: "trace", trace: this.traces.key[row] });
  }

  select(points) {
    if (!points?.length) {
      fill(this.list, points && el("p", { class: "note" }, "No trace is there."));
      return;
    }
    const { traces, coloring } = this;
    const known = points.filter((i) => this.row(i) >= 0).map((i) => ({ i, row: this.row(i) }));
    const name = this.protocol();
    const share = (labels) => {
      const judged = labels.filter((one) => one >= 0);
      return judged.length ? `${percent(judged.filter((one) => one === 1).length / judged.length)} of ${number(judged.length)}` : "none";
    };
    const labels = this.labels[name];
    const told = labels ? ` Hallucinated by ${name}: ${share(points.map((i) => labels[i]))} labelled; on the whole map ${share(labels)}.` : "";
    const text = (column) => ({ row }) => line(traces[column][row], 160);
    fill(this.list,
      el("div", { class: "controls" }, el("h3", {}, `${counted(points.length, "trace")} selected`),
        el("button", { type: "button", class: "quiet", onclick: () => this.scatter.select(null) }, "End the selection")),
      el("p", { class: "note" }, `${points.length - known.length ? `${number(points.length - known.length)} of them are not listed in this page. ` : ""}${told}`),
      known.length ? virtualTable({
        label: "Selected traces", rows: known, open: ({ i }) => this.open(i),
        columns: [
          { name: "question", value: text("question") },
          { name: "answer", value: text("answer") },
          { name: coloring.name || "trace", value: ({ i }) => (coloring.values ? coloring.values[i] : coloring.of(i)), text: ({ i }) => coloring.of(i).replace(`${coloring.name} `, ""), width: "12em" },
        ],
      }) : null);
  }

  table() {
    const { traces, coloring, plane } = this;
    const rows = Array.from({ length: plane.count }, (_, i) => {
      const row = this.row(i);
      return [row < 0 ? i : traces.key[row], ...plane.coordinates(i).map((one) => Number(one.toPrecision(6))), ...(coloring.name ? [coloring.of(i).replace(`${coloring.name} `, "")] : [])];
    });
    return { columns: ["trace", "x", "y", ...(coloring.name ? [coloring.name] : [])], rows };
  }

  recolor() {
    if (!this.scatter) return;
    this.coloring = coloringBy(this.colorBy(), this);
    fill(this.legend, legendList(this.coloring));
    this.scatter.setColoring(this.coloring);
  }

  /** Paper is white, whatever the theme. */
  onPaper() {
    const root = document.documentElement, before = root.dataset.theme;
    root.dataset.theme = "light";
    this.recolor();
    this.scatter?.draw();
    if (before) root.dataset.theme = before;
    else delete root.dataset.theme;
  }

  /** Takes a change of the address; whether that was possible. */
  update(now, before) {
    const changed = (...names) => names.some((name) => now[name] !== before[name]);
    if (changed("trace", "print")) return false;
    if (JSON.stringify(chosenMap(this.maps, this.about)) !== this.key) { this.show(); return true; }
    if (changed("mapcolor", "label", "layer", "token", "mapmethod")) { this.drawControls(); this.recolor(); }
    if (changed("mapwindow") && (now.mapwindow ?? null) !== (this.kept ?? null)) this.scatter?.setWindow(windowOf(now.mapwindow) ?? { x: 0.5, y: 0.5, zoom: 1 }, { silent: true });
    this.kept = now.mapwindow ?? null;
    return true;
  }
}

function windowOf(text) {
  const [x, y, zoom] = (text ?? "").split(",").map(Number);
  return [x, y, zoom].every(Number.isFinite) ? { x, y, zoom } : null;
}
