// The watch list. Owns the table: one body for the symbols of one's own, one for the board's. Changes are collected and
// drawn at the next animation frame; only cells whose text differs are touched.
// Bound: one table row for each row of the client; the order is renewed at most once a second while prices move.

import { compare } from "./decimal.js";
import {
  STATES, change, count, duration, element, percent, price, pricePlaces, setText, side, stateOf, stateTitle, value,
} from "./view.js";

const RESORT_MS = 1_000;
const OLD_MS = 3_000; // a live row younger than this needs no age

const priced = { text: (text, row) => price(text, row.places), colour: true };
const counted = { text: count };

const COLUMNS = [
  { key: "symbol", label: "Symbol", title: "Symbol" },
  { key: "last", label: "Last", title: "Last price", ...priced, flash: true },
  { key: "change", label: "Change", title: "Change from the reference price", text: (text, row) => change(text, row.places), asLast: true },
  { key: "change_pct", label: "%", title: "Change in per cent", text: percent, asLast: true },
  { key: "bid_size", label: "Bid size", title: "Size at the best bid", ...counted, flash: true },
  { key: "bid", label: "Bid", title: "Best bid", ...priced, flash: true },
  { key: "ask", label: "Ask", title: "Best ask", ...priced, flash: true },
  { key: "ask_size", label: "Ask size", title: "Size at the best ask", ...counted, flash: true },
  { key: "volume", label: "Volume", title: "Volume of the day", ...counted },
  { key: "high", label: "High", title: "Highest price of the day", ...priced, flash: true },
  { key: "low", label: "Low", title: "Lowest price of the day", ...priced, flash: true },
  { key: "reference", label: "Ref", title: "Reference price", ...priced },
  { key: "ceiling", label: "Ceil", title: "Ceiling: the highest price allowed today", ...priced },
  { key: "floor", label: "Floor", title: "Floor: the lowest price allowed today", ...priced },
  { key: "state", label: "State", title: "How far the row can be trusted, and the age of its last update" },
];
const NUMBERS = COLUMNS.filter((column) => column.text);

// One row on the page.
class Line {
  constructor(topic, order, removable, remove) {
    Object.assign(this, { topic, order, places: 0, texts: {}, values: {}, beat: 0 });
    this.node = element("tr");
    this.node.dataset.topic = topic;
    this.name = element("span", { className: "name", textContent: topic });
    this.word = element("span", { className: "word" });
    this.age = element("span", { className: "age" });
    this.cells = {};
    for (const { key } of COLUMNS) {
      const cell = element(key === "symbol" ? "th" : "td", { className: key });
      this.cells[key] = cell;
      this.node.append(cell);
    }
    this.cells.symbol.scope = "row";
    this.cells.symbol.append(this.name);
    if (removable) {
      const button = element("button", { type: "button", className: "remove", textContent: "\u00d7", title: `Remove ${topic} from your symbols` });
      button.setAttribute("aria-label", button.title);
      button.addEventListener("click", () => remove(topic));
      this.cells.symbol.append(button);
    }
    this.cells.state.append(element("i", { className: "icon" }), this.word, this.age);
  }

  draw(doubt) {
    const { fields } = this.row;
    this.places = pricePlaces(fields, this.places);
    const tone = side(fields, value(fields, "last"));
    for (const column of NUMBERS) {
      const raw = value(fields, column.key);
      const text = column.text(raw, this);
      if (text !== this.texts[column.key]) {
        this.#write(column, raw, text);
      }
      const colour = column.asLast ? tone : column.colour ? side(fields, raw) : "";
      if (this.cells[column.key].dataset.side !== colour) this.cells[column.key].dataset.side = colour;
    }
    this.quiet = false;
    this.drawState(doubt);
  }

  #write({ key, flash }, raw, text) {
    const before = this.values[key];
    this.texts[key] = text;
    this.values[key] = raw;
    const cell = this.cells[key];
    cell.textContent = text;
    if (!flash || this.quiet || !before || raw === null) return;
    // Two names of one animation take turns, so that a second change starts it anew.
    this.beat ^= 1;
    cell.dataset.flash = (compare(raw, before) < 0 ? "down" : "up") + this.beat;
  }

  // State and age change without a row arriving.
  drawState(doubt) {
    const { fields, made } = this.row;
    const state = stateOf(fields, doubt);
    if (this.state !== state) {
      this.state = state;
      this.node.dataset.state = state;
      setText(this.word, state);
    }
    const age = performance.now() - made;
    setText(this.age, state === "pending" || (state === "live" && age < OLD_MS) ? "" : duration(age));
    const title = stateTitle(state, fields);
    if (this.cells.state.title !== title) {
      this.cells.state.title = title;
      this.cells.last.title = state === "live" ? "" : title;
    }
  }
}

