// Elements. Text of a run is a stranger's: it only ever becomes a text node.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element: `el("p", {class: "note", onclick: f}, "text", child)`. */
export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** An SVG element, with the same arguments. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

/** Replaces what an element holds. */
export function fill(element, ...children) {
  element.replaceChildren(...nodes(children));
  return element;
}

/** A value that is known only later: `shown` while waiting, then the element, or the error. */
export function later(promise, waiting = "Loading …") {
  const place = el("div", { class: "later", "aria-busy": "true" }, el("p", { class: "note" }, waiting));
  promise.then(
    (element) => fill(place, element),
    (error) => fill(place, problem(error)),
  ).finally(() => place.removeAttribute("aria-busy"));
  return place;
}

/** What went wrong, in the place where the figure would be. */
export function problem(error) {
  const text = error instanceof Missing ? error.message : `This could not be shown: ${error.message}`;
  return el("p", { class: "problem", role: error instanceof Missing ? "note" : "alert" }, text);
}

/** Something that the run does not have; the message names the command that gives it. */
export class Missing extends Error {}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(element.style, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...nodes(children));
  return element;
}

function nodes(children) {
  return children.flat(Infinity).filter((one) => one !== null && one !== undefined && one !== false)
    .map((one) => (one instanceof Node ? one : document.createTextNode(String(one))));
}
