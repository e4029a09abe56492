// Begins the page: its header, the choice among runs, its tabs, and the view that the address names.

import { el, fill, later, problem } from "./dom.js";
import { download } from "./figure.js";
import { line } from "./format.js";
import { allViews } from "./registry.js";
import { EmbeddedSource, ServedSource } from "./source.js";
import { onState, setState, state } from "./state.js";
import { posted } from "./stream.js";

const settings = JSON.parse(document.getElementById("settings").textContent);
const runs = settings.runs ?? [];
const sources = new Map();
const place = document.getElementById("page");
const main = el("main", { id: "view", tabindex: "-1" });
const tabs = el("nav", { class: "tabs", "aria-label": "Views" });
let shown = null;

function sourceOf(run) {
  if (!settings.served) return (sources.get("") ?? sources.set("", new EmbeddedSource(document, settings.missing)).get(""));
  return sources.get(run) ?? sources.set(run, new ServedSource(run)).get(run);
}

function available() {
  const source = sourceOf(state().run ?? settings.run);
  return allViews().filter((view) => (settings.served
    ? !view.ofOneRun || (state().run ?? settings.run) !== undefined
    : !view.servedOnly && (view.needs ?? []).every((name) => source.keys(name).length || source.missing[name])));
}

function chosen() {
  const views = available();
  const first = state().run ?? settings.run ? views.find((view) => view.ofOneRun) : null;
  return views.find((view) => view.id === state().view) ?? first ?? views[0];
}

/** Draws the chosen view anew, or lets it take the change by itself. */
function show(now, before) {
  if (now.print) return showAll(now);
  const view = chosen();
  drawTabs(view);
  drawRuns();
  const same = shown && shown.view === view && (before?.run ?? "") === (now.run ?? "");
  if (same && view.update && view.update(now, before)) return;
  shown = { view };
  if (!view) {
    fill(main, problem(new Error("there is nothing to show")));
    return;
  }
  document.title = `${view.title} · ${nameOf(now.run) ?? settings.title}`;
  const context = { source: sourceOf(now.run ?? settings.run), state: now, settings };
  context.source.used?.clear();
  saver.hidden = !settings.served || view.servedOnly;
  fill(main, later(Promise.resolve().then(() => view.render(context))));
}

/** All views below each other, for paper; `print` is in the address. */
function showAll(now) {
  shown = null;
  fill(tabs);
  const source = sourceOf(now.run ?? settings.run);
  fill(main, available().map((view) => el("section", { class: "printed" },
    el("h2", {}, view.title),
    later(Promise.resolve().then(() => view.render({ source, state: now, settings }))))));
}

async function printAll() {
  setState({ print: "all" });
  while (document.querySelector("[aria-busy]")) await new Promise((ready) => setTimeout(ready, 50));
  window.print();
  setState({ print: null });
}

function drawTabs(current) {
  const focused = tabs.contains(document.activeElement);
  fill(tabs, available().map((view) => {
    const next = new URLSearchParams({ ...state(), view: view.id });
    return el("a", {
      href: `#${next}`, "aria-current": view === current ? "page" : null,
      onclick: (event) => { event.preventDefault(); setState({ view: view.id }); },
    }, view.title);
  }));
  if (focused) tabs.querySelector("[aria-current]")?.focus();
}

const nameOf = (run) => runs.find((one) => one.id === run)?.name;

/** The choice among runs; the views stay, and what belongs to one run goes. */
function drawRuns() {
  const run = state().run;
  if (runs.length < 2 || switcher.value === (run ?? "") && switcher.options.length) return;
  fill(switcher, el("option", { value: "" }, "all runs"), runs.map(({ id, name }) => el("option", { value: id }, line(name, 60))));
  if (run && !nameOf(run)) switcher.append(el("option", { value: run }, line(run, 60)));
  switcher.value = run ?? "";
}

function showRun(run) {
  const kept = Object.fromEntries(Object.keys(state()).filter((name) => name !== "view").map((name) => [name, null]));
  setState({ ...kept, run: run || null });
}

function themeButton() {
  const root = document.documentElement;
  const isDark = () => root.dataset.theme === "dark" || (!root.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  const button = el("button", {
    type: "button", class: "quiet",
    onclick: () => { root.dataset.theme = isDark() ? "light" : "dark"; show(state()); name(); },
  });
  const name = () => { button.textContent = isDark() ? "Light" : "Dark"; };
  name();
  return button;
}

/** Writes the view as one file that needs no server: the page with the data that it has used. */
async function save() {
  saver.disabled = true;
  try {
    const run = state().run ?? settings.run;
    const payloads = [...sourceOf(run).used.values()];
    const kept = Object.fromEntries(Object.entries({ ...state(), view: shown.view.id }).filter(([name]) => name !== "run"));
    const page = await posted("save", { run, payloads, state: kept });
    download(await page.blob(), `${nameOf(run) ?? run}-${shown.view.id}.html`.replace(/[^\p{L}\p{N}._-]+/gu, "-"));
  } catch (error) {
    main.prepend(problem(error));
  }
  saver.disabled = false;
}

const saver = el("button", { type: "button", class: "quiet", hidden: true, onclick: save }, "Save this page");
const switcher = el("select", { "aria-label": "Run", onchange: () => showRun(switcher.value) });
place.append(
  el("a", { class: "skip", href: "#view", onclick: (event) => { event.preventDefault(); main.focus(); } }, "Skip to the figures"),
  el("header", {}, el("h1", {}, settings.title),
    el("div", { class: "tools" }, runs.length > 1 ? switcher : null, saver, el("button", { type: "button", class: "quiet", onclick: printAll }, "Print"), themeButton())),
  tabs, main,
  el("aside", { class: "note", "aria-label": "What this page does not carry" }, (settings.notes ?? []).map((one) => el("p", {}, one))),
  el("footer", {}, el("p", {}, settings.footer ?? "")));
if (settings.state && !location.hash) setState(settings.state, { replace: true });
onState(show);
show(state());
document.documentElement.dataset.ready = "true";
