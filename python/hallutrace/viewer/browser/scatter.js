// A scatter plot on a canvas: points up to 20,000 that are seen, above that bins. It zooms and moves by
// wheel, two fingers, dragging and keys; a line drawn around points selects them.

import { el, svg } from "./dom.js";
import { rgbOf, themeColor } from "./colors.js";
import { binned } from "./plane.js";
import { mask, outline, stamp } from "./shapes.js";

export const MOST_POINTS = 20000; // drawn one by one
const BIN = 11; // pixels
const PAD = 14; // pixels around all points
const MOST_ZOOM = 60;
const NEAR = 9; // pixels from the pointer
const KEYS = { "+": 1.4, "=": 1.4, "-": 1 / 1.4, _: 1 / 1.4 };
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

/**
 * A scatter plot.
 *   plane     Plane
 *   coloring  {codes: Uint8Array, palette: [{rgb, shape}], values?: Float32Array, ofMean?: (mean) => {rgb, shape}};
 *             without values, a bin is drawn as the class that most of its points have
 *   window    {x, y, zoom}: middle as shares of the sides, and zoom from 1
 *   label     what it shows, for those who do not see it
 *   onWindow(window), onHover(point or bin or null, x, y), onOpen(point), onSelect([points] or null), onBins(whether bins are drawn)
 * Returns {element, draw, window, setWindow, setColoring, select, seen, part, toSvg, setLasso}.
 */
