//! A client written from the contract alone: it shares no code with the server but the names of things.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use fastrand::Rng;
use rust_decimal::Decimal;
use serde_json::Value;
use serde_json::value::RawValue;
use tickgate::base::limits::Limits;
use tickgate::flow::dispatch::wish::Packing;
use tickgate::flow::frame::command;
use tickgate::flow::socket::wire::Newcomer;
use tickgate_feeds::symbols::Symbols;

use super::ask;
use super::filter::{Reference, expected};
use super::history::{Fields, History};
use super::packed::{inflate, unpack};
use super::wire::{
    BINARY, CLOSE, COMPRESSED_BINARY, COMPRESSED_TEXT, PING, PONG, Pipe, SharedPipe, SimWire, TEXT,
    client_frame, next_frame,
};

/// Keys of a row that are no fields.
pub const KEYS: [&str; 6] = ["symbol", "channel", "rev", "q", "time_us", "full"];

/// What clients met: the test looks whether the hard cases were among it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub frames: u64,
    pub rows: u64,
    pub merged: u64,
    pub more: u64,
    pub gaps: u64,
    pub added: u64,
    pub heartbeats: u64,
    pub events: u64,
    pub books: u64,
    pub bars: u64,
    pub arrays: u64,
    pub compressed: u64,
    pub binary: u64,
    pub updates: u64,
    pub resumes: u64,
    pub resets: u64,
    pub digests: u64,
    /// Rows that left a filtered stream, rows that came to one after the first picture, trades that were left out.
    pub outs: u64,
    pub entered: u64,
    pub left_out: u64,
    /// Symbols that fell silent by their own rhythm.
    pub silenced: u64,
    /// Cursors that were ahead of a node.
    pub behind: u64,
    /// Connections of edges to their upstreams.
    pub links: u64,
    /// Changes of images given one by one, images whose changes were lost, trades given after the quote that they met.
    pub each: u64,
    pub lost: u64,
    pub met: u64,
}

impl Seen {
    pub fn add(&mut self, other: Self) {
        self.frames += other.frames;
        self.rows += other.rows;
        self.merged += other.merged;
        self.more += other.more;
        self.gaps += other.gaps;
        self.added += other.added;
        self.heartbeats += other.heartbeats;
        self.events += other.events;
        self.books += other.books;
        self.bars += other.bars;
        self.arrays += other.arrays;
        self.compressed += other.compressed;
        self.binary += other.binary;
        self.updates += other.updates;
        self.resumes += other.resumes;
        self.resets += other.resets;
        self.digests += other.digests;
        self.outs += other.outs;
        self.entered += other.entered;
        self.left_out += other.left_out;
        self.silenced += other.silenced;
        self.behind += other.behind;
        self.links += other.links;
        self.each += other.each;
        self.lost += other.lost;
        self.met += other.met;
    }
}

#[derive(Clone, Debug, Default)]
struct Stream {
    sub: String,
    /// The command that made it, and the name that the gateway gave it.
    asked: Value,
    wish: String,
    /// It goes on from a cursor: events that it has already may come again.
    resumed: bool,
    joining: bool,
    mode: String,
    filter: Option<&'static Reference>,
    slot_ns: Option<u64>,
    fields: Option<Vec<String>>,
    /// The announced columns, where rows are arrays.
    columns: Option<Rc<Columns>>,
    seq: Option<u64>,
    rev: u64,
    /// The newest revision of any row.
    seen_rev: u64,
    snapshot_done: bool,
    /// Image rows by symbol.
    rows: BTreeMap<String, Held>,
    /// Of images: the last number, and the revision of the last whole row.
    image_q: BTreeMap<String, u64>,
    whole_rev: BTreeMap<String, u64>,
    /// Images that may come whole in this frame where each change is given; in a picture all.
    may_be_whole: Vec<String>,
    is_picture: bool,
    books: BTreeMap<String, (u64, Fields)>,
    /// Event topics: the last number known.
    q: BTreeMap<String, u64>,
    first_us: Option<u64>,
    slots_used: u64,
}

/// What is held of an image.
#[derive(Clone, Debug, Default)]
struct Held {
    rev: u64,
    fields: Fields,
    /// The revision of the image with which these fields agreed when they were last compared.
    agreed: u64,
}

