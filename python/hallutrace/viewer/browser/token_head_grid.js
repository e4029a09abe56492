// Layers x heads of one marginal for one token, on a canvas.

import { themeColor } from "./colors.js";
import { el } from "./dom.js";
import { number } from "./format.js";
import { palette } from "./raster.js";

/**
 * A grid with `draw({title, values, heads}, row, chosen)` and `pick` called with (place of the layer, head).
 *   layers, most   their numbers, and the largest number of heads
 */
export function headGrid({ layers, most, label, pick }) {
  const cell = Math.max(5, Math.min(26, Math.floor(560 / most), Math.floor(420 / layers.length)));
  const left = 30, top = 16;
  const canvas = el("canvas", { class: "heads", role: "img", "aria-label": label, width: left + most * cell, height: top + layers.length * cell });
  const told = el("output", { class: "note" });
  const theme = { muted: themeColor("--muted"), ink: themeColor("--ink") };
  const small = el("canvas", { width: most, height: layers.length }), picture = new ImageData(most, layers.length), pixels = new Uint32Array(picture.data.buffer);
  const colors = palette((one) => one);
  const axes = labels(); // drawn once: text on a canvas asks for the style of the page
  let shown = null;
  const place = (event) => {
    const box = canvas.getBoundingClientRect(), factor = canvas.width / box.width;
    const head = Math.floor(((event.clientX - box.left) * factor - left) / cell), at = Math.floor(((event.clientY - box.top) * factor - top) / cell);
    return head >= 0 && at >= 0 && at < layers.length && head < (shown?.heads[at] ?? 0) ? { at, head } : null;
  };
  canvas.addEventListener("pointermove", (event) => {
    const found = place(event);
    told.textContent = found ? `layer ${layers[found.at]}, head ${found.head}: ${number(shown.of(found.at, found.head))}` : shown?.range ?? "";
  });
  canvas.addEventListener("pointerleave", () => { told.textContent = shown?.range ?? ""; });
  canvas.addEventListener("click", (event) => { const found = place(event); if (found) pick(found.at, found.head); });

  function draw({ title, values, heads }, row, chosen) {
    const [, width, rows] = values.shape;
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    const of = (at, head) => (row < 0 ? NaN : values[(at * width + head) * rows + row]);
    let low = Infinity, high = -Infinity;
    heads.forEach((count, at) => { for (let head = 0; head < count; head++) { low = Math.min(low, of(at, head)); high = Math.max(high, of(at, head)); } });
    const range = row < 0 ? "This run kept these numbers for the rows of the answer only." : `${title}: light ${number(low)}, dark ${number(high)}`;
    pixels.fill(0);
    heads.forEach((count, at) => {
      for (let head = 0; head < count && row >= 0; head++) pixels[at * most + head] = colors[high > low ? Math.round(255 * (of(at, head) - low) / (high - low)) : 0];
    });
    small.getContext("2d").putImageData(picture, 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(small, left, top, most * cell, layers.length * cell);
    context.drawImage(axes, 0, 0);
    context.strokeStyle = theme.ink;
    context.strokeRect(left - 0.5, top + chosen * cell - 0.5, most * cell, cell);
    shown = { heads, of, range };
    told.textContent = range;
  }

  function labels() {
    const drawn = el("canvas", { width: canvas.width, height: canvas.height }), context = drawn.getContext("2d");
    context.fillStyle = theme.muted;
    context.font = "11px sans-serif";
    context.textAlign = "right";
    const every = Math.ceil(13 / cell);
    layers.forEach((layer, at) => { if (at % every === 0) context.fillText(layer, left - 5, top + at * cell + Math.min(cell, 12) - 1); });
    context.textAlign = "center";
    for (let head = 0; head < most; head += Math.ceil(20 / cell)) context.fillText(head, left + (head + 0.5) * cell, 11);
    return drawn;
  }

  return { element: el("div", {}, canvas, el("p", {}, told)), draw };
}
