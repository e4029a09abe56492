// Points of a plane: which are seen, which is near, which are inside a line drawn around them, and
// how they fall into bins. No drawing here.

const STEPS = 65535; // of a coordinate
const SIDE = 256; // cells of the grid along a side

/** Points in the order of a uniform grid, so that those of a part of the plane are found at once. */
export class Plane {
  /** x, y: Uint16Array; range: [x smallest, x largest, y smallest, y largest] that 0 and 65535 stand for. */
  constructor(x, y, range) {
    const spans = [range[1] - range[0], range[3] - range[2]];
    const longest = Math.max(...spans) || 1;
    this.sides = spans.map((one) => Math.max(one / longest, 1e-3)); // the longer is 1
    this.range = range;
    this.count = x.length;
    this.x = x;
    this.y = y;
    this.start = new Uint32Array(SIDE * SIDE + 1);
    const cell = (i) => (y[i] >> 8) * SIDE + (x[i] >> 8);
    for (let i = 0; i < x.length; i++) this.start[cell(i) + 1]++;
    for (let c = 0; c < SIDE * SIDE; c++) this.start[c + 1] += this.start[c];
    const next = this.start.slice();
    this.order = new Uint32Array(x.length);
    for (let i = 0; i < x.length; i++) this.order[next[cell(i)]++] = i;
  }

  /** Calls `each(first, last)` with ranges of `order` that hold all points of a part, and some near it. */
  within([x0, x1, y0, y1], each) {
    const cells = (low, high, side) => [low, high].map((one) => Math.min(SIDE - 1, Math.max(0, Math.floor((one / side) * SIDE))));
    const [left, right] = cells(x0, x1, this.sides[0]);
    const [bottom, top] = cells(y0, y1, this.sides[1]);
    for (let row = bottom; row <= top; row++) each(this.start[row * SIDE + left], this.start[row * SIDE + right + 1]);
  }

  /** Place of a point, in units of the longer side. */
  place(i) {
    return [(this.x[i] / STEPS) * this.sides[0], (this.y[i] / STEPS) * this.sides[1]];
  }

  /** Coordinates of a point as they were before they were rounded to 65,536 steps. */
  coordinates(i) {
    const [x0, x1, y0, y1] = this.range;
    return [x0 + (this.x[i] / STEPS) * (x1 - x0), y0 + (this.y[i] / STEPS) * (y1 - y0)];
  }

  /** Points inside a part [x0, x1, y0, y1]. */
  inPart(part) {
    const found = [];
    this.within(part, (first, last) => {
      for (let at = first; at < last; at++) {
        const i = this.order[at];
        const [x, y] = this.place(i);
        if (x >= part[0] && x <= part[1] && y >= part[2] && y <= part[3]) found.push(i);
      }
    });
    return found;
  }

  /** The point nearest to a place and no farther than `most`; -1 if there is none. */
  nearest(x, y, most) {
    let best = -1, least = most * most;
    this.within([x - most, x + most, y - most, y + most], (first, last) => {
      for (let at = first; at < last; at++) {
        const [px, py] = this.place(this.order[at]);
        const distance = (px - x) ** 2 + (py - y) ** 2;
        if (distance <= least) { least = distance; best = this.order[at]; }
      }
    });
    return best;
  }

  /** Points inside a closed line of places [x, y], by the even-odd rule. */
  inside(line) {
    if (line.length < 3) return [];
    const xs = line.map(([x]) => x), ys = line.map(([, y]) => y);
    return this.inPart([Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)])
      .filter((i) => isInside(line, ...this.place(i)));
  }
}

function isInside(line, x, y) {
  let inside = false;
  for (let i = 0, j = line.length - 1; i < line.length; j = i++) {
    const [ax, ay] = line[i], [bx, by] = line[j];
    if ((ay > y) !== (by > y) && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
  }
  return inside;
}

/**
 * Points of a part of the plane in equal bins.
 *   part     [x0, x1, y0, y1]
 *   columns, rows  of bins; row 0 is at y0
 *   values   Float32Array by point, NaN where there is none; or codes below `classes`
 * Gives, by row * columns + column: counts of points, and of values the counts `known` and `sums`; with
 * `classes` also `most`, the code that most points have (the smallest of equal ones).
 */
export function binned(plane, part, columns, rows, { values = null, codes = null, classes = 0 }) {
  const bins = columns * rows;
  const counts = new Uint32Array(bins), known = new Uint32Array(bins), sums = new Float64Array(bins);
  const byClass = new Uint32Array(classes ? bins * classes : 0);
  const factor = { x: (plane.sides[0] / STEPS) * (columns / (part[1] - part[0])), y: (plane.sides[1] / STEPS) * (rows / (part[3] - part[2])) };
  const origin = { x: part[0] * (columns / (part[1] - part[0])), y: part[2] * (rows / (part[3] - part[2])) };
  plane.within(part, (first, last) => {
    for (let at = first; at < last; at++) {
      const i = plane.order[at];
      const column = Math.floor(plane.x[i] * factor.x - origin.x), row = Math.floor(plane.y[i] * factor.y - origin.y);
      if (column < 0 || row < 0 || column >= columns || row >= rows) continue;
      const bin = row * columns + column;
      counts[bin]++;
      if (classes) byClass[bin * classes + codes[i]]++;
      else if (values[i] === values[i]) { known[bin]++; sums[bin] += values[i]; }
    }
  });
  const most = new Uint8Array(classes ? bins : 0);
  for (let bin = 0; bin < most.length; bin++) {
    for (let code = 1; code < classes; code++) if (byClass[bin * classes + code] > byClass[bin * classes + most[bin]]) most[bin] = code;
  }
  return { counts, known, sums, most };
}
