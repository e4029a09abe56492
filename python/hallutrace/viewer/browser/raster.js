// The edges of a layer as a picture: rows are the tokens that look, columns those that they look at.

import { sequential, themeColor } from "./colors.js";
import { el } from "./dom.js";
import { isCarried } from "./edges.js";

const MOST_CELLS = 1024;

/** Largest weight of the edges in each cell, float32 [side * side], of those that carry the share. */
export function cells(graph, side, share) {
  const found = new Float32Array(side * side);
  const factor = side / graph.tokens;
  for (let row = 0; row < graph.tokens; row++) {
    const line = Math.floor(row * factor) * side;
    for (let edge = graph.indptr[row]; edge < graph.indptr[row + 1]; edge++) {
      const cell = line + Math.floor(graph.keys[edge] * factor);
      if (graph.weights[edge] > found[cell] && isCarried(graph, row, edge, share)) found[cell] = graph.weights[edge];
    }
  }
  return found;
}

/** A canvas with `draw(graph, share)` and `point(token)`; `at` is called with (query, key) or null. */
export function raster({ tokens, label, at, pin }) {
  const canvas = el("canvas", { class: "raster", role: "img", "aria-label": label });
  const cross = el("div", { class: "cross", "aria-hidden": "true" });
  const element = el("div", { class: "raster-frame" }, canvas, cross);
  const isDark = /^#[01]/.test(themeColor("--paper")); // in the dark light ones are the heavy ones
  const colors = palette((one) => (isDark ? 0.85 - 0.85 * one : 0.15 + 0.85 * one)); // asked once: a question for the style in the midst of changes is dear
  let width = 512; // pixels, known without asking for it in the midst of changes
  new ResizeObserver(([entry]) => { width = entry.contentRect.width || width; }).observe(element);
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top].map((one) => Math.floor(one / box.width * tokens));
    return Math.min(x, y) < 0 || Math.max(x, y) >= tokens ? null : { query: y, key: x };
  };
  canvas.addEventListener("pointermove", (event) => at(place(event)));
  canvas.addEventListener("pointerleave", () => at(null));
  canvas.addEventListener("click", (event) => place(event) && pin(place(event).query));

  function draw(graph, share) {
    const side = Math.min(tokens, MOST_CELLS, Math.max(Math.floor(width * (globalThis.devicePixelRatio ?? 1)), 64));
    if (canvas.width !== side) canvas.width = canvas.height = side;
    const picture = new ImageData(side, side);
    const pixels = new Uint32Array(picture.data.buffer);
    const found = cells(graph, side, share);
    for (let i = 0; i < found.length; i++) if (found[i] > 0) pixels[i] = colors[Math.min(Math.round(Math.sqrt(found[i]) * 255), 255)];
    canvas.getContext("2d").putImageData(picture, 0, 0);
  }

  return { element, draw, point: (token) => { cross.style.transform = `translateY(${((token + 0.5) / tokens * 100).toFixed(2)}%)`; } };
}

/** Colours of 256 steps as the bytes of a pixel; `share` gives their place in the scale. */
export function palette(share) {
  return Uint32Array.from({ length: 256 }, (_, i) => {
    const [r, g, b] = sequential(share(i / 255));
    return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
  });
}
