// The indices. Owns the big tiles on top: one for each index of the board.

import { change, count, duration, element, percent, price, pricePlaces, setText, side, stateOf, stateTitle, value } from "./view.js";

const BREADTH = [["advances", "up"], ["unchanged", "same"], ["declines", "down"]];
const FACTS = [["volume", "Volume"], ["high", "High"], ["low", "Low"], ["reference", "Previous"]];

class Tile {
  constructor(topic) {
    this.places = 0;
    this.node = element("article", { className: "tile" });
    this.node.dataset.topic = topic;
    const part = (tag, className) => (this[className] = element(tag, { className }));
    const name = element("h2", { textContent: topic });
    const state = element("p", { className: "state" }, element("i", { className: "icon" }), part("span", "word"), part("span", "age"));
    const head = element("div", { className: "head" }, name, state);
    const figures = element("p", { className: "figures" }, part("span", "last"), " ", part("span", "change"), " ", part("span", "change_pct"));
    this.bars = BREADTH.map(([, tone]) => element("i", { className: tone }));
    this.words = BREADTH.map(([, tone]) => element("span", { className: tone }));
    const breadth = element("div", { className: "breadth" }, element("div", { className: "bar" }, ...this.bars), element("p", {}, ...this.words));
    const facts = element("dl");
    this.facts = FACTS.map(([, label]) => {
      const fact = element("dd");
      facts.append(element("div", {}, element("dt", { textContent: label }), fact));
      return fact;
    });
    this.node.append(head, figures, breadth, facts);
  }

  draw(doubt) {
    const { fields, made } = this.row;
    this.places = pricePlaces(fields, this.places);
    const last = value(fields, "last");
    setText(this.last, price(last, this.places));
    setText(this.change, change(value(fields, "change"), this.places));
    setText(this.change_pct, percent(value(fields, "change_pct")));
    this.node.dataset.side = side(fields, last);

    const names = ["up", "same", "down"];
    BREADTH.forEach(([key], at) => {
      const number = value(fields, key);
      setText(this.words[at], `${count(number)} ${names[at]}`);
      const share = number ?? "0";
      if (this.bars[at].style.flexGrow !== share) this.bars[at].style.flexGrow = share;
    });
    FACTS.forEach(([key], at) => {
      const fact = value(fields, key);
      setText(this.facts[at], key === "volume" ? count(fact) : price(fact, this.places));
    });

    this.state = stateOf(fields, doubt);
    this.node.dataset.state = this.state;
    setText(this.word, this.state);
    setText(this.age, this.state === "live" || this.state === "pending" ? "" : duration(performance.now() - made));
    const title = stateTitle(this.state, fields);
    if (this.node.title !== title) this.node.title = title;
  }
}

export class Tiles {
  constructor(place, doubt) {
    Object.assign(this, { place, doubt, tiles: new Map(), dirty: new Set() });
  }

  put(topic, row) {
    let tile = this.tiles.get(topic);
    if (!row) {
      tile?.node.remove();
      this.dirty.delete(tile);
      this.tiles.delete(topic);
      return;
    }
    if (!tile) {
      tile = new Tile(topic);
      this.tiles.set(topic, tile);
      this.place.append(tile.node);
    }
    tile.row = row;
    this.dirty.add(tile);
  }

  draw() {
    for (const tile of this.dirty) tile.draw(this.doubt());
    this.dirty.clear();
  }

  drawStates() {
    for (const tile of this.tiles.values()) this.dirty.add(tile);
    this.draw();
  }

  tally(into) {
    for (const { state } of this.tiles.values()) into.set(state, (into.get(state) ?? 0) + 1);
    return into;
  }

  // For the window's title: the first index there is.
  headline() {
    const [tile] = this.tiles.values();
    return tile?.last.textContent ? `${tile.node.dataset.topic} ${tile.last.textContent} ${tile.change_pct.textContent}` : null;
  }
}
