// Controls above a figure. Each keeps its value in the address.

import { el } from "./dom.js";
import { line } from "./format.js";
import { setState, state } from "./state.js";

/** A choice among [{value, text}] or texts; its value is the state's `name`. */
export function choice(name, label, options, fallback = null) {
  const entries = options.map((one) => (typeof one === "string" ? { value: one, text: one } : one));
  const chosen = state()[name] ?? fallback ?? entries[0]?.value;
  const select = el("select", { "data-state": name, "data-fallback": chosen === state()[name] ? fallback ?? entries[0]?.value : chosen, onchange: () => setState({ [name]: select.value }) },
    entries.map(({ value, text }) => el("option", { value, selected: String(value) === String(chosen) }, text)));
  return el("label", { class: "control" }, label, select);
}

/** A slider; `show` writes its value beside it. The address follows without new entries of history. */
export function slider(name, label, { min, max, step = 1, fallback, show = String }) {
  const value = state()[name] ?? fallback;
  const output = el("output", {}, show(Number(value)));
  const input = el("input", {
    type: "range", min, max, step, value, "data-state": name, "data-fallback": fallback,
    onfollow: () => { output.textContent = show(Number(input.value)); },
    oninput: () => { output.textContent = show(Number(input.value)); setState({ [name]: input.value }, { replace: true }); },
  });
  return el("label", { class: "control" }, label, input, output);
}

/** A slider over a list of numbers, of which `place()` gives the place of the state's: {element, sync}. */
export function indexSlider(name, label, values, place) {
  const output = el("output", {}, values[place()]);
  const input = el("input", { type: "range", min: 0, max: values.length - 1, step: 1, value: place(), oninput: () => setState({ [name]: values[Number(input.value)] }, { replace: true }) });
  const sync = () => { input.value = place(); output.textContent = values[place()]; };
  return { element: el("label", { class: "control" }, label, input, output), sync };
}

/** Gives choices and sliders within an element what the address says now; for views that are not drawn anew. */
export function followState(root) {
  for (const one of root.querySelectorAll("[data-state]")) {
    const value = String(state()[one.dataset.state] ?? one.dataset.fallback ?? "");
    if (one.value === value) continue;
    one.value = value;
    one.dispatchEvent(new Event("follow"));
  }
}

/** A choice among saved detectors, kept as `asked_by`; `more` are options after them. */
export function savedDetectors(detectors, chosen, more = null) {
  const select = el("select", { onchange: () => setState({ asked_by: select.value }, { replace: true }) },
    detectors.map((one) => el("option", { value: one.id, selected: one.id === chosen }, line(one.folder === one.name ? one.name : `${one.name} (${one.folder})`, 60))), more);
  return { element: el("label", { class: "control" }, "scored by", select), select };
}

/** A link that changes the state. */
export function stateLink(text, changes, attributes = {}) {
  const next = new URLSearchParams({ ...state(), ...Object.fromEntries(Object.entries(changes).filter(([, value]) => value !== null)) });
  return el("a", { ...attributes, href: `#${next}`, onclick: (event) => { event.preventDefault(); setState(changes); } }, text);
}
