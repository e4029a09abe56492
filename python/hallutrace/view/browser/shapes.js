// Shapes of points, as paths for SVG and as masks for pixels.

const corners = (...points) => (x, y, r) => `M${points.map(([dx, dy]) => `${round(x + dx * r)},${round(y + dy * r)}`).join("L")}Z`;
const round = (value) => Math.round(value * 100) / 100;
const w = 0.36; // half the width of a bar of plus and cross
const PLUS = [[-w, -1], [w, -1], [w, -w], [1, -w], [1, w], [w, w], [w, 1], [-w, 1], [-w, w], [-1, w], [-1, -w], [-w, -w]];

const SHAPES = {
  circle: (x, y, r) => `M${round(x - r)},${round(y)}a${round(r)},${round(r)} 0 1 0 ${round(2 * r)},0a${round(r)},${round(r)} 0 1 0 ${round(-2 * r)},0Z`,
  triangle: corners([0, -1.1], [1.1, 0.85], [-1.1, 0.85]),
  down: corners([0, 1.1], [1.1, -0.85], [-1.1, -0.85]),
  square: corners([-0.88, -0.88], [0.88, -0.88], [0.88, 0.88], [-0.88, 0.88]),
  diamond: corners([0, -1.2], [1.2, 0], [0, 1.2], [-1.2, 0]),
  plus: corners(...PLUS),
  cross: corners(...PLUS.map(([x, y]) => [(x - y) * 0.75, (x + y) * 0.75])),
};

/** The outline of a shape, as `d` of an SVG path. */
export const outline = (shape, x, y, r) => SHAPES[shape](x, y, r);

const masks = new Map();

/** How far a shape covers each pixel: {size, alpha: Uint8Array [size * size], half}. */
export function mask(shape, r) {
  const key = `${shape} ${r}`;
  if (masks.has(key)) return masks.get(key);
  const half = Math.ceil(1.25 * r) + 1, size = 2 * half + 1;
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fill(new Path2D(outline(shape, half + 0.5, half + 0.5, r)));
  const pixels = context.getImageData(0, 0, size, size).data;
  const made = { size, half, alpha: Uint8Array.from({ length: size * size }, (_, i) => pixels[4 * i + 3]) };
  masks.set(key, made);
  return made;
}

/** Puts a shape onto opaque pixels {data, width, height}, in a colour [r, g, b] with an opacity. */
export function stamp({ data, width, height }, { size, half, alpha }, x, y, [red, green, blue], opacity) {
  const left = Math.round(x) - half, top = Math.round(y) - half;
  for (let row = Math.max(0, -top); row < size && top + row < height; row++) {
    for (let column = Math.max(0, -left); column < size && left + column < width; column++) {
      const share = (alpha[row * size + column] * opacity) / 255;
      if (share === 0) continue;
      const at = 4 * ((top + row) * width + left + column);
      data[at] += (red - data[at]) * share;
      data[at + 1] += (green - data[at + 1]) * share;
      data[at + 2] += (blue - data[at + 2]) * share;
    }
  }
}
