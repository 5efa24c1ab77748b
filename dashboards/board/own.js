// The symbols of one's own. Owns the list, where it is saved, its subscription "own", and the form that adds to it.
// The gateway judges a topic: one that it rejects when it is added is not kept, one saved earlier stays until removed.

import { element } from "./view.js";

const KEY = "tickgate.own";
const LIMIT = 100;

const WHY = {
  unknown_topic: (topic) => `There is no symbol or group "${topic}" on this gateway.`,
  topic_limit: (topic) => `"${topic}" would exceed the number of symbols that one page may watch.`,
  forbidden: (topic) => `You may not watch "${topic}".`,
};

function load() {
  try {
    const list = JSON.parse(localStorage.getItem(KEY));
    return Array.isArray(list) ? list.filter((topic) => typeof topic === "string").slice(0, LIMIT) : [];
  } catch {
    return []; // nothing saved, or storage is forbidden
  }
}

export class Own {
  constructor({ form, input, list, message }, client, wish, hasRow) {
    Object.assign(this, { input, list, message, client, wish, hasRow, fresh: new Set(), refused: new Map(), known: new Set() });
    this.topics = load();
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.add(input.value.trim());
    });
    input.addEventListener("input", () => this.#say(""));
    this.draw();
  }

  // Asks for the saved list; called once, when the session is first open.
  start() {
    this.#ask();
  }

  add(typed) {
    if (!typed) return;
    const topic = !this.known.has(typed) && this.known.has(typed.toUpperCase()) ? typed.toUpperCase() : typed;
    if (this.topics.includes(topic)) return this.#say(`${topic} is already in your list.`);
    if (this.topics.length >= LIMIT) return this.#say(`Your list is full: ${LIMIT} symbols.`);
    this.fresh.add(topic);
    this.topics.push(topic);
    this.#say("");
    this.#ask();
    this.draw();
  }

  remove(topic) {
    this.topics = this.topics.filter((each) => each !== topic);
    this.fresh.delete(topic);
    this.refused.delete(topic);
    this.#save();
    this.#ask();
    this.draw();
  }

  // What the gateway said to the subscription: `subscribed`, `error`, or a batch that rejects.
  answer(message) {
    const rejected = message.type === "error" ? [...this.fresh].map((topic) => ({ topic, ...message })) : message.rejected ?? [];
    const said = message.type === "error" && !rejected.length ? [message.message ?? message.code] : [];
    if (message.type === "subscribed") this.refused.clear();
    for (const { topic, code, message: words } of rejected) {
      const why = WHY[code]?.(topic) ?? `${topic}: ${words ?? code}`;
      if (!this.fresh.has(topic)) {
        this.refused.set(topic, why);
        continue;
      }
      said.push(why);
      this.topics = this.topics.filter((each) => each !== topic);
    }
    if (this.fresh.size && !said.length) this.input.value = "";
    this.fresh.clear();
    if (said.length) this.#say(said.join(" "));
    this.#save();
    this.draw();
  }

  #ask() {
    if (this.topics.length) this.client.subscribe("own", { ...this.wish, topics: this.topics, depth: 1 });
    else this.client.unsubscribe("own");
  }

  #save() {
    const kept = this.topics.filter((topic) => !this.fresh.has(topic));
    try {
      localStorage.setItem(KEY, JSON.stringify(kept));
    } catch {
      // storage is forbidden: the list lasts as long as the page
    }
  }

  #say(text) {
    this.message.textContent = text;
    this.message.hidden = !text;
    this.input.setAttribute("aria-invalid", String(Boolean(text)));
  }

  // One chip for each topic that has no row of its own name to be removed by: patterns, and what was refused.
  draw() {
    const chips = this.topics.filter((topic) => !this.hasRow(topic));
    this.list.hidden = chips.length === 0;
    this.list.replaceChildren(...chips.map((topic) => {
      const button = element("button", { type: "button", textContent: "\u00d7", title: `Remove ${topic} from your symbols` });
      button.setAttribute("aria-label", button.title);
      button.addEventListener("click", () => this.remove(topic));
      const why = this.refused.get(topic) ?? "";
      return element("li", { className: why && "refused", title: why }, why ? `${topic}: not available` : topic, button);
    }));
  }
}
