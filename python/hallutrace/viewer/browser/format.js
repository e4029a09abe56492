// Numbers as text, with as many digits as they deserve.

export const NONE = "–";

const known = (value) => typeof value === "number" && Number.isFinite(value);

/** Three significant digits; whole numbers in full. */
export function number(value, digits = 3) {
  if (!known(value)) return NONE;
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  if (size !== 0 && size < 1e-3) return value.toExponential(digits - 1);
  return value.toPrecision(digits).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
}

/** A fixed number of decimals, so that columns align. */
export const decimals = (value, count = 3) => (known(value) ? value.toFixed(count) : NONE);

export const percent = (share, count = 1) => (known(share) ? `${(100 * share).toFixed(count)}%` : NONE);

/** `.812 [.790, .833]` from {mean, low, high}. */
export function interval({ mean, low, high }, count = 3) {
  return known(low) ? `${decimals(mean, count)} [${decimals(low, count)}, ${decimals(high, count)}]` : decimals(mean, count);
}

const signed = (value) => `${value >= 0 ? "+" : ""}${value.toFixed(3)}`;

/** A difference with its interval: `+0.012 [-0.010, +0.034]`. */
export const differenceText = ({ value, low, high }) => `${signed(value)} [${signed(low)}, ${signed(high)}]`;

/** A p value: `<0.0001`, `0.031`, `1`. */
export const pText = (p) => (known(p) ? (p < 1e-4 ? "<0.0001" : String(Number(p.toPrecision(2)))) : NONE);

export function bytes(count) {
  if (!known(count)) return NONE;
  const units = ["B", "kB", "MB", "GB", "TB"];
  let size = count, unit = 0;
  while (size >= 1000 && unit < units.length - 1) { size /= 1000; unit++; }
  return `${number(size)} ${units[unit]}`;
}

export function duration(seconds) {
  if (!known(seconds)) return NONE;
  if (seconds < 60) return `${number(seconds, 2)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}

/** `1 trace`, `3 traces`. */
export const counted = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;

/** Text for a single line: control characters and marks of direction made visible, and not too long. */
export function line(text, limit = 120) {
  const visible = text.slice(0, 4 * limit).replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g,
    (one) => (one === "\n" ? "⏎" : one === "\t" ? "→" : "·"));
  const letters = [...visible];
  return letters.length > limit || text.length > 4 * limit ? `${letters.slice(0, limit).join("")}…` : visible;
}
