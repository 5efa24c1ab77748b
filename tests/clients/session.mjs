// Sessions on nothing but the standard WebSocket and EventSource: Node's `ws` and a browser run this same text, which was
// written from docs/protocol.md alone. Each returns what it was told and what it holds.

/** Goes through the steps of session.json. */
export async function session(WebSocket, url, steps, say) {
  const client = new Client(), extensions = [], ends = [];
  let socket, last = 0;
  const send = (command) => {
    const id = ++last;
    socket.send(JSON.stringify({ ...command, id }));
    return client.until(() => client.answers.at(-1)?.id === id);
  };
  const verbs = {
    open: async () => {
      client.welcome = client.end = null;
      socket = new WebSocket(url);
      socket.onmessage = ({ data }) => client.take(data);
      socket.onclose = ({ code }) => client.close(code);
      await client.until(() => client.welcome);
      extensions.push(socket.extensions);
    },
    send,
    resume: (command) => send({ ...command, since: client.subs[command.sub].since }),
    until: (condition) => client.until(() => client[condition]()),
    say,
    close: async (code) => {
      socket.close(code);
      await client.until(() => client.end);
      ends.push(client.end);
    },
  };
  for (const step of steps) {
    for (const [verb, what] of Object.entries(step)) await verbs[verb](what);
  }
  return { extensions, ends, ...client.told() };
}

/** Listens to an event stream until it is quiet. */
export async function listen(EventSource, url, say) {
  const client = new Client(), source = new EventSource(url);
  source.onmessage = ({ data }) => client.take(data);
  await client.until(() => client.flowing());
  say("ready");
  await client.until(() => client.quiet());
  source.close();
  return client.told();
}

class Client {
  subs = {};
  answers = [];
  broken = [];
  link = "live";
  look = () => {};

  told() {
    const { subs, answers, broken } = this;
    return { subs, answers, broken };
  }

  /** Waits for messages until the condition holds. */
  until(condition) {
    return new Promise((resolve, reject) => {
      this.look = () => {
        if (condition()) resolve();
        else if (this.end) reject(new Error(`closed with ${this.end}`));
      };
      this.look();
    });
  }

  /** Each subscription has had some batches since it was last answered. */
  flowing() {
    const subs = Object.values(this.subs);
    return subs.length > 0 && subs.every((sub) => sub.batches >= 3);
  }

  /** The source is gone, and for a whole interval no stream had anything to say. */
  quiet() {
    return this.link === "stale" && this.silent;
  }

  close(code) {
    this.end = code;
    this.look();
  }

  take(text) {
    const message = JSON.parse(text);
    if (message.type === "welcome") this.welcome = message;
    if (message.type === "link") this.link = message.state;
    if (message.type === "subscribed" || message.type === "updated") this.begin(message);
    if (message.type === "unsubscribed") this.subs[message.sub].stream = null;
    if (message.type === "batch") this.batch(message);
    if (message.type === "heartbeat") this.heartbeat(message.streams);
    if ("id" in message) this.answers.push(message);
    this.look();
  }

  begin({ sub: name, stream, seq, wish, q, removed = [] }) {
    const sub = (this.subs[name] ??= { table: {}, q: {} });
    Object.assign(sub, { stream, seq, wish, q: { ...q, ...sub.q }, batches: 0 });
    for (const topic of removed) delete sub.table[topic];
  }

  batch({ stream, seq, prev, rev, rows, gaps = [], snapshot, added }) {
    const sub = Object.values(this.subs).find((sub) => sub.stream === stream);
    if (!sub) return this.broken.push(`a batch of stream ${stream}`);
    if (prev !== null && prev !== sub.seq) this.broken.push(`${seq} after ${prev}, ${sub.seq} is held`);
    if (gaps.length > 0) this.broken.push(`gaps ${JSON.stringify(gaps)}`);
    sub.seq = seq;
    sub.since = { epoch: this.welcome.epoch, rev, wish: sub.wish };
    sub.batches += !snapshot && !added;
    for (const row of rows) this.row(sub, row);
  }

  row(sub, { full, ...row }) {
    const topic = row.channel ? `${row.channel}:${row.symbol}` : row.symbol;
    if (topic in sub.q) {
      // What came already after the cursor comes again.
      if (row.q > sub.q[topic] + 1) this.broken.push(`${topic}: ${row.q} after ${sub.q[topic]}`);
      sub.q[topic] = Math.max(row.q, sub.q[topic]);
    } else if (full) {
      sub.table[topic] = row;
    } else if (topic in sub.table) {
      Object.assign(sub.table[topic], row);
    } else {
      this.broken.push(`${topic}: changed before it was there`);
    }
  }

  heartbeat(streams) {
    const subs = Object.values(this.subs);
    this.silent = subs.every(({ stream }) => stream in streams);
    for (const { stream, seq } of subs) {
      if (stream in streams && streams[stream].seq !== seq) this.broken.push(`a heartbeat at ${streams[stream].seq}, ${seq} is held`);
    }
  }
}
