// Shapes of points, as paths for SVG and as masks for pixels.

const corners = (...points) => (x, y, r) => `M${points.map(([dx, dy]) => `${round(x + dx * r)},${round(y + dy * r)}`).join("L")}Z`;
const round = (value) => Math.round(value * 100) / 100;
const w = 0.36; // half the width of a bar of plus and cross
const PLUS = [[-w, -1], [w, -1], [w, -w], [1, -w], [1, w], [w, w], [w, 1], [-w, 1], [-w, w], [-1, w], [-1, -w], [-w, -w]];

const SHAPES = {
  circle: (x, y, r) => `M${round(x - r)},${round(y)}a${round(r)},${round(r)} 0 1 0 ${round(2 * r)},0a${round(r)},${round(r)} 0 1 0 ${round(-2 * r)},0Z`,
  triangle: corners([0, -1.1], [1.1, 0.85], [-1.1, 0.85]),
  square: corners([-0.88, -0.88], [0.88, -0.88], [0.88, 0.88], [-0.88, 0.88]),
  diamond: corners([0, -1.2], [1.2, 0], [0, 1.2], [-1.2, 0]),
  plus: corners(...PLUS),
  cross: corners(...PLUS.map(([x, y]) => [(x - y) * 0.75, (x + y) * 0.75])),
};

/** The outline of a shape, as `d` of an SVG path. */
export const outline = (shape, x, y, r) => SHAPES[shape](x, y, r);

const masks = new Map();

/** The pixels that a shape covers, from its middle: {dx, dy, alpha: 0 to 1, half: how far they reach}. */
export function mask(shape, r) {
  const key = `${shape} ${r}`;
  if (masks.has(key)) return masks.get(key);
  const half = Math.ceil(1.25 * r) + 1, size = 2 * half + 1;
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fill(new Path2D(outline(shape, half + 0.5, half + 0.5, r)));
  const pixels = context.getImageData(0, 0, size, size).data;
  const covered = Array.from({ length: size * size }, (_, i) => i).filter((i) => pixels[4 * i + 3]);
  const made = {
    half,
    dx: Int8Array.from(covered, (i) => (i % size) - half),
    dy: Int8Array.from(covered, (i) => Math.floor(i / size) - half),
    alpha: Float32Array.from(covered, (i) => pixels[4 * i + 3] / 255),
  };
  masks.set(key, made);
  return made;
}

/** Puts a shape onto opaque pixels {data, width, height}, in a colour [r, g, b] with an opacity. */
export function stamp({ data, width, height }, { dx, dy, alpha, half }, x, y, rgb, opacity) {
  const left = Math.round(x), top = Math.round(y);
  if (left < -half || top < -half || left >= width + half || top >= height + half) return;
  const isWhole = left >= half && top >= half && left < width - half && top < height - half;
  const red = rgb[0], green = rgb[1], blue = rgb[2];
  for (let k = 0; k < alpha.length; k++) {
    const column = left + dx[k], row = top + dy[k];
    if (!isWhole && (column < 0 || row < 0 || column >= width || row >= height)) continue;
    const at = 4 * (row * width + column), share = alpha[k] * opacity;
    data[at] += (red - data[at]) * share;
    data[at + 1] += (green - data[at + 1]) * share;
    data[at + 2] += (blue - data[at + 2]) * share;
  }
}