pub struct Client {
    pipe: SharedPipe,
    query: String,
    packing: Packing,
    stalled: bool,
    /// It reads at once, always.
    steady: bool,
    wanted: usize,
    streams: BTreeMap<u64, Stream>,
    /// Subscriptions asked for, by name, and what an earlier connection left of them.
    asked: BTreeMap<String, Value>,
    kept: BTreeMap<String, Stream>,
    named: u64,
    pending: Vec<u8>,
    seen: Seen,
    hung_up: bool,
    /// Subscriptions for which the node was behind.
    behind: Vec<String>,
    turns: u32,
}

/// A message's `type`.
#[derive(serde::Deserialize)]
struct Kind<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
}

/// A row as it was sent: each value's text.
pub type RawRow<'a> = BTreeMap<&'a str, &'a RawValue>;
/// The announced columns of each channel.
type Columns = Vec<Option<Vec<String>>>;

#[derive(Debug, serde::Deserialize)]
struct Batch<'a> {
    stream: u64,
    seq: u64,
    prev: Option<u64>,
    rev: u64,
    ts_us: u64,
    #[serde(default)]
    snapshot: bool,
    #[serde(default)]
    more: bool,
    #[serde(borrow)]
    rows: Vec<&'a RawValue>,
    #[serde(default)]
    gaps: Vec<Gap>,
    #[serde(default)]
    added: Vec<String>,
    digest: Option<u32>,
}

/// A row of an image.
struct ImageRow {
    rev: u64,
    q: u64,
    is_full: bool,
    fields: Fields,
}

#[derive(Debug, serde::Deserialize)]
struct Gap {
    topic: String,
    from: Option<u64>,
    to: u64,
}

/// After how many turns a node that was behind is asked again: half a second, more or less.
const TURNS_BEHIND: u32 = 25;

impl Client {
    pub fn new(random: &mut Rng) -> Self {
        let steady = random.u8(..3) == 0;
        let room = if steady { 1 << 20 } else { [600, 3_000, 100_000][random.usize(..3)] };
        let pipe = Rc::new(RefCell::new(Pipe::new(room)));
        let query =
            if random.bool() { String::new() } else { format!("symbols={}", ask::TOPICS[random.usize(..5)]) };
        Self {
            pipe,
            query,
            packing: Packing {
                window_bits: [None, Some(12), Some(15)][random.usize(..3)],
                is_binary: random.u8(..4) == 0,
            },
            stalled: false,
            steady,
            wanted: random.usize(1..4),
            streams: BTreeMap::new(),
            asked: BTreeMap::new(),
            kept: BTreeMap::new(),
            named: 0,
            pending: Vec::new(),
            seen: Seen::default(),
            hung_up: false,
            behind: Vec::new(),
            turns: 0,
        }
    }

    pub fn newcomer(&self) -> Newcomer<SimWire> {
        Newcomer {
            wire: SimWire(Rc::clone(&self.pipe)),
            peer: ([127, 0, 0, 1], 1).into(),
            head: Vec::new(),
            asked: command::from_query(&self.query, &Limits::default()),
            packing: self.packing,
        }
    }

    pub fn seen(&self) -> Seen {
        self.seen
    }

    pub fn is_gone(&self) -> bool {
        self.hung_up
    }