export function scatter(options) {
  const { plane, onWindow, onHover, onOpen, onSelect } = options;
  let { coloring, window: view } = options;
  let size = { width: 0, height: 0, ratio: 1 }, selected = null, lasso = null, isLassoing = false, hovered = null, bins = null, waiting = 0;
  const canvas = el("canvas", { "aria-hidden": "true" });
  const above = el("canvas", { class: "above", "aria-hidden": "true" });
  const element = el("div", { class: "scatter", tabindex: "0", role: "application", "aria-label": options.label }, canvas, above);
  view = limited(view ?? { x: 0.5, y: 0.5, zoom: 1 });

  /** Pixels of one unit of the plane. */
  const factor = () => view.zoom * Math.min((size.width - 2 * PAD) / plane.sides[0], (size.height - 2 * PAD) / plane.sides[1]);
  const middle = () => [view.x * plane.sides[0], view.y * plane.sides[1]];
  const toPixels = ([x, y]) => [size.width / 2 + (x - middle()[0]) * factor(), size.height / 2 - (y - middle()[1]) * factor()];
  const toPlane = (x, y) => [middle()[0] + (x - size.width / 2) / factor(), middle()[1] - (y - size.height / 2) / factor()];

  /** The part of the plane that is seen, [x0, x1, y0, y1]. */
  function part() {
    const [x0, y1] = toPlane(0, 0), [x1, y0] = toPlane(size.width, size.height);
    return [x0, x1, y0, y1];
  }

  function limited({ x, y, zoom }) {
    const inside = (one) => Math.min(1, Math.max(0, Number.isFinite(one) ? one : 0.5));
    return { x: inside(x), y: inside(y), zoom: Math.min(MOST_ZOOM, Math.max(1, Number.isFinite(zoom) ? zoom : 1)) };
  }

  function seenCount() {
    let count = 0;
    plane.within(part(), (first, last) => { count += last - first; });
    return count;
  }

  /** What is drawn: each as {x, y, r, shape, rgb, opacity} in pixels, for canvas and SVG alike. */
  function scene(each) {
    const count = seenCount();
    bins = count > MOST_POINTS ? binScene(each) : null;
    if (!bins) pointScene(each, count);
  }

  function pointScene(each, count) {
    const r = (size.width < 520 ? 0.75 : 1) * (count <= 600 ? 4.6 : count <= 4000 ? 3.4 : 2.4);
    const opacity = count <= 600 ? 0.85 : 0.7;
    const scaleX = (plane.sides[0] / 65535) * factor(), scaleY = (plane.sides[1] / 65535) * factor();
    const [left, top] = toPixels([0, 0]);
    const one = { x: 0, y: 0, r, shape: "circle", rgb: null, opacity };
    plane.within(part(), (first, last) => {
      for (let at = first; at < last; at++) {
        const i = plane.order[at], { shape, rgb } = coloring.palette[coloring.codes[i]];
        one.x = left + plane.x[i] * scaleX;
        one.y = top - plane.y[i] * scaleY;
        one.shape = shape;
        one.rgb = rgb;
        one.opacity = selected ? (selected.has(i) ? 0.95 : 0.12) : opacity;
        each(one);
      }
    });
  }

  function binScene(each) {
    const columns = Math.max(1, Math.round(size.width / BIN)), rows = Math.max(1, Math.round(size.height / BIN));
    const found = binned(plane, part(), columns, rows, coloring.values ? { values: coloring.values } : { codes: coloring.codes, classes: coloring.palette.length });
    const isMarked = selected && selected.size <= MOST_POINTS;
    let most = 1;
    for (const count of found.counts) if (count > most) most = count;
    const [wide, high] = [size.width / columns, size.height / rows];
    for (let bin = 0; bin < found.counts.length; bin++) {
      if (!found.counts[bin]) continue;
      const style = coloring.values ? coloring.ofMean(found.sums[bin] / found.known[bin]) : coloring.palette[found.most[bin]];
      // The area grows with the logarithm of the count, so that single traces stay visible.
      const share = Math.sqrt(Math.log1p(found.counts[bin]) / Math.log1p(most));
      each({ x: ((bin % columns) + 0.5) * wide, y: size.height - (Math.floor(bin / columns) + 0.5) * high, r: Math.max(1, Math.round(share * BIN) / 2), ...style, opacity: isMarked ? 0.25 : 0.95 });
    }
    for (const i of isMarked ? selected : []) {
      const [x, y] = toPixels(plane.place(i));
      each({ x, y, r: 2.4, ...coloring.palette[coloring.codes[i]], opacity: 0.9 });
    }
    return { ...found, columns, rows };
  }

  function draw() {
    cancelAnimationFrame(waiting);
    waiting = 0;
    if (!size.width) return;
    const { ratio } = size, width = canvas.width, height = canvas.height;
    const context = canvas.getContext("2d", { alpha: false });
    const pixels = context.createImageData(width, height);
    const [red, green, blue] = rgbOf(themeColor("--paper"));
    new Uint32Array(pixels.data.buffer).fill((255 << 24) | (blue << 16) | (green << 8) | red);
    scene((one) => stamp(pixels, mask(one.shape, one.r * ratio), one.x * ratio, one.y * ratio, one.rgb, one.opacity));
    context.putImageData(pixels, 0, 0);
    drawAbove();
    options.onBins?.(Boolean(bins));
    element.dataset.drawn = Number(element.dataset.drawn ?? 0) + 1;
  }

  /** The line that is drawn, and rings around the points that are pointed at or opened. */
  function drawAbove() {
    const context = above.getContext("2d");
    context.setTransform(size.ratio, 0, 0, size.ratio, 0, 0);
    context.clearRect(0, 0, size.width, size.height);
    context.strokeStyle = themeColor("--ink");
    for (const [point, r] of [[options.marked, 9], [hovered, 7]]) {
      if (!(point >= 0)) continue;
      context.lineWidth = 1.5;
      context.beginPath();
      context.arc(...toPixels(plane.place(point)), r, 0, 7);
      context.stroke();
    }
    if (!lasso) return;
    context.setLineDash([5, 4]);
    context.beginPath();
    lasso.forEach((place, i) => (i ? context.lineTo : context.moveTo).apply(context, toPixels(place)));
    context.closePath();
    context.stroke();
    context.setLineDash([]);
  }

  const soon = () => { waiting ||= requestAnimationFrame(draw); };

  function setWindow(next, { silent = false } = {}) {
    const now = limited(next);
    if (now.x === view.x && now.y === view.y && now.zoom === view.zoom) return false;
    view = now;
    soon();
    if (!silent) onWindow(view);
    return true;
  }

  /** Zooms so that what is at a pixel stays there; whether anything changed. */
  function zoomAt(times, x = size.width / 2, y = size.height / 2) {
    const kept = toPlane(x, y), before = view;
    view = limited({ ...view, zoom: view.zoom * times });
    const moved = toPlane(x, y);
    const next = view.zoom === 1 ? { x: 0.5, y: 0.5, zoom: 1 }
      : { zoom: view.zoom, x: view.x + (kept[0] - moved[0]) / plane.sides[0], y: view.y + (kept[1] - moved[1]) / plane.sides[1] };
    view = before;
    return setWindow(next);
  }

  const moveBy = (x, y) => setWindow({ zoom: view.zoom, x: view.x - x / factor() / plane.sides[0], y: view.y + y / factor() / plane.sides[1] });

  function hover(x, y) {
    const at = toPlane(x, y);
    const before = hovered;
    hovered = bins ? null : plane.nearest(...at, NEAR / factor());
    if (hovered === -1) hovered = null;
    if (hovered !== before) drawAbove();
    if (!bins) return onHover(hovered === null ? null : { point: hovered }, x, y);
    const bin = Math.floor((1 - y / size.height) * bins.rows) * bins.columns + Math.floor((x / size.width) * bins.columns);
    const count = bins.counts[bin];
    return onHover(count ? { count, mean: bins.sums[bin] / bins.known[bin], known: bins.known[bin], most: bins.most[bin] } : null, x, y);
  }

  /** Selects points; null ends the selection. */
  function select(points) {
    selected = points?.length ? new Set(points) : null;
    lasso = null;
    soon();
    onSelect(points);
  }

  listen({
    element, zoomAt, moveBy, hover, select, soon,
    reset: () => setWindow({ x: 0.5, y: 0.5, zoom: 1 }),
    seen: () => plane.inPart(part()),
    leave: () => { hovered = null; drawAbove(); onHover(null); },
    click(x, y) {
      hover(x, y);
      if (hovered !== null) onOpen(hovered);
      else if (bins) zoomAt(2, x, y);
    },
    isLassoing: () => isLassoing,
    lassoTo(x, y, isFirst) { lasso = isFirst ? [toPlane(x, y)] : [...lasso, toPlane(x, y)]; drawAbove(); },
    lassoEnd() { const line = lasso; lasso = null; select(plane.inside(line ?? [])); },
    step: () => [size.width / 8, size.height / 8],
  });

  new ResizeObserver(() => {
    const width = element.clientWidth;
    if (!width) return;
    const high = (plane.sides[1] / plane.sides[0]) * (width - 2 * PAD) + 2 * PAD;
    const height = Math.round(Math.min(Math.max(high, 240), Math.max(280, width * 0.58), 580));
    size = { width, height, ratio: globalThis.devicePixelRatio || 1 };
    for (const one of [canvas, above]) {
      one.width = Math.round(width * size.ratio);
      one.height = Math.round(height * size.ratio);
      one.style.height = `${height}px`;
    }
    element.style.height = `${height}px`;
    draw();
  }).observe(element);

  return {
    element, draw, part, select, setWindow, zoomAt,
    window: () => view,
    isBinned: () => Boolean(bins),
    seen: () => plane.inPart(part()),
    setMarked: (point) => { options.marked = point; drawAbove(); },
    setLasso: (on) => { isLassoing = on; element.classList.toggle("lassoing", on); },
    setColoring: (next) => { coloring = next; soon(); },
    toSvg: (more, label) => toSvg(scene, size, more, label),
  };
}

