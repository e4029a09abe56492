// Tokens on a line: above it arcs to what they looked at, below it arcs to who looked at them.

import { fill, svg } from "./dom.js";
import { shown } from "./token_strip.js";

const [TOP, BAND, BOTTOM, SIDE] = [150, 92, 110, 14]; // heights of arcs, of texts between, of arcs below; margins
const LETTERS = 12;

/**
 * A picture with `size(pixels)` and `draw({links, strong})`.
 *   links   [{from, to, weight, above}]: from is a token of strong; above where it looked at the other
 *   strong  the tokens that are hovered or pinned
 */
export function arcs({ texts, prompt, label, hover, pin }) {
  const element = svg("svg", { class: "arcs", role: "img", "aria-label": label, preserveAspectRatio: "xMidYMin meet" });
  let width = 0, place = (at) => at, step = 1;

  function size(pixels) {
    width = Math.max(pixels, 300);
    step = (width - 2 * SIDE) / Math.max(texts.length, 1);
    place = (at) => SIDE + (at + 0.5) * step;
    element.setAttribute("viewBox", `0 0 ${width} ${TOP + BAND + BOTTOM}`);
  }

  const tokenAt = (event) => {
    const box = element.getBoundingClientRect();
    const at = Math.floor(((event.clientX - box.left) * width / box.width - SIDE) / step);
    return at < 0 || at >= texts.length ? null : at;
  };
  element.addEventListener("pointermove", (event) => hover(tokenAt(event)));
  element.addEventListener("pointerleave", () => hover(null));
  element.addEventListener("click", (event) => tokenAt(event) !== null && pin(tokenAt(event)));

  function arc({ from, to, weight, above }) {
    const [a, b] = [place(from), place(to)];
    const [base, room, turn] = above ? [TOP, TOP - 8, -1] : [TOP + BAND, BOTTOM - 8, 1];
    const stroke = { fill: "none", class: above ? "looks" : "seen", "stroke-width": (0.5 + 8 * weight).toFixed(2), "stroke-opacity": Math.min(0.35 + weight, 1).toFixed(2) };
    if (from === to) {
      const r = Math.min(Math.max(step / 2, 4), 9);
      return svg("path", { ...stroke, d: `M${(a - r / 2).toFixed(1)},${base}A${r},${r} 0 1 ${above ? 1 : 0} ${(a + r / 2).toFixed(1)},${base}` });
    }
    const height = turn * Math.min(Math.abs(b - a) * 0.6 + 10, room * 4 / 3);
    return svg("path", { ...stroke, d: `M${a.toFixed(1)},${base}C${a.toFixed(1)},${(base + height).toFixed(1)} ${b.toFixed(1)},${(base + height).toFixed(1)} ${b.toFixed(1)},${base}` });
  }

  /** Texts of as many tokens as there is room for, the most important first. */
  function names(important, strong) {
    const taken = [], found = [];
    for (const at of important) {
      const x = place(at);
      if (taken.some((other) => Math.abs(other - x) < 11.5)) continue;
      taken.push(x);
      const text = [...shown(texts[at])];
      found.push(svg("text", { transform: `translate(${(x + 4).toFixed(1)},${TOP + BAND - 5}) rotate(-90)`, class: strong.has(at) ? "strong" : "muted" },
        text.length > LETTERS ? `${text.slice(0, LETTERS - 1).join("")}…` : text.join("")));
    }
    return found;
  }

  function draw({ links, strong }) {
    if (!width) return;
    const important = [...strong, ...[...links].sort((a, b) => b.weight - a.weight).slice(0, 80).map((one) => one.to)];
    if (step >= 11.5) important.push(...texts.keys());
    const edge = place(prompt) - step / 2;
    fill(element,
      svg("line", { class: "axis", x1: SIDE, x2: width - SIDE, y1: TOP, y2: TOP }),
      svg("line", { class: "axis", x1: SIDE, x2: width - SIDE, y1: TOP + BAND, y2: TOP + BAND }),
      svg("line", { class: "gridline", x1: edge, x2: edge, y1: TOP - 12, y2: TOP + BAND + 12 }),
      svg("text", { class: "muted", x: SIDE, y: 14 }, "looked at"), svg("text", { class: "muted", x: SIDE, y: TOP + BAND + BOTTOM - 6 }, "was looked at by"),
      links.map(arc), names(important, new Set(strong)));
  }

  return { element, size, draw };
}
