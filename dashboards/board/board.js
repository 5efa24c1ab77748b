// The page. Ties client, table, tiles and the own list; owns the header, the alarm in words, the search, and the one
// animation frame in which everything is drawn.

import { Client } from "./client.js";
import { Own } from "./own.js";
import { Table } from "./table.js";
import { Tiles } from "./tiles.js";
import { STATES, duration, element, setText } from "./view.js";

const GROUP = "VN30";
const MOST_SYMBOLS = 200; // where the gateway has no such group
const WISH = { rate: 10, decimals: "string" };
const CATALOGUE_MS = 5_000;
const SECOND = 1_000;

const byId = (id) => document.getElementById(id);

const PHASES = {
  connecting: ["pending", "Connecting"],
  open: ["live", "Connected"],
  lost: ["stale", "Connection lost"],
  refused: ["suspect", "Connection refused"],
  draining: ["halted", "Moving to another connection"],
  suspect: ["suspect", "Connected, data suspect"],
  stale: ["stale", "Connected, data stale"],
};

// ---- what the gateway has

const catalogue = { symbols: new Map(), topics: null };

async function get(path) {
  const response = await fetch(path, { signal: AbortSignal.timeout(CATALOGUE_MS), headers: { accept: "application/json" } });
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

// Which topics the board shows: the group, or else the first symbols there are.
async function loadCatalogue() {
  try {
    const [{ groups }, { symbols }] = await Promise.all([get("v1/groups"), get("v1/symbols")]);
    catalogue.symbols = new Map(symbols.map((each) => [each.symbol, each]));
    const names = [...catalogue.symbols.keys()];
    catalogue.topics = groups.some(({ group }) => group === GROUP) ? [`@${GROUP}`]
      : names.length > MOST_SYMBOLS ? names.slice(0, MOST_SYMBOLS) : ["*"];
    own.known = new Set([...names, ...groups.map(({ group }) => `@${group}`)]);
    byId("known").replaceChildren(...[...own.known].slice(0, 1000).map((name) => element("option", { value: name })));
  } catch {
    catalogue.topics ??= [`@${GROUP}`]; // the gateway's answer to the subscription will tell
  }
  client.subscribe("board", { topics: catalogue.topics, ...WISH });
}

// ---- the parts

const url = new URL("ws", document.baseURI);
url.protocol = url.protocol.replace("http", "ws");

let frame = null; // the animation frame asked for
let statesChanged = false; // something that concerns every row
const session = { started: false, version: null, rate: null, capped: null, delay: 0 };

const client = new Client(url.href, {
  welcome(isNewEpoch, message) {
    session.version = message.version;
    if (isNewEpoch) loadCatalogue();
    if (!session.started) own.start();
    session.started = true;
  },
  row(sub, topic, row, whole) {
    const tile = sub === "board" && (row ? isIndex(row) : tiles.tiles.has(topic));
    if (tile) {
      table.put(sub, topic, null); // known as an index only now
      tiles.put(topic, row);
    } else {
      table.put(sub, topic, row, whole);
    }
    if (sub === "own" && (whole || !row)) own.draw();
    drawSoon();
  },
  answer(sub, message) {
    if (sub === "own") return own.answer(message);
    if (message.type === "subscribed") Object.assign(session, { rate: message.rate, capped: message.capped_by, delay: message.delay_s ?? 0 });
    const refused = message.type === "error" ? [message] : message.rejected ?? [];
    const words = refused.map((each) => [each.topic, each.message ?? each.code].filter(Boolean).join(": "));
    byId("refused").hidden = words.length === 0;
    setText(byId("refused"), words.length ? `The gateway does not serve ${words.join("; ")}` : "");
  },
  change() {
    statesChanged = true;
    drawSoon();
  },
});

const doubt = (sub) => client.doubt(sub);
const tiles = new Tiles(byId("tiles"), () => doubt("board"));
const table = new Table(byId("table"), { groups: ["own", "board"], removable: "own", remove: (topic) => own.remove(topic), doubt });
const own = new Own({ form: byId("add"), input: byId("topic"), list: byId("own"), message: byId("own-error") }, client, WISH, (topic) => table.has("own", topic));

function isIndex({ topic, fields }) {
  return catalogue.symbols.get(topic)?.channel === "index" || "advances" in fields;
}

// ---- drawing

function drawSoon() {
  frame ??= requestAnimationFrame(() => {
    frame = null;
    tiles.draw();
    table.draw();
    if (!statesChanged) return;
    statesChanged = false;
    drawStates();
  });
}

function drawStates() {
  table.drawStates();
  tiles.drawStates();
  drawHeader();
  drawAlarm();
}

function drawHeader() {
  const phase = client.phase !== "open" ? client.phase : client.link ? (PHASES[client.link.state] ? client.link.state : "suspect") : client.draining !== null ? "draining" : "open";
  const [state, words] = PHASES[phase];
  byId("link").dataset.state = state;
  setText(byId("link-word"), words);

  const shown = tiles.tally(table.tally(new Map()));
  const total = [...shown.values()].reduce((sum, number) => sum + number, 0);
  for (const item of byId("states").children) {
    const number = shown.get(item.dataset.state) ?? 0;
    item.hidden = number === 0;
    setText(item.lastElementChild, `${number} ${item.dataset.state}`);
  }
  byId("empty").hidden = total > 0;
  setText(byId("empty"), client.phase === "open" ? "Waiting for the first prices" : "No prices yet");

  const simulated = [...catalogue.symbols.values()].filter((each) => each.simulated).length;
  byId("simulated").hidden = simulated === 0;
  setText(byId("simulated"), simulated === catalogue.symbols.size ? "Simulated market" : "Partly simulated market");
  byId("delayed").hidden = !session.delay;
  setText(byId("delayed"), `Delayed by ${duration(session.delay * SECOND)}`);
}

// The alarm says in words what a colour cannot.
function drawAlarm() {
  const silent = client.heard === null ? null : duration(performance.now() - client.heard);
  const next = client.retryAt === null ? "Trying now." : `Next attempt in ${duration(client.retryAt - performance.now() + SECOND - 1)}.`;
  const lost = silent === null ? "No connection to the gateway." : `No data for ${silent}: the connection is lost, prices below are old.`;
  const texts = {
    lost: `${lost} ${next}`,
    refused: `The gateway closed the connection and asks not to come back (${client.ending}). Prices below are old.`,
    open: client.link ? `The gateway itself is cut off from its source (${client.link.reason ?? "no reason given"}): prices below ${client.link.state === "stale" ? "are old" : "may be wrong"}.` : "",
    connecting: "",
  };
  const text = texts[client.phase];
  byId("alarm").hidden = !text;
  setText(byId("alarm-text"), text);
  byId("retry").hidden = client.phase === "open" || client.socket !== null;
  document.documentElement.classList.toggle("lost", client.phase === "lost" || client.phase === "refused");
  const title = text ? "Old prices" : tiles.headline();
  if (document.title !== title) document.title = [title, "Tickgate"].filter(Boolean).join(" \u00b7 ");
}

let framesBefore = 0;

function drawCounters() {
  const { frames, updates, merged, missed, roundTrip } = client.stats;
  const group = (number) => number.toLocaleString("en-US");
  const age = client.heard === null ? null : performance.now() - client.heard;
  setText(byId("round-trip"), roundTrip === null ? "\u2013" : roundTrip < 10 ? `${roundTrip.toFixed(1)} ms` : `${Math.round(roundTrip)} ms`);
  setText(byId("age"), age === null ? "\u2013" : `${(age / SECOND).toFixed(1)} s`);
  setText(byId("updates"), group(updates));
  setText(byId("merged"), group(merged));
  setText(byId("missed"), group(missed));
  byId("missed").classList.toggle("some", missed > 0);
  setText(byId("frames"), String(frames - framesBefore));
  framesBefore = frames;
  const asked = session.rate ? `at most ${session.rate} frames a second${session.capped ? ` (capped by ${session.capped})` : ""}` : null;
  setText(byId("about"), ["Tickgate", session.version, asked && `\u00b7 ${asked}`].filter(Boolean).join(" "));
}

// ---- the hands

const search = byId("search");
const showMatches = () => {
  const shown = table.search(search.value);
  byId("no-match").hidden = shown > 0 || !search.value.trim();
  setText(byId("no-match"), `No symbol here contains "${search.value.trim()}".`);
};
search.addEventListener("input", showMatches);
addEventListener("keydown", (event) => {
  const typing = event.target instanceof HTMLInputElement;
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    search.focus();
  } else if (event.key === "Escape" && event.target === search) {
    search.value = "";
    showMatches();
    search.blur();
  }
});
byId("retry").addEventListener("click", () => client.retry());
addEventListener("online", () => client.retry());

byId("states").replaceChildren(...STATES.map((state) => {
  const item = element("li", { hidden: true }, element("i", { className: "icon" }), element("span"));
  item.dataset.state = state;
  return item;
}));

setInterval(() => {
  drawStates();
  drawCounters();
}, SECOND);
drawStates();
drawCounters();