    /// Does something at random: stalls, asks for more, for less, or leaves.
    pub fn act(&mut self, random: &mut Rng) {
        if !self.steady && random.u8(..20) == 0 {
            self.stalled = !self.stalled;
        }
        if self.streams.len() < self.wanted && random.u8(..10) == 0 {
            self.named += 1;
            let mut command = ask::subscribe(random);
            command["sub"] = format!("s{}", self.named).into();
            self.subscribe(command);
        }
        if random.u8(..15) == 0
            && let Some(stream) = self.streams.values().next()
        {
            let mut command = ask::update(random);
            command["sub"] = stream.sub.as_str().into();
            self.send(&command.to_string());
        }
        if random.u8(..60) == 0
            && let Some(stream) = self.streams.values().next()
        {
            let command = format!(r#"{{"action":"unsubscribe","sub":"{}"}}"#, stream.sub);
            self.send(&command);
        }
        if random.u8(..40) == 0 {
            self.send(r#"{"action":"list","id":1}"#);
        }
        if random.u8(..200) == 0 {
            self.hang_up();
        }
    }

    pub fn hang_up(&mut self) {
        self.pipe.borrow_mut().close();
        self.hung_up = true;
    }

    /// The same client on a new connection, with what it holds and cursors to go on from.
    pub fn reconnected(&self, random: &mut Rng) -> Self {
        let mut client = Self { query: String::new(), steady: false, named: self.named, ..Self::new(random) };
        client.seen = self.seen;
        for stream in self.streams.values().filter(|stream| stream.snapshot_done && stream.asked.is_object())
        {
            let mut command = stream.asked.clone();
            let wish = if random.u8(..8) == 0 { "another" } else { &stream.wish };
            command["since"] = serde_json::json!({ "epoch": "world", "rev": stream.rev, "wish": wish, "seen": stream.seen_rev });
            command["id"] = stream.sub.as_str().into();
            client.kept.insert(stream.sub.clone(), stream.clone());
            client.subscribe(command);
        }
        client
    }

    fn subscribe(&mut self, command: Value) {
        self.send(&command.to_string());
        self.asked.insert(command["sub"].as_str().expect("a name").to_owned(), command);
    }

    pub fn stop_acting(&mut self) {
        self.stalled = false;
    }

    fn send(&mut self, text: &str) {
        let frame = if self.packing.is_binary {
            let value: Value = serde_json::from_str(text).expect("JSON");
            client_frame(BINARY, rmp_serde::to_vec(&value).expect("MessagePack"))
        } else {
            client_frame(TEXT, text)
        };
        self.pipe.borrow_mut().send(&frame);
    }

    /// Takes what has come, unless it is stalled.
    pub fn read(&mut self) -> Vec<u8> {
        self.turns += 1;
        if self.turns.is_multiple_of(TURNS_BEHIND) {
            for name in std::mem::take(&mut self.behind) {
                self.subscribe(self.asked[&name].clone());
            }
        }
        if self.stalled { Vec::new() } else { self.pipe.borrow_mut().take(usize::MAX) }
    }

    /// Checks every frame that is complete.
    pub fn check(&mut self, bytes: &[u8], history: &History, symbols: &Symbols) {
        self.pending.extend_from_slice(bytes);
        while let Some((opcode, payload)) = next_frame(&mut self.pending) {
            match opcode {
                TEXT | BINARY | COMPRESSED_TEXT | COMPRESSED_BINARY => {
                    let mut text = payload;
                    if matches!(opcode, COMPRESSED_TEXT | COMPRESSED_BINARY) {
                        assert!(self.packing.window_bits.is_some(), "compressed where that was agreed on");
                        self.seen.compressed += 1;
                        text = inflate(&text);
                    }
                    let is_binary = matches!(opcode, BINARY | COMPRESSED_BINARY);
                    assert_eq!(is_binary, self.packing.is_binary, "as it was agreed on");
                    if is_binary {
                        self.seen.binary += 1;
                        text = unpack(&text).into_bytes();
                    }
                    self.hear(&text, history, symbols);
                }
                PING => self.pipe.borrow_mut().send(&client_frame(PONG, "")),
                // Who did not read for long answered no pings.
                CLOSE if !self.steady && payload.ends_with(b"no_pong:no answer to pings") => self.hang_up(),
                other => panic!("unexpected opcode {other}: {}", String::from_utf8_lossy(&payload)),
            }
        }
        // Who does not even take the goodbye is cut off in the middle of a frame.
        let is_cut_off = self.pipe.borrow().server_closed && self.pipe.borrow().to_client.is_empty();
        if is_cut_off && !self.hung_up {
            assert!(!self.steady, "who reads is not cut off");
            self.hang_up();
        }
    }

    fn hear(&mut self, text: &[u8], history: &History, symbols: &Symbols) {
        let text = std::str::from_utf8(text).expect("UTF-8");
        let Kind { kind } = serde_json::from_str(text).expect("a type");
        if kind == "batch" {
            let batch: Batch<'_> = serde_json::from_str(text).expect("a batch");
            return self.batch(&batch, history, symbols);
        }
        let message: Value = serde_json::from_str(text).expect("JSON");
        match kind {
            "welcome" => assert_eq!(message["epoch"], "world"),
            "subscribed" => self.subscribed(&message),
            "updated" => self.updated(&message),
            "unsubscribed" => {
                let number = message["stream"].as_u64().expect("a stream");
                self.streams.remove(&number).expect("one of ours");
            }
            "heartbeat" => {
                self.seen.heartbeats += 1;
                for (number, said) in message["streams"].as_object().expect("streams") {
                    let stream =
                        self.streams.get_mut(&number.parse().expect("a number")).expect("one of ours");
                    assert_eq!(said["seq"].as_u64(), stream.seq, "a heartbeat names the last seq given");
                    let rev = said["rev"].as_u64().expect("a rev");
                    assert!(rev >= stream.rev, "a heartbeat's rev never falls");
                    stream.rev = rev;
                    if stream.snapshot_done && !stream.joining {
                        stream.check_promise(rev, history, symbols);
                    }
                }
            }
            "list" => {}
            // A name that was given up meanwhile; or the last topic, which an update must not take.
            "error" => {
                let code = message["code"].as_str().expect("a code");
                if code == "node_behind" {
                    // It comes back with the same cursor until the node is there.
                    self.seen.behind += 1;
                    self.behind.push(message["id"].as_str().expect("an id").to_owned());
                    return;
                }
                assert!(["unknown_sub", "bad_request", "unknown_topic"].contains(&code), "{message}");
            }
            other => panic!("unexpected {other}"),
        }
    }

    fn subscribed(&mut self, message: &Value) {
        let mut stream = Stream::new(message);
        stream.asked = self.asked.get(&stream.sub).cloned().unwrap_or_default();
        match (message["recovered"].as_str(), self.kept.remove(&stream.sub)) {
            (None, None) => {}
            (Some("reset"), Some(_)) if stream.filter.is_some() => self.seen.resets += 1,
            (Some("reset"), Some(kept)) => {
                self.seen.resets += 1;
                assert_ne!(stream.wish, "another");
                assert_ne!(stream.asked["since"]["wish"], kept.wish.as_str(), "nothing stood in the way");
            }
            (Some(_), Some(kept)) => {
                self.seen.resumes += 1;
                assert_eq!(stream.wish, kept.wish, "the same subscription has the same name everywhere");
                stream.goes_on(kept, message);
                stream.resumed = true;
            }
            (verdict, kept) => panic!("{verdict:?} for {kept:?}"),
        }
        let number = message["stream"].as_u64().expect("a stream");
        assert!(self.streams.insert(number, stream).is_none(), "a session is on a stream once");
    }

    fn updated(&mut self, message: &Value) {
        self.seen.updates += 1;
        let mut stream = Stream::new(message);
        let (number, had) = self.streams.iter().find(|(_, had)| had.sub == stream.sub).expect("one of ours");
        let (number, had) = (*number, had.clone());
        if message["stream"] == number {
            return; // nothing was to be changed
        }
        self.streams.remove(&number);
        stream.resumed = had.resumed;
        stream.asked = Value::Null; // what it is now was never one command, so it is not resumed
        if had.snapshot_done && had.filter.is_none() && stream.filter.is_none() {
            stream.goes_on(had, message);
        }
        let number = message["stream"].as_u64().expect("a stream");
        assert!(self.streams.insert(number, stream).is_none(), "a session is on a stream once");
    }

    fn batch(&mut self, batch: &Batch<'_>, history: &History, symbols: &Symbols) {
        let stream = self.streams.get_mut(&batch.stream).expect("frames come after their answer");
        self.seen.frames += 1;
        self.seen.more += u64::from(batch.more);
        self.seen.added += batch.added.len() as u64;
        // The gap rule.
        assert_eq!(batch.prev, stream.seq, "prev is what we hold");
        assert!(batch.seq >= batch.prev.unwrap_or(0));
        self.seen.merged += u64::from(batch.prev.is_some_and(|prev| batch.seq > prev + 1));
        assert_eq!(batch.snapshot, !stream.snapshot_done, "the first picture and only that");
        stream.snapshot_done |= !batch.more;
        stream.seq = Some(batch.seq);
        assert!(batch.rev >= stream.rev, "a frame's rev never falls");
        stream.rev = batch.rev;
        // Who joins with something in hand may be given the frames since its answer as one, outside the slots.
        let joins = stream.joining;
        stream.joining &= batch.more;
        if self.steady && !joins {
            assert!(batch.prev.is_none_or(|prev| batch.seq <= prev + 1), "who reads at once is never merged");
        }
        // Trades do not wait for a slot in this mode, nor do frames that only lead onto the stream.
        let is_event = |row: &&RawValue| !["[0", "[1"].contains(&&row.get()[..2]) && !is_image(row);
        let apart = stream.mode == "trade_safe"
            && (batch.rows.is_empty() || !batch.gaps.is_empty() || batch.rows.iter().any(is_event));
        if let (Some(slot_ns), false) = (stream.slot_ns, batch.snapshot || batch.more || joins || apart) {
            // One frame at most per slot, wherever the slots begin.
            let first_us = *stream.first_us.get_or_insert(batch.ts_us);
            stream.slots_used += 1;
            let slots = (batch.ts_us - first_us) * 1_000 / slot_ns;
            assert!(stream.slots_used <= slots + 2, "{} frames in {slots} slots", stream.slots_used);
        }
        (stream.may_be_whole, stream.is_picture) = (batch.added.clone(), batch.snapshot);
        for gap in &batch.gaps {
            self.seen.gaps += 1;
            if !gap.topic.contains(':') {
                self.seen.lost += 1;
                assert!(stream.mode != "conflate" && gap.from.is_none(), "{gap:?}");
                stream.may_be_whole.push(gap.topic.clone());
                continue;
            }
            // Of a topic that came while we watched, the first number seen begins the count.
            let held = stream.q.get(&gap.topic).copied();
            let joins = held.is_none_or(|held| {
                let before = |from| stream.left_out(&gap.topic, held + 1..from, history, symbols);
                gap.from.is_none_or(|from| from <= held + 1 || before(from))
            });
            assert!(joins, "{}: gap from {:?}, held {held:?}", gap.topic, gap.from);
            stream.q.insert(gap.topic.clone(), gap.to.max(held.unwrap_or(0)));
        }
        let columns = stream.columns.clone();
        for row in &batch.rows {
            self.seen.rows += 1;
            self.seen.arrays += u64::from(columns.is_some());
            let row = stream.read(columns.as_deref(), row);
            stream.apply(&row, history, symbols, &mut self.seen);
        }
        // While what an update asked for is still coming, rows may lack it.
        if stream.snapshot_done && !(batch.more && joins) {
            stream.check_promise(stream.rev, history, symbols);
        }
        if let Some(digest) = batch.digest {
            self.seen.digests += 1;
            assert_eq!(digest, stream.digest(symbols), "what we hold is what the gateway says we hold");
        }
    }

    /// In the end every stream holds the images of the hub, and every event up to the last.
    pub fn check_settled(&mut self, history: &History, symbols: &Symbols) {
        for stream in self.streams.values_mut() {
            assert!(stream.snapshot_done, "a picture under way after the market stood still");
            stream.check_promise(u64::MAX, history, symbols);
            for (topic, q) in stream.q.iter().filter(|_| stream.all_trades()) {
                if let Some(name) = topic.strip_prefix("trade:") {
                    let symbol = symbols.find(name).expect("listed");
                    let end = history.trades[symbol.index()].len() as u64;
                    let all = *q == end || stream.left_out(topic, *q + 1..end + 1, history, symbols);
                    assert!(all, "{topic}: every trade was given or announced as lost");
                }
            }
        }
    }
}

impl Stream {
    fn new(message: &Value) -> Self {
        let strings = |value: &Value| {
            let list = value.as_array()?;
            Some(list.iter().map(|name| name.as_str().expect("a name").to_owned()).collect())
        };
        let filter = message["filter"].as_str().map(Reference::named);
        assert_eq!(filter.is_some(), message["q"] == "sparse");
        let q = message["q"].as_object().into_iter().flatten();
        Self {
            sub: message["sub"].as_str().expect("a sub").to_owned(),
            wish: message["wish"].as_str().expect("a wish").to_owned(),
            mode: message["mode"].as_str().expect("a mode").to_owned(),
            filter,
            slot_ns: message["rate"].as_f64().map(|rate| (1e9 / rate) as u64),
            fields: strings(&message["fields"]),
            columns: message["columns"].as_array().map(|lists| Rc::new(lists.iter().map(columns).collect())),
            q: q.map(|(topic, q)| (topic.clone(), q.as_u64().expect("a number"))).collect(),
            ..Self::default()
        }
    }

    /// Takes over what an earlier stream held: the first frame goes on from the answer.
    fn goes_on(&mut self, had: Self, message: &Value) {
        let same = had.all_trades() == self.all_trades();
        (self.rows, self.books, self.rev) = (had.rows, had.books, had.rev);
        (self.image_q, self.whole_rev) = (had.image_q, had.whole_rev);
        (self.seq, self.snapshot_done, self.joining) = (message["seq"].as_u64(), true, true);
        self.resumed = had.resumed;
        for topic in message["removed"].as_array().into_iter().flatten() {
            let topic = topic.as_str().expect("a topic");
            self.rows.remove(topic);
            topic.strip_prefix("book:").map(|name| self.books.remove(name));
        }
        if let Some(fields) = &self.fields {
            for Held { fields: held, .. } in self.rows.values_mut() {
                let any = held.keys().any(|key| key != "state" && fields.contains(key));
                held.retain(|key, _| !any || fields.contains(key));
            }
        }
        // Other fields may be selected now.
        self.rows.values_mut().for_each(|held| held.agreed = 0);
        for (topic, q) in had.q.into_iter().filter(|_| same) {
            self.q.entry(topic).and_modify(|now| *now = (*now).max(q));
        }
    }

    fn all_trades(&self) -> bool {
        self.mode == "every" || self.mode == "trade_safe"
    }

    /// The digest by `docs/protocol.md`, of what is held.
    fn digest(&self, symbols: &Symbols) -> u32 {
        let plain = |text: &str| {
            let text = text.trim_matches('"');
            if text == "null" {
                return String::new();
            }
            text.parse::<Decimal>().map_or_else(|_| text.replace('-', ""), |n| n.normalize().to_string())
        };
        let mut sum = 0u32;
        for (name, Held { fields: held, .. }) in &self.rows {
            let symbol = symbols.find(name).expect("listed");
            let table = symbols.listing(symbol).expect("listed").channel.fields();
            let fields = table.iter().filter_map(|field| Some((field.name, held.get(field.name)?)));
            let fields: String = fields.map(|(name, value)| format!(";{name}={}", plain(value))).collect();
            sum = sum.wrapping_add(crc32c(&format!("{name}{fields}")));
        }
        for (name, (_, held)) in &self.books {
            let side = |key: &str| {
                let levels: Vec<[Box<RawValue>; 2]> = serde_json::from_str(&held[key]).expect("levels");
                let level = |[price, size]: &[Box<RawValue>; 2]| {
                    format!("{}:{},", plain(price.get()), plain(size.get()))
                };
                levels.iter().map(level).collect::<String>()
            };
            let (state, bids, asks) = (plain(&held["state"]), side("bids"), side("asks"));
            sum = sum.wrapping_add(crc32c(&format!("book:{name};state={state};bids={bids};asks={asks}")));
        }
        sum
    }

    /// Events of a lossless topic come without holes; after a resume those that were there before a frame was whole may
    /// come again.
    fn next_event(&mut self, topic: &str, q: u64) {
        let held = self.q.entry(topic.to_owned()).or_insert(q - 1);
        assert!(q == *held + 1 || self.resumed && q <= *held, "{topic}: the next event: {q} after {held}");
        *held = q.max(*held);
    }

    /// A row by its keys, whichever way it came.
    fn read<'a>(&self, columns: Option<&'a Columns>, row: &'a RawValue) -> RawRow<'a> {
        let Some(columns) = columns.filter(|_| row.get().starts_with('[')) else {
            return serde_json::from_str(row.get()).expect("an object");
        };
        let values: Vec<&RawValue> = serde_json::from_str(row.get()).expect("an array");
        let list = values[0].get().parse::<usize>().expect("a list's number");
        let names = columns[list].as_ref().expect("the channel was announced");
        let keys = names.iter().map(String::as_str);
        let Some(mask_at) = names.iter().position(|name| name == "mask") else {
            assert_eq!(values.len(), names.len(), "a value for each column");
            let mut row: RawRow<'_> = keys.zip(values).skip(1).collect();
            row.insert("channel", serde_json::from_str(&names[0]).expect("a string"));
            return row;
        };
        let mut row: RawRow<'_> = keys.clone().zip(values.iter().copied()).take(mask_at).skip(1).collect();
        let mask: u64 = values[mask_at].get().parse().expect("a mask");
        let fields = keys.skip(mask_at + 1).enumerate();
        let named: Vec<_> = fields.filter(|(bit, _)| mask >> bit & 1 == 1).map(|(_, name)| name).collect();
        assert_eq!(values.len() - mask_at - 1, named.len(), "a value for each bit");
        // All columns at once may also be all that changed.
        let name = row["symbol"].get().trim_matches('"');
        let is_whole = self.mode == "conflate" || self.may_be_whole(name);
        if named.len() == names.len() - mask_at - 1 && is_whole {
            row.insert("full", serde_json::from_str("true").expect("JSON"));
        }
        row.extend(named.into_iter().zip(values.into_iter().skip(mask_at + 1)));
        row
    }

    fn apply(&mut self, row: &RawRow<'_>, history: &History, symbols: &Symbols, seen: &mut Seen) {
        let text = |key: &str| row.get(key).map(|value| value.get().trim_matches('"').to_owned());
        let number = |key: &str| text(key).and_then(|text| text.parse::<u64>().ok());
        let name = text("symbol").expect("a symbol");
        if row.contains_key("out") {
            return self.take_out(&name, history, symbols, seen);
        }
        let (rev, q) = (number("rev").expect("a rev"), number("q").expect("a q"));
        self.seen_rev = self.seen_rev.max(rev);
        match text("channel").as_deref() {
            Some("trade") => {
                seen.events += 1;
                assert_eq!(number("trade_id"), Some(q), "the n-th trade has the number n");
                self.apply_trade(&name, rev, q, history, symbols, seen);
            }
            Some("status") => {
                seen.events += 1;
                self.next_event(&format!("status:{name}"), q);
            }
            Some(bar) if bar.starts_with("bar_") => {
                let topic = format!("{bar}:{name}");
                if text("final").as_deref() == Some("true") {
                    seen.bars += 1;
                    self.next_event(&topic, q);
                } else {
                    let held = self.q.get(&topic).copied();
                    assert!(held.is_none_or(|held| q > held), "{topic}: open bar {q} after final {held:?}");
                }
            }
            Some("book") => {
                seen.books += 1;
                let fields = row.iter().map(|(key, value)| ((*key).to_owned(), value.get().to_owned()));
                let held = self.books.insert(name, (rev, fields.collect()));
                assert!(self.resumed || held.is_none_or(|held| held.0 <= rev), "a book never goes back");
            }
            Some(other) => panic!("unexpected channel {other}"),
            None => {
                let fields = row.iter().filter(|(key, _)| !KEYS.contains(key));
                let fields = fields.map(|(key, value)| ((*key).to_owned(), value.get().to_owned()));
                let (fields, is_full) = (fields.collect(), row.contains_key("full"));
                let image = history.exactly(symbols.find(&name).expect("listed"), rev);
                self.apply_image(&name, ImageRow { rev, q, is_full, fields }, image, seen);
            }
        }
    }

    fn apply_trade(
        &mut self,
        name: &str,
        rev: u64,
        q: u64,
        history: &History,
        symbols: &Symbols,
        seen: &mut Seen,
    ) {
        let topic = format!("trade:{name}");
        let price = history.trades[symbols.find(name).expect("listed").index()][q as usize - 1];
        assert!(self.filter.is_none_or(|filter| filter.takes_trade(price)), "{name}: a trade at {price}");
        let held = self.q.get(&topic).copied().unwrap_or(q - 1);
        if !self.all_trades() {
            let held = self.q.insert(topic, q);
            assert!(held.is_none_or(|held| held <= q), "{name}: {q} after {held:?}");
            return;
        }
        if self.mode == "trade_safe" && q > held {
            self.meets(name, rev, history, symbols, seen);
        }
        if q > held + 1 && self.left_out(&topic, held + 1..q, history, symbols) {
            seen.left_out += q - held - 1;
            self.q.insert(topic.clone(), q - 1);
        }
        self.next_event(&topic, q);
    }

    /// `image`: as it was at the row's revision, where the history has a page for it.
    fn apply_image(&mut self, name: &str, row: ImageRow, image: Option<&Fields>, seen: &mut Seen) {
        let ImageRow { rev, q, is_full, fields } = row;
        if self.resumed && !is_full && self.rows.get(name).is_some_and(|held| rev <= held.rev) {
            return; // a repeat
        }
        if self.mode == "every" {
            self.next_change(name, q, is_full, seen);
        }
        self.image_q.insert(name.to_owned(), q);
        if is_full {
            self.whole_rev.insert(name.to_owned(), rev);
        }
        assert!(image.is_some() || self.mode != "conflate", "{name}: {rev} is a rev at which a cut was made");
        if let Some((filter, image)) = self.filter.zip(image) {
            assert!(filter.takes(image), "{name} at {rev}: {image:?}");
            seen.entered += u64::from(self.snapshot_done && !self.rows.contains_key(name));
        }
        let held = self.rows.entry(name.to_owned()).or_default();
        assert!(is_full || held.rev > 0, "{name}: the first row is whole");
        // Another node may not have come to what is held, which may be newer than the cursor.
        assert!(rev >= held.rev || self.resumed && is_full, "{name}: a row never goes back");
        if is_full {
            held.fields.clear();
        }
        (held.rev, held.agreed) = (rev, 0);
        held.fields.extend(fields);
        // Each selected field equals the image at its row's rev.
        if let Some(image) = image {
            held.agree(name, self.fields.as_deref(), rev, image);
        }
    }

    fn may_be_whole(&self, name: &str) -> bool {
        self.is_picture || !self.rows.contains_key(name) || self.may_be_whole.iter().any(|may| may == name)
    }

    /// Where each change is given: the next number, or the same again when only the state changed.
    fn next_change(&self, name: &str, q: u64, is_full: bool, seen: &mut Seen) {
        let Some(held) = self.image_q.get(name).filter(|_| self.rows.contains_key(name)) else { return };
        if is_full {
            assert!(self.may_be_whole(name), "{name}: whole, and nothing was lost");
            return;
        }
        seen.each += 1;
        let next = q == held + 1 || q == *held || self.fields.is_some() && q > *held;
        assert!(next, "{name}: change {q} after {held}");
    }

    /// A trade meets the quote that was in force; only a whole row may be newer than that.
    fn meets(&self, name: &str, rev: u64, history: &History, symbols: &Symbols, seen: &mut Seen) {
        let Some(Held { rev: held, fields, .. }) = self.rows.get(name) else { return };
        if *held > rev {
            assert_eq!(
                self.whole_rev.get(name),
                Some(held),
                "{name}: a quote of {held} before a trade of {rev}"
            );
            return;
        }
        let symbol = symbols.find(name).expect("listed");
        let (_, image) = history.at(symbol, rev).expect("an image");
        if let Some(bid) = fields.get("bid").filter(|_| history.is_fine) {
            seen.met += 1;
            assert_eq!(*bid, image["bid"], "{name}: bid met by the trade of {rev}, held {held}");
        }
    }

    /// A row that the filter no longer lets through. It may have gone before: then nothing is held of it.
    fn take_out(&mut self, name: &str, history: &History, symbols: &Symbols, seen: &mut Seen) {
        let filter = self.filter.expect("a filter");
        seen.outs += 1;
        if let Some(Held { rev, .. }) = self.rows.remove(name) {
            let mut since = history.since(symbols.find(name).expect("listed"), rev);
            assert!(since.any(|image| !filter.takes(image)), "{name} was let through ever since {rev}");
        }
    }

    /// Whether all these trades are such as the filter leaves out.
    fn left_out(&self, topic: &str, numbers: Range<u64>, history: &History, symbols: &Symbols) -> bool {
        let Some((filter, name)) = self.filter.zip(topic.strip_prefix("trade:")) else { return false };
        let prices = &history.trades[symbols.find(name).expect("listed").index()];
        let prices = &prices[numbers.start as usize - 1..numbers.end as usize - 1];
        prices.iter().all(|price| !filter.takes_trade(*price))
    }

    /// No topic has an unsent change at or below this revision.
    fn check_promise(&mut self, promised: u64, history: &History, symbols: &Symbols) {
        for (name, held) in &mut self.rows {
            let symbol = symbols.find(name).expect("listed");
            let (&since, image) = history.at(symbol, promised.max(held.rev)).expect("an image");
            if held.rev > promised && history.exactly(symbol, held.rev).is_none() {
                continue; // between two pages of the history
            }
            match self.filter {
                // Of what may be held back only the state is promised.
                Some(filter) if filter.waits => assert_eq!(held.fields["state"], image["state"], "{name}"),
                _ if held.agreed == since => {}
                _ => held.agree(name, self.fields.as_deref(), since, image),
            }
        }
        if let (Some(filter), Some(topics)) = (self.filter, self.asked["topics"].as_array()) {
            let topics = topics.iter().filter_map(Value::as_str);
            for (name, is_in) in expected(filter, topics, promised, history, symbols) {
                assert_eq!(self.rows.contains_key(&name), is_in, "{name} at {promised}");
            }
        }
    }
}

impl Held {
    /// Each selected field equals that of the image, which is such since `rev`.
    fn agree(&mut self, name: &str, selected: Option<&[String]>, rev: u64, image: &Fields) {
        let any =
            image.keys().any(|key| selected.is_some_and(|fields| fields.contains(key) && key != "state"));
        let selected = |key: &String| !any || selected.is_none_or(|fields| fields.contains(key));
        for (key, value) in image.iter().filter(|(key, _)| selected(key)) {
            assert_eq!(self.fields.get(key), Some(value), "{name}.{key} at {rev}");
        }
        for key in self.fields.keys() {
            assert!(selected(key), "{name}.{key} was not selected");
        }
        self.agreed = rev;
    }
}

/// Whether a row is an object without a channel.
fn is_image(row: &RawValue) -> bool {
    row.get().starts_with('{') && !row.get().contains("\"channel\":")
}

/// The names of a channel's columns; the first, which is the channel's own, as it stands in JSON.
fn columns(list: &Value) -> Option<Vec<String>> {
    let names = list.as_array()?.iter().map(|name| name.as_str().expect("a name").to_owned());
    let quoted = |(at, name)| if at == 0 { format!("\"{name}\"") } else { name };
    Some(names.enumerate().map(quoted).collect())
}

/// CRC-32C, bit by bit.
fn crc32c(text: &str) -> u32 {
    !text.bytes().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    })
}
