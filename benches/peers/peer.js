// What the JavaScript peers share: the two workloads, and the frames that the load client times.
//
//     PEER.js broadcast|market PORT CLIENTS
//
// A peer brings a server, which calls `join` and `leave`, and its way to send. Rounds begin when CLIENTS have subscribed:
// a busy peer would let nobody in. Bound: one row for each symbol; for each client the names it asked for.

const ROUND_MS = 100;
const PAYLOAD_BYTES = 200;
const SYMBOLS = 1000;
const TICKS_PER_S = 20_000;
const FEED_MS = 5; // between two looks at what ticks are due

const nowUs = () => Math.round((performance.timeOrigin + performance.now()) * 1000);

// A schedule that does not drift; whoever is late begins at once, and what was missed altogether is left out.
function every(ms, work) {
  let due = performance.now();
  const next = () => {
    due += ms;
    const late = performance.now() - due;
    due += Math.max(0, Math.floor(late / ms)) * ms;
    setTimeout(() => { work(); next(); }, Math.max(0, -late));
  };
  next();
}

// What the load client reads a frame's number and age from.
function frame(stream, seq, rev, tsUs, rows) {
  const numbers = `"stream":${stream},"seq":${seq},"prev":${seq - 1},"rev":${rev},"ts_us":${tsUs}`;
  return `{"type":"batch",${numbers},"rows":[${rows}]}`;
}

// Ticks over all symbols by Zipf's law, the latest of each symbol kept.
class Market {
  constructor() {
    this.names = Array.from({ length: SYMBOLS }, (_, number) => `L${String(number).padStart(4, "0")}`);
    let sum = 0;
    this.weights = Float64Array.from(this.names, (_, at) => (sum += 1 / (at + 1)));
    this.q = new Uint32Array(SYMBOLS);
    this.changed = new Map();
    this.rev = 0;
    this.begunUs = nowUs();
  }

  // Takes the ticks that are due by now.
  feed() {
    const due = Math.floor(((nowUs() - this.begunUs) * TICKS_PER_S) / 1e6);
    while (this.rev < due) {
      this.rev += 1;
      const symbol = this.draw();
      this.q[symbol] += 1;
      this.changed.set(symbol, this.rev);
    }
  }

  draw() {
    const at = Math.random() * this.weights[SYMBOLS - 1];
    let [low, high] = [0, SYMBOLS - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.weights[middle] > at) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  // What has changed since the last call: each row is encoded once.
  rows() {
    const rows = new Map();
    for (const [symbol, rev] of this.changed) {
      const [name, q] = [this.names[symbol], this.q[symbol]];
      const timeUs = this.begunUs + Math.floor((rev * 1e6) / TICKS_PER_S);
      rows.set(name, `{"symbol":"${name}","rev":${rev},"q":${q},"time_us":${timeUs},"last":${(rev % 9) + 1}}`);
    }
    this.changed.clear();
    return rows;
  }
}

// The clients that have subscribed. `toEach` sends one client its text, `toAll` one text to all.
class Peer {
  constructor(toEach, toAll) {
    this.clients = new Map();
    this.streams = 0;
    const [workload, port, clients] = process.argv.slice(2);
    this.port = Number(port);
    this.expected = Number(clients);
    this.begin = () => (workload === "broadcast" ? this.broadcast(toAll) : this.conflate(toEach));
  }

  join(client, command) {
    this.clients.set(client, { stream: ++this.streams, seq: 0, names: JSON.parse(command).topics });
    if (this.streams === this.expected) this.begin();
  }

  leave(client) {
    this.clients.delete(client);
  }

  // W1: the same text to everybody.
  broadcast(toAll) {
    let seq = 0;
    every(ROUND_MS, () => {
      seq += 1;
      const [bare, tsUs] = ['{"symbol":"VCB","pad":""}', nowUs()];
      const pad = "x".repeat(PAYLOAD_BYTES - frame(1, seq, seq, tsUs, bare).length);
      toAll(this.clients.keys(), frame(1, seq, seq, tsUs, bare.replace('""', `"${pad}"`)));
    });
  }

  // W3: to everybody the latest of what it asked for and has changed.
  conflate(toEach) {
    const market = new Market();
    every(FEED_MS, () => market.feed());
    every(ROUND_MS, () => {
      market.feed();
      const [rows, tsUs] = [market.rows(), nowUs()];
      for (const [client, wish] of this.clients) {
        const mine = wish.names.map((name) => rows.get(name)).filter(Boolean);
        if (mine.length > 0) {
          wish.seq += 1;
          toEach(client, frame(wish.stream, wish.seq, market.rev, tsUs, mine.join(",")));
        }
      }
    });
  }
}

module.exports = { Peer };
