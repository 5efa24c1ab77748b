// The wire contract, spoken from the browser. Owns the socket, the subscriptions and the rows they hold, the gap rule,
// the heartbeat rule and the reconnects. Knows nothing of the page: it reports through the handlers it is given,
//   welcome(isNewEpoch, message)   the session may be used
//   row(sub, topic, row, full)     a row changed; null when it left
//   answer(sub, message)           `subscribed`, with what was rejected; or `error`
//   change()                       the state of the connection changed
// Bounds: one row a topic; one timer for the watch, one for the ping, one for the next attempt.

const PROTOCOL = "tickgate.v1.json";
const BACKOFF_BASE_MS = 500;
const BACKOFF_CAP_MS = 30_000;
const STEADY_MS = 10_000; // a connection that held this long forgets earlier failures
const WATCH_MS = 250;
const ASLEEP_MS = 2_000; // a watch this late means that the page slept, not the gateway
const PING_MS = 5_000;
const REASK_MS = 1_000; // a subscription that keeps breaking is asked for again at most this often
const MISSED_INTERVALS = 2.5;
const CLOCK_CREEP_MS = 0.01; // allowed drift between the two clocks, for each message

const now = () => performance.now();

// A row's topic, as the contract writes it: the channel only where it is neither quote nor index.
const topicOf = (row) => (row.channel ? `${row.channel}:${row.symbol}` : row.symbol);
const bare = (topic) => topic.replace(/^(quote|index):/, "");

export class Client {
  constructor(url, handlers) {
    this.url = url;
    this.on = handlers;
    this.phase = "connecting"; // connecting, open, lost (another attempt follows), refused (none follows)
    this.ending = ""; // why the last connection ended, in the gateway's words
    this.link = null; // { state, reason } while the whole node knows less than it should, or null
    this.epoch = null;
    this.heard = null; // when the last message came, on the page's monotonic clock
    this.retryAt = null;
    this.draining = null; // when to come back, once the gateway has said that it is going
    this.stats = { frames: 0, updates: 0, merged: 0, missed: 0, roundTrip: null };
    this.subs = new Map();
    this.streams = new Map();
    this.lastId = 0;
    this.attempt = 0;
    this.silence = MISSED_INTERVALS * 3_000;
    this.watched = now();
    setInterval(() => this.#watch(), WATCH_MS);
    setInterval(() => this.#ping(), PING_MS);
    this.#connect();
  }

  // Asks for topics under a name of ours; asked again after every reconnect. A second call replaces the wish.
  subscribe(name, wish) {
    const sub = this.subs.get(name) ?? { name, rows: new Map(), sent: false };
    Object.assign(sub, { wish, cursor: null });
    this.subs.set(name, sub);
    if (this.phase === "open") this.#ask(sub);
  }

  unsubscribe(name) {
    const sub = this.subs.get(name);
    if (!sub) return;
    this.subs.delete(name);
    this.streams.delete(sub.stream);
    if (this.phase === "open") this.#send({ action: "unsubscribe", id: ++this.lastId, sub: name });
    for (const topic of sub.rows.keys()) this.on.row(name, topic, null, true);
  }

  // What to think of this subscription's rows whatever they say themselves: "stale", "suspect", or null.
  doubt(name) {
    if (this.phase !== "open" || !this.subs.get(name)?.current) return "stale";
    return this.link?.state ?? null;
  }

  // Connects at once instead of at the next attempt.
  retry() {
    if (this.phase === "open" || this.socket) return;
    this.#connect();
  }

  #connect() {
    clearTimeout(this.timer);
    Object.assign(this, { retryAt: null, draining: null, dialed: now(), clock: null });
    const socket = new WebSocket(this.url, [PROTOCOL]);
    this.socket = socket;
    socket.onmessage = (event) => this.#receive(event.data);
    socket.onclose = (event) => this.#lose(event.code, event.reason);
    this.on.change();
  }

  // The connection is over, or as good as: every row is stale from here on.
  #lose(code, reason) {
    const { socket } = this;
    if (!socket) return;
    socket.onmessage = socket.onclose = null;
    socket.close();
    this.socket = null;
    this.streams.clear();
    for (const sub of this.subs.values()) Object.assign(sub, { sent: false, current: false });
    this.ending = [code, reason].filter(Boolean).join(" ");
    this.link = null;
    this.stats.roundTrip = null;
    if (code >= 4500 && code <= 4999) {
      this.phase = "refused";
    } else {
      this.phase = "lost";
      const cap = Math.min(BACKOFF_CAP_MS, BACKOFF_BASE_MS * 2 ** this.attempt++);
      const wait = this.draining === null ? Math.random() * cap : Math.max(0, this.draining - now());
      this.retryAt = now() + wait;
      this.timer = setTimeout(() => this.#connect(), wait);
    }
    this.on.change();
  }

  // The heartbeat rule: silence, or words that are too old, mean that the connection is lost.
  #watch() {
    const late = now() - this.watched > ASLEEP_MS;
    this.watched = now();
    if (late || !this.socket) return; // after a sleep, what has arrived is read first
    const since = this.phase === "open" ? this.heard : this.dialed;
    if (now() - since > this.silence) this.#lose(0, "nothing heard");
    else if (this.draining !== null && now() > this.draining) this.#lose(0, "the gateway is going");
    else if (this.phase === "open" && now() - this.opened > STEADY_MS) this.attempt = 0;
  }

