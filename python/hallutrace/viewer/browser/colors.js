// Colours. Hallucinated is orange, right is blue: a pair that people with any colour vision tell
// apart (Okabe and Ito, 2008); each also has its own shape. All else is grey.

/** What a label is called, and how it is drawn. */
export const CLASSES = {
  1: { name: "hallucinated", color: "var(--hallucinated)", shape: "triangle", mark: "▲" },
  0: { name: "right", color: "var(--right)", shape: "circle", mark: "●" },
  null: { name: "no label", color: "var(--neutral)", shape: "square", mark: "■" },
};

export const classOf = (label) => CLASSES[label === 1 ? 1 : label === 0 ? 0 : null];

/** A label as text: its sign and its name. */
export const labelText = (label) => `${classOf(label).mark} ${classOf(label).name}`;

/** The value of a colour of the style, for canvases: `--right` as the theme has it now. */
export function themeColor(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// From light to dark by lightness, so that the order survives in grey (values: ours, after cividis).
const SEQUENTIAL = [[253, 234, 159], [220, 197, 112], [176, 163, 118], [132, 130, 122], [90, 99, 113], [41, 70, 110], [0, 34, 78]];
const DIVERGING = [[0, 90, 150], [86, 160, 205], [190, 219, 236], [245, 245, 243], [250, 214, 165], [228, 150, 60], [176, 84, 0]];

/** Colour of a share from 0 to 1, light to dark. */
export const sequential = (share) => mixed(SEQUENTIAL, share);

/** Colour of a value from -1 (right) over 0 (light) to 1 (hallucinated). */
export const diverging = (value) => mixed(DIVERGING, (value + 1) / 2);

/** Black or white, whichever has the higher contrast to a colour [r, g, b]: at least 4.5 (WCAG 2, relative luminance). */
export const ink = (color) => (luminance(color) > 0.179 ? "#000" : "#fff");

function luminance(color) {
  const [r, g, b] = color.map((one) => (one <= 10 ? one / 3294.6 : ((one / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

export const css = ([r, g, b]) => `rgb(${r},${g},${b})`;

/** The colour [r, g, b] of `#rgb` or `#rrggbb`. */
export function rgbOf(text) {
  const digits = text.replace("#", "");
  const long = digits.length === 3 ? [...digits].map((one) => one + one).join("") : digits;
  return [0, 2, 4].map((at) => parseInt(long.slice(at, at + 2), 16) || 0);
}

function mixed(stops, share) {
  if (!Number.isFinite(share)) return [200, 200, 200];
  const place = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const from = Math.min(Math.floor(place), stops.length - 2);
  return stops[from].map((one, i) => Math.round(one + (stops[from + 1][i] - one) * (place - from)));
}
