// What a row says to the eye. Owns the words, the colour class and the rounding of one value; shared by the table and
// the tiles, so that a price looks the same in both.

import { compare, decimal, fixed, group, places, signed } from "./decimal.js";

export const NOTHING = "\u2013";

const PRICES = ["last", "bid", "ask", "open", "high", "low", "reference", "ceiling", "floor", "prev_close", "change"];

const MEANING = {
  live: "as fresh as the feed can make it",
  pending: "accepted, no data yet",
  closed: "the market is closed; the last price there will be",
  halted: "trading is halted by the venue",
  stale: "nothing new for longer than it should be; this price may be old",
  suspect: "something upstream was lost; this price may be wrong",
};

// States from the best to the worst: how the column sorts and the summary reads.
export const STATES = ["live", "closed", "pending", "halted", "stale", "suspect"];

export function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

// Touches the page only when the text differs.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// One name for a price wherever it comes from: a trade has `price`, a book has levels, a bar has `close`.
export function value(fields, key) {
  const level = (side) => fields[side]?.find(([, size]) => decimal(size) !== null && compare(String(size), "0") > 0);
  switch (key) {
    case "last": return decimal(fields.last ?? fields.price ?? fields.close);
    case "last_size": return decimal(fields.last_size ?? fields.size);
    case "reference": return decimal(fields.reference ?? fields.prev_close);
    case "bid": case "bid_size": case "ask": case "ask_size": {
      const [side, what] = key.split("_");
      return decimal(fields[key] ?? level(`${side}s`)?.[what ? 1 : 0]);
    }
    default: return decimal(fields[key]);
  }
}

// How many places this row's prices need, so that they align: 27.3 stands as 27.30 beside 27.35.
export function pricePlaces(fields, atLeast) {
  return PRICES.reduce((most, key) => Math.max(most, places(value(fields, key) ?? "")), atLeast);
}

export const price = (text, count) => (text === null ? NOTHING : group(fixed(text, count)));
export const change = (text, count) => (text === null ? NOTHING : signed(fixed(text, count)));
export const percent = (text) => (text === null ? NOTHING : `${signed(fixed(text, 2))}%`);
export const count = (text) => (text === null ? NOTHING : group(text));

// Where a price stands by the convention of Vietnamese boards; "" where there is nothing to compare with.
export function side(fields, text) {
  const [reference, ceiling, floor] = ["reference", "ceiling", "floor"].map((key) => value(fields, key));
  if (text === null || reference === null) return "";
  if (ceiling !== null && compare(text, ceiling) >= 0) return "ceiling";
  if (floor !== null && compare(text, floor) <= 0) return "floor";
  return ["down", "same", "up"][compare(text, reference) + 1];
}

// The state to show: our own doubt comes before what the row says. Events have none: their channel stands there.
export function stateOf(fields, doubt) {
  return doubt ?? fields.state ?? fields.channel?.replace(/_.*/, "") ?? "pending";
}

export function stateTitle(state, fields) {
  const at = fields.time_us ? new Date(fields.time_us / 1000).toLocaleString("en-GB") : null;
  const since = at ? `${state === "live" ? "Last update" : "Since its last update,"} ${at}` : "";
  return [`${state}: ${MEANING[state] ?? "one event after the other"}`, since].filter(Boolean).join(". ");
}

export function duration(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86_400)} d`;
}
