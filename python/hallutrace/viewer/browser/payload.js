// Payloads as `hallutrace.viewer.payload` packs them: JSON whose arrays are typed arrays.

const TYPES = {
  f4: Float32Array, f8: Float64Array, i1: Int8Array, i2: Int16Array, i4: Int32Array,
  u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, b1: Uint8Array,
};

/** The value in a payload that is still compressed. An array has its `shape` as a property. */
export async function unpack(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return parse(await new Response(stream).arrayBuffer());
}

/** The value in a payload. */
function parse(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const start = Math.ceil((4 + length) / 8) * 8;
  const text = new TextDecoder().decode(new Uint8Array(buffer, 4, length));
  return filled(JSON.parse(text), (place) => array(buffer, start, place));
}

/** A value with its arrays in their places. JSON.parse could do it, but takes ten times as long. */
function filled(value, arrayAt) {
  if (value === null || typeof value !== "object") return value;
  if (value.$array) return arrayAt(value.$array);
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) if (typeof value[i] === "object") value[i] = filled(value[i], arrayAt);
    return value;
  }
  for (const key of Object.keys(value)) {
    const member = value[key];
    if (member !== null && typeof member === "object") value[key] = filled(member, arrayAt);
  }
  return value;
}

export function fromBase64(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

function array(buffer, start, [type, shape, offset]) {
  const count = shape.reduce((product, size) => product * size, 1);
  const values = type === "f2"
    ? fromHalf(new Uint16Array(buffer, start + offset, count))
    : new TYPES[type](buffer, start + offset, count);
  values.shape = shape;
  return values;
}

let halves = null;

/** Float16 as float32, by a table: browsers differ in whether they know Float16Array. */
function fromHalf(bits) {
  halves ??= Float32Array.from({ length: 65536 }, (_, half) => halfValue(half));
  const values = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) values[i] = halves[bits[i]];
  return values;
}

function halfValue(half) {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 31;
  const fraction = half & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return exponent ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024) : sign * 2 ** -24 * fraction;
}