export class Table {
  // `groups` are the names of the bodies, from the top; `removable` is the one whose rows have a button for `remove`.
  constructor(table, { groups, removable, remove, doubt }) {
    Object.assign(this, { removable, remove, doubt, table });
    this.groups = new Map(groups.map((name) => [name, { body: table.createTBody(), lines: new Map() }]));
    for (const [name, { body }] of this.groups) {
      body.id = `rows-${name}`;
      body.addEventListener("animationend", (event) => delete event.target.dataset.flash);
    }
    Object.assign(this, { dirty: new Set(), sort: null, direction: 1, filter: "", lastOrder: 0, sortedAt: 0, unsorted: false });
    this.#head();
  }

  #head() {
    const row = this.table.createTHead().insertRow();
    this.heads = COLUMNS.map((column) => {
      const button = element("button", { type: "button", textContent: column.label, title: `Sort by: ${column.title}` });
      const head = element("th", { className: column.key, scope: "col" }, button);
      button.addEventListener("click", () => this.sortBy(column));
      row.append(head);
      return head;
    });
  }

  put(group, topic, row, whole) {
    const { body, lines } = this.groups.get(group);
    let line = lines.get(topic);
    if (!row) {
      if (!line) return;
      line.node.remove();
      lines.delete(topic);
      this.dirty.delete(line);
      return;
    }
    if (!line) {
      line = new Line(topic, ++this.lastOrder, group === this.removable, this.remove);
      line.group = group;
      lines.set(topic, line);
      body.append(line.node);
      this.#match(line);
    }
    line.quiet ||= whole; // a snapshot is news to us, not a move of the market
    line.row = row;
    this.dirty.add(line);
  }

  has(group, topic) {
    return this.groups.get(group).lines.has(topic);
  }

  // Draws what has changed; called once a frame.
  draw() {
    const doubts = new Map();
    for (const name of this.groups.keys()) doubts.set(name, this.doubt(name));
    for (const line of this.dirty) line.draw(doubts.get(line.group));
    this.unsorted ||= this.dirty.size > 0;
    this.dirty.clear();
    if (this.sort && this.unsorted && performance.now() - this.sortedAt > RESORT_MS) this.#order();
  }

  // Once a second, and when the connection's state has changed.
  drawStates() {
    for (const [name, { lines }] of this.groups) {
      const doubt = this.doubt(name);
      for (const line of lines.values()) if (!this.dirty.has(line)) line.drawState(doubt);
    }
  }

  // First click: the highest on top (names from A); second: the other way; third: the gateway's order again.
  sortBy(column) {
    const first = column.key === "symbol" || column.key === "state" ? 1 : -1;
    if (this.sort !== column) Object.assign(this, { sort: column, direction: first });
    else if (this.direction === first) this.direction = -first;
    else this.sort = null;
    this.heads.forEach((head, at) => {
      if (COLUMNS[at] !== this.sort) head.removeAttribute("aria-sort");
      else head.setAttribute("aria-sort", this.direction > 0 ? "ascending" : "descending");
    });
    this.#order();
  }

  #order() {
    Object.assign(this, { sortedAt: performance.now(), unsorted: false });
    for (const { body, lines } of this.groups.values()) {
      const sorted = [...lines.values()].sort((a, b) => this.#compare(a, b) || a.order - b.order);
      let at = body.firstElementChild;
      for (const { node } of sorted) {
        if (node === at) at = at.nextElementSibling;
        else body.insertBefore(node, at);
      }
    }
  }

  // Rows without a value stay below, whatever the direction.
  #compare(a, b) {
    if (!this.sort) return 0;
    const { key } = this.sort;
    if (key === "symbol") return this.direction * (a.topic < b.topic ? -1 : a.topic > b.topic ? 1 : 0);
    if (key === "state") return this.direction * (STATES.indexOf(a.state) - STATES.indexOf(b.state));
    const [x, y] = [a, b].map(({ row }) => value(row.fields, key));
    if (x === null || y === null) return (x === null) - (y === null);
    return this.direction * compare(x, y);
  }

  // Shows only rows whose topic contains the text; returns how many of the board match.
  search(text) {
    this.filter = text.trim().toLowerCase();
    let shown = 0;
    for (const { lines } of this.groups.values()) for (const line of lines.values()) shown += this.#match(line);
    return shown;
  }

  #match(line) {
    line.node.hidden = !line.topic.toLowerCase().includes(this.filter);
    return line.node.hidden ? 0 : 1;
  }

  // How many rows are in each state.
  tally(into) {
    for (const { lines } of this.groups.values()) {
      for (const { state } of lines.values()) into.set(state, (into.get(state) ?? 0) + 1);
    }
    return into;
  }
}