/** The scene as an SVG, with `more` elements below it. */
function toSvg(scene, { width, height }, more, label) {
  const marks = [];
  scene(({ x, y, r, shape, rgb, opacity }) => {
    if (x < -9 || y < -9 || x > width + 9 || y > height + 9) return;
    marks.push(svg("path", { d: outline(shape, x, y, r), fill: `rgb(${rgb})`, "fill-opacity": opacity }));
  });
  const below = more(height + 18, width);
  return svg("svg", { viewBox: `0 0 ${Math.round(width)} ${Math.round(height + 24 + 18 * below.length)}`, role: "img", "aria-label": label }, marks, below);
}

/** What pointers, wheel and keys do. */
function listen(to) {
  const { element } = to, pointers = new Map();
  let moved = 0, spread = 0;
  const at = (event) => { const box = element.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  element.addEventListener("wheel", (event) => {
    if (to.zoomAt(1.2 ** (-event.deltaY / (event.ctrlKey ? 12 : 90)), ...at(event)) || event.ctrlKey) event.preventDefault();
  }, { passive: false });
  element.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    element.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, at(event));
    moved = spread = 0;
    if (pointers.size === 1 && (to.isLassoing() || event.shiftKey)) { element.dataset.lasso = "on"; to.lassoTo(...at(event), true); }
  });
  element.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId), now = at(event);
    if (!before) return to.hover(...now);
    moved += Math.abs(now[0] - before[0]) + Math.abs(now[1] - before[1]);
    if (element.dataset.lasso) {
      if (moved > 3) { to.lassoTo(...now, false); moved = 0; pointers.set(event.pointerId, now); }
      return undefined;
    }
    pointers.set(event.pointerId, now);
    if (pointers.size === 1) return moved > 4 ? to.moveBy(now[0] - before[0], now[1] - before[1]) : undefined;
    const [one, other] = [...pointers.values()];
    const next = Math.hypot(one[0] - other[0], one[1] - other[1]);
    if (spread) to.zoomAt(next / spread, (one[0] + other[0]) / 2, (one[1] + other[1]) / 2);
    spread = next;
    return undefined;
  });
  const end = (event) => {
    const wasAlone = pointers.size === 1;
    if (!pointers.delete(event.pointerId)) return;
    if (element.dataset.lasso) { delete element.dataset.lasso; to.lassoEnd(); }
    else if (wasAlone && !spread && moved <= 4 && event.type === "pointerup") to.click(...at(event));
  };
  element.addEventListener("pointerup", end);
  element.addEventListener("pointercancel", end);
  element.addEventListener("pointerleave", to.leave);
  element.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [wide, high] = to.step();
    if (KEYS[event.key]) to.zoomAt(KEYS[event.key]);
    else if (MOVES[event.key]) to.moveBy(-MOVES[event.key][0] * wide, MOVES[event.key][1] * high);
    else if (event.key === "0") to.reset();
    else if (event.key === "s" || event.key === "S") to.select(to.seen());
    else if (event.key === "Escape") to.select(null);
    else return;
    event.preventDefault();
  });
}