  #ping() {
    if (this.phase !== "open") return;
    this.pinged = { id: ++this.lastId, at: now() };
    this.#send({ action: "ping", id: this.pinged.id });
  }

  #send(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  #receive(text) {
    const message = JSON.parse(text);
    this.heard = now();
    if (message.ts_us && this.#tooOld(message.ts_us)) return this.#lose(0, "what arrives is old");
    switch (message.type) {
      case "welcome": return this.#welcome(message);
      case "subscribed": return this.#subscribed(message);
      case "batch": return this.#batch(message);
      case "heartbeat": return this.#heartbeat(message);
      case "pong": return this.#pong(message);
      case "error": return this.#error(message);
      case "link":
        this.link = message.state === "live" ? null : message;
        return this.on.change();
      case "drain":
        this.draining = now() + message.reconnect_in_ms;
        return this.on.change();
      default: // a newer gateway may say more
    }
  }

  // The clocks need not agree: what counts is the delay above the least one seen on this connection.
  #tooOld(ts_us) {
    const delay = now() - ts_us / 1000;
    this.clock = this.clock === null ? delay : Math.min(delay, this.clock + CLOCK_CREEP_MS);
    return delay - this.clock > this.silence;
  }

  #welcome(message) {
    const isNew = message.epoch !== this.epoch;
    Object.assign(this, { epoch: message.epoch, phase: "open", opened: now() });
    this.silence = MISSED_INTERVALS * (message.heartbeat_ms ?? 3_000);
    for (const sub of this.subs.values()) {
      if (isNew) sub.cursor = null;
      this.#ask(sub);
    }
    this.#ping();
    this.on.welcome(isNew, message);
    this.on.change();
  }

  // Subscribes, or subscribes again from where we stand.
  #ask(sub) {
    this.streams.delete(sub.stream);
    if (sub.sent) this.#send({ action: "unsubscribe", id: ++this.lastId, sub: sub.name });
    Object.assign(sub, { sent: true, stream: null, current: false, sweep: null, asked: ++this.lastId, askedAt: now() });
    const since = sub.cursor ? { since: sub.cursor } : {};
    this.#send({ action: "subscribe", id: sub.asked, sub: sub.name, ...sub.wish, ...since });
  }

  #subscribed(message) {
    const sub = this.subs.get(message.sub);
    if (!sub || message.id !== sub.asked) return; // an answer to a wish since replaced
    Object.assign(sub, { stream: message.stream, seq: message.seq, first: true, hash: message.wish, epoch: this.epoch });
    if (!["exact", "conflated"].includes(message.recovered)) sub.cursor = null; // a snapshot follows
    this.streams.set(message.stream, sub);
    this.on.answer(sub.name, message);
  }

  #error(message) {
    const sub = [...this.subs.values()].find((each) => each.asked === message.id);
    if (!sub) return;
    sub.sent = false;
    if (message.retry_after_ms) setTimeout(() => this.phase === "open" && !sub.sent && this.#ask(sub), message.retry_after_ms);
    else this.on.answer(sub.name, message);
  }

  // The gap rule: apply what follows the frame we hold; otherwise something was missed, and we subscribe again.
  #batch(message) {
    const sub = this.streams.get(message.stream);
    if (!sub) return;
    const begins = message.prev === null && (sub.first || message.snapshot);
    if (!begins && message.prev !== sub.seq) return this.#missed(sub, (message.prev ?? message.seq) - sub.seq);

    this.stats.frames += 1;
    if (message.epoch) this.epoch = sub.epoch = message.epoch;
    if (message.snapshot) sub.sweep ??= new Set(sub.rows.keys());
    for (const gap of message.gaps ?? []) this.#gap(sub, gap);
    for (const row of message.rows) this.#row(sub, row, message);
    for (const topic of message.removed ?? []) this.#drop(sub, bare(topic));
    if (message.rejected?.length) this.on.answer(sub.name, message);

    Object.assign(sub, { seq: message.seq, first: false });
    if (message.more) return;
    // What a whole snapshot did not name is no longer there.
    for (const topic of sub.sweep ?? []) this.#drop(sub, topic);
    Object.assign(sub, { sweep: null, cursor: { epoch: sub.epoch, rev: message.rev, wish: sub.hash } });
    this.#trust(sub);
  }

  #row(sub, change, message) {
    const topic = topicOf(change);
    if (change.gone || change.out) return this.#drop(sub, topic);
    const held = sub.rows.get(topic);
    sub.sweep?.delete(topic);
    this.stats.updates += 1;
    if (!message.snapshot && held?.fields.q !== undefined) {
      this.stats.merged += Math.max(0, change.q - held.fields.q - 1);
    }
    // When the value was made, on our clock. A row that repeats its time (only the state changed) keeps its age.
    let made = now();
    if (change.full) made -= Math.max(0, message.ts_us - change.time_us) / 1000 || 0;
    else if (held && change.time_us === held.fields.time_us) made = held.made;
    const row = { topic, made, fields: change.full ? change : { ...held?.fields, ...change } };
    sub.rows.set(topic, row);
    this.on.row(sub.name, topic, row, Boolean(change.full));
  }

  #drop(sub, topic) {
    if (sub.rows.delete(topic)) this.on.row(sub.name, topic, null, true);
  }

  #gap(sub, { topic, from, to, reason }) {
    if (reason === "feed_reset") return; // the feed began again: nothing of it is lost
    const first = from ?? (sub.rows.get(bare(topic))?.fields.q ?? to - 1) + 1;
    this.stats.missed += Math.max(1, to - first + 1 || 1); // an unknown number counts as one
  }

  #missed(sub, frames) {
    this.stats.missed += Math.max(1, frames);
    const { stream } = sub;
    this.streams.delete(stream);
    sub.current = false;
    const again = () => {
      if (this.phase === "open" && sub.stream === stream && this.subs.get(sub.name) === sub) this.#ask(sub);
    };
    setTimeout(again, Math.max(0, sub.askedAt + REASK_MS - now()));
    this.on.change();
  }

  #heartbeat(message) {
    for (const [stream, { seq, rev }] of Object.entries(message.streams ?? {})) {
      const sub = this.streams.get(Number(stream));
      if (!sub || sub.sweep) continue;
      if (seq !== sub.seq) {
        if (!sub.first) this.#missed(sub, seq - sub.seq);
      } else if (sub.cursor) {
        sub.cursor.rev = rev;
        this.#trust(sub);
      }
    }
  }

  #trust(sub) {
    if (sub.current) return;
    sub.current = true;
    this.on.change();
  }

  #pong(message) {
    if (message.id === this.pinged?.id) this.stats.roundTrip = now() - this.pinged.at;
  }
}
