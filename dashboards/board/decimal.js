// Exact decimals. Owns every comparison and every way of writing a price: values are strings from the wire's first
// digit to the screen's last and never pass through a binary floating point number.

const PLAIN = /^-?\d+(\.\d+)?$/;

// The value as a plain decimal string, or null when there is none.
export function decimal(value) {
  if (value === null || value === undefined) return null;
  const text = String(value);
  return PLAIN.test(text) ? text : null;
}

// How many digits stand after the point.
export function places(text) {
  const point = text.indexOf(".");
  return point < 0 ? 0 : text.length - point - 1;
}

// The value times 10^scale, as an integer; scale is at least the value's own places.
function scaled(text, scale) {
  return BigInt(text.replace(".", "") + "0".repeat(scale - places(text)));
}

// -1, 0 or 1; 61500 and 61500.0 are equal.
export function compare(a, b) {
  const scale = Math.max(places(a), places(b));
  const x = scaled(a, scale);
  const y = scaled(b, scale);
  return x < y ? -1 : x > y ? 1 : 0;
}

export const isZero = (text) => compare(text, "0") === 0;

// With exactly `count` places: filled with zeros, or rounded half away from zero.
export function fixed(text, count) {
  const more = places(text) - count;
  if (more <= 0) return more < 0 ? text + (places(text) ? "" : ".") + "0".repeat(-more) : text;
  const unit = 10n ** BigInt(more);
  const value = scaled(text, places(text));
  const half = value < 0n ? -unit / 2n : unit / 2n;
  const digits = String((value + half) / unit);
  const sign = digits.startsWith("-") ? "-" : "";
  const padded = digits.slice(sign.length).padStart(count + 1, "0");
  return sign + padded.slice(0, padded.length - count) + (count ? "." + padded.slice(-count) : "");
}

// For the eye: 1234567.5 becomes 1,234,567.5 and the hyphen a minus sign.
export function group(text) {
  const [whole, fraction] = text.replace("-", "\u2212").split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return fraction === undefined ? grouped : `${grouped}.${fraction}`;
}

// The same with a plus before what is above zero.
export function signed(text) {
  return (compare(text, "0") > 0 ? "+" : "") + group(text);
}
